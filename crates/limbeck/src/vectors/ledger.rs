//! The ledger: for each audited row what was measured, what was decided, and why.
//!
//! Columns `id` (row number and content hash), `row` (from 1), one `target_<name>` for each target as the audit saw it, `suspicion`, `p_value`, `threshold`, `verdict`, `reason`,
//! then one `score_<name>` for each score. Figures have as many digits as read back exactly.

use std::path::Path;

use super::audit::Judgement;
use super::table::Table;
use super::verdict::VECTOR_SCORES;
use crate::artefact::write_atomically;
use crate::error::{Error, Result};

/// Writes the ledger of the audited rows at `rows` of a table, atomically.
///
/// # Errors
/// [`Error::Io`] as in [`write_atomically`].
pub(super) fn write_ledger(path: &Path, table: &Table, rows: &[usize], found: &Judgement) -> Result<()> {
    let mut header = vec!["id".to_owned(), "row".to_owned()];
    header.extend(table.targets().iter().map(|name| format!("target_{name}")));
    header.extend(["suspicion", "p_value", "threshold", "verdict", "reason"].map(str::to_owned));
    header.extend(VECTOR_SCORES.iter().map(|(_, name, _)| format!("score_{name}")));
    // The shortest that reads back.
    let figure = |value: f64| format!("{value:?}");
    write_records(
        path,
        &header,
        rows.iter().zip(&found.rows).map(|(&row, judged)| {
            let mut fields = vec![table.id(row), (row + 1).to_string()];
            fields.extend((0..table.targets().len()).map(|place| table.target(row, place)));
            fields.extend([judged.suspicion, judged.p_value, found.threshold.value()].map(figure));
            fields.extend([judged.verdict.word().to_owned(), judged.reason.to_owned()]);
            fields.extend(judged.scores.map(figure));
            fields
        }),
    )
}

/// Writes a csv table, atomically.
pub(super) fn write_records(
    path: &Path,
    header: &[String],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    write_atomically(path, |out| {
        let mut table = csv::Writer::from_writer(out);
        let write = |failure: csv::Error| Error::io("write", path)(failure.into());
        table.write_record(header).map_err(write)?;
        for row in rows {
            table.write_record(row).map_err(write)?;
        }
        table.flush().map_err(Error::io("write", path))
    })
}
