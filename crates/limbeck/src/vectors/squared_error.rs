//! A regression as a model of two classes, so that attacks on classifiers work on it.
//!
//! For a prediction f(x) and the true target y let e(x) = ‖f(x) − y‖². The logits are z = (0, e(x)), the label is the first class. The cross-entropy of the label is
//! ln(1 + exp e), whose derivative in e is the logistic function σ(e) > 0. So ∇x CE = σ(e) ∇x e: it rises exactly where the squared error rises, and its sign is that of
//! ∇x e. Attacks that step along the sign, or the direction, of the gradient (FGSM, I-FGSM, MI-FGSM, PGD with one start) therefore walk on the squared error itself. What
//! asks when a class changes has no meaning here: e is never below 0, so the second class always leads.

use burn::tensor::{Device, Tensor};

use super::network::TrainedMlp;
use super::scale::Answers;
use super::set::{VectorSet, matrix};
use crate::distill::AtTemperature;
use crate::error::Result;
use crate::network::Model;

/// Logits (0, ‖f(x) − y‖²), `[batch, 2]`, of the very batch whose targets y are given.
pub struct SquaredError<'a> {
    /// f, with outputs in standard deviations.
    pub model: &'a dyn Model,
    /// y of each row of the batch, `[batch, outputs]`.
    pub targets: Tensor<2>,
}

impl Model for SquaredError<'_> {
    fn logits(&self, rows: Tensor<4>) -> Tensor<2> {
        let outputs = self.model.logits(rows);
        let error = (outputs - self.targets.clone()).square().sum_dim(1);
        Tensor::cat(vec![error.zeros_like(), error], 1)
    }

    fn device(&self) -> Device {
        self.model.device()
    }
}

/// A predictor as attacks see it on the rows at `rows`, with the labels that lead away from the truth: a classifier at z/T, a regression as its squared error.
pub(super) fn against<T>(
    model: &TrainedMlp,
    set: &VectorSet,
    rows: &[usize],
    attack: impl FnOnce(&dyn Model, &[u32]) -> Result<T>,
) -> Result<T> {
    let labels = set.labels(rows);
    match set.answers() {
        Answers::Classes(..) => {
            attack(&AtTemperature { model, temperature: model.spec().temperature }, &labels)
        }
        Answers::Values(_, outputs) => {
            let targets = matrix(set.targets(rows), *outputs, &model.device());
            attack(&SquaredError { model, targets }, &labels)
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::attack::{Attack, Fgsm, IFgsm, ThreatModel, craft, input_gradient};
    use crate::tensors::values;

    /// f(x) = w·x + b, two outputs.
    struct Linear;

    const WEIGHTS: [[f32; 2]; 3] = [[1.0, -2.0], [0.5, 0.0], [-1.0, 3.0]];
    const BIAS: [f32; 2] = [0.1, -0.2];
    const ROWS: [[f32; 3]; 2] = [[0.2, 0.4, 0.6], [0.9, 0.1, 0.5]];
    const TARGETS: [[f32; 2]; 2] = [[0.3, 1.0], [-0.5, 0.25]];

    impl Model for Linear {
        fn logits(&self, rows: Tensor<4>) -> Tensor<2> {
            let device = rows.device();
            let [batch, ..] = rows.dims();
            let weights = Tensor::<2>::from_data(TensorData::from(WEIGHTS), &device);
            let bias = Tensor::<1>::from_floats(BIAS, &device).reshape([1, 2]);
            rows.reshape([batch, 3]).matmul(weights) + bias
        }

        fn device(&self) -> Device {
            Device::flex()
        }
    }

    fn rows() -> Tensor<4> {
        Tensor::<2>::from_data(TensorData::from(ROWS), &Device::flex()).reshape([2, 1, 1, 3])
    }

    fn error() -> SquaredError<'static> {
        let targets = Tensor::<2>::from_data(TensorData::from(TARGETS), &Device::flex());
        SquaredError { model: &Linear, targets }
    }

    /// e and ∂e/∂x_i = 2 Σ_k (f_k − y_k) w_ik, by hand.
    fn by_hand(row: usize) -> (f64, [f64; 3]) {
        let gap = |output: usize| {
            let sum = (0..3).map(|i| f64::from(WEIGHTS[i][output]) * f64::from(ROWS[row][i])).sum::<f64>();
            sum + f64::from(BIAS[output]) - f64::from(TARGETS[row][output])
        };
        let slope = |i: usize| 2.0 * (0..2).map(|k| gap(k) * f64::from(WEIGHTS[i][k])).sum::<f64>();
        ((0..2).map(|k| gap(k).powi(2)).sum(), std::array::from_fn(slope))
    }

    #[test]
    fn the_cross_entropy_s_gradient_is_the_logistic_function_times_the_squared_error_s() {
        let gradient =
            values(input_gradient(&error(), rows(), &[0, 0]).expect("a gradient")).expect("values");
        for row in 0..2 {
            let (e, slopes) = by_hand(row);
            let logistic = 1.0 / (1.0 + (-e).exp());
            for (i, slope) in slopes.iter().enumerate() {
                let found = f64::from(gradient[3 * row + i]);
                assert!((found - logistic * slope).abs() < 1e-5, "row {row}, feature {i}: {found}");
            }
        }
    }

    #[test]
    fn fgsm_moves_each_feature_by_eps_along_the_sign_of_the_squared_error_s_gradient() {
        let moved = craft(&Fgsm, &error(), ThreatModel::linf(0.05), rows(), &[0, 0]).expect("crafted");
        let moved = values(moved).expect("values");
        for row in 0..2 {
            for (i, slope) in by_hand(row).1.iter().enumerate() {
                let expected = f64::from(ROWS[row][i]) + 0.05 * slope.signum();
                assert!((f64::from(moved[3 * row + i]) - expected).abs() < 1e-6, "row {row}, feature {i}");
            }
        }
    }

    #[test]
    fn more_steps_within_the_ball_never_end_with_less_error_here() {
        // e is convex in x, so steps along its sign only raise it.
        let errors = |attack: &dyn Attack| {
            let moved = craft(attack, &error(), ThreatModel::linf(0.1), rows(), &[0, 0]).expect("crafted");
            let logits = values(error().logits(moved)).expect("values");
            [logits[1], logits[3]]
        };
        let [none, one, ten] =
            [errors(&IFgsm { step: 0.0, steps: 1 }), errors(&Fgsm), errors(&IFgsm { step: 0.02, steps: 10 })];
        for row in 0..2 {
            assert!(one[row] > none[row] && ten[row] >= one[row] - 1e-5, "{none:?} {one:?} {ten:?}");
            assert!((f64::from(none[row]) - by_hand(row).0).abs() < 1e-5);
        }
    }
}
