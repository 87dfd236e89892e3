//! Distillation: a teacher on the purified rows, and a student that learns its answers.
//!
//! Of classes, the teacher is trained at temperature T and its soft labels are softmax(z/T), from which the student learns at the same T (Papernot 2016). Of quantities, the
//! student learns the teacher's outputs. With `adversarial` both learn on rows that are perturbed against them. Everybody answers at T = 1.

use burn::tensor::activation::softmax;

use super::config::{VectorDistill, VectorMethod};
use super::learn::{Lesson, School, outputs_of, train_mlp};
use super::network::{MlpSpec, TrainedMlp};
use super::set::{VectorSet, matrix};
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;
use crate::tensors::values;

/// What distillation leaves.
pub(super) struct Distilled {
    /// `None` for a student that learns from the table itself.
    pub(super) teacher: Option<TrainedMlp>,
    pub(super) student: TrainedMlp,
    /// The probabilities that the student's doubts are measured against, one row a purified row; empty of a regression.
    pub(super) references: Vec<f32>,
}

/// Trains teacher and student on purified rows.
pub(super) fn distil(
    purified: &VectorSet,
    spec: &MlpSpec,
    config: &VectorDistill,
    school: School<'_>,
    seed: Seed,
) -> Result<Distilled> {
    let is_classification = spec.answers.classes().is_some();
    let adversarial = (config.method == VectorMethod::Adversarial).then_some(config.crafting);
    let is_taught = config.method != VectorMethod::None;
    let temperature = if is_taught && is_classification { config.temperature } else { 1.0 };
    let spec = MlpSpec { temperature, ..spec.clone() };
    let (teacher, taught) = match is_taught {
        true => {
            let lesson = Lesson { rows: purified, taught: None, adversarial };
            let teacher =
                train_mlp(spec.clone(), lesson, school, seed.child("teacher"), "training the teacher")?;
            let taught = answers_of(&teacher, purified)?;
            (Some(teacher), Some(taught))
        }
        false => (None, None),
    };
    let lesson = Lesson { rows: purified, taught: taught.as_deref(), adversarial };
    let student = train_mlp(spec, lesson, school, seed.child("student"), "training the student")?;
    let references = match (is_classification, taught) {
        (false, _) => Vec::new(),
        (true, Some(taught)) => taught,
        (true, None) => answers_of(&student, purified)?,
    };
    Ok(Distilled { teacher, student, references })
}

/// softmax(z/T) at the temperature of a classifier's training, or the values of a regression, row by row.
fn answers_of(model: &TrainedMlp, set: &VectorSet) -> Result<Vec<f32>> {
    let outputs = outputs_of(model, set)?;
    if model.spec().answers.classes().is_none() {
        return Ok(outputs);
    }
    let logits = matrix(outputs, set.outputs(), &model.device());
    values(softmax(logits.div_scalar(model.spec().temperature), 1))
}
