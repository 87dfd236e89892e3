//! How fast this machine trains, attacks and scores: the standard workloads that `benches/compare` runs in other programs too.
//!
//! Network T is the classifier of width 32 on 32x32 images with 43 classes, network D the bottleneck autoencoder of width 32 with a latent vector of 256.
//! Weights and images are random: a network's speed does not depend on them.

use std::time::{Duration, Instant};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::Rng as _;

use crate::attack::{AttackConfig, AttackKind, craft, input_gradient};
use crate::error::{Error, Result};
use crate::network::{
    Architecture, Autoencoder, AutoencoderKind, AutoencoderSpec, Classifier, ClassifierSpec, Model,
    Normalisation, TrainedAutoencoder, TrainedClassifier, Views,
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

/// What the networks work on and how large they are; the standard workloads have the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Images of one run; `None` for the workload's own number.
    pub batch: Option<usize>,
    /// Height and width of the images, in pixels: a multiple of 8.
    pub image_size: usize,
    /// Channels of the first stage of either network.
    pub width: usize,
    /// Trunk of T.
    pub architecture: Architecture,
}

impl Default for Shape {
    fn default() -> Self {
        Self { batch: None, image_size: 32, width: 32, architecture: Architecture::Vgg }
    }
}

/// How long a workload is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// About this long, four runs at least, after a warm-up.
    For(Duration),
    /// As many runs as this many images take, without a warm-up.
    Images(usize),
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
    pub fn images(self, shape: Shape) -> usize {
        shape.batch.unwrap_or(match self {
            Self::Train | Self::InputGradient | Self::DaeTrain | Self::Craft => 128,
            Self::Infer | Self::DaeInfer | Self::Dropout1 | Self::Dropout32 | Self::Score => 256,
        })
    }

    /// Floating-point operations that one image needs, two a multiply-add, counting convolutions and dense layers alone.
    ///
    /// An upsampled convolution counts the four products an output that it needs, a gradient as much as its forward pass.
    pub fn flops(self, shape: Shape) -> f64 {
        let (side, width) = (shape.image_size, shape.width);
        let (first_t, t) = (conv(side, 9, 3, width), trunk_of_t(shape) + head_of_t(shape));
        let (first_d, d) = (conv(side / 2, 9, 3, width), work_of_d(shape));
        2.0 * match self {
            Self::Train => 3.0 * t - first_t,
            Self::InputGradient => 2.0 * t,
            Self::Craft => STEPS as f64 * 2.0 * t,
            Self::Infer | Self::Dropout1 => t,
            Self::Dropout32 => t + (PASSES - 1) as f64 * head_of_t(shape),
            Self::DaeTrain => 3.0 * d - first_d,
            Self::DaeInfer | Self::Score => d,
        }
    }
}

/// Multiply-adds of a convolution with square outputs.
fn conv(side: usize, taps: usize, inputs: usize, outputs: usize) -> f64 {
    (side * side * taps * inputs * outputs) as f64
}

/// Units of T's hidden layer, and length of D's latent vector.
const HIDDEN: usize = 256;
const CLASSES: usize = 43;

fn head_of_t(Shape { image_size, width, architecture, .. }: Shape) -> f64 {
    let features = match architecture.stages() {
        None => 4 * width * (image_size / 8).pow(2),
        Some(stages) => width << (stages.len() - 1),
    };
    (features * HIDDEN + HIDDEN * CLASSES) as f64
}

fn trunk_of_t(Shape { image_size: side, width, architecture, .. }: Shape) -> f64 {
    let mut inputs = 3;
    let Some(stages) = architecture.stages() else {
        return (0..3)
            .map(|stage| {
                let (side, outputs) = (side >> stage, width << stage);
                let work = conv(side, 9, inputs, outputs) + conv(side, 9, outputs, outputs);
                inputs = outputs;
                work
            })
            .sum();
    };
    inputs = width;
    let mut work = conv(side, 9, 3, width);
    for (stage, &blocks) in stages.iter().enumerate() {
        for _ in 0..blocks {
            let (side, outputs) = (side.div_ceil(1 << stage), width << stage);
            work += conv(side, 9, inputs, outputs) + conv(side, 9, outputs, outputs);
            if inputs != outputs {
                work += conv(side, 1, inputs, outputs);
            }
            inputs = outputs;
        }
    }
    work
}

fn work_of_d(Shape { image_size: side, width, .. }: Shape) -> f64 {
    let widths = [width, 2 * width, 4 * width];
    let encoder = conv(side / 2, 9, 3, widths[0])
        + conv(side / 4, 9, widths[0], widths[1])
        + conv(side / 8, 9, widths[1], widths[2]);
    let decoder = conv(side / 4, 4, widths[2], widths[1])
        + conv(side / 2, 4, widths[1], widths[0])
        + conv(side, 4, widths[0], 3);
    encoder + decoder + (2 * widths[2] * (side / 8).pow(2) * HIDDEN) as f64
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
    /// Time of all runs.
    pub total: Duration,
    /// Number of timed runs.
    pub runs: usize,
}

/// Runs a workload on networks of this shape.
///
/// # Errors
/// Refuses a shape that a network cannot have.
pub fn measure(workload: Workload, shape: Shape, length: Length, device: &Device) -> Result<Measurement> {
    if shape.batch == Some(0) {
        return Err(Error::input("speed", "0 images", "at least one"));
    }
    let mut step = prepare(workload, shape, device)?;
    let (duration, least) = match length {
        Length::For(duration) => {
            for _ in 0..3 {
                step()?;
            }
            (duration, 4)
        }
        Length::Images(images) => (Duration::ZERO, images.div_ceil(workload.images(shape)).max(1)),
    };
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < duration || times.len() < least {
        let run = Instant::now();
        step()?;
        times.push(run.elapsed());
    }
    times.sort();
    Ok(Measurement { median: times[times.len() / 2], total: times.iter().sum(), runs: times.len() })
}

type Step = Box<dyn FnMut() -> Result<()>>;

fn prepare(workload: Workload, shape: Shape, device: &Device) -> Result<Step> {
    let seed = Seed::new(1);
    let plain = device.clone().without_autodiff();
    let count = workload.images(shape);
    let images = random_images(count, shape.image_size, &plain);
    Ok(match workload {
        Workload::Train => train_classifier(images, shape, device, seed)?,
        Workload::DaeTrain => train_autoencoder(images, shape, device, seed)?,
        Workload::Infer | Workload::Dropout1 => {
            let model = classifier(shape, &plain, seed)?;
            Box::new(move || read(model.logits(images.clone())))
        }
        Workload::Dropout32 => {
            let model = classifier(shape, &plain, seed)?;
            Box::new(move || {
                model.dropout_passes(images.clone(), PASSES, seed).into_iter().try_for_each(read)
            })
        }
        Workload::InputGradient => {
            let model = classifier(shape, &plain, seed)?;
            let labels = labels(count);
            let mut current = images;
            Box::new(move || {
                let gradient = input_gradient(&model, current.clone(), &labels)?;
                current = (current.clone() + gradient.sign().mul_scalar(0.004)).clamp(0.0, 1.0);
                Ok(())
            })
        }
        Workload::Craft => {
            let model = classifier(shape, &plain, seed)?;
            let labels = labels(count);
            let config = AttackConfig {
                step: 2.0 / 255.0,
                steps: STEPS,
                ..AttackConfig::linf(AttackKind::IFgsm, 8.0 / 255.0)
            };
            let attack = config.build();
            Box::new(move || read(craft(&*attack, &model, config.threat(), images.clone(), &labels)?))
        }
        Workload::DaeInfer => {
            let model = autoencoder(shape, &plain, seed)?;
            Box::new(move || read(model.reconstruct(images.clone())))
        }
        Workload::Score => {
            let model = autoencoder(shape, &plain, seed)?;
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

fn random_images(count: usize, side: usize, device: &Device) -> Tensor<4> {
    let mut rng = Seed::new(2).rng("images");
    let values = (0..count * 3 * side * side).map(|_| rng.random()).collect();
    tensors::images(values, [count, 3, side, side], device)
}

fn labels(count: usize) -> Vec<u32> {
    (0..count as u32).map(|index| index * 7 % CLASSES as u32).collect()
}

fn classifier_spec(shape: Shape) -> ClassifierSpec {
    ClassifierSpec {
        architecture: shape.architecture,
        width: shape.width,
        hidden: HIDDEN,
        dropout: 0.5,
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        image_size: [shape.image_size; 2],
        normalisation: Normalisation::default(),
        temperature: 20.0,
        outlier: false,
        views: Views::One,
    }
}

fn autoencoder_spec(shape: Shape) -> AutoencoderSpec {
    AutoencoderSpec {
        kind: AutoencoderKind::Bottleneck,
        width: shape.width,
        latent: HIDDEN,
        image_size: [shape.image_size; 2],
    }
}

fn classifier(shape: Shape, device: &Device, seed: Seed) -> Result<TrainedClassifier> {
    let spec = classifier_spec(shape);
    let network = spec.init(&device.clone().autodiff(), &mut seed.rng("weights"))?;
    Ok(TrainedClassifier::freeze(&network, spec, device))
}

fn autoencoder(shape: Shape, device: &Device, seed: Seed) -> Result<TrainedAutoencoder> {
    let spec = autoencoder_spec(shape);
    let network = spec.init(&device.clone().autodiff(), &mut seed.rng("weights"))?;
    Ok(TrainedAutoencoder::freeze(&network, spec, device))
}

fn train_classifier(images: Tensor<4>, shape: Shape, device: &Device, seed: Seed) -> Result<Step> {
    let device = device.clone().without_autodiff().autodiff();
    let spec = classifier_spec(shape);
    let mut network: Classifier = spec.init(&device, &mut seed.rng("weights"))?;
    let mut optimiser = OptimiserConfig::Sgd { momentum: 0.9, weight_decay: 0.0 }.init();
    let classes = spec.classes.len();
    let targets = tensors::labels(&labels(images.dims()[0]), &device).one_hot(classes).float();
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

fn train_autoencoder(images: Tensor<4>, shape: Shape, device: &Device, seed: Seed) -> Result<Step> {
    let device = device.clone().without_autodiff().autodiff();
    let mut network: Autoencoder = autoencoder_spec(shape).init(&device, &mut seed.rng("weights"))?;
    let mut optimiser = OptimiserConfig::Adam { weight_decay: 0.0 }.init();
    Ok(Box::new(move || {
        let images = images.clone().autodiff();
        let loss = mean_squared_error(network.forward(images.clone()).reconstructions, images);
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
        let shape = Shape { batch: Some(2), width: 4, ..Shape::default() };
        for &(workload, name) in TABLE {
            let mut step = prepare(workload, shape, &Device::flex()).expect(name);
            step().expect(name);
        }
    }

    #[test]
    fn a_measurement_has_enough_runs_for_a_median_or_for_the_images() {
        let shape = Shape { batch: Some(4), width: 4, ..Shape::default() };
        let run = |length| measure(Workload::Score, shape, length, &Device::flex()).expect("a measurement");
        let found = run(Length::For(Duration::ZERO));
        assert!(found.runs == 4 && found.median > Duration::ZERO, "{found:?}");
        let found = run(Length::Images(9));
        assert!(found.runs == 3 && found.total >= found.median, "{found:?}");
    }

    #[test]
    fn work_is_counted_as_the_layers_have_it() {
        let work = |workload: Workload, shape| (workload.flops(shape) / 1e6 * 10.0).round() / 10.0;
        let standard = Shape::default();
        // 38.6 million multiply-adds in the convolutions of T, 0.5 in its head.
        assert_eq!(work(Workload::Infer, standard), 78.3);
        assert_eq!(work(Workload::Train, standard), 233.2);
        assert_eq!(work(Workload::DaeInfer, standard), 16.4);
        // Stem 0.9, first stage 18.9, second and third 4.7 + 9.4 + 0.5 each, head 0.04: 49.2 million multiply-adds.
        let residual = Shape { architecture: Architecture::ResNet8, ..standard };
        assert_eq!(work(Workload::Infer, residual), 98.3);
    }
}
