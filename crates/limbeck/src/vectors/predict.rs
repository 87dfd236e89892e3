//! Answers of a stored student to the rows of other tables.
//!
//! A feature counts as the end of the range that the network learnt where it lies outside. How many do is told with each answer, and a row of which more than half lie outside by more than
//! one width of it (other units, another instrument) is answered null: the network has seen nothing like it, and its uncertainty cannot tell.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use super::doubt::VectorNull;
use super::folder::{EVALUATION, Folder, STUDENT};
use super::learn::outputs_of;
use super::network::TrainedMlp;
use super::results::VectorResults;
use super::scale::{AnswerScale, InputScale};
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
    /// Whether it answers null, for it is unsure or the row lies far outside: `answer` is then what it would have said.
    pub null: bool,
    /// What it says.
    pub answer: RowContent,
    /// How unsure it is, in the units of the run's null rule.
    pub uncertainty: f64,
    /// How many of its features lie outside the range that the network learnt.
    pub outside: usize,
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
            null: self.null.is_null(uncertainty) || is_far(read.values(row), &spec.inputs),
            answer: self.content(outputs),
            uncertainty,
            outside: spec.inputs.outside(read.values(row), 0.0),
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

/// Whether more than half of a row's features lie outside the range that was learnt by more than one width of it.
fn is_far(row: &[f64], inputs: &InputScale) -> bool {
    2 * inputs.outside(row, 1.0) > row.len()
}

#[cfg(test)]
mod tests {
    use super::super::network::tests::{classes, small};
    use super::*;
    use crate::distill::AbstentionConfig;

    #[test]
    fn a_row_in_other_units_is_answered_null_and_every_row_says_what_lies_outside() {
        // It never answers null by its uncertainty.
        let null = VectorNull {
            measured: "standard deviation over the dropout passes".to_owned(),
            config: AbstentionConfig::default(),
            seed: 1,
            threshold: None,
            calibration_rows: 0,
            references: Vec::new(),
        };
        // Three features, each learnt in 0 to 1.
        let student = VectorStudent { student: small(&[4], classes(2)), null, half_widths: None };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new.csv");
        let rows = ["0.5,0,1", "1.5,-1,2", "500,1.5,0.5", "500,700,0.5", "-3,400,900"];
        std::fs::write(&path, format!("a,b,c\n{}\n", rows.join("\n"))).expect("written");
        let answers = student.predict(&path).expect("answered");
        let found: Vec<(usize, bool)> = answers.iter().map(|answer| (answer.outside, answer.null)).collect();
        assert_eq!(found, [(0, false), (3, false), (2, false), (2, true), (3, true)]);
    }
}
