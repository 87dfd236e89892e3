//! Random noise: what any attack has to beat, and what a network should bear.

use burn::tensor::Tensor;

use super::draws::Draws;
use super::rows::restarted;
use super::{Attack, Norm, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;

/// How the noise is distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Of standard deviation eps, cut at ±eps; for L2, of length eps in a random direction.
    Gaussian,
    /// Anywhere in the ball, each place as likely.
    Uniform,
}

/// Noise that looks at no gradient; of several draws, the one that the model stands worst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// What is drawn.
    pub distribution: Distribution,
    /// Number of draws for each image, 1 or more.
    pub restarts: usize,
    /// What the noise is drawn from.
    pub seed: Seed,
}

impl Attack for Noise {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        restarted(self.restarts, model, &images, labels, |restart, images, _| {
            let mut draws = Draws::new(self.seed.step(restart), "noise", images)?;
            let noise = match (self.distribution, threat.norm) {
                (Distribution::Uniform, _) => draws.in_ball(threat),
                (Distribution::Gaussian, Norm::Linf) => draws.normal().mul_scalar(threat.eps),
                (Distribution::Gaussian, Norm::L2) => draws.of_length(threat.eps),
            };
            Ok(threat.project(images, images.clone() + noise))
        })
    }
}
