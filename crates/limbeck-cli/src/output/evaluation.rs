//! A whole run in brief: what worked and what failed, and the figures behind it.

use std::fmt::Write;

use anyhow::Context;
use limbeck::evaluate::results::{AbstentionSummary, Evaluation, ModelRow, Rate, Statement};
use serde_json::Value;

use super::robustness::{comparisons, failed_checks, worst_cases};
use super::table::Table;
use super::{images, interval, outcome, percent, share};

/// Figures of an evaluation that fill pages: the report draws them, a summary leaves them out.
const BULKY: [&str; 4] = ["suspicion_points", "triptychs", "attacked_examples", "config_toml"];

/// All figures but the bulky ones.
pub(crate) fn brief_json(evaluation: &Evaluation) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(evaluation).context("cannot write the evaluation as JSON")?;
    if let Some(whole) = value.as_object_mut() {
        BULKY.iter().for_each(|key| drop(whole.remove(*key)));
    }
    for score in value["detection"].as_array_mut().into_iter().flatten() {
        score.as_object_mut().and_then(|score| score.remove("roc"));
    }
    Ok(value)
}

/// Statements first, then the key figures.
pub(crate) fn summary(evaluation: &Evaluation) -> String {
    [
        statements(&evaluation.statements),
        audited(evaluation),
        detection(evaluation),
        models(&evaluation.models),
        worst_cases(&evaluation.robustness.worst_cases),
        comparisons(&evaluation.robustness.comparisons),
        failed_checks(&evaluation.checks),
        controls(evaluation),
        answers(&evaluation.abstention),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn statements(statements: &[Statement]) -> String {
    statements.iter().fold(String::new(), |text, statement| {
        format!("{text}{}{}\n", outcome(statement.outcome), statement.text)
    })
}

fn audited(evaluation: &Evaluation) -> String {
    let (data, verdicts) = (&evaluation.dataset, evaluation.verdicts);
    let by_hand = match evaluation.decided_by_hand {
        0 => String::new(),
        count => format!(", {count} of them by hand"),
    };
    let mut text = format!(
        "{}: {} audited, {} trusted, {} for test\nverdicts: keep {}, reconstruct {}, discard {}{}\n",
        data.name,
        data.train_images,
        data.trusted_images,
        data.test_images,
        verdicts.keep,
        verdicts.reconstruct,
        verdicts.discard,
        by_hand
    );
    if let Some(poison) = &evaluation.poison {
        let (count, kind, relabelled) = (images(poison.images), &poison.poison, poison.relabelled);
        writeln!(text, "simulated attacker: {count} poisoned with {kind}, {relabelled} of them relabelled")
            .expect("a String takes any text");
    }
    text
}

fn detection(evaluation: &Evaluation) -> String {
    let Some(row) = evaluation.detection.iter().find(|row| row.decides) else { return String::new() };
    let mut table = Table::new(["deciding score", "AUROC", "recall", "false positives", "recall at 1 %"])
        .right(1)
        .right(2)
        .right(3)
        .right(4);
    table.row([
        row.score.clone(),
        format!("{:.3}", row.auroc),
        share(row.recall),
        share(row.false_positives),
        percent(row.recall_at_1_percent),
    ]);
    table.to_string()
}

fn models(rows: &[ModelRow]) -> String {
    let mut table = Table::new(["model", "clean accuracy", "95 % interval", "worst attack", ""])
        .right(1)
        .right(2)
        .right(3);
    for row in rows {
        let worst = row.attacked.iter().min_by(|a, b| order(a.accuracy).total_cmp(&order(b.accuracy)));
        table.row([
            row.model.clone(),
            share(row.clean),
            interval(row.clean),
            worst.map_or("–".to_owned(), |attack| share(attack.accuracy)),
            worst.map_or(String::new(), |attack| attack.attack.clone()),
        ]);
    }
    table.to_string()
}

/// Attacks without an image come last.
fn order(rate: Rate) -> f64 {
    rate.share().unwrap_or(f64::INFINITY)
}

fn controls(evaluation: &Evaluation) -> String {
    if evaluation.controls.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        "trained behind",
        "removed",
        "reconstructed",
        "poison left",
        "clean accuracy",
        "95 % interval",
        "backdoor works",
    ])
    .right(1)
    .right(2)
    .right(3)
    .right(4)
    .right(5)
    .right(6);
    for row in &evaluation.controls {
        table.row([
            match row.filter.as_str() {
                "none" => "no filter".to_owned(),
                filter => format!("{filter} filter"),
            },
            row.removed.to_string(),
            row.reconstructed.to_string(),
            row.poison_left.map_or("–".to_owned(), |left| left.to_string()),
            share(row.clean),
            interval(row.clean),
            row.backdoor.map_or("–".to_owned(), share),
        ]);
    }
    table.to_string()
}

/// The last column is of a rule that asks the audit's detector.
pub(super) fn answers(abstention: &AbstentionSummary) -> String {
    const COLUMNS: [&str; 5] = ["student's answers to", "right", "wrong", "null", "for looking perturbed"];
    let shown = if abstention.detector.is_some() { COLUMNS.len() } else { COLUMNS.len() - 1 };
    let mut table =
        (1..shown).fold(Table::of(COLUMNS[..shown].iter().map(ToString::to_string).collect()), Table::right);
    for row in abstention.outcomes.iter().chain(&abstention.damaged) {
        let trials = row.right + row.wrong + row.null;
        let counts = [row.right, row.wrong, row.null, row.perturbed];
        let shares = counts.map(|successes| share(Rate { successes, trials }));
        table.row([row.inputs.clone()].into_iter().chain(shares).take(shown).collect::<Vec<_>>());
    }
    table.to_string()
}
