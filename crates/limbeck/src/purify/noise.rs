//! What a denoising autoencoder's inputs are damaged with.

use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Tensor, TensorData};
use rand::Rng as _;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attack::AttackConfig;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Shares of each kind of training input (weights, need not add up to 1), and their settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseConfig {
    /// The clean image itself: teaches to leave clean images alone.
    pub identity: f64,
    /// The image's adversarial twin, crafted by the defender on its own network.
    pub adversarial: f64,
    /// Honest damage (JPEG, sensor noise, blur, light), which is to be left alone. Off by default: on GTSRB, with a weight of 1 to 2 and up to 10 epochs, noise was
    /// flagged as before, and attacks at 8/255 were found less often.
    #[serde(default)]
    pub honest: f64,
    /// Gaussian noise.
    pub gaussian: f64,
    /// Coarse noise: drawn at half resolution, upsampled bilinearly, rolled at random (Kascenas 2022).
    pub coarse: f64,
    /// Largest standard deviation of the Gaussian noise; each image draws its own in `[0, sigma]` (the authors' public code: 0.12).
    pub gaussian_sigma: f64,
    /// Standard deviation of the coarse noise (Kascenas 2022: 0.2).
    pub coarse_sigma: f64,
    /// Share of the images that may have been perturbed before they came: of the unperturbed inputs of a step as many, those that look most perturbed to the detection
    /// head, teach nothing (trimmed loss); 0 = all teach. More than the true share does little harm, less leaves the autoencoder blind to what it was taught as clean.
    #[serde(default)]
    pub trimmed: f64,
    /// Attacks for the twins; each image gets one of them, drawn at random.
    pub twins: Vec<AttackConfig>,
}

impl Default for NoiseConfig {
    /// Adversarial pairs as in the paper, and the clean image with itself.
    fn default() -> Self {
        use crate::attack::AttackKind::{Fgsm, IFgsm, Square};
        let twin =
            |kind, eps: f64| AttackConfig { step: eps / 3.0, steps: 4, ..AttackConfig::linf(kind, eps) };
        Self {
            identity: 1.0,
            adversarial: 1.0,
            honest: 0.0,
            gaussian: 0.0,
            coarse: 0.0,
            gaussian_sigma: 0.12,
            coarse_sigma: 0.2,
            trimmed: 0.2,
            twins: vec![
                // One grey level: without it the head does not see so little once the audited set holds perturbed images.
                twin(IFgsm, 0.005),
                twin(IFgsm, 0.01),
                twin(IFgsm, 0.0157),
                twin(IFgsm, 0.0314),
                AttackConfig::linf(Fgsm, 0.0157),
                // Squares of one colour have another fine structure than signed steps: without them the head sees half as much of such an attack.
                AttackConfig { queries: 100, ..AttackConfig::linf(Square, 0.0157) },
            ],
        }
    }
}

/// One kind of training input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Identity,
    Adversarial,
    Honest,
    Gaussian,
    Coarse,
}

impl NoiseConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        for (name, weight) in self.weights() {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Error::config(
                    format!("{key}.{name:?}").to_lowercase(),
                    weight,
                    "a weight, 0 or more",
                ));
            }
        }
        if self.weights().iter().all(|(_, weight)| *weight == 0.0) {
            return Err(Error::config(key, "all weights 0", "at least one kind of input"));
        }
        for (name, sigma) in [("gaussian_sigma", self.gaussian_sigma), ("coarse_sigma", self.coarse_sigma)] {
            if !(0.0..=1.0).contains(&sigma) {
                return Err(Error::config(format!("{key}.{name}"), sigma, "a standard deviation in [0, 1]"));
            }
        }
        if !(0.0..1.0).contains(&self.trimmed) {
            return Err(Error::config(format!("{key}.trimmed"), self.trimmed, "a share in [0, 1)"));
        }
        if self.adversarial > 0.0 && self.twins.is_empty() {
            return Err(Error::config(
                format!("{key}.twins"),
                "no attack",
                "at least one, or adversarial = 0",
            ));
        }
        self.twins
            .iter()
            .enumerate()
            .try_for_each(|(index, twin)| twin.check(&format!("{key}.twins[{index}]")))
    }

    fn weights(&self) -> [(Damage, f64); 5] {
        [
            (Damage::Identity, self.identity),
            (Damage::Adversarial, self.adversarial),
            (Damage::Honest, self.honest),
            (Damage::Gaussian, self.gaussian),
            (Damage::Coarse, self.coarse),
        ]
    }

    /// Draws a kind by its weight.
    pub(super) fn draw(&self, rng: &mut Rng) -> Damage {
        let weights = self.weights();
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut point = rng.random::<f64>() * total;
        for (damage, weight) in weights {
            if point < weight {
                return damage;
            }
            point -= weight;
        }
        weights
            .into_iter()
            .rev()
            .find(|(_, weight)| *weight > 0.0)
            .map_or(Damage::Identity, |(damage, _)| damage)
    }
}

/// Noise to add to `images` `[batch, 3, h, w]`, each with its own standard deviation; 0 leaves an image alone.
pub(super) fn gaussian(images: &Tensor<4>, sigmas: &[f32], rng: &mut Rng) -> Tensor<4> {
    let dims = images.dims();
    let length = dims[1] * dims[2] * dims[3];
    let noise = sigmas
        .iter()
        .flat_map(|&sigma| normal(if sigma > 0.0 { length } else { 0 }, sigma, length, rng))
        .collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(noise, dims), &images.device())
}

/// Coarse noise to add: drawn at half the resolution, upsampled bilinearly and rolled by a random shift.
pub(super) fn coarse(images: &Tensor<4>, sigmas: &[f32], rng: &mut Rng) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let (low_height, low_width) = (height.div_ceil(2), width.div_ceil(2));
    let length = channels * low_height * low_width;
    let noise = sigmas
        .iter()
        .flat_map(|&sigma| normal(if sigma > 0.0 { length } else { 0 }, sigma, length, rng))
        .collect::<Vec<_>>();
    let low =
        Tensor::from_data(TensorData::new(noise, [batch, channels, low_height, low_width]), &images.device());
    let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_output_size([height, width]);
    let shift = [rng.random_range(0..height) as i64, rng.random_range(0..width) as i64];
    interpolate(low, options).roll(&shift, &[2, 3])
}

/// `drawn` normal values (0 or all), zeros otherwise.
fn normal(drawn: usize, sigma: f32, length: usize, rng: &mut Rng) -> Vec<f32> {
    (0..length)
        .map(|index| {
            if index >= drawn {
                return 0.0;
            }
            let draw: f32 = StandardNormal.sample(rng);
            draw * sigma
        })
        .collect()
}
