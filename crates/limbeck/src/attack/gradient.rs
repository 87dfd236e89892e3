//! The loss of an evasion attack and its gradient with respect to the images.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

use crate::error::{Error, Result};
use crate::network::Model;

/// Cross-entropy of logits `[batch, classes]` against classes `[batch]`, summed over the batch.
///
/// The sum, not the mean: each image's gradient is then its own, whatever the batch.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    log_softmax(logits, 1).gather(1, labels.reshape([batch, 1])).sum().neg()
}

/// ∂ cross-entropy / ∂ images, `[batch, 3, height, width]`, with the model in inference mode.
pub fn input_gradient(model: &dyn Model, images: Tensor<4>, labels: Tensor<1, Int>) -> Result<Tensor<4>> {
    let leaf = images.without_autodiff().autodiff().require_grad();
    let loss = cross_entropy(model.logits(leaf.clone()), labels);
    let mut gradients = loss.backward();
    leaf.grad_remove(&mut gradients).ok_or(Error::Numeric {
        operation: "input gradient",
        found: "the model's logits do not depend on its images".to_owned(),
    })
}
