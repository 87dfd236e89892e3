//! Optimiser steps in one pass over memory: Burn's own makes a dozen, each with a tensor of its own.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::block::on_cpu;
use crate::cpu::{Adaptive, Buffer, Disjoint, Isa, Momentum, adaptive_step, momentum_step};
use crate::extension::{buffer, floats};

/// Weights below this many stay on one thread.
const PART: usize = 1 << 14;

/// A step of SGD with momentum and no dampening: v ← μv + g, w ← w − ηv (Sutskever 2013, as PyTorch has it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate η.
    pub rate: f64,
    /// Momentum factor μ.
    pub momentum: f64,
    /// L2 penalty λ: g + λw takes the place of g.
    pub weight_decay: f64,
}

impl SgdStep {
    /// New weights and velocity.
    pub fn apply<const D: usize>(
        self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Tensor<D>) {
        let [rate, momentum, decay] = [self.rate, self.momentum, self.weight_decay].map(|value| value as f32);
        let velocity = velocity.unwrap_or_else(|| weights.zeros_like());
        if !on_cpu(&weights) {
            let gradient = gradient + weights.clone().mul_scalar(decay);
            let velocity = velocity.mul_scalar(momentum) + gradient;
            return (weights - velocity.clone().mul_scalar(rate), velocity);
        }
        let (weights, [velocity]) =
            in_one_pass(weights, gradient, [velocity], |weights, gradient, [velocity], moved, [faster]| {
                let factors = Momentum { rate, momentum, decay };
                momentum_step(Isa::best(), factors, weights, gradient, velocity, moved, faster);
            });
        (weights, velocity)
    }
}

/// A step of Adam (Kingma & Ba 2015, algorithm 1), or of AdamW (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate η.
    pub rate: f64,
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of their squares.
    pub beta_2: f64,
    /// Added to the root of the second mean.
    pub epsilon: f64,
    /// L2 penalty λ: g + λw takes the place of g.
    pub weight_decay: f64,
    /// Decoupled decay: the weights shrink by ηλ beside the step.
    pub decoupled_decay: f64,
}

impl AdamStep {
    /// New weights and moments after step number `time`, 1 for the first.
    pub fn apply<const D: usize>(
        self,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<[Tensor<D>; 2]>,
        time: usize,
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        let time = time as f64;
        let corrected = (1.0 - self.beta_2.powf(time)).sqrt();
        let rate = (self.rate * corrected / (1.0 - self.beta_1.powf(time))) as f32;
        let epsilon = (self.epsilon * corrected) as f32;
        let [beta_1, beta_2, decay] = [self.beta_1, self.beta_2, self.weight_decay].map(|value| value as f32);
        let shrink = (1.0 - self.rate * self.decoupled_decay) as f32;
        let moments = moments.unwrap_or_else(|| [weights.zeros_like(), weights.zeros_like()]);
        if !on_cpu(&weights) {
            let gradient = gradient + weights.clone().mul_scalar(decay);
            let [first, second] = moments;
            let first = first.mul_scalar(beta_1) + gradient.clone().mul_scalar(1.0 - beta_1);
            let second = second.mul_scalar(beta_2) + gradient.square().mul_scalar(1.0 - beta_2);
            let step = first.clone().mul_scalar(rate) / second.clone().sqrt().add_scalar(epsilon);
            return (weights.mul_scalar(shrink) - step, [first, second]);
        }
        let factors = Adaptive { rate, beta_1, beta_2, epsilon, decay, shrink };
        in_one_pass(weights, gradient, moments, |weights, gradient, moments, moved, new| {
            adaptive_step(Isa::best(), factors, weights, gradient, moments, moved, new);
        })
    }
}

/// New weights and state on the CPU; `step(weights, gradient, state, new weights, new state)` for each part.
fn in_one_pass<const D: usize, const S: usize>(
    weights: Tensor<D>,
    gradient: Tensor<D>,
    state: [Tensor<D>; S],
    step: impl Fn(&[f32], &[f32], [&[f32]; S], &mut [f32], [&mut [f32]; S]) + Sync,
) -> (Tensor<D>, [Tensor<D>; S]) {
    let shape = weights.dims();
    let [weights, gradient] = [weights, gradient].map(primitive);
    let state = state.map(primitive);
    let (weights, gradient, state) = (floats(&weights), floats(&gradient), state.each_ref().map(floats));
    let mut new_weights = Buffer::new(weights.len());
    let mut new_state: [Buffer; S] = std::array::from_fn(|_| Buffer::new(weights.len()));
    let weight_parts = Disjoint::new(&mut new_weights);
    let state_parts = new_state.each_mut().map(|buffer| Disjoint::new(buffer));
    (0..weights.len().div_ceil(PART)).into_par_iter().for_each(|part| {
        let range = part * PART..((part + 1) * PART).min(weights.len());
        // SAFETY: ranges begin at multiples of `PART` and are no longer than that.
        let target = unsafe { weight_parts.range(range.start, range.len()) };
        let targets = state_parts.each_ref().map(|parts| unsafe { parts.range(range.start, range.len()) });
        let state = state.map(|values| &values[range.clone()]);
        step(&weights[range.clone()], &gradient[range.clone()], state, target, targets);
    });
    let tensor = |values: Buffer| Tensor::from_primitive::<Flex>(buffer(values, shape.to_vec()));
    (tensor(new_weights), new_state.map(tensor))
}

fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("a tensor on the CPU without autodiff").to_contiguous()
}

#[cfg(test)]
mod tests {
    use burn::optim::momentum::MomentumConfig;
    use burn::optim::{AdamConfig, AdamWConfig, Optimizer, SgdConfig, decay::WeightDecayConfig};
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    /// Weights after five steps by Burn's optimiser and by ours.
    fn both<O: Optimizer>(theirs: O, mut ours: impl FnMut(Tensor<2>, Tensor<2>) -> Tensor<2>) {
        let device = Device::flex();
        let random = || Tensor::<2>::random([300, 70], Distribution::Uniform(-1.0, 1.0), &device);
        let start = random();
        let (mut expected, mut found, mut state) = (start.clone(), start, None);
        for _ in 0..5 {
            let gradient = random();
            (expected, state) = theirs.step(0.01, expected, gradient.clone(), state);
            found = ours(found, gradient);
        }
        found.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn sgd_is_burns_without_dampening() {
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let theirs = SgdConfig::new()
            .with_momentum(Some(momentum))
            .with_weight_decay(Some(WeightDecayConfig::new(0.1)));
        let mut velocity = None;
        both(theirs.build(), |weights, gradient| {
            let step = SgdStep { rate: 0.01, momentum: 0.9, weight_decay: 0.1 };
            let (weights, new) = step.apply(weights, gradient, velocity.take());
            velocity = Some(new);
            weights
        });
    }

    /// Five steps of Adam with these decays.
    fn adam(weight_decay: f64, decoupled_decay: f64) -> impl FnMut(Tensor<2>, Tensor<2>) -> Tensor<2> {
        let (mut moments, mut time) = (None, 0);
        move |weights, gradient| {
            let step = AdamStep {
                rate: 0.01,
                beta_1: 0.9,
                beta_2: 0.999,
                epsilon: 1e-8,
                weight_decay,
                decoupled_decay,
            };
            time += 1;
            let (weights, new) = step.apply(weights, gradient, moments.take(), time);
            moments = Some(new);
            weights
        }
    }

    #[test]
    fn adam_is_burns() {
        let theirs = AdamConfig::new().with_epsilon(1e-8);
        both(theirs.clone().build(), adam(0.0, 0.0));
        both(theirs.with_weight_decay(Some(WeightDecayConfig::new(0.1))).build(), adam(0.1, 0.0));
    }

    #[test]
    fn adamw_is_burns() {
        both(AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.1).build(), adam(0.0, 0.1));
    }
}
