//! Learning-rate schedules as pure functions of the step.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate moves over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate throughout.
    Constant,
    /// Cosine rise from 1/25 of the peak over the first `warmup` share, then cosine fall to 1/10,000 of the start
    /// (Smith & Topin 2018, with PyTorch's divisors).
    OneCycle {
        /// Share of the steps that the rate rises.
        warmup: f64,
    },
    /// Multiplied by `gamma` after each `every` share of the steps.
    Step {
        /// Share of the steps between two drops.
        every: f64,
        /// Factor of each drop.
        gamma: f64,
    },
}

impl Schedule {
    /// Rate at `step` (from 0) of `steps`.
    pub fn rate(self, peak: f64, step: usize, steps: usize) -> f64 {
        let place = step as f64 / steps.max(1) as f64;
        match self {
            Self::Constant => peak,
            Self::OneCycle { warmup } => {
                let start = peak / 25.0;
                let cosine =
                    |from: f64, to: f64, share: f64| to + (from - to) * (1.0 + (PI * share).cos()) / 2.0;
                if place < warmup {
                    cosine(start, peak, place / warmup)
                } else {
                    cosine(peak, start / 1e4, (place - warmup) / (1.0 - warmup))
                }
            }
            Self::Step { every, gamma } => peak * gamma.powf((place / every).floor()),
        }
    }

    pub(super) fn check(self, key: &str) -> Result<()> {
        let share = |name: &str, value: f64| match value > 0.0 && value < 1.0 {
            true => Ok(()),
            false => Err(Error::config(format!("{key}.{name}"), value, "a share in (0, 1)")),
        };
        match self {
            Self::Constant => Ok(()),
            Self::OneCycle { warmup } => share("warmup", warmup),
            Self::Step { every, gamma } => share("every", every).and_then(|()| share("gamma", gamma)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_rises_to_its_peak_and_ends_near_zero() {
        let schedule = Schedule::OneCycle { warmup: 0.25 };
        let rates: Vec<f64> = (0..100).map(|step| schedule.rate(0.1, step, 100)).collect();
        assert!((rates[0] - 0.004).abs() < 1e-12, "starts at peak / 25, found {}", rates[0]);
        assert!((rates[25] - 0.1).abs() < 1e-12, "peaks after the warm-up, found {}", rates[25]);
        assert!(rates[99] < 1e-4, "ends near zero, found {}", rates[99]);
        assert!(rates[..25].is_sorted() && rates[25..].iter().rev().is_sorted());
    }

    #[test]
    fn step_drops_by_gamma_at_each_share() {
        let schedule = Schedule::Step { every: 0.5, gamma: 0.1 };
        assert_eq!(schedule.rate(1.0, 49, 100), 1.0);
        assert!((schedule.rate(1.0, 50, 100) - 0.1).abs() < 1e-12);
    }
}
