//! Projected gradient descent: I-FGSM from random places of the ball (Madry 2018, section 2.1 and figure 2).

use burn::tensor::Tensor;

use super::draws::Draws;
use super::i_fgsm::steepest_steps;
use super::rows::restarted;
use super::{Attack, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;

/// Steepest steps from a random start; an image that withstood is tried again from another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pgd {
    /// Step size, in pixel units, in the norm of the threat model.
    pub step: f64,
    /// Number of steps of each restart.
    pub steps: usize,
    /// Number of starts, 1 or more.
    pub restarts: usize,
    /// What the starts are drawn from.
    pub seed: Seed,
}

impl Attack for Pgd {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        restarted(self.restarts, model, &images, labels, |restart, images, labels| {
            let noise = Draws::new(self.seed.step(restart), "pgd", images)?.start(threat);
            let start = threat.project(images, images.clone() + noise);
            steepest_steps(self.step, self.steps, model, threat, images, start, labels)
        })
    }
}
