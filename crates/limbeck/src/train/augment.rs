//! Augmentation for signs: shift, rotation, scale, brightness, exposure, erased squares. No flips: a mirrored sign is another sign.

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
    /// Brightness and contrast: 0.2 means pixels, in `[0, 1]`, times 0.8 to 1.2, then up to 0.1 (half of it) up or down.
    pub brightness: f64,
    /// Exposure in stops, each way: 2 means pixels times a quarter to four times, evenly on a logarithmic scale, but never so that the mean pixel leaves
    /// `[0.02, 0.8]`. Images of all signs are then seen as dark as some signs were filmed.
    pub exposure: f64,
    /// Side, in pixels, of a square anywhere in the image that is painted in its mean colour (DeVries & Taylor 2017), of half of the images.
    pub erased: usize,
}

impl Augmentation {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        for (name, value, most) in [
            ("shift", self.shift, 1e3),
            ("rotation", self.rotation, 180.0),
            ("scale", self.scale, 0.9),
            ("brightness", self.brightness, 1.0),
            ("exposure", self.exposure, 8.0),
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
    /// Binary logarithm of the factor of the exposure.
    stops: f32,
    /// Side of the erased square, and where the middle of it lies as a share of height and width.
    erased: Option<(usize, [f64; 2])>,
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
        let stops = if settings.exposure > 0.0 { symmetric(settings.exposure, rng) as f32 } else { 0.0 };
        let is_erased = settings.erased > 0 && rng.random();
        let erased = is_erased.then(|| (settings.erased, [(); 2].map(|()| rng.random())));
        Self { from, gain, offset: 0.5 * offset, stops, erased }
    }

    fn apply(&self, image: &mut [f32], [height, width]: [usize; 2]) {
        if let Some(from) = self.from {
            let original = image.to_vec();
            let planes = original.chunks_exact(height * width);
            for (plane, target) in planes.zip(image.chunks_exact_mut(height * width)) {
                warp(plane, [height, width], from, target);
            }
        }
        for value in &mut *image {
            *value = (*value * self.gain + self.offset).clamp(0.0, 1.0);
        }
        if self.stops != 0.0 {
            expose(image, self.stops);
        }
        if let Some((side, middle)) = self.erased {
            for plane in image.chunks_exact_mut(height * width) {
                erase(plane, [height, width], side, middle);
            }
        }
    }
}

/// Mean pixels that a change of exposure keeps to.
const EXPOSED: [f32; 2] = [0.02, 0.8];

/// Multiplies an image by two to the power of `stops`, or by as much of that as leaves its mean within [`EXPOSED`].
fn expose(image: &mut [f32], stops: f32) {
    let mean = image.iter().sum::<f32>() / image.len() as f32;
    // An image that is darker or lighter already is not brought nearer.
    let [darkest, lightest] = EXPOSED.map(|limit| limit / mean.max(f32::MIN_POSITIVE));
    let factor = stops.exp2().clamp(darkest.min(1.0), lightest.max(1.0));
    image.iter_mut().for_each(|value| *value = (*value * factor).min(1.0));
}

/// Paints a square of a plane `[height, width]` in the plane's mean; what lies beyond the border is left out.
fn erase(plane: &mut [f32], [height, width]: [usize; 2], side: usize, middle: [f64; 2]) {
    let mean = plane.iter().sum::<f32>() / plane.len() as f32;
    let span = |length: usize, middle: f64| {
        let middle = (middle * length as f64) as usize;
        let from = middle.saturating_sub(side / 2);
        from..(middle + side.div_ceil(2)).min(length)
    };
    let columns = span(width, middle[1]);
    for row in span(height, middle[0]) {
        plane[row * width..][columns.clone()].fill(mean);
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
    fn exposure_is_counted_in_stops_and_keeps_its_mean_within_limits() {
        let image = [0.1, 0.2, 0.3];
        let exposed = |stops: f32| {
            let mut image = image;
            expose(&mut image, stops);
            image
        };
        assert_eq!(exposed(-1.0), image.map(|value| value / 2.0));
        assert_eq!(exposed(1.0), image.map(|value| value * 2.0));
        // The mean is 0.2: a tenth and four times of it are the limits.
        assert_eq!(exposed(-9.0), image.map(|value| value * (0.02 / 0.2)));
        let brightest = exposed(9.0);
        assert!((brightest[0] - 0.4).abs() < 1e-6 && brightest[2] == 1.0, "{brightest:?}");
    }

    #[test]
    fn an_erased_square_has_the_mean_colour_and_ends_at_the_border() {
        let mut erased = plane();
        erase(&mut erased, SIZE, 3, [0.0, 0.99]);
        // The middle is row 0, column 3; the mean of 0 to 11 is 5.5.
        let expected = [0.0, 1.0, 5.5, 5.5, 4.0, 5.0, 5.5, 5.5, 8.0, 9.0, 10.0, 11.0];
        assert_eq!(erased, expected);
        let mut corner = plane();
        erase(&mut corner, SIZE, 1, [0.5, 0.5]);
        assert_eq!(corner.iter().zip(plane()).filter(|(found, was)| *found != was).count(), 1);
    }

    #[test]
    fn each_image_is_changed_on_its_own_and_stays_within_0_and_1() {
        let settings = Augmentation {
            shift: 2.0,
            rotation: 20.0,
            scale: 0.2,
            brightness: 0.3,
            exposure: 1.0,
            erased: 3,
        };
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
