//! Ensemble adversarial training: a network learns from images that are perturbed against other networks, which do not change.
//!
//! Tramèr 2018 ("Ensemble adversarial training: attacks and defenses", ICLR). Who crafts examples on the network itself with few steps may teach it to bend its own gradient;
//! examples of others are out of its reach, so that it learns what perturbations look like. It then withstands what is crafted on networks that it never met, at little cost on images as they are,
//! and an attacker who has its own gradient hardly less than before. Here the network itself is not one of the sources; as theirs, each batch meets one of them, and a part of it is left as it is.

use burn::tensor::Tensor;
use rand::Rng as _;

use super::CraftingConfig;
use crate::error::{Error, Result};
use crate::network::{Tempered, TrainedClassifier};
use crate::rng::Rng;

/// Radii are drawn from this share of the full one on: an attacker chooses one, and a network that only met the full one may read smaller ones worse (Kurakin 2017, "Adversarial machine learning at scale", ICLR).
const LEAST_RADIUS: f64 = 0.3;

/// The networks that examples are crafted on in the place of the one that learns.
#[derive(Clone, Copy, Debug)]
pub struct Ensemble<'a> {
    /// One or more for the same classes; nothing of them changes.
    pub networks: &'a [&'a TrainedClassifier],
    /// Share of each batch that is perturbed, in (0, 1]; the rest is learnt as it is (Tramèr 2018: half).
    pub share: f64,
}

impl Ensemble<'_> {
    /// Refuses what no network for so many `classes` could learn from.
    pub(super) fn check(&self, classes: usize) -> Result<()> {
        let refused =
            |found: String, expected: String| Err(Error::input("classifier training", found, expected));
        if self.networks.is_empty() {
            return refused("an ensemble of no networks".to_owned(), "one or more".to_owned());
        }
        let mut others = self.networks.iter().map(|network| network.spec().classes.len());
        if let Some(found) = others.find(|&found| found != classes) {
            return refused(format!("an ensemble with a network of {found} classes"), format!("{classes}"));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return refused(format!("a share of {}", self.share), "a share in (0, 1]".to_owned());
        }
        Ok(())
    }

    /// A batch `[batch, 3, height, width]` with its first images, the share of it, perturbed against one of the networks: radius, steps and, where `crafting` starts at random, the kind of start are drawn too.
    pub(super) fn batch(
        &self,
        crafting: &CraftingConfig,
        images: Tensor<4>,
        labels: &[u32],
        place: f64,
        rng: &mut Rng,
    ) -> Result<Tensor<4>> {
        let perturbed = ((self.share * labels.len() as f64).round() as usize).clamp(1, labels.len());
        let drawn = CraftingConfig {
            eps: crafting.eps * rng.random_range(LEAST_RADIUS..1.0),
            steps: rng.random_range(1..=crafting.steps),
            random_start: crafting.random_start && rng.random(),
            ..*crafting
        };
        let network = Tempered(self.networks[rng.random_range(0..self.networks.len())]);
        let examples = drawn.examples(
            &network,
            images.clone().narrow(0, 0, perturbed),
            &labels[..perturbed],
            place,
            rng,
        )?;
        if perturbed == labels.len() {
            return Ok(examples);
        }
        Ok(Tensor::cat(vec![examples, images.narrow(0, perturbed, labels.len() - perturbed)], 0))
    }
}
