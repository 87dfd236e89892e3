//! A run: the stages of the method in order, the artefacts between them, and resuming.
//!
//! Each stage reads artefacts and writes artefacts, atomically. A stage whose inputs are unchanged is skipped, so a run that was
//! killed anywhere goes on where it stopped and ends with the same bytes.
//!
//! ```no_run
//! use std::path::Path;
//! use limbeck::pipeline::{Goal, Preset, Run, RunConfig};
//! use limbeck::progress::Silent;
//!
//! let config = RunConfig::resolve(Preset::Sample, None, &["seed=3".to_owned()])?;
//! let mut run = Run::open(Path::new("runs/first"), config, &limbeck::device("flex")?, &Silent)?;
//! let results = run.execute(Goal::Report)?.evaluation.expect("the goal asks for it");
//! assert!(Path::new("runs/first/report.html").exists());
//! # let _ = results;
//! # Ok::<(), limbeck::Error>(())
//! ```

mod as_is;
mod audit;
mod budget;
mod commands;
mod config;
mod controls;
mod copies;
mod distil;
mod evaluation;
mod findings;
mod ground;
mod knowledge;
mod manifest;
mod overrule;
mod presets;
mod run;
mod sets;
mod stages;

pub use as_is::is_as_is;
pub use budget::Budget;
pub use commands::{
    MeasuredOn, ModelEvaluation, PoisonedCopy, Prediction, Student, evaluate_model, poison_copy, train_model,
};
pub use config::{
    ClassifierSection, DaeSection, DataConfig, EvaluateConfig, NetworkConfig, PoisonSection, RunConfig,
};
pub(crate) use config::{overlaid, parse_value};
pub(crate) use ground::{Ground, Images};
pub use manifest::{Kind, Manifest, StageRecord};
pub use overrule::ByHand;
pub use presets::Preset;
pub use run::{Goal, Outcome, Run};
pub use sets::Sets;
