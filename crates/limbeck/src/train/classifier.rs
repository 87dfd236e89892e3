//! Training a classifier on hard labels or on a teacher's soft labels, at a softmax temperature.

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    Augmentation, Checkpoints, Epoch, Task, TrainConfig, Validation, augment, fit, soft_cross_entropy,
};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Classifier, ClassifierSpec, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};

/// What a classifier is asked to answer on each training image.
#[derive(Clone, Debug)]
pub enum Targets {
    /// The dataset's own labels.
    Labels,
    /// Distributions over the classes, `[images, classes]` row by row in the dataset's order.
    Soft(Vec<f32>),
}

/// Images in a forward pass without gradients.
pub(crate) const INFERENCE_BATCH: usize = 256;

struct ClassifierTask<'a> {
    train: &'a Dataset,
    calibration: &'a Dataset,
    targets: &'a Targets,
    temperature: f64,
    label_smoothing: f64,
    augmentation: Augmentation,
    device: Device,
}

impl ClassifierTask<'_> {
    fn targets(&self, indices: &[usize], device: &Device) -> Tensor<2> {
        let classes = self.train.classes().len();
        let values = match self.targets {
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

impl Task<Classifier> for ClassifierTask<'_> {
    /// Images and target distributions.
    type Batch = (Tensor<4>, Tensor<2>);

    fn images(&self) -> usize {
        self.train.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Self::Batch> {
        let mut pixels = self.train.batch_f32(indices)?;
        augment(&mut pixels, self.train.size(), &self.augmentation, rng);
        let plain = self.device.clone().without_autodiff();
        let images = self.train.tensor(pixels, indices.len(), &plain);
        Ok((images, self.targets(indices, &self.device)))
    }

    fn loss(&self, network: &Classifier, (images, targets): Self::Batch, rng: &mut Rng) -> Result<Tensor<1>> {
        let loss =
            soft_cross_entropy(network.train_logits(images.autodiff(), rng), targets, self.temperature);
        // The gradient of CE(p, softmax(z/T)) is T times smaller than at T = 1: scaled back, one learning rate fits every T.
        Ok(loss.mul_scalar(self.temperature))
    }

    fn validate(&self, network: &Classifier) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let indices: Vec<usize> = (0..self.calibration.len()).collect();
        let classes = self.calibration.classes().len();
        let (mut loss, mut right) = (0.0, 0);
        for chunk in indices.chunks(INFERENCE_BATCH) {
            let logits = network.logits(self.calibration.batch(chunk, &device)?);
            let labels = chunk.iter().map(|&index| self.calibration.samples()[index].label);
            let one_hot = smoothed_one_hot(labels.clone(), classes, 0.0);
            let targets = Tensor::from_data(TensorData::new(one_hot, [chunk.len(), classes]), &device);
            let mean = soft_cross_entropy(logits.clone(), targets, self.temperature).into_scalar::<f32>();
            loss += f64::from(mean) * chunk.len() as f64;
            right += crate::tensors::argmax(logits)?.into_iter().zip(labels).filter(|(a, b)| a == b).count();
        }
        let images = indices.len() as f64;
        Ok(Validation { loss: loss / images, metric: right as f64 / images })
    }
}

/// Trains a classifier from scratch; validation and early stopping look at `calibration`, whose labels are trusted.
///
/// # Errors
/// Refuses soft targets of the wrong number, and everything that [`fit`] refuses.
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
    if let Targets::Soft(rows) = targets
        && rows.len() != train.len() * spec.classes.len()
    {
        return Err(Error::input(
            "classifier training",
            format!("{} soft label values", rows.len()),
            format!("{} images x {} classes", train.len(), spec.classes.len()),
        ));
    }
    if calibration.is_empty() {
        return Err(Error::input("classifier training", "an empty calibration split", "at least one image"));
    }
    let training_device = device.clone().without_autodiff().autodiff();
    let task = ClassifierTask {
        train,
        calibration,
        targets,
        temperature: spec.temperature,
        label_smoothing: config.label_smoothing,
        augmentation: config.augmentation,
        device: training_device.clone(),
    };
    let network = spec.init(&training_device, &mut seed.rng("weights"))?;
    let (network, epochs) = fit(network, &task, config, seed, checkpoints, progress)?;
    Ok((TrainedClassifier::freeze(&network, spec, device), epochs))
}
