//! Training a predictor: cross-entropy at temperature T on classes or soft labels, mean squared error on quantities, on rows as they are or perturbed against it; or likeness to a
//! teacher on the perturbed ones.
//!
//! A tenth of the rows teaches nothing and picks the best epoch.

use burn::tensor::{Device, Tensor};
use limbeck_kernels::mean_squared_error;
use rand::seq::SliceRandom;

use super::network::{Mlp, MlpSpec, TrainedMlp};
use super::scale::Answers;
use super::set::{VectorSet, matrix, picked};
use super::squared_error::against;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::rng::{Rng, Seed};
use crate::tensors::{argmax, values};
use crate::train::{
    Checkpoints, CraftingConfig, INFERENCE_BATCH, RobustLoss, Task, TrainConfig, Validation, fit,
    soft_cross_entropy,
};

/// What a predictor learns from.
#[derive(Clone, Copy)]
pub(super) struct Lesson<'a> {
    /// Rows with their answers.
    pub(super) rows: &'a VectorSet,
    /// What it is to answer instead, row by row: soft labels, or a teacher's values.
    pub(super) taught: Option<&'a [f32]>,
    /// How rows are perturbed against it; `None` = they are not.
    pub(super) adversarial: Option<CraftingConfig>,
    /// A teacher of classes that it is to be like on the perturbed rows; the answers are then asked of the rows as they are.
    pub(super) imitated: Option<(&'a TrainedMlp, RobustLoss)>,
}

impl<'a> Lesson<'a> {
    /// The rows' own answers, of the rows as they are.
    pub(super) fn plain(rows: &'a VectorSet) -> Self {
        Self { rows, taught: None, adversarial: None, imitated: None }
    }
}

/// How every predictor is trained: settings, device, who looks on.
#[derive(Clone, Copy)]
pub(super) struct School<'a> {
    pub(super) train: &'a TrainConfig,
    pub(super) device: &'a Device,
    pub(super) progress: &'a dyn Progress,
}

/// One row in so many picks the best epoch.
const VALIDATION: usize = 10;

/// Rows that teach and rows that validate, drawn by the seed; of both at least one.
pub(super) fn apart(rows: usize, seed: Seed) -> Result<(Vec<usize>, Vec<usize>)> {
    if rows < 2 {
        return Err(Error::input("training on vectors", format!("{rows} rows"), "2 or more"));
    }
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut seed.rng("validation rows"));
    let validation = order.split_off(rows - (rows / VALIDATION).max(1));
    Ok((order, validation))
}

struct PredictorTask<'a> {
    lesson: Lesson<'a>,
    spec: &'a MlpSpec,
    fitted: Vec<usize>,
    validation: Vec<usize>,
    device: Device,
    seed: Seed,
}

/// Rows of a step.
struct Batch {
    /// Their places in the set.
    rows: Vec<usize>,
    /// `[batch, 1, 1, features]`, off the autodiff device.
    inputs: Tensor<4>,
    /// `[batch, outputs]`, likewise.
    targets: Tensor<2>,
}

impl PredictorTask<'_> {
    fn frozen(&self, network: &Mlp) -> TrainedMlp {
        TrainedMlp::freeze(network, self.spec.clone(), &self.device)
    }

    /// T · CE(p, softmax(z/T)), scaled back so that one learning rate fits every T, or the mean squared error.
    fn loss_of(&self, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        let temperature = self.spec.temperature;
        match self.lesson.rows.answers() {
            Answers::Classes(..) => soft_cross_entropy(outputs, targets, temperature).mul_scalar(temperature),
            Answers::Values(..) => mean_squared_error(outputs, targets),
        }
    }

    /// Examples against the network as it is.
    fn examples(
        &self,
        network: &Mlp,
        crafting: &CraftingConfig,
        rows: &[usize],
        inputs: Tensor<4>,
        place: f64,
        rng: &mut Rng,
    ) -> Result<Tensor<4>> {
        against(&self.frozen(network), self.lesson.rows, rows, |model, labels| {
            crafting.examples(model, inputs, labels, place, rng)
        })
    }

    /// Accuracy, or 1 − mean squared error in standard deviations, of a tenth of the rows under attack.
    fn robust(&self, network: &Mlp, crafting: &CraftingConfig) -> Result<f64> {
        let crafting = crafting.for_validation();
        let mut rng = self.seed.rng("validation starts");
        let device = self.device.clone().without_autodiff();
        let mut sum = 0.0;
        for chunk in self.validation.chunks(INFERENCE_BATCH) {
            let inputs = self.lesson.rows.batch(chunk, &device);
            let examples = self.examples(network, &crafting, chunk, inputs, 1.0, &mut rng)?;
            sum += self.quality(network, examples, chunk)? * chunk.len() as f64;
        }
        Ok(sum / self.validation.len() as f64)
    }

    fn quality(&self, network: &Mlp, inputs: Tensor<4>, rows: &[usize]) -> Result<f64> {
        let outputs = network.outputs(inputs);
        match self.lesson.rows.answers() {
            Answers::Classes(..) => {
                let labels = self.lesson.rows.labels(rows);
                let right = argmax(outputs)?.iter().zip(&labels).filter(|(a, b)| a == b).count();
                Ok(right as f64 / rows.len() as f64)
            }
            Answers::Values(_, width) => {
                let targets = matrix(self.lesson.rows.targets(rows), *width, &outputs.device());
                Ok(1.0 - f64::from(mean_squared_error(outputs, targets).into_scalar::<f32>()))
            }
        }
    }
}

impl Task<Mlp> for PredictorTask<'_> {
    type Batch = Batch;

    fn images(&self) -> usize {
        self.fitted.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Rng) -> Result<Batch> {
        let plain = self.device.clone().without_autodiff();
        let rows: Vec<usize> = indices.iter().map(|&index| self.fitted[index]).collect();
        let outputs = self.lesson.rows.outputs();
        let targets = match self.lesson.taught {
            Some(taught) => picked(taught, outputs, &rows),
            None => self.lesson.rows.targets(&rows),
        };
        Ok(Batch {
            inputs: self.lesson.rows.batch(&rows, &plain),
            targets: matrix(targets, outputs, &plain),
            rows,
        })
    }

    fn loss(&self, network: &Mlp, batch: Batch, place: f64, rng: &mut Rng) -> Result<Tensor<1>> {
        let imitated = self.lesson.imitated;
        let answers = imitated.and_then(|(teacher, loss)| loss.answers(teacher, batch.inputs.clone()));
        let is_perturbed = imitated.is_none() || answers.is_some();
        let perturbed = match &self.lesson.adversarial {
            Some(crafting) if is_perturbed => {
                self.examples(network, crafting, &batch.rows, batch.inputs.clone(), place, rng)?
            }
            _ => batch.inputs.clone(),
        };
        let [inputs, perturbed] = [batch.inputs, perturbed].map(Tensor::autodiff);
        let targets = batch.targets.autodiff();
        let target_loss = |network: &Mlp, inputs: &Tensor<4>, rng: &mut Rng| {
            self.loss_of(network.train_outputs(inputs.clone(), rng), targets.clone())
        };
        let mut loss_of = |network: &Mlp| match imitated {
            None => target_loss(network, &perturbed, rng),
            Some((_, loss)) => loss.of(
                answers.clone(),
                rng,
                |rng| network.train_outputs(perturbed.clone(), rng),
                |rng| target_loss(network, &inputs, rng),
            ),
        };
        Ok(match &self.lesson.adversarial {
            Some(crafting) => crafting.weights.loss(network, place, loss_of),
            None => loss_of(network),
        })
    }

    /// Against the rows' own answers, whatever was taught.
    fn validate(&self, network: &Mlp) -> Result<Validation> {
        let device = self.device.clone().without_autodiff();
        let outputs = self.lesson.rows.outputs();
        let (mut loss, mut metric) = (0.0, 0.0);
        for chunk in self.validation.chunks(INFERENCE_BATCH) {
            let inputs = self.lesson.rows.batch(chunk, &device);
            let targets = matrix(self.lesson.rows.targets(chunk), outputs, &device);
            let mean = self.loss_of(network.outputs(inputs.clone()), targets).into_scalar::<f32>();
            loss += f64::from(mean) * chunk.len() as f64;
            metric += self.quality(network, inputs, chunk)? * chunk.len() as f64;
        }
        let rows = self.validation.len() as f64;
        let crafting = self.lesson.adversarial.as_ref();
        Ok(Validation {
            loss: loss / rows,
            metric: metric / rows,
            robust: crafting.map(|crafting| self.robust(network, crafting)).transpose()?,
        })
    }
}

/// Trains a predictor from scratch.
///
/// # Errors
/// Refuses fewer than two rows, and everything that [`fit`] refuses.
pub(super) fn train_mlp(
    spec: MlpSpec,
    lesson: Lesson<'_>,
    school: School<'_>,
    seed: Seed,
    task: &str,
) -> Result<TrainedMlp> {
    let device = school.device.clone().without_autodiff().autodiff();
    let (fitted, validation) = apart(lesson.rows.len(), seed)?;
    let network = spec.init(&device, &mut seed.rng("weights"));
    let predictor = PredictorTask { lesson, spec: &spec, fitted, validation, device, seed };
    school.progress.task(task, "rows");
    let (network, _) = fit(network, &predictor, school.train, seed, &Checkpoints::none(), school.progress)?;
    Ok(TrainedMlp::freeze(&network, spec, school.device))
}

/// Outputs of every row, one row after the other.
pub(super) fn outputs_of(model: &TrainedMlp, set: &VectorSet) -> Result<Vec<f32>> {
    let device = crate::network::Model::device(model);
    let mut outputs = Vec::with_capacity(set.len() * set.outputs());
    for chunk in (0..set.len()).collect::<Vec<_>>().chunks(INFERENCE_BATCH) {
        outputs.extend(values(model.outputs(set.batch(chunk, &device)))?);
    }
    Ok(outputs)
}
