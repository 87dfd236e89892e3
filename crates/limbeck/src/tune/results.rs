//! What a search found, as its tables and its page show it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TuneConfig;
use super::objective::Direction;
use super::space::{Distribution, Scalar};
use super::study::Study;
use crate::artefact::write_atomically;
use crate::error::{Error, Result};
use crate::pipeline::RunConfig;

/// A search and its trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchResults {
    /// Version of this library.
    pub limbeck_version: String,
    /// Name of the image set.
    pub data: String,
    /// Name of the objective.
    pub objective: String,
    /// What it measures.
    pub measures: String,
    /// Which way is better.
    pub direction: Direction,
    /// Name of the sampler.
    pub sampler: String,
    /// Root of every random draw.
    pub seed: u64,
    /// Epochs of a trial that is not stopped, unless the space says otherwise.
    pub epochs: u64,
    /// What was searched.
    pub space: Vec<SearchedKey>,
    /// All trials, by number.
    pub trials: Vec<TrialRow>,
    /// Number of the best complete trial.
    pub best: Option<usize>,
    /// The base config with the best trial's values, as TOML.
    pub best_config: Option<String>,
}

/// A key and the values that were tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchedKey {
    /// Dotted path in the config.
    pub key: String,
    /// Its values.
    pub distribution: Distribution,
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRow {
    /// From 0.
    pub number: usize,
    /// `complete`, `pruned`, `failed`, or, by another program, `running` or `waiting`.
    pub state: String,
    /// The objective of the autoencoder that it ended with; that of a pruned trial is the one after its last epoch.
    pub value: Option<f64>,
    /// Epochs that it was trained for.
    pub epochs: u64,
    /// What it took by the clock in the call that finished it.
    pub seconds: Option<f64>,
    /// Its values, in the order of the space; none that another program left out.
    pub parameters: Vec<Option<Scalar>>,
    /// Epochs and the objective after them.
    pub curve: Vec<(u64, f64)>,
    /// Why it failed.
    pub error: Option<String>,
}

impl SearchResults {
    pub(super) fn of(data: &str, base: &RunConfig, search: &TuneConfig, study: &Study) -> Self {
        let row = search.objective.row();
        let best = study.best(row.direction);
        let space = search.space.parameters();
        let space: Vec<SearchedKey> = space
            .map(|(key, distribution)| SearchedKey {
                key: key.to_owned(),
                distribution: distribution.clone(),
            })
            .collect();
        let trials = study.trials.iter().enumerate().map(|(number, trial)| TrialRow {
            number,
            state: trial.state.name().to_owned(),
            value: trial.last_value(),
            epochs: trial.curve.keys().next_back().copied().unwrap_or(0),
            seconds: trial.attributes.get("seconds").and_then(serde_json::Value::as_f64),
            parameters: space
                .iter()
                .map(|searched| {
                    trial.parameters.get(&searched.key).and_then(|(value, drawn)| drawn.value(*value))
                })
                .collect(),
            curve: trial.curve.iter().map(|(epoch, value)| (*epoch, *value)).collect(),
            error: trial.attributes.get("error").and_then(|error| error.as_str().map(str::to_owned)),
        });
        let best_config = best.and_then(|number| {
            let values = study.trials[number]
                .parameters
                .iter()
                .map(|(key, (value, _))| (key.clone(), *value))
                .collect();
            // Another program's trial may lack a key; it cannot be made a config of.
            search.space.apply(base, &values).ok().map(|config| config.to_toml())
        });
        Self {
            limbeck_version: crate::VERSION.to_owned(),
            data: data.to_owned(),
            objective: row.name.to_owned(),
            measures: row.about.to_owned(),
            direction: row.direction,
            sampler: search.sampler.name().to_owned(),
            seed: base.seed,
            epochs: base.dae.train.epochs as u64,
            trials: trials.collect(),
            space,
            best,
            best_config,
        }
    }

    /// The best complete trial.
    pub fn best(&self) -> Option<&TrialRow> {
        self.best.and_then(|number| self.trials.get(number))
    }

    /// Trials that ended like this.
    pub fn count(&self, state: &str) -> usize {
        self.trials.iter().filter(|trial| trial.state == state).count()
    }

    /// Epochs that all trials were trained for together.
    pub fn epochs_trained(&self) -> u64 {
        self.trials.iter().map(|trial| trial.epochs).sum()
    }

    /// Writes `trials.csv`, `tune.html` and, where a trial is complete, `best.toml`, each atomically.
    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        self.write_csv(&directory.join("trials.csv"))?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(Error::io("write", &path)))
        };
        write("tune.html", &crate::report::render_search(self)?)?;
        let (Some(best), Some(config)) = (self.best(), &self.best_config) else { return Ok(()) };
        let value = best.value.unwrap_or(f64::NAN);
        let head = format!(
            "# Settings of trial {} of {}: {} {value:?}, the best of {} complete ones.\n",
            best.number,
            self.trials.len(),
            self.objective,
            self.count("complete")
        );
        write("best.toml", &(head + config))
    }

    /// A line a trial: number, state, value, epochs, seconds, then a column for each key.
    fn write_csv(&self, path: &Path) -> Result<()> {
        let failed = |error: csv::Error| Error::io("write", path)(error.into());
        let text = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:?}"));
        write_atomically(path, |file| {
            let mut table = csv::Writer::from_writer(file);
            let keys = self.space.iter().map(|searched| searched.key.as_str());
            let fixed = ["trial", "state", "value", "epochs", "seconds"];
            table.write_record(fixed.into_iter().chain(keys)).map_err(failed)?;
            for trial in &self.trials {
                let fixed = [
                    trial.number.to_string(),
                    trial.state.clone(),
                    text(trial.value),
                    trial.epochs.to_string(),
                    text(trial.seconds),
                ];
                let values = trial
                    .parameters
                    .iter()
                    .map(|value| value.as_ref().map_or(String::new(), Scalar::to_string));
                table.write_record(fixed.into_iter().chain(values)).map_err(failed)?;
            }
            table.flush().map_err(Error::io("write", path))
        })
    }
}
