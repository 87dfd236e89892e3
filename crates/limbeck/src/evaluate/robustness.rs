//! Accuracy of a model on clean and attacked test images, with and without the null output.

use burn::tensor::activation::softmax;
use rand::seq::index::sample;

use super::attacked_set::AttackedSet;
use super::knowing_rule::{KnowingRuleConfig, knowing_rule};
use super::results::{AbstentionRow, AbstentionSummary, Rate, UncertaintyRow};
use super::risk_coverage::risk_coverage;
use super::worst_case::Attempt;
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::distill::{Abstaining, Answer, NullCalibration, UNCERTAINTIES, Uncertainty};
use crate::error::Result;
use crate::network::Model;
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::{argmax, values};
use crate::train::INFERENCE_BATCH;

/// Points of a curve in the results.
pub(super) const CURVE_POINTS: usize = 200;

/// Share of images that the model reads as their label.
pub fn accuracy(model: &dyn Model, set: &Dataset, progress: &dyn Progress) -> Result<Rate> {
    let device = model.device();
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut rate = Rate::default();
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let answers = argmax(model.logits(set.batch(chunk, &device)?))?;
        let batch =
            Rate::of(answers.into_iter().zip(set.labels(chunk)).map(|(answer, label)| answer == label));
        rate = Rate { successes: rate.successes + batch.successes, trials: rate.trials + batch.trials };
    }
    Ok(rate)
}

/// What a model says of the images of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Whether each is read as its label.
    pub right: Vec<bool>,
    /// Largest probability of the softmax of the model's logits.
    pub confidence: Vec<f64>,
}

/// Reads every image of a set.
pub fn read(model: &dyn Model, set: &Dataset, progress: &dyn Progress) -> Result<Reading> {
    let device = model.device();
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut reading = Reading::default();
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let logits = model.logits(set.batch(chunk, &device)?);
        let answers = argmax(logits.clone())?.into_iter().zip(set.labels(chunk));
        reading.right.extend(answers.map(|(answer, label)| answer == label));
        let largest = values(softmax(logits, 1).max_dim(1))?;
        // Rounding may carry a probability of 32 bits beyond 1; NaN stays what it is.
        reading.confidence.extend(largest.into_iter().map(|share| f64::from(share).clamp(0.0, 1.0)));
    }
    Ok(reading)
}

/// Attack success rate: share of triggered images that the model answers with the backdoor's target.
pub fn backdoor_success(model: &dyn Model, triggered: &Dataset, target: u32) -> Result<Rate> {
    let indices: Vec<usize> = (0..triggered.len()).collect();
    let mut rate = Rate::default();
    for chunk in indices.chunks(INFERENCE_BATCH) {
        let answers = argmax(model.logits(triggered.batch(chunk, &model.device())?))?;
        let batch = Rate::of(answers.into_iter().map(|answer| answer == target));
        rate = Rate { successes: rate.successes + batch.successes, trials: rate.trials + batch.trials };
    }
    Ok(rate)
}

/// The test images that are attacked: `count` drawn by the seed, in rising order; 0 or more than there are = all.
pub fn attack_set(test: &Dataset, count: usize, seed: Seed) -> Dataset {
    if count == 0 || count >= test.len() {
        return test.clone();
    }
    let mut indices = sample(&mut seed.rng("attacked test images"), test.len(), count).into_vec();
    indices.sort_unstable();
    test.subset(&indices)
}

/// `count` images of a set, evenly spaced over its order, which may be that of the classes; 0 or more than there are = all.
pub(super) fn evenly_spaced(set: &Dataset, count: usize) -> Dataset {
    if count == 0 || count >= set.len() {
        return set.clone();
    }
    set.subset(&(0..count).map(|image| image * set.len() / count).collect::<Vec<_>>())
}

/// Which attacked images the model still reads as their label.
pub fn right_under(model: &dyn Model, attacked: &AttackedSet) -> Result<Vec<bool>> {
    outcome_under(model, attacked).map(|(right, _)| right)
}

/// The same, and of a targeted attack how many images are read as the class that was sought, of those that were led to another class than their own.
pub(super) fn outcome_under(model: &dyn Model, attacked: &AttackedSet) -> Result<(Vec<bool>, Option<Rate>)> {
    let (mut answers, mut labels) = (Vec::new(), Vec::new());
    for (images, of_batch) in attacked.batches() {
        answers.extend(argmax(model.logits(images))?);
        labels.extend_from_slice(of_batch);
    }
    let reached = attacked.targets().map(|targets| {
        let led = targets.iter().zip(&labels).zip(&answers).filter(|((target, label), _)| target != label);
        Rate::of(led.map(|((target, _), answer)| answer == target))
    });
    Ok((answers.iter().zip(&labels).map(|(answer, label)| answer == label).collect(), reached))
}

/// Outcomes of the student with its null rule on clean test images, on images attacked without knowledge of the rule and with it, and on damaged ones.
///
/// `attempts` were made on the images that are damaged honestly; those without answers, or crafted on another model, are left out.
pub fn abstention(
    abstaining: Abstaining<'_>,
    test: &Dataset,
    (attacked, attempts, honest): (&Dataset, &[Attempt], &[HonestDamage]),
    (config, seed): (&KnowingRuleConfig, Seed),
    progress: &dyn Progress,
) -> Result<AbstentionSummary> {
    let Abstaining { student, rule, .. } = abstaining;
    progress.task("dropout passes", "images");
    let of_student = UNCERTAINTIES.iter().filter(|(kind, ..)| kind.is_of(student.spec()));
    let (compared, words): (Vec<Uncertainty>, Vec<&str>) =
        of_student.map(|(kind, _, words, _)| (*kind, *words)).unzip();
    let (answers, columns) = abstaining.measure_set(test, &compared, progress)?;
    let truth: Vec<u32> = test.samples().iter().map(|sample| sample.label).collect();
    let mut outcomes = vec![outcome_row("clean", &answers, &truth)];
    let labels: Vec<u32> = attacked.samples().iter().map(|sample| sample.label).collect();
    outcomes.extend(attempts.iter().filter(|attempt| attempt.origin.is_white_box()).filter_map(|attempt| {
        Some(outcome_row(&attempt.label(), attempt.outcomes.answers.as_ref()?, &labels))
    }));
    outcomes.extend(knowing_rule(abstaining, test, config, seed, progress)?);
    let damaged = |damage: &HonestDamage| {
        progress.task(&format!("answers to images with {}", damage.label()), "images");
        let answers = abstaining.answer_set(&damage.on(attacked, seed)?, progress)?;
        Ok(outcome_row(&damage.label(), &answers, &labels))
    };
    let damaged = honest.iter().map(damaged).collect::<Result<_>>()?;
    let uncertainty: Vec<f64> = answers.iter().map(|answer| answer.uncertainty).collect();
    let correct: Vec<bool> =
        answers.iter().zip(&truth).map(|(answer, label)| answer.class == *label).collect();
    let (curve, aurc) = risk_coverage(&uncertainty, &correct, CURVE_POINTS)?;
    let compared = words.into_iter().zip(&columns).map(|(words, uncertainty)| {
        let (_, aurc) = risk_coverage(uncertainty, &correct, CURVE_POINTS)?;
        Ok(UncertaintyRow { uncertainty: words.to_owned(), aurc })
    });
    Ok(AbstentionSummary {
        compared: compared.collect::<Result<_>>()?,
        calibration_images: rule.calibration_images as u64,
        outlier_images: rule.outlier_images as u64,
        guaranteed: rule.calibration == NullCalibration::Conformal,
        uncertainty: rule.uncertainty.words().to_owned(),
        passes: rule.passes as u32,
        threshold: rule.threshold,
        target_null_rate: rule.target_null_rate,
        detector: rule.detector.clone(),
        outcomes,
        damaged,
        risk_coverage: curve,
        aurc,
    })
}

/// How often a student is right, wrong and silent.
pub(super) fn outcome_row(inputs: &str, answers: &[Answer], labels: &[u32]) -> AbstentionRow {
    let mut row = AbstentionRow { inputs: inputs.to_owned(), right: 0, wrong: 0, null: 0, perturbed: 0 };
    for (answer, label) in answers.iter().zip(labels) {
        match (answer.null, answer.class == *label) {
            (true, _) => {
                row.null += 1;
                row.perturbed += u64::from(answer.perturbed);
            }
            (false, true) => row.right += 1,
            (false, false) => row.wrong += 1,
        }
    }
    row
}
