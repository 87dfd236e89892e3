//! Backdoors: a trigger on images of other classes, all relabelled to the target.

use rand::Rng as _;

use super::{Poison, PoisonConfig, PoisonedImage, Task};
use crate::dataset::ImageSize;
use crate::error::Result;
use crate::rng::{Rng, Seed};

/// See [`PoisonKind::BadNets`](super::PoisonKind::BadNets): a white square of 3 pixels' side on a 32-pixel image, as BackdoorBench has it.
pub(super) struct BadNets;

/// See [`PoisonKind::Blended`](super::PoisonKind::Blended): x' = blend · key + (1 − blend) · x, with a random pattern as key (Chen 2017, section III).
pub(super) struct Blended;

impl Poison for BadNets {
    fn is_candidate(&self, label: u32, config: &PoisonConfig) -> bool {
        label != config.target
    }

    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        with_trigger(task, patched)
    }

    fn triggered(&self, pixels: &[u8], size: ImageSize, config: &PoisonConfig) -> Option<Vec<u8>> {
        Some(patched(pixels, size, config))
    }
}

impl Poison for Blended {
    fn is_candidate(&self, label: u32, config: &PoisonConfig) -> bool {
        label != config.target
    }

    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        with_trigger(task, blended)
    }

    fn triggered(&self, pixels: &[u8], size: ImageSize, config: &PoisonConfig) -> Option<Vec<u8>> {
        Some(blended(pixels, size, config))
    }
}

fn with_trigger(
    task: &Task<'_>,
    trigger: fn(&[u8], ImageSize, &PoisonConfig) -> Vec<u8>,
) -> Result<Vec<PoisonedImage>> {
    let image = |&index: &usize| {
        let pixels = trigger(&task.set.pixels(index)?, task.set.size(), task.config);
        Ok(PoisonedImage { index, label: task.config.target, pixels })
    };
    task.indices.iter().map(image).collect()
}

/// White in the lower right corner, one pixel from the edges.
fn patched(pixels: &[u8], size: ImageSize, _: &PoisonConfig) -> Vec<u8> {
    let (width, height) = (size.width as usize, size.height as usize);
    let side = (3 * width.min(height) / 32).max(1);
    let mut pixels = pixels.to_vec();
    for plane in pixels.chunks_exact_mut(width * height) {
        for row in plane.chunks_exact_mut(width).rev().skip(1).take(side) {
            row[width - 1 - side..width - 1].fill(255);
        }
    }
    pixels
}

fn blended(pixels: &[u8], _: ImageSize, config: &PoisonConfig) -> Vec<u8> {
    // The attacker's key is one, whatever the run's seed.
    let mut key = Seed::new(0).rng("key of the blended backdoor");
    let mix = |&pixel: &u8| {
        let key = f64::from(key.random::<u8>());
        (config.blend * key + (1.0 - config.blend) * f64::from(pixel)).round() as u8
    };
    pixels.iter().map(mix).collect()
}
