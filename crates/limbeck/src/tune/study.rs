//! A search as its journal tells it: trials, their values, and how they ended.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::objective::Direction;
use super::space::Distribution;

/// How far a trial is, by Optuna's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrialState {
    Running = 0,
    Complete = 1,
    Pruned = 2,
    Failed = 3,
    /// Asked for by another program, and not begun.
    Waiting = 4,
}

impl TrialState {
    pub(super) fn of(number: u64) -> Option<Self> {
        [Self::Running, Self::Complete, Self::Pruned, Self::Failed, Self::Waiting]
            .into_iter()
            .find(|state| *state as u64 == number)
    }

    pub(super) fn is_finished(self) -> bool {
        matches!(self, Self::Complete | Self::Pruned | Self::Failed)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Pruned => "pruned",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
        }
    }
}

/// One trial.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trial {
    /// Position in the file over all studies, by which records name it.
    pub(super) id: u64,
    /// Who began it.
    pub(super) worker: String,
    pub(super) state: TrialState,
    /// Values in their internal representation, with the distributions that they were drawn from.
    pub(super) parameters: BTreeMap<String, (f64, Distribution)>,
    /// The figure by the number of finished epochs.
    pub(super) curve: BTreeMap<u64, f64>,
    /// The figure of the finished autoencoder.
    pub(super) value: Option<f64>,
    /// Notes.
    pub(super) attributes: Map<String, Value>,
}

impl Trial {
    /// The figure that it ended with: that of a pruned trial is its last one.
    pub(super) fn last_value(&self) -> Option<f64> {
        match self.state {
            TrialState::Complete => self.value,
            TrialState::Pruned => self.curve.values().next_back().copied(),
            _ => None,
        }
    }
}

/// A search and its trials, by number.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Study {
    /// What the search was asked for.
    pub(super) attributes: Map<String, Value>,
    pub(super) trials: Vec<Trial>,
}

impl Study {
    /// Number of the complete trial with the best value, the first of equals.
    pub(super) fn best(&self, direction: Direction) -> Option<usize> {
        let values = self.trials.iter().enumerate().filter(|(_, trial)| trial.state == TrialState::Complete);
        values
            .filter_map(|(number, trial)| Some((number, trial.value?)))
            .reduce(|best, next| if direction.better(next.1, best.1) { next } else { best })
            .map(|(number, _)| number)
    }
}
