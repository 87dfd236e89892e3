//! How much fewer errors a model makes when it may keep silent: the risk-coverage curve and the area under it.

use super::metrics::{TieGroup, check_lengths, check_no_nan, thin, tie_groups};
use crate::error::Result;

/// Risk-coverage curve as `[coverage, error among answered]`, and the area under it (AURC, smaller
/// is better).
///
/// Images are answered from the least to the most uncertain (Geifman & El-Yaniv 2017); AURC is the
/// mean over `k = 1..=n` of the error among the first `k`. Images of equal uncertainty cannot be
/// told apart by a threshold: the curve has a point only behind each such group, and AURC takes the
/// expectation over the order within it. The curve ends at full coverage and is thinned by coverage
/// to at most `max_points`.
///
/// # Errors
/// [`Error::Input`](crate::Error::Input) without an image, when the lengths differ or `max_points` is below 2;
/// [`Error::Numeric`](crate::Error::Numeric) for NaN.
pub fn risk_coverage(
    uncertainty: &[f64],
    correct: &[bool],
    max_points: usize,
) -> Result<(Vec<[f64; 2]>, f64)> {
    const OPERATION: &str = "risk-coverage curve";
    check_lengths(OPERATION, "uncertainties", uncertainty, correct)?;
    check_no_nan(OPERATION, "uncertainties", uncertainty)?;
    let groups = tie_groups(uncertainty.iter().copied().zip(correct.iter().map(|&right| !right)).collect());
    let images = uncertainty.len() as f64;
    let (mut answered, mut wrong, mut area) = (0.0, 0.0, 0.0);
    let mut points = Vec::with_capacity(groups.len());
    for TieGroup { negatives, positives: errors } in groups {
        let size = (negatives + errors) as f64;
        area += (1..=negatives + errors)
            .map(|taken| (wrong + taken as f64 * errors as f64 / size) / (answered + taken as f64))
            .sum::<f64>();
        answered += size;
        wrong += errors as f64;
        points.push([answered / images, wrong / answered]);
    }
    Ok((thin(OPERATION, points, max_points, |[coverage, _]| coverage)?, area / images))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-12, "found {found:e}, expected {expected:e}");
    }

    #[test]
    fn aurc_is_the_mean_selective_risk() -> Result<()> {
        // numpy 2.4.6: mean(cumsum(error) / arange(1, n + 1)), sorted by uncertainty
        let uncertainty = [0.9, 0.1, 0.4, 0.3, 0.7, 0.2, 0.8, 0.6];
        let correct = [false, true, true, false, true, true, false, true];
        let (curve, aurc) = risk_coverage(&uncertainty, &correct, 200)?;
        assert_close(aurc, 0.2013392857142857);
        assert_eq!(curve.len(), 8);
        assert_eq!(curve[2], [3.0 / 8.0, 1.0 / 3.0]);
        assert_eq!(curve[7], [1.0, 3.0 / 8.0]);
        // With ties: the same, averaged over all orders within them (itertools.permutations).
        let tied = [0.1, 0.2, 0.2, 0.2, 0.5, 0.5];
        let (curve, aurc) = risk_coverage(&tied, &[true, false, true, false, true, false], 200)?;
        assert_close(aurc, 0.3796296296296297);
        assert_eq!(curve, [[1.0 / 6.0, 0.0], [4.0 / 6.0, 0.5], [1.0, 0.5]]);
        Ok(())
    }

    #[test]
    fn a_model_that_is_always_right_has_no_risk_and_one_that_is_always_wrong_has_all() -> Result<()> {
        let uncertainty = [0.3, 0.1, 0.2];
        let (curve, aurc) = risk_coverage(&uncertainty, &[true; 3], 200)?;
        assert_eq!((curve.last(), aurc), (Some(&[1.0, 0.0]), 0.0));
        let (curve, aurc) = risk_coverage(&uncertainty, &[false; 3], 200)?;
        assert_eq!((curve.last(), aurc), (Some(&[1.0, 1.0]), 1.0));
        Ok(())
    }

    #[test]
    fn nan_and_inputs_that_mean_nothing_are_refused() {
        let refusal = |uncertainty: &[f64], correct: &[bool], points| {
            risk_coverage(uncertainty, correct, points).expect_err("it means nothing")
        };
        let nan = refusal(&[0.0, f64::NAN], &[true; 2], 9);
        assert!(nan.to_string().contains("NaN at index 1"), "{nan}");
        for error in
            [refusal(&[], &[], 9), refusal(&[0.0], &[true; 2], 9), refusal(&[0.0, 1.0], &[true; 2], 1)]
        {
            assert!(matches!(error, Error::Input { .. }), "{error}");
        }
    }
}
