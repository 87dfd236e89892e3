//! Wrong labels on untouched images.

use rand::Rng as _;

use super::{Poison, PoisonedImage, Task};
use crate::error::Result;
use crate::rng::Rng;

/// See [`PoisonKind::LabelFlip`](super::PoisonKind::LabelFlip).
pub(super) struct Random;

/// See [`PoisonKind::PairedFlip`](super::PoisonKind::PairedFlip).
pub(super) struct Paired;

impl Poison for Random {
    fn craft(&self, task: &Task<'_>, rng: &mut Rng) -> Result<Vec<PoisonedImage>> {
        let classes = task.set.classes().len() as u32;
        relabelled(task, |label| (label + rng.random_range(1..classes.max(2))) % classes)
    }

    fn picks_images(&self) -> bool {
        true
    }
}

impl Poison for Paired {
    fn craft(&self, task: &Task<'_>, _: &mut Rng) -> Result<Vec<PoisonedImage>> {
        let classes = task.set.classes().len() as u32;
        relabelled(task, |label| (label + 1) % classes)
    }

    fn picks_images(&self) -> bool {
        true
    }
}

fn relabelled(task: &Task<'_>, mut other: impl FnMut(u32) -> u32) -> Result<Vec<PoisonedImage>> {
    let image = |&index: &usize| {
        let label = other(task.set.samples()[index].label);
        Ok(PoisonedImage { index, label, pixels: task.set.pixels(index)? })
    };
    task.indices.iter().map(image).collect()
}
