//! Suspicion scores: one number an image, larger = more suspicious.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Model, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// What scores may look at: the defender's own networks, and an image with its reconstruction.
#[derive(Clone, Copy)]
pub struct Defence<'a> {
    /// The denoiser.
    pub autoencoder: &'a TrainedAutoencoder,
    /// A classifier of the defender's.
    pub classifier: &'a TrainedClassifier,
    /// Temperature on the first distribution of the KL score.
    pub kl_temperature: f64,
}

/// A score of a batch of images given their reconstructions, both `[batch, 3, h, w]`; returns `[batch]`.
pub trait Score: Sync {
    /// Larger = more suspicious.
    fn score(&self, defence: &Defence<'_>, images: Tensor<4>, reconstructions: Tensor<4>) -> Tensor<1>;
}

/// Mean over pixels of (x − D(x))², the paper's reconstruction error.
struct MeanSquaredError;

impl Score for MeanSquaredError {
    fn score(&self, _: &Defence<'_>, images: Tensor<4>, reconstructions: Tensor<4>) -> Tensor<1> {
        (images - reconstructions).square().flatten::<2>(1, 3).mean_dim(1).flatten(0, 1)
    }
}

/// KL(softmax(z(x)/T) ‖ softmax(z(D(x)))), T on the first only (Vacanti & Van Looveren 2020, AdversarialAE).
struct KullbackLeibler;

impl Score for KullbackLeibler {
    fn score(&self, defence: &Defence<'_>, images: Tensor<4>, reconstructions: Tensor<4>) -> Tensor<1> {
        let scaled = defence.classifier.logits(images).div_scalar(defence.kl_temperature);
        let second = log_softmax(defence.classifier.logits(reconstructions), 1);
        (softmax(scaled.clone(), 1) * (log_softmax(scaled, 1) - second)).sum_dim(1).flatten(0, 1)
    }
}

/// Which score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Mean squared reconstruction error.
    Mse,
    /// Kullback-Leibler divergence between the answers to the image and to its reconstruction.
    Kl,
}

/// All scores: listing one here computes it, writes it to the ledger and measures it.
pub const TABLE: &[(ScoreKind, &str, &dyn Score)] =
    &[(ScoreKind::Mse, "mse", &MeanSquaredError), (ScoreKind::Kl, "kl", &KullbackLeibler)];

impl ScoreKind {
    /// Position in [`TABLE`] and in the scores of a ledger row.
    pub fn position(self) -> usize {
        TABLE.iter().position(|(kind, ..)| *kind == self).expect("every kind is in the table")
    }

    /// Name in ledgers and reports.
    pub fn name(self) -> &'static str {
        TABLE[self.position()].1
    }
}

/// What is known of one image after scoring.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    /// One value for each score, in the order of [`TABLE`].
    pub(super) scores: Vec<f64>,
    /// What the classifier answers on its reconstruction.
    pub(super) restored_answer: u32,
}

/// Scores every image of a set, batch by batch.
pub(super) fn score_all(
    set: &Dataset,
    defence: &Defence<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Scored>> {
    let device = defence.autoencoder.device();
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut scored = Vec::with_capacity(set.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let images = set.batch(chunk, device)?;
        let reconstructions = defence.autoencoder.reconstruct(images.clone());
        let columns = TABLE
            .iter()
            .map(|(_, _, score)| values(score.score(defence, images.clone(), reconstructions.clone())))
            .collect::<Result<Vec<_>>>()?;
        let restored = crate::tensors::argmax(defence.classifier.logits(reconstructions))?;
        scored.extend((0..chunk.len()).map(|row| Scored {
            scores: columns.iter().map(|column| f64::from(column[row])).collect(),
            restored_answer: restored[row],
        }));
        progress.advance(scored.len() as u64, set.len() as u64);
    }
    Ok(scored)
}
