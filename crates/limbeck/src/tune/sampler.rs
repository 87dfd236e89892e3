//! Which values are tried next, and which trials are not worth finishing: the algorithms of the crate `optimizer`.
//!
//! They are asked as pure functions. What a trial is proposed depends on the search's seed, the number of the trial, the key, and the finished trials
//! with smaller numbers, and on nothing else, so a search that goes on from its journal proposes what it would have proposed anyway.
//!
//! Three things that the crate leaves to its caller are done here. Its tree-structured Parzen estimator always takes smaller values for better ones, so
//! values to be maximised are negated. And it recognises a parameter by its distribution, so that two keys with equal ranges would be one to it;
//! each key is therefore shown its own history only, which changes nothing else, because the estimator treats keys independently anyway. And its
//! kernels get a width that suits short searches.

use std::collections::{BTreeMap, HashMap};

use optimizer::distribution::{
    CategoricalDistribution, Distribution as Drawn, FloatDistribution, IntDistribution,
};
use optimizer::parameter::{ParamId, ParamValue};
use optimizer::pruner::{HyperbandPruner, MedianPruner, Pruner};
use optimizer::sampler::{CompletedTrial, RandomSampler, Sampler as _, TpeSampler};
use optimizer::{Direction as Towards, TrialState as Ended};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::objective::Direction;
use super::space::Distribution;
use super::study::{Trial, TrialState};
use crate::rng::Seed;

/// Trials that are drawn at random before the Parzen estimator has something to go by (Optuna: 10; searches of autoencoders are shorter).
const STARTUP: usize = 6;

/// Standard deviation of the Parzen estimator's kernels as a share of the range (of its logarithm on a logarithmic scale).
///
/// By itself the crate takes Scott's rule on the good trials. Of the two or three that a short search has, that made a spike: measured, six proposals in a
/// row within 4 % of each other.
const BANDWIDTH: f64 = 0.1;

/// Complete trials that there must be before others are held against their median.
const LEAST_FOR_MEDIAN: usize = 4;

/// One in this many trials goes on at each rung of Hyperband (Li 2018: 3 or 4).
const REDUCTION: u64 = 3;

/// How a search goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerKind {
    /// Values drawn at random; a trial worse than the median is stopped.
    Random,
    /// Tree-structured Parzen estimator (Bergstra 2011), each key on its own; a trial worse than the median is stopped.
    Tpe,
    /// Values drawn at random; brackets of successive halving (Hyperband, Li 2018), in the asynchronous form, in which a trial is stopped as soon as
    /// it is not among the best third of its bracket that came as far. The resource is epochs.
    Hyperband,
}

/// All samplers: name on the command line, and what it does.
pub const TABLE: &[(SamplerKind, &str, &str)] = &[
    (SamplerKind::Random, "random", "random values; a trial worse than the median so far is stopped"),
    (
        SamplerKind::Tpe,
        "tpe",
        "tree-structured Parzen estimator; a trial worse than the median so far is stopped",
    ),
    (
        SamplerKind::Hyperband,
        "hyperband",
        "random values, most of them for a few epochs only; the best third goes on",
    ),
];

impl SamplerKind {
    /// The sampler of this name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.0 == self).expect("every kind is in the table").1
    }

    /// A value of `key`, in its internal representation, for the trial after `past`.
    pub(super) fn propose(
        self,
        seed: Seed,
        past: &[&Trial],
        key: &str,
        distribution: &Distribution,
        direction: Direction,
    ) -> f64 {
        let number = past.len() as u64;
        let seed = seed.step(past.len()).rng(key).next_u64();
        let drawn = drawn(distribution);
        let value = match self {
            Self::Random | Self::Hyperband => RandomSampler::with_seed(seed).sample(&drawn, number, &[]),
            Self::Tpe => {
                let id = ParamId::new();
                let history: Vec<_> =
                    past.iter().filter_map(|trial| seen(trial, id, key, distribution, direction)).collect();
                let mut sampler = TpeSampler::builder().n_startup_trials(STARTUP).seed(seed);
                if let Some(range) = range(distribution) {
                    sampler = sampler.kde_bandwidth(BANDWIDTH * range);
                }
                let sampler = sampler.build().expect("a range is not empty, so its bandwidth is above 0");
                sampler.sample(&drawn, number, &history)
            }
        };
        match value {
            // Rounding in a logarithm may leave the range by one unit in the last place.
            ParamValue::Float(value) => match distribution {
                Distribution::Float { low, high, .. } => value.clamp(*low, *high),
                _ => value,
            },
            ParamValue::Int(value) => value as f64,
            ParamValue::Categorical(position) => position as f64,
        }
    }

    /// Whether the trial after `past`, with this curve so far and `epochs` to go through in all, is stopped.
    pub(super) fn stops(
        self,
        past: &[&Trial],
        curve: &BTreeMap<u64, f64>,
        epochs: u64,
        direction: Direction,
    ) -> bool {
        let number = past.len() as u64;
        let Some(&done) = curve.keys().next_back() else { return false };
        if done >= epochs {
            return false;
        }
        let towards = match direction {
            Direction::Minimize => Towards::Minimize,
            Direction::Maximize => Towards::Maximize,
        };
        let values: Vec<(u64, f64)> = curve.iter().map(|(step, value)| (*step, *value)).collect();
        let completed: Vec<_> =
            (0_u64..).zip(past).filter_map(|(number, trial)| finished(number, trial)).collect();
        match self {
            Self::Random | Self::Tpe => MedianPruner::new(towards)
                // The warm-up of a one-cycle schedule, a fifth of the epochs, says little.
                .n_warmup_steps(epochs.div_ceil(5) + 1)
                .n_min_trials(LEAST_FOR_MEDIAN)
                .should_prune(number, done, &values, &completed),
            Self::Hyperband => {
                let pruner = HyperbandPruner::new()
                    .max_resource(epochs)
                    .reduction_factor(REDUCTION)
                    .direction(towards);
                // It deals trials out to its brackets in the order in which it first hears of them.
                for earlier in 0..=number {
                    pruner.should_prune(earlier, 0, &[], &[]);
                }
                pruner.should_prune(number, done, &values, &completed)
            }
        }
    }
}

/// Length of the range on its scale; none of a choice.
fn range(distribution: &Distribution) -> Option<f64> {
    let (low, high, log) = match distribution {
        Distribution::Float { low, high, log, .. } => (*low, *high, *log),
        Distribution::Int { low, high, log, .. } => (*low as f64, *high as f64, *log),
        Distribution::Choice { .. } => return None,
    };
    Some(if log { (high / low).ln() } else { high - low })
}

fn drawn(distribution: &Distribution) -> Drawn {
    match distribution {
        Distribution::Float { step, low, high, log } => {
            Drawn::Float(FloatDistribution { low: *low, high: *high, log_scale: *log, step: *step })
        }
        Distribution::Int { log, step, low, high } => {
            let step = (*step != 1).then_some(*step);
            Drawn::Int(IntDistribution { low: *low, high: *high, log_scale: *log, step })
        }
        Distribution::Choice { choices } => {
            Drawn::Categorical(CategoricalDistribution { n_choices: choices.len() })
        }
    }
}

/// A past trial as the estimator is shown it: one key, and its last figure, turned so that less is better.
fn seen(
    trial: &Trial,
    id: ParamId,
    key: &str,
    distribution: &Distribution,
    direction: Direction,
) -> Option<CompletedTrial> {
    let (internal, _) = trial.parameters.get(key)?;
    // Another program may have tried values outside of the space.
    distribution.value(*internal)?;
    let value = match distribution {
        Distribution::Float { .. } => ParamValue::Float(*internal),
        Distribution::Int { .. } => ParamValue::Int(*internal as i64),
        Distribution::Choice { .. } => ParamValue::Categorical(*internal as usize),
    };
    let figure = match direction {
        Direction::Minimize => trial.last_value()?,
        Direction::Maximize => -trial.last_value()?,
    };
    let (values, distributions) = (HashMap::from([(id, value)]), HashMap::from([(id, drawn(distribution))]));
    Some(CompletedTrial::new(trial.id, values, distributions, HashMap::new(), figure))
}

/// A past trial as a pruner is shown it: its curve, and how it ended.
fn finished(number: u64, trial: &Trial) -> Option<CompletedTrial> {
    let curve = trial.curve.iter().map(|(step, value)| (*step, *value)).collect();
    let mut shown = CompletedTrial::new(number, HashMap::new(), HashMap::new(), HashMap::new(), 0.0);
    shown.intermediate_values = curve;
    shown.state = match trial.state {
        TrialState::Complete => Ended::Complete,
        TrialState::Pruned => Ended::Pruned,
        _ => return None,
    };
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SamplerKind; 3] = [SamplerKind::Random, SamplerKind::Tpe, SamplerKind::Hyperband];

    fn trial(state: TrialState, parameters: &[(&str, f64, &Distribution)], curve: &[f64]) -> Trial {
        Trial {
            id: 0,
            worker: String::new(),
            state,
            parameters: parameters
                .iter()
                .map(|(key, value, d)| ((*key).to_owned(), (*value, (*d).clone())))
                .collect(),
            curve: (1..).zip(curve.iter().copied()).collect(),
            value: curve.last().copied().filter(|_| state == TrialState::Complete),
            attributes: serde_json::Map::new(),
        }
    }

    fn distributions() -> Vec<Distribution> {
        ["log:1e-4..1e-2", "float:-1..1", "int:8..24/4", "int:8..24", "log-int:1..64", "choice:a,b,c"]
            .map(|text| Distribution::parse("key", text).expect(text))
            .to_vec()
    }

    /// Searches for the largest value of `key`, and returns what was tried.
    fn search(kind: SamplerKind, seed: u64, distribution: &Distribution, trials: usize) -> Vec<f64> {
        let mut past: Vec<Trial> = Vec::new();
        for _ in 0..trials {
            let history: Vec<&Trial> = past.iter().collect();
            let value = kind.propose(Seed::new(seed), &history, "key", distribution, Direction::Maximize);
            past.push(trial(TrialState::Complete, &[("key", value, distribution)], &[value]));
        }
        past.iter().map(|trial| trial.value.expect("complete")).collect()
    }

    #[test]
    fn every_proposal_is_a_value_of_the_distribution_and_repeats() {
        for kind in ALL {
            for distribution in distributions() {
                let tried = search(kind, 7, &distribution, 40);
                assert!(
                    tried.iter().all(|value| distribution.value(*value).is_some()),
                    "{kind:?} {distribution} {tried:?}"
                );
                assert_eq!(tried, search(kind, 7, &distribution, 40), "{kind:?} {distribution}");
                assert_ne!(tried, search(kind, 8, &distribution, 40), "{kind:?} {distribution}");
                if let Distribution::Int { low, step, .. } = distribution {
                    assert!(tried.iter().all(|value| (*value as i64 - low) % step == 0), "{tried:?}");
                }
            }
        }
    }

    #[test]
    fn the_estimator_learns_which_way_is_better_and_random_search_does_not() {
        let distribution = Distribution::parse("key", "float:0..1").expect("a range");
        let mean_of_last = |kind| {
            let tried = search(kind, 3, &distribution, 60);
            tried[30..].iter().sum::<f64>() / 30.0
        };
        // Thirty uniform draws have a mean of 0.5 ± 0.053.
        assert!((mean_of_last(SamplerKind::Random) - 0.5).abs() < 0.16);
        assert!(mean_of_last(SamplerKind::Tpe) > 0.75, "{}", mean_of_last(SamplerKind::Tpe));
    }

    #[test]
    fn the_estimator_goes_on_exploring_around_few_good_trials() {
        let distribution = Distribution::parse("key", "log:1e-4..1e-2").expect("a range");
        let good = [4.4e-4, 4.5e-4];
        let bad = [2e-4, 1e-3, 3e-3, 8e-3, 1e-4, 9e-3];
        let past: Vec<Trial> = (good.iter().map(|value| (value, 0.9)))
            .chain(bad.iter().map(|value| (value, 0.5)))
            .map(|(value, figure)| trial(TrialState::Complete, &[("key", *value, &distribution)], &[figure]))
            .collect();
        let past: Vec<&Trial> = past.iter().collect();
        let tried: Vec<f64> = (0..20)
            .map(|seed| {
                SamplerKind::Tpe.propose(Seed::new(seed), &past, "key", &distribution, Direction::Maximize)
            })
            .collect();
        let (least, most) =
            tried.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(*x), high.max(*x)));
        // With the standard deviation of Scott's rule on these two good ones, 1 %, four of them either way are a ratio of 1.08.
        assert!(most / least > 1.1, "{tried:?}");
        assert!(tried.iter().all(|value| (2e-4..1.2e-3).contains(value)), "{tried:?}");
    }

    #[test]
    fn two_keys_with_one_range_are_two_keys() {
        let distribution = Distribution::parse("key", "float:0..1").expect("a range");
        // Good values of `one` lie near 1, those of `two` near 0.
        let past: Vec<Trial> = (0..40)
            .map(|index| {
                let value = f64::from(index) / 40.0;
                trial(
                    TrialState::Complete,
                    &[("one", value, &distribution), ("two", 1.0 - value, &distribution)],
                    &[value],
                )
            })
            .collect();
        let past: Vec<&Trial> = past.iter().collect();
        let [one, two] = ["one", "two"].map(|key| {
            SamplerKind::Tpe.propose(Seed::new(1), &past, key, &distribution, Direction::Maximize)
        });
        assert!(one > 0.6 && two < 0.4, "{one} {two}");
    }

    #[test]
    fn a_trial_worse_than_the_median_is_stopped_after_the_warm_up() {
        let past: Vec<Trial> =
            (0..4).map(|index| trial(TrialState::Complete, &[], &[f64::from(index); 10])).collect();
        let past: Vec<&Trial> = past.iter().collect();
        // The median of 0, 1, 2, 3 is 1.5; a fifth of ten epochs are two.
        let curve =
            |value: f64, epochs: u64| (1..=epochs).map(|epoch| (epoch, value)).collect::<BTreeMap<_, _>>();
        let stops =
            |value, epochs, direction| SamplerKind::Random.stops(&past, &curve(value, epochs), 10, direction);
        assert!(stops(1.6, 3, Direction::Minimize) && !stops(1.4, 3, Direction::Minimize));
        assert!(!stops(1.6, 3, Direction::Maximize) && stops(1.4, 3, Direction::Maximize));
        assert!(!stops(1.6, 2, Direction::Minimize), "the warm-up is not judged");
        assert!(!stops(1.6, 10, Direction::Minimize), "a finished trial is not stopped");
        assert!(
            !SamplerKind::Random.stops(&past[..3], &curve(9.0, 5), 10, Direction::Minimize),
            "three make no median"
        );
    }

    #[test]
    fn hyperband_stops_all_but_the_best_third_of_a_bracket_at_its_rung() {
        // Nine epochs and a factor of three make three brackets, with first rungs after 1, 3 and 9 epochs; trials take them in turn.
        let past: Vec<Trial> =
            (0..9).map(|index| trial(TrialState::Pruned, &[], &[f64::from(index / 3)])).collect();
        let past: Vec<&Trial> = past.iter().collect();
        let stops = |past: &[&Trial], value: f64| {
            SamplerKind::Hyperband.stops(past, &BTreeMap::from([(1, value)]), 9, Direction::Minimize)
        };
        // Trial 9 is in the first bracket with trials 0, 3 and 6, which stood at 0, 1 and 2: of four, two are kept.
        assert!(stops(&past, 1.5) && !stops(&past, 0.5));
        // Of an earlier bracket there are not enough yet.
        assert!(!stops(&past[..6], 9.0));
        let ahead: Vec<&Trial> = past.iter().copied().chain([past[0]]).collect();
        assert!(!stops(&ahead, 9.0), "trial 10 is in the second bracket, whose first rung is at 3 epochs");
    }
}
