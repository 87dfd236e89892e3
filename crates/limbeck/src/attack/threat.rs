//! What an attacker may change: a ball around each image, within the pixel box `[0, 1]`.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the size of a perturbation is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Norm {
    /// The largest change of any pixel value.
    #[default]
    Linf,
    /// The root of the sum of squared changes over all pixel values of an image.
    L2,
}

impl Norm {
    /// All norms by name.
    pub const TABLE: &[(Self, &str)] = &[(Self::Linf, "linf"), (Self::L2, "l2")];

    /// The direction of unit size in which a loss rises most to first order: sign(g), or g / ‖g‖₂; zero stays zero.
    pub(super) fn steepest(self, gradient: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Linf => gradient.sign(),
            Self::L2 => {
                // Its largest entry comes to 1 first: the square of a small gradient is 0 in 32 bits.
                let largest = per_image(gradient.clone().flatten::<2>(1, 3).max_abs_dim(1));
                let gradient = gradient / largest.clamp_min(f32::MIN_POSITIVE);
                let norms = l2_norms(gradient.clone());
                gradient / norms.clamp_min(f32::MIN_POSITIVE)
            }
        }
    }
}

/// The perturbations that are allowed: a ball of radius `eps` around the image, within `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreatModel {
    /// Shape of the ball.
    #[serde(default)]
    pub norm: Norm,
    /// Radius, in pixel units.
    pub eps: f64,
}

impl ThreatModel {
    /// No pixel value may change by more than `eps`.
    pub fn linf(eps: f64) -> Self {
        Self { norm: Norm::Linf, eps }
    }

    /// The changes of an image may not be longer than `eps` together.
    pub fn l2(eps: f64) -> Self {
        Self { norm: Norm::L2, eps }
    }

    /// An allowed image for `proposal`, `[batch, 3, height, width]`: into the ball by the shortest way, then into the box.
    ///
    /// Projection twice is projection once. For L2 the ball's edge is as blurred as 32-bit pixels are: what lies within
    /// [`reach`](Self::reach) stays as it is, what lies further out is scaled to `eps`.
    pub fn project(self, images: &Tensor<4>, proposal: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => {
                let low = images.clone().sub_scalar(self.eps);
                let high = images.clone().add_scalar(self.eps);
                proposal.max_pair(low).min_pair(high).clamp(0.0, 1.0)
            }
            Norm::L2 if self.eps == 0.0 => images.clone(),
            Norm::L2 => {
                let shape = images.dims();
                let perturbation = proposal.clone() - images.clone();
                let norms = l2_norms(perturbation.clone());
                let outside = norms.clone().greater_elem(self.reach(shape[1] * shape[2] * shape[3]));
                let scaled = images.clone() + perturbation * norms.recip().mul_scalar(self.eps);
                // The box holds the image, so going back to it never makes a change larger.
                proposal.mask_where(outside.expand(shape), scaled).clamp(0.0, 1.0)
            }
        }
    }

    /// Whole 8-bit levels that an L-infinity ball around a stored image holds: at eps 0.01 (2.55 levels) two. A radius that is but a fiftieth of a level
    /// short is taken for whole: 0.0039 is 1/255 in four digits.
    pub fn levels(self) -> u8 {
        (self.eps * 255.0 + 0.02).floor().min(255.0) as u8
    }

    /// The same ball cut to whole levels, so that rounding to 8 bits never leaves it.
    pub fn in_whole_levels(self) -> Self {
        Self { eps: f64::from(self.levels()) / 255.0, ..self }
    }

    /// The largest change of an image of this many values that passes for allowed: `eps` and the rounding of 32-bit numbers.
    pub fn reach(self, values: usize) -> f64 {
        match self.norm {
            Norm::Linf => self.eps + 1e-7,
            Norm::L2 => self.eps * (1.0 + 1e-5) + 1e-7 * (values as f64).sqrt(),
        }
    }

    /// A perturbation cut to the ball alone, whatever the image.
    pub(super) fn shrink(self, perturbation: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => perturbation.clamp(-self.eps, self.eps),
            Norm::L2 => {
                let norms = l2_norms(perturbation.clone()).clamp_min(self.eps.max(1e-12));
                perturbation * norms.recip().mul_scalar(self.eps)
            }
        }
    }
}

/// ‖x‖₂ of each image, `[batch, 1, 1, 1]`.
pub(super) fn l2_norms(images: Tensor<4>) -> Tensor<4> {
    per_image(images.square().flatten::<2>(1, 3).sum_dim(1).sqrt())
}

/// ‖x‖₁ of each image, `[batch, 1, 1, 1]`.
pub(super) fn l1_norms(images: Tensor<4>) -> Tensor<4> {
    per_image(images.abs().flatten::<2>(1, 3).sum_dim(1))
}

/// A column `[batch, 1]` as `[batch, 1, 1, 1]`.
fn per_image(column: Tensor<2>) -> Tensor<4> {
    let [batch, _] = column.dims();
    column.reshape([batch, 1, 1, 1])
}
