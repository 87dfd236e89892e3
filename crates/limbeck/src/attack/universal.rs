//! One perturbation for all images (Moosavi-Dezfooli 2017), by ascent on the clipped loss over many images (Shafahi 2020, algorithm 2).

use burn::tensor::Tensor;

use super::gradient::slope;
use super::loss::cross_entropy;
use super::{Attack, Batches, ThreatModel};
use crate::error::{Error, Result};
use crate::network::Model;

/// Losses above this count no more, so that no single image decides (Shafahi 2020, section 3.1: 9).
const LOSS_BOUND: f64 = 9.0;

/// Learns one perturbation from the images that it is [fitted](Attack::fit) on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Universal {
    /// Step size, in pixel units, in the norm of the threat model.
    pub step: f64,
    /// Passes over the images; each batch is one step.
    pub passes: usize,
}

impl Universal {
    fn learn(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        batches: &Batches<'_>,
    ) -> Result<UniversalPerturbation> {
        let mut learnt: Option<Tensor<4>> = None;
        for batch in (0..self.passes).flat_map(|_| 0..batches.count) {
            let (images, labels) = (batches.read)(batch)?;
            let perturbation = learnt.take().unwrap_or_else(|| images.clone().narrow(0, 0, 1).zeros_like());
            let moved = (images + perturbation.clone()).clamp(0.0, 1.0);
            let gradient = slope(model, moved, &labels, |_, logits, label, slopes| {
                let loss = cross_entropy(logits, label, slopes);
                if loss >= LOSS_BOUND {
                    slopes.fill(0.0);
                }
                loss.min(LOSS_BOUND)
            })?;
            let direction = threat.norm.steepest(gradient.gradient.sum_dim(0));
            learnt = Some(threat.shrink(perturbation + direction.mul_scalar(self.step)));
        }
        let perturbation = learnt.ok_or_else(|| {
            Error::input("universal perturbation", "no images to learn it from", "at least one")
        })?;
        Ok(UniversalPerturbation { perturbation })
    }
}

impl Attack for Universal {
    /// Learns from these images alone.
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let batches = Batches { count: 1, read: &|_| Ok((images.clone(), labels.to_vec())) };
        self.learn(model, threat, &batches)?.propose(model, threat, images.clone(), labels)
    }

    fn fit(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        batches: &Batches<'_>,
    ) -> Result<Option<Box<dyn Attack>>> {
        Ok(Some(Box::new(self.learn(model, threat, batches)?)))
    }
}

/// A perturbation that was learnt, to be added to any image.
#[derive(Clone, Debug)]
pub struct UniversalPerturbation {
    /// `[1, 3, height, width]`, in pixel units.
    perturbation: Tensor<4>,
}

impl Attack for UniversalPerturbation {
    fn propose(&self, _: &dyn Model, _: ThreatModel, images: Tensor<4>, _: &[u32]) -> Result<Tensor<4>> {
        let ([_, given @ ..], [_, learnt @ ..]) = (images.dims(), self.perturbation.dims());
        if given != learnt {
            return Err(Error::input(
                "universal perturbation",
                format!("images of shape {given:?}"),
                format!("the shape that it was learnt for, {learnt:?}"),
            ));
        }
        Ok(images + self.perturbation.clone())
    }
}
