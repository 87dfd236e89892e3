//! Networks: the classifiers and the denoising autoencoders, each from a config, with weights on disk.
//!
//! Images are `[batch, 3, height, width]` with pixels in `[0, 1]`; normalisation is part of the network, so an
//! attack's eps is always in pixel units. A network in training is a plain Burn module; a finished one is a
//! [`TrainedClassifier`] or [`TrainedAutoencoder`], whose layers can no longer change: batch norm uses its running statistics,
//! dropout is off unless passes are asked for, and gradients flow to the images alone.

mod autoencoder;
mod classifier;
pub(crate) mod layers;
mod log_odds;
mod resnet;
mod vgg;
mod views;
pub(crate) mod weights;

pub(crate) use autoencoder::fine_structure;
pub use autoencoder::{Autoencoder, AutoencoderKind, AutoencoderSpec, Denoised, TrainedAutoencoder};
pub use classifier::{Architecture, Classifier, ClassifierSpec, TrainedClassifier};
pub use layers::{Dropout, Normalisation};
pub(crate) use log_odds::{LogOdds, Standard, TrainedLogOdds};
pub use views::Views;

use burn::tensor::{Device, Tensor};

/// Anything that answers images with logits: a classifier, a classifier behind a DAE, a user's own network.
///
/// An attack needs no more than this: the input gradient comes from autodiff.
pub trait Model {
    /// Logits `[batch, classes]` of images `[batch, 3, height, width]` in `[0, 1]`.
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;

    /// Where the weights live.
    fn device(&self) -> Device;
}

/// A classifier with its logits divided by the temperature that it was trained at.
///
/// Its answers are the classifier's own. A distilled student's logits are T times larger than usual, so at T = 1 its softmax
/// saturates and gradients vanish: an attack that minds this sees z/T (Carlini & Wagner 2017, section IV).
pub struct Tempered<'a>(pub &'a TrainedClassifier);

impl Model for Tempered<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.0.logits(images).div_scalar(self.0.spec().temperature)
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

/// The same without its outlier class, if it has one: of the classes that it may answer.
pub(crate) struct AmongClasses<'a>(pub(crate) &'a TrainedClassifier);

impl Model for AmongClasses<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        Tempered(self.0).logits(images).narrow(1, 0, self.0.spec().classes.len())
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

/// By how much the outlier class of a classifier is above its likeliest class, in units of z/T, as a model of one logit: above 0 it is the answer. `[batch, 1]`
pub(crate) struct OutlierLead<'a>(pub(crate) &'a TrainedClassifier);

impl Model for OutlierLead<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let (logits, classes) = (Tempered(self.0).logits(images), self.0.spec().classes.len());
        logits.clone().narrow(1, classes, 1) - logits.narrow(1, 0, classes).max_dim(1)
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

/// An autoencoder's detection head as a model of one logit: the log-odds that an image was perturbed on purpose, `[batch, 1]`.
#[derive(Clone, Copy)]
pub struct DetectionHead<'a>(pub &'a TrainedAutoencoder);

impl Model for DetectionHead<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let log_odds = self.0.denoise(images).logits;
        let [batch] = log_odds.dims();
        log_odds.reshape([batch, 1])
    }

    fn device(&self) -> Device {
        self.0.device().clone()
    }
}

/// An autoencoder's reconstruction error as a model of one logit: ln of the mean over pixels and channels of (x − D(x))², `[batch, 1]`.
#[derive(Clone, Copy)]
pub struct ReconstructionError<'a>(pub &'a TrainedAutoencoder);

impl ReconstructionError<'_> {
    /// What is added to the error: an image that is its own reconstruction has a logarithm too, and a gradient.
    pub const FLOOR: f64 = 1e-12;

    /// The same of images `[batch, 3, h, w]` and reconstructions that were made elsewhere, `[batch, 1]`.
    pub(crate) fn between(images: Tensor<4>, reconstructed: Tensor<4>) -> Tensor<2> {
        let errors = images - reconstructed;
        errors.square().flatten::<2>(1, 3).mean_dim(1).add_scalar(Self::FLOOR).log()
    }

    /// The same of mean squared errors that were computed elsewhere.
    pub(crate) fn logarithms(errors: &[f64]) -> Vec<f64> {
        errors.iter().map(|error| (error + Self::FLOOR).ln()).collect()
    }
}

impl Model for ReconstructionError<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        Self::between(images.clone(), self.0.reconstruct(images))
    }

    fn device(&self) -> Device {
        self.0.device().clone()
    }
}

/// A classifier that looks at the reconstruction instead of the image: logits(D(x)).
///
/// Gradients flow through the autoencoder, so an attack on it is an attack on the whole defence.
pub struct Defended<'a> {
    /// The denoiser in front.
    pub autoencoder: &'a TrainedAutoencoder,
    /// The classifier behind.
    pub classifier: &'a TrainedClassifier,
}

/// The same as an attacker sees it who takes the autoencoder's gradient for that of the identity: backward pass differentiable approximation (Athalye 2018, section 4.1).
///
/// It answers as [`Defended`] does. Where it is attacked with more success than that, the autoencoder's own gradient hides something.
pub struct StraightThrough<'a> {
    /// The denoiser in front.
    pub autoencoder: &'a TrainedAutoencoder,
    /// The classifier behind.
    pub classifier: &'a TrainedClassifier,
}

impl Model for StraightThrough<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let change = self.autoencoder.reconstruct(images.clone()) - images.clone();
        self.classifier.logits(images + change.detach())
    }

    fn device(&self) -> Device {
        self.classifier.device()
    }
}

impl Model for Defended<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.classifier.logits(self.autoencoder.reconstruct(images))
    }

    fn device(&self) -> Device {
        self.classifier.device()
    }
}
