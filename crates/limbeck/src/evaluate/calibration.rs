//! Whether a model is as often right as it says: the reliability of its confidence, and the expected calibration error.
//!
//! Confidence is the largest probability of the softmax at temperature 1, at which a model is deployed. A student that was distilled
//! at a higher temperature is as good as certain of everything there; the figure shows it.

use super::results::{Calibration, Rate, ReliabilityBin};
use crate::error::{Error, Result};

/// Equal bins of confidence (Guo 2017, section 4).
const BINS: usize = 15;

/// Reliability of a model's confidence, each in `[0, 1]`, and of its being right; bins without an image are left out.
///
/// The expected calibration error is the gap between accuracy and mean confidence in each bin `(from, to]`, averaged with the share of
/// images in each (Naeini 2015; Guo 2017, equation 3). Without an image there is none.
///
/// # Errors
/// [`Error::Input`] when the lengths differ or a confidence is not in `[0, 1]`.
pub fn calibration(model: &str, confidence: &[f64], correct: &[bool]) -> Result<Calibration> {
    const OPERATION: &str = "calibration";
    if confidence.len() != correct.len() {
        let found = format!("{} confidences and {} outcomes", confidence.len(), correct.len());
        return Err(Error::input(OPERATION, found, "as many of the one as of the other"));
    }
    if let Some(value) = confidence.iter().find(|value| !(0.0..=1.0).contains(*value)) {
        return Err(Error::input(OPERATION, format!("confidence {value}"), "confidences in [0, 1]"));
    }
    let bins = reliability(confidence, correct, BINS);
    let gap =
        |bin: &ReliabilityBin| bin.accuracy.successes as f64 - bin.confidence * bin.accuracy.trials as f64;
    let error = bins.iter().map(|bin| gap(bin).abs()).sum::<f64>() / confidence.len() as f64;
    Ok(Calibration { model: model.to_owned(), error: error.is_finite().then_some(error), bins })
}

fn reliability(confidence: &[f64], correct: &[bool], bins: usize) -> Vec<ReliabilityBin> {
    let mut sums = vec![(0.0, Rate::default()); bins];
    for (&value, &right) in confidence.iter().zip(correct) {
        let (sum, accuracy) = &mut sums[((value * bins as f64).ceil() as usize).clamp(1, bins) - 1];
        *sum += value;
        accuracy.successes += u64::from(right);
        accuracy.trials += 1;
    }
    let edge = |bin: usize| bin as f64 / bins as f64;
    let filled = sums.into_iter().enumerate().filter(|(_, (_, accuracy))| accuracy.trials > 0);
    filled
        .map(|(bin, (sum, accuracy))| ReliabilityBin {
            from: edge(bin),
            to: edge(bin + 1),
            confidence: sum / accuracy.trials as f64,
            accuracy,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIDENCE: [f64; 12] = [0.05, 0.2, 0.31, 0.55, 0.6, 0.66, 0.8, 0.93, 0.97, 1.0, 0.2, 0.0];
    const RIGHT: [bool; 12] = [false, false, true, true, false, true, true, true, false, true, true, false];

    #[test]
    fn the_bins_are_those_of_numpys_digitize() {
        // numpy 2.4.6: digitize(confidence, linspace(0, 1, 6), right=True), by hand from there: 0.2358333
        let gaps = reliability(&CONFIDENCE, &RIGHT, 5)
            .iter()
            .map(|bin| (bin.accuracy.successes as f64 - bin.confidence * bin.accuracy.trials as f64).abs())
            .sum::<f64>();
        assert!((gaps / 12.0 - 0.23583333333333334).abs() < 1e-12, "{gaps}");
    }

    #[test]
    fn the_error_over_fifteen_bins_is_numpys() {
        // numpy 2.4.6: digitize(confidence, linspace(0, 1, 16), right=True), the first bin holding 0 too
        let found = calibration("student", &CONFIDENCE, &RIGHT).expect("in range");
        let error = found.error.expect("twelve images");
        assert!((error - 0.2558333333333333).abs() < 1e-12, "{error}");
        assert_eq!(found.bins.iter().map(|bin| bin.accuracy.trials).sum::<u64>(), 12);
        assert!(found.bins.iter().all(|bin| bin.from < bin.to && bin.accuracy.trials > 0));
    }

    #[test]
    fn one_that_is_certain_and_always_wrong_is_as_far_off_as_can_be() {
        assert_eq!(calibration("", &[1.0; 4], &[false; 4]).expect("in range").error, Some(1.0));
        assert_eq!(calibration("", &[1.0; 4], &[true; 4]).expect("in range").error, Some(0.0));
    }

    #[test]
    fn without_an_image_there_is_no_error_and_no_bin() {
        let found = calibration("", &[], &[]).expect("nothing to refuse");
        assert_eq!((found.error, found.bins.len()), (None, 0));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for confidence in [1.5, -0.1, f64::NAN] {
            assert!(
                matches!(calibration("", &[confidence], &[true]), Err(Error::Input { .. })),
                "{confidence}"
            );
        }
        assert!(matches!(calibration("", &[0.5], &[]), Err(Error::Input { .. })));
    }
}
