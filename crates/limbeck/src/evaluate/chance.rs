//! How many images a threshold flags in a set that is as clean as the calibration images.

use serde::{Deserialize, Serialize};

use crate::purify::{CalibrationScores, Threshold};

/// What chance alone flags, if audited and calibration images come from one source, each image on its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// Expected false-positive rate, in `(0, 1]`.
    pub rate: f64,
    /// Expected number of flagged images.
    pub expected: f64,
    /// In 95 of 100 sets the number lies between these two, both included.
    pub range: [u64; 2],
}

impl Chance {
    /// Of `audited` clean images.
    ///
    /// With c of n calibration scores above the threshold, the share of clean scores above it has the distribution Beta(c + 1, n − c)
    /// (Vovk 2012, on conformal predictors), exactly where the threshold is a calibration score and from above where it lies between
    /// two; the number flagged is then beta-binomial.
    pub fn of(audited: u64, calibration: &CalibrationScores, threshold: &Threshold) -> Self {
        let (above, images) = (calibration.flagged(threshold), calibration.len());
        let rate = (above + 1) as f64 / (images + 1) as f64;
        let range = match images - above {
            0 => [audited; 2],
            below => [0.025, 0.975].map(|p| quantile(audited, (above + 1) as f64, below as f64, p)),
        };
        Self { rate, expected: rate * audited as f64, range }
    }
}

/// The least k with P(K <= k) >= p for K beta-binomial over `trials` with `a`, `b` > 0.
fn quantile(trials: u64, a: f64, b: f64, p: f64) -> u64 {
    let n = trials as f64;
    // P(0) is the product of (b + i) / (a + b + i), small enough to vanish without logarithms.
    let mut ln_probability: f64 = (0..trials).map(|i| ((b + i as f64) / (a + b + i as f64)).ln()).sum();
    let mut below = ln_probability.exp();
    for k in 0..trials {
        if below >= p {
            return k;
        }
        let x = k as f64;
        ln_probability += ((n - x) * (x + a) / ((x + 1.0) * (n - x - 1.0 + b))).ln();
        below += ln_probability.exp();
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purify::Rule;

    #[test]
    fn with_flat_beta_every_number_is_equally_likely() {
        // a = b = 1 over 99 trials is uniform over 0 to 99: P(K <= k) = (k + 1) / 100.
        assert_eq!([0.025, 0.5, 0.974].map(|p| quantile(99, 1.0, 1.0, p)), [2, 49, 97]);
    }

    #[test]
    fn with_much_calibration_it_is_the_binomial() {
        // The least k whose binomial sum for n = 1000, p = 1/20, in exact fractions, reaches 0.025 and 0.975.
        assert_eq!([0.025, 0.975].map(|p| quantile(1000, 5e8, 95e8, p)), [37, 64]);
    }

    #[test]
    fn the_rate_counts_the_image_itself_as_a_p_value_does() {
        let calibration = CalibrationScores::new((1..=99).map(f64::from).collect()).expect("finite");
        let threshold = Threshold::infer(&calibration, Rule::Fpr { fpr: 0.05 }).expect("in range");
        let chance = Chance::of(1000, &calibration, &threshold);
        // The threshold is 95; 96 to 99 lie above: (4 + 1) / (99 + 1).
        assert_eq!((chance.rate, chance.expected), (0.05, 50.0));
        assert!(chance.range[0] < 37 && chance.range[1] > 64, "wider than the binomial: {:?}", chance.range);
    }

    #[test]
    fn a_threshold_below_all_calibration_scores_flags_everything() {
        let calibration = CalibrationScores::new(vec![1.0, 2.0]).expect("finite");
        let rule = Rule::Percentile { percentile: 0.0, margin: -1.0 };
        let threshold = Threshold::infer(&calibration, rule).expect("in range");
        assert_eq!(
            Chance::of(7, &calibration, &threshold),
            Chance { rate: 1.0, expected: 7.0, range: [7, 7] }
        );
    }
}
