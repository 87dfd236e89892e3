//! Training the autoencoder of rows: mean squared error in 255ths of a range, plus the detection head's weighted binary cross-entropy, as for images.
//!
//! An input is the row itself, its adversarial twin, or the row with Gaussian noise. Twins are crafted once, on the defender's undefended predictor, by I-FGSM at a radius
//! that each row draws. Of the unperturbed inputs of a step those that look most perturbed teach nothing (trimmed loss): an audited table may hold perturbed rows.

use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;
use rand_distr::{Distribution, StandardNormal};

use super::autoencoder::{TrainedVectorAutoencoder, VectorAutoencoder, VectorAutoencoderSpec};
use super::config::VectorDae;
use super::learn::apart;
use super::network::TrainedMlp;
use super::set::VectorSet;
use super::squared_error::against;
use crate::attack::{IFgsm, ThreatModel, craft};
use crate::error::Result;
use crate::network::Model;
use crate::progress::Progress;
use crate::purify::{GREY_LEVELS, trimmed, weighted_loss};
use crate::rng::{Rng, Seed};
use crate::tensors::{images, values};
use crate::train::{Checkpoints, INFERENCE_BATCH, Task, Validation, binary_cross_entropies, fit};

/// Steps of a twin's attack.
const TWIN_STEPS: usize = 10;

/// The set with each row perturbed at `eps` on `model`, I-FGSM of ten steps of a quarter of it.
pub(super) fn perturbed(set: &VectorSet, model: &TrainedMlp, eps: f64) -> Result<VectorSet> {
    let attack = IFgsm { step: 2.5 * eps / TWIN_STEPS as f64, steps: TWIN_STEPS };
    let mut found = Vec::new();
    for chunk in (0..set.len()).collect::<Vec<_>>().chunks(INFERENCE_BATCH) {
        let rows = set.batch(chunk, &model.device());
        let crafted = against(model, set, chunk, |model, labels| {
            craft(&attack, model, ThreatModel::linf(eps), rows, labels)
        })?;
        found.extend(values(crafted)?);
    }
    Ok(set.with_values(found))
}

/// A twin of each row, at a radius of `eps` that is drawn for it.
fn twins(set: &VectorSet, model: &TrainedMlp, eps: &[f64], seed: Seed) -> Result<VectorSet> {
    let mut rng = seed.rng("radius of each twin");
    let choice: Vec<usize> = (0..set.len()).map(|_| rng.random_range(0..eps.len())).collect();
    let crafted = eps.iter().map(|&eps| perturbed(set, model, eps)).collect::<Result<Vec<_>>>()?;
    let values = choice.iter().enumerate().flat_map(|(row, &of)| crafted[of].row(row)).copied().collect();
    Ok(set.with_values(values))
}

struct DenoisingTask<'a> {
    rows: &'a VectorSet,
    twins: VectorSet,
    config: &'a VectorDae,
    fitted: Vec<usize>,
    validation: Vec<usize>,
    device: Device,
}

/// Inputs of a step, what they are to become, and which were perturbed on purpose.
struct Pairs {
    inputs: Tensor<4>,
    targets: Tensor<4>,
    perturbed: Tensor<1>,
}

/// One kind of input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    Identity,
    Adversarial,
    Gaussian,
}

impl DenoisingTask<'_> {
    fn draw(&self, rng: &mut Rng) -> Damage {
        let weights = self.config.weights;
        let place = rng.random::<f64>() * (weights.identity + weights.adversarial + weights.gaussian);
        match place {
            _ if place < weights.identity => Damage::Identity,
            _ if place < weights.identity + weights.adversarial => Damage::Adversarial,
            _ => Damage::Gaussian,
        }
    }

    fn input(&self, row: usize, damage: Damage, rng: &mut Rng) -> Vec<f32> {
        match damage {
            Damage::Identity => self.rows.row(row).to_vec(),
            Damage::Adversarial => self.twins.row(row).to_vec(),
            Damage::Gaussian => {
                let sigma = (self.config.gaussian_sigma * rng.random::<f64>()) as f32;
                let noisy = |value: &f32| {
                    let draw: f32 = StandardNormal.sample(rng);
                    (value + sigma * draw).clamp(0.0, 1.0)
                };
                self.rows.row(row).iter().map(noisy).collect()
            }
        }
    }
}

impl Task<VectorAutoencoder> for DenoisingTask<'_> {
    type Batch = Pairs;

    fn images(&self) -> usize {
        self.fitted.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Pairs> {
        let device = self.device.clone().without_autodiff();
        let rows: Vec<usize> = indices.iter().map(|&index| self.fitted[index]).collect();
        let (mut inputs, mut perturbed) = (Vec::new(), Vec::new());
        for &row in &rows {
            let damage = self.draw(rng);
            inputs.extend(self.input(row, damage, rng));
            perturbed.push(f32::from(u8::from(damage == Damage::Adversarial)));
        }
        let targets = self.rows.batch(&rows, &device);
        Ok(Pairs {
            inputs: images(inputs, targets.dims(), &device),
            targets,
            perturbed: Tensor::from_floats(&perturbed[..], &device),
        })
    }

    fn loss(&self, network: &VectorAutoencoder, pairs: Pairs, _: f64, _: &mut Rng) -> Result<Tensor<1>> {
        let found = network.forward(pairs.inputs.autodiff());
        let counts = trimmed(&found.logits, &pairs.perturbed, self.config.trimmed)?;
        let (targets, perturbed) = (pairs.targets.autodiff(), pairs.perturbed.autodiff());
        Ok(weighted_loss(found, targets, perturbed, &counts, self.config.head_weight))
    }

    /// The training loss over rows and their twins, each in equal parts; metric: mean reconstruction error of the rows.
    fn validate(&self, network: &VectorAutoencoder) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let (mut clean_error, mut loss) = (0.0, 0.0);
        for chunk in self.validation.chunks(INFERENCE_BATCH) {
            let clean = self.rows.batch(chunk, &device);
            let scalar = |mean: Tensor<1>| f64::from(mean.into_scalar::<f32>()) * chunk.len() as f64;
            for (input, perturbed) in [(clean.clone(), 0.0), (self.twins.batch(chunk, &device), 1.0)] {
                let found = network.forward(input);
                let error = scalar(mean_squared_error(found.reconstructions.clamp(0.0, 1.0), clean.clone()));
                let truth = found.logits.full_like(perturbed);
                let detection = scalar(binary_cross_entropies(found.logits, truth).mean());
                loss += (GREY_LEVELS.powi(2) * error + self.config.head_weight * detection) / 2.0;
                clean_error += (1.0 - perturbed) * error;
            }
        }
        let count = self.validation.len() as f64;
        Ok(Validation { loss: loss / count, metric: clean_error / count, robust: None })
    }
}

/// Trains an autoencoder from scratch on `rows`, with twins crafted on `model`.
///
/// # Errors
/// Everything that [`fit`] refuses.
pub(super) fn train_vector_autoencoder(
    rows: &VectorSet,
    model: &TrainedMlp,
    config: &VectorDae,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<TrainedVectorAutoencoder> {
    let device = model.device();
    let training_device = device.clone().autodiff();
    let inputs = model.spec().inputs.clone();
    let spec = VectorAutoencoderSpec { inputs, hidden: config.hidden, latent: config.latent };
    let (fitted, validation) = apart(rows.len(), seed)?;
    let twins = twins(rows, model, &config.eps, seed)?;
    let network = spec.init(&training_device, &mut seed.rng("weights"));
    let task = DenoisingTask { rows, twins, config, fitted, validation, device: training_device };
    progress.task("training the autoencoder", "rows");
    let (network, _) = fit(network, &task, &config.train, seed, &Checkpoints::none(), progress)?;
    Ok(TrainedVectorAutoencoder::freeze(&network, spec, &device))
}
