//! The flagged images alone, the most suspicious first, as CSV and JSON.
//!
//! Columns: `rank` (from 1), `id`, `path`, `label`, `class`, `suspicion`, `p_value`, `verdict`, `reason`, then one `score_<name>` for each
//! score; in JSON the scores are an object by name. A score that is not finite is `null` in JSON.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::ledger::Ledger;
use super::verdict::Verdict;
use crate::artefact::{write_atomically, write_json};
use crate::error::{Error, Result};
use crate::text::inert;

/// Rows of the flagged images, the most suspicious first; ties in the order of the set.
pub fn flagged_by_rank(ledger: &Ledger) -> Vec<usize> {
    let rows = &ledger.rows;
    let mut flagged: Vec<usize> =
        (0..rows.len()).filter(|&index| rows[index].verdict != Verdict::Keep).collect();
    flagged.sort_by(|&a, &b| rows[b].suspicion.total_cmp(&rows[a].suspicion).then(a.cmp(&b)));
    flagged
}

/// One flagged image.
#[derive(Serialize)]
struct Suspicious<'a> {
    rank: usize,
    id: &'a str,
    path: &'a str,
    label: u32,
    class: &'a str,
    suspicion: f64,
    p_value: f64,
    verdict: Verdict,
    reason: &'a str,
    scores: Map<String, Value>,
}

fn suspicious<'a>(ledger: &'a Ledger, classes: &'a [String]) -> impl Iterator<Item = Suspicious<'a>> {
    flagged_by_rank(ledger).into_iter().zip(1..).map(|(index, rank)| {
        let row = &ledger.rows[index];
        let scores = ledger.score_names.iter().cloned().zip(row.scores.iter().map(|&score| score.into()));
        Suspicious {
            rank,
            id: &row.id,
            path: &row.path,
            label: row.label,
            class: classes.get(row.label as usize).map_or("", String::as_str),
            suspicion: row.suspicion,
            p_value: row.p_value,
            verdict: row.verdict,
            reason: &row.reason,
            scores: scores.collect(),
        }
    })
}

/// Writes the flagged images of a ledger as CSV, atomically.
pub fn write_suspicious_csv(ledger: &Ledger, classes: &[String], path: &Path) -> Result<()> {
    const COLUMNS: [&str; 9] =
        ["rank", "id", "path", "label", "class", "suspicion", "p_value", "verdict", "reason"];
    write_atomically(path, |out| {
        let mut table = csv::Writer::from_writer(out);
        let write = |failure: csv::Error| Error::io("write", path)(failure.into());
        let scores = ledger.score_names.iter().map(|name| format!("score_{name}"));
        table.write_record(COLUMNS.map(str::to_owned).into_iter().chain(scores)).map_err(write)?;
        for (row, index) in suspicious(ledger, classes).zip(flagged_by_rank(ledger)) {
            let figure = |value: f64| format!("{value:?}"); // shortest that reads back
            let Suspicious { rank, id, path, label, class, suspicion, p_value, verdict, reason, .. } = row;
            let cells = [
                rank.to_string(),
                id.to_owned(),
                inert(path),
                label.to_string(),
                inert(class),
                figure(suspicion),
                figure(p_value),
                verdict.word().to_owned(),
                inert(reason),
            ];
            let scores = ledger.rows[index].scores.iter().map(|&score| figure(score));
            table.write_record(cells.into_iter().chain(scores)).map_err(write)?;
        }
        table.flush().map_err(Error::io("write", path))
    })
}

/// Writes the flagged images of a ledger as a JSON array, atomically.
pub fn write_suspicious_json(ledger: &Ledger, classes: &[String], path: &Path) -> Result<()> {
    write_json(path, &suspicious(ledger, classes).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purify::LedgerRow;

    fn ledger() -> Ledger {
        let row = |path: &str, suspicion, verdict| LedgerRow {
            id: format!("id of {path}"),
            path: path.to_owned(),
            label: 1,
            suspicion,
            p_value: 0.25,
            threshold: 1.0,
            verdict,
            reason: "a, b".to_owned(),
            scores: vec![suspicion, 0.5],
        };
        let rows = vec![
            row("low", 0.5, Verdict::Keep),
            row("first of two", 2.0, Verdict::Discard),
            row("second of two", 2.0, Verdict::Reconstruct),
            row("unscored", f64::NAN, Verdict::Discard),
        ];
        Ledger { score_names: vec!["kl".to_owned(), "mse".to_owned()], rows }
    }

    #[test]
    fn the_most_suspicious_come_first_and_what_could_not_be_scored_before_them() {
        assert_eq!(flagged_by_rank(&ledger()), [3, 1, 2]);
    }

    #[test]
    fn both_files_have_the_flagged_images_with_every_score()
    -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let (csv, json) = (folder.path().join("a.csv"), folder.path().join("a.json"));
        let classes = ["cat".to_owned(), "dog".to_owned()];
        write_suspicious_csv(&ledger(), &classes, &csv)?;
        write_suspicious_json(&ledger(), &classes, &json)?;
        let text = std::fs::read_to_string(csv)?;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "rank,id,path,label,class,suspicion,p_value,verdict,reason,score_kl,score_mse");
        assert_eq!(lines[2], "2,id of first of two,first of two,1,dog,2.0,0.25,discard,\"a, b\",2.0,0.5");
        assert_eq!(lines.len(), 4);
        let rows: Vec<Value> = crate::artefact::read_json(&json)?;
        assert_eq!(rows.len(), 3);
        assert_eq!((&rows[0]["suspicion"], &rows[0]["scores"]["kl"]), (&Value::Null, &Value::Null));
        assert_eq!((&rows[2]["rank"], &rows[2]["scores"]["mse"]), (&3.into(), &0.5.into()));
        assert_eq!(rows[2]["verdict"], "reconstruct");
        Ok(())
    }
}
