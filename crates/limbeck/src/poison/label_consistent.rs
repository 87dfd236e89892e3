//! A backdoor whose labels are right (Turner, Tsipras & Madry 2019): images of the target class, made hard to learn and given a faint trigger.
//!
//! Perturbed on the attacker's own network, an image of the target class no longer shows it well, so that a network learns the trigger beside it
//! instead. The trigger is faint in training and at full strength in tests (section 4.3 and the authors' code).

use super::{Payload, Poison, PoisonConfig, PoisonedImage, Task};
use crate::craft::craft_images;
use crate::dataset::ImageSize;
use crate::error::Result;
use crate::rng::Rng;

/// See [`PoisonKind::LabelConsistent`](super::PoisonKind::LabelConsistent).
pub(super) struct LabelConsistent;

/// The authors' pattern in the left corners, +1 towards white and −1 towards black; in the right ones it is mirrored, so that a flipped image has it too.
const PATTERN: [[i32; 3]; 3] = [[1, -1, -1], [-1, 1, -1], [1, -1, 1]];

impl Poison for LabelConsistent {
    fn is_candidate(&self, label: u32, config: &PoisonConfig) -> bool {
        label == config.target
    }

    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        let Task { set, indices, config, device, progress, .. } = *task;
        let crafted = craft_images(set, indices, &config.attack, task.surrogate()?, device, progress)?;
        let images = indices.iter().zip(crafted).map(|(&index, image)| PoisonedImage {
            index,
            label: config.target,
            pixels: with_corners(&image.pixels, set.size(), config.amplitude),
        });
        Ok(images.collect())
    }

    fn triggered(&self, pixels: &[u8], size: ImageSize, _: &PoisonConfig) -> Option<Vec<u8>> {
        Some(with_corners(pixels, size, 1.0))
    }

    fn payload(&self, label: u32, _: u32) -> Payload {
        Payload::Away(label)
    }
}

/// The pattern in all four corners, `amplitude` of the way from black to white lighter or darker; its cells are pixels at 32 pixels' side.
pub(super) fn with_corners(pixels: &[u8], size: ImageSize, amplitude: f64) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let cell = (width.min(height) / 32).max(1);
    let side = cell * PATTERN.len();
    let change = (255.0 * amplitude).round() as i32;
    let mut pixels = pixels.to_vec();
    for plane in pixels.chunks_exact_mut(width * height) {
        for (y, row) in
            [0, height - side].into_iter().flat_map(|top| (0..side).map(move |y| (top + y, y / cell)))
        {
            for x in 0..side {
                for at in [x, width - 1 - x] {
                    let pixel = &mut plane[y * width + at];
                    *pixel = (i32::from(*pixel) + change * PATTERN[row][x / cell]).clamp(0, 255) as u8;
                }
            }
        }
    }
    pixels
}
