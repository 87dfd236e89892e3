//! The temperature at which a student is as often right as it says (Guo 2017, section 4.2).
//!
//! The mean of −ln softmax(z/T)_y over clean calibration images is convex in β = 1/T, and its slope there is the mean of Σ_k softmax(β z)_k z_k − z_y. The slope's zero is
//! found by halving. Dividing logits by T changes no answer, only how sure it is. A distilled student needs it: deployed at T = 1, it is far too sure.

use burn::tensor::{Device, Tensor};

use crate::error::{Error, Result};
use crate::network::Model;

/// Limits of β.
const COLDEST: f64 = 1e3;
const HOTTEST: f64 = 1e-3;

/// T that fits logits `[images, classes]`, row by row, to the labels of the images. Within 0.001 and 1000; 1 where every image is read rightly or none has two different logits, for then no
/// finite T is best.
///
/// # Errors
/// [`Error::Input`] when logits and labels do not fit each other or there are none; [`Error::Numeric`] for a logit that is not finite.
pub fn calibrated_temperature(logits: &[f32], labels: &[u32]) -> Result<f64> {
    const OPERATION: &str = "temperature calibration";
    let classes = if labels.is_empty() { 0 } else { logits.len() / labels.len() };
    if classes == 0
        || logits.len() != classes * labels.len()
        || labels.iter().any(|&label| label as usize >= classes)
    {
        let found = format!("{} logits and {} labels", logits.len(), labels.len());
        return Err(Error::input(
            OPERATION,
            found,
            "a row of logits for each image, and labels of its classes",
        ));
    }
    if let Some(value) = logits.iter().find(|value| !value.is_finite()) {
        return Err(Error::Numeric { operation: OPERATION, found: value.to_string() });
    }
    let rows = || logits.chunks_exact(classes).zip(labels);
    let slope = |beta: f64| rows().map(|(row, &label)| slope_of(row, label as usize, beta)).sum::<f64>();
    // Sharper answers are better to the end.
    if slope(COLDEST) <= 0.0 {
        return Ok(1.0);
    }
    let (mut low, mut high) = (HOTTEST.ln(), COLDEST.ln());
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if slope(middle.exp()) > 0.0 { high = middle } else { low = middle }
    }
    Ok((-f64::midpoint(low, high)).exp())
}

/// Σ_k softmax(β z)_k z_k − z_y.
fn slope_of(row: &[f32], label: usize, beta: f64) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights = row.iter().map(|z| (beta * f64::from(z - largest)).exp());
    let (sum, weighted) = weights
        .zip(row)
        .fold((0.0, 0.0), |(sum, weighted), (weight, z)| (sum + weight, weighted + weight * f64::from(*z)));
    weighted / sum - f64::from(row[label])
}

/// A model whose probabilities are those at this temperature.
pub(crate) struct AtTemperature<'a> {
    pub(crate) model: &'a dyn Model,
    pub(crate) temperature: f64,
}

impl Model for AtTemperature<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.model.logits(images).div_scalar(self.temperature)
    }

    fn device(&self) -> Device {
        self.model.device()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_scipy_finds_the_least_loss() {
        // scipy 1.17.1: minimize_scalar of −log_softmax(z / T, 1)[arange(6), y].mean() over T in (0.01, 100)
        let logits =
            [4.0, 0.0, -2.0, 1.0, 3.0, 0.5, -1.0, 2.0, 2.5, 6.0, 1.0, 0.0, 0.5, 0.0, 4.0, 2.0, 5.0, 1.0];
        let labels = [0, 1, 1, 0, 2, 0];
        let found = calibrated_temperature(&logits, &labels).expect("it fits");
        let expected = 1.7012943078111946;
        assert!((found - expected).abs() < 1e-4 * expected, "{found}, expected {expected}");
    }

    #[test]
    fn logits_that_are_too_large_by_a_factor_are_cooled_by_it() {
        let logits = [4.0, 0.0, 1.0, 3.0, -1.0, 2.0, 6.0, 1.0, 0.5, 0.0, 2.0, 5.0];
        let labels = [0, 1, 0, 0, 0, 1];
        let twenty: Vec<f32> = logits.iter().map(|z| 20.0 * z).collect();
        let [one, other] =
            [&logits[..], &twenty].map(|z| calibrated_temperature(z, &labels).expect("it fits"));
        assert!((other / one - 20.0).abs() < 1e-4, "{one} and {other}");
    }

    #[test]
    fn where_all_are_right_nothing_is_changed() {
        assert_eq!(calibrated_temperature(&[2.0, 0.0, 0.0, 1.0], &[0, 1]).expect("it fits"), 1.0);
        assert_eq!(calibrated_temperature(&[1.0, 1.0], &[0]).expect("it fits"), 1.0);
    }

    #[test]
    fn where_the_sure_answers_are_wrong_it_is_as_hot_as_can_be() {
        let found = calibrated_temperature(&[5.0, 0.0, 0.0, 5.0], &[1, 0]).expect("it fits");
        assert!((found - 1.0 / HOTTEST).abs() < 1.0, "{found}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (logits, labels) in
            [(&[1.0, 2.0, 3.0][..], &[0, 1][..]), (&[], &[]), (&[1.0, 2.0], &[2]), (&[1.0, f32::NAN], &[0])]
        {
            assert!(calibrated_temperature(logits, labels).is_err(), "{logits:?}, {labels:?}");
        }
    }
}
