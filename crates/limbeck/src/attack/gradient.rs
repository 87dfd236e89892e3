//! What an attack learns from a model: its logits, and the gradient of a loss with respect to the images.

use burn::tensor::{Tensor, TensorData};

use super::loss::{cross_entropy, margin, unit};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::tensors::values;

/// The logits of a batch, on the host; finite, with every label among the classes.
pub(super) struct Logits {
    values: Vec<f32>,
    classes: usize,
}

impl Logits {
    /// The model's answers to `images`, whose labels are `labels`.
    pub(super) fn of(model: &dyn Model, images: Tensor<4>, labels: &[u32]) -> Result<Self> {
        Self::read(model.logits(images), labels)
    }

    fn read(logits: Tensor<2>, labels: &[u32]) -> Result<Self> {
        let [_, classes] = logits.dims();
        if classes < 2 {
            return Err(Error::input("attack", format!("a model of {classes} classes"), "two or more"));
        }
        if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
            return Err(Error::input(
                "attack",
                format!("label {label} for a model of {classes} classes"),
                format!("a label below {classes}"),
            ));
        }
        let values = values(logits)?;
        if values.iter().any(|logit| !logit.is_finite()) {
            let found = "logits that are not finite".to_owned();
            return Err(Error::Numeric { operation: "attack", found });
        }
        Ok(Self { values, classes })
    }

    /// Number of classes.
    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// Logits of one image.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.classes..][..self.classes]
    }

    /// The lead of each image's label over its strongest rival; negative where the model is fooled.
    pub(super) fn margins(&self, labels: &[u32]) -> Vec<f64> {
        labels.iter().enumerate().map(|(row, &label)| margin(self.row(row), label as usize).0).collect()
    }
}

/// Logits, losses and ∂ losses / ∂ images `[batch, 3, height, width]` at some images.
pub(super) struct Slope {
    pub(super) logits: Logits,
    pub(super) losses: Vec<f64>,
    pub(super) gradient: Tensor<4>,
}

/// One pass forward and back: `loss` gets an image's row, its logits and its label, fills in the gradient of its logits, and returns the loss.
///
/// Each image's gradient is its own, whatever the batch.
pub(super) fn slope(
    model: &dyn Model,
    images: Tensor<4>,
    labels: &[u32],
    mut loss: impl FnMut(usize, &[f32], usize, &mut [f64]) -> f64,
) -> Result<Slope> {
    let leaf = images.without_autodiff().autodiff().require_grad();
    let output = model.logits(leaf.clone());
    let logits = Logits::read(output.clone().without_autodiff(), labels)?;
    let mut losses = Vec::with_capacity(labels.len());
    let mut weights = Vec::with_capacity(logits.values.len());
    let mut slopes = vec![0.0; logits.classes];
    for (row, &label) in labels.iter().enumerate() {
        slopes.fill(0.0);
        losses.push(loss(row, logits.row(row), label as usize, &mut slopes));
        weights.extend(slopes.iter().map(|slope| *slope as f32));
    }
    let weights = TensorData::new(weights, [labels.len(), logits.classes]);
    let weights = Tensor::<2>::from_data(weights, &output.device());
    let mut gradients = (output * weights).sum().backward();
    let gradient = leaf.grad_remove(&mut gradients).ok_or(Error::Numeric {
        operation: "input gradient",
        found: "the model's logits do not depend on its images".to_owned(),
    })?;
    Ok(Slope { logits, losses, gradient })
}

/// ∂ cross-entropy / ∂ images, `[batch, 3, height, width]`, with the model in inference mode.
///
/// The cross-entropy is summed over the batch: each image's gradient is its own.
pub fn input_gradient(model: &dyn Model, images: Tensor<4>, labels: &[u32]) -> Result<Tensor<4>> {
    let loss = |_, logits: &[f32], label, slopes: &mut [f64]| cross_entropy(logits, label, slopes);
    Ok(slope(model, images, labels, loss)?.gradient)
}

/// ∂ (z_y − max over the others of z) / ∂ images, `[batch, 3, height, width]`: how much each pixel speaks for the label y.
pub fn margin_gradient(model: &dyn Model, images: Tensor<4>, labels: &[u32]) -> Result<Tensor<4>> {
    let lead = |_, logits: &[f32], label: usize, slopes: &mut [f64]| {
        let (lead, rival) = margin(logits, label);
        (slopes[label], slopes[rival]) = (1.0, -1.0);
        lead
    };
    Ok(slope(model, images, labels, lead)?.gradient)
}

/// A multiple of each image's [`input_gradient`], scaled so that 32 bits hold it where the softmax has saturated.
pub(super) fn ascent(model: &dyn Model, images: Tensor<4>, labels: &[u32]) -> Result<Tensor<4>> {
    let loss = |_, logits: &[f32], label, slopes: &mut [f64]| {
        let loss = cross_entropy(logits, label, slopes);
        unit(slopes);
        loss
    };
    Ok(slope(model, images, labels, loss)?.gradient)
}
