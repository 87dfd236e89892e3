//! Whether one of two models is right more often than the other on the same images: McNemar's exact test.
//!
//! Images that both models answer right, or both wrong, say nothing about which is better; the test looks at the others alone, so it
//! sees differences that two separate intervals of accuracy hide.

use super::results::Comparison;
use crate::error::{Error, Result};

/// Two-sided p-value of McNemar's exact test that two models err equally often on the same images.
///
/// `b` counts the images that only the first model answers right, `c` those that only the second
/// does. Under the hypothesis `b` is binomial with `b + c` trials and probability one half; the
/// p-value is twice the smaller tail, at most 1, and 1 without any disagreement. `O(min(b, c))`.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let (smaller, trials) = (b.min(c), b + c);
    let others = trials - smaller;
    // ln of C(trials, smaller) / 2^trials, the largest term of the tail.
    let ln_choose: f64 = (1..=smaller).map(|i| ((others + i) as f64 / i as f64).ln()).sum();
    let largest = (ln_choose - trials as f64 * std::f64::consts::LN_2).exp();
    // C(n, k - 1) = C(n, k) k / (n - k + 1)
    let (mut ratio, mut tail) = (1.0, 1.0);
    for k in (1..=smaller).rev() {
        ratio *= k as f64 / (trials - k + 1) as f64;
        tail += ratio;
    }
    (2.0 * largest * tail).min(1.0)
}

/// Two models' outcomes on the same images, `true` = right; `inputs` says on which.
///
/// # Errors
/// [`Error::Input`] when one model was shown more images than the other.
pub fn compare(inputs: &str, first: (&str, &[bool]), second: (&str, &[bool])) -> Result<Comparison> {
    let ((first, of_first), (second, of_second)) = (first, second);
    if of_first.len() != of_second.len() {
        let found = format!("{} outcomes of {first} and {} of {second}", of_first.len(), of_second.len());
        return Err(Error::input("McNemar's test", found, "outcomes on the same images"));
    }
    let [only_first, only_second] = disagreements(of_first, of_second);
    Ok(Comparison {
        inputs: inputs.to_owned(),
        first: first.to_owned(),
        second: second.to_owned(),
        images: of_first.len() as u64,
        only_first,
        only_second,
        p_value: mcnemar(only_first, only_second),
    })
}

/// How many images only the first, and only the second, has right.
pub(super) fn disagreements(first: &[bool], second: &[bool]) -> [u64; 2] {
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as u64;
    [only(first, second), only(second, first)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() <= 1e-12 * expected.abs().max(1e-3),
            "found {found:e}, expected {expected:e}"
        );
    }

    #[test]
    fn mcnemar_is_scipys_binomial_test() {
        // scipy 1.17.1: binomtest(b, b + c, 0.5).pvalue
        for (b, c, expected) in [
            (5, 12, 0.143463134765625),
            (0, 6, 0.03125),
            (7, 7, 1.0),
            (121, 59, 4.4344492637551645e-06),
            (0, 2000, 0.0),
            (3, 1, 0.625),
        ] {
            assert_close(mcnemar(b, c), expected);
            assert_eq!(mcnemar(b, c), mcnemar(c, b));
        }
        assert!((mcnemar(20_000, 19_000) / 4.216841447373336e-07 - 1.0).abs() < 1e-8);
        assert_eq!(mcnemar(0, 0), 1.0);
    }

    #[test]
    fn only_images_on_which_two_models_differ_count() {
        let (first, second) = ([true, true, false, true, false], [true, false, true, false, false]);
        let found = compare("clean", ("a", &first), ("b", &second)).expect("the same images");
        assert_eq!((found.images, found.only_first, found.only_second), (5, 2, 1));
        // scipy 1.17.1: binomtest(2, 3, 0.5).pvalue
        assert_close(found.p_value, 1.0);
        let nothing = compare("clean", ("a", &[]), ("b", &[])).expect("no image");
        assert_eq!((nothing.images, nothing.p_value), (0, 1.0));
    }

    #[test]
    fn outcomes_on_different_images_are_not_compared() {
        let error = compare("clean", ("a", &[true]), ("b", &[])).expect_err("another set").to_string();
        assert!(error.contains("1 outcomes of a and 0 of b"), "{error}");
    }
}
