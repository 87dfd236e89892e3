//! Decisions by hand over the audit's verdicts: where they come from, how long they hold, and the ledger that they lead to.

use std::path::PathBuf;

use super::audit::Audit;
use super::run::Run;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::purify::{DecisionFile, Decisions};

/// The decisions that a run obeys, until it is given others.
const KEPT: &str = "decided.csv";

/// Which decisions by hand a run obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ByHand {
    /// Those that the run directory was given last, if any.
    #[default]
    Kept,
    /// Those of this file, from now on; a file without any leaves everything to the audit again.
    File(PathBuf),
    /// None, from now on.
    Forgotten,
}

impl Run<'_> {
    /// Reads the decisions that this run obeys, so that a broken file is refused before any work. `None` = there are none.
    pub(super) fn decision_file(&self) -> Result<Option<DecisionFile>> {
        let kept = self.path(KEPT);
        match &self.by_hand {
            ByHand::File(path) => DecisionFile::read(path).map(Some),
            ByHand::Kept if kept.exists() => DecisionFile::read(&kept).map(Some),
            ByHand::Kept | ByHand::Forgotten => Ok(None),
        }
    }

    /// Holds the decisions against the audited set and keeps them in the run directory.
    pub(super) fn decisions(&self, file: Option<&DecisionFile>, audited: &Dataset) -> Result<Decisions> {
        let resolved = file.map(|file| file.resolve(audited)).transpose();
        let decisions = resolved.map_err(|error| self.of_kept(error))?.unwrap_or_default();
        let kept = self.path(KEPT);
        if !decisions.is_empty() {
            decisions.save(&kept, audited.classes())?;
        } else if kept.exists() {
            std::fs::remove_file(&kept).map_err(Error::io("remove", &kept))?;
        }
        Ok(decisions)
    }

    /// Nobody wrote the kept file: who is told of a fault in it is told how to be rid of it.
    fn of_kept(&self, error: Error) -> Error {
        match (&self.by_hand, error) {
            (ByHand::Kept, Error::Data { path, entry, found, expected }) => {
                let way_out = "`limbeck purify DATA --out RUN --forget-decisions` drops what was decided by hand in earlier runs";
                Error::Data { path, entry, found, expected: format!("{expected}; {way_out}") }
            }
            (_, error) => error,
        }
    }

    /// Puts the decisions over what is proposed, and writes the ledger. Its key, on which everything later hangs, changes with them.
    pub(super) fn overruled(
        &mut self,
        proposed: Audit,
        decisions: &Decisions,
        audited: &Dataset,
    ) -> Result<Audit> {
        let Audit { mut ledger, thresholds, key, .. } = proposed;
        let key = self.key("ledger", decisions, &[&key]);
        let labels = decisions.overrule(&mut ledger, audited.classes());
        let (parquet, csv) = ("ledger.parquet", "ledger.csv");
        self.stage("ledger", &key, &[parquet, csv], |run, _| {
            ledger.write_parquet(&run.path(parquet))?;
            ledger.write_csv(&run.path(csv))
        })?;
        Ok(Audit { ledger, labels, thresholds, key })
    }
}
