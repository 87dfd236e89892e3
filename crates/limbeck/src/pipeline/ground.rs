//! What an autoencoder is trained on and measured with: the stages of a run before it, for a search that trains many.
//!
//! Images, classifier and twins are those of the run's own stages, from the same seeds: an autoencoder that is trained here with some settings is the
//! one that a run with these settings trains.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::config::RunConfig;
use super::manifest::Kind;
use super::run::Run;
use super::sets::Sets;
use crate::artefact::write_atomically;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{TrainedAutoencoder, TrainedClassifier};
use crate::purify::{NoiseConfig, Twins, Watch, train_watched_autoencoder};
use crate::train::{Checkpoints, Epoch};

/// The images that a defender has. Test images and the truth about poison stay behind.
pub(crate) struct Images {
    sets: Sets,
    /// To be audited, poisoned if there is a simulated attacker.
    audited: Dataset,
    /// Hash of everything that made them.
    pub(crate) key: String,
}

impl Images {
    /// Name of the set in reports.
    pub(crate) fn name(&self) -> &str {
        &self.sets.name
    }

    /// How many an autoencoder is trained on.
    pub(crate) fn audited(&self) -> usize {
        self.audited.len()
    }
}

/// What an autoencoder learns from.
pub(crate) struct Ground {
    /// The defender's classifier, trained on the audited images as they are.
    pub(crate) classifier: TrainedClassifier,
    /// Audited images and their twins.
    pub(crate) train: Twins,
    /// Calibration images and their twins, which pick the best epoch.
    pub(crate) calibration: Twins,
    key: String,
}

impl Ground {
    /// Whether two configs have the same ground, images given.
    pub(crate) fn is_shared(one: &RunConfig, other: &RunConfig) -> bool {
        one.seed == other.seed
            && one.classifier == other.classifier
            && twin_settings(&one.dae.noise) == twin_settings(&other.dae.noise)
    }
}

/// All that twins depend on besides images and classifier.
fn twin_settings(noise: &NoiseConfig) -> (bool, &[crate::attack::AttackConfig]) {
    (noise.adversarial > 0.0, &noise.twins)
}

impl Run<'_> {
    /// Reads the images, and poisons them if the config has a simulated attacker.
    pub(crate) fn images(&mut self) -> Result<Images> {
        let sets = self.start(Kind::Audited)?;
        let poison = self.poison(&sets, sets.content_hash())?;
        let audited = match &poison.poisoned {
            Some(poisoned) => poisoned.apply(&sets.train)?,
            None => sets.train.clone(),
        };
        Ok(Images { sets, audited, key: poison.key })
    }

    /// Trains the classifier and crafts the twins, or reads them.
    pub(crate) fn ground(&mut self, images: &Images) -> Result<Ground> {
        let undefended = self.undefended(&images.sets, &images.audited, &images.key)?;
        let (classifier, noise) = (undefended.value.network, self.config.dae.noise.clone());
        let key = self.key("twins", &twin_settings(&noise), &[&undefended.key]);
        let files = ["twins-train.safetensors", "twins-calibration.safetensors"];
        let sets = [(&images.audited, "train twins"), (&images.sets.trusted, "calibration twins")];
        self.stage("twins", &key, &files, |run, _| {
            files.iter().zip(sets).try_for_each(|(file, (set, name))| {
                save(&run.path(file), &run.twins(set, name, &noise, &classifier)?.twins)
            })
        })?;
        let [train, calibration] = [0, 1].map(|index| load(&self.path(files[index]), sets[index].0));
        Ok(Ground { classifier, train: train?, calibration: calibration?, key: undefended.key })
    }

    /// Calibration images and twins of them to measure with, whatever share of its inputs an autoencoder is trained on twins for.
    pub(crate) fn yardstick(&mut self, images: &Images, ground: &Ground) -> Result<Twins> {
        let mut noise = NoiseConfig { adversarial: 1.0, ..self.config.dae.noise.clone() };
        if noise.twins.is_empty() {
            noise.twins = NoiseConfig::default().twins;
        }
        let key = self.key("yardstick", &twin_settings(&noise), &[&ground.key]);
        let file = "yardstick.safetensors";
        self.stage("yardstick", &key, &[file], |run, _| {
            let twins = run.twins(&images.sets.trusted, "calibration twins", &noise, &ground.classifier)?;
            save(&run.path(file), &twins.twins)
        })?;
        load(&self.path(file), &images.sets.trusted)
    }

    /// Trains the config's autoencoder under the eyes of `watch`.
    pub(crate) fn watched_dae(
        &self,
        ground: &Ground,
        checkpoints: &Checkpoints,
        watch: &Watch<'_>,
    ) -> Result<(TrainedAutoencoder, Vec<Epoch>)> {
        let section = &self.config.dae;
        train_watched_autoencoder(
            section.spec(&ground.train.images),
            &ground.train,
            &ground.calibration,
            &section.noise,
            section.head_weight,
            &section.training(ground.train.images.len()),
            &self.device,
            self.seed("dae"),
            checkpoints,
            self.progress,
            watch,
        )
    }
}

/// Writes the pixels of all images as one tensor `[images, 3 · height · width]`, atomically.
fn save(path: &Path, set: &Dataset) -> Result<()> {
    let unfit = |error: safetensors::SafeTensorError| {
        Error::artefact(path, error.to_string(), "pixels that can be serialised")
    };
    let mut pixels = Vec::with_capacity(set.len() * set.size().bytes());
    for index in 0..set.len() {
        pixels.extend(set.pixels(index)?);
    }
    let view = TensorView::new(Dtype::U8, vec![set.len(), set.size().bytes()], &pixels).map_err(unfit)?;
    let bytes = safetensors::serialize([("pixels", view)], None).map_err(unfit)?;
    write_atomically(path, |file| file.write_all(&bytes).map_err(Error::io("write", path)))
}

/// The images of `set` with their twins as [`save`] wrote them.
fn load(path: &Path, set: &Dataset) -> Result<Twins> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let shape = [set.len(), set.size().bytes()];
    let unfit = |found: String| Error::artefact(path, found, format!("bytes of shape {shape:?}"));
    let file = SafeTensors::deserialize(&bytes).map_err(|error| unfit(error.to_string()))?;
    let view = file.tensor("pixels").map_err(|error| unfit(error.to_string()))?;
    if view.dtype() != Dtype::U8 || view.shape() != shape {
        return Err(unfit(format!("{:?} of shape {:?}", view.dtype(), view.shape())));
    }
    let pixels = view.data().chunks_exact(shape[1].max(1)).map(<[u8]>::to_vec);
    Ok(Twins { images: set.clone(), twins: set.with_pixels(pixels.enumerate())? })
}
