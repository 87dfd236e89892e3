//! Augmentation for signs: shift, rotation, scale, brightness. No flips: a mirrored sign is another sign.

use burn::tensor::grid::affine_grid_2d;
use burn::tensor::ops::{GridSampleOptions, GridSamplePaddingMode, InterpolateMode};
use burn::tensor::{Tensor, TensorData};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rng::Rng;

/// Largest change of each kind; each image draws its own, uniformly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Shift in pixels, each way.
    pub shift: f64,
    /// Rotation in degrees, each way.
    pub rotation: f64,
    /// Scale: 0.1 means from 0.9 to 1.1.
    pub scale: f64,
    /// Brightness and contrast: 0.2 means pixels times 0.8 to 1.2, and grey levels up to 0.2 up or down around it.
    pub brightness: f64,
}

impl Augmentation {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        for (name, value, most) in [
            ("shift", self.shift, 1e3),
            ("rotation", self.rotation, 180.0),
            ("scale", self.scale, 0.9),
            ("brightness", self.brightness, 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(Error::config(format!("{key}.{name}"), value, format!("0 to {most}")));
            }
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        self.shift > 0.0 || self.rotation > 0.0 || self.scale > 0.0
    }
}

fn symmetric(most: f64, rng: &mut Rng) -> f64 {
    most * rng.random_range(-1.0..=1.0)
}

/// Changes each image of `[batch, 3, height, width]`; the border is repeated where a move uncovers it.
pub fn augment(images: Tensor<4>, settings: &Augmentation, rng: &mut Rng) -> Tensor<4> {
    let dims = images.dims();
    let [batch, _, height, width] = dims;
    let device = images.device();
    let mut images = images;
    if settings.moves() {
        let transforms: Vec<f32> = (0..batch)
            .flat_map(|_| {
                let angle = symmetric(settings.rotation, rng).to_radians();
                let scale = 1.0 / (1.0 + symmetric(settings.scale, rng));
                let (sin, cos) = (scale * angle.sin(), scale * angle.cos());
                // The grid is in units of half an image.
                let x = 2.0 * symmetric(settings.shift, rng) / width as f64;
                let y = 2.0 * symmetric(settings.shift, rng) / height as f64;
                [cos, -sin, x, sin, cos, y].map(|value| value as f32)
            })
            .collect();
        let transforms = Tensor::<3>::from_data(TensorData::new(transforms, [batch, 2, 3]), &device);
        let options = GridSampleOptions {
            mode: InterpolateMode::Bilinear,
            padding_mode: GridSamplePaddingMode::Border,
            align_corners: true,
        };
        images = images.grid_sample_2d(affine_grid_2d(transforms, dims), options);
    }
    if settings.brightness > 0.0 {
        let mut draw = |around: f64| {
            let values: Vec<f32> =
                (0..batch).map(|_| (around + symmetric(settings.brightness, rng)) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [batch, 1, 1, 1]), &device)
        };
        let (gain, offset) = (draw(1.0), draw(0.0));
        images = (images * gain + offset.mul_scalar(0.5)).clamp(0.0, 1.0);
    }
    images
}
