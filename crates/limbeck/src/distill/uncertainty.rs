//! How unsure a student is of an image, from its dropout passes: one number, larger = less sure. Each measure in one place, all from the same passes.
//!
//! p^m = softmax(z^m/T) of pass m at the temperature T of the student's training, p̄ their mean over the M passes.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::ClassifierSpec;

/// Which measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Uncertainty {
    /// Divergence of the mean answer from what training taught of the class.
    #[default]
    Kl,
    /// Entropy of the mean answer.
    Entropy,
    /// What the passes disagree about.
    MutualInformation,
    /// Variance of the logits over the passes.
    Variance,
    /// One less the largest probability of the mean answer.
    MaxProbability,
    /// Probability of the outlier class in the mean answer, of a student that has one.
    Outlier,
}

/// A batch in the eyes of a student's dropout passes. What is measured of it is differentiable, so that an attack can mind it.
pub struct Seen {
    /// z^m, `[passes, batch, classes]`.
    pub logits: Tensor<3>,
    /// ln p^m, likewise.
    pub answers: Tensor<3>,
    /// p̄, `[batch, classes]`.
    pub mean: Tensor<2>,
    /// r_c, `[batch, classes]`: the mean soft label over the training set of the class that the student answers.
    pub references: Tensor<2>,
}

impl Seen {
    /// From the logits `[batch, classes]` of each pass, at least one, of a student that was trained at a temperature.
    pub fn new(passes: Vec<Tensor<2>>, temperature: f64, references: Tensor<2>) -> Self {
        let logits = Tensor::stack::<3>(passes, 0);
        let answers = log_softmax(logits.clone().div_scalar(temperature), 2);
        let mean = answers.clone().exp().mean_dim(0).squeeze_dim(0);
        Self { logits, answers, mean, references }
    }
}

/// A measure of a batch: one number an image, `[batch]`.
pub type Measure = fn(&Seen) -> Tensor<1>;

/// All measures, by name and in words: listing one here offers it in configs and compares it in reports.
pub const UNCERTAINTIES: &[(Uncertainty, &str, &str, Measure)] = &[
    (Uncertainty::Kl, "kl", "KL to the class reference", |seen| {
        kullback_leibler(seen.mean.clone(), seen.references.clone())
    }),
    (Uncertainty::Entropy, "entropy", "predictive entropy", |seen| entropy(seen.mean.clone())),
    (Uncertainty::MutualInformation, "mutual-information", "mutual information", mutual_information),
    (Uncertainty::Variance, "variance", "variance of the logits", |seen| variance(seen.logits.clone())),
    (Uncertainty::MaxProbability, "max-probability", "1 − largest probability", |seen| {
        seen.mean.clone().max_dim(1).neg().add_scalar(1.0).flatten(0, 1)
    }),
    (Uncertainty::Outlier, "outlier", "probability of the outlier class", |seen| {
        let [_, outputs] = seen.mean.dims();
        seen.mean.clone().narrow(1, outputs - 1, 1).flatten(0, 1)
    }),
];

impl Uncertainty {
    fn row(self) -> &'static (Self, &'static str, &'static str, Measure) {
        UNCERTAINTIES.iter().find(|row| row.0 == self).expect("every measure is in the table")
    }

    /// Its value of each image of a batch.
    pub(crate) fn of(self, seen: &Seen) -> Tensor<1> {
        (self.row().3)(seen)
    }

    /// Whether it can be measured of a student, with an outlier class or without.
    pub(crate) fn is_of(self, student: &ClassifierSpec) -> bool {
        self != Self::Outlier || student.outlier
    }

    /// In words, for reports.
    pub fn words(self) -> &'static str {
        self.row().2
    }
}

/// Far below any probability that single precision tells from 0; ln of it is finite.
const FLOOR: f64 = 1e-30;

/// ln p, finite where p is 0.
fn log<const D: usize>(p: Tensor<D>) -> Tensor<D> {
    p.clamp_min(FLOOR).log()
}

/// KL(p ‖ q) = Σ p ln(p/q) in nats of each row; q is floored so that an impossible class is very, not infinitely, surprising.
fn kullback_leibler(p: Tensor<2>, q: Tensor<2>) -> Tensor<1> {
    let log_ratio = log(p.clone()) - q.clamp_min(1e-12).log();
    (p * log_ratio).sum_dim(1).flatten(0, 1)
}

/// H(p) = −Σ p ln p in nats of each row.
fn entropy(p: Tensor<2>) -> Tensor<1> {
    (p.clone() * log(p)).sum_dim(1).neg().flatten(0, 1)
}

/// H(p̄) − 1/M Σ_m H(p^m), never below 0: what is left of the entropy when that of the single answers is taken away (Houlsby 2011, BALD; Gal 2017).
fn mutual_information(seen: &Seen) -> Tensor<1> {
    let single = (seen.answers.clone().exp() * seen.answers.clone()).sum_dim(2).mean_dim(0).neg();
    (entropy(seen.mean.clone()) - single.flatten(0, 2)).clamp_min(0.0)
}

/// σ(x) = 1/M Σ_m ‖z^m − z̄‖² of logits `[passes, batch, classes]` (Papernot & McDaniel 2017, equation 3); `[batch]`.
pub(super) fn variance(logits: Tensor<3>) -> Tensor<1> {
    (logits.clone() - logits.mean_dim(0)).square().mean_dim(0).sum_dim(2).flatten(0, 2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tensors::values;

    fn all(logits: &[&[f32]], reference: &[f32]) -> Vec<f64> {
        let row = |row: &[f32]| Tensor::<1>::from_floats(row, &Device::flex()).reshape([1, row.len()]);
        let seen = Seen::new(logits.iter().map(|logits| row(logits)).collect(), 1.0, row(reference));
        let of = |measure: &Measure| f64::from(values(measure(&seen)).expect("a number")[0]);
        UNCERTAINTIES.iter().map(|(.., measure)| of(measure)).collect()
    }

    #[test]
    fn measures_are_those_of_scipy() {
        // scipy 1.17.1 on p = softmax(z, axis=1): entropy(p.mean(0), r), entropy(p.mean(0)), entropy(p.mean(0)) − entropy(p, axis=1).mean(),
        // z.var(0).sum(), 1 − p.mean(0).max()
        let found = all(&[&[1.0, 2.0, 0.5], &[0.0, 3.0, -1.0], &[2.0, 1.0, 1.5]], &[0.2, 0.7, 0.1]);
        let expected = [
            0.03171161210077639,
            0.9538332885271956,
            0.22034539956736554,
            2.388888888888889,
            0.4163016685619614,
            // p.mean(0)[2]
            0.1548626981433691,
        ];
        for ((found, expected), (_, name, ..)) in found.iter().zip(expected).zip(UNCERTAINTIES) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_sure_answer_is_certain_by_every_measure_but_against_a_coin() {
        let found = all(&[&[100.0, 0.0], &[100.0, 0.0]], &[0.5, 0.5]);
        // KL((1, 0) || (1/2, 1/2)) = ln 2
        assert!((found[0] - std::f64::consts::LN_2).abs() < 1e-6);
        // Of two classes, the second is taken for outliers here.
        assert!(found[1..].iter().all(|value| value.abs() < 1e-6), "{found:?}");
        assert_eq!(all(&[&[0.0, 0.0]], &[0.5, 0.5])[0], 0.0);
    }

    #[test]
    fn passes_that_agree_share_no_information_and_passes_that_differ_do() {
        let position = UNCERTAINTIES.iter().position(|row| row.0 == Uncertainty::MutualInformation);
        let position = position.expect("it is listed");
        assert!(all(&[&[1.0, 0.0], &[1.0, 0.0]], &[0.5, 0.5])[position] < 1e-6);
        // Two sure answers that contradict each other: H(1/2, 1/2) − 0 = ln 2.
        let found = all(&[&[100.0, 0.0], &[0.0, 100.0]], &[0.5, 0.5])[position];
        assert!((found - std::f64::consts::LN_2).abs() < 1e-6, "{found}");
    }

    #[test]
    fn names_are_those_that_configs_give() {
        for (kind, name, ..) in UNCERTAINTIES {
            assert_eq!(serde_json::to_value(kind).expect("a word"), *name);
        }
    }
}
