//! Optimisers with the field's usual meaning of each setting, in Burn's framework.

use burn::optim::{
    AdamState, AdaptiveMomentumState, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{Device, Tensor};
use limbeck_kernels::{AdamStep, SgdStep};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which optimiser, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimiserConfig {
    /// Stochastic gradient descent with momentum and no dampening, as in PyTorch; the paper's.
    Sgd {
        /// Momentum factor.
        momentum: f64,
        /// L2 penalty added to the gradient.
        weight_decay: f64,
    },
    /// Adam (Kingma & Ba 2015) with betas 0.9 and 0.999.
    Adam {
        /// L2 penalty added to the gradient.
        weight_decay: f64,
    },
    /// AdamW (Loshchilov & Hutter 2019) with betas 0.9 and 0.999.
    AdamW {
        /// Decoupled weight decay.
        weight_decay: f64,
    },
}

impl OptimiserConfig {
    pub(crate) fn init(&self) -> ModuleOptimizer {
        match *self {
            Self::Sgd { momentum, weight_decay } => Sgd { momentum, weight_decay }.into(),
            Self::Adam { weight_decay } => Adam { weight_decay, decoupled_decay: 0.0 }.into(),
            Self::AdamW { weight_decay } => Adam { weight_decay: 0.0, decoupled_decay: weight_decay }.into(),
        }
    }

    pub(super) fn check(&self, key: &str) -> Result<()> {
        let (momentum, weight_decay) = match *self {
            Self::Sgd { momentum, weight_decay } => (momentum, weight_decay),
            Self::Adam { weight_decay } | Self::AdamW { weight_decay } => (0.0, weight_decay),
        };
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::config(format!("{key}.momentum"), momentum, "a factor in [0, 1)"));
        }
        if !(weight_decay.is_finite() && weight_decay >= 0.0) {
            return Err(Error::config(
                format!("{key}.weight_decay"),
                weight_decay,
                "a finite number, 0 or more",
            ));
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Sgd {
    momentum: f64,
    weight_decay: f64,
}

/// The running sum of gradients.
#[derive(Clone)]
struct Velocity<const D: usize>(Tensor<D>);

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, sink: &mut StateSink) {
        sink.push_tensor(prefix, "velocity", self.0.to_data());
    }

    fn state_unflatten(prefix: &str, source: &mut StateSource, device: &Device) -> Option<Self> {
        Some(Self(Tensor::from_data(source.take_tensor(prefix, "velocity")?, device)))
    }
}

impl Optimizer for Sgd {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Velocity<D>>,
    ) -> (Tensor<D>, Option<Velocity<D>>) {
        let step = SgdStep { rate, momentum: self.momentum, weight_decay: self.weight_decay };
        let (weights, velocity) = step.apply(weights, gradient, state.map(|state| state.0));
        (weights, Some(Velocity(velocity)))
    }

    fn to_device<const D: usize>(state: Velocity<D>, device: &Device) -> Velocity<D> {
        Velocity(state.0.to_device(device))
    }
}

#[derive(Clone)]
struct Adam {
    weight_decay: f64,
    decoupled_decay: f64,
}

impl Optimizer for Adam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        weights: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<AdamState<D>>,
    ) -> (Tensor<D>, Option<AdamState<D>>) {
        let state = state.map(|state| state.momentum);
        let time = 1 + state.as_ref().map_or(0, |state| state.time);
        let moments = state.map(|state| [state.moment_1, state.moment_2]);
        // Means, epsilon: the defaults of the paper and of PyTorch.
        let step = AdamStep {
            rate,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: self.weight_decay,
            decoupled_decay: self.decoupled_decay,
        };
        let (weights, [first, second]) = step.apply(weights, gradient, moments, time);
        (weights, Some(AdamState::new(AdaptiveMomentumState::new(time, first, second))))
    }

    fn to_device<const D: usize>(state: AdamState<D>, device: &Device) -> AdamState<D> {
        AdamState::new(state.momentum.to_device(device))
    }
}
