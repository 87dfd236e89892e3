//! A classifier that learns its classes from trusted images, to tell which labels of the audited set are wrong.
//!
//! It is first trained on the trusted images alone. In each further round it is trained again from scratch, on the audited images alone: on those whose
//! label it answers surely itself, and on those of which it is sure that they show another class, under that class (self-training; Scudder 1965). A
//! wrong label, be it noise or a backdoor's, seldom agrees; and learnt under the class that it shows, an image with a trigger teaches that the trigger
//! means nothing.
//!
//! How sure it is of trusted images says little of audited ones, for it knows them and their neighbours. So they are also measured with models of
//! their own: the trusted images are dealt into folds, and those of a fold are scored by a model that was taught by the others and went through one round.
//! It knows less than the model that scores the audited images. Of both scores the more suspicious counts, so that thresholds err on the side of
//! clean images, and a class that self-training has lost is not held against its images.

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scores::label_margins;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{ClassifierSpec, Model, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::{Checkpoints, INFERENCE_BATCH, Targets, TrainConfig, train_classifier};

/// How the label model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelModelConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Channels of the first stage; its shape is otherwise that of the classifiers.
    pub width: usize,
    /// Rounds of self-training after the first training, at least 1.
    pub rounds: usize,
    /// Folds of the trusted images, at least 2: each is scored by a model that the others taught. More folds find more and cost more.
    pub folds: usize,
    /// How many nats its label must be ahead of every other class for an audited image to be learnt from under it.
    pub agreement: f64,
    /// How many nats another class must be ahead for an audited image to be learnt from under that one.
    pub contradiction: f64,
    /// Epochs on the trusted images alone: they are few, so many.
    pub first_epochs: usize,
    /// Training in the further rounds, and the other settings of the first.
    pub train: TrainConfig,
    /// Steps of a further round at least: a small set is passed over more often than `train.epochs`. 0 where a later setting names those epochs alone.
    pub least_steps: usize,
}

impl LabelModelConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if !(1..=100).contains(&self.rounds) {
            return Err(Error::config(format!("{key}.rounds"), self.rounds, "1 to 100 rounds"));
        }
        if !(2..=100).contains(&self.folds) {
            return Err(Error::config(format!("{key}.folds"), self.folds, "2 to 100 folds"));
        }
        for (name, nats) in [("agreement", self.agreement), ("contradiction", self.contradiction)] {
            if !(nats.is_finite() && nats >= 0.0) {
                return Err(Error::config(format!("{key}.{name}"), nats, "a finite number, 0 or more"));
            }
        }
        for (name, count) in [("width", self.width), ("first_epochs", self.first_epochs)] {
            if count == 0 {
                return Err(Error::config(format!("{key}.{name}"), count, "1 or more"));
            }
        }
        self.train.check(&format!("{key}.train"))
    }
}

/// A label model, and what trusted images are measured with.
#[derive(Clone, Debug)]
pub struct LabelModel {
    /// The classifier.
    pub classifier: TrainedClassifier,
    /// The label score of each trusted image: the larger of this classifier's and that of a model that the image did not teach.
    pub trusted_margins: Vec<f64>,
}

/// Trains a label model for `audited`; `trusted` has true labels. A model that is sure of no audited image learns from all of them as they are.
///
/// # Errors
/// Refuses fewer trusted images than two; everything that training refuses.
pub fn train_label_model(
    spec: &ClassifierSpec,
    trusted: &Dataset,
    audited: &Dataset,
    config: &LabelModelConfig,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<LabelModel> {
    if trusted.len() < 2 {
        return Err(Error::input("label model", format!("{} trusted images", trusted.len()), "2 or more"));
    }
    let lesson = Lesson { spec, audited, config, device, progress };
    let classifier = lesson.learn(trusted, config.rounds, seed, "training the label model")?;
    let folds = config.folds.min(trusted.len());
    let fold_of = folds_by_class(trusted, folds);
    let all: Vec<usize> = (0..trusted.len()).collect();
    let mut trusted_margins = margins(&classifier, trusted, &all)?;
    for fold in 0..folds {
        let (scored, teachers): (Vec<usize>, Vec<usize>) =
            (0..trusted.len()).partition(|&index| fold_of[index] == fold);
        let task = format!("measuring trusted images, fold {} of {folds}", fold + 1);
        let seed = seed.child("folds").step(fold);
        let model = lesson.learn(&trusted.subset(&teachers), 1, seed, &task)?;
        for (&index, margin) in scored.iter().zip(margins(&model, trusted, &scored)?) {
            trusted_margins[index] = trusted_margins[index].max(margin);
        }
    }
    Ok(LabelModel { classifier, trusted_margins })
}

/// The label score of the images at `indices`.
fn margins(model: &TrainedClassifier, set: &Dataset, indices: &[usize]) -> Result<Vec<f64>> {
    let mut margins = Vec::with_capacity(indices.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        let logits = model.logits(set.batch(chunk, &model.device())?);
        margins.extend(values(label_margins(logits, &set.labels(chunk)))?.into_iter().map(f64::from));
    }
    Ok(margins)
}

/// The fold of each image: those of a class are dealt in turn, and one class goes on where the one before stopped.
fn folds_by_class(set: &Dataset, folds: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..set.len()).collect();
    order.sort_by_key(|&index| set.samples()[index].label);
    let mut fold_of = vec![0; set.len()];
    order.into_iter().enumerate().for_each(|(turn, index)| fold_of[index] = turn % folds);
    fold_of
}

/// What every model of an audit learns with.
struct Lesson<'a> {
    spec: &'a ClassifierSpec,
    audited: &'a Dataset,
    config: &'a LabelModelConfig,
    device: &'a Device,
    progress: &'a dyn Progress,
}

impl Lesson<'_> {
    fn learn(&self, teachers: &Dataset, rounds: usize, seed: Seed, task: &str) -> Result<TrainedClassifier> {
        let Self { spec, audited, config, device, progress } = *self;
        let train = |set: &Dataset, train: &TrainConfig, round: usize| -> Result<TrainedClassifier> {
            progress.task(&format!("{task}, round {round} of {rounds}"), "images");
            let (targets, seed, none) = (Targets::Labels, seed.step(round), Checkpoints::none());
            let spec = spec.clone();
            Ok(train_classifier(spec, set, &targets, teachers, train, device, seed, &none, progress)?.0)
        };
        let first = TrainConfig { epochs: config.first_epochs, ..config.train.clone() };
        let mut model = train(teachers, &first, 0)?;
        for round in 1..=rounds {
            let learnt = learnable(&model, audited, config, progress)?;
            // Sure of nothing: what it could learn from trusted images does not tell the labels apart.
            let learnt = if learnt.is_empty() { audited.clone() } else { learnt };
            model = train(&learnt, &config.train.at_least(config.least_steps, learnt.len()), round)?;
        }
        Ok(model)
    }
}

/// The images of which the model is sure, under the class that it is sure of.
fn learnable(
    model: &TrainedClassifier,
    set: &Dataset,
    config: &LabelModelConfig,
    progress: &dyn Progress,
) -> Result<Dataset> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut labels = Vec::new();
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let classes = set.classes().len();
        let rows = values(log_softmax(model.logits(set.batch(chunk, &model.device())?), 1))?;
        for ((&index, row), label) in chunk.iter().zip(rows.chunks_exact(classes)).zip(set.labels(chunk)) {
            labels.extend(sure_label(row, label, config).map(|label| (index, label)));
        }
    }
    let chosen: Vec<usize> = labels.iter().map(|(index, _)| *index).collect();
    set.subset(&chosen).with_labels(labels.iter().map(|(_, label)| *label).enumerate())
}

/// The class under which an image is learnt from: its label, another that is surely right, or none.
fn sure_label(log_probabilities: &[f32], label: u32, config: &LabelModelConfig) -> Option<u32> {
    let lead = |class: usize| {
        let others = (0..log_probabilities.len()).filter(|&other| other != class);
        let best = others.map(|other| log_probabilities[other]).fold(f32::NEG_INFINITY, f32::max);
        f64::from(log_probabilities[class] - best)
    };
    let best = (0..log_probabilities.len())
        .max_by(|&a, &b| log_probabilities[a].total_cmp(&log_probabilities[b]))?;
    let needed = if best == label as usize { config.agreement } else { config.contradiction };
    (lead(best) >= needed).then_some(best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Architecture;
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec};
    use crate::train::{Augmentation, OptimiserConfig, Schedule};

    fn config() -> LabelModelConfig {
        LabelModelConfig {
            enabled: true,
            width: 4,
            rounds: 1,
            folds: 2,
            agreement: 0.5,
            contradiction: 1.0,
            first_epochs: 12,
            train: TrainConfig {
                epochs: 6,
                batch: 8,
                optimiser: OptimiserConfig::Adam { weight_decay: 0.0 },
                learning_rate: 0.01,
                schedule: Schedule::Constant,
                patience: 0,
                label_smoothing: 0.0,
                averaging: 0.0,
                augmentation: Augmentation::default(),
            },
            least_steps: 0,
        }
    }

    #[test]
    fn an_image_is_learnt_under_the_class_that_is_sure_enough_and_not_otherwise() {
        let config = config();
        assert_eq!(sure_label(&[-0.1, -2.5, -4.0], 0, &config), Some(0), "2.4 nats ahead");
        assert_eq!(sure_label(&[-0.1, -2.5, -4.0], 1, &config), Some(0), "contradicted by 2.4 nats");
        assert_eq!(sure_label(&[-0.9, -1.5, -1.6], 0, &config), Some(0), "0.6 agree");
        assert_eq!(sure_label(&[-0.9, -1.5, -1.6], 2, &config), None, "0.6 do not contradict");
    }

    #[test]
    fn wrong_labels_stand_out() {
        let (trusted, audited) = (blocks(60, 4, 1), blocks(80, 4, 2));
        let wrong: Vec<usize> = (0..80).filter(|index| index % 5 == 0).collect();
        let other = |&index: &usize| (index, (audited.samples()[index].label + 1) % 4);
        let audited = audited.with_labels(wrong.iter().map(other)).expect("labels in range");
        let (spec, device) = (tiny_spec(Architecture::Vgg, 4, 1.0), Device::flex());
        let model = train_label_model(&spec, &trusted, &audited, &config(), &device, Seed::new(1), &Silent)
            .expect("trained");
        let images = audited.batch(&(0..80).collect::<Vec<_>>(), &device).expect("images");
        let rows = values(model.classifier.logits(images)).expect("values");
        let contradicted: Vec<usize> = (0..80)
            .filter(|&index| {
                let row = &rows[4 * index..4 * index + 4];
                row.iter().any(|value| *value > row[audited.samples()[index].label as usize])
            })
            .collect();
        let found = wrong.iter().filter(|index| contradicted.contains(index)).count();
        assert!(found >= 15 && contradicted.len() <= 20, "{found} of 16 among {contradicted:?}");
    }

    #[test]
    fn trusted_images_are_scored_by_models_that_they_did_not_teach() {
        let (trusted, audited) = (blocks(60, 4, 1), blocks(80, 4, 2));
        // No model but one that was taught so says that this image shows its label.
        let wrong = (trusted.samples()[0].label + 1) % 4;
        let trusted = trusted.with_labels([(0, wrong)]).expect("in range");
        let (spec, device) = (tiny_spec(Architecture::Vgg, 4, 1.0), Device::flex());
        let model = train_label_model(&spec, &trusted, &audited, &config(), &device, Seed::new(1), &Silent)
            .expect("trained");
        assert_eq!(model.trusted_margins.len(), 60);
        let most = model.trusted_margins.iter().copied().fold(f64::MIN, f64::max);
        assert!(model.trusted_margins[0] == most && most > 0.0, "{:?}", model.trusted_margins);
    }

    #[test]
    fn folds_share_each_class_out() {
        let set = blocks(60, 4, 1);
        let fold_of = folds_by_class(&set, 4);
        for (fold, label) in (0..4).flat_map(|fold| (0..4).map(move |label| (fold, label))) {
            let of_class: Vec<usize> = (0..60).filter(|&index| set.samples()[index].label == label).collect();
            let images = of_class.iter().filter(|&&index| fold_of[index] == fold).count();
            assert!(images.abs_diff(of_class.len() / 4) <= 1, "{images} of {}", of_class.len());
        }
    }
}
