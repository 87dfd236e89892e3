//! The running mean of a network's weights over the steps of its training.
//!
//! w̄ ← d·w̄ + (1 − d)·w after each step. Averaged weights lie in flatter places than the last ones (Izmailov 2018, who take
//! plain means of epochs), which also delays robust overfitting (Chen 2021, "Robust overfitting may be mitigated by properly learned smoothening").
//! Statistics of batch norm are averaged like weights.

use std::collections::VecDeque;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The mean of a network's weights, as a network in inference mode.
pub(super) struct Average<M> {
    pub(super) network: M,
    decay: f64,
}

impl<M: Module> Average<M> {
    /// Starts at the network as it is.
    pub(super) fn new(network: &M, decay: f64) -> Self {
        Self { network: network.valid(), decay }
    }

    /// Takes in the weights after step `step` (from 0) of the training.
    ///
    /// The decay rises from 0.1 by (1 + step) / (10 + step): random first weights are soon forgotten.
    pub(super) fn update(self, network: &M, step: usize) -> Self {
        let early = (1.0 + step as f64) / (10.0 + step as f64);
        let mut weights = Flattened(VecDeque::new());
        // A copy with buffers of its own: in training the clones of a network share the statistics of batch norm.
        network.valid().visit(&mut weights);
        let mut blend = Blend { weights, keep: self.decay.min(early) };
        Self { network: self.network.map(&mut blend), ..self }
    }
}

/// Every float tensor of a network in the order of a visit.
struct Flattened(VecDeque<Tensor<1>>);

impl ModuleVisitor for Flattened {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push_back(param.val().flatten(0, D - 1));
    }
}

struct Blend {
    weights: Flattened,
    keep: f64,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weights = self.weights.0.pop_front().expect("two networks of one shape");
        param.map(|mean| {
            let weights = weights.reshape(mean.dims());
            mean.mul_scalar(self.keep) + weights.mul_scalar(1.0 - self.keep)
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::network::{Architecture, Classifier};
    use crate::rng::Seed;
    use crate::testing::tiny_spec;

    fn network(seed: u64) -> Classifier {
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        spec.init(&Device::flex().autodiff(), &mut Seed::new(seed).rng("weights")).expect("the spec fits")
    }

    fn weights(network: &Classifier) -> Vec<f32> {
        let mut weights = Flattened(VecDeque::new());
        network.visit(&mut weights);
        weights.0.into_iter().flat_map(|tensor| crate::tensors::values(tensor).expect("values")).collect()
    }

    #[test]
    fn the_mean_moves_by_its_decay_which_rises_and_leaves_the_network_alone() {
        let (first, second) = (network(1), network(2));
        let before = weights(&second);
        // (1 + 0) / (10 + 0) = 0.1 at the first step; later the decay itself.
        for (step, keep) in [(0, 0.1), (1000, 0.75)] {
            let mean = Average::new(&first, 0.75).update(&second, step);
            let parts = weights(&first).into_iter().zip(weights(&second)).zip(weights(&mean.network));
            for ((first, second), mean) in parts {
                let expected = keep * first + (1.0 - keep) * second;
                assert!((mean - expected).abs() < 1e-6, "{mean}, expected {expected} at step {step}");
            }
        }
        assert_eq!(before, weights(&second));
    }
}
