//! Momentum iterative FGSM: g ← μ g + ∇L / ‖∇L‖₁, and a steepest step along g (Dong 2018, equations 6 and 7; equation 8 for L2).

use burn::tensor::Tensor;

use super::gradient::ascent;
use super::threat::l1_norms;
use super::{Attack, ThreatModel};
use crate::error::Result;
use crate::network::Model;

/// I-FGSM along an accumulated gradient, which transfers better to other networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MiFgsm {
    /// Step size, in pixel units, in the norm of the threat model.
    pub step: f64,
    /// Number of steps.
    pub steps: usize,
    /// Decay factor μ of the momentum.
    pub decay: f64,
}

impl Attack for MiFgsm {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let mut momentum = images.zeros_like();
        (0..self.steps).try_fold(images.clone(), |current, _| {
            let gradient = ascent(model, current.clone(), labels)?;
            let norms = l1_norms(gradient.clone()).clamp_min(f32::MIN_POSITIVE);
            momentum = momentum.clone().mul_scalar(self.decay) + gradient / norms;
            let step = threat.norm.steepest(momentum.clone()).mul_scalar(self.step);
            Ok(threat.project(&images, current + step))
        })
    }
}
