//! Fast gradient method: x' = clip(x + eps · d), d the steepest direction of the loss (Goodfellow 2014, section 4, where d is the sign;
//! Miyato 2017, equation 7, for the L2 ball).

use burn::tensor::Tensor;

use super::gradient::ascent;
use super::{Attack, ThreatModel};
use crate::error::Result;
use crate::network::Model;

/// One step to the edge of the ball; sign(0) = 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fgsm;

impl Attack for Fgsm {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let gradient = ascent(model, images.clone(), labels)?;
        Ok(images + threat.norm.steepest(gradient).mul_scalar(threat.eps))
    }
}
