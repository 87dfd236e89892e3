//! Training the denoising autoencoder: mean squared error between D(x') and x over pairs and noise models.
//!
//! x' is the clean image itself, its adversarial twin, or the image with noise or honest damage. A detection head on the same trunk learns beside it
//! which inputs were perturbed on purpose: the loss is the mean squared error in grey levels (of 255), plus the head's weight times its binary
//! cross-entropy. In units of `[0, 1]` the error's gradient would drown in that of the head, and in Adam's epsilon. The twins are crafted once, by the
//! defender on a network of its own, and stored in 8 bits like every image that an attacker can hand over.
//!
//! A set that is to be audited may hold perturbed images. Taught that they are clean, head and reconstruction would learn not to see their like. So of the
//! unperturbed inputs of a step those that look most perturbed to the head teach neither (trimmed loss).

use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;

use super::noise::{Damage, NoiseConfig, coarse, gaussian};
use crate::craft::craft_images;
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{Autoencoder, AutoencoderSpec, Denoised, Model, TrainedAutoencoder};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};
use crate::tensors::values;
use crate::train::{
    Checkpoints, Epoch, INFERENCE_BATCH, Task, TrainConfig, Validation, binary_cross_entropies, fit,
};

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

/// Grey levels of 8 bits: an error in `[0, 1]` times this is one in grey levels.
pub(crate) const GREY_LEVELS: f64 = 255.0;

/// Which inputs of a step count, 1, and which do not, 0: the `share` of the unperturbed inputs that has the largest log-odds does not.
pub(crate) fn trimmed(logits: &Tensor<1>, perturbed: &Tensor<1>, share: f64) -> Result<Vec<f32>> {
    let (logits, perturbed) = (values(logits.clone())?, values(perturbed.clone())?);
    let mut unperturbed: Vec<usize> = (0..logits.len()).filter(|&index| perturbed[index] == 0.0).collect();
    unperturbed.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let left_out = (share * unperturbed.len() as f64).round() as usize;
    let mut counts = vec![1.0; logits.len()];
    unperturbed[..left_out].iter().for_each(|&index| counts[index] = 0.0);
    Ok(counts)
}

/// Mean squared error in grey levels of the inputs that count, plus `head_weight` times their mean binary cross-entropy.
pub(crate) fn weighted_loss(
    found: Denoised,
    targets: Tensor<4>,
    perturbed: Tensor<1>,
    counts: &[f32],
    head_weight: f64,
) -> Tensor<1> {
    let images = counts.len();
    let share = f64::from(counts.iter().sum::<f32>().max(1.0)) / images as f64;
    let counts = Tensor::<1>::from_floats(counts, &targets.device());
    let by_image = counts.clone().reshape([images, 1, 1, 1]);
    let error = mean_squared_error(found.reconstructions * by_image.clone(), targets * by_image);
    let detection = (binary_cross_entropies(found.logits, perturbed) * counts).mean();
    (error.mul_scalar(GREY_LEVELS.powi(2)) + detection.mul_scalar(head_weight)).div_scalar(share)
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
        let counts = match self.head_weight > 0.0 {
            true => trimmed(&found.logits, &pairs.perturbed, self.noise.trimmed)?,
            // No one has taught the head what it says.
            false => vec![1.0; found.logits.dims()[0]],
        };
        let (targets, perturbed) = (pairs.targets.autodiff(), pairs.perturbed.autodiff());
        Ok(weighted_loss(found, targets, perturbed, &counts, self.head_weight))
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
                let detection = scalar(binary_cross_entropies(found.logits, truth).mean());
                loss += (GREY_LEVELS.powi(2) * error + self.head_weight * detection) / 2.0;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of five 1 x 1 images, the first perturbed, painted so many grey levels too bright, for a weight of 3.
    fn loss(logits: Tensor<1>, share: f64) -> Tensor<1> {
        let device = logits.device();
        let tensor = |values: [f32; 5]| Tensor::<1>::from_floats(values, &device);
        let perturbed = tensor([1.0, 0.0, 0.0, 0.0, 0.0]);
        let counts = trimmed(&logits, &perturbed, share).expect("it computes");
        let errors = tensor([1.0, 2.0, 3.0, 4.0, 5.0].map(|levels| levels / 255.0));
        let reconstructions = errors.reshape([5, 1, 1, 1]).repeat_dim(1, 3);
        let targets = reconstructions.zeros_like();
        weighted_loss(Denoised { reconstructions, logits }, targets, perturbed, &counts, 3.0)
    }

    #[test]
    fn the_loss_leaves_out_the_unperturbed_inputs_that_look_most_perturbed() {
        let logits = Tensor::<1>::from_floats([3.0, -2.0, 0.5, 1.0, -1.0], &Device::flex());
        let found = |share: f64| f64::from(loss(logits.clone(), share).into_scalar::<f32>());
        let of = |levels: f64, z: f64, y: f64| levels.powi(2) + 3.0 * ((1.0 + z.exp()).ln() - y * z);
        let each =
            [of(1.0, 3.0, 1.0), of(2.0, -2.0, 0.0), of(3.0, 0.5, 0.0), of(4.0, 1.0, 0.0), of(5.0, -1.0, 0.0)];
        assert!((found(0.0) - each.iter().sum::<f64>() / 5.0).abs() < 1e-5);
        // A quarter of four is the one of log-odds 1; the perturbed one of log-odds 3 stays.
        assert!((found(0.25) - (each[0] + each[1] + each[2] + each[4]) / 4.0).abs() < 1e-5);
        assert!((found(0.99) - each[0]).abs() < 1e-5, "only the perturbed one is left");
    }

    #[test]
    fn what_is_trimmed_has_no_gradient() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<1>::from_floats([2.0, -1.0, 4.0, 0.0, 1.0], &device).require_grad();
        let gradients = loss(logits.clone(), 0.25).backward();
        let gradient = values(logits.grad(&gradients).expect("a gradient")).expect("values");
        // 3/4 of d/dz (ln(1 + exp z)), the logistic function.
        let expected = 0.75 / (1.0 + 1.0_f32.exp());
        assert!(gradient[2] == 0.0 && (gradient[1] - expected).abs() < 1e-6, "{gradient:?}");
    }
}
