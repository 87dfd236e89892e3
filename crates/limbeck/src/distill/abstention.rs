//! The null output: the student does not answer where it is less sure than it was of clean images.
//!
//! M dropout passes give an uncertainty u(x), the paper's being KL(p̄(x) ‖ r_c): p̄ is the mean of softmax(z^m/T) at the temperature T of the training and r_c the
//! mean soft label of the predicted class c over the purified training set, also at T: both sides must be at one temperature, or the divergence mostly
//! measures the difference of the temperatures. The student answers null when u(x) > τ.
//!
//! τ is calibrated on clean images that no classifier was trained on, nor its epoch chosen by. By the conformal rule it is the smallest of their uncertainties that at most ⌊a (n + 1)⌋ − 1 of the n
//! exceed, where a is the share of null that is asked for. A clean image that is exchangeable with them is then answered null with probability a at most, whatever n and the
//! uncertainty (Vovk 2005; Papadopoulos 2002). The guarantee is one over images and calibration sets together, not for a class or for one calibration set, and
//! it does not hold for images of another origin: frames of one video are alike, and those of another video are not exchangeable with them.
//!
//! Beside its uncertainty the rule may ask the audit's detector ([`DetectorLimits`]), and answers null where either says so.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SoftLabels;
use super::detector::DetectorLimits;
use super::temperature::calibrated_temperature;
use super::uncertainty::{Seen, Uncertainty};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Model, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::purify::{CalibrationScores, Rule, Threshold};
use crate::rng::Seed;
use crate::tensors::{argmax, labels, values};
use crate::train::INFERENCE_BATCH;

/// When the student abstains.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbstentionConfig {
    /// What is measured: `kl` (the paper's), `entropy`, `mutual-information`, `variance`, `max-probability`, or `outlier` (of a student with an outlier class).
    #[serde(default)]
    pub uncertainty: Uncertainty,
    /// How the threshold is calibrated.
    #[serde(default)]
    pub calibration: NullCalibration,
    /// Dropout passes M (Papernot & McDaniel 2017: 20; here 32).
    pub passes: usize,
    /// Share of null on clean calibration images.
    pub null_rate: f64,
    /// Share of clean images, beside these, that may be answered null because they look perturbed to the audit's detector; 0 = it is not asked. Without an
    /// audit there is none to ask.
    pub detector_rate: f64,
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
    /// Two clean images of a hundred, in equal parts for want of sureness and for looking perturbed.
    fn default() -> Self {
        Self {
            uncertainty: Uncertainty::default(),
            calibration: NullCalibration::default(),
            passes: 32,
            null_rate: 0.01,
            detector_rate: 0.01,
        }
    }
}

impl AbstentionConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if self.passes == 0 || self.passes > 10_000 {
            return Err(Error::config(format!("{key}.passes"), self.passes, "1 to 10000 passes"));
        }
        for (name, rate) in [("null_rate", self.null_rate), ("detector_rate", self.detector_rate)] {
            if !(0.0..1.0).contains(&rate) {
                return Err(Error::config(format!("{key}.{name}"), rate, "a share in [0, 1)"));
            }
        }
        Ok(())
    }

    /// τ by the uncertainties of clean calibration images; `None` where these are too few to promise anything.
    pub(crate) fn threshold(&self, uncertainties: Vec<f64>) -> Result<Option<f64>> {
        if uncertainties.is_empty() {
            return Ok(None);
        }
        match self.calibration {
            NullCalibration::Percentile => {
                let rule = Rule::Percentile { percentile: 100.0 * (1.0 - self.null_rate), margin: 0.0 };
                Ok(Some(Threshold::infer(&CalibrationScores::new(uncertainties)?, rule)?.value()))
            }
            NullCalibration::Conformal => conformal_threshold(uncertainties, self.null_rate),
        }
    }
}

/// The smallest of these scores that one more score, exchangeable with them, is above with a probability of at most `rate`; `None` where these are too few.
pub(super) fn conformal_threshold(scores: Vec<f64>, rate: f64) -> Result<Option<f64>> {
    let scores = CalibrationScores::new(scores)?;
    // No rank of so few images is as rare as that.
    if rate < 1.0 / (scores.len() + 1) as f64 {
        return Ok(None);
    }
    Ok(Some(Threshold::infer(&scores, Rule::Fpr { fpr: rate })?.value()))
}

/// Whether a score is above a limit, which nothing is if there is none; what is no number is above any.
pub(crate) fn is_above(score: f64, limit: Option<f64>) -> bool {
    score.is_nan() || limit.is_some_and(|limit| score > limit)
}

/// A student's answer to one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The class, whether or not it is given; the likeliest besides the outlier class, if there is that.
    pub class: u32,
    /// Its probability at the rule's temperature, without dropout.
    pub probability: f64,
    /// The rule's uncertainty, larger = less certain.
    pub uncertainty: f64,
    /// Whether the student keeps silent.
    pub null: bool,
    /// Whether that is, or would be, because the image looks perturbed to the detector.
    pub perturbed: bool,
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
    /// Null above this, τ; `None` where the calibration images were too few, or the outlier class won on too many of them, to promise `target_null_rate`.
    pub threshold: Option<f64>,
    /// Share of null that was asked for.
    pub target_null_rate: f64,
    /// Images that τ was calibrated on.
    pub calibration_images: usize,
    /// Those of them that are null because the outlier class wins, whatever τ is.
    #[serde(default)]
    pub outlier_images: usize,
    /// r_c, one row an output.
    pub references: Vec<Vec<f32>>,
    /// What the audit's detector may say of an image that is answered; `None` = it is not asked.
    #[serde(default)]
    pub detector: Option<DetectorLimits>,
    /// BLAKE3 of the file of the student that the rule was calibrated with: another one's uncertainties mean something else. `None` until it is stored beside one.
    #[serde(default)]
    pub student: Option<String>,
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
    /// Seed of the thinned networks.
    pub(super) fn draws(&self) -> Seed {
        Seed::new(self.seed).child("null rule")
    }

    /// r_c of these answers, `[batch, outputs]`.
    pub(super) fn references_of(&self, answers: Tensor<1, Int>) -> Tensor<2> {
        let data = TensorData::new(self.references.concat(), [self.references.len(); 2]);
        Tensor::<2>::from_data(data, &answers.device()).select(0, answers)
    }

    /// Fits τ, and the temperature of the answers' probabilities, on clean calibration images that had no part in the student; without any, nothing is promised and the temperature is 1.
    /// The detector is not asked.
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
            threshold: None,
            target_null_rate: config.null_rate,
            calibration_images: calibration.len(),
            outlier_images: 0,
            references: soft_labels.class_references(),
            detector: None,
            student: None,
        };
        progress.task("calibrating the null rule", "images");
        let answers =
            Abstaining { student, rule: &rule, autoencoder: None }.answer_set(calibration, progress)?;
        // Without a threshold and a detector, null is where the outlier class wins: that is of the share too, and no threshold gives it back.
        rule.outlier_images = answers.iter().filter(|answer| answer.null).count();
        let scores = answers.iter().map(|answer| if answer.null { f64::MAX } else { answer.uncertainty });
        let answered = answers.iter().filter(|answer| !answer.null).map(|answer| answer.uncertainty);
        let largest = answered.fold(f64::NEG_INFINITY, f64::max);
        // Beyond the largest, a percentile lies between that and what stands for null: more of them are null than is asked for.
        rule.threshold = config.threshold(scores.collect())?.filter(|threshold| *threshold <= largest);
        Ok(rule)
    }
}

fn calibrate_temperature(
    student: &TrainedClassifier,
    calibration: &Dataset,
    progress: &dyn Progress,
) -> Result<f64> {
    if calibration.is_empty() {
        return Ok(1.0);
    }
    let indices: Vec<usize> = (0..calibration.len()).collect();
    let mut logits = Vec::with_capacity(calibration.len() * student.spec().outputs());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        logits.extend(values(student.logits(calibration.batch(chunk, &student.device())?))?);
    }
    calibrated_temperature(&logits, &calibration.labels(&indices))
}

/// A student with all that decides whether it answers.
#[derive(Clone, Copy)]
pub struct Abstaining<'a> {
    /// Who answers.
    pub student: &'a TrainedClassifier,
    /// When it does not.
    pub rule: &'a NullRule,
    /// The audit's autoencoder, which a rule with a detector needs.
    pub autoencoder: Option<&'a TrainedAutoencoder>,
}

impl Abstaining<'_> {
    /// Answers to images `[batch, 3, h, w]`.
    ///
    /// # Errors
    /// Refuses a rule for another number of outputs, one that measures what the student has not, and one whose detector is missing.
    pub fn answers(&self, images: Tensor<4>) -> Result<Vec<Answer>> {
        Ok(self.measure(images, &[])?.0)
    }

    /// The same, with these uncertainties: one column for each.
    fn measure(
        &self,
        images: Tensor<4>,
        uncertainties: &[Uncertainty],
    ) -> Result<(Vec<Answer>, Vec<Vec<f64>>)> {
        let Self { student, rule, .. } = *self;
        self.check()?;
        let spec = student.spec();
        let (logits, passes) = student.logits_and_passes(images.clone(), rule.passes, rule.draws());
        let probabilities = values(softmax(logits.clone().div_scalar(rule.temperature), 1))?;
        let winners = argmax(logits.clone())?;
        let classes = argmax(logits.narrow(1, 0, spec.classes.len()))?;
        let perturbed = match rule.detector.as_ref().zip(self.autoencoder) {
            Some((limits, autoencoder)) => limits.exceeded_by(images, autoencoder)?,
            None => vec![false; classes.len()],
        };
        let references = rule.references_of(labels(&classes, &student.device()));
        let seen = Seen::new(passes, spec.temperature, references);
        let column = |uncertainty: &Uncertainty| -> Result<Vec<f64>> {
            Ok(values(uncertainty.of(&seen))?.into_iter().map(f64::from).collect())
        };
        let decisive = column(&rule.uncertainty)?;
        let answer = |image: usize| {
            let (class, uncertainty, perturbed) = (classes[image], decisive[image], perturbed[image]);
            Answer {
                class,
                probability: f64::from(probabilities[image * spec.outputs() + class as usize]),
                uncertainty,
                // Where the outlier class wins, that is the student's answer.
                null: is_above(uncertainty, rule.threshold) || winners[image] != class || perturbed,
                perturbed,
            }
        };
        let answers = (0..classes.len()).map(answer).collect();
        Ok((answers, uncertainties.iter().map(column).collect::<Result<_>>()?))
    }

    fn check(&self) -> Result<()> {
        let (rule, spec) = (self.rule, self.student.spec());
        let outputs = spec.outputs();
        let refused = |found: String, expected: String| Err(Error::input("null rule", found, expected));
        if rule.references.len() != outputs || rule.references.iter().any(|row| row.len() != outputs) {
            let found = format!("references of {} outputs", rule.references.len());
            return refused(found, format!("{outputs} x {outputs} probabilities"));
        }
        if rule.passes == 0 {
            return refused("0 dropout passes".to_owned(), "at least one".to_owned());
        }
        if !rule.uncertainty.is_of(spec) {
            let expected = "a student with an outlier class (distill.method = \"extended\")".to_owned();
            return refused(rule.uncertainty.words().to_owned(), expected);
        }
        if rule.detector.is_some() && self.autoencoder.is_none() {
            let expected = "the audit's autoencoder, which this rule asks".to_owned();
            return refused("no autoencoder".to_owned(), expected);
        }
        Ok(())
    }

    /// Answers to every image of a set.
    pub(crate) fn answer_set(&self, set: &Dataset, progress: &dyn Progress) -> Result<Vec<Answer>> {
        Ok(self.measure_set(set, &[], progress)?.0)
    }

    /// The same, with these uncertainties: one column for each.
    pub(crate) fn measure_set(
        &self,
        set: &Dataset,
        uncertainties: &[Uncertainty],
        progress: &dyn Progress,
    ) -> Result<(Vec<Answer>, Vec<Vec<f64>>)> {
        let indices: Vec<usize> = (0..set.len()).collect();
        let mut answers = Vec::with_capacity(set.len());
        let mut columns = vec![Vec::with_capacity(set.len()); uncertainties.len()];
        for chunk in indices.chunks(INFERENCE_BATCH) {
            progress.check()?;
            let images = set.batch(chunk, &self.student.device())?;
            let (more, measured) = self.measure(images, uncertainties)?;
            answers.extend(more);
            columns.iter_mut().zip(measured).for_each(|(column, more)| column.extend(more));
            progress.advance(answers.len() as u64, set.len() as u64);
        }
        Ok((answers, columns))
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng as _;

    use super::super::uncertainty::UNCERTAINTIES;
    use super::*;
    use crate::network::{Architecture, ClassifierSpec};
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec, untrained};

    fn student() -> TrainedClassifier {
        let spec: ClassifierSpec = tiny_spec(Architecture::Vgg, 4, 5.0);
        untrained(spec, 5)
    }

    fn asked<'a>(student: &'a TrainedClassifier, rule: &'a NullRule) -> Abstaining<'a> {
        Abstaining { student, rule, autoencoder: None }
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
            let answers = asked(&student, &rule).answer_set(&calibration, &Silent).expect("answered");
            let null = answers.iter().filter(|answer| answer.null).count() as f64 / 200.0;
            assert!((null - null_rate).abs() <= 0.01, "{null} null, {null_rate} asked for");
        }
    }

    #[test]
    fn where_the_outlier_class_wins_the_answer_is_null_and_the_class_another() {
        let set = blocks(60, 4, 1);
        let spec = ClassifierSpec { outlier: true, ..tiny_spec(Architecture::Vgg, 4, 1.0) };
        let student = untrained(spec, 5);
        let config = crate::distill::OutlierConfig::default();
        let teacher = super::tests::student();
        let labels = SoftLabels::with_outlier_class(&teacher, &set, &config, Seed::new(1), &Silent);
        let config =
            AbstentionConfig { uncertainty: Uncertainty::Outlier, passes: 4, ..AbstentionConfig::default() };
        let rule = NullRule::calibrate(&student, &labels.expect("computed"), &set, &config, 1, &Silent);
        let rule = NullRule { threshold: None, ..rule.expect("calibrated") };
        let images = set.batch(&(0..60).collect::<Vec<_>>(), &student.device()).expect("a batch");
        let winners = argmax(student.logits(images.clone())).expect("logits");
        let answers = asked(&student, &rule).answers(images.clone()).expect("answered");
        assert!(winners.contains(&4) && winners.iter().any(|winner| *winner != 4), "{winners:?}");
        for (winner, answer) in winners.into_iter().zip(answers) {
            assert_eq!(answer.null, winner == 4);
            assert!(if winner == 4 { answer.class < 4 } else { answer.class == winner }, "{answer:?}");
            assert!((0.0..=1.0).contains(&answer.uncertainty), "a probability: {answer:?}");
        }
        let error =
            asked(&teacher, &rule).answers(images).expect_err("a student of four outputs").to_string();
        assert!(error.contains("5 outputs") && error.contains("4 x 4"), "{error}");
    }

    #[test]
    fn answers_of_the_outlier_class_are_of_the_promised_share() {
        let set = blocks(200, 4, 1);
        let spec = ClassifierSpec { outlier: true, ..tiny_spec(Architecture::Vgg, 4, 1.0) };
        let student = untrained(spec, 5);
        let outliers = {
            let images = set.batch(&(0..200).collect::<Vec<_>>(), &student.device()).expect("a batch");
            argmax(student.logits(images)).expect("logits").iter().filter(|winner| **winner == 4).count()
        };
        assert!((1..180).contains(&outliers), "{outliers} of 200");
        let config = crate::distill::OutlierConfig::default();
        let teacher = super::tests::student();
        let labels = SoftLabels::with_outlier_class(&teacher, &set, &config, Seed::new(1), &Silent);
        let labels = labels.expect("computed");
        let calibrated = |images: usize| {
            // Of 201 ranks, so many are the share.
            let null_rate = (images + 1) as f64 / 201.0 + 1e-9;
            let config = AbstentionConfig { null_rate, passes: 4, ..AbstentionConfig::default() };
            NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated")
        };
        let null = |rule: &NullRule| {
            let answers = asked(&student, rule).answer_set(&set, &Silent).expect("answered");
            answers.iter().filter(|answer| answer.null).count()
        };
        let enough = calibrated(outliers + 10);
        assert_eq!((enough.outlier_images, null(&enough)), (outliers, outliers + 10));
        let too_few = calibrated(outliers - 1);
        assert_eq!((too_few.threshold, null(&too_few)), (None, outliers));
        // A percentile half way between the most uncertain answer and an image that is null in any case is none.
        let config = AbstentionConfig {
            null_rate: (outliers as f64 - 0.5) / 199.0,
            calibration: NullCalibration::Percentile,
            passes: 4,
            ..AbstentionConfig::default()
        };
        let between = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
        assert_eq!((between.threshold, null(&between)), (None, outliers));
    }

    #[test]
    fn an_answer_depends_on_its_image_alone() {
        let (student, set) = (student(), blocks(20, 4, 1));
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 4, null_rate: 0.1, ..AbstentionConfig::default() };
        let rule = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
        let device = student.device();
        let all = asked(&student, &rule)
            .answers(set.batch(&(0..20).collect::<Vec<_>>(), &device).expect("a batch"))
            .expect("answers");
        let one =
            asked(&student, &rule).answers(set.batch(&[13], &device).expect("a batch")).expect("an answer");
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
                null += usize::from(is_above(draw(), threshold));
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
        assert_eq!(threshold(18), None);
        assert_eq!(threshold(19), Some(18.0), "none of 19 is above it, and one of 20 is");
    }

    #[test]
    fn every_uncertainty_makes_a_rule_and_an_old_rule_is_read_as_it_was_meant() {
        let (student, set) = (student(), blocks(60, 4, 1));
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        let spec = student.spec();
        let of_student = UNCERTAINTIES.iter().filter(|(kind, ..)| kind.is_of(spec));
        for (uncertainty, name, ..) in of_student {
            let config = AbstentionConfig {
                uncertainty: *uncertainty,
                passes: 4,
                null_rate: 0.1,
                ..AbstentionConfig::default()
            };
            let rule = NullRule::calibrate(&student, &labels, &set, &config, 1, &Silent).expect("calibrated");
            let null = asked(&student, &rule)
                .answer_set(&set, &Silent)
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
            fields.remove("detector");
            let old: NullRule = serde_json::from_value(written).expect("an old rule");
            assert_eq!((old.uncertainty, old.calibration), (Uncertainty::Kl, NullCalibration::Percentile));
            assert_eq!(old.temperature, 1.0);
        }
    }
}
