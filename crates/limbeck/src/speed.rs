//! How fast this machine trains, attacks and scores: the standard workloads that `benches/compare` runs in other programs too.
//!
//! Network T is the classifier of width 32 on 32x32 images with 43 classes, network D the bottleneck autoencoder of width 32 with a latent vector of 256.
//! Weights and images are random: a network's speed does not depend on them.

use std::time::{Duration, Instant};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;

use crate::attack::{AttackConfig, AttackKind, craft, input_gradient};
use crate::error::{Error, Result};
use crate::network::{
    Architecture, Autoencoder, AutoencoderKind, AutoencoderSpec, Classifier, ClassifierSpec, Model,
    Normalisation, TrainedAutoencoder, TrainedClassifier,
};
use crate::rng::Seed;
use crate::tensors;
use crate::train::{OptimiserConfig, soft_cross_entropy};

/// One standard workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// A training step of T: 128 images, cross-entropy at T = 20, SGD with momentum.
    Train,
    /// The input gradient of T, 128 images, and a step along its sign.
    InputGradient,
    /// Logits of T, 256 images.
    Infer,
    /// A training step of D: 128 images, mean squared error, Adam.
    DaeTrain,
    /// Reconstructions of D, 256 images.
    DaeInfer,
    /// Logits of T for 256 images.
    Dropout1,
    /// 32 Monte Carlo dropout passes of T for 256 images.
    Dropout32,
    /// I-FGSM with 10 steps on T, 128 images.
    Craft,
    /// Reconstruction errors of D, 256 images.
    Score,
}

impl Workload {
    /// Its name in [`TABLE`].
    pub fn name(self) -> &'static str {
        TABLE
            .iter()
            .find(|(workload, _)| *workload == self)
            .map(|(_, name)| *name)
            .expect("every workload is in the table")
    }
}

/// All workloads by name.
pub const TABLE: &[(Workload, &str)] = &[
    (Workload::Train, "train"),
    (Workload::InputGradient, "inputgrad"),
    (Workload::Infer, "infer"),
    (Workload::DaeTrain, "dae-train"),
    (Workload::DaeInfer, "dae-infer"),
    (Workload::Dropout1, "dropout-1"),
    (Workload::Dropout32, "dropout-32"),
    (Workload::Craft, "craft"),
    (Workload::Score, "score"),
];

/// Steps of the crafted attack.
const STEPS: usize = 10;
/// Monte Carlo passes.
const PASSES: usize = 32;

impl Workload {
    /// Images of one run.
    pub fn images(self) -> usize {
        match self {
            Self::Train | Self::InputGradient | Self::DaeTrain | Self::Craft => 128,
            Self::Infer | Self::DaeInfer | Self::Dropout1 | Self::Dropout32 | Self::Score => 256,
        }
    }

    /// Floating-point operations that one image needs, two a multiply-add, counting convolutions and dense layers alone.
    ///
    /// An upsampled convolution counts the four products an output that it needs, a gradient as much as its forward pass.
    pub fn flops(self) -> f64 {
        let (first_t, t) = (2.0 * conv(32, 9, 3, 32), flops_of_t());
        let (first_d, d) = (2.0 * conv(16, 9, 3, 32), flops_of_d());
        match self {
            Self::Train => 3.0 * t - first_t,
            Self::InputGradient => 2.0 * t,
            Self::Craft => STEPS as f64 * 2.0 * t,
            Self::Infer | Self::Dropout1 => t,
            Self::Dropout32 => t + (PASSES - 1) as f64 * 2.0 * head_of_t(),
            Self::DaeTrain => 3.0 * d - first_d,
            Self::DaeInfer | Self::Score => d,
        }
    }
}

/// Multiply-adds of a convolution with square outputs.
fn conv(side: usize, taps: usize, inputs: usize, outputs: usize) -> f64 {
    (side * side * taps * inputs * outputs) as f64
}

fn head_of_t() -> f64 {
    (2048 * 256 + 256 * 43) as f64
}

fn flops_of_t() -> f64 {
    let stages = [(32, 3, 32), (16, 32, 64), (8, 64, 128)];
    let trunk: f64 = stages
        .iter()
        .map(|&(side, inputs, outputs)| conv(side, 9, inputs, outputs) + conv(side, 9, outputs, outputs))
        .sum();
    2.0 * (trunk + head_of_t())
}

fn flops_of_d() -> f64 {
    let encoder = conv(16, 9, 3, 32) + conv(8, 9, 32, 64) + conv(4, 9, 64, 128);
    let decoder = conv(8, 4, 128, 64) + conv(16, 4, 64, 32) + conv(32, 4, 32, 3);
    2.0 * (encoder + decoder + (2 * 2048 * 256) as f64)
}

/// Floating-point operations a second that this many threads reach with nothing but multiply-adds; see [`limbeck_kernels::peak_flops`].
pub fn peak(threads: usize, duration: Duration) -> f64 {
    limbeck_kernels::peak_flops(threads, duration)
}

/// What a measurement found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Median time of one run.
    pub median: Duration,
    /// Number of timed runs.
    pub runs: usize,
}

/// Runs a workload for about `duration`, at least four times after a warm-up.
pub fn measure(workload: Workload, duration: Duration, device: &Device) -> Result<Measurement> {
    let mut step = prepare(workload, device)?;
    for _ in 0..3 {
        step()?;
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < duration || times.len() < 4 {
        let run = Instant::now();
        step()?;
        times.push(run.elapsed());
    }
    times.sort();
    Ok(Measurement { median: times[times.len() / 2], runs: times.len() })
}

type Step = Box<dyn FnMut() -> Result<()>>;

fn prepare(workload: Workload, device: &Device) -> Result<Step> {
    let seed = Seed::new(1);
    let plain = device.clone().without_autodiff();
    let images = random_images(workload.images(), &plain);
    Ok(match workload {
        Workload::Train => train_classifier(images, device, seed)?,
        Workload::DaeTrain => train_autoencoder(images, device, seed)?,
        Workload::Infer | Workload::Dropout1 => {
            let model = classifier(&plain, seed)?;
            Box::new(move || read(model.logits(images.clone())))
        }
        Workload::Dropout32 => {
            let model = classifier(&plain, seed)?;
            Box::new(move || {
                model.dropout_passes(images.clone(), PASSES, seed).into_iter().try_for_each(read)
            })
        }
        Workload::InputGradient => {
            let model = classifier(&plain, seed)?;
            let labels = labels(workload.images(), &plain);
            let mut current = images;
            Box::new(move || {
                let gradient = input_gradient(&model, current.clone(), labels.clone())?;
                current = (current.clone() + gradient.sign().mul_scalar(0.004)).clamp(0.0, 1.0);
                Ok(())
            })
        }
        Workload::Craft => {
            let model = classifier(&plain, seed)?;
            let labels = labels(workload.images(), &plain);
            let config =
                AttackConfig { kind: AttackKind::IFgsm, eps: 8.0 / 255.0, step: 2.0 / 255.0, steps: STEPS };
            let attack = config.build();
            Box::new(move || read(craft(&*attack, &model, config.threat(), images.clone(), labels.clone())?))
        }
        Workload::DaeInfer => {
            let model = autoencoder(&plain, seed)?;
            Box::new(move || read(model.reconstruct(images.clone())))
        }
        Workload::Score => {
            let model = autoencoder(&plain, seed)?;
            Box::new(move || {
                let residual = images.clone() - model.reconstruct(images.clone());
                read(residual.powi_scalar(2).mean_dims(&[1, 2, 3]))
            })
        }
    })
}

/// Waits for a result, as a user of it would.
fn read<const D: usize>(result: Tensor<D>) -> Result<()> {
    tensors::values(result).map(drop)
}

fn random_images(count: usize, device: &Device) -> Tensor<4> {
    let mut rng = Seed::new(2).rng("images");
    tensors::images((0..count * 3 * 32 * 32).map(|_| rng.random()).collect(), [count, 3, 32, 32], device)
}

fn labels(count: usize, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<u32> = (0..count as u32).map(|index| index * 7 % 43).collect();
    tensors::labels(&labels, device)
}

fn classifier_spec() -> ClassifierSpec {
    ClassifierSpec {
        architecture: Architecture::Vgg,
        width: 32,
        hidden: 256,
        dropout: 0.5,
        classes: (0..43).map(|class| class.to_string()).collect(),
        image_size: [32, 32],
        normalisation: Normalisation::default(),
        temperature: 20.0,
    }
}

fn autoencoder_spec() -> AutoencoderSpec {
    AutoencoderSpec { kind: AutoencoderKind::Bottleneck, width: 32, latent: 256, image_size: [32, 32] }
}

fn classifier(device: &Device, seed: Seed) -> Result<TrainedClassifier> {
    let spec = classifier_spec();
    let network = spec.init(&device.clone().autodiff(), &mut seed.rng("weights"))?;
    Ok(TrainedClassifier::freeze(&network, spec, device))
}

fn autoencoder(device: &Device, seed: Seed) -> Result<TrainedAutoencoder> {
    let spec = autoencoder_spec();
    let network = spec.init(&device.clone().autodiff(), &mut seed.rng("weights"))?;
    Ok(TrainedAutoencoder::freeze(&network, spec, device))
}

fn train_classifier(images: Tensor<4>, device: &Device, seed: Seed) -> Result<Step> {
    let device = device.clone().without_autodiff().autodiff();
    let spec = classifier_spec();
    let mut network: Classifier = spec.init(&device, &mut seed.rng("weights"))?;
    let mut optimiser = OptimiserConfig::Sgd { momentum: 0.9, weight_decay: 0.0 }.init();
    let classes = spec.classes.len();
    let targets = labels(images.dims()[0], &device).one_hot(classes).float();
    let mut rng = seed.rng("dropout");
    Ok(Box::new(move || {
        let logits = network.train_logits(images.clone().autodiff(), &mut rng);
        let loss = soft_cross_entropy(logits, targets.clone(), spec.temperature);
        finite(loss.clone().into_scalar::<f32>())?;
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = optimiser.step(0.01, network.clone(), gradients);
        Ok(())
    }))
}

fn train_autoencoder(images: Tensor<4>, device: &Device, seed: Seed) -> Result<Step> {
    let device = device.clone().without_autodiff().autodiff();
    let mut network: Autoencoder = autoencoder_spec().init(&device, &mut seed.rng("weights"))?;
    let mut optimiser = OptimiserConfig::Adam { weight_decay: 0.0 }.init();
    Ok(Box::new(move || {
        let images = images.clone().autodiff();
        let loss = mean_squared_error(network.forward(images.clone()), images);
        finite(loss.clone().into_scalar::<f32>())?;
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = optimiser.step(1e-3, network.clone(), gradients);
        Ok(())
    }))
}

fn finite(loss: f32) -> Result<()> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(Error::Numeric { operation: "speed", found: format!("a loss of {loss}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_runs() {
        for &(workload, name) in TABLE {
            let mut step = prepare(workload, &Device::flex()).expect(name);
            step().expect(name);
        }
    }

    #[test]
    fn a_measurement_has_enough_runs_for_a_median() {
        let found = measure(Workload::Score, Duration::ZERO, &Device::flex()).expect("a measurement");
        assert!(found.runs == 4 && found.median > Duration::ZERO, "{found:?}");
    }

    #[test]
    fn work_is_counted_as_the_layers_have_it() {
        // 38.6 million multiply-adds in the convolutions of T, 0.5 in its head.
        assert!((Workload::Infer.flops() / 1e6 - 78.4).abs() < 0.1, "{}", Workload::Infer.flops());
        assert!((Workload::Train.flops() / 1e6 - 233.2).abs() < 0.1, "{}", Workload::Train.flops());
        assert!((Workload::DaeInfer.flops() / 1e6 - 16.4).abs() < 0.1, "{}", Workload::DaeInfer.flops());
    }
}
