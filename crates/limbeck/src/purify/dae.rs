//! Training the denoising autoencoder: mean squared error between D(x') and x over pairs and noise models.
//!
//! x' is the clean image itself, its adversarial twin, or the image with noise. The twins are crafted once, by the
//! defender on a network of its own, and stored in 8 bits like every image that an attacker can hand over.

use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;

use super::noise::{Damage, NoiseConfig, coarse, gaussian};
use crate::craft::craft_images;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Autoencoder, AutoencoderSpec, Model, TrainedAutoencoder};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};
use crate::train::{Checkpoints, Epoch, INFERENCE_BATCH, Task, TrainConfig, Validation, fit};

/// A set with the adversarial twin of each image, in the same order.
#[derive(Clone)]
pub struct Twins {
    /// The images.
    pub images: Dataset,
    /// Their twins; the images themselves when no attack is configured.
    pub twins: Dataset,
}

/// Crafts a twin for each image on the defender's own `model`.
pub fn craft_twins(
    images: &Dataset,
    noise: &NoiseConfig,
    model: &dyn Model,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Twins> {
    let mut twins = images.clone();
    if noise.adversarial > 0.0 && !noise.twins.is_empty() {
        let mut rng = seed.rng("attack of each twin");
        let choice: Vec<usize> = (0..images.len()).map(|_| rng.random_range(0..noise.twins.len())).collect();
        for (index, attack) in noise.twins.iter().enumerate() {
            let chosen: Vec<usize> = (0..images.len()).filter(|&image| choice[image] == index).collect();
            progress.task(&format!("crafting twins, {}", attack.label()), "images");
            let crafted = craft_images(images, &chosen, attack, model, device, progress)?;
            twins =
                twins.with_pixels(chosen.into_iter().zip(crafted.into_iter().map(|image| image.pixels)))?;
        }
    }
    Ok(Twins { images: images.clone(), twins })
}

struct DenoisingTask<'a> {
    train: &'a Twins,
    calibration: &'a Twins,
    noise: &'a NoiseConfig,
    device: Device,
}

impl DenoisingTask<'_> {
    /// Damaged inputs for the images at `indices`.
    fn inputs(&self, indices: &[usize], clean: &Tensor<4>, rng: &mut Rng) -> Result<Tensor<4>> {
        let damages: Vec<Damage> = indices.iter().map(|_| self.noise.draw(rng)).collect();
        let pixels = self.train.images.size().bytes();
        let mut values = Vec::with_capacity(indices.len() * pixels);
        for (index, damage) in indices.iter().zip(&damages) {
            let source = if *damage == Damage::Adversarial { &self.train.twins } else { &self.train.images };
            values.extend(source.batch_f32(&[*index])?);
        }
        let mut inputs = self.train.images.tensor(values, indices.len(), &clean.device());
        let sigmas = |kind: Damage, sigma: &mut dyn FnMut() -> f64| -> Vec<f32> {
            damages.iter().map(|damage| if *damage == kind { sigma() as f32 } else { 0.0 }).collect()
        };
        if damages.contains(&Damage::Gaussian) {
            let most = self.noise.gaussian_sigma;
            let sigmas = sigmas(Damage::Gaussian, &mut || most * rng.random::<f64>());
            inputs = inputs.clone() + gaussian(&inputs, &sigmas, rng);
        }
        if damages.contains(&Damage::Coarse) {
            let sigmas = sigmas(Damage::Coarse, &mut || self.noise.coarse_sigma);
            inputs = inputs.clone() + coarse(&inputs, &sigmas, rng);
        }
        Ok(inputs.clamp(0.0, 1.0))
    }
}

impl Task<Autoencoder> for DenoisingTask<'_> {
    /// Damaged inputs and the images themselves.
    type Batch = (Tensor<4>, Tensor<4>);

    fn images(&self) -> usize {
        self.train.images.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Self::Batch> {
        let clean = self.train.images.batch(indices, &self.device.clone().without_autodiff())?;
        Ok((self.inputs(indices, &clean, rng)?, clean))
    }

    fn loss(&self, network: &Autoencoder, (inputs, clean): Self::Batch, _: &mut Rng) -> Result<Tensor<1>> {
        Ok(mean_squared_error(network.forward(inputs.autodiff()), clean.autodiff()))
    }

    /// Loss over clean images and twins in equal parts; metric: mean reconstruction error of the clean images.
    fn validate(&self, network: &Autoencoder) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let images = &self.calibration.images;
        let indices: Vec<usize> = (0..images.len()).collect();
        let (mut restored, mut reconstructed) = (0.0, 0.0);
        for chunk in indices.chunks(INFERENCE_BATCH) {
            let clean = images.batch(chunk, &device)?;
            let twins = self.calibration.twins.batch(chunk, &device)?;
            let error = |input: Tensor<4>| {
                let output = network.forward(input).clamp(0.0, 1.0);
                f64::from(mean_squared_error(output, clean.clone()).into_scalar::<f32>()) * chunk.len() as f64
            };
            reconstructed += error(clean.clone());
            restored += error(twins);
        }
        let count = indices.len() as f64;
        let (restored, reconstructed) = (restored / count, reconstructed / count);
        Ok(Validation { loss: (restored + reconstructed) / 2.0, metric: reconstructed })
    }
}

/// Trains an autoencoder from scratch; the validation metric is the mean reconstruction error on clean calibration images.
///
/// # Errors
/// Everything that [`fit`] refuses.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn train_autoencoder(
    spec: AutoencoderSpec,
    train: &Twins,
    calibration: &Twins,
    noise: &NoiseConfig,
    config: &TrainConfig,
    device: &Device,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(TrainedAutoencoder, Vec<Epoch>)> {
    let training_device = device.clone().without_autodiff().autodiff();
    let task = DenoisingTask { train, calibration, noise, device: training_device.clone() };
    let network = spec.init(&training_device, &mut seed.rng("weights"))?;
    progress.task("training the autoencoder", "images");
    let (network, epochs) = fit(network, &task, config, seed, checkpoints, progress)?;
    Ok((TrainedAutoencoder::freeze(&network, spec, device), epochs))
}
