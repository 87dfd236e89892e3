//! Suspicion scores: one number an image, larger = more suspicious.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_softmax, softmax};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Denoised, Model, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::tensors::{argmax, values};
use crate::train::INFERENCE_BATCH;

/// What scores may look at: the defender's own networks, and an image with its reconstruction.
#[derive(Clone, Copy)]
pub struct Defence<'a> {
    /// The denoiser.
    pub autoencoder: &'a TrainedAutoencoder,
    /// A classifier of the defender's.
    pub classifier: &'a TrainedClassifier,
    /// A classifier of the defender's that learnt its classes from trusted images.
    pub label_model: Option<&'a TrainedClassifier>,
    /// Temperature on the first distribution of the KL score.
    pub kl_temperature: f64,
}

/// A batch that is scored.
#[derive(Clone)]
pub struct Shown<'a> {
    /// `[batch, 3, h, w]`.
    pub images: Tensor<4>,
    /// The labels that the images came with.
    pub labels: &'a [u32],
    /// What the autoencoder makes of the images.
    pub denoised: Denoised,
}

/// A score of a batch of images; returns `[batch]`.
pub trait Score: Sync {
    /// Larger = more suspicious.
    fn score(&self, defence: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1>;
}

/// Mean over pixels of (x − D(x))², the paper's reconstruction error.
struct MeanSquaredError;

impl Score for MeanSquaredError {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        (shown.images.clone() - shown.denoised.reconstructions.clone())
            .square()
            .flatten::<2>(1, 3)
            .mean_dim(1)
            .flatten(0, 1)
    }
}

/// KL(softmax(z(x)/T) ‖ softmax(z(D(x)))), T on the first only (Vacanti & Van Looveren 2020, AdversarialAE).
struct KullbackLeibler;

impl Score for KullbackLeibler {
    fn score(&self, defence: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let scaled = defence.classifier.logits(shown.images.clone()).div_scalar(defence.kl_temperature);
        let second = log_softmax(defence.classifier.logits(shown.denoised.reconstructions.clone()), 1);
        (softmax(scaled.clone(), 1) * (log_softmax(scaled, 1) - second)).sum_dim(1).flatten(0, 1)
    }
}

/// Log-odds of the autoencoder's detection head (Metzen 2017 put such a head on a classifier; here it sits on the denoiser's trunk).
struct DetectionHead;

impl Score for DetectionHead {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        shown.denoised.logits.clone()
    }
}

/// max over other classes k of log p_k(x) − log p_y(x) for label y, by the label model: how much surer it is of another class. 0 without one.
struct WrongLabel;

impl Score for WrongLabel {
    fn score(&self, defence: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let Some(label_model) = defence.label_model else {
            return Tensor::zeros([shown.labels.len()], &shown.images.device());
        };
        let answers = log_softmax(label_model.logits(shown.images.clone()), 1);
        let [batch, classes] = answers.dims();
        let labels = crate::tensors::labels(shown.labels, &answers.device());
        let own = labels.clone().one_hot::<2>(classes).float();
        let given = answers.clone().gather(1, labels.reshape([batch, 1]));
        // Far below any log-probability, so that a label is not held against itself.
        let others = answers - own.mul_scalar(1e9);
        (others.max_dim(1) - given).flatten(0, 1)
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
    /// Log-odds of the detection head on the autoencoder's trunk.
    Head,
    /// How much surer the label model is of another class than of the label.
    Label,
    /// The least likely of detection head and label model on calibration images.
    Mixture,
}

/// All scores: listing one here computes it, writes it to the ledger and measures it.
pub const TABLE: &[(ScoreKind, &str, &dyn Score)] = &[
    (ScoreKind::Mse, "mse", &MeanSquaredError),
    (ScoreKind::Kl, "kl", &KullbackLeibler),
    (ScoreKind::Head, "head", &DetectionHead),
    (ScoreKind::Label, "label", &WrongLabel),
];

impl ScoreKind {
    /// Position in the scores of a ledger row: that in [`TABLE`], and the mixture of them last.
    pub fn position(self) -> usize {
        TABLE.iter().position(|(kind, ..)| *kind == self).unwrap_or(TABLE.len())
    }

    /// Name in ledgers and reports.
    pub fn name(self) -> &'static str {
        TABLE.get(self.position()).map_or("mixture", |row| row.1)
    }

    /// Names of all scores of a ledger row, in its order.
    pub fn names() -> Vec<String> {
        let names = TABLE.iter().map(|row| row.1).chain([Self::Mixture.name()]);
        names.map(str::to_owned).collect()
    }
}

/// What is known of one image after scoring.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    /// One value for each score, in the order of [`TABLE`].
    pub(super) scores: Vec<f64>,
    /// What the classifier answers on its reconstruction.
    pub(super) restored_answer: u32,
    /// What the label model answers, if there is one.
    pub(super) shown_class: Option<u32>,
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
        let (denoised, labels) = (defence.autoencoder.denoise(images.clone()), set.labels(chunk));
        let shown = Shown { images, labels: &labels, denoised };
        let columns = TABLE
            .iter()
            .map(|(_, _, score)| values(score.score(defence, &shown)))
            .collect::<Result<Vec<_>>>()?;
        let read = |model: &TrainedClassifier| argmax(model.logits(shown.images.clone()));
        let classes = defence.label_model.map(read).transpose()?;
        let restored = argmax(defence.classifier.logits(shown.denoised.reconstructions))?;
        scored.extend((0..chunk.len()).map(|row| Scored {
            scores: columns.iter().map(|column| f64::from(column[row])).collect(),
            restored_answer: restored[row],
            shown_class: classes.as_ref().map(|classes| classes[row]),
        }));
        progress.advance(scored.len() as u64, set.len() as u64);
    }
    Ok(scored)
}

/// Columns of [`TABLE`] for the images, one column for each score.
pub(super) fn columns(scored: &[Scored]) -> Vec<Vec<f64>> {
    (0..TABLE.len()).map(|column| scored.iter().map(|image| image.scores[column]).collect()).collect()
}
