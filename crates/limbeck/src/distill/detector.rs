//! The detector in the null rule: no answer to an image that looks perturbed.
//!
//! Dropout knows nothing of an attack that makes the student sure of a wrong class. What may give it away is the fine structure of the image, which the audit's
//! autoencoder reads: the log-odds of its detection head and the logarithm of its reconstruction error. An image that is above the limit of either is answered null.
//!
//! Each limit is a conformal threshold on the trusted images, for half of the share a that is asked for: a clean image that is exchangeable with these is above one
//! or the other with probability a at most (the union bound). The images that the audit kept would not do, for it kept them by these very scores.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::abstention::{conformal_threshold, is_above};
use crate::error::Result;
use crate::network::{ReconstructionError, TrainedAutoencoder};
use crate::tensors::values;

/// The largest value of 8 bits.
const LEVELS: f64 = 255.0;

/// How suspicious an image may look that is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorLimits {
    /// Largest log-odds of the detection head ([`DetectionHead`](crate::network::DetectionHead)); `None` where the trusted images were too few to promise `target_null_rate`, or the head was not taught.
    pub log_odds: Option<f64>,
    /// Largest logarithm of the reconstruction error ([`ReconstructionError`]); `None` likewise.
    pub log_error: Option<f64>,
    /// Share of clean images that may be above either.
    pub target_null_rate: f64,
    /// Images that the limits were calibrated on.
    pub trusted_images: usize,
    /// BLAKE3 of the file of the autoencoder that gave these scores: another one's mean something else.
    pub autoencoder: String,
}

impl DetectorLimits {
    /// From the log-odds and mean squared reconstruction errors that the autoencoder of this BLAKE3 gave trusted images; without log-odds, of a head that nobody
    /// taught, the error has the whole of `null_rate`. Where the images are too few to promise that, there are no limits.
    ///
    /// # Errors
    /// Refuses no scores, and scores that are not finite.
    pub fn fit(
        autoencoder: String,
        log_odds: Option<Vec<f64>>,
        errors: &[f64],
        null_rate: f64,
    ) -> Result<Self> {
        let trusted_images = errors.len();
        let log_errors = ReconstructionError::logarithms(errors);
        let limits = if log_odds.is_some() { 2.0 } else { 1.0 };
        let limit = |scores| conformal_threshold(scores, null_rate / limits);
        Ok(Self {
            log_odds: log_odds.map(limit).transpose()?.flatten(),
            log_error: limit(log_errors)?,
            target_null_rate: null_rate,
            trusted_images,
            autoencoder,
        })
    }

    /// Which of these images `[batch, 3, h, w]` are above a limit, as stored in 8 bits: what an attack leaves between two levels is not there to be seen.
    pub(super) fn exceeded_by(
        &self,
        images: Tensor<4>,
        autoencoder: &TrainedAutoencoder,
    ) -> Result<Vec<bool>> {
        let images = images.mul_scalar(LEVELS).round().div_scalar(LEVELS);
        let denoised = autoencoder.denoise(images.clone());
        let log_odds = values(denoised.logits)?;
        let log_errors = values(ReconstructionError::between(images, denoised.reconstructions))?;
        let of = |(log_odds, log_error): (f32, f32)| {
            is_above(log_odds.into(), self.log_odds) || is_above(log_error.into(), self.log_error)
        };
        Ok(log_odds.into_iter().zip(log_errors).map(of).collect())
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::distill::{Abstaining, AbstentionConfig, NullRule, SoftLabels};
    use crate::network::{
        Architecture, AutoencoderKind, AutoencoderSpec, DetectionHead, Model, TrainedClassifier,
    };
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec, untrained, untrained_autoencoder};

    /// Of one score computed twice.
    const SLACK: f64 = 1e-4;

    fn autoencoder() -> TrainedAutoencoder {
        let spec = AutoencoderSpec { kind: AutoencoderKind::Unet, width: 4, latent: 8, image_size: [8, 8] };
        untrained_autoencoder(spec, 4)
    }

    fn student() -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, 4, 5.0);
        untrained(spec, 5)
    }

    /// Log-odds and mean squared errors of these images.
    fn scores(autoencoder: &TrainedAutoencoder, images: Tensor<4>) -> (Vec<f64>, Vec<f64>) {
        let column = |model: &dyn Model| -> Vec<f64> {
            values(model.logits(images.clone())).expect("values").into_iter().map(f64::from).collect()
        };
        let log_errors = column(&ReconstructionError(autoencoder));
        (column(&DetectionHead(autoencoder)), log_errors.iter().map(|log| log.exp()).collect())
    }

    #[test]
    fn each_score_is_allowed_half_of_what_is_asked_for() {
        // 99 images: 10 of 100 ranks for each of two scores that rise together, so that nine of the images lie above both tenths; the others do not matter.
        let log_odds: Vec<f64> = (0..99).map(f64::from).collect();
        let errors: Vec<f64> = (0..99).map(|i| f64::from(i) / 1e4).collect();
        let fit =
            |log_odds, errors: &[f64], rate| DetectorLimits::fit("b3".into(), Some(log_odds), errors, rate);
        let limits = fit(log_odds, &errors, 0.2).expect("finite");
        assert_eq!(limits.log_odds, Some(89.0));
        assert!((limits.log_error.expect("a limit") - 0.0089_f64.ln()).abs() < 1e-6);
        assert_eq!((limits.target_null_rate, limits.trusted_images), (0.2, 99));
        let few = fit(vec![0.0; 9], &[0.1; 9], 0.1).expect("finite");
        assert_eq!((few.log_odds, few.log_error), (None, None), "no rank of ten is as rare as a twentieth");
        assert!(fit(vec![f64::NAN], &[0.1], 0.1).is_err());
        let untaught = DetectorLimits::fit("b3".into(), None, &errors, 0.1).expect("finite");
        assert_eq!((untaught.log_odds, untaught.log_error), (None, limits.log_error), "the whole tenth");
        assert!(
            DetectorLimits::fit("b3".into(), None, &[0.0; 99], 0.1).is_ok(),
            "a black image may be restored exactly"
        );
    }

    #[test]
    fn an_image_that_looks_perturbed_is_answered_null_however_sure_the_student_is() {
        let (student, autoencoder, set) = (student(), autoencoder(), blocks(40, 4, 1));
        let images = set.batch(&(0..40).collect::<Vec<_>>(), &student.device()).expect("a batch");
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 4, null_rate: 0.0, ..AbstentionConfig::default() };
        let rule = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
        let (log_odds, errors) = scores(&autoencoder, images.clone());
        let mut limits =
            DetectorLimits::fit("b3".into(), Some(log_odds.clone()), &errors, 0.4).expect("finite");
        // A score that made a limit is not to be above it by a last digit.
        for limit in [&mut limits.log_odds, &mut limits.log_error] {
            *limit = limit.map(|limit| limit + SLACK);
        }
        let rule = NullRule { detector: Some(limits.clone()), ..rule };
        let asked = Abstaining { student: &student, rule: &rule, autoencoder: Some(&autoencoder) };
        let answers = asked.answers(images.clone()).expect("answered");
        for ((answer, log_odds), error) in answers.iter().zip(&log_odds).zip(&errors) {
            let above = is_above(*log_odds, limits.log_odds) || is_above(error.ln(), limits.log_error);
            assert_eq!((answer.null, answer.perturbed), (above, above), "{answer:?}");
        }
        let null = answers.iter().filter(|answer| answer.null).count();
        // Eight of 41 ranks for each score: seven images above each limit, which may be the same.
        assert!((7..=14).contains(&null), "{null}");
        let without = Abstaining { autoencoder: None, ..asked };
        let error = without.answers(images).expect_err("no detector").to_string();
        assert!(error.contains("no autoencoder") && error.contains("null rule"), "{error}");
    }

    #[test]
    fn what_lies_between_two_levels_of_8_bits_is_not_seen() {
        let (autoencoder, set) = (autoencoder(), blocks(8, 4, 1));
        let images = set.batch(&(0..8).collect::<Vec<_>>(), autoencoder.device()).expect("a batch");
        let (log_odds, errors) = scores(&autoencoder, images.clone());
        let most = |scores: &[f64]| scores.iter().copied().fold(f64::MIN, f64::max);
        let limits = DetectorLimits {
            log_odds: Some(most(&log_odds) + SLACK),
            log_error: Some(most(&errors).ln() + SLACK),
            target_null_rate: 0.1,
            trusted_images: 8,
            autoencoder: String::new(),
        };
        let nudged = images + 0.4 / LEVELS;
        assert_eq!(limits.exceeded_by(nudged, &autoencoder).expect("scored"), [false; 8]);
    }
}
