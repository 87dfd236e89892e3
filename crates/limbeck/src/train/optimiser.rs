//! Optimisers, from Burn, with the field's usual meaning of each setting.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
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
        let penalty =
            |weight_decay: f64| (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
        match *self {
            Self::Sgd { momentum, weight_decay } => SgdConfig::new()
                .with_momentum(
                    (momentum > 0.0)
                        .then(|| MomentumConfig::new().with_momentum(momentum).with_dampening(0.0)),
                )
                .with_weight_decay(penalty(weight_decay))
                .init(),
            Self::Adam { weight_decay } => {
                AdamConfig::new().with_epsilon(1e-8).with_weight_decay(penalty(weight_decay)).init()
            }
            Self::AdamW { weight_decay } => {
                AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(weight_decay as f32).init()
            }
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
