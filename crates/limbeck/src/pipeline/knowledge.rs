//! What the defender's knowledge changes: which images are trusted, and what the autoencoder learns from.

use super::config::ClassifierSection;
use super::run::Run;
use super::sets::Sets;
use super::stages::{Made, Poison};
use crate::artefact::{read_json, write_json};
use crate::dataset::{Dataset, group_folds};
use crate::error::{Error, Result};
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
        let fold_of = folds(audited, &sets.held_out, config.folds, self.config.seed)?;
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

/// The fold of each image, whole groups in one, so that beside each fold some of the `held_out` images are left to choose epochs by.
fn folds(audited: &Dataset, held_out: &[usize], folds: usize, seed: u64) -> Result<Vec<usize>> {
    let mut fold_of = group_folds(audited, folds, seed);
    let all_in_one = |fold_of: &[usize]| {
        held_out.iter().all(|&index| Some(fold_of[index]) == held_out.first().map(|&first| fold_of[first]))
    };
    if all_in_one(&fold_of) {
        // Few groups may fall into one fold by chance: they are dealt apart from the others.
        let apart = group_folds(&audited.subset(held_out), folds, seed);
        held_out.iter().zip(apart).for_each(|(&index, fold)| fold_of[index] = fold);
    }
    if all_in_one(&fold_of) {
        return Err(Error::config(
            "data.split.calibration",
            format!("{} held-out images of one group", held_out.len()),
            "two groups or more, where nothing is trusted",
        ));
    }
    Ok(fold_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::blocks;

    #[test]
    fn beside_every_fold_there_are_held_out_images() {
        let set = blocks(40, 4, 1);
        let as_dealt = group_folds(&set, 2, 3);
        // By chance all of one fold.
        let held_out: Vec<usize> = (0..40).filter(|&index| as_dealt[index] == 0).take(4).collect();
        let dealt = folds(&set, &held_out, 2, 3).expect("dealt");
        for fold in 0..2 {
            assert!(held_out.iter().any(|&index| dealt[index] != fold), "{dealt:?}");
        }
        assert!(
            (0..40).filter(|index| !held_out.contains(index)).all(|index| dealt[index] == as_dealt[index])
        );
        let spread: Vec<usize> = (0..40).collect();
        assert_eq!(folds(&set, &spread, 2, 3).expect("dealt"), as_dealt, "nothing to mend");
        let error = folds(&set, &held_out[..1], 2, 3).expect_err("one image").to_string();
        assert!(error.contains("data.split.calibration") && error.contains("one group"), "{error}");
    }
}
