//! A classifier that learns its classes from trusted images, to tell which labels of the audited set are wrong.
//!
//! It is first trained on the trusted images alone. In each further round it is trained again from scratch, on the audited images alone: on those whose
//! label it answers surely itself, and on those of which it is sure that they show another class, under that class (self-training; Scudder 1965). A
//! wrong label, be it noise or a backdoor's, seldom agrees; and learnt under the class that it shows, an image with a trigger teaches that the trigger
//! means nothing. In the end the model has learnt from no trusted image, so that these can be scored as if they were audited ones.

use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// How many nats its label must be ahead of every other class for an audited image to be learnt from under it.
    pub agreement: f64,
    /// How many nats another class must be ahead for an audited image to be learnt from under that one.
    pub contradiction: f64,
    /// Epochs on the trusted images alone: they are few, so many.
    pub first_epochs: usize,
    /// Training in the further rounds, and the other settings of the first.
    pub train: TrainConfig,
}

impl LabelModelConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if !(1..=100).contains(&self.rounds) {
            return Err(Error::config(format!("{key}.rounds"), self.rounds, "1 to 100 rounds"));
        }
        for (name, nats) in [("agreement", self.agreement), ("contradiction", self.contradiction)] {
            if !(nats.is_finite() && nats >= 0.0) {
                return Err(Error::config(format!("{key}.{name}"), nats, "a finite number, 0 or more"));
            }
        }
        TrainConfig { epochs: self.first_epochs, ..self.train.clone() }
            .check(&format!("{key}.first_epochs"))?;
        self.train.check(&format!("{key}.train"))
    }
}

/// Trains a label model for `audited`; `trusted` has true labels. A model that is sure of no audited image learns from all of them as they are.
pub fn train_label_model(
    spec: &ClassifierSpec,
    trusted: &Dataset,
    audited: &Dataset,
    config: &LabelModelConfig,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<TrainedClassifier> {
    let train = |set: &Dataset, train: &TrainConfig, round: usize| -> Result<TrainedClassifier> {
        progress.task(&format!("training the label model, round {round} of {}", config.rounds), "images");
        let (targets, seed, none) = (Targets::Labels, seed.step(round), Checkpoints::none());
        Ok(train_classifier(spec.clone(), set, &targets, trusted, train, device, seed, &none, progress)?.0)
    };
    let first = TrainConfig { epochs: config.first_epochs, ..config.train.clone() };
    let mut model = train(trusted, &first, 0)?;
    for round in 1..=config.rounds {
        let learnt = learnable(&model, audited, config, progress)?;
        // Sure of nothing: what it could learn from trusted images does not tell the labels apart.
        let learnt = if learnt.is_empty() { audited.clone() } else { learnt };
        model = train(&learnt, &config.train, round)?;
    }
    Ok(model)
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
                augmentation: Augmentation::default(),
            },
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
        let rows = values(model.logits(images)).expect("values");
        let contradicted: Vec<usize> = (0..80)
            .filter(|&index| {
                let row = &rows[4 * index..4 * index + 4];
                row.iter().any(|value| *value > row[audited.samples()[index].label as usize])
            })
            .collect();
        let found = wrong.iter().filter(|index| contradicted.contains(index)).count();
        assert!(found >= 15 && contradicted.len() <= 20, "{found} of 16 among {contradicted:?}");
    }
}
