//! The run directory and the order of its stages.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::audit::Networks;
use super::config::RunConfig;
use super::evaluation::Finished;
use super::manifest::{Kind, Manifest};
use super::overrule::ByHand;
use super::sets::Sets;
use super::stages::Made;
use crate::artefact::{HIDDEN, write_atomically};
use crate::dataset::refuse_below;
use crate::error::{Error, Result};
use crate::evaluate::results::Evaluation;
use crate::progress::{Progress, StageEvent};
use crate::purify::{Ledger, flagged_by_rank};
use crate::rng::Seed;
use crate::train::Checkpoints;

/// Raised with every change of what a stage computes or writes, so that runs of earlier builds are made again rather than misread.
pub(super) const REVISION: u32 = 6;

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goal {
    /// Scores, threshold, verdicts, ledger.
    Audit,
    /// The purified set.
    Purify,
    /// Teacher, soft labels, student, null rule.
    Distil,
    /// Attacks, controls, figures.
    Evaluate,
    /// The page.
    Report,
}

/// What a run produced.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The ledger of the audited set, with what was decided by hand.
    pub ledger: Option<Ledger>,
    /// How many images the audit flagged, whatever was decided about them by hand.
    pub flagged: u64,
    /// How many images were decided about by hand.
    pub decided: u64,
    /// Images of the set that were not audited because a trusted set of its own has them.
    pub known: u64,
    /// Of them those that it has under another class, which is theirs in the purified set.
    pub known_otherwise: u64,
    /// Images of the set that were left out, and are in no purified set, for `data.limit_per_class`.
    pub beyond_limit: u64,
    /// Name of the table in the run directory in which decisions can be made.
    pub decisions: Option<String>,
    /// All figures, from [`Goal::Evaluate`] on.
    pub evaluation: Option<Evaluation>,
}

/// Refuses a place for results below the images that the config names, where they would be read as a part of these the next time.
pub(super) fn refuse_output_within(config: &RunConfig, output: &Path) -> Result<()> {
    sources(config).try_for_each(|source| refuse_below(&source, output))
}

/// The images that the config names: those to work on, and those that are trusted elsewhere.
fn sources(config: &RunConfig) -> impl Iterator<Item = PathBuf> {
    let trusted = Some(&config.data.trusted).filter(|path| !path.is_empty()).map(PathBuf::from);
    config.data_path().into_iter().chain(trusted)
}

/// Refuses a run directory that holds the images that the config names: a stage would write over them.
fn refuse_input_within(config: &RunConfig, directory: &Path) -> Result<()> {
    let Ok(own) = directory.canonicalize() else { return Ok(()) };
    for source in sources(config) {
        if source.canonicalize().is_ok_and(|source| source.starts_with(&own)) {
            let found = format!("a part of the run directory {}", directory.display());
            return Err(Error::data(source, found, "a copy elsewhere: the run would write over it"));
        }
    }
    Ok(())
}

/// A run directory with its config.
pub struct Run<'a> {
    pub(super) directory: PathBuf,
    pub(super) config: RunConfig,
    pub(super) device: Device,
    pub(super) progress: &'a dyn Progress,
    pub(super) manifest: Manifest,
    /// Stages that were gone through, made or found done.
    pub(super) visited: BTreeSet<String>,
    /// Whether one of them was made anew.
    has_made: bool,
    pub(super) by_hand: ByHand,
    /// Held from the moment that something is written, until the run is dropped.
    lock: Option<File>,
}

impl<'a> Run<'a> {
    /// Starts a run in a new or empty folder, or goes on with the one that is there.
    ///
    /// # Errors
    /// Refuses settings out of range, and a folder that holds something else.
    pub fn open(
        directory: &Path,
        config: RunConfig,
        device: &Device,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        config.check()?;
        let manifest = Manifest::open(directory)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            config,
            device: device.clone().without_autodiff(),
            progress,
            manifest,
            by_hand: ByHand::Kept,
            visited: BTreeSet::new(),
            has_made: false,
            lock: None,
        })
    }

    /// Obeys these decisions by hand. They stay in the run directory, so that later runs there obey them too.
    pub fn obey(&mut self, by_hand: ByHand) -> &mut Self {
        self.by_hand = by_hand;
        self
    }

    /// Runs every stage up to `goal` that is not done yet.
    ///
    /// # Errors
    /// Whatever a stage reports; what was finished stays, and the next call goes on from there.
    pub fn execute(&mut self, goal: Goal) -> Result<Outcome> {
        let outcome = self.up_to(goal)?;
        self.name_stale();
        Ok(outcome)
    }

    fn up_to(&mut self, goal: Goal) -> Result<Outcome> {
        let decision_file = self.decision_file()?;
        let sets = self.start(Kind::Audited)?;
        let data = sets.content_hash().to_owned();
        let mut outcome = Outcome {
            known: sets.known().len() as u64,
            known_otherwise: sets.known().iter().filter(|known| known.label != known.trusted_label).count()
                as u64,
            beyond_limit: sets.beyond_limit() as u64,
            ..Outcome::default()
        };

        let poison = self.poison(&sets, &data)?;
        let audited = match &poison.poisoned {
            Some(poisoned) => poisoned.apply(&sets.train)?,
            None => sets.train.clone(),
        };
        let decisions = self.decisions(decision_file.as_ref(), &audited)?;
        let Made { value: sets, key: known } = self.known(sets, &audited, &poison)?;
        let undefended = self.undefended(&sets, &audited, &known)?;
        let dae = self.dae(&sets, &audited, &poison, &undefended)?;
        let label_model = self.label_model(&sets, &audited, &known)?;
        let intent = self.intent(&sets, &undefended)?;
        let networks = Networks { undefended, dae, label_model, intent };
        let proposed = self.audit(&sets, &audited, &networks)?;
        self.findings(&sets, &audited, &networks, &proposed)?;
        outcome.decisions = Some(self.offer_decisions(&audited, &proposed)?);
        outcome.flagged = flagged_by_rank(&proposed.ledger).len() as u64;
        outcome.decided = decisions.len() as u64;
        let audit = self.overruled(proposed, &decisions, &audited)?;
        outcome.ledger = Some(audit.ledger.clone());
        if goal < Goal::Purify {
            return Ok(outcome);
        }
        let purified = self.purify(&sets, &audited, &networks, &audit)?;
        if goal < Goal::Distil {
            return Ok(outcome);
        }
        let teacher = self.teacher(&purified)?;
        let soft_labels = self.soft_labels(&purified, &teacher)?;
        let student = self.student(&purified, &teacher, &soft_labels)?;
        let null_rule = self.null_rule(&purified, &student, &soft_labels, Some(&audit))?;
        if goal < Goal::Evaluate {
            return Ok(outcome);
        }
        let controls = self.controls(&sets, &audited, &poison, &networks, &audit, &purified)?;
        let evaluation = self.evaluation(Finished {
            sets: &sets,
            audited: &audited,
            poison: &poison,
            networks: &networks,
            audit: &audit,
            decided_by_hand: outcome.decided,
            teacher: &teacher,
            student: &student,
            null_rule: &null_rule,
            controls: &controls,
        })?;
        if goal >= Goal::Report {
            self.report(&evaluation)?;
        }
        outcome.evaluation = Some(evaluation.value);
        Ok(outcome)
    }

    /// Reads the data and the networks that are there already; only when they are sound, the folder is made and the config written.
    ///
    /// # Errors
    /// Whatever is not sound, a folder in which another run is at work, and one that holds a run of the other kind.
    pub(super) fn start(&mut self, kind: Kind) -> Result<Sets> {
        refuse_output_within(&self.config, &self.directory)?;
        refuse_input_within(&self.config, &self.directory)?;
        self.manifest.refuse_other_kind(&self.directory, kind)?;
        let sets = Sets::load(&self.config, self.progress)?;
        self.given_teacher(&sets.train)?;
        self.named_ensemble(&sets.train)?;
        if self.lock.is_none() {
            self.lock = Some(Manifest::lock(&self.directory)?);
            // Another run may have been at work until now.
            self.manifest = Manifest::open(&self.directory)?;
            self.manifest.refuse_other_kind(&self.directory, kind)?;
            // What a run that was killed has left.
            self.sweep(|file| file.starts_with(HIDDEN))?;
        }
        self.manifest.kind = Some(kind);
        self.manifest.save(&self.directory)?;
        let (path, text) = (self.path("config.toml"), self.config.to_toml());
        write_atomically(&path, |file| file.write_all(text.as_bytes()).map_err(Error::io("write", &path)))?;
        Ok(sets)
    }

    /// Removes what lies in the folder under such a name.
    fn sweep(&self, is_left_over: impl Fn(&str) -> bool) -> Result<()> {
        for entry in std::fs::read_dir(&self.directory).map_err(Error::io("read", &self.directory))? {
            let path = entry.map_err(Error::io("read", &self.directory))?.path();
            if !path.file_name().and_then(OsStr::to_str).is_some_and(&is_left_over) {
                continue;
            }
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Names the stages that earlier runs made of other inputs, and that this one did not come to.
    pub(super) fn name_stale(&self) {
        let others =
            self.manifest.stages.keys().filter(|name| self.has_made && !self.visited.contains(*name));
        others.for_each(|name| self.progress.stage(name, StageEvent::Stale));
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    pub(super) fn seed(&self, stage: &str) -> Seed {
        Seed::new(self.config.seed).child(stage)
    }

    /// Key of a stage: its name, this version and revision, its settings and the keys of what it builds on.
    pub(super) fn key(&self, stage: &str, settings: &impl serde::Serialize, upstream: &[&str]) -> String {
        let settings = serde_json::to_string(settings).expect("settings are plain data");
        let (seed, revision) = (self.config.seed.to_string(), REVISION.to_string());
        let text = [crate::VERSION, &revision, stage, &seed, &settings, &upstream.join(" ")].join("\n");
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Makes the files of a stage unless they are there, made from the same inputs.
    pub(super) fn stage(
        &mut self,
        name: &str,
        key: &str,
        files: &[&str],
        make: impl FnOnce(&Self, &Checkpoints) -> Result<()>,
    ) -> Result<()> {
        self.visited.insert(name.to_owned());
        if self.manifest.is_done(&self.directory, name, key, files)? {
            self.sweep_checkpoints(name)?;
            self.progress.stage(name, StageEvent::Skipped);
            return Ok(());
        }
        self.progress.check()?;
        self.progress.stage(name, StageEvent::Started);
        self.has_made = true;
        let checkpoints = Checkpoints::at(self.path(&format!("{name}-{}.checkpoint", &key[..16])));
        for file in files {
            if let Some(parent) = self.path(file).parent() {
                std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            }
        }
        make(self, &checkpoints)?;
        self.manifest.record(&self.directory, name, key, files)?;
        self.sweep_checkpoints(name)?;
        self.progress.stage(name, StageEvent::Finished);
        Ok(())
    }

    /// Removes the checkpoints of a stage that is done, and what a stop under other settings has left of it.
    fn sweep_checkpoints(&self, stage: &str) -> Result<()> {
        self.sweep(|file| {
            file.strip_prefix(stage).is_some_and(|rest| rest.starts_with('-'))
                && file.ends_with(".checkpoint")
        })
    }
}
