//! Whether what an image carries was crafted or is honest damage: the detection head sees that an image is perturbed, not on purpose.
//!
//! Small networks tell by the statistics of the fine structure. They learn from trusted images alone: each attacked by the defender on its own classifier, and each as it
//! is and with honest damage. Each network leaves out a fold of the trusted images; a trusted image is scored by the one that it did not teach, any other by the
//! mean of all. They decide nothing. They say which word the ledger has for an image that is flagged for its fine structure.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use rand::Rng as _;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::statistics::{COUNT, statistics, statistics_of};
use super::threshold::{CalibrationScores, Rule, Threshold};
use crate::artefact::{read_json, write_json};
use crate::attack::{AttackConfig, AttackKind};
use crate::craft::craft_images;
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{LogOdds, Model, Standard, TrainedClassifier, TrainedLogOdds};
use crate::progress::{Progress, Silent};
use crate::rng::{Rng, Seed};
use crate::train::{
    Checkpoints, OptimiserConfig, Task, TrainConfig, Validation, binary_cross_entropies, fit,
};

/// Attacks on each trusted image, and honest versions of it.
const VERSIONS: usize = 6;

/// What they are attacked with: few steps, for it is their kind and size that count.
fn attacks() -> Vec<AttackConfig> {
    let attack = |kind, eps: f64| AttackConfig { step: eps / 3.0, steps: 4, ..AttackConfig::linf(kind, eps) };
    let of = |kind, radii: &[f64]| radii.iter().map(|eps| attack(kind, *eps)).collect::<Vec<_>>();
    [of(AttackKind::IFgsm, &[0.005, 0.01, 0.0157, 0.0314]), of(AttackKind::Fgsm, &[0.005, 0.0157, 0.0314])]
        .concat()
}

/// Of versions with honest noise that a network was not taught with, this percentile is called honest: noise is the honest damage that is most like an attack.
const HONEST: f64 = 97.0;

/// Networks, each of which one fold of the trusted images did not teach.
const FOLDS: usize = 3;

/// Fitted on trusted images; see [`fit`](Self::fit).
#[derive(Clone, Debug)]
pub struct IntentModel {
    /// The network that an image of a fold did not teach, by fold.
    networks: Vec<TrainedLogOdds>,
    calibration: Calibration,
}

/// What the networks make of the images that did not teach them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calibration {
    /// Log-odds above this are called crafted.
    limit: f64,
    /// Of each trusted image as it is.
    trusted: Vec<f64>,
}

/// Versions of trusted images with what they are.
#[derive(Default)]
struct Examples {
    /// Which trusted image each is a version of.
    images: Vec<usize>,
    /// [`COUNT`] each.
    rows: Vec<f32>,
    /// 1 crafted, 0 honest.
    crafted: Vec<f32>,
    /// Which are trusted images as they are, in their order.
    untouched: Vec<usize>,
    /// Which are versions with noise.
    noisy: Vec<usize>,
}

impl Examples {
    fn of(
        trusted: &Dataset,
        classifier: &TrainedClassifier,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let attacks = attacks();
        let mut examples = Self::default();
        let mut pixels: Vec<Vec<u8>> = Vec::new();
        for version in 0..VERSIONS {
            let mut rng = seed.child("versions").step(version).rng("draws");
            let choice: Vec<usize> = (0..trusted.len()).map(|_| rng.random_range(0..attacks.len())).collect();
            for (index, attack) in attacks.iter().enumerate() {
                let chosen: Vec<usize> = (0..trusted.len()).filter(|&image| choice[image] == index).collect();
                let device = classifier.device();
                let crafted = craft_images(trusted, &chosen, attack, classifier, &device, progress)?;
                examples.images.extend(chosen);
                pixels.extend(crafted.into_iter().map(|image| image.pixels));
            }
            examples.crafted.resize(pixels.len(), 1.0);
            for image in 0..trusted.len() {
                let honest = trusted.pixels(image)?;
                let damage = match version {
                    0 => None,
                    1 => Some(HonestDamage::draw_noise(&mut rng)),
                    _ => Some(HonestDamage::draw(&mut rng)),
                };
                match damage {
                    None => examples.untouched.push(pixels.len()),
                    Some(HonestDamage::Noise { .. }) => examples.noisy.push(pixels.len()),
                    Some(_) => {}
                }
                examples.images.push(image);
                pixels.push(match damage {
                    None => honest,
                    Some(damage) => damage.apply(&honest, trusted.size(), &mut rng)?,
                });
            }
            examples.crafted.resize(pixels.len(), 0.0);
        }
        let rows: Vec<Vec<f32>> =
            pixels.par_iter().map(|pixels| statistics(pixels, trusted.size())).collect();
        examples.rows = rows.concat();
        Ok(examples)
    }

    /// The statistics of the examples at `indices`.
    fn rows(&self, indices: &[usize]) -> Vec<f32> {
        indices.iter().flat_map(|&index| &self.rows[COUNT * index..COUNT * (index + 1)]).copied().collect()
    }

    /// The examples of images that are in this fold, or of all others.
    fn of_fold(&self, fold: usize, inside: bool) -> Vec<usize> {
        (0..self.images.len()).filter(|&index| (self.images[index] % FOLDS == fold) == inside).collect()
    }
}

/// What a network learns from.
struct Lesson {
    /// Standardised, [`COUNT`] each.
    rows: Vec<f32>,
    crafted: Vec<f32>,
    device: Device,
}

impl Task<LogOdds> for Lesson {
    type Batch = (Tensor<2>, Tensor<1>);

    fn images(&self) -> usize {
        self.crafted.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Self::Batch> {
        let device = self.device.clone().without_autodiff();
        let rows: Vec<f32> = indices
            .iter()
            .flat_map(|&index| &self.rows[COUNT * index..COUNT * (index + 1)])
            .copied()
            .collect();
        let crafted: Vec<f32> = indices.iter().map(|&index| self.crafted[index]).collect();
        let rows = Tensor::<1>::from_floats(&rows[..], &device).reshape([indices.len(), COUNT]);
        Ok((rows, Tensor::from_floats(&crafted[..], &device)))
    }

    fn loss(
        &self,
        network: &LogOdds,
        (rows, crafted): Self::Batch,
        _: f64,
        _: &mut Rng,
    ) -> Result<Tensor<1>> {
        Ok(binary_cross_entropies(network.forward(rows.autodiff()), crafted.autodiff()).mean())
    }

    /// On what it learns from: the fold that is left out is what it is measured with, and may choose nothing.
    fn validate(&self, network: &LogOdds) -> Result<Validation> {
        let (rows, crafted) =
            self.batch(&(0..self.images()).collect::<Vec<_>>(), &mut Seed::new(0).rng("none"))?;
        let losses = binary_cross_entropies(network.forward(rows), crafted);
        let loss = f64::from(losses.mean().into_scalar::<f32>());
        Ok(Validation { loss, metric: loss, robust: None })
    }
}

/// Of statistics there are few, and of examples not many more.
fn training() -> TrainConfig {
    TrainConfig {
        optimiser: OptimiserConfig::Adam { weight_decay: 1e-3 },
        ..TrainConfig::one_cycle(30, 64, 0.003)
    }
}

impl IntentModel {
    /// From trusted images, attacked on the defender's `classifier`.
    ///
    /// # Errors
    /// What crafting and training report; refuses fewer than two images.
    pub fn fit(
        trusted: &Dataset,
        classifier: &TrainedClassifier,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if trusted.len() < 2 {
            return Err(Error::input("audit", format!("{} trusted images", trusted.len()), "2 or more"));
        }
        progress.task("telling attacks from honest damage", "images");
        let device = classifier.device();
        let examples = Examples::of(trusted, classifier, seed, progress)?;
        let mut networks = Vec::with_capacity(FOLDS);
        let mut untaught = vec![0.0; examples.images.len()];
        for fold in 0..FOLDS {
            let taught = examples.of_fold(fold, false);
            let mut rows = examples.rows(&taught);
            let standard = Standard::of(&rows, COUNT);
            standard.apply(&mut rows);
            let crafted = taught.into_iter().map(|index| examples.crafted[index]).collect();
            let lesson = Lesson { rows, crafted, device: device.clone().without_autodiff().autodiff() };
            let seed = seed.child("folds").step(fold);
            let network = LogOdds::new(COUNT, &lesson.device, &mut seed.rng("weights"));
            // Seconds, and its progress would hide the task's.
            let (network, _) = fit(network, &lesson, &training(), seed, &Checkpoints::none(), &Silent)?;
            progress.check()?;
            let network = TrainedLogOdds::freeze(&network, standard, &device);
            let others = examples.of_fold(fold, true);
            for (&index, found) in others.iter().zip(network.log_odds(examples.rows(&others))?) {
                untaught[index] = found;
            }
            networks.push(network);
        }
        let of = |indices: &[usize]| indices.iter().map(|&index| untaught[index]).collect::<Vec<_>>();
        let rule = Rule::Percentile { percentile: HONEST, margin: 0.0 };
        let limit = Threshold::infer(&CalibrationScores::new(of(&examples.noisy))?, rule)?.value();
        let calibration = Calibration { limit, trusted: of(&examples.untouched) };
        Ok(Self { networks, calibration })
    }

    /// Files of its networks and of what they were calibrated with, by the name of the model.
    pub fn files(name: &str) -> Vec<String> {
        let weights = (1..=FOLDS).map(|fold| format!("{name}-{fold}.safetensors"));
        weights.chain([format!("{name}.json")]).collect()
    }

    /// Writes it to [`files`](Self::files), each atomically.
    pub fn save(&self, paths: &[impl AsRef<Path>]) -> Result<()> {
        let [weights @ .., calibration] = paths else { return Err(files_expected(paths.len())) };
        self.networks.iter().zip(weights).try_for_each(|(network, path)| network.save(path.as_ref()))?;
        write_json(calibration.as_ref(), &self.calibration)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(paths: &[impl AsRef<Path>], device: &Device) -> Result<Self> {
        let [weights @ .., calibration] = paths else { return Err(files_expected(paths.len())) };
        let networks = weights.iter().map(|path| TrainedLogOdds::load(path.as_ref(), COUNT, device));
        Ok(Self { networks: networks.collect::<Result<_>>()?, calibration: read_json(calibration.as_ref())? })
    }

    /// Log-odds that what these images carry was crafted.
    pub(super) fn log_odds(&self, set: &Dataset, indices: &[usize]) -> Result<Vec<f64>> {
        let rows = statistics_of(set, indices)?;
        let mut sums = vec![0.0; indices.len()];
        for network in &self.networks {
            sums.iter_mut().zip(network.log_odds(rows.clone())?).for_each(|(sum, found)| *sum += found);
        }
        Ok(sums.into_iter().map(|sum| sum / self.networks.len() as f64).collect())
    }

    /// The log-odds of the trusted images, each by the network that it did not teach.
    pub(super) fn of_trusted(&self) -> &[f64] {
        &self.calibration.trusted
    }

    /// Whether log-odds are larger than those of nearly all honest images.
    pub(super) fn calls_crafted(&self, log_odds: f64) -> bool {
        log_odds > self.calibration.limit
    }
}

fn files_expected(found: usize) -> Error {
    Error::input("intent model", format!("{found} files"), format!("{}", FOLDS + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ImageSize, Part, Source};
    use crate::network::{Architecture, ClassifierSpec};
    use crate::testing::{blocks, tiny_spec, untrained};

    fn classifier(seed: u64) -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        untrained(spec, seed)
    }

    /// A network for the built-in sample, and some of its images, which come from cameras.
    fn of_the_sample(seed: u64, set: &Dataset) -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, set.classes().len(), 1.0);
        let spec = ClassifierSpec { image_size: [32, 32], ..spec };
        untrained(spec, seed)
    }

    #[test]
    fn steps_of_an_unseen_network_are_told_from_noise_of_the_same_strength() {
        let source = Source::embedded().expect("built in");
        let sample = Dataset::load(&source, Part::Train, ImageSize::default(), &mut |_, _| {}).expect("read");
        let every = |first: usize| sample.subset(&(first..1600).step_by(16).collect::<Vec<_>>());
        let (trusted, others) = (every(0), every(8));
        let intent =
            IntentModel::fit(&trusted, &of_the_sample(5, &sample), Seed::new(1), &Silent).expect("fitted");
        let all: Vec<usize> = (0..others.len()).collect();
        let attack = AttackConfig::linf(AttackKind::Fgsm, 0.0157);
        let unseen = of_the_sample(6, &sample);
        let crafted =
            craft_images(&others, &all, &attack, &unseen, &Device::flex(), &Silent).expect("crafted");
        let mut rng = Seed::new(9).rng("noise");
        let damage = HonestDamage::Noise { sigma: 0.0157 };
        let mut noisy =
            |index: usize| damage.apply(&others.pixels(index).expect("pixels"), others.size(), &mut rng);
        let noise: Vec<_> = all.iter().map(|&index| (index, noisy(index).expect("noise"))).collect();
        let log_odds = |set: Dataset| intent.log_odds(&set, &all).expect("scored");
        let crafted = crafted.into_iter().map(|image| image.pixels).enumerate();
        let crafted = log_odds(others.with_pixels(crafted).expect("the same size"));
        let honest = log_odds(others.with_pixels(noise).expect("the same size"));
        let auroc = crate::evaluate::metrics::auroc(&honest, &crafted).expect("finite");
        let accused = honest.iter().filter(|log_odds| intent.calls_crafted(**log_odds)).count();
        assert!(auroc > 0.85 && accused <= 10, "AUROC {auroc}, {accused} of 100 noisy images accused");
    }

    #[test]
    fn it_is_the_same_whenever_it_is_fitted_with_a_seed_and_from_its_files_and_needs_two_images() {
        let trusted = blocks(12, 4, 1);
        let fit = |set: &Dataset, seed: u64| IntentModel::fit(set, &classifier(5), Seed::new(seed), &Silent);
        let model = fit(&trusted, 1).expect("fitted");
        assert_eq!(model.calibration, fit(&trusted, 1).expect("fitted").calibration);
        assert_ne!(model.calibration, fit(&trusted, 2).expect("fitted").calibration);
        assert_eq!(model.of_trusted().len(), 12);
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<_> =
            IntentModel::files("intent").iter().map(|file| folder.path().join(file)).collect();
        model.save(&paths).expect("saved");
        let read = IntentModel::load(&paths, &Device::flex()).expect("read");
        assert_eq!(model.calibration, read.calibration);
        let all: Vec<usize> = (0..trusted.len()).collect();
        let log_odds = |model: &IntentModel| model.log_odds(&trusted, &all).expect("scored");
        assert_eq!(log_odds(&model), log_odds(&read));
        fit(&trusted.subset(&[0, 5]), 1).expect("two images are enough");
        let error = fit(&trusted.subset(&[0]), 1).expect_err("one image");
        assert!(error.to_string().contains("1 trusted images"), "{error}");
    }
}
