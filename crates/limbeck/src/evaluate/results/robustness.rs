//! Recorded figures of robustness: worst cases, curves, comparisons, reliability.

use serde::{Deserialize, Serialize};

use super::{AttackedRate, Rate};
use crate::attack::Norm;

/// What is left of the models under attack, and how far the figures can be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Robustness {
    /// Whether a self-check of the evaluation failed: accuracy under attack may then be higher than it is.
    pub masking_suspected: bool,
    /// Each model under each threat model, by threat model.
    pub worst_cases: Vec<WorstCase>,
    /// Accuracy of each model by radius.
    pub curves: Vec<EpsCurve>,
    /// The deployed model beside each other one, on the same images.
    pub comparisons: Vec<Comparison>,
    /// How far the confidence of each model is to be believed on clean test images.
    pub calibration: Vec<Calibration>,
}

/// One model under all attacks of one threat model: each image counts by the attack that does most harm to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorstCase {
    /// Model name as in [`ModelRow::model`](super::ModelRow::model).
    pub model: String,
    /// Norm of the threat model.
    pub norm: Norm,
    /// Its radius, in pixel units.
    pub eps: f64,
    /// Images that are right as they are and under every attack.
    pub accuracy: Rate,
    /// With the null answer, where the model has one.
    pub with_null: Option<WorstCaseWithNull>,
    /// Every attack that counts, with the images right under it alone.
    pub attacks: Vec<AttackedRate>,
}

/// The worst case of a model that can answer null, over attacks that know nothing of its null rule; those that do are rows of
/// [`AbstentionSummary::outcomes`](super::AbstentionSummary::outcomes). The images are as stored in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorstCaseWithNull {
    /// Images answered, and right, as they are and under every attack.
    pub as_error: Rate,
    /// Images that no attack leads to a wrong answer, silence being none.
    pub as_no_error: Rate,
}

/// Accuracy of one model by the radius of one attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpsCurve {
    /// Model name as in [`ModelRow::model`](super::ModelRow::model).
    pub model: String,
    /// As in "pgd, 10 steps".
    pub attack: String,
    /// In rising order of eps.
    pub points: Vec<EpsPoint>,
}

/// One radius of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpsPoint {
    /// Radius in the L-infinity norm, in pixel units; 0 = the images as they are.
    pub eps: f64,
    /// Images still right.
    pub accuracy: Rate,
}

/// Two models on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Which images: "clean", or a worst case.
    pub inputs: String,
    /// The one model.
    pub first: String,
    /// The other.
    pub second: String,
    /// Images that both were shown.
    pub images: u64,
    /// Images that only the first has right.
    pub only_first: u64,
    /// Images that only the second has right.
    pub only_second: u64,
    /// Two-sided p-value of McNemar's exact test that both are right equally often.
    pub p_value: f64,
}

/// Reliability of one model's confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Model name as in [`ModelRow::model`](super::ModelRow::model).
    pub model: String,
    /// Expected calibration error (ECE) over 15 bins, in `[0, 1]`; `None` without an image.
    pub error: Option<f64>,
    /// Bins that hold an image, in rising order.
    pub bins: Vec<ReliabilityBin>,
}

/// Images whose confidence lies in `(from, to]`; the first bin holds 0 too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityBin {
    /// Lower edge.
    pub from: f64,
    /// Upper edge.
    pub to: f64,
    /// Mean confidence.
    pub confidence: f64,
    /// Images that are right.
    pub accuracy: Rate,
}
