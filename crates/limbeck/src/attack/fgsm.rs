//! Fast gradient sign method: x' = clip(x + eps · sign(∇x L(z(x), y))) (Goodfellow 2014, equation in section 4).

use burn::tensor::{Int, Tensor};

use super::{Attack, ThreatModel, input_gradient};
use crate::error::Result;
use crate::network::Model;

/// One step to the corner of the ball; sign(0) = 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fgsm;

impl Attack for Fgsm {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: Tensor<1, Int>,
    ) -> Result<Tensor<4>> {
        let gradient = input_gradient(model, images.clone(), labels)?;
        Ok(images + gradient.sign().mul_scalar(threat.eps))
    }
}
