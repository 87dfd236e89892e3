//! The settings of a run on feature vectors: plain structs, a default with its source for each, checked before any work.
//!
//! eps and noise are shares of a feature's range: features are scaled to `[0, 1]`. A file is TOML over the defaults, and `a.b=c` overrides over that, as for images.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::attack::{AttackConfig, AttackKind, Target};
use crate::distill::{AbstentionConfig, AdversarialNetworks, DistillConfig, Method, Uncertainty};
use crate::error::{Error, Result};
use crate::pipeline::overlaid;
use crate::purify::Rule;
use crate::train::{Augmentation, CraftingConfig, TrainConfig};

/// Everything that decides the bytes of a run on feature vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorConfig {
    /// Root of every random draw.
    pub seed: u64,
    /// The table.
    pub data: VectorData,
    /// The simulated attacker; `none` audits the table as it comes.
    pub poison: VectorPoison,
    /// The defender's networks: undefended, those of the folds, teacher, student and controls.
    pub network: MlpSection,
    /// The denoising autoencoder.
    pub dae: VectorDae,
    /// Scores, threshold and verdicts.
    pub audit: VectorAudit,
    /// Distillation of the student.
    pub distill: VectorDistill,
    /// The null answer; of a regression the uncertainty is always the standard deviation over the dropout passes.
    pub abstention: AbstentionConfig,
    /// The prediction interval (regression alone).
    pub interval: IntervalConfig,
    /// What is measured at the end.
    pub evaluate: VectorEvaluate,
}

/// The table and what its columns are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorData {
    /// File: `.csv` or `.parquet`. A parquet column of lists, all of n numbers, is n features: `x[0]` to `x[n − 1]`.
    pub path: String,
    /// Columns to predict; several are a regression of several outputs.
    pub target: Vec<String>,
    /// What the target is.
    pub task: TaskChoice,
    /// Columns that are carried along and not looked at; a column of lists is ignored as a whole.
    pub ignore: Vec<String>,
    /// File of rows that are known to be clean; empty = a random part of `path`, as `split.trusted` says.
    pub trusted: String,
    /// File of test rows; empty = a random part of `path`, as `split.test` says.
    pub test: String,
    /// Shares.
    pub split: VectorSplit,
}

/// What the target is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskChoice {
    /// Text, or whole numbers, of at most 100 distinct values are classes; everything else is a quantity.
    #[default]
    Auto,
    /// Classes.
    Classification,
    /// Quantities.
    Regression,
}

/// Shares of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSplit {
    /// Share of the rows that is tested on (0.2: scikit-learn's tutorials; its own default is 0.25).
    pub test: f64,
    /// Share of the rest that is trusted to be clean (0.1: about what somebody can look through).
    pub trusted: f64,
    /// Share of the trusted rows that no network learns from: null answers and intervals are calibrated on them (one half: both uses need their number).
    pub calibration: f64,
}

impl Default for VectorSplit {
    fn default() -> Self {
        Self { test: 0.2, trusted: 0.1, calibration: 0.5 }
    }
}

/// What a simulated attacker does to the audited rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorPoisonKind {
    /// Nothing.
    #[default]
    None,
    /// Features perturbed by I-FGSM on a network of the attacker's own; the target stays.
    Adversarial,
    /// Another class, or the target of another row.
    LabelFlip,
}

/// The simulated attacker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorPoison {
    /// What it does.
    pub kind: VectorPoisonKind,
    /// Share of the audited rows (0.1: the share at which limbeck's image experiments report).
    pub fraction: f64,
    /// Radius of `adversarial`, a share of each feature's range.
    pub eps: f64,
    /// Hidden layers of its own network, which are not the defender's.
    pub hidden: Vec<usize>,
}

/// Shape and training of the predictors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSection {
    /// Units of each hidden layer (two layers, as the beam predictors of Kuzlu 2022 have more of; 64: enough for tables of tens of columns).
    pub hidden: Vec<usize>,
    /// Dropout probability before the last layer (0.1: Gal & Ghahramani 2016 for regression).
    pub dropout: f64,
    /// Training.
    pub train: TrainConfig,
}

/// Shape and training of the autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorDae {
    /// Units of the hidden layers on both sides of the latent.
    pub hidden: usize,
    /// Length of the latent vector.
    pub latent: usize,
    /// Weights of the inputs in training: the row itself, its adversarial twin, the row with noise; need not add up to 1.
    pub weights: DamageWeights,
    /// Radii of the twins; each row draws one (from a third of the smallest radius that is evaluated to the largest).
    pub eps: Vec<f64>,
    /// Largest standard deviation of the noise; each row draws its own in `[0, sigma]`.
    pub gaussian_sigma: f64,
    /// Share of the unperturbed inputs of a step that teach nothing, those that look most perturbed (0.2: that of the autoencoder of images).
    pub trimmed: f64,
    /// Weight of the head's binary cross-entropy beside the mean squared error in 255ths of a range, above 0 (2: that of the autoencoder of images).
    pub head_weight: f64,
    /// Training.
    pub train: TrainConfig,
}

/// How often each kind of input is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DamageWeights {
    /// The row itself.
    pub identity: f64,
    /// Its adversarial twin.
    pub adversarial: f64,
    /// The row with Gaussian noise.
    pub gaussian: f64,
}

/// Scores, threshold and verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorAudit {
    /// Networks that score the rows they did not learn from (5: the usual number of folds; Northcutt 2021 use 4).
    pub folds: usize,
    /// Rounds of such networks, each taught without the audited rows that the round before contradicted more than `rule` lets trusted rows be: wrong targets that are learnt
    /// from make others look right.
    pub rounds: usize,
    /// How the threshold is fitted on trusted rows.
    pub rule: Rule,
}

/// What the student learns from; the losses are those of [`Method`](crate::distill::Method).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorMethod {
    /// The purified table's own targets; there is no teacher.
    None,
    /// The teacher's answers: soft labels at the temperature (Papernot 2016), or the teacher's outputs.
    #[default]
    Defensive,
    /// Adversarially robust distillation: likeness to the teacher on perturbed rows (Goldblum 2020). Of classes alone.
    Ard,
    /// Low-temperature distillation: the soft labels of a teacher at T, learnt at 1 from perturbed rows (Chen & Lee 2021). Of classes alone.
    Ltd,
    /// `defensive` with teacher and student trained on rows that are perturbed against them (Madry 2018; Kuzlu 2022).
    Adversarial,
}

/// Distillation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorDistill {
    /// What the student learns from.
    pub method: VectorMethod,
    /// Softmax temperature, as the method says; 0 = the method's published one (`defensive` and `adversarial` 20, Papernot 2016; `ard` 30, Goldblum 2020; `ltd` 5, of the teacher alone,
    /// Chen & Lee 2021). `none` and a regression have none.
    pub temperature: f64,
    /// Weight a of the teacher beside the classes (`ard` alone; Goldblum 2020: 1).
    pub weight: f64,
    /// Which networks are trained on perturbed rows (Madry 2018); the students of `ard` and `ltd` are in any case, and with `adversarial` both.
    pub adversarial: AdversarialNetworks,
    /// How rows are perturbed in training.
    pub crafting: CraftingConfig,
}

impl VectorDistill {
    /// The same in the settings of images, whose rules of temperatures, losses and perturbed inputs hold here too.
    pub(super) fn as_of_images(&self) -> DistillConfig {
        let (method, adversarial) = match self.method {
            VectorMethod::None => (Method::None, self.adversarial),
            VectorMethod::Defensive => (Method::Defensive, self.adversarial),
            VectorMethod::Ard => (Method::Ard, self.adversarial),
            VectorMethod::Ltd => (Method::Ltd, self.adversarial),
            VectorMethod::Adversarial => (Method::Defensive, AdversarialNetworks::Both),
        };
        DistillConfig {
            method,
            temperature: self.temperature,
            weight: self.weight,
            adversarial,
            crafting: self.crafting,
            ..DistillConfig::default()
        }
    }

    fn check(&self) -> Result<()> {
        use AdversarialNetworks::{Both, None, Student, Teacher};
        let found = format!("{:?}", self.adversarial).to_lowercase();
        let refused = |expected| Err(Error::config("distill.adversarial", found, expected));
        match (self.method, self.adversarial) {
            (VectorMethod::None, Teacher | Both) => {
                return refused("none or student: with distill.method = \"none\" there is no teacher");
            }
            (VectorMethod::Adversarial, Teacher | Student) => {
                return refused(
                    "none or both, for distill.method = \"adversarial\" is both: \"defensive\" leaves the choice",
                );
            }
            (_, None | Teacher | Student | Both) => {}
        }
        self.as_of_images().check("distill")
    }

    /// Refuses methods that need classes for a regression, which has `None`.
    pub(super) fn check_for(&self, classes: Option<usize>) -> Result<()> {
        if classes.is_none() && matches!(self.method, VectorMethod::Ard | VectorMethod::Ltd) {
            let found = format!("{} for a regression", self.as_of_images().method.name());
            let expected = "none, defensive or adversarial, for ard and ltd ask for the softmax of classes: of quantities, the teacher's outputs are learnt from perturbed rows by defensive with distill.adversarial = \"student\"";
            return Err(Error::config("distill.method", found, expected));
        }
        Ok(())
    }
}

/// The prediction interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalConfig {
    /// Share of rows whose target may lie outside (0.1, the usual one in the conformal literature: Angelopoulos & Bates 2021).
    pub miss: f64,
}

/// What is measured at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorEvaluate {
    /// Attacks on the test rows, each crafted on the very network that it is counted for.
    pub attacks: Vec<AttackConfig>,
    /// Resamples of a bootstrap interval (Efron & Tibshirani 1993: 1,000 for intervals).
    pub resamples: usize,
}

/// Adam with a rising and falling rate, as for the classifiers of images.
fn training(epochs: usize, learning_rate: f64) -> TrainConfig {
    TrainConfig::one_cycle(epochs, 32, learning_rate)
}

/// Radii of the default attacks: a hundredth, about a thirtieth and a tenth of a feature's range.
const RADII: [f64; 3] = [0.01, 0.03, 0.1];

impl Default for VectorConfig {
    fn default() -> Self {
        use AttackKind::{Fgsm, IFgsm, MiFgsm, Pgd};
        let of_radius = |eps| [Fgsm, IFgsm, Pgd, MiFgsm].map(|kind| AttackConfig::linf(kind, eps));
        Self {
            seed: 1,
            data: VectorData::default(),
            poison: VectorPoison {
                kind: VectorPoisonKind::None,
                fraction: 0.1,
                eps: 0.05,
                hidden: vec![48, 48],
            },
            network: MlpSection { hidden: vec![64, 64], dropout: 0.1, train: training(60, 0.003) },
            dae: VectorDae {
                hidden: 64,
                latent: 32,
                weights: DamageWeights { identity: 1.0, adversarial: 1.0, gaussian: 0.25 },
                eps: vec![0.01, 0.03, 0.05, 0.1],
                gaussian_sigma: 0.05,
                trimmed: 0.2,
                head_weight: 2.0,
                train: training(80, 0.003),
            },
            audit: VectorAudit { folds: 5, rounds: 3, rule: Rule::default() },
            distill: VectorDistill {
                method: VectorMethod::Defensive,
                temperature: 0.0,
                weight: 1.0,
                adversarial: AdversarialNetworks::None,
                crafting: CraftingConfig { eps: 0.03, steps: 5, ..CraftingConfig::default() },
            },
            abstention: AbstentionConfig {
                null_rate: 0.02,
                detector_rate: 0.0,
                ..AbstentionConfig::default()
            },
            interval: IntervalConfig { miss: 0.1 },
            evaluate: VectorEvaluate {
                attacks: RADII.into_iter().flat_map(of_radius).collect(),
                resamples: 1000,
            },
        }
    }
}

impl VectorConfig {
    /// The defaults, then a TOML file over them, then overrides `a.b=c` in order. The target may still be missing: [`check`](Self::check) is the caller's.
    ///
    /// # Errors
    /// [`Error::Config`] names the key that is unknown or does not fit; [`Error::Io`] and [`Error::Artefact`] name the file.
    pub fn resolve(file: Option<&Path>, overrides: &[String]) -> Result<Self> {
        overlaid(&Self::default(), file, None, overrides)
    }

    /// The config as TOML, every key named.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a config holds only tables, numbers and strings")
    }

    /// The same with absolute paths, so that the stored config serves from any folder. A path that cannot be one in UTF-8 stays.
    pub(super) fn with_absolute_paths(&self) -> Self {
        let mut config = self.clone();
        let VectorData { path, trusted, test, .. } = &mut config.data;
        for path in [path, trusted, test].into_iter().filter(|path| !path.is_empty()) {
            let absolute = std::path::absolute(&*path).map(|path| path.into_os_string().into_string());
            if let Ok(Ok(absolute)) = absolute {
                *path = absolute;
            }
        }
        config
    }

    /// Refuses everything out of range, before any work is done.
    pub fn check(&self) -> Result<()> {
        self.data.check()?;
        share("poison.fraction", self.poison.fraction, 0.0, 0.9)?;
        share("poison.eps", self.poison.eps, 0.0, 1.0)?;
        layers("poison.hidden", &self.poison.hidden)?;
        layers("network.hidden", &self.network.hidden)?;
        share("network.dropout", self.network.dropout, 0.0, 0.95)?;
        trainable("network.train", &self.network.train)?;
        self.dae.check()?;
        if !(2..=100).contains(&self.audit.folds) {
            return Err(Error::config("audit.folds", self.audit.folds, "2 to 100 folds"));
        }
        if !(1..=10).contains(&self.audit.rounds) {
            return Err(Error::config("audit.rounds", self.audit.rounds, "1 to 10 rounds"));
        }
        self.distill.check()?;
        self.abstention.check("abstention")?;
        if self.abstention.uncertainty == Uncertainty::Outlier {
            let expected = "another uncertainty: no network of vectors has an outlier class";
            return Err(Error::config("abstention.uncertainty", "outlier", expected));
        }
        if self.abstention.detector_rate > 0.0 {
            let expected = "0: the students of vectors do not ask the detector";
            return Err(Error::config("abstention.detector_rate", self.abstention.detector_rate, expected));
        }
        if !(self.interval.miss > 0.0 && self.interval.miss < 1.0) {
            return Err(Error::config("interval.miss", self.interval.miss, "a share in (0, 1)"));
        }
        if !(100..=100_000).contains(&self.evaluate.resamples) {
            return Err(Error::config("evaluate.resamples", self.evaluate.resamples, "100 to 100000"));
        }
        for (index, attack) in self.evaluate.attacks.iter().enumerate() {
            attackable(&format!("evaluate.attacks[{index}]"), attack)?;
        }
        Ok(())
    }

    /// Refuses attacks that need classes, or more of them, for a task of so many; `None` = a regression.
    ///
    /// A regression is attacked along the gradient of its squared error, which only the steepest steps walk on: see [`SquaredError`](super::SquaredError).
    pub(super) fn check_attacks_for(&self, classes: Option<usize>) -> Result<()> {
        for (index, attack) in self.evaluate.attacks.iter().enumerate() {
            let key = |name: &str| format!("evaluate.attacks[{index}].{name}");
            let Some(classes) = classes else {
                if !REGRESSION_ATTACKS.contains(&attack.kind) {
                    let expected = "fgsm, i-fgsm, mi-fgsm or pgd: the others need classes";
                    return Err(Error::config(
                        key("kind"),
                        format!("{} for a regression", attack.name()),
                        expected,
                    ));
                }
                if attack.target != Target::Any {
                    let expected = "any for a regression: its answers are no classes";
                    return Err(Error::config(key("target"), format!("{:?}", attack.target), expected));
                }
                if attack.restarts != 1 {
                    let expected = "1 for a regression: starts are compared by whether the class changes";
                    return Err(Error::config(key("restarts"), attack.restarts, expected));
                }
                continue;
            };
            let least = attack.least_classes();
            if classes < least {
                let found = format!("{} for {classes} classes", attack.name());
                return Err(Error::config(
                    key("kind"),
                    found,
                    format!("an attack for as many; it needs {least}"),
                ));
            }
        }
        Ok(())
    }
}

/// Attacks that follow the gradient of a loss and ask nothing else of the logits.
const REGRESSION_ATTACKS: [AttackKind; 4] =
    [AttackKind::Fgsm, AttackKind::IFgsm, AttackKind::MiFgsm, AttackKind::Pgd];

/// Attacks that know of an image what a row has not: neighbouring pixels, or one perturbation that suits every place.
const IMAGE_ATTACKS: [AttackKind; 3] = [AttackKind::Square, AttackKind::AutoAttack, AttackKind::Universal];

fn attackable(key: &str, attack: &AttackConfig) -> Result<()> {
    attack.check(key)?;
    if IMAGE_ATTACKS.contains(&attack.kind) {
        let expected = "an attack that asks nothing of neighbouring values: square (which is also in auto-attack) and universal are of images";
        return Err(Error::config(format!("{key}.kind"), attack.name(), expected));
    }
    Ok(())
}

impl VectorData {
    fn check(&self) -> Result<()> {
        if self.target.is_empty() {
            let expected = "the column to predict, or several: --target COLUMN[,COLUMN...]";
            return Err(Error::config("data.target", "no column", expected));
        }
        for (index, name) in self.target.iter().enumerate() {
            if self.target[..index].contains(name) || self.ignore.contains(name) {
                let found = format!("column `{name}`, which is named again");
                return Err(Error::config(
                    "data.target",
                    found,
                    "each column once, and not also in data.ignore",
                ));
            }
        }
        if self.task == TaskChoice::Classification && self.target.len() > 1 {
            let found = format!("classification of {} target columns", self.target.len());
            return Err(Error::config("data.task", found, "one target column, or a regression"));
        }
        share("data.split.trusted", self.split.trusted, 0.0, 0.9)?;
        share("data.split.calibration", self.split.calibration, 0.0, 0.95)?;
        share("data.split.test", self.split.test, 0.0, 0.9)?;
        let needed = [
            ("data.split.trusted", self.split.trusted, self.trusted.is_empty(), "data.trusted"),
            ("data.split.test", self.split.test, self.test.is_empty(), "data.test"),
        ];
        match needed.into_iter().find(|(_, share, is_drawn, _)| *is_drawn && *share == 0.0) {
            Some((key, _, _, file)) => Err(Error::config(key, 0, format!("a share above 0, or a {file}"))),
            None => Ok(()),
        }
    }
}

impl VectorDae {
    fn check(&self) -> Result<()> {
        layers("dae.hidden, dae.latent", &[self.hidden, self.latent])?;
        let DamageWeights { identity, adversarial, gaussian } = self.weights;
        for (name, weight) in [("identity", identity), ("adversarial", adversarial), ("gaussian", gaussian)] {
            at_least_0(&format!("dae.weights.{name}"), weight)?;
        }
        if identity + adversarial + gaussian == 0.0 {
            return Err(Error::config("dae.weights", "all weights 0", "at least one kind of input"));
        }
        if self.eps.is_empty() || self.eps.iter().any(|eps| !(*eps > 0.0 && *eps <= 1.0)) {
            return Err(Error::config("dae.eps", format!("{:?}", self.eps), "one or more radii in (0, 1]"));
        }
        share("dae.gaussian_sigma", self.gaussian_sigma, 0.0, 1.0)?;
        share("dae.trimmed", self.trimmed, 0.0, 0.99)?;
        if !(self.head_weight.is_finite() && self.head_weight > 0.0) {
            let expected = "a weight above 0: rows are judged by the detection head too";
            return Err(Error::config("dae.head_weight", self.head_weight, expected));
        }
        trainable("dae.train", &self.train)
    }
}

fn share(key: &str, value: f64, least: f64, most: f64) -> Result<()> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::config(key, value, format!("a number in [{least}, {most}]"))),
    }
}

fn at_least_0(key: &str, value: f64) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::config(key, value, "a weight, 0 or more")),
    }
}

fn layers(key: &str, units: &[usize]) -> Result<()> {
    match units.len() <= 16 && units.iter().all(|units| (1..=16_384).contains(units)) {
        true => Ok(()),
        false => Err(Error::config(key, format!("{units:?}"), "at most 16 layers of 1 to 16384 units")),
    }
}

/// Rows have no neighbours to shift them over, and their targets are taken as they are.
fn trainable(key: &str, train: &TrainConfig) -> Result<()> {
    train.check(key)?;
    if train.augmentation != Augmentation::default() {
        return Err(Error::config(
            format!("{key}.augmentation"),
            "an augmentation",
            "none: these are of images",
        ));
    }
    if train.label_smoothing != 0.0 {
        return Err(Error::config(format!("{key}.label_smoothing"), train.label_smoothing, "0 for vectors"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(set: &[&str]) -> Result<VectorConfig> {
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let mut config = VectorConfig::resolve(None, &set)?;
        config.data.target = vec!["y".to_owned()];
        config.check()?;
        Ok(config)
    }

    fn refusal(set: &str) -> String {
        resolved(&[set]).expect_err(set).to_string()
    }

    #[test]
    fn the_defaults_are_within_range_and_survive_their_own_toml() {
        let config = resolved(&[]).expect("in range");
        let again: VectorConfig = toml::from_str(&config.to_toml()).expect("a config");
        assert_eq!(again, config);
    }

    #[test]
    fn paths_are_stored_as_they_are_found_from_any_folder() {
        let set = ["data.path=a.csv", "data.test=deep/b.csv"].map(str::to_owned);
        let config = VectorConfig::resolve(None, &set).expect("known keys");
        let VectorData { path, trusted, test, .. } = config.with_absolute_paths().data;
        assert!(Path::new(&path).is_absolute() && path.ends_with("a.csv"), "{path}");
        assert!(Path::new(&test).is_absolute() && Path::new(&test).ends_with("deep/b.csv"), "{test}");
        assert_eq!(trusted, "", "no file stays none");
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_name_the_key() {
        for set in [
            "network.hiden=[3]",
            "network.hidden=[0]",
            "network.dropout=1",
            "network.train.learning_rate=nan",
            "network.train.label_smoothing=0.1",
            "network.train.augmentation={shift=1.0,rotation=0.0,scale=0.0,brightness=0.0}",
            "dae.eps=[2.0]",
            "dae.head_weight=-1",
            "dae.head_weight=0",
            "audit.folds=1",
            "audit.rounds=0",
            "distill.temperature=0.5",
            "distill.weight=1.5",
            "distill.crafting.steps=0",
            "distill.adversarial=everybody",
            "distill.method=extended",
            "abstention.uncertainty=outlier",
            "abstention.detector_rate=0.02",
            "interval.miss=0",
            "evaluate.resamples=3",
            "poison.fraction=2",
            "poison.kind=backdoor",
            "data.split.test=0",
        ] {
            let key = set.split('=').next().expect("a key");
            assert!(refusal(set).contains(key), "{set}: {}", refusal(set));
        }
    }

    #[test]
    fn temperatures_and_perturbed_rows_are_those_that_the_method_publishes() {
        let of = |set: &[&str]| {
            let distill = resolved(set).expect("in range").distill.as_of_images();
            let temperatures =
                [distill.teacher_temperature(), distill.temperature(), distill.student_temperature()];
            let perturbed = [distill.teacher_crafting().is_some(), distill.student_crafting().is_some()];
            (temperatures, perturbed)
        };
        // Papernot 2016: 20; Goldblum 2020: 30 in the divergence alone; Chen & Lee 2021: 5 for the teacher, 1 for the student.
        assert_eq!(of(&[]), ([20.0; 3], [false, false]));
        assert_eq!(of(&["distill.method=ard"]), ([1.0, 30.0, 1.0], [false, true]));
        assert_eq!(of(&["distill.method=ltd"]), ([5.0, 5.0, 1.0], [false, true]));
        assert_eq!(of(&["distill.method=adversarial"]), ([20.0; 3], [true, true]));
        assert_eq!(of(&["distill.method=none", "distill.adversarial=student"]), ([1.0; 3], [false, true]));
        assert_eq!(of(&["distill.method=ard", "distill.adversarial=teacher"]).1, [true, true]);
        assert_eq!(of(&["distill.adversarial=teacher", "distill.temperature=7"]), ([7.0; 3], [true, false]));
    }

    #[test]
    fn a_teacher_that_is_not_there_and_a_choice_that_the_method_makes_are_refused() {
        for set in [
            ["distill.method=none", "distill.adversarial=both"],
            ["distill.method=none", "distill.adversarial=teacher"],
            ["distill.method=adversarial", "distill.adversarial=student"],
        ] {
            let message = resolved(&set).expect_err("refused").to_string();
            assert!(message.contains("distill.adversarial"), "{message}");
        }
        assert!(resolved(&["distill.method=adversarial", "distill.adversarial=both"]).is_ok());
    }

    #[test]
    fn methods_of_the_softmax_are_refused_for_quantities_alone() {
        for (method, needs_classes) in
            [("none", false), ("defensive", false), ("adversarial", false), ("ard", true), ("ltd", true)]
        {
            let distill = resolved(&[&format!("distill.method={method}")]).expect("in range").distill;
            assert!(distill.check_for(Some(2)).is_ok(), "{method}");
            let found = distill.check_for(None);
            assert_eq!(found.is_err(), needs_classes, "{method}");
            if let Err(error) = found {
                let message = error.to_string();
                for word in ["distill.method", method, "regression", "classes"] {
                    assert!(message.contains(word), "no {word:?} in: {message}");
                }
            }
        }
    }

    #[test]
    fn attacks_of_images_and_attacks_that_a_task_cannot_bear_are_refused() {
        let attacks =
            |kind: &str, more: &str| format!("evaluate.attacks=[{{kind=\"{kind}\",eps=0.1{more}}}]");
        for kind in ["square", "universal", "auto-attack"] {
            assert!(refusal(&attacks(kind, "")).contains("evaluate.attacks[0].kind"), "{kind}");
        }
        let config = |kind: &str, more: &str| resolved(&[&attacks(kind, more)]).expect("in range");
        assert!(config("apgd-t", "").check_attacks_for(Some(3)).is_err(), "needs four classes");
        assert!(config("apgd-t", "").check_attacks_for(Some(4)).is_ok());
        assert!(config("apgd-ce", "").check_attacks_for(None).is_err());
        assert!(config("pgd", ",restarts=2").check_attacks_for(None).is_err());
        for kind in ["fgsm", "i-fgsm", "mi-fgsm", "pgd"] {
            assert!(config(kind, "").check_attacks_for(None).is_ok(), "{kind}");
        }
    }
}
