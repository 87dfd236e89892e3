//! Layers that the networks share: convolution blocks and dense layers with He initialisation, input normalisation, dropout.

use burn::module::Param;
use burn::nn::BatchNormConfig;
use burn::tensor::{Device, Tensor, TensorData};
use limbeck_kernels::{Block, Dense, channels_last};
use rand::Rng as _;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Per-channel `(x − mean) / std`, inside the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// Subtracted from each of the channels red, green, blue, in pixel units.
    pub mean: [f32; 3],
    /// Divides each channel, in pixel units.
    pub std: [f32; 3],
}

impl Default for Normalisation {
    /// Centres `[0, 1]` and scales it to about unit variance, without looking at any data.
    fn default() -> Self {
        Self { mean: [0.5; 3], std: [0.25; 3] }
    }
}

impl Normalisation {
    /// Normalises `[batch, 3, height, width]` into `[batch, height, width, 3]`.
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let scale = self.std.map(f32::recip);
        let shift: [f32; 3] = std::array::from_fn(|channel| -self.mean[channel] * scale[channel]);
        channels_last(images, &scale, &shift)
    }
}

/// Inverted dropout (Srivastava 2014) with an explicit generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of dropping a feature, in `[0, 1)`.
    pub probability: f64,
}

impl Dropout {
    /// Drops features of `[batch, features]`, for each image others.
    pub fn each(&self, features: Tensor<2>, rng: &mut Rng) -> Tensor<2> {
        if self.probability == 0.0 {
            return features;
        }
        let shape = features.dims();
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let mask = (0..shape[0] * shape[1])
            .map(|_| if rng.random::<f32>() < self.probability as f32 { 0.0 } else { kept })
            .collect::<Vec<_>>();
        let mask = Tensor::<2>::from_data(TensorData::new(mask, shape), &features.device());
        features * mask
    }

    /// Features that are kept when the same are dropped for every image; at least one is.
    pub(crate) fn kept(&self, length: usize, rng: &mut Rng) -> Vec<u32> {
        let kept: Vec<u32> = (0..length as u32)
            .filter(|_| self.probability == 0.0 || rng.random::<f32>() >= self.probability as f32)
            .collect();
        if kept.is_empty() { vec![0] } else { kept }
    }

    /// Of `[batch, features]` the kept features, made up for the others, which are 0; for every image the same.
    pub(super) fn keep(&self, features: Tensor<2>, kept: &[u32]) -> Tensor<2> {
        let [_, length] = features.dims();
        let mut mask = vec![0.0; length];
        kept.iter().for_each(|&feature| mask[feature as usize] = self.factor() as f32);
        let mask = Tensor::<2>::from_data(TensorData::new(mask, [1, length]), &features.device());
        features * mask
    }

    /// What the kept features are multiplied by, to make up for the others.
    pub(crate) fn factor(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }
}

/// He-normal weights (He 2015): standard deviation `gain · sqrt(2 / fan_in)`, He's at a gain of 1.
fn he_normal<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    gain: f64,
    device: &Device,
    rng: &mut Rng,
) -> Param<Tensor<D>> {
    let deviation = (gain * (2.0 / fan_in as f64).sqrt()) as f32;
    let values = (0..shape.iter().product())
        .map(|_| {
            let draw: f32 = StandardNormal.sample(rng);
            draw * deviation
        })
        .collect::<Vec<_>>();
    Param::from_data(TensorData::new(values, shape), device)
}

/// A square convolution with a bias that starts at zero, `channels` being inputs and outputs.
pub(super) fn conv(channels: [usize; 2], device: &Device, rng: &mut Rng) -> Block {
    conv_of_gain(channels, 1.0, device, rng)
}

/// The same with weights that start `gain` times as large.
pub(super) fn conv_of_gain(channels: [usize; 2], gain: f64, device: &Device, rng: &mut Rng) -> Block {
    let bias = Param::from_tensor(Tensor::zeros([channels[1]], device));
    Block::with_bias(kernel(channels, 3, gain, device, rng), bias)
}

/// A square convolution with batch norm.
pub(super) fn conv_norm(channels: [usize; 2], side: usize, device: &Device, rng: &mut Rng) -> Block {
    Block::with_norm(kernel(channels, side, 1.0, device, rng), BatchNormConfig::new(channels[1]).init(device))
}

fn kernel(
    [inputs, outputs]: [usize; 2],
    side: usize,
    gain: f64,
    device: &Device,
    rng: &mut Rng,
) -> Param<Tensor<4>> {
    he_normal([outputs, inputs, side, side], inputs * side * side, gain, device, rng)
}

/// A dense layer with a bias that starts at zero.
pub(crate) fn dense(inputs: usize, outputs: usize, device: &Device, rng: &mut Rng) -> Dense {
    dense_of_gain([inputs, outputs], 1.0, device, rng)
}

/// The same with weights that start `gain` times as large.
pub(crate) fn dense_of_gain(
    [inputs, outputs]: [usize; 2],
    gain: f64,
    device: &Device,
    rng: &mut Rng,
) -> Dense {
    let bias = Param::from_tensor(Tensor::zeros([outputs], device));
    Dense::new(he_normal([inputs, outputs], inputs, gain, device, rng), bias)
}
