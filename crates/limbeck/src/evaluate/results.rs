//! The recorded results of a run: everything that a report prints.
//!
//! Written as `evaluation.json`, read by [`crate::report`]. It holds no clock reading and no path of
//! the machine's own, so that the same config and seed give the same bytes. Rates are kept as counts; intervals are
//! derived where they are printed. `true` always means poisoned or adversarial; a larger score is more suspicious;
//! pixels and eps are in `[0, 1]`.

mod robustness;

use serde::{Deserialize, Serialize};

pub use self::robustness::{
    Calibration, Comparison, EpsCurve, EpsPoint, ReliabilityBin, Robustness, WorstCase, WorstCaseWithNull,
};
use crate::attack::AttackConfig;
use crate::distill::DetectorLimits;
use crate::purify::Knowledge;
pub use crate::purify::Verdict;

/// All results of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Version of limbeck that wrote it.
    pub limbeck_version: String,
    /// Hash of the resolved config.
    pub config_hash: String,
    /// Revision of the stages: figures of different ones mean different things.
    #[serde(default)]
    pub revision: u32,
    /// The resolved config, as TOML.
    pub config_toml: String,
    /// Seed of the run.
    pub seed: u64,
    /// What was read.
    pub dataset: DatasetSummary,
    /// What the run's own simulated attacker put in; `None` when the set was audited as it came.
    pub poison: Option<PoisonSummary>,
    /// How many images got which verdict.
    pub verdicts: VerdictCounts,
    /// How many of the verdicts were given by hand: they count in all that is said of verdicts, classes and the filter.
    #[serde(default)]
    pub decided_by_hand: u64,
    /// Per class: sizes, verdicts, both error kinds where the truth is known.
    pub by_class: Vec<ClassRow>,
    /// Detection quality of each score; empty without the truth.
    pub detection: Vec<ScoreDetection>,
    /// The frozen detector on held-out images; `None` without an attacker's own network.
    pub held_out: Option<HeldOutDetection>,
    /// The denoising autoencoder's training and restoration quality.
    pub dae: DaeSummary,
    /// Name of the method of distillation.
    pub distillation: String,
    /// The student behind the autoencoder, if that was attacked.
    pub shield: Option<ShieldSummary>,
    /// Accuracy of each model, clean and attacked.
    pub models: Vec<ModelRow>,
    /// What is left of them under attack: worst cases, curves, comparisons.
    pub robustness: Robustness,
    /// No filter, limbeck's filter, random filter of equal size, perfect filter.
    pub controls: Vec<ControlRow>,
    /// Which classifiers behind two filters are right more often on the same clean test images; `"clean"` is the set before poisoning, behind none.
    #[serde(default)]
    pub filters: Vec<Comparison>,
    /// The null output of the student.
    pub abstention: AbstentionSummary,
    /// Learning curves of each classifier.
    pub classifier_curves: Vec<ClassifierCurve>,
    /// Figure 1: suspicion of each image of the audited training set against the threshold.
    pub suspicion_points: Vec<SuspicionPoint>,
    /// The threshold that `suspicion_points` are held against.
    pub suspicion_threshold: f64,
    /// Name of the score in `suspicion_points`.
    pub suspicion_score: String,
    /// Original, suspicious and reconstructed images side by side.
    pub triptychs: Vec<Triptych>,
    /// Test images beside what attacks on the student made of them; empty without attacks, or where none were asked for.
    #[serde(default)]
    pub attacked_examples: Vec<AttackedExample>,
    /// Self-checks of the evaluation (gradient masking and the like).
    pub checks: Vec<Check>,
    /// Plain statements of what worked and what failed, derived from the figures above.
    pub statements: Vec<Statement>,
}

/// All results of a run without an audit: a student that was distilled from a set as it is, and its teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentEvaluation {
    /// Version of limbeck that wrote it.
    pub limbeck_version: String,
    /// Hash of the resolved config.
    #[serde(default)]
    pub config_hash: String,
    /// Revision of the stages: figures of different ones mean different things.
    pub revision: u32,
    /// The resolved config, as TOML.
    pub config_toml: String,
    /// Seed of the run.
    pub seed: u64,
    /// What was read.
    #[serde(default)]
    pub dataset: TaughtSet,
    /// Name of the method of distillation.
    #[serde(default)]
    pub distillation: String,
    /// Whether its teacher, or a network that its examples are crafted on, was there already: what that had learnt from is not known.
    #[serde(default)]
    pub given_networks: bool,
    /// Accuracy of teacher and student, clean and attacked.
    pub models: Vec<ModelRow>,
    /// What is left of them under attack: worst cases, curves, comparisons.
    pub robustness: Robustness,
    /// The null output of the student.
    pub abstention: AbstentionSummary,
    /// Learning curves of both.
    #[serde(default)]
    pub classifier_curves: Vec<ClassifierCurve>,
    /// Test images beside what attacks on the student made of them; empty without attacks, or where none were asked for.
    #[serde(default)]
    pub attacked_examples: Vec<AttackedExample>,
    /// Self-checks of the evaluation (gradient masking and the like).
    pub checks: Vec<Check>,
}

/// The image set of a run without an audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaughtSet {
    /// "embedded GTSRB sample" or the file name of the source.
    pub name: String,
    /// Class names by class index.
    pub classes: Vec<String>,
    /// Images that the run's own networks learnt from, those among them that are trusted elsewhere.
    pub train_images: u64,
    /// Images that these did not learn from: a third chose epochs and the others calibrated the null rule.
    pub held_out_images: u64,
    /// Images that nothing was fitted on.
    pub test_images: u64,
    /// Width and height that the networks see, in pixels.
    pub image_size: [u32; 2],
    /// Hash over all sample ids.
    pub content_hash: String,
}

/// The image set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetSummary {
    /// "embedded GTSRB sample" or the file name of the source.
    pub name: String,
    /// Class names by class index.
    pub classes: Vec<String>,
    /// Images that were audited.
    pub train_images: u64,
    /// What the defender knew of the set.
    pub knowledge: Knowledge,
    /// Other images, known to be clean: thresholds were fitted on them, and a label model started from them. Where nothing is trusted, audited images that stand in
    /// for them.
    pub trusted_images: u64,
    /// Of the audited images those that no classifier was trained on; of the kept ones a third chose epochs and the others calibrated the null rule.
    pub calibration_images: u64,
    /// Images that nothing was fitted on.
    pub test_images: u64,
    /// Width and height that the networks see, in pixels.
    pub image_size: [u32; 2],
    /// Hash over all sample ids.
    pub content_hash: String,
}

/// The simulated poison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoisonSummary {
    /// Kind and strength: "i-fgsm eps 0.01", "bad-nets to class 3".
    pub poison: String,
    /// The gradient attack, where one perturbed the images.
    pub attack: Option<AttackConfig>,
    /// Share of the training set that was asked for.
    pub fraction: f64,
    /// Images poisoned.
    pub images: u64,
    /// Of them with another label than their own.
    pub relabelled: u64,
    /// Architecture of the attacker's own network.
    pub surrogate: String,
    /// The surrogate's accuracy on the poisoned images' clean originals.
    pub surrogate_clean: Rate,
    /// The surrogate's accuracy on the poisoned images.
    pub surrogate_attacked: Rate,
    /// Poisoned images that pass the attacker's own copies of the defence; `None` for an attacker who does not know it.
    pub pass_copies: Option<Rate>,
    /// Whether maps show where the trigger is; `None` for a poison without a patch.
    pub patch: Option<PatchSummary>,
}

/// Where a trigger is, and whether maps show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchSummary {
    /// Pixels that the trigger sets.
    pub pixels: u64,
    /// Of all pixels of an image.
    pub area: u64,
    /// Intersection over union that a random map would have on average.
    pub random_overlap: f64,
    /// The maps.
    pub maps: Vec<Localisation>,
}

/// How well one map shows where the trigger is, over the poisoned images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Localisation {
    /// What it shows and how it is smoothed: "residual, median of 5 x 5".
    pub map: String,
    /// Mean intersection over union of the patch with as many of the map's largest pixels as it has.
    pub overlap: f64,
    /// Images in which the map's largest pixel lies in the patch.
    pub peak_inside: Rate,
}

/// Successes out of trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many succeeded.
    pub successes: u64,
    /// Out of how many.
    pub trials: u64,
}

impl Rate {
    /// Counts the `true`s.
    pub fn of(outcomes: impl IntoIterator<Item = bool>) -> Self {
        outcomes.into_iter().fold(Self::default(), |rate, success| Self {
            successes: rate.successes + u64::from(success),
            trials: rate.trials + 1,
        })
    }

    /// The share of successes in `[0, 1]`; `None` without trials.
    pub fn share(self) -> Option<f64> {
        (self.trials > 0).then(|| self.successes as f64 / self.trials as f64)
    }

    /// Wilson's 95 % score interval (Wilson 1927); `None` without trials.
    pub fn wilson(self) -> Option<[f64; 2]> {
        const Z: f64 = 1.959_963_984_540_054; // 97.5 % quantile of the standard normal
        let (share, n) = (self.share()?, self.trials as f64);
        let z2 = Z * Z / n;
        let centre = (share + z2 / 2.0) / (1.0 + z2);
        let half = Z * (share * (1.0 - share) / n + z2 / (4.0 * n)).sqrt() / (1.0 + z2);
        Some([(centre - half).max(0.0), (centre + half).min(1.0)])
    }
}

/// Counts of verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictCounts {
    /// Images kept as they are.
    pub keep: u64,
    /// Images replaced with their reconstruction.
    pub reconstruct: u64,
    /// Images left out.
    pub discard: u64,
}

/// One class of the audited training set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRow {
    /// Class index.
    pub class: u32,
    /// Images of the class in the audited set.
    pub images: u64,
    /// Verdicts.
    pub verdicts: VerdictCounts,
    /// Clean images flagged (false positives), of all clean ones; `None` without the truth.
    pub false_positives: Option<Rate>,
    /// Poisoned images not flagged (false negatives), of all poisoned ones; `None` without the truth.
    pub false_negatives: Option<Rate>,
}

/// How well one score tells poisoned from clean images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreDetection {
    /// Name in the table of scores.
    pub score: String,
    /// Whether the verdicts were taken on this score.
    pub decides: bool,
    /// Area under the ROC curve, 0.5 = blind.
    pub auroc: f64,
    /// 95 % interval of the AUROC (DeLong).
    pub auroc_interval: [f64; 2],
    /// Recall when 1 % of the clean images are flagged.
    pub recall_at_1_percent: f64,
    /// Threshold of this score, fitted on the trusted images.
    pub threshold: f64,
    /// Of the flagged images, the share that is poisoned.
    pub precision: Rate,
    /// Of the poisoned images, the share that is flagged.
    pub recall: Rate,
    /// Of the clean images, the share that is flagged.
    pub false_positives: Rate,
    /// ROC curve as (false positive rate, true positive rate), at most 200 points.
    pub roc: Vec<[f64; 2]>,
}

/// The frozen detector on held-out test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutDetection {
    /// Names of the scores, in the order of [`HeldOutAttack::auroc`].
    pub scores: Vec<String>,
    /// The score whose threshold flags.
    pub decides: String,
    /// Clean images flagged.
    pub clean: Rate,
    /// Clean images that the attacker's network answers wrongly.
    pub fooled_by_clean: Rate,
    /// Attacked images.
    pub attacks: Vec<HeldOutAttack>,
    /// Honestly damaged images.
    pub honest: Vec<HeldOutDamage>,
}

/// One attack on held-out images, crafted on a network that the defender never saw; one that knows the detector, on that too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutAttack {
    /// As in "i-fgsm eps 0.01".
    pub attack: String,
    /// Mean L2 norm of its perturbations as they are stored, in pixel units.
    #[serde(default)]
    pub mean_length: f64,
    /// AUROC of each score against the clean images.
    pub auroc: Vec<f64>,
    /// Images flagged.
    pub flagged: Rate,
    /// Images flagged whose fine structure is called crafted.
    pub called_crafted: Rate,
    /// Recall of the deciding score when 1 % of the clean images are flagged.
    pub recall_at_1_percent: f64,
    /// Whether it was crafted on the detector too.
    pub knows_detector: bool,
    /// Images that the attacker's own network answers wrongly.
    pub fooled: Rate,
    /// Images that it answers wrongly and that are not flagged.
    pub evaded: Rate,
}

/// One kind of honest damage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOutDamage {
    /// As in "jpeg quality 75".
    pub damage: String,
    /// Images flagged, each wrongly.
    pub flagged: Rate,
    /// Images flagged whose fine structure is called crafted: not only unusual, but accused.
    pub called_crafted: Rate,
}

/// The denoising autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaeSummary {
    /// "unet" or "bottleneck".
    pub network: String,
    /// Trainable numbers.
    pub parameters: u64,
    /// By epoch (Figure 3).
    pub epochs: Vec<DaeEpoch>,
    /// Mean reconstruction error (MSE against itself) on clean test images.
    pub clean_test_error: f64,
    /// Mean MSE between reconstruction and clean original on attacked test images.
    pub restored_test_error: f64,
    /// Mean MSE between attacked and clean test images: what an identity would score.
    pub attacked_test_error: f64,
    /// Peak signal-to-noise ratio of the restoration on attacked test images, in dB; `None` where nothing differs, which would be infinite.
    pub restored_psnr: Option<f64>,
    /// The same before restoration, in dB.
    pub attacked_psnr: Option<f64>,
    /// Mean structural similarity of the restoration (Wang 2004); `None` of images smaller than its window of 11 pixels.
    pub restored_ssim: Option<f64>,
    /// The same before restoration.
    pub attacked_ssim: Option<f64>,
}

/// A classifier that looks at reconstructions instead of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShieldSummary {
    /// Accuracy on the same clean images without the autoencoder.
    pub clean_without: Rate,
    /// With it.
    pub clean: Rate,
    /// One row an attack.
    pub rows: Vec<ShieldRow>,
}

/// Accuracy behind the autoencoder under one attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShieldRow {
    /// The attack with its radius.
    pub attack: String,
    /// Of one who knows the classifier alone.
    pub unaware: Rate,
    /// Of one who takes the autoencoder's gradient for that of the identity (BPDA, Athalye 2018).
    pub straight_through: Rate,
    /// Of one with the gradient of both networks.
    pub exact: Rate,
    /// Right under all three, image by image.
    pub worst: Rate,
}

/// One epoch of DAE training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaeEpoch {
    /// From 1.
    pub epoch: u32,
    /// Mean training loss.
    pub train_loss: f64,
    /// Loss on the trusted images.
    pub validation_loss: f64,
    /// Mean reconstruction error on clean trusted images.
    pub reconstruction_error: f64,
}

/// One model's accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// "clean-trained", "undefended", "teacher", "student".
    pub model: String,
    /// One sentence: what it was trained on.
    pub trained_on: String,
    /// Accuracy on clean test images.
    pub clean: Rate,
    /// Accuracy under attack, each crafted on this very model (white box).
    pub attacked: Vec<AttackedRate>,
    /// Accuracy on what was crafted on other models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transferred: Vec<Transferred>,
    /// Attack success rate: triggered test images of other classes that are answered with the backdoor's target; `None` without a backdoor.
    pub backdoor: Option<Rate>,
}

/// Accuracy on attacked images that were crafted on another model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transferred {
    /// Name of the other model.
    pub crafted_on: String,
    /// By attack.
    pub attacked: Vec<AttackedRate>,
}

impl Transferred {
    /// Each with the name that it has beside attacks on the model itself: `"pgd eps 0.0314, from undefended"`.
    pub fn labelled(&self) -> impl Iterator<Item = (String, Rate)> {
        let label = |rate: &AttackedRate| (label_from(&rate.attack, &self.crafted_on), rate.accuracy);
        self.attacked.iter().map(label)
    }
}

/// Name of an attack that was crafted on another model: `"pgd eps 0.0314, from undefended"`.
pub fn label_from(attack: &str, crafted_on: &str) -> String {
    format!("{attack}, from {crafted_on}")
}

/// Accuracy under one attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackedRate {
    /// As in "i-fgsm eps 0.01".
    pub attack: String,
    /// Images still classified right.
    pub accuracy: Rate,
    /// Of a targeted attack: images that are answered with the class that was sought, of those that were led to one.
    #[serde(default)]
    pub reached: Option<Rate>,
}

/// One filter and what a classifier trained behind it reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlRow {
    /// "none", "limbeck", "random", "perfect".
    pub filter: String,
    /// Images left out.
    pub removed: u64,
    /// Images replaced with a reconstruction.
    pub reconstructed: u64,
    /// Poisoned images that stayed as they were; `None` without the truth.
    pub poison_left: Option<u64>,
    /// Accuracy on clean test images.
    pub clean: Rate,
    /// Attack success rate as in [`ModelRow::backdoor`].
    pub backdoor: Option<Rate>,
}

/// Defence effectiveness rating in percent, 50 = no effect, 100 = perfect (Zhu 2023, BackdoorBench): 50 · (1 + max(0, ΔASR) − max(0, ΔACC)), each Δ from
/// no defence to the defence.
pub fn defence_effectiveness(undefended: &ControlRow, defended: &ControlRow) -> Option<f64> {
    let drop = |before: Rate, after: Rate| Some((before.share()? - after.share()?).max(0.0));
    let (success, accuracy) =
        (drop(undefended.backdoor?, defended.backdoor?)?, drop(undefended.clean, defended.clean)?);
    Some(50.0 * (1.0 + success - accuracy))
}

/// How the student abstains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbstentionSummary {
    /// The uncertainty in words: "KL to the class reference".
    pub uncertainty: String,
    /// Clean images that the threshold was calibrated on.
    pub calibration_images: u64,
    /// Whether the share of null was promised by the conformal rule, of images that are exchangeable with these; not where a network was given that may have
    /// learnt from them.
    pub guaranteed: bool,
    /// Calibration images that are null because the outlier class of the student wins.
    #[serde(default)]
    pub outlier_images: u64,
    /// Dropout passes.
    pub passes: u32,
    /// Null when the uncertainty is above this; `None` where the calibration images were too few to promise `target_null_rate`.
    pub threshold: Option<f64>,
    /// Share of null asked for on clean calibration images.
    pub target_null_rate: f64,
    /// What the audit's detector may say of an image that is answered, if it is asked.
    #[serde(default)]
    pub detector: Option<DetectorLimits>,
    /// Outcomes on clean and on attacked test images.
    pub outcomes: Vec<AbstentionRow>,
    /// Outcomes on test images that are damaged honestly.
    #[serde(default)]
    pub damaged: Vec<AbstentionRow>,
    /// Risk-coverage curve on clean test images as (coverage, error among answered), at most 200 points.
    pub risk_coverage: Vec<[f64; 2]>,
    /// Area under that curve (AURC), smaller is better.
    pub aurc: f64,
    /// The same of every uncertainty.
    pub compared: Vec<UncertaintyRow>,
}

/// One uncertainty on the clean test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UncertaintyRow {
    /// In words.
    pub uncertainty: String,
    /// Area under its risk-coverage curve, smaller is better.
    pub aurc: f64,
}

/// Outcomes of one input kind; the three counts add up to all images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbstentionRow {
    /// "clean" or an attack's name.
    pub inputs: String,
    /// Answered, and right.
    pub right: u64,
    /// Answered, and wrong.
    pub wrong: u64,
    /// Answered null.
    pub null: u64,
    /// Those of them that look perturbed to the detector.
    #[serde(default)]
    pub perturbed: u64,
}

/// Learning curve of one classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierCurve {
    /// Model name as in [`ModelRow::model`].
    pub model: String,
    /// By epoch.
    pub epochs: Vec<ClassifierEpoch>,
}

/// One epoch of classifier training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierEpoch {
    /// From 1.
    pub epoch: u32,
    /// Mean training loss.
    pub train_loss: f64,
    /// Mean loss on held-out images.
    pub validation_loss: f64,
    /// Accuracy on held-out images, in `[0, 1]`.
    pub validation_accuracy: f64,
    /// Accuracy on attacked calibration images, of a classifier that was trained on adversarial examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust_accuracy: Option<f64>,
}

/// One image in Figure 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspicionPoint {
    /// Position in the audited set, in the set's own order.
    pub index: u64,
    /// Value of the deciding score.
    pub score: f64,
    /// Reconstruction error (MSE), the paper's own score.
    pub mse: f64,
    /// The truth, where it is known.
    pub poisoned: Option<bool>,
    /// What was decided.
    pub verdict: Verdict,
}

/// One row of example images; each is a PNG, base64-encoded (standard alphabet, padded).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triptych {
    /// Path in the source.
    pub path: String,
    /// Class index it is labelled with.
    pub label: u32,
    /// What was decided.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// Value of the deciding score.
    pub score: f64,
    /// Conformal p-value against the trusted images.
    pub p_value: f64,
    /// The truth, where it is known.
    pub poisoned: Option<bool>,
    /// The clean original, where it is known.
    pub original_png: Option<String>,
    /// The image as it stands in the audited set.
    pub suspicious_png: String,
    /// The DAE's output.
    pub reconstructed_png: String,
    /// |suspicious − reconstructed|, amplified by `residual_gain` for the eye.
    pub residual_png: String,
    /// Amplification of the residual picture.
    pub residual_gain: f64,
}

/// An attacked test image beside itself; each picture is a PNG, base64-encoded (standard alphabet, padded).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackedExample {
    /// Path in the source.
    pub path: String,
    /// Index of its true class.
    pub label: u32,
    /// The attack: "pgd eps 0.0314", "pgd eps 0.0314, from student without its outlier class".
    pub attack: String,
    /// How many of all attacked images are answered wrongly under it; null is no wrong answer.
    pub wrong: Rate,
    /// The answer to the image as it is.
    pub clean: GivenAnswer,
    /// The answer to the attacked image.
    pub attacked: GivenAnswer,
    /// Largest change of a value, in levels of 8 bits.
    pub largest_change: u8,
    /// The image as it is.
    pub clean_png: String,
    /// The attacked image as it is stored in 8 bits, within the ball.
    pub attacked_png: String,
    /// attacked − clean around mid-grey (level 128), amplified by `difference_gain` for the eye: lighter is raised, darker lowered.
    pub difference_png: String,
    /// Amplification of the picture of the difference.
    pub difference_gain: u8,
}

/// What the student said of one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenAnswer {
    /// The likeliest class, whether or not it is given.
    pub class: u32,
    /// Its probability at the null rule's temperature; `None` if that is no number.
    pub probability: Option<f64>,
    /// Whether the student keeps silent.
    pub null: bool,
    /// Whether that is, or would be, because the image looks perturbed to the audit's detector.
    pub perturbed: bool,
}

/// One self-check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is checked, as a claim.
    pub claim: String,
    /// How it came out.
    pub outcome: Outcome,
    /// The figures behind it.
    pub detail: String,
}

/// How a claim came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// Nothing here bears it out or refutes it: the measurement was not run, and the row says why, or what was tried settles nothing.
    #[serde(alias = "not-run")]
    Unknown,
}

/// One plain sentence for the reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Whether it is good news.
    pub outcome: Outcome,
    /// The sentence, with its figures.
    pub text: String,
}
