//! Detection metrics over plain slices.
//!
//! Negatives are the scores of clean images, positives those of poisoned or adversarial ones; a
//! larger score is more suspicious. Rates are shares in `[0, 1]`. Every function refuses empty
//! inputs ([`Error::Input`]) and NaN ([`Error::Numeric`]); infinite scores are ordered like any
//! other. Ties count as the rank statistics say, so nothing depends on the order of the inputs.
//!
//! ```
//! use limbeck::evaluate::metrics::auroc;
//!
//! // The example in scikit-learn's documentation of roc_auc_score.
//! assert_eq!(auroc(&[0.1, 0.4], &[0.35, 0.8])?, 0.75);
//! # Ok::<(), limbeck::error::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::evaluate::results::Rate;

/// 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Area under the ROC curve: the probability that a positive scores above a negative, ties counting
/// one half.
///
/// The Mann-Whitney statistic with midranks, `O(n log n)`; counts are integers up to the last division.
///
/// # Errors
/// See the [module](self).
pub fn auroc(negatives: &[f64], positives: &[f64]) -> Result<f64> {
    Ok(Ranking::new("auroc", negatives, positives)?.auroc())
}

/// 95 % confidence interval of [`auroc`] as `[lower, upper]`.
///
/// Variance of DeLong, DeLong & Clarke-Pearson (1988), computed from ranks as by Sun & Xu (2014);
/// the normal interval is taken on the logit scale and mapped back, so it stays inside `[0, 1]`. At
/// an AUROC of 0 or 1 the variance estimate is 0 and says nothing; there the interval is Wilson's
/// for `k` of `k` successes, `k` the size of the smaller side, since that many disjoint pairs were
/// ordered without a fault. When all scores are equal both ends are 0.5.
///
/// # Errors
/// See the [module](self); also [`Error::Input`] with fewer than two scores on a side, where no
/// variance exists.
pub fn auroc_interval(negatives: &[f64], positives: &[f64]) -> Result<[f64; 2]> {
    const OPERATION: &str = "auroc interval";
    let ranking = Ranking::new(OPERATION, negatives, positives)?;
    let smaller = ranking.negatives.min(ranking.positives);
    if smaller < 2 {
        let found = format!("{} negatives and {} positives", ranking.negatives, ranking.positives);
        return Err(Error::input(OPERATION, found, "at least 2 of each"));
    }
    let area = ranking.auroc();
    if area == 0.0 || area == 1.0 {
        let ordered = Rate { successes: if area == 1.0 { smaller } else { 0 }, trials: smaller };
        return Ok(ordered.wilson().unwrap_or([0.0, 1.0]));
    }
    let logit = (area / (1.0 - area)).ln();
    let half = Z * ranking.delong_variance().sqrt() / (area * (1.0 - area));
    Ok([logit - half, logit + half].map(|bound| 1.0 / (1.0 + (-bound).exp())))
}

/// ROC curve as `[false positive rate, true positive rate]`, from `[0, 0]` to `[1, 1]`, neither
/// rate ever falling.
///
/// Every point but the first is a threshold that the scores allow. A curve of more than `max_points` is
/// thinned to points about evenly spaced along it.
///
/// # Errors
/// See the [module](self); also [`Error::Input`] when `max_points` is below 2.
pub fn roc_curve(negatives: &[f64], positives: &[f64], max_points: usize) -> Result<Vec<[f64; 2]>> {
    const OPERATION: &str = "roc curve";
    let ranking = Ranking::new(OPERATION, negatives, positives)?;
    let points = std::iter::once([0.0, 0.0]).chain(ranking.operating_points()).collect();
    thin(OPERATION, points, max_points, |[fpr, tpr]| fpr + tpr)
}

/// Highest share of positives flagged by any threshold that flags at most the share `fpr` of the
/// negatives.
///
/// # Errors
/// See the [module](self); also [`Error::Input`] when `fpr` is not in `[0, 1]`.
pub fn recall_at_false_positive_rate(negatives: &[f64], positives: &[f64], fpr: f64) -> Result<f64> {
    const OPERATION: &str = "recall at false positive rate";
    if !(0.0..=1.0).contains(&fpr) {
        return Err(Error::input(OPERATION, format!("fpr {fpr}"), "a rate in [0, 1]"));
    }
    let ranking = Ranking::new(OPERATION, negatives, positives)?;
    let allowed = ranking.operating_points().take_while(|point| point[0] <= fpr);
    Ok(allowed.last().map_or(0.0, |point| point[1]))
}

/// All scores of one value.
#[derive(Clone, Copy)]
pub(super) struct TieGroup {
    pub(super) negatives: u64,
    pub(super) positives: u64,
}

/// Both sides merged into groups of equal value, ascending. All rank statistics follow from it in
/// one pass.
struct Ranking {
    groups: Vec<TieGroup>,
    negatives: u64,
    positives: u64,
}

impl Ranking {
    fn new(operation: &'static str, negatives: &[f64], positives: &[f64]) -> Result<Self> {
        if negatives.is_empty() || positives.is_empty() {
            let found = format!("{} negatives and {} positives", negatives.len(), positives.len());
            return Err(Error::input(operation, found, "at least 1 of each"));
        }
        check_no_nan(operation, "negatives", negatives)?;
        check_no_nan(operation, "positives", positives)?;
        let mut scores: Vec<_> = negatives.iter().map(|&score| (score, false)).collect();
        scores.extend(positives.iter().map(|&score| (score, true)));
        Ok(Self {
            groups: tie_groups(scores),
            negatives: negatives.len() as u64,
            positives: positives.len() as u64,
        })
    }

    /// Each group with the negatives and positives below it.
    fn with_counts_below(&self) -> impl Iterator<Item = (TieGroup, TieGroup)> {
        self.groups.iter().scan(TieGroup { negatives: 0, positives: 0 }, |below, &group| {
            let before = *below;
            below.negatives += group.negatives;
            below.positives += group.positives;
            Some((group, before))
        })
    }

    fn auroc(&self) -> f64 {
        // Twice the Mann-Whitney count, to keep half ties whole.
        let doubled: u128 = self
            .with_counts_below()
            .map(|(group, below)| {
                u128::from(group.positives) * u128::from(2 * below.negatives + group.negatives)
            })
            .sum();
        doubled as f64 / (2 * u128::from(self.negatives) * u128::from(self.positives)) as f64
    }

    /// DeLong's variance of the AUROC: both sides' variance of the placements, over their sizes. A
    /// placement is the difference of two midranks (Sun & Xu 2014), the same for all scores of a
    /// group.
    fn delong_variance(&self) -> f64 {
        let (area, m, n) = (self.auroc(), self.positives as f64, self.negatives as f64);
        let (mut of_positives, mut of_negatives) = (0.0, 0.0);
        for (group, below) in self.with_counts_below() {
            let negatives_under = (below.negatives as f64 + group.negatives as f64 / 2.0) / n;
            let positives_over = 1.0 - (below.positives as f64 + group.positives as f64 / 2.0) / m;
            of_positives += group.positives as f64 * (negatives_under - area).powi(2);
            of_negatives += group.negatives as f64 * (positives_over - area).powi(2);
        }
        of_positives / ((m - 1.0) * m) + of_negatives / ((n - 1.0) * n)
    }

    /// `[false positive rate, true positive rate]` of each threshold, from the strictest.
    fn operating_points(&self) -> impl Iterator<Item = [f64; 2]> {
        self.groups.iter().rev().scan((0, 0), |(false_positives, true_positives), group| {
            *false_positives += group.negatives;
            *true_positives += group.positives;
            Some([
                *false_positives as f64 / self.negatives as f64,
                *true_positives as f64 / self.positives as f64,
            ])
        })
    }
}

/// Groups `(score, is positive)` by score, ascending.
pub(super) fn tie_groups(mut scores: Vec<(f64, bool)>) -> Vec<TieGroup> {
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Equal by ==, not by total_cmp: -0.0 and 0.0 tie.
    let groups = scores.chunk_by(|a, b| a.0 == b.0).map(|group| {
        let positives = group.iter().filter(|(_, positive)| *positive).count() as u64;
        TieGroup { negatives: group.len() as u64 - positives, positives }
    });
    groups.collect()
}

/// Keeps the first and the last point and, of the others, the first in each of `max_points - 1` equal
/// stretches of `position`, which must rise from point to point.
pub(super) fn thin(
    operation: &'static str,
    points: Vec<[f64; 2]>,
    max_points: usize,
    position: impl Fn([f64; 2]) -> f64,
) -> Result<Vec<[f64; 2]>> {
    if max_points < 2 {
        return Err(Error::input(operation, format!("max_points {max_points}"), "at least 2"));
    }
    let (&[first, .., last], true) = (points.as_slice(), points.len() > max_points) else {
        return Ok(points);
    };
    let stretches = max_points - 1;
    let start = position(first);
    let step = (position(last) - start) / stretches as f64;
    let mut taken = 0;
    let mut kept = vec![first];
    for &point in &points[1..points.len() - 1] {
        let stretch = ((position(point) - start) / step) as usize;
        if stretch > taken && stretch < stretches {
            kept.push(point);
            taken = stretch;
        }
    }
    kept.push(last);
    Ok(kept)
}

pub(super) fn check_no_nan(operation: &'static str, name: &str, values: &[f64]) -> Result<()> {
    match values.iter().position(|value| value.is_nan()) {
        Some(index) => {
            Err(Error::Numeric { operation, found: format!("NaN at index {index} of the {name}") })
        }
        None => Ok(()),
    }
}

pub(super) fn check_lengths(
    operation: &'static str,
    name: &str,
    values: &[f64],
    correct: &[bool],
) -> Result<()> {
    if values.is_empty() || values.len() != correct.len() {
        let found = format!("{} {name} and {} outcomes", values.len(), correct.len());
        return Err(Error::input(operation, found, "as many of the one as of the other, at least 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const NEGATIVES: [f64; 12] = [0.10, 0.35, 0.35, 0.22, 0.60, 0.05, 0.41, 0.50, 0.15, 0.35, 0.72, 0.28];
    const POSITIVES: [f64; 9] = [0.35, 0.80, 0.55, 0.60, 0.91, 0.41, 0.30, 0.77, 0.60];

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs().max(1e-3),
            "found {found:e}, expected {expected:e}"
        );
    }

    #[test]
    fn auroc_with_ties_is_scikit_learns() -> Result<()> {
        // scikit-learn 1.9.1, roc_auc_score
        assert_close(auroc(&NEGATIVES, &POSITIVES)?, 0.8055555555555556);
        assert_eq!(auroc(&[-0.0], &[0.0])?, 0.5);
        assert_eq!(auroc(&[f64::NEG_INFINITY, 1.0], &[f64::INFINITY])?, 1.0);
        Ok(())
    }

    #[test]
    fn delong_variance_is_that_of_the_structural_components() -> Result<()> {
        // numpy 2.4.6 over the full comparison matrix; confidenceinterval 1.0.5 has 0.00924464589
        // (its ranks are float32).
        let ranking = Ranking::new("test", &NEGATIVES, &POSITIVES)?;
        assert_close(ranking.delong_variance(), 0.009244645529367752);
        // The same, through scipy 1.17.1's norm.ppf on the logit scale.
        let [lower, upper] = auroc_interval(&NEGATIVES, &POSITIVES)?;
        assert_close(lower, 0.5543554454022631);
        assert_close(upper, 0.9324209879402464);
        Ok(())
    }

    #[test]
    fn a_perfect_separation_does_not_claim_certainty() -> Result<()> {
        // Wilson for 5 of 5: lower end 5 / (5 + z^2), z = 1.959964.
        let negatives = [0.0, 0.1, 0.2, 0.3, 0.4];
        let positives = [1.0; 8];
        let [lower, upper] = auroc_interval(&negatives, &positives)?;
        assert_close(lower, 5.0 / (5.0 + Z * Z));
        assert_eq!(upper, 1.0);
        let [lower, upper] = auroc_interval(&positives, &negatives)?;
        assert_eq!(lower, 0.0);
        assert_close(upper, Z * Z / (5.0 + Z * Z));
        assert_eq!(auroc_interval(&[1.0; 3], &[1.0; 4])?, [0.5, 0.5]);
        Ok(())
    }

    #[test]
    fn roc_points_are_scikit_learns() -> Result<()> {
        // scikit-learn 1.9.1, roc_curve(drop_intermediate=False), as counts out of 12 and 9
        let counts = [
            (0, 0),
            (0, 1),
            (0, 2),
            (0, 3),
            (1, 3),
            (2, 5),
            (2, 6),
            (3, 6),
            (4, 7),
            (7, 8),
            (7, 9),
            (8, 9),
            (9, 9),
            (10, 9),
            (11, 9),
            (12, 9),
        ];
        let expected = counts.map(|(fp, tp)| [f64::from(fp) / 12.0, f64::from(tp) / 9.0]);
        assert_eq!(roc_curve(&NEGATIVES, &POSITIVES, 200)?, expected);
        assert_eq!(roc_curve(&NEGATIVES, &POSITIVES, 2)?, [[0.0, 0.0], [1.0, 1.0]]);
        Ok(())
    }

    #[test]
    fn recall_is_the_best_point_within_the_rate() -> Result<()> {
        // scikit-learn 1.9.1: max(tpr[fpr <= x]) over roc_curve
        for (fpr, ninths) in [(0.0, 3.0), (0.01, 3.0), (1.0 / 12.0, 3.0), (0.25, 6.0), (0.5, 7.0), (1.0, 9.0)]
        {
            assert_close(recall_at_false_positive_rate(&NEGATIVES, &POSITIVES, fpr)?, ninths / 9.0);
        }
        assert_eq!(recall_at_false_positive_rate(&[1.0], &[0.5], 0.0)?, 0.0);
        Ok(())
    }

    #[test]
    fn nan_is_refused_with_its_place() {
        let failures = [
            auroc(&[0.0], &[0.5, f64::NAN]).expect_err("NaN"),
            roc_curve(&[0.0], &[0.5, f64::NAN], 9).expect_err("NaN"),
        ];
        for failure in failures {
            assert!(matches!(failure, Error::Numeric { .. }), "{failure}");
            assert!(failure.to_string().contains("NaN at index 1"), "{failure}");
        }
    }

    #[test]
    fn inputs_that_mean_nothing_are_refused() {
        let refused = |outcome: Result<f64>| matches!(outcome, Err(Error::Input { .. }));
        assert!(refused(auroc(&[], &[1.0])));
        assert!(refused(auroc_interval(&[0.0], &[1.0, 2.0]).map(|bounds| bounds[0])));
        assert!(refused(recall_at_false_positive_rate(&[0.0], &[1.0], 1.5)));
        assert!(refused(roc_curve(&[0.0], &[1.0], 1).map(|curve| curve[0][0])));
    }

    /// Few distinct values, so that ties are common.
    fn scores() -> impl Strategy<Value = Vec<f64>> {
        vec((0..30_i32).prop_map(f64::from), 2..80)
    }

    proptest! {
        #[test]
        fn auroc_is_the_share_of_ordered_pairs(negatives in scores(), positives in scores()) {
            let pairs = negatives.iter().flat_map(|n| positives.iter().map(move |p| (n, p)));
            let ordered: f64 = pairs.map(|(n, p)| if n < p { 1.0 } else if n == p { 0.5 } else { 0.0 }).sum();
            let area = auroc(&negatives, &positives).expect("finite scores");
            prop_assert_eq!(area, ordered / (negatives.len() * positives.len()) as f64);
            let [lower, upper] = auroc_interval(&negatives, &positives).expect("finite scores");
            prop_assert!(0.0 <= lower && lower <= area + 1e-12 && area - 1e-12 <= upper && upper <= 1.0);
        }

        #[test]
        fn the_area_under_the_roc_curve_is_the_auroc(negatives in scores(), positives in scores()) {
            let curve = roc_curve(&negatives, &positives, 1000).expect("finite scores");
            let area: f64 = curve.windows(2).map(|w| (w[1][0] - w[0][0]) * (w[1][1] + w[0][1]) / 2.0).sum();
            prop_assert!((area - auroc(&negatives, &positives).expect("finite scores")).abs() < 1e-12);
        }

        #[test]
        fn a_thinned_curve_keeps_its_ends_its_order_and_its_bound(
            negatives in scores(), positives in scores(), max_points in 2..40_usize,
        ) {
            let full = roc_curve(&negatives, &positives, 1000).expect("finite scores");
            let curve = roc_curve(&negatives, &positives, max_points).expect("finite scores");
            prop_assert!(curve.len() <= max_points);
            prop_assert_eq!((curve[0], curve[curve.len() - 1]), ([0.0, 0.0], [1.0, 1.0]));
            prop_assert!(curve.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1]));
            prop_assert!(curve.iter().all(|point| full.contains(point)));
        }
    }
}
