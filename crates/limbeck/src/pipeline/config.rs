//! The configuration of a run: plain structs, presets, and `a.b=c` overrides.
//!
//! A config file is TOML over a preset: what it does not name keeps the preset's value, and what no struct knows is refused.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::budget::Budget;
use super::presets::Preset;
use crate::attack::AttackConfig;
use crate::dataset::{Dataset, ImageSize, SourceOptions, SplitConfig};
use crate::distill::{AbstentionConfig, DistillConfig, Method, Uncertainty};
use crate::error::{Error, Result};
use crate::evaluate::{
    AttackCheckpoints, AuditPageConfig, ChecklistConfig, CurveConfig, HeldOutConfig, KnowingRuleConfig,
    ShieldConfig, Trials,
};
use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec, ClassifierSpec, Normalisation, Views};
use crate::poison::PoisonConfig;
use crate::purify::{Knowledge, KnowledgeConfig, LabelModelConfig, NoiseConfig, PurifyConfig, ScoreKind};
use crate::train::TrainConfig;

/// Everything that decides the bytes of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Root of every random draw.
    pub seed: u64,
    /// The image set.
    pub data: DataConfig,
    /// What the defender knows of the image set.
    #[serde(default)]
    pub knowledge: KnowledgeConfig,
    /// The simulated attacker; `fraction = 0` audits the set as it comes.
    pub poison: PoisonSection,
    /// The defender's classifiers: undefended, teacher, student and controls.
    pub classifier: ClassifierSection,
    /// The denoising autoencoder.
    pub dae: DaeSection,
    /// The classifier that tells wrong labels; its shape is that of the classifiers.
    pub label_model: LabelModelConfig,
    /// Scores, threshold and verdicts.
    pub purify: PurifyConfig,
    /// The page of the audit.
    pub audit: AuditPageConfig,
    /// Distillation of the student.
    pub distill: DistillConfig,
    /// The null output.
    pub abstention: AbstentionConfig,
    /// What is measured at the end.
    pub evaluate: EvaluateConfig,
}

/// The image set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder or file; empty = the embedded sample.
    pub path: String,
    /// Size that the networks see; multiples of 8 pixels.
    pub image_size: ImageSize,
    /// Column names of parquet files.
    pub columns: SourceOptions,
    /// Folder or file of images that are known to be clean and rightly labelled; empty = a random part of `path`, as `split.trusted` says.
    pub trusted: String,
    /// Shares of each class that are trusted, held out and tested on.
    pub split: SplitConfig,
    /// At most this many images of each class, evenly spaced in the order of the set; 0 = all. For quick trials.
    pub limit_per_class: usize,
}

/// The simulated attacker: what it does and the network it does it with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoisonSection {
    /// Share, attack and label.
    pub plan: PoisonConfig,
    /// The attacker's own network, which the defender never sees.
    pub surrogate: NetworkConfig,
    /// How the surrogate is trained.
    pub train: TrainConfig,
}

/// Shape of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Shape of the trunk.
    pub architecture: Architecture,
    /// Channels of the first stage.
    pub width: usize,
    /// Units of the hidden dense layer.
    pub hidden: usize,
    /// Dropout probability before each dense layer (0.5: Srivastava 2014).
    pub dropout: f64,
}

impl NetworkConfig {
    fn check(&self, key: &str) -> Result<()> {
        for (name, count) in [("width", self.width), ("hidden", self.hidden)] {
            if count == 0 {
                return Err(Error::config(format!("{key}.{name}"), count, "1 or more"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(format!("{key}.dropout"), self.dropout, "a probability in [0, 1)"));
        }
        Ok(())
    }

    /// The spec of a network of this shape for a set's classes and image size, to be trained at `temperature`.
    pub fn spec(&self, set: &Dataset, temperature: f64) -> ClassifierSpec {
        ClassifierSpec {
            architecture: self.architecture,
            width: self.width,
            hidden: self.hidden,
            dropout: self.dropout,
            classes: set.classes().to_vec(),
            image_size: [set.size().height as usize, set.size().width as usize],
            normalisation: Normalisation::default(),
            temperature,
            outlier: false,
            views: Views::One,
        }
    }
}

/// Shape and training of the defender's classifiers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifierSection {
    /// Shape.
    pub network: NetworkConfig,
    /// Training.
    pub train: TrainConfig,
}

/// Shape and training of the autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DaeSection {
    /// `unet` or `bottleneck`.
    pub kind: AutoencoderKind,
    /// Channels of the first stage.
    pub width: usize,
    /// Length of the latent vector (`bottleneck` only; the authors' code: 8 x 4 x 4 = 128).
    pub latent: usize,
    /// What the inputs are damaged with.
    pub noise: NoiseConfig,
    /// Weight of the detection head's binary cross-entropy beside the mean squared error in grey levels (of 255); 0 leaves the head untrained.
    pub head_weight: f64,
    /// Training.
    pub train: TrainConfig,
    /// Steps at least: a small set is passed over more often than `train.epochs`. 0 where a later setting names those epochs alone.
    #[serde(default)]
    pub least_steps: usize,
}

impl DaeSection {
    /// Training on so many images.
    pub fn training(&self, images: usize) -> TrainConfig {
        self.train.at_least(self.least_steps, images)
    }

    /// The same with the epochs that training on so many images takes, whatever the size of a step.
    pub fn settled(&self, images: usize) -> Self {
        Self { train: self.training(images), least_steps: 0, ..self.clone() }
    }

    /// The spec of an autoencoder of this shape for a set's image size.
    pub fn spec(&self, set: &Dataset) -> AutoencoderSpec {
        AutoencoderSpec {
            kind: self.kind,
            width: self.width,
            latent: self.latent,
            image_size: [set.size().height as usize, set.size().width as usize],
        }
    }
}

/// What is measured at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Attacks on the test images, each crafted on the very model that it is counted for.
    pub attacks: Vec<AttackConfig>,
    /// Test images that are attacked, drawn by the seed; 0 = all.
    pub attacked_images: usize,
    /// Accuracy of each model by the radius of an attack.
    pub curve: CurveConfig,
    /// Attacks on the student that are made only to check the others.
    pub checklist: ChecklistConfig,
    /// Attacks on the student when it looks at reconstructions instead of images.
    pub shield: ShieldConfig,
    /// Attacks that know the student's null rule.
    #[serde(default)]
    pub knowing_rule: KnowingRuleConfig,
    /// What the frozen detector is shown beside the audited set.
    pub held_out: HeldOutConfig,
    /// Whether classifiers are trained behind no filter, a random and a perfect one.
    pub controls: bool,
    /// Whether, beside them, classifiers are trained behind filters that always discard and always reconstruct what is flagged.
    pub ablation: bool,
    /// Rows of example images of the audited set in the report; of attacked test images as many, but eight at most.
    pub examples: usize,
}

impl EvaluateConfig {
    /// What a model is put to: `test` for what it makes of clean images, `attacked` to be attacked.
    pub(super) fn trials<'a>(
        &'a self,
        test: &'a Dataset,
        attacked: &'a Dataset,
        checkpoints: &'a AttackCheckpoints,
    ) -> Trials<'a> {
        let Self { attacks, curve, checklist, .. } = self;
        Trials { test, attacked, attacks, curve, checklist, checkpoints }
    }
}

impl RunConfig {
    /// A preset as it is.
    pub fn preset(preset: Preset) -> Self {
        preset.config()
    }

    /// A preset, then a TOML file over it, then overrides `a.b=c` in order; checked.
    ///
    /// # Errors
    /// [`Error::Config`] names the key that is unknown or out of range; [`Error::Io`] and [`Error::Artefact`] name the file.
    pub fn resolve(preset: Preset, file: Option<&Path>, overrides: &[String]) -> Result<Self> {
        Self::resolve_within(preset, file, None, overrides)
    }

    /// As [`resolve`](Self::resolve), with a budget of the evaluation between the file and the overrides.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_within(
        preset: Preset,
        file: Option<&Path>,
        budget: Option<Budget>,
        overrides: &[String],
    ) -> Result<Self> {
        let budget = budget.map(Budget::table).transpose()?;
        let config = overlaid(&Self::preset(preset), file, budget, overrides)?;
        config.check()?;
        Ok(config)
    }

    /// This config with one key, as in `--set`, at another value; checked.
    ///
    /// # Errors
    /// [`Error::Config`] names the key that is unknown or out of range.
    pub fn with(&self, key: &str, value: toml::Value) -> Result<Self> {
        let mut table = toml::Table::try_from(self)
            .map_err(|error| Error::config(key, error, "a config that has a TOML form"))?;
        merge(&mut table, nested(key, value), "")?;
        let config: Self = serde_path(toml::Value::Table(table))?;
        config.check()?;
        Ok(config)
    }

    /// The config as TOML, every key named.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a config holds only tables, numbers and strings")
    }

    /// BLAKE3 of the TOML, hex.
    pub fn hash(&self) -> String {
        blake3::hash(self.to_toml().as_bytes()).to_hex().to_string()
    }

    /// JSON schema of a config file.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }

    /// Every path that the config names: whoever keeps it for later makes them absolute.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { data, distill, .. } = self;
        let named = [&mut data.path, &mut data.trusted, &mut distill.teacher];
        named.into_iter().filter(|path| !path.is_empty()).chain(distill.ensemble.files_mut())
    }

    /// The data's path; `None` = the embedded sample.
    pub fn data_path(&self) -> Option<PathBuf> {
        (!self.data.path.is_empty()).then(|| PathBuf::from(&self.data.path))
    }

    /// Refuses everything out of range, before any work is done.
    pub fn check(&self) -> Result<()> {
        self.check_knowledge()?;
        let ImageSize { width, height } = self.data.image_size;
        if [width, height].iter().any(|side| *side < 8 || side % 8 != 0) {
            let (found, expected) =
                (format!("{width}x{height}"), "sides that are multiples of 8 pixels, 8 or more");
            return Err(Error::config("data.image_size", found, expected));
        }
        self.poison.plan.check("poison.plan")?;
        self.poison.surrogate.check("poison.surrogate")?;
        self.poison.train.check("poison.train")?;
        self.classifier.network.check("classifier.network")?;
        self.classifier.train.check("classifier.train")?;
        self.dae.noise.check("dae.noise")?;
        for (key, size) in [("width", self.dae.width), ("latent", self.dae.latent)] {
            if size == 0 {
                return Err(Error::config(format!("dae.{key}"), size, "1 or more"));
            }
        }
        let weight = self.dae.head_weight;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::config("dae.head_weight", weight, "a weight, 0 or more"));
        }
        if self.poison.plan.evade.is_on() && weight == 0.0 {
            let expected =
                "a weight above 0, or `poison.plan.evade.eps` = 0: an attacker evades the detection head";
            return Err(Error::config("dae.head_weight", weight, expected));
        }
        if weight == 0.0 && matches!(self.purify.score, ScoreKind::Head | ScoreKind::Mixture) {
            let found = format!("{}, with dae.head_weight = 0", self.purify.score.name());
            return Err(Error::config(
                "purify.score",
                found,
                "a score that asks no detection head that was not taught",
            ));
        }
        if !self.label_model.enabled && self.purify.score == ScoreKind::Label {
            let expected = "another score, or label_model.enabled = true: no other model gives it";
            return Err(Error::config("purify.score", "label, with label_model.enabled = false", expected));
        }
        self.dae.train.check("dae.train")?;
        self.label_model.check("label_model")?;
        self.purify.check("purify")?;
        self.audit.check("audit")?;
        self.abstention.check("abstention")?;
        self.distill.check("distill")?;
        if self.abstention.uncertainty == Uncertainty::Outlier && self.distill.method != Method::Extended {
            let found = format!("outlier, with distill.method = \"{}\"", self.distill.method.name());
            let expected = "another uncertainty, or distill.method = \"extended\": no other student has an outlier class";
            return Err(Error::config("abstention.uncertainty", found, expected));
        }
        let dropout = self.classifier.network.dropout;
        if self.distill.method == Method::Extended && self.distill.teacher_file().is_none() && dropout == 0.0
        {
            let expected =
                "a probability above 0: distill.method = \"extended\" teaches the doubts of dropout passes";
            return Err(Error::config("classifier.network.dropout", dropout, expected));
        }
        for (index, attack) in self.evaluate.attacks.iter().enumerate() {
            attack.check(&format!("evaluate.attacks[{index}]"))?;
        }
        for (key, attacks) in [
            ("evaluate.attacks", &self.evaluate.attacks),
            ("evaluate.held_out.attacks", &self.evaluate.held_out.attacks),
            ("evaluate.held_out.knowing", &self.evaluate.held_out.knowing),
            ("evaluate.shield.attacks", &self.evaluate.shield.attacks),
        ] {
            let labels: Vec<String> = attacks.iter().map(AttackConfig::label).collect();
            if let Some(again) = (0..labels.len()).find(|&index| labels[..index].contains(&labels[index])) {
                let expected = "no attack twice: reports know one by its kind, norm and eps";
                return Err(Error::config(format!("{key}[{again}]"), &labels[again], expected));
            }
        }
        self.evaluate.curve.check("evaluate.curve")?;
        self.evaluate.checklist.check("evaluate.checklist")?;
        self.evaluate.shield.check("evaluate.shield")?;
        self.evaluate.knowing_rule.check("evaluate.knowing_rule")?;
        self.evaluate.held_out.check("evaluate.held_out")?;
        let split = &self.data.split;
        for (key, share) in
            [("trusted", split.trusted), ("calibration", split.calibration), ("test", split.test)]
        {
            if !(0.0..0.9).contains(&share) {
                return Err(Error::config(format!("data.split.{key}"), share, "a share in [0, 0.9)"));
            }
        }
        Ok(())
    }
}

impl RunConfig {
    /// Refuses what contradicts the defender's knowledge.
    fn check_knowledge(&self) -> Result<()> {
        const SETTING: &str = "knowledge.setting";
        self.knowledge.check("knowledge")?;
        match self.knowledge.setting {
            Knowledge::Trusted => Ok(()),
            Knowledge::Untrusted if !self.data.trusted.is_empty() => {
                let expected = "`trusted`, or no `data.trusted`: these images are trusted";
                Err(Error::config(SETTING, "untrusted", expected))
            }
            Knowledge::Untrusted if self.data.split.trusted == 0.0 => {
                let expected = "a share above 0: as many audited images stand in for trusted ones";
                Err(Error::config("data.split.trusted", 0, expected))
            }
            Knowledge::Oracle if self.poison.plan.fraction == 0.0 => {
                let expected = "`trusted` or `untrusted`: without a simulated attacker nobody knows what images were before";
                Err(Error::config(SETTING, "oracle", expected))
            }
            Knowledge::Untrusted | Knowledge::Oracle => Ok(()),
        }
    }
}

/// A config with a TOML file over it, then a table, then overrides `a.b=c` in order; not checked yet.
///
/// # Errors
/// [`Error::Config`] names the key that is unknown or does not fit; [`Error::Io`] and [`Error::Artefact`] name the file.
pub(crate) fn overlaid<C: Serialize + DeserializeOwned>(
    base: &C,
    file: Option<&Path>,
    between: Option<toml::Table>,
    overrides: &[String],
) -> Result<C> {
    let mut table = toml::Table::try_from(base)
        .map_err(|error| Error::config("config", error, "a config that has a TOML form"))?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let over: toml::Table = toml::from_str(&text).map_err(|error| {
            Error::artefact(path, error.to_string().trim().replace('\n', " "), "a TOML config")
        })?;
        let merged =
            merge(&mut table, over, "").and_then(|()| serde_path::<C>(toml::Value::Table(table.clone())));
        merged.map_err(|error| match error {
            Error::Config { key, found, expected } => {
                Error::artefact(path, format!("`{key}`: {found}"), expected)
            }
            error => error,
        })?;
    }
    if let Some(between) = between {
        merge(&mut table, between, "")?;
    }
    for text in overrides {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Error::config(text.as_str(), "no `=`", "an override `a.b=c`"))?;
        merge(&mut table, nested(key.trim(), parse_value(value.trim())), "")?;
    }
    serde_path(toml::Value::Table(table))
}

/// Puts `over` on top of `base`; a key that `base` does not know is refused. Who names a number of epochs means it: no least number of steps stays that is
/// not named beside it.
fn merge(base: &mut toml::Table, over: toml::Table, path: &str) -> Result<()> {
    let names_epochs = over.get("train").and_then(|train| train.get("epochs")).is_some();
    if let Some(least) = base.get_mut("least_steps").filter(|_| names_epochs) {
        *least = toml::Value::Integer(0);
    }
    for (key, value) in over {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) if !replaces(&key, old, &new) => {
                merge(old, new, &place)?
            }
            (Some(old), value) => *old = value,
            (None, value) if OPTIONAL.contains(&place.as_str()) => {
                base.insert(key, value);
            }
            (None, _) => {
                let known = base.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(Error::config(place, "an unknown key", format!("one of: {known}")));
            }
        }
    }
    Ok(())
}

/// Keys that a preset leaves out because TOML has no null.
const OPTIONAL: &[&str] = &["data.columns.group_column"];

/// Tables of which a tag decides the other keys.
const TAGGED: &[(&str, &str)] = &[("optimiser", "kind"), ("schedule", "kind"), ("rule", "rule")];

/// A tagged table is replaced whole when its tag changes: another optimiser has other keys.
fn replaces(key: &str, old: &toml::Table, new: &toml::Table) -> bool {
    TAGGED.iter().any(|(name, tag)| *name == key && new.contains_key(*tag) && new.get(*tag) != old.get(*tag))
}

fn nested(key: &str, value: toml::Value) -> toml::Table {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, toml::Value::Table(nested(rest, value))),
        None => (key, value),
    };
    toml::Table::from_iter([(first.to_owned(), rest)])
}

/// A TOML value, or a bare word as a string.
pub(crate) fn parse_value(text: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// Deserialises with the path of the key that does not fit.
fn serde_path<C: DeserializeOwned>(value: toml::Value) -> Result<C> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().message().trim();
        // Most of serde's messages name both sides.
        let (found, expected) = message.split_once(", expected ").unwrap_or((
            message,
            "a value of the type that the config's documentation gives (`limbeck config schema` for images)",
        ));
        Error::config(error.path().to_string(), found, expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_within_range_and_survives_its_own_toml() {
        for preset in Preset::ALL {
            let config = RunConfig::preset(preset);
            config.check().unwrap_or_else(|error| panic!("{}: {error}", preset.name()));
            let again: RunConfig = toml::from_str(&config.to_toml()).expect("a preset's TOML is a config");
            assert_eq!(again, config, "{}", preset.name());
        }
    }

    fn refusal(set: &str) -> String {
        RunConfig::resolve(Preset::Sample, None, &[set.to_owned()]).expect_err(set).to_string()
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_name_the_key() {
        assert!(refusal("dae.lerning_rate=1").contains("dae.lerning_rate"));
        assert!(refusal("classifier.train.learning_rate=nan").contains("classifier.train.learning_rate"));
        assert!(refusal("classifier.train.epochs=-3").contains("classifier.train.epochs"));
        assert!(refusal("distill.temperature=0.5").contains("distill.temperature"));
        assert!(refusal("distill.outlier.passes=1").contains("distill.outlier.passes"));
        assert!(refusal("abstention.uncertainty=outlier").contains("abstention.uncertainty"));
        let views = refusal("distill.views=three");
        assert!(views.ends_with("expected one of `one`, `diagonal`, `cross`, `square`"), "{views}");
        for key in ["method=soft", "weight=2", "adversarial=all", "temperature=inf"] {
            let key = format!("distill.{key}");
            assert!(refusal(&key).contains(key.split('=').next().expect("a key")), "{key}");
        }
        for key in
            ["crafting.eps=0", "crafting.steps=0", "crafting.step=-1", "crafting.ramp=1", "ensemble.share=2"]
        {
            let key = format!("distill.{key}");
            assert!(refusal(&key).contains(key.split('=').next().expect("a key")), "{key}");
        }
        for set in [
            "data.image_size={width=12,height=16}",
            "data.image_size={width=16,height=0}",
            "classifier.network.dropout=1.5",
            "classifier.network.hidden=0",
            "poison.surrogate.dropout=-1",
            "poison.surrogate.width=0",
            "label_model.width=0",
            "label_model.first_epochs=0",
            "dae.head_weight=-1",
        ] {
            let (key, _) = set.split_once('=').expect("a key");
            assert!(refusal(set).contains(&format!("`{key}`: found")), "{}", refusal(set));
        }
        assert!(refusal("classifier.train.averaging=1").contains("classifier.train.averaging"));
        assert!(refusal("poison.plan.attack.eps=3").contains("poison.plan.attack.eps"));
        assert!(refusal("dae.kind=vae").contains("dae.kind"));
        assert!(refusal("dae.noise.trimmed=1").contains("dae.noise.trimmed"));
        assert!(refusal("knowledge.folds=1").contains("knowledge.folds"));
        assert!(refusal("knowledge.assumed_poison=1").contains("knowledge.assumed_poison"));
        assert!(refusal("poison.plan.amplitude=0").contains("poison.plan.amplitude"));
        for key in ["eps=2", "steps=0", "weight=-1", "percentile=101"] {
            let key = format!("poison.plan.evade.{key}");
            assert!(refusal(&key).contains(key.split('=').next().expect("a key")), "{key}");
        }
    }

    #[test]
    fn a_small_set_is_passed_over_more_often_unless_epochs_are_named() {
        let dae = |preset, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
            RunConfig::resolve(preset, None, &sets).expect("all fit").dae
        };
        let preset = dae(Preset::Gtsrb, &["dae.least_steps=100"]);
        // 32 images a step: 320 images are 10 steps, ten times 10 are 100; of 1,000 images the four epochs are 128.
        assert_eq!((preset.training(320).epochs, preset.training(1000).epochs), (10, 4));
        let settled = preset.settled(320);
        assert_eq!((settled.least_steps, settled.training(32).epochs), (0, 10));
        assert_eq!(dae(Preset::Gtsrb, &["dae.train.epochs=2"]).training(32).epochs, 2);
        assert_eq!(dae(Preset::Gtsrb, &["dae.train.epochs=2", "dae.least_steps=3"]).training(32).epochs, 3);
        assert_eq!(dae(Preset::Gtsrb, &["dae.train.batch=1"]).training(4300).epochs, 4);
    }

    #[test]
    fn a_score_of_a_model_that_nothing_taught_is_refused() {
        let resolve = |sets: [&str; 2]| RunConfig::resolve(Preset::Sample, None, &sets.map(str::to_owned));
        for sets in [
            ["dae.head_weight=0", "purify.score=head"],
            ["dae.head_weight=0", "purify.score=mixture"],
            ["label_model.enabled=false", "purify.score=label"],
        ] {
            let error = resolve(sets).expect_err("refused").to_string();
            assert!(error.contains("`purify.score`"), "{error}");
        }
        resolve(["dae.head_weight=0", "purify.score=mse"]).expect("the error needs no head");
    }

    #[test]
    fn a_fault_in_a_file_of_settings_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine.toml");
        for text in ["foo = 1", "[dae]\nwidth = \"wide\""] {
            std::fs::write(&path, text).expect("written");
            let error = RunConfig::resolve(Preset::Sample, Some(&path), &[]).expect_err(text).to_string();
            assert!(error.contains("mine.toml") && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn attacks_that_reports_cannot_tell_apart_are_refused_in_every_list() {
        let pgd = |steps: usize| format!("{{kind=\"pgd\",eps=0.01,steps={steps}}}");
        let i_fgsm = |steps: usize| format!("{{kind=\"i-fgsm\",eps=0.01,steps={steps}}}");
        for (key, attack) in [
            ("evaluate.attacks", &pgd as &dyn Fn(usize) -> String),
            ("evaluate.held_out.attacks", &pgd),
            ("evaluate.held_out.knowing", &i_fgsm),
            ("evaluate.shield.attacks", &pgd),
        ] {
            let refused = refusal(&format!("{key}=[{},{}]", attack(20), attack(100)));
            assert!(refused.contains(&format!("{key}[1]")) && refused.contains("twice"), "{refused}");
        }
    }

    /// A run is gone on with from any working directory, so whatever is a path must be found here.
    #[test]
    fn every_path_that_a_config_names_can_be_made_absolute() {
        let set = [
            "data.path=a",
            "data.trusted=b",
            "distill.teacher=c",
            "distill.adversarial=student",
            "distill.ensemble.networks=[\"teacher\",\"d\"]",
        ];
        let mut config = RunConfig::resolve(Preset::Sample, None, &set.map(str::to_owned)).expect("all fit");
        assert_eq!(config.paths_mut().map(|path| path.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(RunConfig::preset(Preset::Sample).paths_mut().count(), 0);
    }

    #[test]
    fn a_kind_that_is_no_tag_leaves_its_neighbours_alone() {
        let config =
            RunConfig::resolve(Preset::Sample, None, &["dae.kind=bottleneck".to_owned()]).expect("it fits");
        assert_eq!(config.dae.kind, AutoencoderKind::Bottleneck);
        assert_eq!(config.dae.width, RunConfig::preset(Preset::Sample).dae.width);
    }

    #[test]
    fn overrides_reach_nested_keys_and_replace_tagged_tables() {
        let set = ["dae.train.optimiser={kind=\"sgd\",momentum=0.5,weight_decay=0}", "data.path=somewhere"];
        let config = RunConfig::resolve(Preset::Sample, None, &set.map(str::to_owned)).expect("both fit");
        assert_eq!(
            config.dae.train.optimiser,
            crate::train::OptimiserConfig::Sgd { momentum: 0.5, weight_decay: 0.0 }
        );
        assert_eq!(config.data_path(), Some(PathBuf::from("somewhere")));
    }
}
