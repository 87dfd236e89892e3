//! Training the denoising autoencoder: mean squared error between D(x') and x over pairs and noise models.
//!
//! x' is the clean image itself, its adversarial twin, or the image with noise or honest damage. A detection head on the same trunk learns beside it
//! which inputs were perturbed on purpose. The twins are crafted once, by the
//! defender on a network of its own, and stored in 8 bits like every image that an attacker can hand over.

use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;

use super::noise::{Damage, NoiseConfig, coarse, gaussian};
use crate::craft::craft_images;
use crate::damage::HonestDamage;
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

/// Looks at the autoencoder after each epoch, and says whether training goes on.
pub type Watch<'a> = dyn Fn(&TrainedAutoencoder, &[Epoch]) -> Result<bool> + Sync + 'a;

struct DenoisingTask<'a> {
    spec: &'a AutoencoderSpec,
    train: &'a Twins,
    calibration: &'a Twins,
    noise: &'a NoiseConfig,
    head_weight: f64,
    device: Device,
    watch: &'a Watch<'a>,
}

/// Inputs of a step, what they are to become, and which of them were perturbed on purpose (1) or not (0), `[batch]`.
struct Pairs {
    inputs: Tensor<4>,
    targets: Tensor<4>,
    perturbed: Tensor<1>,
}

impl DenoisingTask<'_> {
    /// Damaged inputs for the images at `indices`.
    ///
    /// Noise and perturbations are to be taken away; honest damage is to be left as it is, so that the residual speaks of intent.
    fn pairs(&self, indices: &[usize], rng: &mut Rng) -> Result<Pairs> {
        let device = self.device.clone().without_autodiff();
        let (images, twins) = (&self.train.images, &self.train.twins);
        let damages: Vec<Damage> = indices.iter().map(|_| self.noise.draw(rng)).collect();
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for (index, damage) in indices.iter().zip(&damages) {
            let clean = images.batch_f32(&[*index])?;
            match damage {
                Damage::Adversarial => inputs.extend(twins.batch_f32(&[*index])?),
                Damage::Honest => {
                    let damaged =
                        HonestDamage::draw(rng).apply(&images.pixels(*index)?, images.size(), rng)?;
                    let damaged: Vec<f32> = damaged.iter().map(|&byte| f32::from(byte) / 255.0).collect();
                    inputs.extend_from_slice(&damaged);
                    targets.extend(damaged);
                    continue;
                }
                _ => inputs.extend_from_slice(&clean),
            }
            targets.extend(clean);
        }
        let mut inputs = images.tensor(inputs, indices.len(), &device);
        let targets = images.tensor(targets, indices.len(), &device);
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
        let perturbed: Vec<f32> =
            damages.iter().map(|damage| f32::from(u8::from(*damage == Damage::Adversarial))).collect();
        Ok(Pairs {
            inputs: inputs.clamp(0.0, 1.0),
            targets,
            perturbed: Tensor::from_floats(&perturbed[..], &device),
        })
    }
}

/// Mean of log(1 + exp(z)) − y z for log-odds z and y in {0, 1}: binary cross-entropy.
fn binary_cross_entropy(logits: Tensor<1>, truth: Tensor<1>) -> Tensor<1> {
    let softplus = relu(logits.clone()) + logits.clone().abs().neg().exp().log1p();
    (softplus - logits * truth).mean()
}

impl Task<Autoencoder> for DenoisingTask<'_> {
    type Batch = Pairs;

    fn images(&self) -> usize {
        self.train.images.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Pairs> {
        self.pairs(indices, rng)
    }

    fn loss(&self, network: &Autoencoder, pairs: Pairs, _: f64, _: &mut Rng) -> Result<Tensor<1>> {
        let found = network.forward(pairs.inputs.autodiff());
        let error = mean_squared_error(found.reconstructions, pairs.targets.autodiff());
        if self.head_weight == 0.0 {
            return Ok(error);
        }
        let detection = binary_cross_entropy(found.logits, pairs.perturbed.autodiff());
        Ok(error + detection.mul_scalar(self.head_weight))
    }

    /// The training loss over clean images and their twins, each in equal parts; metric: mean reconstruction error of the clean images.
    ///
    /// The head counts as it does in training: the epoch that restores best is often not the one that detects best.
    fn validate(&self, network: &Autoencoder) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let Twins { images, twins } = self.calibration;
        let indices: Vec<usize> = (0..images.len()).collect();
        let (mut clean_error, mut loss) = (0.0, 0.0);
        for chunk in indices.chunks(INFERENCE_BATCH) {
            let clean = images.batch(chunk, &device)?;
            let scalar = |mean: Tensor<1>| f64::from(mean.into_scalar::<f32>()) * chunk.len() as f64;
            for (input, perturbed) in [(clean.clone(), 0.0), (twins.batch(chunk, &device)?, 1.0)] {
                let found = network.forward(input);
                let error = scalar(mean_squared_error(found.reconstructions.clamp(0.0, 1.0), clean.clone()));
                let truth = found.logits.full_like(perturbed);
                let detection = scalar(binary_cross_entropy(found.logits, truth));
                loss += (error + self.head_weight * detection) / 2.0;
                clean_error += (1.0 - perturbed) * error;
            }
        }
        let count = indices.len() as f64;
        Ok(Validation { loss: loss / count, metric: clean_error / count, robust: None })
    }

    fn goes_on(&self, network: &Autoencoder, epochs: &[Epoch]) -> Result<bool> {
        (self.watch)(&TrainedAutoencoder::freeze(network, self.spec.clone(), &self.device), epochs)
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
    head_weight: f64,
    config: &TrainConfig,
    device: &Device,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(TrainedAutoencoder, Vec<Epoch>)> {
    train_watched_autoencoder(
        spec,
        train,
        calibration,
        noise,
        head_weight,
        config,
        device,
        seed,
        checkpoints,
        progress,
        &|_, _| Ok(true),
    )
}

/// The same under the eyes of `watch`, which may end it after any epoch: the best weights until then are returned.
///
/// # Errors
/// Everything that [`fit`] refuses, and what `watch` reports.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn train_watched_autoencoder(
    spec: AutoencoderSpec,
    train: &Twins,
    calibration: &Twins,
    noise: &NoiseConfig,
    head_weight: f64,
    config: &TrainConfig,
    device: &Device,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
    watch: &Watch<'_>,
) -> Result<(TrainedAutoencoder, Vec<Epoch>)> {
    let training_device = device.clone().without_autodiff().autodiff();
    let task = DenoisingTask {
        spec: &spec,
        train,
        calibration,
        noise,
        head_weight,
        device: training_device.clone(),
        watch,
    };
    let network = spec.init(&training_device, &mut seed.rng("weights"))?;
    progress.task("training the autoencoder", "images");
    let (network, epochs) = fit(network, &task, config, seed, checkpoints, progress)?;
    Ok((TrainedAutoencoder::freeze(&network, spec, device), epochs))
}
