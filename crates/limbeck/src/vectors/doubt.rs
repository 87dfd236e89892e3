//! The null answer, and the prediction interval of a regression.
//!
//! M dropout passes give each row an uncertainty: of classes one of [`Uncertainty`], of quantities the standard deviation over the passes, its norm over the
//! outputs. The answer is null above τ, which is calibrated on clean rows that no network learnt from: by the conformal rule at most the stated share of rows
//! exchangeable with them is answered null.
//!
//! The interval is f(x) ± q, where q is such a quantile of |f(x) − y| over the same rows (split conformal: Vovk 2005; Papadopoulos 2002): the target of an exchangeable row lies outside
//! with a probability of at most the stated share. It is as wide for every row.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::network::TrainedMlp;
use super::scale::AnswerScale;
use super::set::VectorSet;
use crate::distill::{AbstentionConfig, Seen, class_references, is_above};
use crate::error::Result;
use crate::network::Model;
use crate::purify::{CalibrationScores, Rule, Threshold};
use crate::rng::Seed;
use crate::tensors::{argmax, labels, values};
use crate::train::INFERENCE_BATCH;

/// When a student of vectors answers null; made by calibration alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorNull {
    /// What is measured, in words.
    pub measured: String,
    /// Settings.
    pub config: AbstentionConfig,
    /// Seed of the thinned networks.
    pub seed: u64,
    /// Null above this, τ; `None` where so few calibration rows cannot promise the share of any threshold: nothing is answered null.
    pub threshold: Option<f64>,
    /// Rows that τ was calibrated on.
    pub calibration_rows: u64,
    /// Mean answer in training of the class that is answered, one row a class; none of a regression.
    pub references: Vec<Vec<f32>>,
}

impl VectorNull {
    /// Fits τ on rows that no network learnt from; `references` are probabilities row by row, of classes alone.
    pub(super) fn calibrate(
        student: &TrainedMlp,
        references: &[f32],
        calibration: &VectorSet,
        config: &AbstentionConfig,
        seed: u64,
    ) -> Result<Self> {
        let classes = student.spec().answers.classes();
        let mut rule = Self {
            measured: match classes {
                Some(_) => config.uncertainty.words().to_owned(),
                None => "standard deviation over the dropout passes".to_owned(),
            },
            config: *config,
            seed,
            threshold: None,
            calibration_rows: calibration.len() as u64,
            references: classes.map(|classes| class_references(references, classes)).unwrap_or_default(),
        };
        rule.threshold = config.threshold(rule.uncertainties(student, calibration)?)?;
        Ok(rule)
    }

    /// How unsure a student is of each row.
    pub(super) fn uncertainties(&self, student: &TrainedMlp, set: &VectorSet) -> Result<Vec<f64>> {
        let mut found = Vec::with_capacity(set.len());
        for chunk in (0..set.len()).collect::<Vec<_>>().chunks(INFERENCE_BATCH) {
            let rows = set.batch(chunk, &student.device());
            let draws = Seed::new(self.seed).child("null rule");
            let passes = student.dropout_passes(rows.clone(), self.config.passes, draws);
            let measured = match self.references.is_empty() {
                true => deviation(passes),
                false => {
                    let answers = labels(&argmax(student.outputs(rows))?, &student.device());
                    let seen = Seen::new(passes, student.spec().temperature, self.references_of(answers));
                    self.config.uncertainty.of(&seen)
                }
            };
            found.extend(values(measured)?.into_iter().map(f64::from));
        }
        Ok(found)
    }

    fn references_of(&self, answers: Tensor<1, Int>) -> Tensor<2> {
        let classes = self.references.len();
        super::set::matrix(self.references.concat(), classes, &answers.device()).select(0, answers)
    }

    /// Whether each row is answered null.
    pub(super) fn nulls(&self, student: &TrainedMlp, set: &VectorSet) -> Result<Vec<bool>> {
        Ok(self.uncertainties(student, set)?.into_iter().map(|found| self.is_null(found)).collect())
    }

    /// Whether a row of such an uncertainty is answered null.
    pub(super) fn is_null(&self, uncertainty: f64) -> bool {
        is_above(uncertainty, self.threshold)
    }
}

/// √ Σ_k Var_m f_k over the passes; `[batch]`.
fn deviation(passes: Vec<Tensor<2>>) -> Tensor<1> {
    let passes = Tensor::stack::<3>(passes, 0);
    let variance = (passes.clone() - passes.mean_dim(0)).square().mean_dim(0);
    variance.sum_dim(2).sqrt().flatten(0, 2)
}

/// Half the width of the prediction interval of each output, in the target's own units; `None` where the rows are too few for the share.
///
/// `outputs` and the set's targets are standardised, row by row.
pub(super) fn half_widths(
    outputs: &[f32],
    calibration: &VectorSet,
    answers: &AnswerScale,
    miss: f64,
) -> Result<Option<Vec<f64>>> {
    let AnswerScale::Values { deviation, .. } = answers else { return Ok(None) };
    let rows: Vec<usize> = (0..calibration.len()).collect();
    if miss * ((rows.len() + 1) as f64) + 1e-9 < 1.0 {
        return Ok(None);
    }
    let targets = calibration.targets(&rows);
    let width = |(output, deviation): (usize, &f64)| {
        let residual = |row: usize| {
            let at = row * answers.outputs() + output;
            f64::from(outputs[at] - targets[at]).abs() * deviation
        };
        let scores = CalibrationScores::new(rows.iter().map(|&row| residual(row)).collect())?;
        Ok(Threshold::infer(&scores, Rule::Fpr { fpr: miss })?.value())
    };
    deviation.iter().enumerate().map(width).collect::<Result<Vec<_>>>().map(Some)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::network::tests::{classes, small};
    use super::super::scale::Answers;
    use super::super::set::matrix;
    use super::*;
    use crate::tensors::values;
    use crate::testing::uniform;

    fn set(rows: usize, seed: u64, answers: Answers) -> VectorSet {
        VectorSet::new(3, values(uniform([rows, 3], 0.0, 1.0, seed)).expect("values"), answers)
    }

    #[test]
    fn the_deviation_over_passes_is_numpys() {
        // numpy: passes (1, 2), (3, 2), (5, 8) of one row: variances 8/3 and 8, √(32/3).
        let passes =
            [[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]].map(|pass| matrix(pass.to_vec(), 2, &Device::flex()));
        let found = values(deviation(passes.to_vec())).expect("a value")[0];
        assert!((f64::from(found) - (32.0 / 3.0_f64).sqrt()).abs() < 1e-5, "{found}");
    }

    #[test]
    fn the_share_of_null_is_about_what_was_asked_for_and_none_where_rows_are_too_few() {
        let student = small(&[16], classes(2));
        let of = |rows, seed| set(rows, seed, Answers::Classes(vec![0; rows], 2));
        let references = [0.8, 0.2, 0.3, 0.7];
        let config = AbstentionConfig { null_rate: 0.1, ..AbstentionConfig::default() };
        let rule = VectorNull::calibrate(&student, &references, &of(400, 1), &config, 1).expect("calibrated");
        let nulls = rule.nulls(&student, &of(2000, 2)).expect("answered");
        let share = nulls.iter().filter(|null| **null).count() as f64 / 2000.0;
        assert!((share - 0.1).abs() < 0.05, "{share}");
        // 1/9 > 0.1
        let rule = VectorNull::calibrate(&student, &references, &of(8, 1), &config, 1).expect("calibrated");
        assert_eq!(rule.threshold, None);
        assert!(!rule.nulls(&student, &of(100, 2)).expect("answered").contains(&true));
    }

    #[test]
    fn the_interval_covers_what_it_promises_in_own_units() {
        // Residuals 1 to 19 standard deviations of 2 units: ⌊0.1 · 20⌋ = 2, the second largest of 38, 36…
        let targets: Vec<f32> = (1..=19).map(|residual| residual as f32).collect();
        let rows = set(19, 1, Answers::Values(targets, 1));
        let scale = AnswerScale::Values { names: vec!["y".into()], mean: vec![5.0], deviation: vec![2.0] };
        let width = |miss| half_widths(&[0.0; 19], &rows, &scale, miss).expect("computed");
        assert_eq!(width(0.1), Some(vec![36.0]));
        assert_eq!(width(0.049), None, "19 rows promise no less than 1/20");
        assert_eq!(half_widths(&[], &rows, &classes(2), 0.1).expect("no interval"), None);
    }
}
