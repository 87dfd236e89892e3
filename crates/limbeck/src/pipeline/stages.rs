//! What every stage is made of, and the simulated attacker's.
//!
//! A stage always returns what it reads back from its files, so a resumed run sees the same values as an uninterrupted one.

use std::path::Path;

use burn::tensor::Device;

use super::config::NetworkConfig;
use super::copies::{CopiedDefence, with_copies};
use super::run::Run;
use super::sets::Sets;
use crate::artefact::{read_json, write_json};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::evaluate::AttackCheckpoints;
use crate::network::{ClassifierSpec, TrainedClassifier, Views};
use crate::poison::{PoisonedSet, TruthManifest, poison};
use crate::train::{
    Checkpoints, CraftingConfig, Ensemble, Epoch, Lesson, RobustDistillation, Targets, TrainConfig,
    teach_classifier,
};

/// A value and the key of the stage that made it.
pub(super) struct Made<T> {
    pub(super) value: T,
    pub(super) key: String,
}

/// A trained network with its learning curve.
pub(super) struct Trained<T> {
    pub(super) network: T,
    pub(super) epochs: Vec<Epoch>,
}

impl<T> Trained<T> {
    /// From the weights and the curve of a stage.
    pub(super) fn read(
        weights: &Path,
        curve: &Path,
        device: &Device,
        load: fn(&Path, &Device) -> Result<T>,
    ) -> Result<Self> {
        Ok(Self { network: load(weights, device)?, epochs: read_json(curve)? })
    }
}

/// Where the stage that has these checkpoints keeps what it has attacked, until it is done.
pub(super) fn attack_checkpoints(of_stage: &Checkpoints) -> AttackCheckpoints {
    of_stage.path().map_or_else(AttackCheckpoints::none, AttackCheckpoints::at)
}

/// How a classifier is taught, beside what it is to answer; a teacher and an ensemble must be among the stage's upstream keys.
pub(super) struct Teaching<'a> {
    pub(super) temperature: f64,
    pub(super) adversarial: Option<CraftingConfig>,
    /// Networks that its images are perturbed against in its place.
    pub(super) ensemble: Option<Ensemble<'a>>,
    pub(super) robust_distillation: Option<RobustDistillation<'a>>,
    /// Whether it has an output for outliers; the targets must then have it too.
    pub(super) outlier: bool,
    /// Whose weights it begins with, if not with fresh ones.
    pub(super) start: Option<&'a TrainedClassifier>,
    /// What it looks at when it is trained.
    pub(super) views: Views,
}

/// What the simulated attacker did, if there is one.
pub(super) struct Poison {
    pub(super) poisoned: Option<PoisonedSet>,
    pub(super) truth: Option<TruthManifest>,
    pub(super) surrogate: Option<TrainedClassifier>,
    /// Copies of the defence, of an attacker who knows it.
    pub(super) copies: Option<CopiedDefence>,
    pub(super) key: String,
}

impl Run<'_> {
    /// Trains a classifier on images as they are and writes `<name>.safetensors` and `<name>-curve.json`.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different kind of thing; a bundle would only rename them"
    )]
    pub(super) fn classifier(
        &mut self,
        name: &str,
        section: (NetworkConfig, &TrainConfig),
        temperature: f64,
        train: &Dataset,
        targets: impl FnOnce() -> Result<Targets>,
        validation: &Dataset,
        upstream: &[&str],
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let teaching = Teaching {
            temperature,
            adversarial: None,
            ensemble: None,
            robust_distillation: None,
            outlier: false,
            start: None,
            views: Views::One,
        };
        self.taught_classifier(name, section, &teaching, train, targets, validation, upstream)
    }

    /// The same for a classifier that is taught in any way.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different kind of thing; a bundle would only rename them"
    )]
    pub(super) fn taught_classifier(
        &mut self,
        name: &str,
        section: (NetworkConfig, &TrainConfig),
        teaching: &Teaching<'_>,
        train: &Dataset,
        targets: impl FnOnce() -> Result<Targets>,
        validation: &Dataset,
        upstream: &[&str],
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let Teaching { temperature, adversarial, ensemble, robust_distillation, outlier, start, views } =
            *teaching;
        let spec = ClassifierSpec { outlier, ..section.0.spec(train, temperature) };
        let imitation =
            robust_distillation.map(|distillation| (distillation.temperature, distillation.weight));
        let share = ensemble.map(|ensemble| ensemble.share);
        // A teacher may be upstream as the start, as one of the ensemble, or as both.
        let taught = (adversarial, share, start.is_some(), imitation);
        let key = self.key(name, &(&section, temperature, taught, views), upstream);
        let (weights, curve) = (format!("{name}.safetensors"), format!("{name}-curve.json"));
        self.stage(name, &key, &[&weights, &curve], |run, checkpoints| {
            run.progress.task(&format!("training the {name} classifier"), "images");
            let lesson = Lesson { targets: &targets()?, adversarial, ensemble, robust_distillation, start };
            let (trained, epochs) = teach_classifier(
                spec,
                train,
                &lesson,
                validation,
                section.1,
                &run.device,
                run.seed(name),
                checkpoints,
                run.progress,
            )?;
            trained.with_views(views).save(&run.path(&weights))?;
            write_json(&run.path(&curve), &epochs)
        })?;
        let value =
            Trained::read(&self.path(&weights), &self.path(&curve), &self.device, TrainedClassifier::load)?;
        Ok(Made { value, key })
    }

    pub(super) fn poison(&mut self, sets: &Sets, data: &str) -> Result<Poison> {
        let section = self.config.poison.clone();
        if section.plan.fraction == 0.0 {
            let key = data.to_owned();
            return Ok(Poison { poisoned: None, truth: None, surrogate: None, copies: None, key });
        }
        section.plan.check_target(&sets.train)?;
        let surrogate = self.classifier(
            "surrogate",
            (section.surrogate, &section.train),
            1.0,
            &sets.train.subset(&sets.fitted),
            || Ok(Targets::Labels),
            &sets.train.subset(&sets.held_out),
            &[data],
        )?;
        let copies = self.copied_defence(sets, &surrogate)?;
        let upstream = [Some(&surrogate.key), copies.as_ref().map(|copies| &copies.key)];
        let upstream: Vec<&str> = upstream.into_iter().flatten().map(String::as_str).collect();
        let key = self.key("poison", &section.plan, &upstream);
        let copies = copies.map(|made| made.value);
        let (images, truth) = ("poison/images.safetensors", "poison/truth.csv");
        self.stage("poison", &key, &[images, truth], |run, _| {
            let network = &surrogate.value.network;
            let poisoned = with_copies(copies.as_ref(), section.plan.evade.percentile, |copies| {
                let seed = run.seed("poison");
                poison(&sets.train, &section.plan, Some(network), copies, &run.device, seed, run.progress)
            })?;
            poisoned.save(&run.path(images))?;
            poisoned
                .truth(&sets.train, &poisoned.apply(&sets.train)?, &section.plan.label())
                .save(&run.path(truth))
        })?;
        Ok(Poison {
            poisoned: Some(PoisonedSet::load(&self.path(images))?),
            truth: Some(TruthManifest::load(&self.path(truth))?),
            surrogate: Some(surrogate.value.network),
            copies,
            key,
        })
    }
}
