//! The copies that a simulated attacker who knows the defence trains of it, on data of its own.
//!
//! It knows the defender's settings and has the set before poisoning, but neither the defender's seed nor which images the defender trusts: it trusts as many of its own,
//! drawn at random. Its autoencoder learns from twins that were crafted on its own network.

use std::path::Path;

use rand::seq::index::sample;
use serde::{Deserialize, Serialize};

use burn::tensor::Device;

use super::config::{NetworkConfig, RunConfig};
use super::run::Run;
use super::sets::Sets;
use super::stages::{Made, Trained};
use crate::artefact::{read_json, write_json};
use crate::attack::{Guard, GuardScore};
use crate::error::Result;
use crate::network::{DetectionHead, ReconstructionError, TrainedAutoencoder, TrainedClassifier};
use crate::poison::Copies;
use crate::progress::Progress;
use crate::purify::{
    CalibrationScores, Defence, Knowledge, Rule, ScoreKind, Scorer, Threshold, craft_twins,
    train_autoencoder, train_label_model,
};
use crate::rng::Seed;
use crate::train::Checkpoints;

/// Files of a run's copies, below its folder.
const FILES: [&str; 3] = ["poison/dae.safetensors", "poison/label_model.safetensors", "poison/scores.json"];

/// Copies of the defender's networks.
pub(super) struct CopiedDefence {
    autoencoder: TrainedAutoencoder,
    label_model: Option<TrainedClassifier>,
    scores: CleanScores,
}

/// Scores of the images that the attacker trusts.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CleanScores {
    head: Vec<f64>,
    /// Logarithms of reconstruction errors.
    error: Vec<f64>,
    label: Vec<f64>,
}

impl CopiedDefence {
    /// Trains the copies; `surrogate` is the attacker's own network, `checkpoints` are the autoencoder's.
    pub(super) fn train(
        config: &RunConfig,
        sets: &Sets,
        surrogate: &TrainedClassifier,
        device: &Device,
        checkpoints: &Checkpoints,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let (seed, set) = (Seed::new(config.seed).child("attacker"), &sets.train);
        let mut chosen = vec![false; set.len()];
        let count = trusted_by_attacker(config, sets);
        sample(&mut seed.rng("trusted"), set.len(), count).into_iter().for_each(|index| chosen[index] = true);
        let of = |wanted: bool| {
            set.subset(&(0..set.len()).filter(|&index| chosen[index] == wanted).collect::<Vec<_>>())
        };
        let (own, trusted) = (of(false), of(true));
        let dae = &config.dae;
        let twins = |set, name| craft_twins(set, &dae.noise, surrogate, device, seed.child(name), progress);
        let (autoencoder, _) = train_autoencoder(
            dae.spec(&own),
            &twins(&own, "train twins")?,
            &twins(&trusted, "calibration twins")?,
            &dae.noise,
            dae.head_weight,
            &dae.training(own.len()),
            device,
            seed.child("dae"),
            checkpoints,
            progress,
        )?;
        let label_model = match config.label_model.enabled {
            false => None,
            true => {
                let spec = label_network(config).spec(&own, 1.0);
                let (settings, seed) = (&config.label_model, seed.child("label-model"));
                Some(train_label_model(&spec, &trusted, &own, settings, device, seed, progress)?)
            }
        };
        let defence = Defence {
            autoencoder: &autoencoder,
            classifier: surrogate,
            label_model: label_model.as_ref(),
            intent: None,
            kl_temperature: config.purify.kl_temperature,
        };
        let scorer = Scorer::new(&own, &trusted, defence, progress)?;
        let [head, label] = [ScoreKind::Head, ScoreKind::Label].map(|kind| scorer.trusted(kind).to_vec());
        let error = ReconstructionError::logarithms(scorer.trusted(ScoreKind::Mse));
        let label_model = label_model.map(|model| model.classifier);
        Ok(Self { autoencoder, label_model, scores: CleanScores { head, error, label } })
    }

    fn save(&self, paths: &[impl AsRef<Path>; 3]) -> Result<()> {
        let [dae, label_model, scores] = paths.each_ref().map(AsRef::as_ref);
        self.autoencoder.save(dae)?;
        if let Some(model) = &self.label_model {
            model.save(label_model)?;
        }
        write_json(scores, &self.scores)
    }

    /// The copies as guards that let pass what looks no more suspicious than this percentile of clean images.
    fn guards<'a>(
        &'a self,
        head: &'a DetectionHead<'a>,
        error: &'a ReconstructionError<'a>,
        percentile: f64,
    ) -> Result<Copies<'a>> {
        let limit = |scores: &[f64]| {
            let rule = Rule::Percentile { percentile, margin: 0.0 };
            Ok(Threshold::infer(&CalibrationScores::new(scores.to_vec())?, rule)?.value())
        };
        let mut guards = vec![
            Guard { model: head, score: GuardScore::Logit, limit: limit(&self.scores.head)? },
            Guard { model: error, score: GuardScore::Logit, limit: limit(&self.scores.error)? },
        ];
        if let Some(model) = &self.label_model {
            guards.push(Guard { model, score: GuardScore::WrongLabel, limit: limit(&self.scores.label)? });
        }
        Ok(Copies { guards })
    }
}

/// Calls `act` with the copies, if there are any, as guards that let pass what looks no more suspicious than this percentile of clean images.
///
/// # Errors
/// Reports scores of clean images that are not finite, and whatever `act` reports.
pub(super) fn with_copies<T>(
    copies: Option<&CopiedDefence>,
    percentile: f64,
    act: impl FnOnce(Option<&Copies<'_>>) -> Result<T>,
) -> Result<T> {
    match copies {
        None => act(None),
        Some(copies) => {
            let (head, error) =
                (DetectionHead(&copies.autoencoder), ReconstructionError(&copies.autoencoder));
            act(Some(&copies.guards(&head, &error, percentile)?))
        }
    }
}

/// How many images the attacker trusts, as many as the defender does; where that one trusts nothing, it lets as many images stand in.
fn trusted_by_attacker(config: &RunConfig, sets: &Sets) -> usize {
    let trusted = match config.knowledge.setting {
        Knowledge::Untrusted => (config.data.split.trusted * sets.train.len() as f64).round() as usize,
        Knowledge::Trusted | Knowledge::Oracle => sets.trusted.len(),
    };
    trusted.min(sets.train.len() / 2)
}

/// Shape of the label model.
pub(super) fn label_network(config: &RunConfig) -> NetworkConfig {
    NetworkConfig { width: config.label_model.width, ..config.classifier.network }
}

impl Run<'_> {
    /// Trains the attacker's copies of the defence, or reads them; `None` for an attacker who knows nothing of it.
    pub(super) fn copied_defence(
        &mut self,
        sets: &Sets,
        surrogate: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Option<Made<CopiedDefence>>> {
        if !self.config.poison.plan.evade.is_on() {
            return Ok(None);
        }
        let label_model = self.config.label_model.clone();
        let trusted = trusted_by_attacker(&self.config, sets);
        let settings = (&self.config.dae.clone(), &label_model, label_network(&self.config), trusted);
        let key = self.key("copied-defence", &settings, &[&surrogate.key]);
        let enabled = label_model.enabled;
        let files: Vec<&str> =
            FILES.into_iter().filter(|file| enabled || !file.contains("label_model")).collect();
        self.stage("copied-defence", &key, &files, |run, checkpoints| {
            let network = &surrogate.value.network;
            CopiedDefence::train(&run.config, sets, network, &run.device, checkpoints, run.progress)?
                .save(&FILES.map(|file| run.path(file)))
        })?;
        let [dae, model, scores] = FILES.map(|file| self.path(file));
        let value = CopiedDefence {
            autoencoder: TrainedAutoencoder::load(&dae, &self.device)?,
            label_model: enabled.then(|| TrainedClassifier::load(&model, &self.device)).transpose()?,
            scores: read_json(&scores)?,
        };
        Ok(Some(Made { value, key }))
    }
}
