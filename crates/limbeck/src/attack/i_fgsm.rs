//! Iterative FGSM, the basic iterative method: x_{t+1} = clip_{x±eps,[0,1]}(x_t + a · sign ∇L), x_0 = x (Kurakin 2016, equation 2).

use burn::tensor::Tensor;

use super::gradient::ascent;
use super::{Attack, ThreatModel};
use crate::error::Result;
use crate::network::Model;

/// Steepest steps, projected to the ball after each; sign(0) = 0, no random start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IFgsm {
    /// Step size a, in pixel units, in the norm of the threat model.
    pub step: f64,
    /// Number of steps.
    pub steps: usize,
}

impl Attack for IFgsm {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        steepest_steps(self.step, self.steps, model, threat, &images, images.clone(), labels)
    }
}

/// The same steps towards the classes that are given, instead of away from the true ones (Kurakin 2016, equation 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetedIFgsm {
    /// Step size a, in pixel units, in the norm of the threat model.
    pub step: f64,
    /// Number of steps.
    pub steps: usize,
}

impl Attack for TargetedIFgsm {
    /// `labels` are the classes that the model is to answer.
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        steepest_steps(-self.step, self.steps, model, threat, &images, images.clone(), labels)
    }
}

/// Steps from `start` up the loss of `labels`, down it for a negative step, each projected to the ball around `images`.
pub(super) fn steepest_steps(
    step: f64,
    steps: usize,
    model: &dyn Model,
    threat: ThreatModel,
    images: &Tensor<4>,
    start: Tensor<4>,
    labels: &[u32],
) -> Result<Tensor<4>> {
    (0..steps).try_fold(start, |current, _| {
        let gradient = ascent(model, current.clone(), labels)?;
        Ok(threat.project(images, current + threat.norm.steepest(gradient).mul_scalar(step)))
    })
}
