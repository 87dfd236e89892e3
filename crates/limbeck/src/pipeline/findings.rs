//! What an audit leaves for people: the page, the list of suspicious images, and the table in which they overrule it.

use serde::Serialize;

use super::audit::{Audit, Networks};
use super::manifest::StageRecord;
use super::run::Run;
use super::sets::Sets;
use crate::artefact::{hash_file, write_atomically};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::{AuditOrigin, Lenses, audit_findings};
use crate::purify::{
    CalibrationScores, DecisionFile, TrustedScores, offer, write_suspicious_csv, write_suspicious_json,
};

/// Scores of the trusted images as the audit leaves them; see [`Run::audit`].
pub(super) const TRUSTED_SCORES: &str = "trusted_scores.csv";

/// Name under which the manifest knows which table was offered last. It is no stage: people edit its file.
const OFFERED: &str = "decisions";

impl Run<'_> {
    /// Writes `audit.html`, `suspicious.csv` and `suspicious.json` of an audit whose ledger has the verdicts that are proposed.
    pub(super) fn findings(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        networks: &Networks,
        proposed: &Audit,
    ) -> Result<()> {
        #[derive(Serialize)]
        struct Settings<'a> {
            page: crate::evaluate::AuditPageConfig,
            name: &'a str,
            simulated_poison: f64,
        }
        let settings = Settings {
            page: self.config.audit,
            name: &sets.name,
            simulated_poison: self.config.poison.plan.fraction,
        };
        let key = self.key("findings", &settings, &[&proposed.key]);
        let (page, csv, json) = ("audit.html", "suspicious.csv", "suspicious.json");
        let decisive = self.config.purify.score;
        self.stage("findings", &key, &[page, csv, json], |run, _| {
            let scores = TrustedScores::read_column(&run.path(TRUSTED_SCORES), decisive)?;
            let calibration = CalibrationScores::new(scores)?;
            let origin = AuditOrigin {
                limbeck_version: crate::VERSION.to_owned(),
                name: sets.name.clone(),
                content_hash: sets.content_hash().to_owned(),
                seed: run.config.seed,
                simulated_poison: settings.simulated_poison,
                knowledge: run.config.knowledge.setting,
            };
            let lenses = Lenses {
                autoencoder: &networks.dae.value.network,
                undefended: &networks.undefended.value.network,
            };
            let findings = audit_findings(
                origin,
                audited,
                &proposed.ledger,
                &proposed.thresholds[decisive.position()],
                (decisive.name(), &calibration),
                lenses,
                &settings.page,
            )?;
            let html = crate::report::render_audit(&findings)?;
            run.write_text(page, &html)?;
            write_suspicious_csv(&proposed.ledger, audited.classes(), &run.path(csv))?;
            write_suspicious_json(&proposed.ledger, audited.classes(), &run.path(json))
        })
    }

    /// Writes the table of flagged images for a person to fill in, once for each audit, and returns its name.
    ///
    /// It is `decisions.csv`. An edited one is never written over: where the audit was redone since, the next table is
    /// `decisions-2.csv` and so on, with the decisions that were made carried over by id. An untouched one is replaced.
    pub(super) fn offer_decisions(&mut self, audited: &Dataset, proposed: &Audit) -> Result<String> {
        self.visited.insert(OFFERED.to_owned());
        let last = self.manifest.stages.get(OFFERED).cloned();
        let (mut name, mut as_written) = ("decisions.csv".to_owned(), None);
        if let Some(StageRecord { inputs, files }) = last
            && let Some((file, hash)) = files.into_iter().next()
        {
            if inputs == proposed.key && self.path(&file).exists() {
                return Ok(file);
            }
            (name, as_written) = (file, Some(hash));
        }
        let path = self.path(&name);
        let earlier = match path.exists() && Some(hash_file(&path)?) != as_written {
            true => Some(DecisionFile::read(&path)?),
            false => None,
        };
        let text = offer(&proposed.ledger, audited.classes(), earlier.as_ref());
        if earlier.is_some() && std::fs::read(&path).map_err(Error::io("read", &path))? != text.as_bytes() {
            name = self.free_name();
        }
        self.write_text(&name, &text)?;
        self.manifest.record(&self.directory, OFFERED, &proposed.key, &[&name])?;
        Ok(name)
    }

    /// The first of `decisions-2.csv`, `decisions-3.csv`, … that is not there.
    fn free_name(&self) -> String {
        let mut names = (2_u64..).map(|number| format!("decisions-{number}.csv"));
        names
            .find(|name| !self.path(name).exists())
            .expect("a folder holds fewer files than there are numbers")
    }

    fn write_text(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        write_atomically(&path, |out| out.write_all(text.as_bytes()).map_err(Error::io("write", &path)))
    }
}
