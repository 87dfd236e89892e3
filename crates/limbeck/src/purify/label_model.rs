//! A classifier that learns its classes from trusted images, to tell which labels of the audited set are wrong.
//!
//! It is first trained on the trusted images alone. In each further round it is trained again from scratch, on the trusted images and those audited
//! ones whose label it answers surely itself (self-training; Scudder 1965). A wrong label, be it noise or a backdoor's, seldom agrees, so its image
//! is not learnt from; and where it is not learnt, it goes on to disagree.

use burn::tensor::Device;
use burn::tensor::activation::softmax;
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
    /// Whether there is one: it takes half of the calibration images as its trusted ones. Worth it only where they show each class many times; one or two tracks of
    /// GTSRB are too few.
    pub enabled: bool,
    /// Rounds of self-training after the first training.
    pub rounds: usize,
    /// Probability of its label from which on an audited image is learnt from.
    pub confidence: f64,
    /// Epochs on the trusted images alone: they are few, so many.
    pub first_epochs: usize,
    /// Training in the further rounds, and the other settings of the first.
    pub train: TrainConfig,
}

impl LabelModelConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if self.rounds > 100 {
            return Err(Error::config(format!("{key}.rounds"), self.rounds, "0 to 100 rounds"));
        }
        if !(0.0..=1.0).contains(&self.confidence) {
            return Err(Error::config(format!("{key}.confidence"), self.confidence, "a probability"));
        }
        TrainConfig { epochs: self.first_epochs, ..self.train.clone() }
            .check(&format!("{key}.first_epochs"))?;
        self.train.check(&format!("{key}.train"))
    }
}

/// Trains a label model for `audited`; `trusted` has true labels, and `calibration` is only validated on.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn train_label_model(
    spec: &ClassifierSpec,
    trusted: &Dataset,
    audited: &Dataset,
    calibration: &Dataset,
    config: &LabelModelConfig,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<TrainedClassifier> {
    let train = |set: &Dataset, train: &TrainConfig, round: usize| -> Result<TrainedClassifier> {
        progress.task(&format!("training the label model, round {round} of {}", config.rounds), "images");
        let (targets, seed) = (Targets::Labels, seed.step(round));
        let none = Checkpoints::none();
        Ok(train_classifier(spec.clone(), set, &targets, calibration, train, device, seed, &none, progress)?
            .0)
    };
    let first = TrainConfig { epochs: config.first_epochs, ..config.train.clone() };
    let mut model = train(trusted, &first, 0)?;
    for round in 1..=config.rounds {
        let sure = sure_labels(&model, audited, config.confidence, progress)?;
        model = train(&trusted.joined(&audited.subset(&sure))?, &config.train, round)?;
    }
    Ok(model)
}

/// Images whose label the model answers, with at least this probability.
fn sure_labels(
    model: &TrainedClassifier,
    set: &Dataset,
    confidence: f64,
    progress: &dyn Progress,
) -> Result<Vec<usize>> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut sure = Vec::new();
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let classes = set.classes().len();
        let probabilities = values(softmax(model.logits(set.batch(chunk, &model.device())?), 1))?;
        for ((&index, row), label) in
            chunk.iter().zip(probabilities.chunks_exact(classes)).zip(set.labels(chunk))
        {
            let own = row[label as usize];
            if f64::from(own) >= confidence && row.iter().all(|&other| other <= own) {
                sure.push(index);
            }
        }
    }
    Ok(sure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Architecture;
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec};
    use crate::train::{Augmentation, OptimiserConfig, Schedule};

    #[test]
    fn wrong_labels_are_not_learnt_from() {
        let (trusted, audited, calibration) = (blocks(60, 4, 1), blocks(80, 4, 2), blocks(20, 4, 3));
        let wrong: Vec<usize> = (0..80).filter(|index| index % 5 == 0).collect();
        let other = |&index: &usize| (index, (audited.samples()[index].label + 1) % 4);
        let audited = audited.with_labels(wrong.iter().map(other)).expect("labels in range");
        let config = LabelModelConfig {
            enabled: true,
            rounds: 1,
            confidence: 0.5,
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
        };
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        let model = train_label_model(
            &spec,
            &trusted,
            &audited,
            &calibration,
            &config,
            &Device::flex(),
            Seed::new(1),
            &Silent,
        )
        .expect("trained");
        let sure = sure_labels(&model, &audited, 0.5, &Silent).expect("answers");
        assert!(sure.iter().all(|index| !wrong.contains(index)), "{sure:?}");
        assert!(sure.len() > 50, "{} of 64 right labels", sure.len());
    }
}
