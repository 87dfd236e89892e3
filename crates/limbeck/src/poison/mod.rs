//! Poisoning: what an attacker puts into a training set, with the truth kept apart.
//!
//! [`poison`] crafts the images on the attacker's own model; the truth goes to a manifest that only evaluation reads.
//! Crafted images are stored in 8 bits, as a real attacker must: they are rounded within the eps ball.

mod manifest;

pub use manifest::{PoisonedImage, PoisonedSet, TruthManifest, TruthRow};

use burn::tensor::Device;
use rand::seq::index::sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attack::AttackConfig;
use crate::craft::craft_images;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::Model;
use crate::progress::Progress;
use crate::rng::Seed;

/// What the attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoisonConfig {
    /// Share of the whole training set, 0 to 1; 0 = no attacker.
    pub fraction: f64,
    /// Whether the label is left alone.
    pub label: LabelPolicy,
    /// How the images are perturbed.
    pub attack: AttackConfig,
}

/// The label of a poisoned image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelPolicy {
    /// The image keeps its label: the paper's poison.
    Kept,
    /// The image gets the label that the surrogate now answers (dirty label).
    Changed,
}

impl PoisonConfig {
    /// Refuses settings that are not finite or out of range.
    pub fn check(&self, key: &str) -> Result<()> {
        if !(0.0..=1.0).contains(&self.fraction) {
            return Err(Error::config(format!("{key}.fraction"), self.fraction, "a share in [0, 1]"));
        }
        self.attack.check(&format!("{key}.attack"))
    }
}

/// Draws the images, crafts them on `surrogate`, and returns them with their new pixels and labels, in the set's order.
///
/// # Errors
/// Whatever reading the set or the attack reports.
pub fn poison(
    set: &Dataset,
    config: &PoisonConfig,
    surrogate: &dyn Model,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<PoisonedSet> {
    let count = (config.fraction * set.len() as f64).round() as usize;
    let mut indices = sample(&mut seed.rng("poisoned images"), set.len(), count).into_vec();
    indices.sort_unstable();
    progress.task("crafting poison", "images");
    let crafted = craft_images(set, &indices, &config.attack, surrogate, device, progress)?;
    let images = indices
        .iter()
        .zip(crafted)
        .map(|(&index, image)| {
            let label = set.samples()[index].label;
            PoisonedImage {
                index,
                label: match config.label {
                    LabelPolicy::Kept => label,
                    LabelPolicy::Changed => image.answer,
                },
                pixels: image.pixels,
            }
        })
        .collect();
    Ok(PoisonedSet { images })
}
