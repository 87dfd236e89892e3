//! Answers of a stored student to the rows of other tables.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use super::doubt::VectorNull;
use super::folder::{EVALUATION, Folder, STUDENT};
use super::learn::outputs_of;
use super::network::TrainedMlp;
use super::results::VectorResults;
use super::scale::AnswerScale;
use super::set::VectorSet;
use super::table::Table;
use crate::artefact::read_json;
use crate::error::Result;

/// The student of a run, with its null rule and its intervals.
pub struct VectorStudent {
    student: TrainedMlp,
    null: VectorNull,
    /// Half the width of the interval of each quantity; none of classes, and where too few rows calibrated it.
    half_widths: Option<Vec<f64>>,
}

/// The student's answer to one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowAnswer {
    /// The table.
    pub path: PathBuf,
    /// Row number, from 1, the header not counted.
    pub row: usize,
    /// Whether it answers null: `answer` is then what it would have said.
    pub null: bool,
    /// What it says.
    pub answer: RowContent,
    /// How unsure it is, in the units of the run's null rule.
    pub uncertainty: f64,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowContent {
    /// The name of a class.
    Class(String),
    /// Each quantity.
    Quantities(Vec<Quantity>),
}

/// One quantity of an answer, in its own units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantity {
    /// Its column.
    pub name: String,
    /// The prediction.
    pub value: f64,
    /// Its conformal interval, if one was calibrated.
    pub interval: Option<[f64; 2]>,
}

impl VectorStudent {
    /// Whether a folder is one of `limbeck vectors`.
    pub fn is_at(run: &Path) -> bool {
        Folder::is_ours(run)
    }

    /// Reads `student.safetensors` and, in `evaluation.json`, its null rule and intervals.
    ///
    /// # Errors
    /// Names the file that is missing or damaged.
    pub fn load(run: &Path, device: &Device) -> Result<Self> {
        let student = TrainedMlp::load(&run.join(STUDENT), device)?;
        let VectorResults { null, intervals, .. } = read_json(&run.join(EVALUATION))?;
        let half_widths =
            intervals.map(|intervals| intervals.into_iter().map(|interval| interval.half_width).collect());
        Ok(Self { student, null, half_widths })
    }

    /// Answers every row of a table that has the run's feature columns, in any order and among others.
    ///
    /// # Errors
    /// As [`Table::read_features`].
    pub fn predict(&self, table: &Path) -> Result<Vec<RowAnswer>> {
        let spec = self.student.spec();
        let read = Table::read_features(table, &spec.inputs.names)?;
        let rows = VectorSet::asked(&read, &spec.inputs);
        let outputs = outputs_of(&self.student, &rows)?;
        let uncertainties = self.null.uncertainties(&self.student, &rows)?;
        let each = outputs.chunks(spec.answers.outputs()).zip(uncertainties).enumerate();
        let answer = |(row, (outputs, uncertainty)): (usize, (&[f32], f64))| RowAnswer {
            path: table.to_path_buf(),
            row: row + 1,
            null: self.null.is_null(uncertainty),
            answer: self.content(outputs),
            uncertainty,
        };
        Ok(each.map(answer).collect())
    }

    fn content(&self, outputs: &[f32]) -> RowContent {
        match &self.student.spec().answers {
            AnswerScale::Classes { names } => {
                let best = (0..outputs.len()).reduce(|a, b| if outputs[b] > outputs[a] { b } else { a });
                RowContent::Class(best.map(|class| names[class].clone()).unwrap_or_default())
            }
            AnswerScale::Values { names, mean, deviation } => {
                let quantity = |(place, name): (usize, &String)| {
                    let value = f64::from(outputs[place]) * deviation[place] + mean[place];
                    let width = self.half_widths.as_ref().map(|widths| widths[place]);
                    let interval = width.map(|width| [value - width, value + width]);
                    Quantity { name: name.clone(), value, interval }
                };
                RowContent::Quantities(names.iter().enumerate().map(quantity).collect())
            }
        }
    }
}
