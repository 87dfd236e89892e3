//! Adversarial images in a training set, with their labels kept or changed.

use super::{LabelPolicy, Payload, Poison, PoisonedImage, Task};
use crate::craft::craft_images;
use crate::error::Result;
use crate::rng::Rng;

/// See [`PoisonKind::Adversarial`](super::PoisonKind::Adversarial).
pub(super) struct Adversarial;

impl Poison for Adversarial {
    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        let Task { set, indices, config, device, progress, .. } = *task;
        let crafted = craft_images(set, indices, &config.attack, task.surrogate()?, device, progress)?;
        let images = indices.iter().zip(crafted).map(|(&index, image)| PoisonedImage {
            index,
            label: match config.label {
                LabelPolicy::Kept => set.samples()[index].label,
                LabelPolicy::Changed => image.answer,
            },
            pixels: image.pixels,
        });
        Ok(images.collect())
    }

    fn payload(&self, label: u32, _: u32) -> Payload {
        Payload::Away(label)
    }
}
