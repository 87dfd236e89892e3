//! The table of flagged images that a person fills in.

use super::{DECISION, DecisionFile, ID, class_name};
use crate::purify::{Ledger, LedgerRow, Verdict, flagged_by_rank};
use crate::text::inert;

/// A CSV of the flagged images, the most suspicious first, with an empty column `decision`.
///
/// Decisions of an `earlier` file stay with their images, also with those that are not flagged any more; these come last. Columns: `id`,
/// `path`, `label`, `class`, `suspicion`, `verdict` (as proposed), `decision`, `reason`. Text that a spreadsheet program would run as a
/// formula has an apostrophe before it: names of files may come from a stranger.
pub fn offer(ledger: &Ledger, classes: &[String], earlier: Option<&DecisionFile>) -> String {
    let words = earlier.map(DecisionFile::words).unwrap_or_default();
    let mut table = csv::Writer::from_writer(Vec::new());
    let mut write = |cells: [&str; 8]| table.write_record(cells).expect("writing to memory cannot fail");
    write([ID, "path", "label", "class", "suspicion", "verdict", DECISION, "reason"]);
    let flagged = flagged_by_rank(ledger).into_iter().map(|index| &ledger.rows[index]);
    let others =
        ledger.rows.iter().filter(|row| row.verdict == Verdict::Keep && words.contains_key(row.id.as_str()));
    for row in flagged.chain(others) {
        let LedgerRow { id, path, label, suspicion, verdict, reason, .. } = row;
        write([
            id,
            &inert(path),
            &label.to_string(),
            &inert(class_name(classes, *label)),
            &format!("{suspicion:?}"),
            verdict.word(),
            words.get(id.as_str()).map_or("", String::as_str),
            &inert(reason),
        ]);
    }
    let bytes = table.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("every cell is UTF-8")
}
