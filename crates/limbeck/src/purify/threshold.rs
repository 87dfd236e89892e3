//! From a suspicion score to a flag: thresholds fitted on calibration scores, and conformal p-values.
//!
//! A larger score is more suspicious. An image is flagged when its score lies strictly above the
//! threshold. A [`Threshold`] can only be inferred from [`CalibrationScores`], which are the scores
//! of images that nothing was trained on: no threshold by hand, none fitted on the images that it
//! judges.
//!
//! ```
//! use limbeck::purify::{CalibrationScores, Rule, Threshold};
//!
//! let calibration = CalibrationScores::new((1..=99).map(f64::from).collect())?;
//! let threshold = Threshold::infer(&calibration, Rule::Fpr { fpr: 0.05 })?;
//! assert_eq!(threshold.value(), 95.0);
//! assert!(threshold.flags(95.5) && calibration.p_value(95.5) <= 0.05);
//! # Ok::<(), limbeck::error::Error>(())
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const OPERATION: &str = "infer threshold";

/// How a threshold is chosen. In a config: `{ rule = "fpr", fpr = 0.05 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// A percentile of the calibration scores plus a margin, as in alibi-detect's
    /// `infer_threshold`. The share of clean images flagged is about `1 - percentile / 100`, fixed
    /// by decree and without a guarantee for small sets.
    Percentile {
        /// Share of calibration images taken as normal, in percent, in `[0, 100]`.
        percentile: f64,
        /// Added to the percentile, in units of the score; may be negative.
        #[serde(default)]
        margin: f64,
    },
    /// Split-conformal (Vovk 2005; Bates 2023): flagged exactly when [`CalibrationScores::p_value`]
    /// is at most `fpr`. For clean images exchangeable with the calibration images the expected
    /// share flagged is at most `fpr`, at any set size.
    Fpr {
        /// Highest false-positive rate allowed, in `(0, 1)`.
        fpr: f64,
    },
}

impl Default for Rule {
    /// The 95th percentile without margin: the default of alibi-detect's `OutlierAE.infer_threshold`.
    fn default() -> Self {
        Self::Percentile { percentile: 95.0, margin: 0.0 }
    }
}

/// Scores of the calibration split: at least one, all finite, sorted.
#[derive(Clone, Debug, PartialEq)]
pub struct CalibrationScores {
    ascending: Vec<f64>,
}

impl CalibrationScores {
    /// Takes the scores of the calibration images, in any order.
    ///
    /// # Errors
    /// [`Error::Input`] when there are none, [`Error::Numeric`] when one is NaN or infinite.
    pub fn new(mut scores: Vec<f64>) -> Result<Self> {
        const OPERATION: &str = "calibration scores";
        if scores.is_empty() {
            return Err(Error::input(OPERATION, "no scores", "the score of at least one calibration image"));
        }
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            let found = format!("{} at index {index} of {}", scores[index], scores.len());
            return Err(Error::Numeric { operation: OPERATION, found });
        }
        scores.sort_unstable_by(f64::total_cmp);
        Ok(Self { ascending: scores })
    }

    /// Number of calibration images; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.ascending.len()
    }

    /// Conformal p-value `(1 + #{calibration >= score}) / (n + 1)`, in `[1 / (n + 1), 1]`.
    ///
    /// NaN, a score that could not be computed, gets the smallest p-value: nothing vouches for such
    /// an image.
    pub fn p_value(&self, score: f64) -> f64 {
        let below = if score.is_nan() {
            self.len()
        } else {
            self.ascending.partition_point(|&calibration| calibration < score)
        };
        self.p_of_rank(1 + self.len() - below)
    }

    /// The scores in rising order.
    pub fn ascending(&self) -> &[f64] {
        &self.ascending
    }

    /// How many calibration scores the threshold flags.
    pub fn flagged(&self, threshold: &Threshold) -> usize {
        self.len() - self.ascending.partition_point(|&score| !threshold.flags(score))
    }

    /// The p-value of a score that is the `rank`-th largest among the calibration scores and itself.
    fn p_of_rank(&self, rank: usize) -> f64 {
        rank as f64 / (self.len() + 1) as f64
    }

    /// Percentile by linear interpolation, numpy's default method, with numpy's own order of operations.
    fn percentile(&self, percentile: f64) -> f64 {
        let last = self.len() - 1;
        let position = percentile / 100.0 * last as f64;
        let lower = (position.floor() as usize).min(last);
        let (low, high) = (self.ascending[lower], self.ascending[(lower + 1).min(last)]);
        let weight = position - lower as f64;
        if weight >= 0.5 { high - (high - low) * (1.0 - weight) } else { low + (high - low) * weight }
    }

    /// Largest rank whose p-value is at most `fpr`; 0 when there is none.
    fn largest_rank_within(&self, fpr: f64) -> usize {
        // The product may be off by one in the last place (0.29 * 100 < 29); the quotient is what
        // p_value returns.
        let mut rank = (fpr * (self.len() + 1) as f64).round() as usize;
        while rank > 0 && self.p_of_rank(rank) > fpr {
            rank -= 1;
        }
        rank
    }
}

/// A threshold that was inferred from calibration scores; there is no other way to make one than to infer it, or to read back one
/// that was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    value: f64,
    rule: Rule,
    calibration_size: usize,
}

impl Threshold {
    /// Fits the threshold that `rule` asks for.
    ///
    /// # Errors
    /// [`Error::Input`] when a setting of the rule is out of its range, or when `fpr` is below
    /// `1 / (n + 1)`, which no p-value of `n` calibration images can reach; [`Error::Numeric`] when
    /// the threshold is not finite.
    pub fn infer(calibration: &CalibrationScores, rule: Rule) -> Result<Self> {
        let value = match rule {
            Rule::Percentile { percentile, margin } => percentile_value(calibration, percentile, margin)?,
            Rule::Fpr { fpr } => fpr_value(calibration, fpr)?,
        };
        Ok(Self { value, rule, calibration_size: calibration.len() })
    }

    /// The threshold itself, in units of the score.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The rule it was inferred by.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Number of calibration images it was inferred from.
    pub fn calibration_size(&self) -> usize {
        self.calibration_size
    }

    /// Whether a score is flagged: strictly above the threshold, or NaN.
    pub fn flags(&self, score: f64) -> bool {
        score > self.value || score.is_nan()
    }
}

fn percentile_value(calibration: &CalibrationScores, percentile: f64, margin: f64) -> Result<f64> {
    if !(0.0..=100.0).contains(&percentile) {
        return Err(Error::input(OPERATION, format!("percentile {percentile}"), "a percentile in [0, 100]"));
    }
    let value = calibration.percentile(percentile) + margin;
    if !value.is_finite() {
        let found = format!("threshold {value} from percentile {percentile} and margin {margin}");
        return Err(Error::Numeric { operation: OPERATION, found });
    }
    Ok(value)
}

/// The `k`-th largest calibration score, `k = floor(fpr (n + 1))`: a score strictly above it has at
/// most `k - 1` calibration scores at or above itself, so p <= k / (n + 1) <= fpr; any other has at
/// least `k`, so p > fpr.
fn fpr_value(calibration: &CalibrationScores, fpr: f64) -> Result<f64> {
    if !(fpr > 0.0 && fpr < 1.0) {
        return Err(Error::input(OPERATION, format!("fpr {fpr}"), "an fpr in (0, 1)"));
    }
    match calibration.largest_rank_within(fpr) {
        0 => Err(Error::input(
            OPERATION,
            format!("fpr {fpr} with {} calibration images", calibration.len()),
            format!(
                "at least {:.0} calibration images for that fpr, or an fpr of at least {}",
                calibration_images_needed(fpr),
                calibration.p_of_rank(1)
            ),
        )),
        rank => Ok(calibration.ascending[calibration.len() - rank]),
    }
}

/// Smallest `n` with `1 / (n + 1) <= fpr`; a float, since a tiny `fpr` asks for more than an
/// integer holds.
fn calibration_images_needed(fpr: f64) -> f64 {
    let images = (1.0 / fpr).round();
    if 1.0 / images <= fpr { images - 1.0 } else { images }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn calibration(scores: &[f64]) -> CalibrationScores {
        CalibrationScores::new(scores.to_vec()).expect("finite scores")
    }

    fn infer(scores: &[f64], rule: Rule) -> f64 {
        Threshold::infer(&calibration(scores), rule).expect("a rule in range").value()
    }

    #[test]
    fn percentile_is_numpys() {
        // numpy 2.4.6: np.percentile([0.31, 0.02, 0.75, 0.11, 0.48, 0.09, 0.27], q)
        let scores = [0.31, 0.02, 0.75, 0.11, 0.48, 0.09, 0.27];
        let by_numpy = [
            (0.0, 0.02),
            (5.0, 0.041),
            (33.0, 0.1096),
            (50.0, 0.27),
            (62.5, 0.3),
            (95.0, 0.6689999999999998),
            (100.0, 0.75),
        ];
        for (percentile, expected) in by_numpy {
            assert_eq!(
                infer(&scores, Rule::Percentile { percentile, margin: 0.0 }),
                expected,
                "{percentile}"
            );
        }
        assert_eq!(infer(&scores, Rule::Percentile { percentile: 100.0, margin: 0.25 }), 1.0);
        assert_eq!(infer(&[3.0], Rule::default()), 3.0);
    }

    #[test]
    fn a_score_at_the_threshold_is_not_flagged() {
        let threshold =
            Threshold::infer(&calibration(&[1.0, 2.0]), Rule::Percentile { percentile: 100.0, margin: 0.0 });
        let threshold = threshold.expect("a rule in range");
        assert!(!threshold.flags(2.0));
        assert!(threshold.flags(2.0_f64.next_up()));
        assert!(threshold.flags(f64::NAN), "an image without a score must not pass");
    }

    #[test]
    fn p_value_counts_ties_against_the_image() {
        // By hand: 2, 2 and 5 are >= 2, so p = (1 + 3) / (4 + 1).
        let scores = calibration(&[5.0, 2.0, 1.0, 2.0]);
        assert_eq!(scores.p_value(2.0), 0.8);
        assert_eq!(scores.p_value(6.0), 0.2);
        assert_eq!(scores.p_value(f64::NEG_INFINITY), 1.0);
        assert_eq!(scores.p_value(f64::NAN), 0.2);
    }

    #[test]
    fn the_flagged_calibration_scores_are_those_above_the_threshold() {
        let scores = calibration(&[5.0, 2.0, 1.0, 2.0]);
        let at = |percentile| {
            let threshold = Threshold::infer(&scores, Rule::Percentile { percentile, margin: 0.0 });
            scores.flagged(&threshold.expect("a rule in range"))
        };
        // Percentiles 0, 50 and 100 are 1, 2 and 5.
        assert_eq!([at(0.0), at(50.0), at(100.0)], [3, 1, 0]);
    }

    #[test]
    fn an_unreachable_fpr_is_refused_with_the_number_of_images_needed() {
        // 1 / (n + 1) <= 0.01 first holds at n = 99.
        let of_size = |n: usize, fpr| Threshold::infer(&calibration(&vec![0.5; n]), Rule::Fpr { fpr });
        let message = of_size(98, 0.01).expect_err("1/99 > 0.01").to_string();
        assert!(message.contains("with 98 calibration images"), "{message}");
        assert!(message.contains("at least 99 calibration images"), "{message}");
        assert!(of_size(99, 0.01).is_ok());
        for fpr in [0.05, 0.07, 0.29, 0.3, 0.001, 1.0 / 3.0, 1.0 / 49.0, 0.6, 0.999] {
            let needed = calibration_images_needed(fpr) as usize;
            assert!(needed == 0 || of_size(needed, fpr).is_ok(), "{fpr}");
            assert!(needed < 2 || of_size(needed - 1, fpr).is_err(), "{fpr}");
        }
    }

    #[test]
    fn settings_out_of_range_and_broken_scores_are_refused() {
        let scores = calibration(&[1.0, 2.0]);
        for percentile in [-0.1, 100.1, f64::NAN] {
            assert!(Threshold::infer(&scores, Rule::Percentile { percentile, margin: 0.0 }).is_err());
        }
        assert!(
            Threshold::infer(&scores, Rule::Percentile { percentile: 50.0, margin: f64::INFINITY }).is_err()
        );
        for fpr in [0.0, 1.0, -0.5, f64::NAN] {
            assert!(Threshold::infer(&scores, Rule::Fpr { fpr }).is_err());
        }
        assert!(matches!(CalibrationScores::new(vec![]), Err(Error::Input { .. })));
        assert!(matches!(CalibrationScores::new(vec![0.0, f64::NAN]), Err(Error::Numeric { .. })));
        assert!(matches!(CalibrationScores::new(vec![f64::INFINITY]), Err(Error::Numeric { .. })));
    }

    #[test]
    fn a_rule_reads_back_and_refuses_unknown_settings() {
        let json = r#"{"rule":"fpr","fpr":0.05}"#;
        let rule: Rule = serde_json::from_str(json).expect("a rule");
        assert_eq!(rule, Rule::Fpr { fpr: 0.05 });
        assert_eq!(serde_json::to_string(&rule).expect("a rule"), json);
        let rule: Rule = serde_json::from_str(r#"{"rule":"percentile","percentile":95.0}"#).expect("a rule");
        assert_eq!(rule, Rule::default());
        assert!(serde_json::from_str::<Rule>(r#"{"rule":"fpr","fpr":0.05,"margin":1.0}"#).is_err());
    }

    /// Few distinct values, so that ties are common.
    fn scores() -> impl Strategy<Value = Vec<f64>> {
        vec((0..40_i32).prop_map(f64::from), 1..120)
    }

    proptest! {
        #[test]
        fn p_values_lie_in_the_unit_interval_and_fall_as_scores_rise(
            scores in scores(), a in -1.0..41.0, b in -1.0..41.0,
        ) {
            let calibration = calibration(&scores);
            let (low, high) = (f64::min(a, b), f64::max(a, b));
            let (p_low, p_high) = (calibration.p_value(low), calibration.p_value(high));
            prop_assert!(0.0 < p_high && p_high <= p_low && p_low <= 1.0);
        }

        #[test]
        fn flagged_by_fpr_is_p_at_most_fpr(
            scores in scores(), score in (-1..41_i32).prop_map(f64::from), fpr in 0.01..0.99,
        ) {
            // Also at every fpr that a p-value can take, where rounding could part the two.
            let calibration = calibration(&scores);
            for fpr in [fpr, calibration.p_value(fpr * 40.0)] {
                if let Ok(threshold) = Threshold::infer(&calibration, Rule::Fpr { fpr }) {
                    prop_assert_eq!(threshold.flags(score), calibration.p_value(score) <= fpr);
                }
            }
        }

        /// Why conformal p-values are valid: of n + 1 exchangeable scores, each equally likely to
        /// be the new one, at most floor(fpr (n + 1)) are flagged by the others.
        #[test]
        fn at_most_the_allowed_share_of_exchangeable_scores_is_flagged(
            scores in scores(), fpr in 0.01..0.99,
        ) {
            let flagged = (0..scores.len()).filter(|&held_out| {
                let mut rest = scores.clone();
                let score = rest.swap_remove(held_out);
                CalibrationScores::new(rest)
                    .and_then(|calibration| Threshold::infer(&calibration, Rule::Fpr { fpr }))
                    .is_ok_and(|threshold| threshold.flags(score))
            });
            prop_assert!(flagged.count() as f64 <= fpr * scores.len() as f64);
        }

        #[test]
        fn a_higher_percentile_never_lowers_the_threshold(
            scores in scores(), a in 0.0..=100.0, b in 0.0..=100.0,
        ) {
            let at = |percentile| infer(&scores, Rule::Percentile { percentile, margin: 0.0 });
            prop_assert!(at(f64::min(a, b)) <= at(f64::max(a, b)));
        }
    }
}
