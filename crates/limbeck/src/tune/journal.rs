//! The journal of a search: JSON lines in the format of Optuna's `JournalStorage` over a `JournalFileBackend`.
//!
//! Each line is one operation; replaying them gives the study. Optuna reads the file at any time; it should write to it only while no search is
//! at work, because the two do not look at each other's locks. Studies of other names in the file are left alone.
//!
//! A last line without its end is an interrupted write: it is cut off. Any other damage is an error that names the line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::objective::Direction;
use super::space::Distribution;
use super::study::{Study, Trial, TrialState};
use crate::artefact;
use crate::error::{Error, Result};

/// Name of the study, for `optuna.load_study(study_name=...)`.
pub const STUDY_NAME: &str = "limbeck";

/// Name that this program signs records with.
pub(super) const WORKER: &str = "limbeck";

/// Optuna's numbers of operations.
mod operation {
    pub(super) const CREATE_STUDY: u64 = 0;
    pub(super) const DELETE_STUDY: u64 = 1;
    pub(super) const SET_STUDY_USER_ATTRIBUTE: u64 = 2;
    pub(super) const SET_STUDY_SYSTEM_ATTRIBUTE: u64 = 3;
    pub(super) const CREATE_TRIAL: u64 = 4;
    pub(super) const SET_PARAMETER: u64 = 5;
    pub(super) const SET_STATE: u64 = 6;
    pub(super) const SET_INTERMEDIATE: u64 = 7;
    pub(super) const SET_USER_ATTRIBUTE: u64 = 8;
    pub(super) const SET_SYSTEM_ATTRIBUTE: u64 = 9;
    pub(super) const DISCARD_TRIALS: u64 = 10;
}

/// A line; which fields there must be is a matter of its operation.
#[derive(Deserialize)]
struct Record {
    op_code: u64,
    #[serde(default)]
    worker_id: String,
    study_id: Option<u64>,
    trial_id: Option<u64>,
    study_name: Option<String>,
    directions: Option<Vec<u64>>,
    user_attr: Option<Map<String, Value>>,
    user_attrs: Option<Map<String, Value>>,
    param_name: Option<String>,
    param_value_internal: Option<f64>,
    distribution: Option<String>,
    params: Option<BTreeMap<String, f64>>,
    distributions: Option<BTreeMap<String, String>>,
    state: Option<u64>,
    value: Option<f64>,
    values: Option<Vec<f64>>,
    step: Option<u64>,
    intermediate_value: Option<f64>,
    intermediate_values: Option<BTreeMap<u64, f64>>,
}

/// A fault of a line: what was found, and what was expected.
type Fault = (String, &'static str);

fn missing(field: &'static str) -> Fault {
    (format!("no usable `{field}`"), "the fields of the operation")
}

fn distribution(json: &str) -> std::result::Result<Distribution, Fault> {
    serde_json::from_str(json).map_err(|error| (format!("{json} ({error})"), "a distribution of Optuna"))
}

/// A study with its name, and Optuna's numbers of the directions of its values.
struct Named {
    name: String,
    directions: Vec<u64>,
    study: Study,
}

/// The file as far as it was read.
#[derive(Default)]
struct Replay {
    /// By id; a study that was deleted is none.
    studies: Vec<Option<Named>>,
    /// By trial id: the study, and the number there.
    trials: Vec<(usize, usize)>,
}

impl Replay {
    fn apply(&mut self, record: Record) -> std::result::Result<(), Fault> {
        match record.op_code {
            operation::CREATE_STUDY => {
                let name = record.study_name.ok_or_else(|| missing("study_name"))?;
                // As Optuna does: of two that create a study of one name, the first wins.
                if self.studies.iter().flatten().all(|other| other.name != name) {
                    let directions = record.directions.ok_or_else(|| missing("directions"))?;
                    self.studies.push(Some(Named { name, directions, study: Study::default() }));
                }
            }
            operation::DELETE_STUDY => {
                let id = record.study_id.ok_or_else(|| missing("study_id"))?;
                *self.slot(id)? = None;
            }
            operation::SET_STUDY_USER_ATTRIBUTE => {
                let id = record.study_id.ok_or_else(|| missing("study_id"))?;
                if let Some(named) = self.slot(id)? {
                    named.study.attributes.extend(record.user_attr.ok_or_else(|| missing("user_attr"))?);
                }
            }
            operation::CREATE_TRIAL => self.create_trial(record)?,
            operation::SET_PARAMETER => {
                let name = record.param_name.ok_or_else(|| missing("param_name"))?;
                let value = record.param_value_internal.ok_or_else(|| missing("param_value_internal"))?;
                let json = record.distribution.ok_or_else(|| missing("distribution"))?;
                let distribution = distribution(&json)?;
                if let Some(trial) = self.unfinished(record.trial_id)? {
                    trial.parameters.insert(name, (value, distribution));
                }
            }
            operation::SET_STATE => {
                let state = record.state.and_then(TrialState::of).ok_or_else(|| missing("state"))?;
                let value = record.values.and_then(|values| values.first().copied());
                if let Some(trial) = self.unfinished(record.trial_id)? {
                    trial.state = state;
                    trial.value = value.or(trial.value);
                }
            }
            operation::SET_INTERMEDIATE => {
                let step = record.step.ok_or_else(|| missing("step"))?;
                let value = record.intermediate_value.ok_or_else(|| missing("intermediate_value"))?;
                if let Some(trial) = self.unfinished(record.trial_id)? {
                    trial.curve.insert(step, value);
                }
            }
            operation::SET_USER_ATTRIBUTE => {
                let attribute = record.user_attr.ok_or_else(|| missing("user_attr"))?;
                if let Some(trial) = self.unfinished(record.trial_id)? {
                    trial.attributes.extend(attribute);
                }
            }
            // Notes of Optuna's samplers for themselves.
            operation::SET_STUDY_SYSTEM_ATTRIBUTE
            | operation::SET_SYSTEM_ATTRIBUTE
            | operation::DISCARD_TRIALS => {}
            other => return Err((format!("operation {other}"), "an operation of Optuna's journal, 0 to 10")),
        }
        Ok(())
    }

    fn slot(&mut self, id: u64) -> std::result::Result<&mut Option<Named>, Fault> {
        let slot = usize::try_from(id).ok().and_then(|id| self.studies.get_mut(id));
        slot.ok_or_else(|| (format!("study {id}"), "a study that an earlier line creates"))
    }

    /// Finished trials are not changed any more: as Optuna does, the later record is passed over.
    fn unfinished(&mut self, id: Option<u64>) -> std::result::Result<Option<&mut Trial>, Fault> {
        let id = id.ok_or_else(|| missing("trial_id"))?;
        let place = usize::try_from(id).ok().and_then(|id| self.trials.get(id).copied());
        let (study, number) =
            place.ok_or_else(|| (format!("trial {id}"), "a trial that an earlier line creates"))?;
        let study = self.studies[study].as_mut();
        Ok(study.map(|named| &mut named.study.trials[number]).filter(|trial| !trial.state.is_finished()))
    }

    /// A trial may come with everything in one line (`study.add_trial`).
    fn create_trial(&mut self, record: Record) -> std::result::Result<(), Fault> {
        let study_id = record.study_id.ok_or_else(|| missing("study_id"))?;
        let id = self.trials.len() as u64;
        let state = match record.state {
            Some(number) => TrialState::of(number).ok_or_else(|| missing("state"))?,
            None => TrialState::Running,
        };
        let distributions = record.distributions.unwrap_or_default();
        let mut parameters = BTreeMap::new();
        for (name, value) in record.params.unwrap_or_default() {
            let json = distributions.get(&name).ok_or_else(|| missing("distributions"))?;
            parameters.insert(name, (value, distribution(json)?));
        }
        let Some(Named { study, .. }) = self.slot(study_id)? else { return Ok(()) };
        study.trials.push(Trial {
            id,
            worker: record.worker_id,
            state,
            parameters,
            curve: record.intermediate_values.unwrap_or_default(),
            value: record.value.or_else(|| record.values.and_then(|values| values.first().copied())),
            attributes: record.user_attrs.unwrap_or_default(),
        });
        let number = study.trials.len() - 1;
        self.trials.push((study_id as usize, number));
        Ok(())
    }
}

/// Replays the bytes of a journal; also returns how many of them are whole lines.
fn replay(path: &Path, bytes: &[u8]) -> Result<(Replay, usize)> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let mut replay = Replay::default();
    for (index, line) in bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let damaged = |(found, expected): Fault| {
            Error::artefact(path, format!("in line {}: {found}", index + 1), expected)
        };
        let record: Record = serde_json::from_slice(line)
            .map_err(|error| damaged((error.to_string(), "a JSON record of Optuna's journal")))?;
        replay.apply(record).map_err(damaged)?;
    }
    Ok((replay, whole))
}

impl Direction {
    /// Optuna's number of it.
    fn number(self) -> u64 {
        match self {
            Self::Minimize => 1,
            Self::Maximize => 2,
        }
    }
}

/// The journal of a search that is at work.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    study_id: u64,
    /// Trials in the file, of all studies: the id of the next one.
    trials: u64,
}

impl Journal {
    /// Reads the study of a journal without touching the file; `None` where there is no such file or study.
    pub(super) fn read(path: &Path) -> Result<Option<Study>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let (replay, _) = replay(path, &bytes)?;
        Ok(replay
            .studies
            .into_iter()
            .flatten()
            .find(|named| named.name == STUDY_NAME)
            .map(|named| named.study))
    }

    /// Opens a journal to go on with its study, which is made with these attributes where there is none.
    ///
    /// # Errors
    /// Refuses a damaged file, one that another search is at work on, and a study of another direction.
    pub(super) fn open(
        path: &Path,
        direction: Direction,
        attributes: Map<String, Value>,
    ) -> Result<(Self, Study)> {
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        artefact::lock(&file, path, "another search", "one at a time")?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let (replay, whole) = replay(path, &bytes)?;
        file.set_len(whole as u64).map_err(Error::io("cut the unfinished last line off", path))?;
        let ours = |slot: &Option<Named>| slot.as_ref().is_some_and(|named| named.name == STUDY_NAME);
        let found = replay.studies.iter().position(ours);
        let (studies, trials) = (replay.studies.len(), replay.trials.len() as u64);
        let mut journal =
            Self { file, path: path.to_path_buf(), study_id: found.unwrap_or(studies) as u64, trials };
        let mut study = match found.and_then(|id| replay.studies.into_iter().nth(id).flatten()) {
            Some(Named { directions, .. }) if directions != [direction.number()] => {
                let expected = format!("[{}]", direction.number());
                return Err(Error::artefact(path, format!("directions {directions:?}"), expected));
            }
            Some(named) => named.study,
            None => {
                let fields = json!({ "study_name": STUDY_NAME, "directions": [direction.number()] });
                journal.append(operation::CREATE_STUDY, fields)?;
                Study::default()
            }
        };
        // A search that was killed before its first trial may not have come to all of them.
        for (key, value) in attributes {
            if study.trials.is_empty() && !study.attributes.contains_key(&key) {
                let fields = json!({ "study_id": journal.study_id, "user_attr": { key.as_str(): &value } });
                journal.append(operation::SET_STUDY_USER_ATTRIBUTE, fields)?;
                study.attributes.insert(key, value);
            }
        }
        Ok((journal, study))
    }

    /// Begins a trial.
    pub(super) fn create_trial(&mut self) -> Result<Trial> {
        let study_id = self.study_id;
        self.append(operation::CREATE_TRIAL, json!({ "study_id": study_id, "datetime_start": now() }))?;
        self.trials += 1;
        Ok(Trial {
            id: self.trials - 1,
            worker: WORKER.to_owned(),
            state: TrialState::Running,
            parameters: BTreeMap::new(),
            curve: BTreeMap::new(),
            value: None,
            attributes: Map::new(),
        })
    }

    /// Notes the value of a key.
    pub(super) fn set_parameter(
        &mut self,
        trial: &mut Trial,
        key: &str,
        value: f64,
        distribution: &Distribution,
    ) -> Result<()> {
        let json = serde_json::to_string(distribution).expect("a distribution is plain data");
        self.append(
            operation::SET_PARAMETER,
            json!({ "trial_id": trial.id, "param_name": key, "param_value_internal": value, "distribution": json }),
        )?;
        trial.parameters.insert(key.to_owned(), (value, distribution.clone()));
        Ok(())
    }

    /// Notes the figure after an epoch.
    pub(super) fn set_intermediate(&mut self, trial: u64, epochs: u64, value: f64) -> Result<()> {
        self.append(
            operation::SET_INTERMEDIATE,
            json!({ "trial_id": trial, "step": epochs, "intermediate_value": value }),
        )
    }

    /// Notes something of a trial.
    pub(super) fn set_attribute(&mut self, trial: &mut Trial, key: &str, value: Value) -> Result<()> {
        self.append(
            operation::SET_USER_ATTRIBUTE,
            json!({ "trial_id": trial.id, "user_attr": { key: &value } }),
        )?;
        trial.attributes.insert(key.to_owned(), value);
        Ok(())
    }

    /// Ends a trial.
    pub(super) fn finish(&mut self, trial: &mut Trial, state: TrialState, value: Option<f64>) -> Result<()> {
        let values = value.map(|value| [value]);
        self.append(
            operation::SET_STATE,
            json!({ "trial_id": trial.id, "state": state as u64, "values": values, "datetime_complete": now() }),
        )?;
        // Through to the disk: what a power cut takes of an unfinished trial is trained again.
        self.file.sync_data().map_err(Error::io("write", &self.path))?;
        (trial.state, trial.value) = (state, value);
        Ok(())
    }

    /// Writes a line in one piece.
    fn append(&mut self, operation: u64, fields: Value) -> Result<()> {
        let mut record = json!({ "op_code": operation, "worker_id": WORKER });
        if let (Value::Object(record), Value::Object(fields)) = (&mut record, fields) {
            record.extend(fields);
        }
        self.file.write_all(format!("{record}\n").as_bytes()).map_err(Error::io("write", &self.path))
    }
}

/// By the clock, as Optuna writes times.
fn now() -> String {
    DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Micros, false)
}

#[cfg(test)]
mod tests;
