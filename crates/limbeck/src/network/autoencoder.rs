//! Denoising autoencoders: `[batch, 3, h, w]` in `[0, 1]` to the same, without the perturbation.
//!
//! `bottleneck` is the paper's kind (convolutional encoder, dense latent z = s(Wx + b), equation 1 of Badjie 2023);
//! `unet` has skip connections and predicts the residual (Kascenas 2022, Tripathi 2021), so that a perturbation of a few grey
//! levels is not lost in the blur. Decoders upsample and convolve: no transposed convolution, no checkerboard.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use limbeck_kernels::{Block, Dense, channels_first, channels_last, max_pool_2x2, sigmoid_channels_first};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::{conv, dense};
use super::weights;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Shape of the autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum AutoencoderKind {
    /// Skip connections, predicts the residual.
    Unet,
    /// Strided encoder and a dense latent vector, the paper's kind.
    Bottleneck,
}

/// Everything that fixes an autoencoder's shape; stored with its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderSpec {
    /// Shape of the network.
    pub kind: AutoencoderKind,
    /// Channels of the first stage; later stages double it.
    pub width: usize,
    /// Length of the latent vector (`bottleneck` only).
    pub latent: usize,
    /// Height and width of the images, in pixels.
    pub image_size: [usize; 2],
}

impl AutoencoderSpec {
    /// A network with fresh He-normal weights on `device`.
    pub fn init(&self, device: &Device, rng: &mut Rng) -> Result<Autoencoder> {
        if self.image_size.iter().any(|&side| side < 8 || side % 8 != 0) {
            return Err(Error::config(
                "data.image_size",
                format!("{}x{}", self.image_size[1], self.image_size[0]),
                "sides that are multiples of 8 pixels, 8 or more",
            ));
        }
        if self.width == 0 || self.latent == 0 {
            return Err(Error::config("dae.width, dae.latent", 0, "1 or more"));
        }
        Ok(match self.kind {
            AutoencoderKind::Unet => Autoencoder::Unet(Unet::new(self.width, device, rng)),
            AutoencoderKind::Bottleneck => Autoencoder::Bottleneck(Bottleneck::new(self, device, rng)),
        })
    }
}

/// An autoencoder in training; see [`AutoencoderSpec::init`].
#[derive(Module, Debug)]
pub enum Autoencoder {
    /// See [`AutoencoderKind::Unet`].
    Unet(Unet),
    /// See [`AutoencoderKind::Bottleneck`].
    Bottleneck(Bottleneck),
}

impl Autoencoder {
    /// The reconstruction before it is clipped to `[0, 1]`, as the loss sees it.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Unet(network) => network.forward(images),
            Self::Bottleneck(network) => network.forward(images),
        }
    }
}

/// Scale and shift of the input, 4 (x − 0.5): the biases need not learn the mean grey.
const CENTRED: ([f32; 3], [f32; 3]) = ([4.0; 3], [-2.0; 3]);

/// The residual in units of the last layer's output: perturbations are a few hundredths, its weights of order one.
const RESIDUAL_SCALE: f64 = 0.2;

/// Three levels of two convolutions each way, skip connections by concatenation, residual output.
#[derive(Module, Debug)]
pub struct Unet {
    encoder: Vec<Block>,
    decoder: Vec<Block>,
    residual: Block,
}

impl Unet {
    fn new(width: usize, device: &Device, rng: &mut Rng) -> Self {
        let [w1, w2, w3] = [width, 2 * width, 4 * width];
        let mut layers = |channels: &[[usize; 2]]| {
            channels.iter().map(|&channels| conv(channels, device, rng).relu()).collect::<Vec<_>>()
        };
        let encoder = layers(&[[3, w1], [w1, w1], [w1, w2], [w2, w2], [w2, w3], [w3, w3]]);
        let decoder = layers(&[[w3 + w2, w2], [w2, w2], [w2 + w1, w1], [w1, w1]]);
        // It starts as the identity: the first residual is zero.
        let residual = Block::with_bias(
            Param::from_tensor(Tensor::zeros([3, w1, 3, 3], device)),
            Param::from_tensor(Tensor::zeros([3], device)),
        );
        Self { encoder, decoder, residual }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let [down, up] = [&self.encoder, &self.decoder];
        let centred = channels_last(images.clone(), &CENTRED.0, &CENTRED.1);
        let fine = down[1].forward(down[0].forward(centred));
        let middle = down[3].forward(down[2].forward(max_pool_2x2(fine.clone())));
        let coarse = down[5].forward(down[4].forward(max_pool_2x2(middle.clone())));
        let middle = up[1].forward(up[0].forward_joined(coarse, middle));
        let fine = up[3].forward(up[2].forward_joined(middle, fine));
        images - channels_first(self.residual.forward(fine)).mul_scalar(RESIDUAL_SCALE)
    }
}

/// Three strided convolutions, a dense latent, three upsampled convolutions, sigmoid output.
#[derive(Module, Debug)]
pub struct Bottleneck {
    encoder: Vec<Block>,
    to_latent: Dense,
    from_latent: Dense,
    decoder: Vec<Block>,
}

impl Bottleneck {
    fn new(spec: &AutoencoderSpec, device: &Device, rng: &mut Rng) -> Self {
        let [w1, w2, w3] = [spec.width, 2 * spec.width, 4 * spec.width];
        let features = w3 * (spec.image_size[0] / 8) * (spec.image_size[1] / 8);
        let encoder =
            [[3, w1], [w1, w2], [w2, w3]].map(|channels| conv(channels, device, rng).stride(2).relu()).into();
        let to_latent = dense(features, spec.latent, device, rng).relu();
        let from_latent = dense(spec.latent, features, device, rng).relu();
        let [first, second, third] =
            [[w3, w2], [w2, w1], [w1, 3]].map(|channels| conv(channels, device, rng));
        Self { encoder, to_latent, from_latent, decoder: vec![first.relu(), second.relu(), third] }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let centred = channels_last(images, &CENTRED.0, &CENTRED.1);
        let encoded = self.encoder.iter().fold(centred, |x, block| block.forward(x));
        let shape = encoded.dims();
        let latent = self.to_latent.forward(encoded.flatten::<2>(1, 3));
        let decoded = self.from_latent.forward(latent).reshape(shape);
        let last = self.decoder.iter().fold(decoded, |x, block| block.forward_upsampled(x));
        sigmoid_channels_first(last)
    }
}

/// A finished autoencoder: weights that no longer change, and the spec that shaped them.
#[derive(Clone, Debug)]
pub struct TrainedAutoencoder {
    network: Autoencoder,
    spec: AutoencoderSpec,
    device: Device,
}

impl TrainedAutoencoder {
    /// Freezes a network that finished training.
    pub fn freeze(network: &Autoencoder, spec: AutoencoderSpec, device: &Device) -> Self {
        Self { network: network.valid(), spec, device: device.clone().without_autodiff() }
    }

    /// What it was built from.
    pub fn spec(&self) -> &AutoencoderSpec {
        &self.spec
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Trainable numbers.
    pub fn parameters(&self) -> usize {
        self.network.num_params()
    }

    /// D(x): `[batch, 3, h, w]` in `[0, 1]`, clipped to `[0, 1]`.
    pub fn reconstruct(&self, images: Tensor<4>) -> Tensor<4> {
        let output = self.network.forward(images);
        match &self.network {
            Autoencoder::Unet(_) => output.clamp(0.0, 1.0),
            // The logistic function ends within.
            Autoencoder::Bottleneck(_) => output,
        }
    }

    /// Writes weights and spec as safetensors, atomically; same weights, same bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::save(path, &self.network, "autoencoder", &self.spec)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let file = weights::WeightFile::open(path)?;
        let spec: AutoencoderSpec = file.spec("autoencoder")?;
        let network = file.apply(spec.init(&device, &mut crate::rng::Seed::new(0).rng("shape only"))?)?;
        Ok(Self { network: network.valid(), spec, device })
    }
}
