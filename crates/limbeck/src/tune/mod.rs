//! Hyper-parameter search: many autoencoders are trained with other settings, and the best ones' settings are kept.
//!
//! A [`Space`] says which config keys are tried with which values, an [`ObjectiveKind`] what is measured, a [`SamplerKind`] what is tried next and
//! which trials are stopped early. All of it is measured on trusted images; test images and the truth about poison have no part in it.
//!
//! | file in the folder | what |
//! |---|---|
//! | `journal.log` | every trial, epoch by epoch, in the format of Optuna's `JournalStorage`; the study is called [`STUDY_NAME`] |
//! | `best.toml` | the config with the best trial's values: `limbeck run` with it trains that very autoencoder |
//! | `trials.csv`, `tune.html` | all trials as a table, and as figures |
//! | `common/` | what the trials share: classifier and adversarial twins, made once |
//!
//! # Going on
//! A search that was stopped goes on with the next call on the same folder: finished trials stand, the one that was interrupted goes on from its last
//! whole epoch. **Guaranteed** on one machine and device, for one version and the same settings: trials, values, epochs and figures are the same as those of a search that was never stopped,
//! and so are those of a search with more trials as far as the smaller one went. A proposal depends only on the seed, the trial's number, the key and the finished trials before it.
//! **Not guaranteed:** times; and a search into whose journal another program wrote, which goes on from what it finds there.
//!
//! ```no_run
//! use std::path::Path;
//! use limbeck::pipeline::{Preset, RunConfig};
//! use limbeck::progress::Silent;
//! use limbeck::tune::{Space, TuneConfig, tune};
//!
//! let base = RunConfig::preset(Preset::Sample);
//! let search = TuneConfig { space: Space::parse(&["dae.width=int:8..24".to_owned()])?, ..TuneConfig::default() };
//! let results = tune(Path::new("runs/search"), &base, &search, &limbeck::device("flex")?, &Silent)?;
//! println!("{:?}", results.best().map(|trial| (trial.value, &trial.parameters)));
//! # Ok::<(), limbeck::Error>(())
//! ```

mod journal;
mod objective;
pub mod results;
mod sampler;
mod search;
mod space;
mod study;

pub use journal::STUDY_NAME;
pub use objective::{Direction, Objective, ObjectiveKind, TABLE as OBJECTIVES};
pub use sampler::{SamplerKind, TABLE as SAMPLERS};
pub use search::tune;
pub use space::{Distribution, Scalar, Space};

use crate::error::{Error, Result};
use crate::pipeline::RunConfig;
use crate::purify::Knowledge;

/// What is searched, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneConfig {
    /// Keys and the values that are tried.
    pub space: Space,
    /// What is tried next, and what is stopped early.
    pub sampler: SamplerKind,
    /// What is measured.
    pub objective: ObjectiveKind,
    /// Trials in all, those of earlier calls included.
    pub trials: usize,
}

impl Default for TuneConfig {
    /// Twenty trials of the default space, by detection: the reconstruction error alone would choose an untrained detection head.
    fn default() -> Self {
        Self {
            space: Space::default(),
            sampler: SamplerKind::Tpe,
            objective: ObjectiveKind::Detection,
            trials: 20,
        }
    }
}

impl TuneConfig {
    /// Refuses what cannot be searched, before any work is done.
    ///
    /// # Errors
    /// [`Error::Config`] names the key.
    pub fn check(&self, base: &RunConfig) -> Result<()> {
        base.check()?;
        if self.trials == 0 {
            return Err(Error::config("trials", 0, "1 or more"));
        }
        if base.knowledge.setting != Knowledge::Trusted {
            let found = format!("{:?}", base.knowledge.setting).to_lowercase();
            let expected = "trusted: a search measures its trials on trusted images";
            return Err(Error::config("knowledge.setting", found, expected));
        }
        self.objective.check(base)?;
        for (key, _) in self.space.parameters() {
            self.objective.check_key(key)?;
            let deals_out = ["dae.train.epochs", "dae.least_steps"].contains(&key);
            if self.sampler == SamplerKind::Hyperband && deals_out {
                return Err(Error::config(
                    key,
                    "a key that hyperband deals out by itself",
                    "another sampler",
                ));
            }
        }
        self.space.check(base, |config| self.objective.check(config))
    }
}

#[cfg(test)]
mod tests;
