//! The null output: the student does not answer where it is less sure than it was of clean images.
//!
//! M dropout passes give an uncertainty u(x), the paper's being KL(p̄(x) ‖ r_c): p̄ is the mean of softmax(z^m/T) at the temperature T of the training and r_c the
//! mean soft label of the predicted class c over the purified training set, also at T: both sides must be at one temperature, or the divergence mostly
//! measures the difference of the temperatures. The student answers null when u(x) > τ.
//!
//! τ is calibrated on clean images that no classifier was trained on. By the conformal rule it is the smallest of their uncertainties that at most ⌊a (n + 1)⌋ − 1 of the n
//! exceed, where a is the share of null that is asked for. A clean image that is exchangeable with them is then answered null with probability a at most, whatever n and the
//! uncertainty (Vovk 2005; Papadopoulos 2002). The guarantee is one over images and calibration sets together, not for a class or for one calibration set, and
//! it does not hold for images of another origin: frames of one video are alike, and those of another video are not exchangeable with them.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SoftLabels;
use super::temperature::{AtTemperature, calibrated_temperature};
use super::uncertainty::{Seen, UNCERTAINTIES, Uncertainty};
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
    /// What is measured: `kl` (the paper's), `entropy`, `mutual-information`, `variance` or `max-probability`.
    #[serde(default)]
    pub uncertainty: Uncertainty,
    /// How the threshold is calibrated.
    #[serde(default)]
    pub calibration: NullCalibration,
    /// Dropout passes M (Papernot & McDaniel 2017: 20; here 32).
    pub passes: usize,
    /// Share of null on clean calibration images.
    pub null_rate: f64,
}

/// How the threshold of the null rule is calibrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NullCalibration {
    /// A clean image is answered null with a probability of at most `null_rate`, if it is exchangeable with the calibration images. Where these are too few to
    /// promise that of any threshold, nothing is answered null.
    #[default]
    Conformal,
    /// The percentile of the calibration images, without a guarantee.
    Percentile,
}

impl Default for AbstentionConfig {
    fn default() -> Self {
        Self {
            uncertainty: Uncertainty::default(),
            calibration: NullCalibration::default(),
            passes: 32,
            null_rate: 0.02,
        }
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

    /// τ by the uncertainties of clean calibration images.
    fn threshold(&self, uncertainties: Vec<f64>) -> Result<f64> {
        let scores = CalibrationScores::new(uncertainties)?;
        let rule = match self.calibration {
            NullCalibration::Percentile => {
                Rule::Percentile { percentile: 100.0 * (1.0 - self.null_rate), margin: 0.0 }
            }
            // No rank of so few images is as rare as that.
            NullCalibration::Conformal if self.null_rate < 1.0 / (scores.len() + 1) as f64 => {
                return Ok(NEVER);
            }
            NullCalibration::Conformal => Rule::Fpr { fpr: self.null_rate },
        };
        Ok(Threshold::infer(&scores, rule)?.value())
    }
}

/// A threshold that no uncertainty exceeds.
const NEVER: f64 = f64::MAX;

/// A student's answer to one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The class, whether or not it is given.
    pub class: u32,
    /// Its probability at the rule's temperature, without dropout.
    pub probability: f64,
    /// The rule's uncertainty, larger = less certain.
    pub uncertainty: f64,
    /// Whether the student keeps silent.
    pub null: bool,
}

/// A calibrated rule; made by [`NullRule::calibrate`] alone, stored beside the student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NullRule {
    /// What is measured.
    #[serde(default)]
    pub uncertainty: Uncertainty,
    /// How τ was calibrated.
    #[serde(default = "by_percentile")]
    pub calibration: NullCalibration,
    /// Temperature of the probabilities that are given with an answer: calibrated on the same images (Guo 2017).
    #[serde(default = "as_deployed")]
    pub temperature: f64,
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

/// Rules that were stored before there was another calibration.
fn by_percentile() -> NullCalibration {
    NullCalibration::Percentile
}

/// Their probabilities were those at which a student is deployed.
fn as_deployed() -> f64 {
    1.0
}

impl NullRule {
    /// Fits τ, and the temperature of the answers' probabilities, on clean calibration images.
    pub fn calibrate(
        student: &TrainedClassifier,
        soft_labels: &SoftLabels,
        calibration: &Dataset,
        config: &AbstentionConfig,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut rule = Self {
            uncertainty: config.uncertainty,
            calibration: config.calibration,
            temperature: calibrate_temperature(student, calibration, progress)?,
            passes: config.passes,
            seed,
            threshold: NEVER,
            target_null_rate: config.null_rate,
            calibration_images: calibration.len(),
            references: soft_labels.class_references(),
        };
        progress.task("calibrating the null rule", "images");
        let answers = answer_set(student, &rule, calibration, progress)?;
        rule.threshold = config.threshold(answers.iter().map(|answer| answer.uncertainty).collect())?;
        Ok(rule)
    }
}

fn calibrate_temperature(
    student: &TrainedClassifier,
    calibration: &Dataset,
    progress: &dyn Progress,
) -> Result<f64> {
    let indices: Vec<usize> = (0..calibration.len()).collect();
    let mut logits = Vec::with_capacity(calibration.len() * student.spec().classes.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        logits.extend(values(student.logits(calibration.batch(chunk, &student.device())?))?);
    }
    calibrated_temperature(&logits, &calibration.labels(&indices))
}

/// Answers of a student to images `[batch, 3, h, w]`.
///
/// # Errors
/// Refuses a rule for another number of classes.
pub fn predict(student: &TrainedClassifier, rule: &NullRule, images: Tensor<4>) -> Result<Vec<Answer>> {
    Ok(measure(student, rule, images)?.into_iter().map(|(answer, _)| answer).collect())
}

/// The same, with every uncertainty of each image in the order of [`UNCERTAINTIES`].
fn measure(
    student: &TrainedClassifier,
    rule: &NullRule,
    images: Tensor<4>,
) -> Result<Vec<(Answer, Vec<f64>)>> {
    let classes = student.spec().classes.len();
    if rule.references.len() != classes || rule.references.iter().any(|row| row.len() != classes) {
        return Err(Error::input(
            "null rule",
            format!("references of {} classes", rule.references.len()),
            format!("{classes} x {classes} probabilities"),
        ));
    }
    let calibrated = AtTemperature { classifier: student, temperature: rule.temperature };
    let answers = values(softmax(calibrated.logits(images.clone()), 1))?;
    let temperature = student.spec().temperature;
    let (mut logits, mut probabilities) = (Vec::new(), Vec::new());
    for pass in student.dropout_passes(images, rule.passes, Seed::new(rule.seed).child("null rule")) {
        probabilities.push(values(softmax(pass.clone().div_scalar(temperature), 1))?);
        logits.push(values(pass)?);
    }
    if logits.is_empty() {
        return Err(Error::input("null rule", "0 dropout passes", "at least one"));
    }
    let measured = answers.chunks_exact(classes).enumerate().map(|(image, row)| {
        let class = (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        let place = image * classes..(image + 1) * classes;
        let logits: Vec<&[f32]> = logits.iter().map(|pass| &pass[place.clone()]).collect();
        let probabilities: Vec<Vec<f64>> = probabilities
            .iter()
            .map(|pass| pass[place.clone()].iter().map(|value| f64::from(*value)).collect())
            .collect();
        let sum = |class: usize| probabilities.iter().map(|pass| pass[class]).sum::<f64>();
        let mean: Vec<f64> = (0..classes).map(|class| sum(class) / probabilities.len() as f64).collect();
        let reference = &rule.references[class];
        let seen = Seen { logits: &logits, probabilities: &probabilities, mean: &mean, reference };
        let all: Vec<f64> = UNCERTAINTIES.iter().map(|(.., measure)| measure(&seen)).collect();
        let uncertainty = all[rule.uncertainty.position()];
        let null = uncertainty > rule.threshold || uncertainty.is_nan();
        (Answer { class: class as u32, probability: f64::from(row[class]), uncertainty, null }, all)
    });
    Ok(measured.collect())
}

/// Answers to every image of a set.
pub(crate) fn answer_set(
    student: &TrainedClassifier,
    rule: &NullRule,
    set: &Dataset,
    progress: &dyn Progress,
) -> Result<Vec<Answer>> {
    Ok(measure_set(student, rule, set, progress)?.into_iter().map(|(answer, _)| answer).collect())
}

/// The same, with every uncertainty of each image in the order of [`UNCERTAINTIES`].
pub(crate) fn measure_set(
    student: &TrainedClassifier,
    rule: &NullRule,
    set: &Dataset,
    progress: &dyn Progress,
) -> Result<Vec<(Answer, Vec<f64>)>> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut answers = Vec::with_capacity(set.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        answers.extend(measure(student, rule, set.batch(chunk, &student.device())?)?);
        progress.advance(answers.len() as u64, set.len() as u64);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::Rng as _;

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
            let by_percentile = NullCalibration::Percentile;
            let config = AbstentionConfig {
                passes: 8,
                null_rate,
                calibration: by_percentile,
                ..AbstentionConfig::default()
            };
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
        let config = AbstentionConfig { passes: 4, null_rate: 0.1, ..AbstentionConfig::default() };
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
    fn a_clean_image_is_null_no_more_often_than_promised() {
        // Calibrations on 99 images of one distribution, each followed by one more image: 2,000 trials at a rate of 5 % have a standard error of 0.5 points.
        let mut rng = Seed::new(7).rng("uncertainties");
        for calibration in [NullCalibration::Conformal, NullCalibration::Percentile] {
            let config = AbstentionConfig { null_rate: 0.05, calibration, ..AbstentionConfig::default() };
            let mut null = 0;
            for _ in 0..2_000 {
                let mut draw = || -rng.random::<f64>().ln();
                let threshold = config.threshold((0..99).map(|_| draw()).collect()).expect("finite");
                null += usize::from(draw() > threshold);
            }
            let rate = null as f64 / 2_000.0;
            match calibration {
                // Exactly 5 of 100 ranks.
                NullCalibration::Conformal => assert!((rate - 0.05).abs() < 0.015, "{rate}"),
                // Interpolation between the same ranks promises nothing, but is near.
                NullCalibration::Percentile => assert!((rate - 0.05).abs() < 0.025, "{rate}"),
            }
        }
    }

    #[test]
    fn too_few_images_for_a_promise_make_a_rule_that_always_answers() {
        let config = AbstentionConfig { null_rate: 0.05, ..AbstentionConfig::default() };
        let threshold =
            |images: usize| config.threshold((0..images).map(|i| i as f64).collect()).expect("finite");
        assert_eq!(threshold(18), NEVER);
        assert_eq!(threshold(19), 18.0, "none of 19 is above it, and one of 20 is");
    }

    #[test]
    fn every_uncertainty_makes_a_rule_and_an_old_rule_is_read_as_it_was_meant() {
        let (student, set) = (student(), blocks(60, 4, 1));
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        for (uncertainty, name, ..) in UNCERTAINTIES {
            let config = AbstentionConfig {
                uncertainty: *uncertainty,
                passes: 4,
                null_rate: 0.1,
                ..AbstentionConfig::default()
            };
            let rule = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
            let null = answer_set(&student, &rule, &set, &Silent)
                .expect("answers")
                .iter()
                .filter(|a| a.null)
                .count();
            // 6 of 61 ranks are at most a tenth: five images lie above the sixth.
            assert_eq!(null, 5, "{name}");
            let mut written = serde_json::to_value(&rule).expect("plain data");
            let fields = written.as_object_mut().expect("a table");
            fields.remove("uncertainty");
            fields.remove("calibration");
            fields.remove("temperature");
            let old: NullRule = serde_json::from_value(written).expect("an old rule");
            assert_eq!((old.uncertainty, old.calibration), (Uncertainty::Kl, NullCalibration::Percentile));
            assert_eq!(old.temperature, 1.0);
        }
    }
}
