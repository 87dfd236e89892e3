//! The search itself: trial after trial, each noted in the journal before the next one begins.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use burn::tensor::Device;
use serde_json::{Map, Value, json};

use super::TuneConfig;
use super::journal::{Journal, WORKER};
use super::objective::{Direction, Yardstick};
use super::results::SearchResults;
use super::study::{Study, Trial, TrialState};
use crate::error::{Error, Result};
use crate::pipeline::{Ground, Images, Run, RunConfig};
use crate::progress::{Progress, StageEvent};
use crate::purify::Twins;
use crate::rng::Seed;
use crate::train::Checkpoints;

const JOURNAL: &str = "journal.log";
const COMMON: &str = "common";

/// Under this name the journal has what the search was asked for.
const ASKED: &str = "limbeck";

/// Searches in a new or empty folder, or goes on with the search that is there, until it has as many trials as `search` asks for.
///
/// # Errors
/// Refuses a space that does not fit the config, a folder that holds something else, and the journal of another search or a damaged one.
/// [`Error::Interrupted`] when the caller asks to stop. A trial whose settings are refused, or whose loss leaves the finite numbers, has failed; the
/// search goes on.
pub fn tune(
    directory: &Path,
    base: &RunConfig,
    search: &TuneConfig,
    device: &Device,
    progress: &dyn Progress,
) -> Result<SearchResults> {
    search.check(base)?;
    let journal = directory.join(JOURNAL);
    refuse_foreign(directory)?;
    let mut asked = asked(base, search);
    if let Some(study) = Journal::read(&journal)? {
        same_search(&journal, &study, &asked)?;
    }
    let mut common = Run::open(&directory.join(COMMON), base.clone(), device, progress)?;
    let images = common.images()?;
    let ground = common.ground(&images)?;
    let yardstick = common.yardstick(&images, &ground)?;
    let base = &RunConfig { dae: base.dae.settled(images.audited()), ..base.clone() };
    asked.insert("images".to_owned(), images.key.clone().into());
    let attributes = Map::from_iter([(ASKED.to_owned(), Value::Object(asked.clone()))]);
    let (opened, study) = Journal::open(&journal, search.objective.row().direction, attributes)?;
    same_search(&journal, &study, &asked)?;
    let mut search = Search {
        directory,
        base,
        search,
        device,
        progress,
        seed: Seed::new(base.seed).child("tune"),
        images,
        ground,
        yardstick,
        journal: Mutex::new(opened),
        study,
    };
    search.run()
}

/// What must be the same for a search to go on.
fn asked(base: &RunConfig, search: &TuneConfig) -> Map<String, Value> {
    let asked = json!({
        "version": crate::VERSION,
        "objective": search.objective,
        "sampler": search.sampler,
        "space": search.space,
        "config": base.hash(),
    });
    match asked {
        Value::Object(asked) => asked,
        _ => Map::new(),
    }
}

fn same_search(journal: &Path, study: &Study, asked: &Map<String, Value>) -> Result<()> {
    // Killed before it had begun.
    if study.trials.is_empty() && !study.attributes.contains_key(ASKED) {
        return Ok(());
    }
    for (key, expected) in asked {
        let found = study.attributes.get(ASKED).and_then(|before| before.get(key)).unwrap_or(&Value::Null);
        if found != expected {
            return Err(Error::artefact(
                journal,
                format!("a search with {key} {found}"),
                format!("one with {expected}, or another folder"),
            ));
        }
    }
    Ok(())
}

/// Refuses a folder with files but without a search, so that nothing of the user's is overwritten.
fn refuse_foreign(directory: &Path) -> Result<()> {
    let mut entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", directory)(error)),
    };
    let begun = directory.join(JOURNAL).is_file() || directory.join(COMMON).join("manifest.json").is_file();
    match entries.next().is_some() && !begun {
        true => Err(Error::data(
            directory,
            "files that are no search",
            "a new or empty folder, or that of a search",
        )),
        false => Ok(()),
    }
}

/// How a trial ended.
enum Ending {
    Complete(f64),
    Pruned,
    Failed(String),
}

struct Search<'a> {
    directory: &'a Path,
    base: &'a RunConfig,
    search: &'a TuneConfig,
    device: &'a Device,
    progress: &'a dyn Progress,
    seed: Seed,
    images: Images,
    /// That of the base config.
    ground: Ground,
    /// What all trials are measured on.
    yardstick: Twins,
    journal: Mutex<Journal>,
    study: Study,
}

impl Search<'_> {
    fn run(&mut self) -> Result<SearchResults> {
        for number in 0..self.search.trials {
            let begun = self.study.trials.get(number);
            if begun.is_some_and(|trial| trial.state != TrialState::Running || trial.worker != WORKER) {
                // What another program has begun is its own business.
                self.progress.stage(&format!("trial {number}"), StageEvent::Skipped);
                continue;
            }
            self.progress.check()?;
            self.trial(number)?;
            self.results().save(self.directory)?;
        }
        let results = self.results();
        results.save(self.directory)?;
        Ok(results)
    }

    fn results(&self) -> SearchResults {
        SearchResults::of(self.images.name(), self.base, self.search, &self.study)
    }

    fn direction(&self) -> Direction {
        self.search.objective.row().direction
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().expect("nothing panics while it holds the journal")
    }

    /// Runs a trial from its beginning, or from where it was interrupted.
    fn trial(&mut self, number: usize) -> Result<()> {
        let started = Instant::now();
        let name = format!("trial {number}");
        self.progress.stage(&name, StageEvent::Started);
        if number == self.study.trials.len() {
            let begun = self.journal().create_trial()?;
            self.study.trials.push(begun);
        }
        let mut trial = self.study.trials[number].clone();
        self.propose(number, &mut trial)?;
        let values = trial.parameters.iter().map(|(key, (value, _))| (key.clone(), *value)).collect();
        let settings = self.search.space.apply(self.base, &values).and_then(|config| {
            self.search.objective.check(&config)?;
            Ok(config)
        });
        let trained = settings.and_then(|config| self.train(number, &mut trial, &config));
        let ending = match trained {
            Err(error @ (Error::Config { .. } | Error::Numeric { .. })) => Ending::Failed(error.to_string()),
            other => other?,
        };
        let (state, value, note) = match ending {
            Ending::Complete(value) => (TrialState::Complete, Some(value), name),
            Ending::Pruned => {
                (TrialState::Pruned, trial.curve.values().next_back().copied(), format!("{name}, pruned"))
            }
            Ending::Failed(reason) => {
                self.journal().set_attribute(&mut trial, "error", reason.into())?;
                (TrialState::Failed, None, format!("{name}, failed"))
            }
        };
        let mut journal = self.journal();
        journal.set_attribute(&mut trial, "seconds", json!(started.elapsed().as_millis() as f64 / 1000.0))?;
        journal.finish(&mut trial, state, value)?;
        drop(journal);
        self.clear(number)?;
        self.study.trials[number] = trial;
        self.progress.stage(&note, StageEvent::Finished);
        Ok(())
    }

    /// Gives the trial the values that it lacks: all of them, unless it was interrupted.
    fn propose(&self, number: usize, trial: &mut Trial) -> Result<()> {
        let past: Vec<&Trial> = self.study.trials[..number].iter().collect();
        for (key, distribution) in self.search.space.parameters() {
            if !trial.parameters.contains_key(key) {
                let value =
                    self.search.sampler.propose(self.seed, &past, key, distribution, self.direction());
                self.journal().set_parameter(trial, key, value, distribution)?;
            }
        }
        Ok(())
    }

    /// Trains the trial's autoencoder, measures it after each epoch, and stops where the sampler says so.
    fn train(&self, number: usize, trial: &mut Trial, config: &RunConfig) -> Result<Ending> {
        let progress =
            OfTrial { inner: self.progress, name: format!("trial {number} of {}", self.search.trials) };
        let mut run = Run::open(&self.own_folder(number), config.clone(), self.device, &progress)?;
        let own = match Ground::is_shared(config, self.base) {
            true => None,
            false => Some(run.ground(&self.images)?),
        };
        let ground = own.as_ref().unwrap_or(&self.ground);
        let yardstick =
            Yardstick { twins: &self.yardstick, classifier: &ground.classifier, purify: config.purify };
        let past: Vec<&Trial> = self.study.trials[..number].iter().collect();
        let (epochs, objective) =
            (config.dae.training(self.images.audited()).epochs as u64, self.search.objective);
        let (curve, stopped) = (Mutex::new(std::mem::take(&mut trial.curve)), AtomicBool::new(false));
        let id = trial.id;
        let trained =
            run.watched_dae(ground, &Checkpoints::at(self.checkpoint(number)), &|network, history| {
                let (done, figure) = (history.len() as u64, yardstick.measure(objective, network)?);
                self.journal().set_intermediate(id, done, figure)?;
                let mut curve = curve.lock().expect("nothing panics while it holds the curve");
                // Epochs that an interrupted run has noted but not saved are gone through again.
                let _ = curve.split_off(&done);
                curve.insert(done, figure);
                let stops = self.search.sampler.stops(&past, &curve, epochs, self.direction());
                stopped.store(stops, Ordering::Relaxed);
                Ok(!stops)
            });
        // A trial that fails keeps the epochs that it had.
        trial.curve = curve.into_inner().expect("nothing panics while it holds the curve");
        let (network, _) = trained?;
        match stopped.into_inner() {
            true => Ok(Ending::Pruned),
            false => yardstick.measure(objective, &network).map(Ending::Complete),
        }
    }

    /// Where a trial keeps its own classifier and twins, if its values make them other than the common ones.
    fn own_folder(&self, number: usize) -> PathBuf {
        self.directory.join(format!("trial-{number}"))
    }

    /// A trial's values are fixed by the journal that lies beside its checkpoint.
    fn checkpoint(&self, number: usize) -> PathBuf {
        self.directory.join(format!("trial-{number}.checkpoint"))
    }

    /// Removes what only an unfinished trial needs.
    fn clear(&self, number: usize) -> Result<()> {
        Checkpoints::at(self.checkpoint(number)).clear()?;
        let folder = self.own_folder(number);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Says which trial a task belongs to.
struct OfTrial<'a> {
    inner: &'a dyn Progress,
    name: String,
}

impl Progress for OfTrial<'_> {
    fn stage(&self, stage: &str, event: StageEvent) {
        self.inner.stage(&format!("{}, {stage}", self.name), event);
    }

    fn task(&self, name: &str, unit: &'static str) {
        self.inner.task(&format!("{}: {name}", self.name), unit);
    }

    fn advance(&self, done: u64, total: u64) {
        self.inner.advance(done, total);
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
