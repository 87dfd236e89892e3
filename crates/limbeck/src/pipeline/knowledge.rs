//! What the defender's knowledge changes: which images are trusted, and what the autoencoder learns from.

use super::config::ClassifierSection;
use super::run::Run;
use super::sets::Sets;
use super::stages::{Made, Poison};
use crate::artefact::{read_json, write_json};
use crate::dataset::{Dataset, group_folds};
use crate::error::Result;
use crate::network::TrainedClassifier;
use crate::purify::{FoldNetworks, Knowledge, Twins, stand_ins};
use crate::train::Targets;

impl Run<'_> {
    /// The sets as the defender knows them: where nothing is trusted, audited images stand in.
    pub(super) fn known(&mut self, sets: Sets, audited: &Dataset, poison: &Poison) -> Result<Made<Sets>> {
        let config = self.config.knowledge;
        match config.setting {
            Knowledge::Trusted => Ok(Made { value: sets, key: poison.key.clone() }),
            Knowledge::Oracle => {
                Ok(Made { value: sets, key: self.key("knowledge", &config.setting, &[&poison.key]) })
            }
            Knowledge::Untrusted => {
                let stand_ins = self.stand_ins(&sets, audited, &poison.key)?;
                Ok(Made { value: sets.with_stand_ins(audited, &stand_ins.value), key: stand_ins.key })
            }
        }
    }

    /// Trains a classifier and an autoencoder for each fold, and draws stand-ins for trusted images by what they see.
    fn stand_ins(&mut self, sets: &Sets, audited: &Dataset, data: &str) -> Result<Made<Vec<usize>>> {
        let (config, share) = (self.config.knowledge, self.config.data.split.trusted);
        let fold_of = group_folds(audited, config.folds, self.config.seed);
        let ClassifierSection { network, train } = self.config.classifier.clone();
        let (mut networks, mut keys) = (Vec::new(), Vec::new());
        for fold in 0..config.folds {
            let of_others = |positions: &[usize]| {
                let is_other = |index: &&usize| fold_of[**index] != fold;
                audited.subset(&positions.iter().filter(is_other).copied().collect::<Vec<_>>())
            };
            let (fitted, held_out) = (of_others(&sets.fitted), of_others(&sets.held_out));
            let name = |kind: &str| format!("cross-fit/{kind}-{}", fold + 1);
            let classifier = self.classifier(
                &name("classifier"),
                (network, &train),
                1.0,
                &fitted,
                || Ok(Targets::Labels),
                &held_out,
                &[data, &config.folds.to_string()],
            )?;
            let dae = self.autoencoder(&name("dae"), &classifier.key, &fitted, |run, section| {
                let classifier = &classifier.value.network;
                Ok([
                    run.twins(&fitted, &format!("train twins {fold}"), &section.noise, classifier)?,
                    run.twins(&held_out, &format!("calibration twins {fold}"), &section.noise, classifier)?,
                ])
            })?;
            let of_fold =
                FoldNetworks { autoencoder: dae.value.network, classifier: classifier.value.network };
            networks.push(of_fold);
            keys.push(dae.key);
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let key = self.key("stand-ins", &(config, share), &keys);
        let file = "stand_ins.json";
        self.stage("stand-ins", &key, &[file], |run, _| {
            let (shares, seed) = ([share, config.assumed_poison], run.seed("stand-ins"));
            write_json(&run.path(file), &stand_ins(audited, &fold_of, &networks, shares, seed, run.progress)?)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }

    /// What the autoencoder learns from: twins that the defender crafts; an oracle knows the poison's own too.
    pub(super) fn taught(
        &self,
        sets: &Sets,
        audited: &Dataset,
        poison: &Poison,
        classifier: &TrainedClassifier,
    ) -> Result<Twins> {
        let noise = &self.config.dae.noise;
        if self.config.knowledge.setting != Knowledge::Oracle {
            return self.twins(audited, "train twins", noise, classifier);
        }
        let Twins { images, twins } = self.twins(&sets.train, "train twins", noise, classifier)?;
        let mut poisoned = Vec::new();
        for image in poison.poisoned.iter().flat_map(|set| &set.images) {
            // A wrong label is no perturbation.
            if image.pixels != images.pixels(image.index)? {
                poisoned.push((image.index, image.pixels.clone()));
            }
        }
        Ok(Twins { images, twins: twins.with_pixels(poisoned)? })
    }
}
