//! What a run on vectors measured: plain data, written as `evaluation.json` and shown by the page.

use serde::{Deserialize, Serialize};

use super::doubt::VectorNull;
use crate::evaluate::results::{Rate, VerdictCounts};

/// All figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorResults {
    /// Version of the library.
    pub limbeck_version: String,
    /// Name of the table's file.
    pub data: String,
    /// Root of every random draw.
    pub seed: u64,
    /// Target columns.
    pub target: Vec<String>,
    /// Names of the classes; empty of a regression.
    pub classes: Vec<String>,
    /// Feature columns.
    pub features: u64,
    /// Who is what.
    pub rows: RowCounts,
    /// What the audit found.
    pub audit: AuditFigures,
    /// Undefended, teacher and student.
    pub models: Vec<ModelFigures>,
    /// The student's null answer.
    pub null: VectorNull,
    /// The student's prediction interval, by output; `None` of classes, and where calibration rows are too few.
    pub intervals: Option<Vec<IntervalFigures>>,
    /// The simulated attacker; `None` without one.
    pub poison: Option<PoisonFigures>,
}

/// Rows by their part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    /// Rows of the table.
    pub table: u64,
    /// Of them those that the files of trusted and test rows have too: they are not audited.
    #[serde(default)]
    pub known: u64,
    /// Audited.
    pub audited: u64,
    /// Trusted, and learnt from.
    pub trusted: u64,
    /// Trusted, and never learnt from.
    pub calibration: u64,
    /// Tested on.
    pub test: u64,
    /// Of the purified table that teacher and student learnt from, the trusted ones among them.
    pub purified: u64,
}

/// What the audit found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditFigures {
    /// Audited rows above the threshold.
    pub flagged: Rate,
    /// Trusted rows above it: what chance alone flags.
    pub trusted_flagged: Rate,
    /// The threshold, in nats of surprise.
    pub threshold: f64,
    /// Verdicts.
    pub verdicts: VerdictCounts,
}

/// One network on the test rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFigures {
    /// `undefended`, `teacher` or `student`.
    pub model: String,
    /// What it learnt from, in words.
    pub trained_on: String,
    /// Clean, under each attack, and in the worst case of each threat model.
    pub cases: Vec<Case>,
}

/// The test rows as they are, or as an attack left them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// `clean`, `fgsm eps 0.01`, `worst case, L-infinity eps 0.01`.
    pub inputs: String,
    /// What the case is.
    pub kind: CaseKind,
    /// How good the answers are, null or not.
    pub quality: Quality,
    /// With null counted; of the student alone.
    pub with_null: Option<WithNull>,
}

/// What a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseKind {
    /// Rows as they are.
    Clean,
    /// One attack.
    Attack,
    /// For each row the attack of a threat model that does most harm to it.
    Worst,
}

/// How good answers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Right answers.
    Accuracy(Rate),
    /// Errors in the target's own units; over all outputs together where there are several.
    Error(ErrorFigures),
}

/// Errors of a regression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorFigures {
    /// Root mean squared error.
    pub rmse: f64,
    /// Its 95 % interval by a percentile bootstrap over rows (Efron & Tibshirani 1993).
    pub rmse_interval: [f64; 2],
    /// Mean absolute error.
    pub mae: f64,
    /// 1 − squared errors / squared deviations from the mean, averaged over outputs.
    pub r2: f64,
}

/// Answers with null counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithNull {
    /// Rows answered null; in the worst case those that some attack leaves null.
    pub null: Rate,
    /// How good the other answers are; `None` where there are none.
    pub answered: Option<Quality>,
    /// Answered and right; `None` of a regression.
    pub as_error: Option<Rate>,
    /// Null or right; `None` of a regression.
    pub as_no_error: Option<Rate>,
}

/// The prediction interval of one output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalFigures {
    /// Name of the output.
    pub output: String,
    /// Half its width, in the target's own units.
    pub half_width: f64,
    /// Share of rows that may lie outside.
    pub miss: f64,
    /// Test rows inside.
    pub coverage: Rate,
}

/// What a simulated attacker did and what became of it; the only figures that know the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonFigures {
    /// What it did, in words.
    pub kind: String,
    /// Poisoned rows of the audited ones.
    pub poisoned: Rate,
    /// How well each score tells poisoned rows from clean ones.
    pub detection: Vec<ScoreFigures>,
    /// Poisoned rows above the threshold.
    pub found: Rate,
    /// Clean audited rows above it.
    pub clean_flagged: Rate,
    /// Networks trained behind filters.
    pub filters: Vec<FilterFigures>,
}

/// One score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreFigures {
    /// In words.
    pub score: String,
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Its 95 % interval (DeLong 1988).
    pub interval: Option<[f64; 2]>,
}

/// One network behind a filter, trained as the undefended one is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterFigures {
    /// `none`, `limbeck`, `random` or `perfect`.
    pub filter: String,
    /// Audited rows that it left out.
    pub left_out: u64,
    /// Poisoned rows that are learnt from, reconstructed ones among them.
    pub poisoned_left: u64,
    /// On clean test rows.
    pub quality: Quality,
}
