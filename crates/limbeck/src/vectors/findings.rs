//! What a run on vectors found, in sentences: the first thing that the page and the command line say.

use super::results::{Case, CaseKind, ModelFigures, Quality, VectorResults};
use crate::evaluate::results::Rate;
use crate::text::percent;

/// The findings of a run, the most important first.
pub fn vector_findings(results: &VectorResults) -> Vec<String> {
    let mut findings = vec![audited(results)];
    findings.extend(poisoned(results));
    findings.push(clean(results));
    findings.extend(worst(results));
    findings.push(null(results));
    findings.extend(interval(results));
    findings
}

fn audited(results: &VectorResults) -> String {
    let audit = &results.audit;
    let verdicts = audit.verdicts;
    format!(
        "Of {} audited rows {} are flagged ({}); of {} trusted rows {} would be. {} rows are discarded, {} reconstructed.",
        audit.flagged.trials,
        audit.flagged.successes,
        share(audit.flagged),
        audit.trusted_flagged.trials,
        audit.trusted_flagged.successes,
        verdicts.discard,
        verdicts.reconstruct,
    )
}

fn poisoned(results: &VectorResults) -> Option<String> {
    let poison = results.poison.as_ref()?;
    Some(format!(
        "The simulated attacker ({}) poisoned {} rows: {} of them are found, at {} of clean rows flagged.",
        poison.kind,
        poison.poisoned.successes,
        share(poison.found),
        share(poison.clean_flagged),
    ))
}

fn clean(results: &VectorResults) -> String {
    let each = results.models.iter().filter_map(|model| {
        let case = model.cases.iter().find(|case| case.kind == CaseKind::Clean)?;
        Some(format!("{} {}", model.model, words(&case.quality)))
    });
    format!("On {} clean test rows: {}.", results.rows.test, each.collect::<Vec<_>>().join(", "))
}

/// At the largest radius that was attacked.
fn worst(results: &VectorResults) -> Option<String> {
    let last = |model: &ModelFigures| model.cases.iter().rfind(|case| case.kind == CaseKind::Worst).cloned();
    let cases: Vec<(&str, Case)> =
        results.models.iter().filter_map(|model| Some((model.model.as_str(), last(model)?))).collect();
    let inputs = &cases.first()?.1.inputs;
    let each = cases.iter().map(|(model, case)| format!("{model} {}", words(&case.quality)));
    Some(format!("In the {inputs}: {}.", each.collect::<Vec<_>>().join(", ")))
}

fn null(results: &VectorResults) -> String {
    let null = &results.null;
    let asked = percent(null.config.null_rate);
    if null.threshold.is_none() {
        return format!(
            "The student never answers null: {} calibration rows are too few to promise {asked} of any threshold.",
            null.calibration_rows
        );
    }
    let student = results.models.iter().find(|model| model.model == "student");
    let case = student.and_then(|student| student.cases.iter().find(|case| case.kind == CaseKind::Clean));
    let found = case.and_then(|case| case.with_null).map(|with_null| with_null.null).unwrap_or_default();
    format!(
        "The student answers null to {} of clean test rows; at most {asked} were asked for.",
        share(found)
    )
}

fn interval(results: &VectorResults) -> Option<String> {
    if !results.classes.is_empty() {
        return None;
    }
    let Some(intervals) = &results.intervals else {
        return Some(
            "There is no prediction interval: calibration rows are too few for the share that was asked for."
                .to_owned(),
        );
    };
    let first = intervals.first()?;
    let coverage = Rate {
        successes: intervals.iter().map(|interval| interval.coverage.successes).sum(),
        trials: intervals.iter().map(|interval| interval.coverage.trials).sum(),
    };
    Some(format!(
        "The student's prediction interval covers {} of test targets; {} were asked for.",
        share(coverage),
        percent(1.0 - first.miss)
    ))
}

/// A quality in short: `accuracy 97.2 %`, `RMSE 53.1`.
pub(crate) fn words(quality: &Quality) -> String {
    match quality {
        Quality::Accuracy(rate) => format!("accuracy {}", share(*rate)),
        Quality::Error(figures) => format!("RMSE {}", significant(figures.rmse)),
    }
}

/// Four significant digits.
fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (3.0 - value.abs().log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{value:.digits$}")
}

fn share(rate: Rate) -> String {
    rate.share().map_or("none".to_owned(), percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_four_significant_digits() {
        assert_eq!([53.1234, 0.012_345, 12_345.6, 0.0].map(significant), ["53.12", "0.01235", "12346", "0"]);
    }
}
