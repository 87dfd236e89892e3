//! The outcome of a run on feature vectors: findings in sentences, then a table of what is left under attack.

use std::path::Path;

use limbeck::vectors::results::{Quality, VectorResults};
use limbeck::vectors::{Quantity, RowAnswer, RowContent, vector_findings};

use super::table::Table;
use super::{interval, share};

/// What a run on vectors found, and where the rest lies.
pub(crate) fn vectors(results: &VectorResults, out: &Path) -> String {
    let models = &results.models;
    let mut table = Table::of(
        [vec!["test rows".to_owned()], models.iter().map(|model| model.model.clone()).collect()].concat(),
    );
    for (at, case) in models.iter().take(1).flat_map(|model| model.cases.iter().enumerate()) {
        let figures = models
            .iter()
            .map(|model| model.cases.get(at).map_or(String::new(), |case| figure(&case.quality)));
        table.row([case.inputs.clone()].into_iter().chain(figures).collect::<Vec<_>>());
    }
    let [ledger, report] = ["ledger.csv", "report.html"].map(|file| out.join(file));
    let findings = vector_findings(results).join("\n");
    format!("{findings}\n\n{table}\nledger: {}\nreport: {}\n", ledger.display(), report.display())
}

/// Answers to rows as a table.
pub(crate) fn row_answers(answers: &[RowAnswer]) -> String {
    let mut table = Table::new(["path", "row", "answer", "uncertainty"]).right(1).right(3);
    for answer in answers {
        let says = match (&answer.answer, answer.null) {
            (_, true) => "null".to_owned(),
            (RowContent::Class(name), false) => name.clone(),
            (RowContent::Quantities(quantities), false) => {
                quantities.iter().map(quantity).collect::<Vec<_>>().join(", ")
            }
        };
        let (path, row) = (answer.path.display().to_string(), answer.row.to_string());
        table.row([path, row, says, format!("{:.4}", answer.uncertainty)]);
    }
    table.to_string()
}

fn quantity(quantity: &Quantity) -> String {
    let Quantity { name, value, interval } = quantity;
    let interval = interval.map_or(String::new(), |[low, high]| format!(" ({low:.4} to {high:.4})"));
    format!("{name} {value:.4}{interval}")
}

/// A figure with its 95 % interval.
fn figure(quality: &Quality) -> String {
    match quality {
        Quality::Accuracy(rate) => format!("{} ({})", share(*rate), interval(*rate)),
        Quality::Error(figures) => {
            let [low, high] = figures.rmse_interval;
            format!("RMSE {:.4} ({low:.4} to {high:.4}), R² {:.3}", figures.rmse, figures.r2)
        }
    }
}
