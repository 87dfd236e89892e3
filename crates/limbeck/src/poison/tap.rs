//! Targeted adversarial poison (Fowl 2021): each image is moved towards class π(y), its label kept, so that features of π(y) are learnt as y.

use super::{Payload, Poison, PoisonedImage, Task};
use crate::attack::TargetedIFgsm;
use crate::craft::craft_towards;
use crate::error::Result;
use crate::rng::Rng;

/// See [`PoisonKind::Tap`](super::PoisonKind::Tap); π(y) is the authors'.
pub(super) struct Tap;

impl Poison for Tap {
    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        let Task { set, indices, config, device, progress, .. } = *task;
        let classes = set.classes().len() as u32;
        let towards: Vec<u32> =
            indices.iter().map(|&index| target(set.samples()[index].label, classes)).collect();
        let (step, steps) = config.attack.walk();
        let attack = TargetedIFgsm { step, steps };
        let crafted = craft_towards(
            set,
            indices,
            &towards,
            &attack,
            config.attack.threat(),
            task.surrogate()?,
            device,
            progress,
        )?;
        let label = |index: usize| set.samples()[index].label;
        let images = indices.iter().zip(crafted);
        Ok(images
            .map(|(&index, image)| PoisonedImage { index, label: label(index), pixels: image.pixels })
            .collect())
    }

    fn payload(&self, label: u32, classes: u32) -> Payload {
        Payload::Towards(target(label, classes))
    }
}

/// π(y) = y + 1.
fn target(label: u32, classes: u32) -> u32 {
    (label + 1) % classes
}
