//! Iterative FGSM, the basic iterative method: x_{t+1} = clip_{x±eps,[0,1]}(x_t + a · sign ∇L), x_0 = x (Kurakin 2016, equation 2).

use burn::tensor::{Int, Tensor};

use super::{Attack, ThreatModel, input_gradient};
use crate::error::Result;
use crate::network::Model;

/// Sign steps, projected to the ball after each; sign(0) = 0, no random start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IFgsm {
    /// Step size a, in pixel units.
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
        labels: Tensor<1, Int>,
    ) -> Result<Tensor<4>> {
        sign_steps(self.step, self.steps, model, threat, images, labels)
    }
}

/// The same steps towards the classes that are given, instead of away from the true ones (Kurakin 2016, equation 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TargetedIFgsm {
    /// Step size a, in pixel units.
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
        labels: Tensor<1, Int>,
    ) -> Result<Tensor<4>> {
        sign_steps(-self.step, self.steps, model, threat, images, labels)
    }
}

/// Steps up the loss of `labels`, down it for a negative step, each projected to the ball.
fn sign_steps(
    step: f64,
    steps: usize,
    model: &dyn Model,
    threat: ThreatModel,
    images: Tensor<4>,
    labels: Tensor<1, Int>,
) -> Result<Tensor<4>> {
    (0..steps).try_fold(images.clone(), |current, _| {
        let gradient = input_gradient(model, current.clone(), labels.clone())?;
        Ok(threat.project(&images, current + gradient.sign().mul_scalar(step)))
    })
}
