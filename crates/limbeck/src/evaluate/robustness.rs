//! Accuracy of a model on clean and attacked test images, with and without the null output.

use burn::tensor::Tensor;
use rand::seq::index::sample;

use super::metrics::risk_coverage;
use super::results::{AbstentionRow, AbstentionSummary, Rate};
use crate::attack::{AttackConfig, Batches, craft};
use crate::dataset::Dataset;
use crate::distill::{Answer, NullRule, predict};
use crate::error::Result;
use crate::network::{Model, Tempered, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::argmax;
use crate::train::INFERENCE_BATCH;

/// Points of a curve in the results.
pub(super) const CURVE_POINTS: usize = 200;

/// Images attacked at once.
const ATTACK_BATCH: usize = 128;

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

/// Attacked images as the attack left them, in batches of float pixels.
pub struct AttackedSet {
    batches: Vec<(Tensor<4>, Vec<u32>)>,
}

impl AttackedSet {
    /// Attacks every image of `set` on `classifier`; what an attack learns from many images, it learns from these.
    pub fn craft(
        classifier: &TrainedClassifier,
        attack: &AttackConfig,
        set: &Dataset,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let model = Tempered(classifier);
        let (built, threat, device) = (attack.build(), attack.threat(), model.device());
        let indices: Vec<usize> = (0..set.len()).collect();
        let chunks: Vec<&[usize]> = indices.chunks(ATTACK_BATCH).collect();
        let read = |chunk: usize| {
            progress.check()?;
            Ok((set.batch(chunks[chunk], &device)?, set.labels(chunks[chunk])))
        };
        let fitted = built.fit(&model, threat, &Batches { count: chunks.len(), read: &read })?;
        let attack = fitted.as_deref().unwrap_or(&*built);
        let mut batches = Vec::new();
        for (done, chunk) in chunks.iter().enumerate() {
            let (images, classes) = read(done)?;
            batches.push((craft(attack, &model, threat, images, &classes)?, classes));
            progress.advance((done * ATTACK_BATCH + chunk.len()) as u64, set.len() as u64);
        }
        Ok(Self { batches })
    }

    /// Batches of images `[batch, 3, h, w]` with their labels.
    pub fn batches(&self) -> impl Iterator<Item = (Tensor<4>, &[u32])> {
        self.batches.iter().map(|(images, labels)| (images.clone(), labels.as_slice()))
    }
}

/// Share of attacked images that the model still reads as their label.
pub fn attacked_accuracy(model: &dyn Model, attacked: &AttackedSet) -> Result<Rate> {
    let mut outcomes = Vec::new();
    for (images, labels) in attacked.batches() {
        outcomes.extend(
            argmax(model.logits(images))?.into_iter().zip(labels).map(|(answer, label)| answer == *label),
        );
    }
    Ok(Rate::of(outcomes))
}

/// Outcomes of the student with its null rule on clean test images and on images attacked without knowledge of the rule.
pub fn abstention(
    student: &TrainedClassifier,
    rule: &NullRule,
    test: &Dataset,
    attacked: &[(String, AttackedSet)],
    progress: &dyn Progress,
) -> Result<AbstentionSummary> {
    progress.task("dropout passes", "images");
    let answers = crate::distill::answer_set(student, rule, test, progress)?;
    let labels: Vec<u32> = test.samples().iter().map(|sample| sample.label).collect();
    let mut outcomes = vec![row("clean", &answers, &labels)];
    for (name, set) in attacked {
        let (mut answers, mut truth) = (Vec::new(), Vec::new());
        for (images, labels) in set.batches() {
            progress.check()?;
            answers.extend(predict(student, rule, images)?);
            truth.extend_from_slice(labels);
        }
        outcomes.push(row(name, &answers, &truth));
    }
    let uncertainty: Vec<f64> = answers.iter().map(|answer| answer.uncertainty).collect();
    let correct: Vec<bool> =
        answers.iter().zip(&labels).map(|(answer, label)| answer.class == *label).collect();
    let (curve, aurc) = risk_coverage(&uncertainty, &correct, CURVE_POINTS)?;
    Ok(AbstentionSummary {
        uncertainty: "KL to the class reference".to_owned(),
        passes: rule.passes as u32,
        threshold: rule.threshold,
        target_null_rate: rule.target_null_rate,
        outcomes,
        risk_coverage: curve,
        aurc,
    })
}

fn row(inputs: &str, answers: &[Answer], labels: &[u32]) -> AbstentionRow {
    let mut row = AbstentionRow { inputs: inputs.to_owned(), right: 0, wrong: 0, null: 0 };
    for (answer, label) in answers.iter().zip(labels) {
        match (answer.null, answer.class == *label) {
            (true, _) => row.null += 1,
            (false, true) => row.right += 1,
            (false, false) => row.wrong += 1,
        }
    }
    row
}
