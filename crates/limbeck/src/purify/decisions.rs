//! Decisions by hand: what a person makes of single images, over what the audit proposes.
//!
//! [`offer`] lists the flagged images with what is proposed for each, in a table that a person edits. [`DecisionFile::read`] reads it
//! back, and [`DecisionFile::resolve`] holds it against the audited set: only what survives that, [`Decisions`], can overrule a ledger.
//!
//! ```
//! use limbeck::purify::DecisionFile;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("decisions.csv");
//! std::fs::write(&path, "id,decision\n00112233445566778899aabbccddeeff,keeep\n")?;
//! let error = DecisionFile::read(&path).expect_err("no such decision").to_string();
//! assert!(error.contains("line 2") && error.contains("`keeep`") && error.contains("discard"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod offer;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

pub use self::file::DecisionFile;
pub use self::offer::offer;
use super::ledger::Ledger;
use super::verdict::Verdict;
use crate::artefact::write_atomically;
use crate::error::{Error, Result};

/// Column with the id of an image, as in the ledger.
const ID: &str = "id";
/// Column that the person fills.
const DECISION: &str = "decision";
/// Before the class of a new label.
const RELABEL: &str = "relabel:";

/// What a person decided about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It gets this verdict.
    Verdict(Verdict),
    /// It is kept under another label, a class index.
    Relabel(u32),
}

/// Decisions about images of one set, by id. Every id is one of the set's, every label one of its classes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decisions {
    by_id: BTreeMap<String, Decision>,
}

impl Decisions {
    /// How many images were decided about.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether everything is left to the audit.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Puts the decisions over a ledger's verdicts and says so in its reasons. Returns the new labels, by row.
    ///
    /// A relabelled image's row keeps the label that it came with; its verdict is that it is kept.
    pub fn overrule(&self, ledger: &mut Ledger, classes: &[String]) -> Vec<(usize, u32)> {
        let mut labels = Vec::new();
        for (index, row) in ledger.rows.iter_mut().enumerate() {
            let Some(&decision) = self.by_id.get(&row.id) else { continue };
            let (verdict, words) = match decision {
                Decision::Verdict(verdict) => (verdict, verdict.word().to_owned()),
                Decision::Relabel(label) => {
                    labels.push((index, label));
                    let [from, to] = [row.label, label].map(|label| class_name(classes, label));
                    (Verdict::Keep, format!("relabel from \"{from}\" to \"{to}\""))
                }
            };
            row.reason =
                format!("decided by hand: {words}; proposed was {}: {}", row.verdict.word(), row.reason);
            row.verdict = verdict;
        }
        labels
    }

    /// Writes the decisions as a file that [`DecisionFile::read`] takes, atomically.
    pub fn save(&self, path: &Path, classes: &[String]) -> Result<()> {
        write_atomically(path, |out| {
            let mut table = csv::Writer::from_writer(out);
            let write = |failure: csv::Error| Error::io("write", path)(failure.into());
            table.write_record([ID, DECISION]).map_err(write)?;
            for (id, decision) in &self.by_id {
                let word = match decision {
                    Decision::Verdict(verdict) => verdict.word().to_owned(),
                    Decision::Relabel(label) => format!("{RELABEL}{}", class_word(classes, *label)),
                };
                table.write_record([id, &word]).map_err(write)?;
            }
            table.flush().map_err(Error::io("write", path))
        })
    }
}

fn class_name(classes: &[String], label: u32) -> &str {
    classes.get(label as usize).map_or("?", String::as_str)
}

/// The class that a word stands for: its name, or else its index.
fn class_of(classes: &[String], word: &str) -> Option<u32> {
    let named = classes.iter().position(|class| class.trim() == word).and_then(|index| index.try_into().ok());
    named.or_else(|| word.parse().ok().filter(|&index: &u32| (index as usize) < classes.len()))
}

/// A word that [`class_of`] takes for this label: its name, unless another class comes first with it.
fn class_word(classes: &[String], label: u32) -> String {
    let name = class_name(classes, label).trim();
    if class_of(classes, name) == Some(label) { name.to_owned() } else { label.to_string() }
}

#[cfg(test)]
mod tests;
