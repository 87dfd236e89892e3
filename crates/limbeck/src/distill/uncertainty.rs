//! How unsure a student is of an image, from its dropout passes: one number, larger = less sure. Each measure in one place, all from the same passes.
//!
//! p^m = softmax(z^m/T) of pass m at the temperature T of the student's training, p̄ their mean over the M passes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

/// One image in the eyes of a student.
pub struct Seen<'a> {
    /// z^m, a row of the classes for each pass.
    pub logits: &'a [&'a [f32]],
    /// p^m, likewise.
    pub probabilities: &'a [Vec<f64>],
    /// p̄.
    pub mean: &'a [f64],
    /// r_c, the mean soft label over the training set of the class that the student answers.
    pub reference: &'a [f32],
}

/// A measure of an image.
pub type Measure = fn(&Seen<'_>) -> f64;

/// All measures, by name and in words: listing one here offers it in configs and compares it in reports.
pub const UNCERTAINTIES: &[(Uncertainty, &str, &str, Measure)] = &[
    (Uncertainty::Kl, "kl", "KL to the class reference", |seen| kullback_leibler(seen.mean, seen.reference)),
    (Uncertainty::Entropy, "entropy", "predictive entropy", |seen| entropy(seen.mean)),
    (Uncertainty::MutualInformation, "mutual-information", "mutual information", mutual_information),
    (Uncertainty::Variance, "variance", "variance of the logits", variance),
    (Uncertainty::MaxProbability, "max-probability", "1 − largest probability", |seen| {
        1.0 - seen.mean.iter().copied().fold(0.0, f64::max)
    }),
];

impl Uncertainty {
    fn row(self) -> &'static (Self, &'static str, &'static str, Measure) {
        UNCERTAINTIES.iter().find(|row| row.0 == self).expect("every measure is in the table")
    }

    /// Position in [`UNCERTAINTIES`].
    pub(crate) fn position(self) -> usize {
        UNCERTAINTIES.iter().position(|row| row.0 == self).expect("every measure is in the table")
    }

    /// In words, for reports.
    pub fn words(self) -> &'static str {
        self.row().2
    }
}

/// KL(p ‖ q) = Σ p ln(p/q) in nats; q is floored so that an impossible class is very, not infinitely, surprising.
fn kullback_leibler(p: &[f64], q: &[f32]) -> f64 {
    const FLOOR: f64 = 1e-12;
    p.iter()
        .zip(q)
        .map(|(&p, &q)| (p, f64::from(q).max(FLOOR)))
        .filter(|(p, _)| *p > 0.0)
        .map(|(p, q)| p * (p / q).ln())
        .sum()
}

/// H(p) = −Σ p ln p in nats.
fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum()
}

/// H(p̄) − 1/M Σ_m H(p^m), never below 0: what is left of the entropy when that of the single answers is taken away (Houlsby 2011, BALD; Gal 2017).
fn mutual_information(seen: &Seen<'_>) -> f64 {
    let single = seen.probabilities.iter().map(|row| entropy(row)).sum::<f64>();
    (entropy(seen.mean) - single / seen.probabilities.len() as f64).max(0.0)
}

/// σ(x) = 1/M Σ_m ‖z^m − z̄‖² (Papernot & McDaniel 2017, equation 3).
fn variance(seen: &Seen<'_>) -> f64 {
    let passes = seen.logits.len() as f64;
    (0..seen.mean.len())
        .map(|class| {
            let of_class = || seen.logits.iter().map(move |row| f64::from(row[class]));
            let mean = of_class().sum::<f64>() / passes;
            of_class().map(|logit| (logit - mean).powi(2)).sum::<f64>() / passes
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(logits: &[&[f32]], reference: &[f32]) -> Vec<f64> {
        let softmax = |row: &&[f32]| {
            let exp: Vec<f64> = row.iter().map(|z| f64::from(*z).exp()).collect();
            let sum: f64 = exp.iter().sum();
            exp.into_iter().map(|e| e / sum).collect::<Vec<f64>>()
        };
        let probabilities: Vec<Vec<f64>> = logits.iter().map(softmax).collect();
        let mean: Vec<f64> = (0..reference.len())
            .map(|class| probabilities.iter().map(|row| row[class]).sum::<f64>() / logits.len() as f64)
            .collect();
        let seen = Seen { logits, probabilities: &probabilities, mean: &mean, reference };
        UNCERTAINTIES.iter().map(|(.., measure)| measure(&seen)).collect()
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
        ];
        for ((found, expected), (_, name, ..)) in found.iter().zip(expected).zip(UNCERTAINTIES) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
        }
    }

    #[test]
    fn a_sure_answer_is_certain_by_every_measure_but_against_a_coin() {
        let found = all(&[&[100.0, 0.0], &[100.0, 0.0]], &[0.5, 0.5]);
        // KL((1, 0) || (1/2, 1/2)) = ln 2
        assert!((found[0] - std::f64::consts::LN_2).abs() < 1e-9);
        assert!(found[1..].iter().all(|value| value.abs() < 1e-9), "{found:?}");
        assert_eq!(kullback_leibler(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
    }

    #[test]
    fn passes_that_agree_share_no_information_and_passes_that_differ_do() {
        let position = Uncertainty::MutualInformation.position();
        assert!(all(&[&[1.0, 0.0], &[1.0, 0.0]], &[0.5, 0.5])[position] < 1e-12);
        // Two sure answers that contradict each other: H(1/2, 1/2) − 0 = ln 2.
        let found = all(&[&[100.0, 0.0], &[0.0, 100.0]], &[0.5, 0.5])[position];
        assert!((found - std::f64::consts::LN_2).abs() < 1e-9, "{found}");
    }

    #[test]
    fn names_are_those_that_configs_give() {
        for (kind, name, ..) in UNCERTAINTIES {
            assert_eq!(serde_json::to_value(kind).expect("a word"), *name);
        }
    }
}
