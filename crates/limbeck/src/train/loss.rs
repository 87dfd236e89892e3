//! Losses: each formula in one place, computed on logits.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

/// Mean over the batch of CE(p, softmax(z/T)) for target distributions p and logits z, both `[batch, classes]`.
///
/// With soft labels p = softmax(z_t/T) of a teacher this is defensive distillation (Papernot 2016, equation 2 and section IV);
/// with one-hot p at T = 1 it is plain cross-entropy.
pub fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>, temperature: f64) -> Tensor<1> {
    limbeck_kernels::soft_cross_entropy(logits, targets, temperature)
}

/// Mean over the batch of T² · KL(p ‖ softmax(z/T)) for target distributions p and logits z, both `[batch, classes]`.
///
/// With p = softmax(z_t/T) this is the soft part of knowledge distillation (Hinton 2015, section 2): T² keeps its gradient from shrinking with T.
/// The gradient goes to the logits alone.
pub fn scaled_divergence(logits: Tensor<2>, targets: Tensor<2>, temperature: f64) -> Tensor<1> {
    let least = entropy_of(targets.clone());
    (soft_cross_entropy(logits, targets, temperature) - least).mul_scalar(temperature * temperature)
}

/// log(1 + exp(z)) − y z for log-odds z and y in {0, 1}, `[batch]`: binary cross-entropy.
pub(crate) fn binary_cross_entropies(logits: Tensor<1>, truth: Tensor<1>) -> Tensor<1> {
    let softplus = relu(logits.clone()) + logits.clone().abs().neg().exp().log1p();
    softplus - logits * truth
}

/// Mean entropy of distributions `[batch, classes]` in nats: the least that [`soft_cross_entropy`] can be.
pub fn entropy_of(distributions: Tensor<2>) -> Tensor<1> {
    let [batch, _] = distributions.dims();
    let log = distributions.clone().clamp_min(f32::MIN_POSITIVE).log();
    (distributions * log).sum().div_scalar(-(batch as f64))
}
