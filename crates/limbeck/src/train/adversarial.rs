//! Adversarial training: a network learns from images that are perturbed against itself, anew in each step.
//!
//! The outer problem of Madry 2018, equation 2.1: min over w of E max over ‖δ‖∞ ≤ eps of L(w, x + δ, y). The inner maximum is sought by
//! projected gradient descent on the image as it is augmented, with the network in inference mode: running statistics of batch norm, no dropout.
//! It is that network which will be attacked; no statistics move while an example is crafted; and Pang 2021 ("Bag of tricks for
//! adversarial training") found inference mode as robust and a little more accurate on clean images. In inference mode weights
//! are constants too, so the kernels compute the gradient of the images alone.

use burn::tensor::Tensor;
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WeightPerturbation;
use crate::attack::{Attack, IFgsm, Pgd, ThreatModel, craft};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::rng::{Rng, Seed};

/// How adversarial examples are crafted in training; perturbations are measured by their largest pixel (L-infinity).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CraftingConfig {
    /// Radius in pixel units (Madry 2018: 8/255 = 0.0314).
    pub eps: f64,
    /// Gradient steps for each image in each epoch: the cost of training grows with them (Madry 2018: 7; Goldblum 2020: 10; here 3, for two cores).
    pub steps: usize,
    /// Step size in pixel units; 0 = 2.5 eps / steps (Madry 2018: 10 steps of 2/255 at 8/255), at most 1.25 eps (Wong 2020: one step).
    pub step: f64,
    /// Start anywhere in the ball instead of at the image itself (Madry 2018; without it few steps overfit to themselves: Wong 2020).
    pub random_start: bool,
    /// Share of the training over which eps and step rise from 0 to their values; 0 = from the start.
    pub ramp: f64,
    /// Weights that are perturbed with the images.
    #[serde(default)]
    pub weights: WeightPerturbation,
}

impl Default for CraftingConfig {
    fn default() -> Self {
        Self {
            eps: 8.0 / 255.0,
            steps: 3,
            step: 0.0,
            random_start: true,
            ramp: 0.0,
            weights: WeightPerturbation::default(),
        }
    }
}

impl CraftingConfig {
    /// Refuses settings out of range; `key` names the table in the config.
    pub fn check(&self, key: &str) -> Result<()> {
        if !(self.eps > 0.0 && self.eps <= 1.0) {
            let expected = "a radius in (0, 1] pixel units (8/255 = 0.0314)";
            return Err(Error::config(format!("{key}.eps"), self.eps, expected));
        }
        if !(1..=1000).contains(&self.steps) {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 1000 steps"));
        }
        if !(0.0..=1.0).contains(&self.step) {
            let expected = "a step size in (0, 1], or 0 for 2.5 eps / steps";
            return Err(Error::config(format!("{key}.step"), self.step, expected));
        }
        if !(0.0..1.0).contains(&self.ramp) {
            return Err(Error::config(format!("{key}.ramp"), self.ramp, "a share in [0, 1)"));
        }
        self.weights.check(&format!("{key}.weights"))
    }

    /// The step size at the full radius.
    pub fn step_size(&self) -> f64 {
        if self.step == 0.0 { self.eps * (2.5 / self.steps as f64).min(1.25) } else { self.step }
    }

    /// The settings that a network is validated with: the full radius and ten steps from a random start (Rice 2020).
    ///
    /// More steps than in training, so that an epoch which only withstands its own few steps is not taken for robust (Wong 2020).
    pub(crate) fn for_validation(&self) -> Self {
        Self { steps: self.steps.max(10), step: 0.0, random_start: true, ramp: 0.0, ..*self }
    }

    /// Share of the full radius at a `place` of the training, 0 at its start and 1 at its end.
    fn rise(&self, place: f64) -> f64 {
        if self.ramp == 0.0 { 1.0 } else { (place / self.ramp).min(1.0) }
    }

    /// Examples `[batch, 3, height, width]` against `network` at a `place` of its training, with no autodiff graph behind them.
    ///
    /// The loss that rises is the cross-entropy of the true labels; of a classifier that is trained at T it is that at z/T ([`Tempered`](crate::network::Tempered)).
    pub(crate) fn examples(
        &self,
        network: &dyn Model,
        images: Tensor<4>,
        labels: &[u32],
        place: f64,
        rng: &mut Rng,
    ) -> Result<Tensor<4>> {
        let rise = self.rise(place);
        let (step, steps) = (rise * self.step_size(), self.steps);
        let attack: Box<dyn Attack> = if self.random_start {
            Box::new(Pgd { step, steps, restarts: 1, seed: Seed::new(rng.random()) })
        } else {
            Box::new(IFgsm { step, steps })
        };
        craft(&*attack, network, ThreatModel::linf(rise * self.eps), images, labels)
    }
}

#[cfg(test)]
mod tests;
