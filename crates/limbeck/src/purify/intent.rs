//! Whether what an image carries was crafted or is honest damage: the detection head sees that an image is perturbed, not on purpose.
//!
//! A small network tells by the statistics of the fine structure. It learns from trusted images alone: each attacked by the defender on its own classifier, and each as it
//! is and with honest damage. Two networks learn from half of the trusted images each; a trusted image is scored by the one that it did not teach, any other by the
//! mean of both. It decides nothing. It says which word the ledger has for an image that is flagged for its fine structure.

use burn::tensor::{Device, Tensor};
use rand::Rng as _;

use super::dae::binary_cross_entropies;
use super::statistics::{COUNT, statistics, statistics_of};
use super::threshold::{CalibrationScores, Rule, Threshold};
use crate::attack::{AttackConfig, AttackKind};
use crate::craft::craft_images;
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{LogOdds, Model, TrainedClassifier};
use crate::progress::{Progress, Silent};
use crate::rng::{Rng, Seed};
use crate::tensors::values;
use crate::train::{
    Augmentation, Checkpoints, OptimiserConfig, Schedule, Task, TrainConfig, Validation, fit,
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

/// The draws are the same in every run, so that whoever fits it again on the same images has the same.
const SEED: u64 = 0;

/// Fitted on trusted images; see [`Intent::fit`].
#[derive(Clone, Debug)]
pub(super) struct Intent {
    halves: Vec<Half>,
    limit: f64,
    /// Log-odds of the trusted images, each by the network that it did not teach.
    trusted: Vec<f64>,
}

/// A network with what its inputs are standardised with.
#[derive(Clone, Debug)]
struct Half {
    network: LogOdds,
    standard: Standard,
    device: Device,
}

impl Half {
    /// Of rows of [`COUNT`] statistics.
    fn log_odds(&self, mut rows: Vec<f32>) -> Result<Vec<f64>> {
        self.standard.apply(&mut rows);
        let found = values(self.network.forward(inputs(&rows, &self.device)))?;
        Ok(found.into_iter().map(f64::from).collect())
    }
}

/// Mean and reciprocal standard deviation of each statistic.
#[derive(Clone, Debug)]
struct Standard(Vec<[f32; 2]>);

impl Standard {
    /// No further from the mean than this many standard deviations is an input: what was never seen is not to shout.
    const FURTHEST: f32 = 5.0;

    fn of(rows: &[f32]) -> Self {
        let count = (rows.len() / COUNT) as f32;
        let column = |column: usize| rows.iter().skip(column).step_by(COUNT);
        let of = |statistic: usize| {
            let mean = column(statistic).sum::<f32>() / count;
            let variance = column(statistic).map(|value| (value - mean).powi(2)).sum::<f32>() / count;
            [mean, if variance > 0.0 { variance.sqrt().recip() } else { 0.0 }]
        };
        Self((0..COUNT).map(of).collect())
    }

    fn apply(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(COUNT) {
            for (value, [mean, scale]) in row.iter_mut().zip(&self.0) {
                *value = ((*value - mean) * scale).clamp(-Self::FURTHEST, Self::FURTHEST);
            }
        }
    }
}

/// `[rows, COUNT]`.
fn inputs(rows: &[f32], device: &Device) -> Tensor<2> {
    Tensor::<1>::from_floats(rows, device).reshape([rows.len() / COUNT, COUNT])
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
    /// Which are versions with noise.
    noisy: Vec<usize>,
}

impl Examples {
    fn of(trusted: &Dataset, classifier: &TrainedClassifier, progress: &dyn Progress) -> Result<Self> {
        let seed = Seed::new(SEED).child("intent");
        let attacks = attacks();
        let mut examples = Self::default();
        for version in 0..VERSIONS {
            let mut rng = seed.child("versions").step(version).rng("draws");
            let choice: Vec<usize> = (0..trusted.len()).map(|_| rng.random_range(0..attacks.len())).collect();
            for (index, attack) in attacks.iter().enumerate() {
                let chosen: Vec<usize> = (0..trusted.len()).filter(|&image| choice[image] == index).collect();
                let crafted =
                    craft_images(trusted, &chosen, attack, classifier, &classifier.device(), progress)?;
                for (image, crafted) in chosen.into_iter().zip(crafted) {
                    examples.push(trusted, image, &crafted.pixels, 1.0);
                }
            }
            for image in 0..trusted.len() {
                let pixels = trusted.pixels(image)?;
                let damage = match version {
                    0 => None,
                    1 => Some(HonestDamage::draw_noise(&mut rng)),
                    _ => Some(HonestDamage::draw(&mut rng)),
                };
                let honest = match damage {
                    None => pixels,
                    Some(damage) => damage.apply(&pixels, trusted.size(), &mut rng)?,
                };
                if let Some(HonestDamage::Noise { .. }) = damage {
                    examples.noisy.push(examples.images.len());
                }
                examples.push(trusted, image, &honest, 0.0);
            }
        }
        Ok(examples)
    }

    fn push(&mut self, set: &Dataset, image: usize, pixels: &[u8], crafted: f32) {
        self.images.push(image);
        self.rows.extend(statistics(pixels, set.size()));
        self.crafted.push(crafted);
    }

    /// Those of images of one parity.
    fn half(&self, parity: usize) -> Self {
        let mut half = Self::default();
        for (index, image) in self.images.iter().enumerate().filter(|(_, image)| *image % 2 == parity) {
            half.images.push(*image);
            half.rows.extend(&self.rows[COUNT * index..COUNT * (index + 1)]);
            half.crafted.push(self.crafted[index]);
        }
        half
    }
}

/// What a network learns from, and the other half, on which its best epoch is chosen.
struct Lesson {
    train: Examples,
    others: Examples,
    device: Device,
}

impl Task<LogOdds> for Lesson {
    type Batch = (Tensor<2>, Tensor<1>);

    fn images(&self) -> usize {
        self.train.images.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Self::Batch> {
        let device = self.device.clone().without_autodiff();
        let rows: Vec<f32> = indices
            .iter()
            .flat_map(|&index| &self.train.rows[COUNT * index..COUNT * (index + 1)])
            .copied()
            .collect();
        let crafted: Vec<f32> = indices.iter().map(|&index| self.train.crafted[index]).collect();
        Ok((inputs(&rows, &device), Tensor::from_floats(&crafted[..], &device)))
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

    fn validate(&self, network: &LogOdds) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let found = network.forward(inputs(&self.others.rows, &device));
        let crafted = Tensor::from_floats(&self.others.crafted[..], &device);
        let loss = f64::from(binary_cross_entropies(found, crafted).mean().into_scalar::<f32>());
        Ok(Validation { loss, metric: loss, robust: None })
    }
}

/// Of statistics there are few, and of examples not many more.
fn training() -> TrainConfig {
    TrainConfig {
        epochs: 30,
        batch: 64,
        optimiser: OptimiserConfig::Adam { weight_decay: 1e-3 },
        learning_rate: 0.003,
        schedule: Schedule::OneCycle { warmup: 0.2 },
        patience: 0,
        label_smoothing: 0.0,
        averaging: 0.0,
        augmentation: Augmentation::default(),
    }
}

impl Intent {
    /// From trusted images, attacked on the defender's `classifier`.
    ///
    /// # Errors
    /// What crafting and training report; refuses fewer than two images.
    pub(super) fn fit(
        trusted: &Dataset,
        classifier: &TrainedClassifier,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if trusted.len() < 2 {
            return Err(Error::input("audit", format!("{} trusted images", trusted.len()), "2 or more"));
        }
        progress.task("telling attacks from honest damage", "images");
        let device = classifier.device();
        let examples = Examples::of(trusted, classifier, progress)?;
        let mut halves = Vec::with_capacity(2);
        for parity in [0, 1] {
            let (mut train, mut others) = (examples.half(parity), examples.half(1 - parity));
            let standard = Standard::of(&train.rows);
            standard.apply(&mut train.rows);
            standard.apply(&mut others.rows);
            let lesson = Lesson { train, others, device: device.clone().without_autodiff().autodiff() };
            let seed = Seed::new(SEED).child("intent").child("halves").step(parity);
            let network = LogOdds::new(COUNT, &lesson.device, &mut seed.rng("weights"));
            // Seconds, and its progress would hide the task's.
            let (network, _) = fit(network, &lesson, &training(), seed, &Checkpoints::none(), &Silent)?;
            progress.check()?;
            halves.push(Half {
                network: burn::module::Module::valid(&network),
                standard,
                device: device.clone().without_autodiff(),
            });
        }
        let untaught = |rows: &[f32], image: usize| -> Result<f64> {
            Ok(halves[1 - image % 2].log_odds(rows.to_vec())?[0])
        };
        let of = |&index: &usize| {
            untaught(&examples.rows[COUNT * index..COUNT * (index + 1)], examples.images[index])
        };
        let honest = examples.noisy.iter().map(of).collect::<Result<Vec<_>>>()?;
        let rule = Rule::Percentile { percentile: HONEST, margin: 0.0 };
        let limit = Threshold::infer(&CalibrationScores::new(honest)?, rule)?.value();
        let trusted = (0..trusted.len())
            .map(|image| untaught(&statistics(&trusted.pixels(image)?, trusted.size()), image))
            .collect::<Result<_>>()?;
        Ok(Self { halves, limit, trusted })
    }

    /// Log-odds that what these images carry was crafted.
    pub(super) fn log_odds(&self, set: &Dataset, indices: &[usize]) -> Result<Vec<f64>> {
        let rows = statistics_of(set, indices)?;
        let mut sums = vec![0.0; indices.len()];
        for half in &self.halves {
            sums.iter_mut().zip(half.log_odds(rows.clone())?).for_each(|(sum, found)| *sum += found);
        }
        Ok(sums.into_iter().map(|sum| sum / self.halves.len() as f64).collect())
    }

    /// The log-odds of the trusted images, each by the network that it did not teach.
    pub(super) fn of_trusted(&self) -> &[f64] {
        &self.trusted
    }

    /// Whether log-odds are larger than those of nearly all honest images.
    pub(super) fn calls_crafted(&self, log_odds: f64) -> bool {
        log_odds > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{ImageSize, Part, Source};
    use crate::network::{Architecture, ClassifierSpec};
    use crate::testing::{blocks, tiny_spec};

    fn classifier(seed: u64) -> TrainedClassifier {
        let (device, spec) = (Device::flex(), tiny_spec(Architecture::Vgg, 4, 1.0));
        let network = spec.init(&device, &mut Seed::new(seed).rng("weights")).expect("the spec fits");
        TrainedClassifier::freeze(&network, spec, &device)
    }

    /// A network for the built-in sample, and some of its images, which come from cameras.
    fn of_the_sample(seed: u64, set: &Dataset) -> TrainedClassifier {
        let (device, spec) = (Device::flex(), tiny_spec(Architecture::Vgg, set.classes().len(), 1.0));
        let spec = ClassifierSpec { image_size: [32, 32], ..spec };
        let network = spec.init(&device, &mut Seed::new(seed).rng("weights")).expect("the spec fits");
        TrainedClassifier::freeze(&network, spec, &device)
    }

    #[test]
    fn steps_of_an_unseen_network_are_told_from_noise_of_the_same_strength() {
        let source = Source::embedded().expect("built in");
        let sample = Dataset::load(&source, Part::Train, ImageSize::default(), &mut |_, _| {}).expect("read");
        let every = |first: usize| sample.subset(&(first..1600).step_by(16).collect::<Vec<_>>());
        let (trusted, others) = (every(0), every(8));
        let intent = Intent::fit(&trusted, &of_the_sample(5, &sample), &Silent).expect("fitted");
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
    fn it_is_the_same_whenever_it_is_fitted_and_needs_two_images() {
        let trusted = blocks(12, 4, 1);
        let fit = || Intent::fit(&trusted, &classifier(5), &Silent).expect("fitted");
        let (first, second) = (fit(), fit());
        assert_eq!((first.of_trusted(), first.limit), (second.of_trusted(), second.limit));
        assert_eq!(first.of_trusted().len(), 12);
        let error = Intent::fit(&trusted.subset(&[0]), &classifier(5), &Silent).expect_err("one image");
        assert!(error.to_string().contains("1 trusted images"), "{error}");
    }
}
