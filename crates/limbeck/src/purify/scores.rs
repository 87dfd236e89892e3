//! Suspicion scores: one number an image, larger = more suspicious.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fitted::{FITTED, FittedScores};
use super::intent::IntentModel;
use super::label_model::LabelModel;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Denoised, Model, TrainedAutoencoder, TrainedClassifier, fine_structure};
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
    pub label_model: Option<&'a LabelModel>,
    /// What tells crafted images from honest damage.
    pub intent: Option<&'a IntentModel>,
    /// Temperature on the first distribution of the KL score.
    pub kl_temperature: f64,
}

/// What the defender's classifier makes of a batch.
#[derive(Clone)]
pub struct Reading {
    /// In front of the head, `[batch, features]`.
    pub features: Tensor<2>,
    /// `[batch, classes]`.
    pub logits: Tensor<2>,
}

impl Reading {
    fn of(classifier: &TrainedClassifier, images: Tensor<4>) -> Self {
        let (features, logits) = classifier.features_and_logits(images);
        Self { features, logits }
    }
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
    /// What the classifier makes of the images.
    pub read: Reading,
    /// What the classifier makes of the reconstructions.
    pub restored: Reading,
    /// Logits of the label model for the images and for the reconstructions, each `[batch, classes]`, if there is one.
    pub label_logits: Option<[Tensor<2>; 2]>,
}

impl<'a> Shown<'a> {
    /// Lets the defender's classifiers read a batch, and its reconstructions.
    pub fn new(defence: &Defence<'_>, images: Tensor<4>, labels: &'a [u32], denoised: Denoised) -> Self {
        let read = Reading::of(defence.classifier, images.clone());
        let restored = Reading::of(defence.classifier, denoised.reconstructions.clone());
        let label_logits = defence.label_model.map(|model| {
            [&images, &denoised.reconstructions].map(|images| model.classifier.logits(images.clone()))
        });
        Self { images, labels, denoised, read, restored, label_logits }
    }
}

/// A score of a batch of images; returns `[batch]`.
pub trait Score: Sync {
    /// Larger = more suspicious.
    fn score(&self, defence: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1>;
}

/// (x − D(x))² by pixel and channel, `[batch, 3 h w]`.
fn squared_errors(shown: &Shown<'_>) -> Tensor<2> {
    (shown.images.clone() - shown.denoised.reconstructions.clone()).square().flatten(1, 3)
}

/// KL(softmax(first) ‖ softmax(second)) of each row, in nats.
fn divergence(first: Tensor<2>, second: Tensor<2>) -> Tensor<1> {
    let [p, q] = [log_softmax(first, 1), log_softmax(second, 1)];
    (p.clone().exp() * (p - q)).sum_dim(1).flatten(0, 1)
}

/// Mean over pixels of (x − D(x))², the paper's reconstruction error.
struct MeanSquaredError;

impl Score for MeanSquaredError {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        squared_errors(shown).mean_dim(1).flatten(0, 1)
    }
}

/// Mean of the largest part of (x − D(x))² (alibi-detect's OutlierAE, `outlier_perc`): what is confined to a few pixels, as a patch is.
struct TopError;

impl TopError {
    /// One pixel in a hundred: a patch of 3 x 3 on 32 x 32.
    const SHARE: f64 = 0.01;
}

impl Score for TopError {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let errors = squared_errors(shown);
        let most = ((errors.dims()[1] as f64 * Self::SHARE).round() as usize).max(1);
        errors.topk(most, 1).mean_dim(1).flatten(0, 1)
    }
}

/// ⟨x − D(x), h⟩ / ⟨h, h⟩, where h is the image's fine structure, its difference to the mean of 3x3 pixels: the share of it that a network which predicts
/// the residual takes for noise, by least squares. Sharp images with much contrast have much fine structure, so that it does not make them suspicious.
struct ResidualShare;

impl ResidualShare {
    /// Mean square of h that is added below the line, a quarter of a grey level's: an image without fine structure has no share of it.
    const FLOOR: f64 = 0.25 / (255.0 * 255.0);
}

impl Score for ResidualShare {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let residual = shown.images.clone() - shown.denoised.reconstructions.clone();
        let structure = fine_structure(shown.images.clone());
        let mean = |products: Tensor<4>| products.flatten::<2>(1, 3).mean_dim(1);
        let share = mean(residual * structure.clone()) / mean(structure.square()).add_scalar(Self::FLOOR);
        share.flatten(0, 1)
    }
}

/// KL(softmax(z(x)/T) ‖ softmax(z(D(x)))), T on the first only (Vacanti & Van Looveren 2020, AdversarialAE).
struct KullbackLeibler;

impl Score for KullbackLeibler {
    fn score(&self, defence: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let scaled = shown.read.logits.clone().div_scalar(defence.kl_temperature);
        divergence(scaled, shown.restored.logits.clone())
    }
}

/// The same divergence between the softmax of a hidden layer, here the features in front of the head (Vacanti & Van Looveren 2020, section 3.3).
struct HiddenDivergence;

impl Score for HiddenDivergence {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        divergence(shown.read.features.clone(), shown.restored.features.clone())
    }
}

/// JSD(softmax(z(x)/T), softmax(z(D(x))/T)) at the larger of MagNet's two temperatures (Meng & Chen 2017, section 4.2.2: T = 10 and 40).
struct JensenShannon;

impl JensenShannon {
    const TEMPERATURE: f64 = 40.0;
}

impl Score for JensenShannon {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        let [p, q] = [&shown.read, &shown.restored]
            .map(|reading| log_softmax(reading.logits.clone().div_scalar(Self::TEMPERATURE), 1));
        // The floor is far below what single precision tells from 0 in a sum of probabilities, and keeps 0 ln 0 at 0.
        let middle = (p.clone().exp() + q.clone().exp()).div_scalar(2.0).add_scalar(1e-30).log();
        let half = |p: Tensor<2>| (p.clone().exp() * (p - middle.clone())).sum_dim(1);
        (half(p) + half(q)).div_scalar(2.0).flatten(0, 1)
    }
}

/// Log-odds of the autoencoder's detection head (Metzen 2017 put such a head on a classifier; here it sits on the denoiser's trunk).
struct DetectionHead;

impl Score for DetectionHead {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        shown.denoised.logits.clone()
    }
}

/// [`label_margins`] by the label model: how much surer it is of another class than of the label. 0 without one.
struct WrongLabel;

impl Score for WrongLabel {
    fn score(&self, _: &Defence<'_>, shown: &Shown<'_>) -> Tensor<1> {
        match &shown.label_logits {
            Some([of_image, _]) => label_margins(of_image.clone(), shown.labels),
            None => Tensor::zeros([shown.labels.len()], &shown.images.device()),
        }
    }
}

/// max over other classes k of log p_k − log p_y for labels y, from logits `[batch, classes]`; `[batch]`.
pub(crate) fn label_margins(logits: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let answers = log_softmax(logits, 1);
    let [batch, classes] = answers.dims();
    let labels = crate::tensors::labels(labels, &answers.device());
    let own = labels.clone().one_hot::<2>(classes).float();
    let given = answers.clone().gather(1, labels.reshape([batch, 1]));
    // Far below any log-probability, so that a label is not held against itself.
    let others = answers - own.mul_scalar(1e9);
    (others.max_dim(1) - given).flatten(0, 1)
}

/// Which score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Mean squared reconstruction error.
    Mse,
    /// Mean of the largest hundredth of the squared errors.
    TopError,
    /// Share of the fine structure that the autoencoder takes for noise.
    Residual,
    /// Kullback-Leibler divergence between the answers to the image and to its reconstruction.
    Kl,
    /// The same divergence on the classifier's features.
    HiddenKl,
    /// Jensen-Shannon divergence between the same answers at temperature 40.
    Jsd,
    /// Log-odds of the detection head on the autoencoder's trunk.
    Head,
    /// How much surer the label model is of another class than of the label.
    Label,
    /// Spectral signature of the class in the classifier's last hidden layer.
    Spectral,
    /// How much nearer to the smaller of two clusters of the class, in the same layer.
    Clustering,
    /// Log-odds that the fine structure is that of a crafted image and not of honest damage; 0 without a model of it.
    Intent,
    /// The least likely of detection head, label model and reconstruction error on calibration images.
    Mixture,
}

/// All scores of a batch; those that are fitted on whole classes are in [`FITTED`]. Listing one here computes it, writes it to the ledger and measures it.
pub const TABLE: &[(ScoreKind, &str, &dyn Score)] = &[
    (ScoreKind::Mse, "mse", &MeanSquaredError),
    (ScoreKind::TopError, "top-error", &TopError),
    (ScoreKind::Residual, "residual", &ResidualShare),
    (ScoreKind::Kl, "kl", &KullbackLeibler),
    (ScoreKind::HiddenKl, "hidden-kl", &HiddenDivergence),
    (ScoreKind::Jsd, "jsd", &JensenShannon),
    (ScoreKind::Head, "head", &DetectionHead),
    (ScoreKind::Label, "label", &WrongLabel),
];

impl ScoreKind {
    /// Kinds and names of the scores of a ledger row, in its order: those of [`TABLE`], those of [`FITTED`], intent, and the mixture last.
    fn row() -> impl Iterator<Item = (Self, &'static str)> {
        let of_batches = TABLE.iter().map(|(kind, name, _)| (*kind, *name));
        let of_classes = FITTED.iter().map(|(kind, name, _)| (*kind, *name));
        of_batches.chain(of_classes).chain([(Self::Intent, "intent"), (Self::Mixture, "mixture")])
    }

    /// Position in the scores of a ledger row.
    pub fn position(self) -> usize {
        Self::row().position(|(kind, _)| kind == self).expect("every kind is in a row")
    }

    /// Name in ledgers and reports.
    pub fn name(self) -> &'static str {
        Self::row().find(|(kind, _)| *kind == self).expect("every kind is in a row").1
    }

    /// Names of all scores of a ledger row, in its order.
    pub fn names() -> Vec<String> {
        Self::row().map(|(_, name)| name.to_owned()).collect()
    }
}

/// What is known of one image after scoring.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    /// One value for each score of [`TABLE`], then one for each of [`FITTED`], then that of intent.
    pub(super) scores: Vec<f64>,
    /// What the label model answers on its reconstruction; the classifier, which a backdoor in the audited set may deceive, if there is no label model.
    pub(super) restored_answer: u32,
    /// What the label model answers, if there is one.
    pub(super) shown_class: Option<u32>,
}

/// Scores every image of a set, batch by batch.
pub(super) fn score_all(
    set: &Dataset,
    defence: &Defence<'_>,
    fitted: &FittedScores,
    progress: &dyn Progress,
) -> Result<Vec<Scored>> {
    let device = defence.autoencoder.device();
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut scored = Vec::with_capacity(set.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let images = set.batch(chunk, device)?;
        let (denoised, labels) = (defence.autoencoder.denoise(images.clone()), set.labels(chunk));
        let shown = Shown::new(defence, images, &labels, denoised);
        let columns = TABLE
            .iter()
            .map(|(_, _, score)| values(score.score(defence, &shown)))
            .collect::<Result<Vec<_>>>()?;
        let (classes, restored) = match shown.label_logits {
            Some([of_image, of_reconstruction]) => (Some(argmax(of_image)?), argmax(of_reconstruction)?),
            None => (None, argmax(shown.restored.logits)?),
        };
        let activations = values(defence.classifier.hidden(shown.read.features))?;
        let units = activations.len() / chunk.len();
        let of_class = |row: usize| fitted.of(&activations[units * row..units * (row + 1)], labels[row]);
        let intents = match defence.intent {
            Some(model) => model.log_odds(set, chunk)?,
            None => vec![0.0; chunk.len()],
        };
        scored.extend((0..chunk.len()).map(|row| {
            Scored {
                scores: columns
                    .iter()
                    .map(|column| f64::from(column[row]))
                    .chain(of_class(row))
                    .chain([intents[row]])
                    .collect(),
                restored_answer: restored[row],
                shown_class: classes.as_ref().map(|classes| classes[row]),
            }
        }));
        progress.advance(scored.len() as u64, set.len() as u64);
    }
    Ok(scored)
}

/// Columns of [`TABLE`], [`FITTED`] and intent for the images, one column for each score.
pub(super) fn columns(scored: &[Scored]) -> Vec<Vec<f64>> {
    (0..ScoreKind::Mixture.position())
        .map(|column| scored.iter().map(|image| image.scores[column]).collect())
        .collect()
}
