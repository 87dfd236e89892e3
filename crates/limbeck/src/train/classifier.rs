//! Training a classifier on hard labels or on a teacher's answers, on images as they are or perturbed against it.

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    Augmentation, Checkpoints, CraftingConfig, Ensemble, Epoch, RobustLoss, Task, TrainConfig, Validation,
    augment, fit, soft_cross_entropy,
};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Classifier, ClassifierSpec, Model, Tempered, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};

/// What a classifier is asked to answer on each training image.
#[derive(Clone, Debug)]
pub enum Targets {
    /// The dataset's own labels.
    Labels,
    /// Distributions over the outputs, `[images, outputs]` row by row in the dataset's order.
    Soft(Vec<f32>),
}

/// A teacher that a student is to be like under attack: adversarially robust distillation (Goldblum 2020).
///
/// The loss is (1 − a) · CE(z_s(x), y) + a · T² · KL(softmax(z_t(x)/T) ‖ softmax(z_s(x + δ)/T)), with the teacher in inference mode, asked about
/// the very image that the student sees.
#[derive(Clone, Copy, Debug)]
pub struct RobustDistillation<'a> {
    /// Who is imitated; nothing of it changes.
    pub teacher: &'a TrainedClassifier,
    /// T, of both sides of the divergence.
    pub temperature: f64,
    /// a, the weight of the teacher's answers beside the targets'.
    pub weight: f64,
}

impl RobustDistillation<'_> {
    fn loss(&self) -> RobustLoss {
        RobustLoss { temperature: self.temperature, weight: self.weight }
    }
}

/// What a classifier learns from.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// What it is to answer.
    pub targets: &'a Targets,
    /// How its images are perturbed against it; `None` = they are not.
    ///
    /// Its validation then asks for robust accuracy too.
    pub adversarial: Option<CraftingConfig>,
    /// Networks that they are perturbed against in its place, in validation too.
    pub ensemble: Option<Ensemble<'a>>,
    /// A teacher that it is to be like on the perturbed images; the targets are then asked of the images as they are.
    pub robust_distillation: Option<RobustDistillation<'a>>,
    /// Whose weights it begins with, so that it answers alike at its own temperature; `None` = fresh random ones.
    pub start: Option<&'a TrainedClassifier>,
}

/// Images in a forward pass without gradients.
pub(crate) const INFERENCE_BATCH: usize = 256;

/// Calibration images that a network in adversarial training is attacked on after each epoch, spread over the set (Rice 2020: 1,000).
const ATTACKED_IMAGES: usize = 1000;

struct ClassifierTask<'a> {
    train: &'a Dataset,
    calibration: &'a Dataset,
    lesson: &'a Lesson<'a>,
    spec: &'a ClassifierSpec,
    label_smoothing: f64,
    augmentation: Augmentation,
    device: Device,
    /// Of the attack in validation: every epoch withstands the same starts.
    validation_seed: Seed,
}

/// Augmented images with what is asked of them.
struct Batch {
    /// `[batch, 3, height, width]`, off the autodiff device.
    images: Tensor<4>,
    /// `[batch, classes]`.
    targets: Tensor<2>,
    /// True classes, as far as the training set knows them: what adversarial examples lead away from.
    labels: Vec<u32>,
}

impl ClassifierTask<'_> {
    fn targets(&self, indices: &[usize], device: &Device) -> Tensor<2> {
        let classes = self.spec.outputs();
        let values = match self.lesson.targets {
            Targets::Labels => {
                let labels = indices.iter().map(|&index| self.train.samples()[index].label);
                smoothed_one_hot(labels, classes, self.label_smoothing)
            }
            Targets::Soft(rows) => indices
                .iter()
                .flat_map(|&index| &rows[index * classes..(index + 1) * classes])
                .copied()
                .collect(),
        };
        Tensor::from_data(TensorData::new(values, [indices.len(), classes]), device)
    }
}

fn smoothed_one_hot(labels: impl Iterator<Item = u32>, classes: usize, smoothing: f64) -> Vec<f32> {
    let low = (smoothing / classes as f64) as f32;
    labels
        .flat_map(|label| {
            (0..classes)
                .map(move |class| if class == label as usize { 1.0 - smoothing as f32 + low } else { low })
        })
        .collect()
}

impl ClassifierTask<'_> {
    /// T · CE(p, softmax(z/T)) of images in training.
    ///
    /// The gradient of CE(p, softmax(z/T)) is T times smaller than at T = 1: scaled back, one learning rate fits every T.
    fn target_loss(
        &self,
        network: &Classifier,
        images: Tensor<4>,
        targets: Tensor<2>,
        rng: &mut Rng,
    ) -> Tensor<1> {
        let temperature = self.spec.temperature;
        let logits = network.train_logits(images.autodiff(), rng);
        soft_cross_entropy(logits, targets, temperature).mul_scalar(temperature)
    }

    /// The images as they are, or perturbed against the network, or against others.
    fn perturbed(&self, network: &Classifier, batch: &Batch, place: f64, rng: &mut Rng) -> Result<Tensor<4>> {
        let Some(crafting) = &self.lesson.adversarial else { return Ok(batch.images.clone()) };
        let (images, labels) = (batch.images.clone(), &batch.labels);
        if let Some(ensemble) = &self.lesson.ensemble {
            return ensemble.batch(crafting, images, labels, place, rng);
        }
        let frozen = TrainedClassifier::freeze(network, self.spec.clone(), &self.device);
        crafting.examples(&Tempered(&frozen), images, labels, place, rng)
    }

    /// Share of the attacked calibration images that the network reads right.
    fn robust_accuracy(&self, network: &Classifier, crafting: &CraftingConfig) -> Result<f64> {
        let device = self.device.clone().without_autodiff();
        let images = self.calibration.len();
        let attacked = images.min(ATTACKED_IMAGES);
        let indices: Vec<usize> = (0..attacked).map(|row| row * images / attacked).collect();
        let frozen = TrainedClassifier::freeze(network, self.spec.clone(), &self.device);
        let itself = [&frozen];
        let attackers = self.lesson.ensemble.map_or(&itself[..], |ensemble| ensemble.networks);
        let crafting = crafting.for_validation();
        let mut rng = self.validation_seed.rng("starts");
        let mut right = 0;
        // An ensemble's networks take turns by image, so that each has its share of a small set too.
        for (first, attacker) in attackers.iter().enumerate() {
            let own: Vec<usize> = indices.iter().copied().skip(first).step_by(attackers.len()).collect();
            for chunk in own.chunks(INFERENCE_BATCH) {
                let labels = self.calibration.labels(chunk);
                let images = self.calibration.batch(chunk, &device)?;
                let examples = crafting.examples(&Tempered(attacker), images, &labels, 1.0, &mut rng)?;
                let answers = crate::tensors::argmax(frozen.logits(examples))?;
                right += answers.iter().zip(&labels).filter(|(a, b)| a == b).count();
            }
        }
        Ok(right as f64 / attacked as f64)
    }
}

impl Task<Classifier> for ClassifierTask<'_> {
    type Batch = Batch;

    fn images(&self) -> usize {
        self.train.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Batch> {
        let mut pixels = self.train.batch_f32(indices)?;
        augment(&mut pixels, self.train.size(), &self.augmentation, rng);
        let plain = self.device.clone().without_autodiff();
        Ok(Batch {
            images: self.train.tensor(pixels, indices.len(), &plain),
            targets: self.targets(indices, &self.device),
            labels: self.train.labels(indices),
        })
    }

    fn loss(&self, network: &Classifier, batch: Batch, place: f64, rng: &mut Rng) -> Result<Tensor<1>> {
        let distillation = self.lesson.robust_distillation.as_ref();
        let answers = distillation
            .and_then(|distillation| distillation.loss().answers(distillation.teacher, batch.images.clone()));
        let perturbed = if distillation.is_some() && answers.is_none() {
            batch.images.clone()
        } else {
            self.perturbed(network, &batch, place, rng)?
        };
        let Batch { images, targets, .. } = batch;
        let mut loss_of = |network: &Classifier| {
            let Some(distillation) = distillation else {
                return self.target_loss(network, perturbed.clone(), targets.clone(), rng);
            };
            distillation.loss().of(
                answers.clone(),
                rng,
                |rng| network.train_logits(perturbed.clone().autodiff(), rng),
                |rng| self.target_loss(network, images.clone(), targets.clone(), rng),
            )
        };
        Ok(match &self.lesson.adversarial {
            Some(crafting) => crafting.weights.loss(network, place, loss_of),
            None => loss_of(network),
        })
    }

    fn validate(&self, network: &Classifier) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let indices: Vec<usize> = (0..self.calibration.len()).collect();
        let classes = self.spec.outputs();
        let (mut loss, mut right) = (0.0, 0);
        for chunk in indices.chunks(INFERENCE_BATCH) {
            let logits = network.logits(self.calibration.batch(chunk, &device)?);
            let labels = chunk.iter().map(|&index| self.calibration.samples()[index].label);
            let one_hot = smoothed_one_hot(labels.clone(), classes, 0.0);
            let targets = Tensor::from_data(TensorData::new(one_hot, [chunk.len(), classes]), &device);
            let mean =
                soft_cross_entropy(logits.clone(), targets, self.spec.temperature).into_scalar::<f32>();
            loss += f64::from(mean) * chunk.len() as f64;
            right += crate::tensors::argmax(logits)?.into_iter().zip(labels).filter(|(a, b)| a == b).count();
        }
        let images = indices.len() as f64;
        let crafting = self.lesson.adversarial.as_ref();
        Ok(Validation {
            loss: loss / images,
            metric: right as f64 / images,
            robust: crafting.map(|crafting| self.robust_accuracy(network, crafting)).transpose()?,
        })
    }
}

/// Trains a classifier from scratch on images as they are; see [`teach_classifier`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn train_classifier(
    spec: ClassifierSpec,
    train: &Dataset,
    targets: &Targets,
    calibration: &Dataset,
    config: &TrainConfig,
    device: &Device,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(TrainedClassifier, Vec<Epoch>)> {
    let lesson =
        Lesson { targets, adversarial: None, ensemble: None, robust_distillation: None, start: None };
    teach_classifier(spec, train, &lesson, calibration, config, device, seed, checkpoints, progress)
}

/// Trains a classifier from scratch; validation and early stopping look at `calibration`, whose labels are trusted.
///
/// # Errors
/// Refuses soft targets of the wrong number, a teacher or an ensemble of other classes, a start of another shape, a weight that is no share, and everything that [`fit`] refuses.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn teach_classifier(
    spec: ClassifierSpec,
    train: &Dataset,
    lesson: &Lesson<'_>,
    calibration: &Dataset,
    config: &TrainConfig,
    device: &Device,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(TrainedClassifier, Vec<Epoch>)> {
    let refused = |found: String, expected: String| Error::input("classifier training", found, expected);
    let classes = spec.outputs();
    if let Targets::Soft(rows) = lesson.targets
        && rows.len() != train.len() * classes
    {
        return Err(refused(
            format!("{} soft label values", rows.len()),
            format!("{} images x {classes} outputs", train.len()),
        ));
    }
    if let Some(RobustDistillation { teacher, weight, .. }) = lesson.robust_distillation {
        let found = teacher.spec().outputs();
        if found != classes {
            return Err(refused(format!("a teacher of {found} outputs"), format!("the student's {classes}")));
        }
        if !(0.0..=1.0).contains(&weight) {
            return Err(refused(format!("a weight of {weight}"), "a share in [0, 1]".to_owned()));
        }
    }
    if let Some(ensemble) = lesson.ensemble {
        ensemble.check(spec.classes.len())?;
    }
    if calibration.is_empty() {
        return Err(refused("an empty calibration split".to_owned(), "at least one image".to_owned()));
    }
    let training_device = device.clone().without_autodiff().autodiff();
    let task = ClassifierTask {
        train,
        calibration,
        lesson,
        spec: &spec,
        label_smoothing: config.label_smoothing,
        augmentation: config.augmentation,
        device: training_device.clone(),
        validation_seed: seed.child("validation"),
    };
    let fresh = spec.init(&training_device, &mut seed.rng("weights"))?;
    let network = match lesson.start {
        None => fresh,
        Some(start) => start.begin(fresh, &spec)?,
    };
    let (network, epochs) = fit(network, &task, config, seed, checkpoints, progress)?;
    Ok((TrainedClassifier::freeze(&network, spec, device), epochs))
}
