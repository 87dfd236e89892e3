//! What is left of a model under attack, and how far that can be believed.

use limbeck::attack::ThreatModel;
use limbeck::evaluate::results::{
    Calibration, Check, Comparison, EpsCurve, Outcome, StudentEvaluation, WorstCase,
};
use limbeck::evaluate::threat_label;
use limbeck::pipeline::{MeasuredOn, ModelEvaluation};

use super::evaluation::answers;
use super::table::Table;
use super::{interval, model, outcome, share};

/// All figures of one model.
pub(crate) fn model_evaluation(found: &ModelEvaluation) -> String {
    let robustness = &found.robustness;
    let images = match found.images {
        MeasuredOn::Test => "",
        MeasuredOn::HeldOut => "on training images that are held out; the test images were not looked at\n",
    };
    let curves = robustness.curves.iter().map(curve);
    let parts = [images.to_owned(), model(&found.model), worst_cases(&robustness.worst_cases)]
        .into_iter()
        .chain(curves)
        .chain([calibration(&robustness.calibration), checks(&found.checks)]);
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// All figures of a run without an audit.
pub(crate) fn student_evaluation(found: &StudentEvaluation) -> String {
    let robustness = &found.robustness;
    let of_model =
        |row: &EpsCurve| EpsCurve { attack: format!("{} on {}", row.attack, row.model), ..row.clone() };
    let curves = robustness.curves.iter().map(|row| curve(&of_model(row)));
    let parts = found
        .models
        .iter()
        .map(model)
        .chain([worst_cases(&robustness.worst_cases), comparisons(&robustness.comparisons)])
        .chain(curves)
        .chain([calibration(&robustness.calibration), checks(&found.checks), answers(&found.abstention)]);
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The worst case of each model under each threat model, null counted both ways.
pub(super) fn worst_cases(rows: &[WorstCase]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        "worst case",
        "model",
        "attacks",
        "right",
        "95 % interval",
        "null an error",
        "null no error",
    ]);
    for column in 2..7 {
        table = table.right(column);
    }
    for row in rows {
        let with_null = row.with_null;
        table.row([
            threat_label(ThreatModel { norm: row.norm, eps: row.eps }),
            row.model.clone(),
            row.attacks.len().to_string(),
            share(row.accuracy),
            interval(row.accuracy),
            with_null.map_or("–".to_owned(), |rates| share(rates.as_error)),
            with_null.map_or("–".to_owned(), |rates| share(rates.as_no_error)),
        ]);
    }
    table.to_string()
}

/// Which of two models is right more often on the same images.
pub(super) fn comparisons(rows: &[Comparison]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["images", "model", "right alone", "against", "right alone", "McNemar p"])
        .right(2)
        .right(4)
        .right(5);
    for row in rows {
        table.row([
            row.inputs.clone(),
            row.first.clone(),
            row.only_first.to_string(),
            row.second.clone(),
            row.only_second.to_string(),
            p_value(row.p_value),
        ]);
    }
    table.to_string()
}

fn curve(curve: &EpsCurve) -> String {
    let mut table = Table::new([curve.attack.as_str(), "accuracy", "95 % interval"]).right(1).right(2);
    for point in &curve.points {
        table.row([format!("eps {}", point.eps), share(point.accuracy), interval(point.accuracy)]);
    }
    table.to_string()
}

fn calibration(rows: &[Calibration]) -> String {
    let line = |row: &Calibration| {
        // Of one model there is no need to say which.
        let of = if rows.len() > 1 { format!(" of {}", row.model) } else { String::new() };
        Some(format!("expected calibration error on clean images{of}: {:.4}\n", row.error?))
    };
    rows.iter().filter_map(line).collect()
}

/// Every check, those that failed marked.
fn checks(checks: &[Check]) -> String {
    let lines = checks
        .iter()
        .map(|check| format!("{}{}: {}\n", outcome(check.outcome), check.claim, check.detail))
        .collect::<String>();
    lines + stamp(checks)
}

/// The checks that failed; a run's report has them all.
pub(super) fn failed_checks(all: &[Check]) -> String {
    let failed: Vec<Check> = all.iter().filter(|check| check.outcome == Outcome::Fail).cloned().collect();
    checks(&failed)
}

fn stamp(checks: &[Check]) -> &'static str {
    if checks.iter().any(|check| check.outcome == Outcome::Fail) {
        "gradient masking suspected: accuracy under attack may be lower than measured\n"
    } else {
        ""
    }
}

/// Three decimals, and what is below them as such.
fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use limbeck::attack::Norm;
    use limbeck::evaluate::results::{AttackedRate, EpsPoint, ModelRow, Rate, Robustness, WorstCaseWithNull};

    use super::*;

    fn rate(successes: u64) -> Rate {
        Rate { successes, trials: 100 }
    }

    fn check(outcome: Outcome) -> Check {
        Check { claim: "model: a claim".to_owned(), outcome, detail: "figures".to_owned() }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn worst(with_null: Option<WorstCaseWithNull>) -> WorstCase {
        WorstCase {
            model: "student".to_owned(),
            norm: Norm::Linf,
            eps: 0.0314,
            accuracy: rate(81),
            with_null,
            attacks: vec![AttackedRate {
                attack: "pgd eps 0.0314".to_owned(),
                accuracy: rate(81),
                reached: None,
            }],
        }
    }

    #[test]
    fn a_worst_case_counts_null_both_ways() {
        let with_null = WorstCaseWithNull { as_error: rate(60), as_no_error: rate(90) };
        // Wilson 1927 for 81 of 100: 0.7222 to 0.8749 (R, prop.test without correction).
        let expected = "\
worst case             model    attacks   right  95 % interval  null an error  null no error
L-infinity eps 0.0314  student        1  81.0 %   72.2 to 87.5         60.0 %         90.0 %
L-infinity eps 0.0314  student        1  81.0 %   72.2 to 87.5              –              –
";
        assert_eq!(plain(&worst_cases(&[worst(Some(with_null)), worst(None)])), expected);
        assert_eq!(worst_cases(&[]), "");
    }

    #[test]
    fn a_model_is_shown_with_its_curve_its_calibration_and_its_stamp() {
        let found = ModelEvaluation {
            images: MeasuredOn::HeldOut,
            model: ModelRow {
                model: "model.safetensors".to_owned(),
                trained_on: String::new(),
                clean: rate(95),
                attacked: Vec::new(),
                transferred: Vec::new(),
                backdoor: None,
            },
            robustness: Robustness {
                curves: vec![EpsCurve {
                    model: "model.safetensors".to_owned(),
                    attack: "pgd, 10 steps".to_owned(),
                    points: vec![EpsPoint { eps: 0.0039, accuracy: rate(40) }],
                }],
                calibration: vec![Calibration {
                    model: String::new(),
                    error: Some(0.0321),
                    bins: Vec::new(),
                }],
                ..Robustness::default()
            },
            checks: vec![check(Outcome::Pass), check(Outcome::Fail)],
        };
        let text = plain(&model_evaluation(&found));
        assert!(text.starts_with("on training images that are held out"), "{text}");
        for part in [
            "eps 0.0039       40.0 %",
            "expected calibration error on clean images: 0.0321\n",
            "PASS    model: a claim: figures\nFAIL    model: a claim: figures\n",
            "gradient masking suspected",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn without_a_failure_nothing_is_suspected() {
        assert_eq!(failed_checks(&[check(Outcome::Pass), check(Outcome::Unknown)]), "");
        assert_eq!([0.5, 0.001, 1e-9].map(p_value), ["0.500", "0.001", "<0.001"]);
    }
}
