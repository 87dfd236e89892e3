//! Augmentation for signs: shift, rotation, scale, brightness. No flips: a mirrored sign is another sign.

use rand::Rng as _;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::ImageSize;
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

/// What happens to one image.
struct Change {
    /// Where each pixel comes from: x' = a·x + b·y + c, y' = d·x + e·y + f, in pixels from the centre.
    from: Option<[f32; 6]>,
    gain: f32,
    offset: f32,
}

impl Change {
    fn draw(settings: &Augmentation, rng: &mut Rng) -> Self {
        let from = settings.moves().then(|| {
            let angle = symmetric(settings.rotation, rng).to_radians();
            let scale = 1.0 / (1.0 + symmetric(settings.scale, rng));
            let (sin, cos) = (scale * angle.sin(), scale * angle.cos());
            let [x, y] = [(); 2].map(|()| symmetric(settings.shift, rng));
            [cos, -sin, x, sin, cos, y].map(|value| value as f32)
        });
        let [gain, offset] = [1.0, 0.0].map(|around| around + symmetric(settings.brightness, rng) as f32);
        Self { from, gain, offset: 0.5 * offset }
    }

    fn apply(&self, image: &mut [f32], [height, width]: [usize; 2]) {
        if let Some(from) = self.from {
            let original = image.to_vec();
            let planes = original.chunks_exact(height * width);
            for (plane, target) in planes.zip(image.chunks_exact_mut(height * width)) {
                warp(plane, [height, width], from, target);
            }
        }
        for value in image {
            *value = (*value * self.gain + self.offset).clamp(0.0, 1.0);
        }
    }
}

/// Bilinear samples of a plane `[height, width]`; beyond the border, the border.
fn warp(plane: &[f32], [height, width]: [usize; 2], [a, b, c, d, e, f]: [f32; 6], target: &mut [f32]) {
    let [middle_y, middle_x] = [height, width].map(|side| (side - 1) as f32 / 2.0);
    let within = |position: f32, side: usize| {
        let position = position.clamp(0.0, (side - 1) as f32);
        let low = (position as usize).min(side.saturating_sub(2));
        (low, (low + 1).min(side - 1), position - low as f32)
    };
    for (row, target) in target.chunks_exact_mut(width).enumerate() {
        let y = row as f32 - middle_y;
        for (column, target) in target.iter_mut().enumerate() {
            let x = column as f32 - middle_x;
            let (left, right, across) = within(a * x + b * y + c + middle_x, width);
            let (upper, lower, down) = within(d * x + e * y + f + middle_y, height);
            let blend = |row: usize| {
                let row = &plane[row * width..];
                row[left] + across * (row[right] - row[left])
            };
            let (upper, lower) = (blend(upper), blend(lower));
            *target = upper + down * (lower - upper);
        }
    }
}

/// Changes each image of `[batch, 3, height, width]` in place; the border is repeated where a move uncovers it.
pub fn augment(pixels: &mut [f32], size: ImageSize, settings: &Augmentation, rng: &mut Rng) {
    if *settings == Augmentation::default() {
        return;
    }
    let size = [size.height as usize, size.width as usize];
    let image = 3 * size[0] * size[1];
    // Drawn in order, applied on all threads.
    let changes: Vec<Change> = pixels.chunks_exact(image).map(|_| Change::draw(settings, rng)).collect();
    pixels.par_chunks_exact_mut(image).zip(changes).for_each(|(image, change)| change.apply(image, size));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    const SIZE: [usize; 2] = [3, 4];

    fn plane() -> Vec<f32> {
        (0..12).map(|value| value as f32).collect()
    }

    fn warped(from: [f32; 6]) -> Vec<f32> {
        let mut target = vec![0.0; 12];
        warp(&plane(), SIZE, from, &mut target);
        target
    }

    #[test]
    fn the_identity_changes_nothing() {
        assert_eq!(warped([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]), plane());
    }

    #[test]
    fn a_shift_repeats_the_border() {
        let expected = [1.0, 2.0, 3.0, 3.0, 5.0, 6.0, 7.0, 7.0, 9.0, 10.0, 11.0, 11.0];
        assert_eq!(warped([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), expected);
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_two() {
        let expected = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 8.0, 9.0, 10.0, 11.0];
        assert_eq!(warped([1.0, 0.0, 0.0, 0.0, 1.0, 0.5]), expected);
    }

    #[test]
    fn half_a_turn_reverses_the_plane() {
        let expected: Vec<f32> = plane().into_iter().rev().collect();
        let found = warped([-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn each_image_is_changed_on_its_own_and_stays_within_0_and_1() {
        let settings = Augmentation { shift: 2.0, rotation: 20.0, scale: 0.2, brightness: 0.3 };
        let size = ImageSize { width: 8, height: 8 };
        let image: Vec<f32> = (0..192).map(|value| value as f32 / 191.0).collect();
        let mut pixels = image.repeat(2);
        augment(&mut pixels, size, &settings, &mut Seed::new(3).rng("test"));
        assert!(pixels.iter().all(|value| (0.0..=1.0).contains(value)));
        assert!(pixels[..192] != pixels[192..] && pixels[..192] != image[..]);
        let mut untouched = image.clone();
        augment(&mut untouched, size, &Augmentation::default(), &mut Seed::new(3).rng("test"));
        assert_eq!(untouched, image);
    }
}
