//! The null output: the student does not answer where its answer is unlike what training taught it.
//!
//! M dropout passes at the distillation temperature T give p̄(x), the mean of softmax(z^m/T). The student answers null when
//! KL(p̄(x) ‖ r_c) > τ, where r_c is the mean soft label of the predicted class c over the purified training set, also at T:
//! both sides must be at one temperature, or the divergence mostly measures the difference of the temperatures.
//! τ is calibrated to a stated share of null on clean calibration images.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SoftLabels;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Model, TrainedClassifier};
use crate::progress::Progress;
use crate::purify::{CalibrationScores, Rule, Threshold};
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// When the student abstains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbstentionConfig {
    /// Dropout passes M (Papernot & McDaniel 2017: 20; here 32).
    pub passes: usize,
    /// Share of null on clean calibration images.
    pub null_rate: f64,
}

impl Default for AbstentionConfig {
    fn default() -> Self {
        Self { passes: 32, null_rate: 0.02 }
    }
}

impl AbstentionConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if self.passes == 0 || self.passes > 10_000 {
            return Err(Error::config(format!("{key}.passes"), self.passes, "1 to 10000 passes"));
        }
        if !(0.0..1.0).contains(&self.null_rate) {
            return Err(Error::config(format!("{key}.null_rate"), self.null_rate, "a share in [0, 1)"));
        }
        Ok(())
    }
}

/// A student's answer to one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The class, whether or not it is given.
    pub class: u32,
    /// Its probability at T = 1 without dropout.
    pub probability: f64,
    /// KL(p̄(x) ‖ r_c), larger = less certain.
    pub uncertainty: f64,
    /// Whether the student keeps silent.
    pub null: bool,
}

/// A calibrated rule; made by [`NullRule::calibrate`] alone, stored beside the student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NullRule {
    /// Dropout passes.
    pub passes: usize,
    /// Seed of the thinned networks.
    pub seed: u64,
    /// Null above this, τ.
    pub threshold: f64,
    /// Share of null that was asked for.
    pub target_null_rate: f64,
    /// Images that τ was calibrated on.
    pub calibration_images: usize,
    /// r_c, one row a class.
    pub references: Vec<Vec<f32>>,
}

impl NullRule {
    /// Fits τ on clean calibration images.
    pub fn calibrate(
        student: &TrainedClassifier,
        soft_labels: &SoftLabels,
        calibration: &Dataset,
        config: &AbstentionConfig,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut rule = Self {
            passes: config.passes,
            seed,
            threshold: f64::MAX,
            target_null_rate: config.null_rate,
            calibration_images: calibration.len(),
            references: soft_labels.class_references(),
        };
        progress.task("calibrating the null rule", "images");
        let answers = answer_set(student, &rule, calibration, progress)?;
        let scores = CalibrationScores::new(answers.iter().map(|answer| answer.uncertainty).collect())?;
        let percentile = Rule::Percentile { percentile: 100.0 * (1.0 - config.null_rate), margin: 0.0 };
        rule.threshold = Threshold::infer(&scores, percentile)?.value();
        Ok(rule)
    }
}

/// Answers of a student to images `[batch, 3, h, w]`.
///
/// # Errors
/// Refuses a rule for another number of classes.
pub fn predict(student: &TrainedClassifier, rule: &NullRule, images: Tensor<4>) -> Result<Vec<Answer>> {
    let classes = student.spec().classes.len();
    if rule.references.len() != classes || rule.references.iter().any(|row| row.len() != classes) {
        return Err(Error::input(
            "null rule",
            format!("references of {} classes", rule.references.len()),
            format!("{classes} x {classes} probabilities"),
        ));
    }
    let probabilities = values(softmax(student.logits(images.clone()), 1))?;
    let temperature = student.spec().temperature;
    let passes = student.dropout_passes(images, rule.passes, Seed::new(rule.seed).child("null rule"));
    let count = passes.len() as f64;
    let sum =
        passes.into_iter().map(|logits| softmax(logits.div_scalar(temperature), 1)).reduce(|a, b| a + b);
    let Some(sum) = sum else {
        return Err(Error::input("null rule", "0 dropout passes", "at least one"));
    };
    let means = values(sum.div_scalar(count))?;
    Ok(probabilities
        .chunks_exact(classes)
        .zip(means.chunks_exact(classes))
        .map(|(row, mean)| {
            let class = (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
            let uncertainty = kullback_leibler(mean, &rule.references[class]);
            Answer {
                class: class as u32,
                probability: f64::from(row[class]),
                uncertainty,
                null: uncertainty > rule.threshold || uncertainty.is_nan(),
            }
        })
        .collect())
}

/// Answers to every image of a set.
pub(crate) fn answer_set(
    student: &TrainedClassifier,
    rule: &NullRule,
    set: &Dataset,
    progress: &dyn Progress,
) -> Result<Vec<Answer>> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut answers = Vec::with_capacity(set.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        answers.extend(predict(student, rule, set.batch(chunk, &student.device())?)?);
        progress.advance(answers.len() as u64, set.len() as u64);
    }
    Ok(answers)
}

/// KL(p ‖ q) = Σ p ln(p/q) in nats; q is floored so that an impossible class is very, not infinitely, surprising.
fn kullback_leibler(p: &[f32], q: &[f32]) -> f64 {
    const FLOOR: f64 = 1e-12;
    p.iter()
        .zip(q)
        .map(|(&p, &q)| (f64::from(p), f64::from(q).max(FLOOR)))
        .filter(|(p, _)| *p > 0.0)
        .map(|(p, q)| p * (p / q).ln())
        .sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::network::{Architecture, ClassifierSpec};
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec};

    fn student() -> TrainedClassifier {
        let spec: ClassifierSpec = tiny_spec(Architecture::Vgg, 4, 5.0);
        let network = spec.init(&Device::flex(), &mut Seed::new(5).rng("weights")).expect("the spec fits");
        TrainedClassifier::freeze(&network, spec, &Device::flex())
    }

    #[test]
    fn the_share_of_null_on_calibration_images_is_what_was_asked_for() {
        let (student, calibration) = (student(), blocks(200, 4, 1));
        let labels = SoftLabels::compute(&student, &calibration, &Silent).expect("computed");
        for null_rate in [0.0, 0.05, 0.25] {
            let config = AbstentionConfig { passes: 8, null_rate };
            let rule = NullRule::calibrate(&student, &labels, &calibration, &config, 1, &Silent)
                .expect("calibrated");
            let answers = answer_set(&student, &rule, &calibration, &Silent).expect("answered");
            let null = answers.iter().filter(|answer| answer.null).count() as f64 / 200.0;
            assert!((null - null_rate).abs() <= 0.01, "{null} null, {null_rate} asked for");
        }
    }

    #[test]
    fn an_answer_depends_on_its_image_alone() {
        let (student, set) = (student(), blocks(20, 4, 1));
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 4, null_rate: 0.1 };
        let rule = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
        let device = student.device();
        let all =
            predict(&student, &rule, set.batch(&(0..20).collect::<Vec<_>>(), &device).expect("a batch"))
                .expect("answers");
        let one = predict(&student, &rule, set.batch(&[13], &device).expect("a batch")).expect("an answer");
        assert_eq!(all[13].class, one[0].class);
        assert!(
            (all[13].uncertainty - one[0].uncertainty).abs() < 1e-6,
            "{} and {}",
            all[13].uncertainty,
            one[0].uncertainty
        );
    }

    #[test]
    fn divergence_is_zero_for_equal_and_ln_2_for_a_sure_answer_against_a_coin() {
        assert_eq!(kullback_leibler(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
        // KL((1, 0) || (1/2, 1/2)) = 1 ln(1 / (1/2)) = ln 2
        assert!((kullback_leibler(&[1.0, 0.0], &[0.5, 0.5]) - std::f64::consts::LN_2).abs() < 1e-12);
    }
}
