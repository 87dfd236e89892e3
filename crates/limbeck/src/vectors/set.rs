//! Rows in memory as networks see them: scaled features, and answers as they are learnt.
//!
//! A row is an "image" `[batch, 1, 1, features]` in `[0, 1]`, so that whatever works on a [`Model`](crate::network::Model) works on it.

use burn::tensor::{Device, Tensor, TensorData};

use super::scale::{AnswerScale, Answers, InputScale, TARGET_REACH, range_of};
use super::table::Table;
use crate::error::Result;
use crate::tensors;

/// Some rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VectorSet {
    features: usize,
    /// Row by row, in `[0, 1]`.
    values: Vec<f32>,
    answers: Answers,
}

impl VectorSet {
    /// The rows of a table at `rows`.
    pub(super) fn of(
        table: &Table,
        rows: &[usize],
        inputs: &InputScale,
        answers: &AnswerScale,
    ) -> Result<Self> {
        Ok(Self {
            features: inputs.names.len(),
            values: rows.iter().flat_map(|&row| inputs.scaled(table.values(row))).collect(),
            answers: answers.answers(table, rows)?,
        })
    }

    /// The rows of a table, whose answers are what is asked.
    pub(super) fn asked(table: &Table, inputs: &InputScale) -> Self {
        Self {
            features: inputs.names.len(),
            values: (0..table.rows()).flat_map(|row| inputs.scaled(table.values(row))).collect(),
            answers: Answers::Values(Vec::new(), 0),
        }
    }

    /// From scaled rows of so many features, one after the other.
    #[cfg(test)]
    pub(super) fn new(features: usize, values: Vec<f32>, answers: Answers) -> Self {
        Self { features, values, answers }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() / self.features
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Scaled features of a row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.features..][..self.features]
    }

    /// The rows at `rows`, in that order.
    pub(super) fn subset(&self, rows: &[usize]) -> Self {
        let answers = match &self.answers {
            Answers::Classes(labels, classes) => {
                Answers::Classes(rows.iter().map(|&row| labels[row]).collect(), *classes)
            }
            Answers::Values(values, outputs) => Answers::Values(picked(values, *outputs, rows), *outputs),
        };
        Self { features: self.features, values: picked(&self.values, self.features, rows), answers }
    }

    /// These rows, then those of another set of the same table.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        joined.values.extend_from_slice(&other.values);
        match (&mut joined.answers, &other.answers) {
            (Answers::Classes(own, _), Answers::Classes(others, _)) => own.extend_from_slice(others),
            (Answers::Values(own, _), Answers::Values(others, _)) => own.extend_from_slice(others),
            _ => unreachable!("sets of one table have answers of one kind"),
        }
        joined
    }

    /// The same rows, to learn from: quantities are clipped to the range that trusted rows give, as features are. One far target would be all that a network learns.
    pub(super) fn clipped_by(mut self, trusted: &Self) -> Self {
        if let (Answers::Values(own, outputs), Answers::Values(known, _)) =
            (&mut self.answers, &trusted.answers)
        {
            for output in 0..*outputs {
                let (low, high) =
                    range_of(&column(own, *outputs, output), &column(known, *outputs, output), TARGET_REACH);
                let values = own.iter_mut().skip(output).step_by(*outputs);
                values.for_each(|value| *value = value.clamp(low as f32, high as f32));
            }
        }
        self
    }

    /// The same rows with other features.
    pub(super) fn with_values(&self, values: Vec<f32>) -> Self {
        Self { values, ..self.clone() }
    }

    /// The features at `rows`, `[rows, 1, 1, features]`.
    pub(super) fn batch(&self, rows: &[usize], device: &Device) -> Tensor<4> {
        tensors::images(picked(&self.values, self.features, rows), [rows.len(), 1, 1, self.features], device)
    }

    /// What a network is to answer at `rows`: one-hot classes, or values; `[rows, outputs]`.
    pub(super) fn targets(&self, rows: &[usize]) -> Vec<f32> {
        match &self.answers {
            Answers::Classes(labels, classes) => {
                let one_hot = |&row: &usize| (0..*classes).map(move |class| (class, labels[row]));
                rows.iter()
                    .flat_map(one_hot)
                    .map(|(class, label)| f32::from(u8::from(class as u32 == label)))
                    .collect()
            }
            Answers::Values(values, outputs) => picked(values, *outputs, rows),
        }
    }

    /// Classes at `rows`; 0 for every row of a regression, as [`SquaredError`](super::SquaredError) has it.
    pub(super) fn labels(&self, rows: &[usize]) -> Vec<u32> {
        match &self.answers {
            Answers::Classes(labels, _) => rows.iter().map(|&row| labels[row]).collect(),
            Answers::Values(..) => vec![0; rows.len()],
        }
    }

    /// Numbers that a network answers each row with.
    pub(super) fn outputs(&self) -> usize {
        match &self.answers {
            Answers::Classes(_, outputs) | Answers::Values(_, outputs) => *outputs,
        }
    }
}

/// One value of each row, of so many each.
fn column(values: &[f32], width: usize, place: usize) -> Vec<f64> {
    values.iter().skip(place).step_by(width).map(|value| f64::from(*value)).collect()
}

/// Values of the rows at `rows`, of so many each.
pub(super) fn picked(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row * width..][..width]).copied().collect()
}

/// Row by row as a tensor of this width.
pub(super) fn matrix(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / width;
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_targets_of_rows_to_learn_from_are_clipped_output_by_output() {
        let set = |targets: &[f32]| {
            VectorSet::new(1, vec![0.0; targets.len() / 2], Answers::Values(targets.to_vec(), 2))
        };
        // Trusted targets −1 to 1 and 7 to 9: no more than 2 beyond them.
        let trusted = set(&[-1.0, 7.0, 1.0, 9.0]);
        let audited = set(&[0.5, 8.0, 1e12, f32::NEG_INFINITY, 3.0, 5.0, -f32::MAX, 12.0]);
        let expected = [0.5, 8.0, 3.0, 5.0, 3.0, 5.0, -3.0, 11.0];
        assert_eq!(audited.clipped_by(&trusted).targets(&[0, 1, 2, 3]), expected);
        let classes = VectorSet::new(1, vec![0.0; 2], Answers::Classes(vec![0, 1], 2));
        assert_eq!(classes.clone().clipped_by(&classes), classes);
    }
}
