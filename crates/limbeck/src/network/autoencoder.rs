//! Denoising autoencoders: `[batch, 3, h, w]` in `[0, 1]` to the same, without the perturbation.
//!
//! `bottleneck` is the paper's kind (convolutional encoder, dense latent z = s(Wx + b), equation 1 of Badjie 2023);
//! `unet` has skip connections and predicts the residual (Kascenas 2022, Tripathi 2021), so that a perturbation of a few grey
//! levels is not lost in the blur. Decoders upsample and convolve: no transposed convolution, no checkerboard.

use std::path::Path;

use burn::module::Module;
use burn::tensor::module::avg_pool2d;
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::{Block, Dense, channels_first, channels_last, max_pool_2x2, sigmoid_channels_first};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::{conv, conv_of_gain, dense};
use super::log_odds::LogOdds;
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
            return Err(Error::input(
                "autoencoder",
                format!("images of {}x{} pixels", self.image_size[1], self.image_size[0]),
                "sides that are multiples of 8 pixels, 8 or more",
            ));
        }
        if self.width == 0 || self.latent == 0 {
            let found = format!("a width of {} and a latent vector of {}", self.width, self.latent);
            return Err(Error::input("autoencoder", found, "1 or more of each"));
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
    /// Reconstructions before they are clipped to `[0, 1]`, as the loss sees them, and the detection head's logits.
    pub fn forward(&self, images: Tensor<4>) -> Denoised {
        match self {
            Self::Unet(network) => network.forward(images),
            Self::Bottleneck(network) => network.forward(images),
        }
    }
}

/// What an autoencoder makes of images.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// `[batch, 3, h, w]`.
    pub reconstructions: Tensor<4>,
    /// Log-odds that an image was perturbed on purpose, `[batch]`.
    pub logits: Tensor<1>,
}

/// Mean and maximum of each channel over the pixels of `[batch, h, w, channels]`: `[batch, 2 · channels]`.
///
/// A perturbation is everywhere (the mean sees it), a trigger in one place (the maximum does).
fn pooled(features: Tensor<4>) -> Tensor<2> {
    let [batch, height, width, channels] = features.dims();
    let pixels = features.reshape([batch, height * width, channels]);
    let pooled = [pixels.clone().mean_dim(1), pixels.max_dim(1)];
    Tensor::cat(pooled.map(|pooled| pooled.reshape([batch, channels])).to_vec(), 1)
}

/// Scale and shift of the input, 4 (x − 0.5): the biases need not learn the mean grey.
const CENTRED: ([f32; 3], [f32; 3]) = ([4.0; 3], [-2.0; 3]);

/// The residual in units of the last layer's output: perturbations are a few hundredths, its weights of order one.
const RESIDUAL_SCALE: f64 = 0.2;

/// Gain of the last layer's first weights, so that the first residual is a grey level or two.
const FIRST_RESIDUAL: f64 = 0.1;

/// What is finer than a pixel's surroundings, amplified and bent to ±1: a perturbation of a few grey levels is lost beside edges of two hundred.
///
/// Difference to the mean of 3x3 pixels, as the fixed first filters and truncated units of steganalysis networks have it (Ye 2017).
fn details(images: Tensor<4>) -> Tensor<4> {
    fine_structure(images).mul_scalar(DETAIL_GAIN).tanh()
}

/// Difference of each pixel to the mean of its 3x3 surroundings, beyond the edges of what is there: `[batch, channels, h, w]` to the same.
pub(crate) fn fine_structure(images: Tensor<4>) -> Tensor<4> {
    let surroundings = avg_pool2d(
        images.clone(),
        AvgPoolOptions {
            count_include_pad: false,
            ..AvgPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1])
        },
    );
    images - surroundings
}

/// Amplification of [`details`].
const DETAIL_GAIN: f64 = 16.0;

/// Three levels of two convolutions each way, skip connections by concatenation, residual output.
#[derive(Module, Debug)]
pub struct Unet {
    encoder: Vec<Block>,
    decoder: Vec<Block>,
    residual: Block,
    head: LogOdds,
}

impl Unet {
    fn new(width: usize, device: &Device, rng: &mut Rng) -> Self {
        let [w1, w2, w3] = [width, 2 * width, 4 * width];
        let mut layers = |channels: &[[usize; 2]]| {
            channels.iter().map(|&channels| conv(channels, device, rng).relu()).collect::<Vec<_>>()
        };
        let encoder = layers(&[[6, w1], [w1, w1], [w1, w2], [w2, w2], [w2, w3], [w3, w3]]);
        let decoder = layers(&[[w3 + w2, w2], [w2, w2], [w2 + w1, w1], [w1, w1]]);
        // It starts near the identity; at zero weights no gradient would come through to the other layers.
        let residual = conv_of_gain([w1, 3], FIRST_RESIDUAL, device, rng);
        let head = LogOdds::new(2 * (w1 + w2 + w3 + w1), device, rng);
        Self { encoder, decoder, residual, head }
    }

    fn forward(&self, images: Tensor<4>) -> Denoised {
        let [down, up] = [&self.encoder, &self.decoder];
        let centred = channels_last(images.clone(), &CENTRED.0, &CENTRED.1);
        let details = channels_last(details(images.clone()), &[1.0; 3], &[0.0; 3]);
        let fine = down[1].forward(down[0].forward(Tensor::cat(vec![centred, details], 3)));
        let middle = down[3].forward(down[2].forward(max_pool_2x2(fine.clone())));
        let coarse = down[5].forward(down[4].forward(max_pool_2x2(middle.clone())));
        let mut features = vec![pooled(fine.clone()), pooled(middle.clone()), pooled(coarse.clone())];
        let middle = up[1].forward(up[0].forward_joined(coarse, middle));
        let fine = up[3].forward(up[2].forward_joined(middle, fine));
        features.push(pooled(fine.clone()));
        let logits = self.head.forward(Tensor::cat(features, 1));
        let residual = channels_first(self.residual.forward(fine)).mul_scalar(RESIDUAL_SCALE);
        Denoised { reconstructions: images - residual, logits }
    }
}

/// Three strided convolutions, a dense latent, three upsampled convolutions, sigmoid output.
#[derive(Module, Debug)]
pub struct Bottleneck {
    encoder: Vec<Block>,
    to_latent: Dense,
    from_latent: Dense,
    decoder: Vec<Block>,
    head: LogOdds,
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
        let decoder = vec![first.relu(), second.relu(), third];
        Self { encoder, to_latent, from_latent, decoder, head: LogOdds::new(spec.latent, device, rng) }
    }

    fn forward(&self, images: Tensor<4>) -> Denoised {
        let centred = channels_last(images, &CENTRED.0, &CENTRED.1);
        let encoded = self.encoder.iter().fold(centred, |x, block| block.forward(x));
        let shape = encoded.dims();
        let latent = self.to_latent.forward(encoded.flatten::<2>(1, 3));
        let logits = self.head.forward(latent.clone());
        let decoded = self.from_latent.forward(latent).reshape(shape);
        let last = self.decoder.iter().fold(decoded, |x, block| block.forward_upsampled(x));
        Denoised { reconstructions: sigmoid_channels_first(last), logits }
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

    /// D(x) of `[batch, 3, h, w]` in `[0, 1]`, clipped to `[0, 1]`, and the detection head's log-odds.
    pub fn denoise(&self, images: Tensor<4>) -> Denoised {
        let Denoised { reconstructions, logits } = self.network.forward(images);
        let reconstructions = match &self.network {
            Autoencoder::Unet(_) => reconstructions.clamp(0.0, 1.0),
            // The logistic function ends within.
            Autoencoder::Bottleneck(_) => reconstructions,
        };
        Denoised { reconstructions, logits }
    }

    /// D(x) alone.
    pub fn reconstruct(&self, images: Tensor<4>) -> Tensor<4> {
        self.denoise(images).reconstructions
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
