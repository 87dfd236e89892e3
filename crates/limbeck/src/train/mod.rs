//! Training: one loop for every network, losses as closures over a batch, schedules, augmentation, checkpoints.
//!
//! The loop knows nothing of classifiers or autoencoders. It draws batches, steps the optimiser, validates after each
//! epoch, keeps the best weights by its validation, stops early when asked to, and can go on from its last epoch.

mod adversarial;
mod augment;
mod average;
mod checkpoint;
mod classifier;
mod ensemble;
mod loss;
mod optimiser;
mod robust_distillation;
mod schedule;
mod weight_perturbation;

pub use adversarial::CraftingConfig;
pub use augment::{Augmentation, augment};
pub use checkpoint::Checkpoints;
pub(crate) use classifier::INFERENCE_BATCH;
pub use classifier::{Lesson, RobustDistillation, Targets, teach_classifier, train_classifier};
pub use ensemble::Ensemble;
pub(crate) use loss::binary_cross_entropies;
pub use loss::{entropy_of, scaled_divergence, soft_cross_entropy};
pub use optimiser::OptimiserConfig;
pub(crate) use robust_distillation::RobustLoss;
pub use schedule::Schedule;
pub use weight_perturbation::WeightPerturbation;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use average::Average;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};

/// How a network is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images in a step.
    pub batch: usize,
    /// The optimiser and its settings.
    pub optimiser: OptimiserConfig,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// How the learning rate moves over the steps.
    pub schedule: Schedule,
    /// Stop after this many epochs without a better validation; 0 = never.
    #[serde(default)]
    pub patience: usize,
    /// Label smoothing (Szegedy 2016), off by default.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Decay of the running mean of the weights, which then is the network that is validated and kept (Izmailov 2018; 0.999 is usual); 0 = off.
    #[serde(default)]
    pub averaging: f64,
    /// Random changes to training images.
    #[serde(default)]
    pub augmentation: Augmentation,
}

impl TrainConfig {
    /// Adam at a rate that rises over the first fifth and falls after (Smith 2018), without anything that regularises.
    pub(crate) fn one_cycle(epochs: usize, batch: usize, learning_rate: f64) -> Self {
        Self {
            epochs,
            batch,
            optimiser: OptimiserConfig::Adam { weight_decay: 0.0 },
            learning_rate,
            schedule: Schedule::OneCycle { warmup: 0.2 },
            patience: 0,
            label_smoothing: 0.0,
            averaging: 0.0,
            augmentation: Augmentation::default(),
        }
    }

    /// The same with as many epochs more as `least` steps on so many images take.
    pub fn at_least(&self, least: usize, images: usize) -> Self {
        let steps = images.div_ceil(self.batch).max(1);
        Self { epochs: self.epochs.max(least.div_ceil(steps)), ..self.clone() }
    }

    /// Refuses settings that are not finite or out of range; `key` names the table in the config.
    pub fn check(&self, key: &str) -> Result<()> {
        let positive = |name: &str, value: usize| match value {
            0 => Err(Error::config(format!("{key}.{name}"), value, "1 or more")),
            _ => Ok(()),
        };
        positive("epochs", self.epochs)?;
        positive("batch", self.batch)?;
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::config(
                format!("{key}.learning_rate"),
                self.learning_rate,
                "a finite number above 0",
            ));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(Error::config(
                format!("{key}.label_smoothing"),
                self.label_smoothing,
                "a share in [0, 1)",
            ));
        }
        if !(0.0..1.0).contains(&self.averaging) {
            return Err(Error::config(format!("{key}.averaging"), self.averaging, "a decay in [0, 1)"));
        }
        self.optimiser.check(&format!("{key}.optimiser"))?;
        self.schedule.check(&format!("{key}.schedule"))?;
        self.augmentation.check(&format!("{key}.augmentation"))
    }
}

/// Figures of a network on the calibration split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean loss, the figure that picks the best epoch unless `robust` is there.
    pub loss: f64,
    /// What the network is for: accuracy of a classifier, mean reconstruction error of an autoencoder.
    pub metric: f64,
    /// Accuracy under attack, of a network that is trained on adversarial examples; of a regression 1 − its mean squared error in standard deviations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust: Option<f64>,
}

impl Validation {
    /// Whether a network with these figures is kept instead of one with `other`: more robust, and of equally robust ones the one of smaller loss.
    ///
    /// Robust accuracy falls again while training goes on, and clean figures do not show it (Rice 2020).
    fn is_better_than(&self, other: &Self) -> bool {
        match (self.robust, other.robust) {
            (Some(robust), Some(others)) if robust != others => robust > others,
            // A loss that is no number is worse than any that is one.
            _ => self.loss < other.loss || (other.loss.is_nan() && !self.loss.is_nan()),
        }
    }
}

/// One finished epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean loss over the training batches.
    pub train_loss: f64,
    /// Figures on the calibration split.
    pub validation: Validation,
}

/// What a network learns from; see [`fit`].
pub trait Task<M>: Sync {
    /// A batch, ready for the network.
    type Batch: Send;

    /// Number of training images.
    fn images(&self) -> usize;

    /// The batch of the images at `indices`, drawing augmentation and noise from `rng`.
    ///
    /// Called on a thread of its own, one batch ahead of the network.
    fn batch(&self, indices: &[usize], rng: &mut Rng) -> Result<Self::Batch>;

    /// Mean loss of a batch, drawing dropout from `rng`; `place` is the share of the training that lies behind.
    fn loss(&self, network: &M, batch: Self::Batch, place: f64, rng: &mut Rng) -> Result<Tensor<1>>;

    /// Figures on the calibration split, with the network in inference mode.
    fn validate(&self, network: &M) -> Result<Validation>;

    /// Whether training goes on after these epochs, with the network of the last one in inference mode.
    ///
    /// Asked again about an epoch that a killed run had not saved yet.
    fn goes_on(&self, _network: &M, _epochs: &[Epoch]) -> Result<bool> {
        Ok(true)
    }
}

/// Trains `network` on `task` and returns it with its best weights, and the learning curve.
///
/// Every epoch draws from a seed of its own, so a run that goes on from a checkpoint ends with the same bytes as one that was never stopped.
///
/// # Errors
/// [`Error::Numeric`] when the loss leaves the finite numbers, [`Error::Interrupted`] when the caller asks to stop.
pub fn fit<M: Module + 'static>(
    mut network: M,
    task: &impl Task<M>,
    config: &TrainConfig,
    seed: Seed,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(M, Vec<Epoch>)> {
    let images = task.images();
    if images == 0 {
        return Err(Error::input("training", "no images", "at least one"));
    }
    let steps = images.div_ceil(config.batch);
    let mut optimiser = config.optimiser.init();
    let mut history = History::default();
    let mut average = (config.averaging > 0.0).then(|| Average::new(&network, config.averaging));
    if let Some(state) = checkpoints.load(&network)? {
        optimiser = state.load_optimiser(optimiser)?;
        average = average.map(|average| state.load_average(average)).transpose()?;
        (network, history) = (state.network, state.history);
    }
    while history.epochs.len() < config.epochs && !history.exhausted(config.patience) {
        let epoch = history.epochs.len();
        let epoch_seed = seed.child("epochs").step(epoch);
        let mut order: Vec<usize> = (0..images).collect();
        order.shuffle(&mut epoch_seed.rng("order"));
        let mut rng = epoch_seed.rng("dropout");
        let mut loss_sum = 0.0;
        std::thread::scope(|scope| -> Result<()> {
            let (sender, batches) = std::sync::mpsc::sync_channel(1);
            let order = &order;
            scope.spawn(move || {
                let mut rng = epoch_seed.rng("batches");
                order
                    .chunks(config.batch)
                    // Nobody listens any more once the other side has failed.
                    .try_for_each(|indices| sender.send((indices.len(), task.batch(indices, &mut rng))))
            });
            for (step, (size, batch)) in batches.into_iter().enumerate() {
                progress.check()?;
                let (done, all) = (epoch * steps + step, config.epochs * steps);
                let loss = task.loss(&network, batch?, done as f64 / all as f64, &mut rng)?;
                let value = f64::from(loss.clone().into_scalar::<f32>());
                if !value.is_finite() {
                    return Err(Error::Numeric {
                        operation: "training",
                        found: format!(
                            "a loss of {value} in epoch {}, step {}: lower the learning rate",
                            epoch + 1,
                            step + 1
                        ),
                    });
                }
                loss_sum += value * size as f64;
                let gradients = GradientsParams::from_grads(loss.backward(), &network);
                let rate = config.schedule.rate(config.learning_rate, done, all);
                network = optimiser.step(rate, network.clone(), gradients);
                average = average.take().map(|average| average.update(&network, done));
                progress.advance(
                    (epoch * images + step * config.batch + size) as u64,
                    (config.epochs * images) as u64,
                );
            }
            Ok(())
        })?;
        let valid = network.valid();
        let finished = average.as_ref().map_or(&valid, |average| &average.network);
        let validation = task.validate(finished)?;
        history.push(Epoch { train_loss: loss_sum / images as f64, validation }, finished)?;
        if !task.goes_on(finished, &history.epochs)? {
            break;
        }
        checkpoints.save(&network, average.as_ref(), &optimiser, &history)?;
    }
    let network = history.best_network(network)?;
    Ok((network, history.epochs))
}

/// The learning curve so far, and the weights of its best epoch.
#[derive(Default)]
struct History {
    epochs: Vec<Epoch>,
    best: Option<(usize, checkpoint::Weights)>,
}

impl History {
    fn push<M: Module>(&mut self, epoch: Epoch, network: &M) -> Result<()> {
        let better = self
            .best
            .as_ref()
            .is_none_or(|(index, _)| epoch.validation.is_better_than(&self.epochs[*index].validation));
        if better {
            self.best = Some((self.epochs.len(), checkpoint::Weights::of(network)?));
        }
        self.epochs.push(epoch);
        Ok(())
    }

    fn exhausted(&self, patience: usize) -> bool {
        let since_best = self.best.as_ref().map_or(0, |(index, _)| self.epochs.len() - 1 - index);
        patience > 0 && since_best >= patience
    }

    fn best_network<M: Module>(&self, network: M) -> Result<M> {
        match &self.best {
            Some((_, weights)) => weights.put_into(network),
            None => Ok(network),
        }
    }
}

#[cfg(test)]
mod tests;
