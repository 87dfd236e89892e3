//! Self-checks: signs that a robustness figure is not what it seems (methods of Athalye 2018 and Carlini 2019).

use super::results::{Check, ModelRow, Outcome, Rate};
use super::robustness::{AttackedSet, attacked_accuracy};
use crate::attack::{AttackConfig, AttackKind, Norm, ThreatModel, input_gradient};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Model, Tempered, TrainedClassifier};
use crate::progress::Progress;
use crate::tensors::values;
use crate::text::percent;

/// Images that the costly checks look at.
const IMAGES: usize = 128;

/// Checks of the student's figures.
pub fn self_checks(
    student: &TrainedClassifier,
    rows: &[ModelRow],
    attacks: &[AttackConfig],
    test: &Dataset,
    progress: &dyn Progress,
) -> Result<Vec<Check>> {
    let few = test.subset(&(0..IMAGES.min(test.len())).collect::<Vec<_>>());
    let mut checks: Vec<Check> = rows.iter().map(|row| iteration_helps(row, attacks)).collect();
    checks.push(unbounded_attack_wins(student, &few, progress)?);
    checks.push(gradients_exist(student, &few, 1.0)?);
    checks.push(gradients_exist(student, &few, student.spec().temperature)?);
    Ok(checks)
}

/// At equal eps, ten steps must be at least as strong as one.
fn iteration_helps(row: &ModelRow, attacks: &[AttackConfig]) -> Check {
    let claim = format!("{}: I-FGSM is at least as strong as FGSM at the same eps", row.model);
    let rate = |kind: AttackKind, eps: f64| {
        attacks
            .iter()
            .zip(&row.attacked)
            .find(|(attack, _)| attack.threat() == ThreatModel::linf(eps) && attack.kind == kind)
            .and_then(|(_, attacked)| attacked.accuracy.share())
    };
    let pairs: Vec<(f64, f64, f64)> = attacks
        .iter()
        .filter(|attack| attack.kind == AttackKind::Fgsm && attack.norm == Norm::Linf)
        .filter_map(|attack| {
            Some((attack.eps, rate(AttackKind::Fgsm, attack.eps)?, rate(AttackKind::IFgsm, attack.eps)?))
        })
        .collect();
    if pairs.is_empty() {
        return Check { claim, outcome: Outcome::NotRun, detail: "no eps was attacked with both".to_owned() };
    }
    // One point of slack: within it, the difference is chance.
    let holds = pairs.iter().all(|(_, one, many)| *many <= one + 0.01);
    let detail = pairs
        .iter()
        .map(|(eps, one, many)| {
            format!("eps {}: FGSM {}, I-FGSM {}", crate::text::number(*eps), percent(*one), percent(*many))
        })
        .collect::<Vec<_>>()
        .join("; ");
    Check { claim, outcome: if holds { Outcome::Pass } else { Outcome::Fail }, detail }
}

/// With every pixel free to move, no model may keep more than chance.
fn unbounded_attack_wins(
    student: &TrainedClassifier,
    test: &Dataset,
    progress: &dyn Progress,
) -> Result<Check> {
    let attack = AttackConfig { step: 0.1, steps: 20, ..AttackConfig::linf(AttackKind::IFgsm, 1.0) };
    let attacked = AttackedSet::craft(student, &attack, test, progress)?;
    let rate: Rate = attacked_accuracy(student, &attacked)?;
    let chance = 2.0 / test.classes().len() as f64;
    let share = rate.share().unwrap_or(0.0);
    Ok(Check {
        claim: "student: accuracy falls to chance when eps is 1".to_owned(),
        outcome: if share <= chance.max(0.05) { Outcome::Pass } else { Outcome::Fail },
        detail: format!(
            "{} of {} images still right after I-FGSM with 20 steps of 0.1",
            rate.successes, rate.trials
        ),
    })
}

/// An image whose gradient is zero cannot be attacked by it: that is masking, not robustness.
fn gradients_exist(student: &TrainedClassifier, test: &Dataset, temperature: f64) -> Result<Check> {
    let (plain, tempered) = (student, Tempered(student));
    let model: &dyn Model = if temperature == 1.0 { plain } else { &tempered };
    let indices: Vec<usize> = (0..test.len()).collect();
    let device = student.device();
    let gradient = input_gradient(model, test.batch(&indices, &device)?, &test.labels(&indices))?;
    let largest = values(gradient.abs().flatten::<2>(1, 3).max_dim(1))?;
    let zero = Rate::of(largest.iter().map(|value| *value < 1e-8));
    Ok(Check {
        claim: format!(
            "student: input gradients at temperature {} are not zero",
            crate::text::number(temperature)
        ),
        outcome: if zero.successes == 0 { Outcome::Pass } else { Outcome::Fail },
        detail: format!("{} of {} images have a gradient below 1e-8 everywhere", zero.successes, zero.trials),
    })
}
