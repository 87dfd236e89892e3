//! What is searched for: one figure of a trained autoencoder, on trusted images alone.
//!
//! The images and their adversarial twins are the same for all trials of a search (crafted by the defender on the classifier of the base
//! config), so that their figures can be compared. Neither test images nor the truth about poison are looked at.

use burn::tensor::Tensor;
use limbeck_kernels::mean_squared_error;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::image_quality::psnr;
use crate::evaluate::metrics::auroc;
use crate::network::{Denoised, TrainedAutoencoder, TrainedClassifier};
use crate::pipeline::RunConfig;
use crate::purify::{Defence, PurifyConfig, ScoreKind, Shown, TABLE as SCORES, Twins};
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectiveKind {
    /// Mean squared error of reconstructed images and restored twins, in equal parts: what picks the best epoch.
    ValidationLoss,
    /// AUROC of the deciding score, twins against images.
    Detection,
    /// Peak signal-to-noise ratio of restored twins in dB, from their mean squared error.
    Psnr,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smaller is better.
    Minimize,
    /// Larger is better.
    Maximize,
}

impl Direction {
    /// Whether `value` is better than `other`.
    pub fn better(self, value: f64, other: f64) -> bool {
        match self {
            Self::Minimize => value < other,
            Self::Maximize => value > other,
        }
    }
}

/// A row of the table of objectives.
pub struct Objective {
    /// Which.
    pub kind: ObjectiveKind,
    /// Name on the command line.
    pub name: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// What it measures, in a few words.
    pub about: &'static str,
    /// Keys that it depends on, and beginnings of such keys.
    keys: &'static [&'static str],
}

/// All objectives.
pub const TABLE: &[Objective] = &[
    Objective {
        kind: ObjectiveKind::ValidationLoss,
        name: "validation-loss",
        direction: Direction::Minimize,
        about: "mean squared error on trusted images and their adversarial twins",
        keys: &["dae.", "classifier."],
    },
    Objective {
        kind: ObjectiveKind::Detection,
        name: "detection",
        direction: Direction::Maximize,
        about: "AUROC of the deciding score (of a mixture: the detection head), trusted images against their adversarial twins",
        keys: &["dae.", "classifier.", "purify.score", "purify.kl_temperature"],
    },
    Objective {
        kind: ObjectiveKind::Psnr,
        name: "psnr",
        direction: Direction::Maximize,
        about: "peak signal-to-noise ratio in dB of restored adversarial twins of trusted images",
        keys: &["dae.", "classifier."],
    },
];

impl ObjectiveKind {
    /// Its row of the table.
    pub fn row(self) -> &'static Objective {
        TABLE.iter().find(|row| row.kind == self).expect("every kind is in the table")
    }

    /// The objective of this name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.kind)
    }

    /// Refuses a key that this figure does not depend on, or that would have trials measured on different images.
    pub(super) fn check_key(self, key: &str) -> Result<()> {
        let row = self.row();
        if row.keys.iter().any(|known| key == *known || (known.ends_with('.') && key.starts_with(known))) {
            return Ok(());
        }
        let keys: Vec<String> = row
            .keys
            .iter()
            .map(|key| format!("`{key}{}`", if key.ends_with('.') { "*" } else { "" }))
            .collect();
        let expected = format!("a key that decides {}: {}", row.name, keys.join(", "));
        Err(Error::config(
            key,
            "a key that it does not depend on, or that changes the images that it is measured on",
            expected,
        ))
    }

    /// Refuses a config whose autoencoder this figure cannot be measured of.
    pub(super) fn check(self, config: &RunConfig) -> Result<()> {
        match (self, config.purify.score) {
            (Self::Detection, ScoreKind::Label) => Err(Error::config(
                "purify.score",
                config.purify.score.name(),
                "a score of the autoencoder (mse, kl, head or mixture): adversarial twins keep their labels",
            )),
            (Self::Detection, ScoreKind::Spectral | ScoreKind::Clustering) => Err(Error::config(
                "purify.score",
                config.purify.score.name(),
                "a score of the autoencoder (mse, kl, head or mixture): this one looks at the classifier alone",
            )),
            (Self::Detection, ScoreKind::Intent) => Err(Error::config(
                "purify.score",
                config.purify.score.name(),
                "a score of the autoencoder (mse, kl, head or mixture): this one looks at the image alone",
            )),
            _ => Ok(()),
        }
    }
}

/// What the autoencoders of a search are measured with.
pub(super) struct Yardstick<'a> {
    /// Calibration images and their twins.
    pub(super) twins: &'a Twins,
    /// The defender's classifier.
    pub(super) classifier: &'a TrainedClassifier,
    /// The deciding score and its settings.
    pub(super) purify: PurifyConfig,
}

impl Yardstick<'_> {
    /// The figure of an autoencoder.
    ///
    /// # Errors
    /// [`Error::Numeric`] for a figure that is not finite.
    pub(super) fn measure(&self, objective: ObjectiveKind, network: &TrainedAutoencoder) -> Result<f64> {
        let figure = match objective {
            ObjectiveKind::Detection => self.detection(network)?,
            ObjectiveKind::ValidationLoss => {
                (self.error(network, &self.twins.images)? + self.error(network, &self.twins.twins)?) / 2.0
            }
            ObjectiveKind::Psnr => psnr(self.error(network, &self.twins.twins)?),
        };
        match figure.is_finite() {
            true => Ok(figure),
            false => Err(Error::Numeric {
                operation: "tune",
                found: format!("{} of {figure}", objective.row().name),
            }),
        }
    }

    /// Mean squared error of what the autoencoder makes of `inputs` against the images.
    fn error(&self, network: &TrainedAutoencoder, inputs: &Dataset) -> Result<f64> {
        let mut sum = 0.0;
        self.batches(network, inputs, |chunk, _, denoised| {
            let originals = self.twins.images.batch(chunk, network.device())?;
            let error = mean_squared_error(denoised.reconstructions, originals).into_scalar::<f32>();
            sum += f64::from(error) * chunk.len() as f64;
            Ok(())
        })?;
        Ok(sum / inputs.len() as f64)
    }

    fn detection(&self, network: &TrainedAutoencoder) -> Result<f64> {
        let defence = Defence {
            autoencoder: network,
            classifier: self.classifier,
            label_model: None,
            intent: None,
            kl_temperature: self.purify.kl_temperature,
        };
        let kind = match self.purify.score {
            // Of what is mixed, the autoencoder has this.
            ScoreKind::Mixture => ScoreKind::Head,
            kind => kind,
        };
        let (_, _, score) = SCORES[kind.position()];
        let scores = |set: &Dataset| -> Result<Vec<f64>> {
            let mut scores = Vec::with_capacity(set.len());
            self.batches(network, set, |chunk, images, denoised| {
                let labels = set.labels(chunk);
                let found = score.score(&defence, &Shown::new(&defence, images, &labels, denoised));
                scores.extend(values(found)?.into_iter().map(f64::from));
                Ok(())
            })?;
            Ok(scores)
        };
        auroc(&scores(&self.twins.images)?, &scores(&self.twins.twins)?)
    }

    fn batches(
        &self,
        network: &TrainedAutoencoder,
        set: &Dataset,
        mut each: impl FnMut(&[usize], Tensor<4>, Denoised) -> Result<()>,
    ) -> Result<()> {
        let indices: Vec<usize> = (0..set.len()).collect();
        indices.chunks(INFERENCE_BATCH).try_for_each(|chunk| {
            let images = set.batch(chunk, network.device())?;
            each(chunk, images.clone(), network.denoise(images))
        })
    }
}
