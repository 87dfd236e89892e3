//! The table of distillation methods, and the settings that a config gives one.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::Views;
use crate::train::{CraftingConfig, TrainConfig};

/// What a student learns from; z are logits, t is the teacher, s the student, y the label, δ a perturbation against the student.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Method {
    /// Hard labels, no teacher: CE(y, softmax(z_s(x))).
    None,
    /// The teacher's soft labels at the student's own temperature: CE(softmax(z_t(x)/T), softmax(z_s(x)/T)) (Papernot 2016).
    #[default]
    Defensive,
    /// Adversarially robust distillation: (1 − a) CE(y, softmax(z_s(x))) + a T² KL(softmax(z_t(x)/T) ‖ softmax(z_s(x+δ)/T)) (Goldblum 2020).
    Ard,
    /// Low-temperature distillation: CE(softmax(z_t(x)/T), softmax(z_s(x+δ))) (Chen & Lee 2021).
    Ltd,
    /// Extended defensive distillation: CE(k(x), softmax(z_s(x)/T)) over the classes and one for outliers; of k(x), a · u(x) is on the outlier class, u being the
    /// variance of the teacher's logits under dropout as a share of the largest, and the rest on y (Papernot & McDaniel 2017).
    Extended,
}

/// One method; see [`TABLE`].
pub struct Row {
    /// Which one.
    pub method: Method,
    /// Its name in configs.
    pub name: &'static str,
    /// T where a config gives none.
    pub temperature: f64,
    /// Whether the teacher is trained, and answers, at T; at 1 otherwise.
    teacher_at_t: bool,
    /// Whether the student is trained at T; at 1 otherwise.
    student_at_t: bool,
    /// What the student is asked for.
    pub(crate) lesson: StudentLesson,
    /// Whether the student's loss has a perturbed image in any case.
    needs_examples: bool,
}

/// What a student is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StudentLesson {
    Labels,
    SoftLabels,
    OutlierLabels,
    RobustDistillation,
}

/// All methods: listing one here offers it in configs.
pub const TABLE: &[Row] = &[
    Row {
        method: Method::None,
        name: "none",
        temperature: 1.0,
        teacher_at_t: false,
        student_at_t: false,
        lesson: StudentLesson::Labels,
        needs_examples: false,
    },
    Row {
        method: Method::Defensive,
        name: "defensive",
        temperature: 20.0,
        teacher_at_t: true,
        student_at_t: true,
        lesson: StudentLesson::SoftLabels,
        needs_examples: false,
    },
    Row {
        method: Method::Ard,
        name: "ard",
        temperature: 30.0,
        teacher_at_t: false,
        student_at_t: false,
        lesson: StudentLesson::RobustDistillation,
        needs_examples: true,
    },
    Row {
        method: Method::Ltd,
        name: "ltd",
        temperature: 5.0,
        teacher_at_t: true,
        student_at_t: false,
        lesson: StudentLesson::SoftLabels,
        needs_examples: true,
    },
    Row {
        method: Method::Extended,
        name: "extended",
        temperature: 1.0,
        teacher_at_t: false,
        student_at_t: true,
        lesson: StudentLesson::OutlierLabels,
        needs_examples: false,
    },
];

impl Method {
    pub(crate) fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.method == self).expect("every method is in the table")
    }

    /// Name in configs and reports: `"ard"`.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

/// Which networks are trained on adversarial examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum AdversarialNetworks {
    /// Neither, unless the method asks for it.
    #[default]
    None,
    /// The teacher.
    Teacher,
    /// The student.
    Student,
    /// Teacher and student.
    Both,
}

/// How a student learns to be unsure: labels with an outlier class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutlierConfig {
    /// Share a of its label that the most doubtful training image gives to the outlier class (Papernot & McDaniel 2017: 0.9).
    pub weight: f64,
    /// Dropout passes M of the teacher (Papernot & McDaniel 2017: 20).
    pub passes: usize,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self { weight: 0.9, passes: 20 }
    }
}

impl OutlierConfig {
    fn check(&self, key: &str) -> Result<()> {
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(Error::config(format!("{key}.weight"), self.weight, "a share in [0, 1]"));
        }
        if !(2..=10_000).contains(&self.passes) {
            return Err(Error::config(format!("{key}.passes"), self.passes, "2 to 10000 passes"));
        }
        Ok(())
    }
}

/// Networks that the student's adversarial examples are crafted on in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleConfig {
    /// `teacher`, and classifiers that `limbeck` trained (.safetensors); empty (default) = examples are crafted on the student itself.
    ///
    /// What the student learns then is to withstand attacks that are crafted on other networks, with hardly a loss on clean images; who has the student itself is not held up.
    pub networks: Vec<String>,
    /// Share of each batch that is perturbed; the rest is learnt as it is (Tramèr 2018: half).
    pub share: f64,
}

impl Default for EnsembleConfig {
    fn default() -> Self {
        Self { networks: Vec::new(), share: 0.5 }
    }
}

impl EnsembleConfig {
    /// Its name for the run's own teacher.
    const TEACHER: &str = "teacher";

    fn check(&self, key: &str) -> Result<()> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(Error::config(format!("{key}.share"), self.share, "a share in (0, 1]"));
        }
        for (place, network) in self.networks.iter().enumerate() {
            if network.is_empty() || self.networks[..place].contains(network) {
                let found = format!("{:?}", self.networks);
                let expected = "\"teacher\" and .safetensors files, each once";
                return Err(Error::config(format!("{key}.networks"), found, expected));
            }
        }
        Ok(())
    }

    /// Whether the teacher is one of them.
    pub(crate) fn has_teacher(&self) -> bool {
        self.networks.iter().any(|network| network == Self::TEACHER)
    }

    /// The others, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.networks.iter().filter(|network| *network != Self::TEACHER).map(Path::new)
    }

    /// The same, to be named otherwise.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.networks.iter_mut().filter(|network| *network != Self::TEACHER)
    }
}

/// Weights that a student begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum StudentStart {
    /// Fresh random ones.
    #[default]
    Random,
    /// The teacher's, with its output layer scaled from its temperature to the student's: the student answers as the teacher does and learns to go on doing so under attack
    /// (Jeddi 2020).
    Teacher,
}

/// Distillation of a student from a teacher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// What the student learns from: `none` (hard labels), `defensive` (soft labels, Papernot 2016), `ard` (Goldblum 2020), `ltd` (Chen & Lee 2021), `extended` (labels and an outlier class, Papernot & McDaniel 2017).
    pub method: Method,
    /// Softmax temperature of teacher and student, as the method says; 0 = the method's published one (defensive 20, the authors' public code 5; ard 30;
    /// ltd 5, of the teacher alone; extended 1, of the student alone). `none` has none.
    pub temperature: f64,
    /// Weight a of the teacher beside the labels (`ard` only; Goldblum 2020: 1).
    pub weight: f64,
    /// The outlier class (`extended` only).
    #[serde(default)]
    pub outlier: OutlierConfig,
    /// A classifier that `limbeck` trained (.safetensors), to teach in the place of one that is trained here: a robust one for `ard`, or an earlier student; empty = none.
    #[serde(default)]
    pub teacher: String,
    /// Epochs of the teacher; 0 = as many as the student's. A teacher that sees no adversarial examples has learnt its classes long before a student that does.
    #[serde(default)]
    pub teacher_epochs: usize,
    /// Weights that the student begins with: `random` (default) or `teacher` (not for `extended`, whose student has another output).
    #[serde(default)]
    pub start: StudentStart,
    /// Copies of an image over which the trained student takes the mean of its logits: `one` (default), `diagonal` (two, one of them moved by a pixel down and right), `cross` (five) or
    /// `square` (nine). It withstands a little more and costs as many times as much.
    #[serde(default)]
    pub views: Views,
    /// Which networks are trained on adversarial examples (Madry 2018); the students of `ard` and `ltd` are in any case.
    pub adversarial: AdversarialNetworks,
    /// How adversarial examples are crafted in training.
    pub crafting: CraftingConfig,
    /// Networks that the student's are crafted on in its place (ensemble adversarial training, Tramèr 2018).
    #[serde(default)]
    pub ensemble: EnsembleConfig,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            method: Method::Defensive,
            temperature: 0.0,
            weight: 1.0,
            outlier: OutlierConfig::default(),
            teacher: String::new(),
            teacher_epochs: 0,
            start: StudentStart::Random,
            views: Views::One,
            adversarial: AdversarialNetworks::None,
            crafting: CraftingConfig::default(),
            ensemble: EnsembleConfig::default(),
        }
    }
}

impl DistillConfig {
    /// Refuses settings out of range; `key` names the table in the config.
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        let temperature = self.temperature;
        if temperature != 0.0 && !(temperature.is_finite() && temperature >= 1.0) {
            let expected = "a finite number, 1 or more, or 0 for the method's published one";
            return Err(Error::config(format!("{key}.temperature"), temperature, expected));
        }
        if !(0.0..=1.0).contains(&self.weight) {
            return Err(Error::config(format!("{key}.weight"), self.weight, "a share in [0, 1]"));
        }
        if self.start == StudentStart::Teacher && self.method == Method::Extended {
            let expected = "random: an extended student has an output for outliers that its teacher lacks";
            return Err(Error::config(format!("{key}.start"), "teacher", expected));
        }
        if self.teacher_file().is_some() && self.teacher_crafting().is_some() {
            let found = format!("{:?}, with {key}.teacher", self.adversarial).to_lowercase();
            let expected = "none or student: the teacher is trained already";
            return Err(Error::config(format!("{key}.adversarial"), found, expected));
        }
        if !self.ensemble.networks.is_empty() && self.student_crafting().is_none() {
            let expected = format!(
                "none, for the student of these settings sees no adversarial examples (set {key}.adversarial = \"student\")"
            );
            let found = format!("{:?}", self.ensemble.networks);
            return Err(Error::config(format!("{key}.ensemble.networks"), found, expected));
        }
        self.ensemble.check(&format!("{key}.ensemble"))?;
        self.outlier.check(&format!("{key}.outlier"))?;
        self.crafting.check(&format!("{key}.crafting"))
    }

    /// Whether networks take part that were trained elsewhere, whose files do not say on which images.
    pub(crate) fn has_given_networks(&self) -> bool {
        self.teacher_file().is_some() || self.ensemble.files().next().is_some()
    }

    /// The file of a teacher that is there already.
    pub fn teacher_file(&self) -> Option<&Path> {
        (!self.teacher.is_empty()).then(|| Path::new(&self.teacher))
    }

    /// T, the method's published one where none is set.
    pub fn temperature(&self) -> f64 {
        if self.temperature == 0.0 { self.method.row().temperature } else { self.temperature }
    }

    /// How the teacher is trained where its student is trained so.
    pub(crate) fn teacher_training(&self, student: &TrainConfig) -> TrainConfig {
        let epochs = if self.teacher_epochs == 0 { student.epochs } else { self.teacher_epochs };
        TrainConfig { epochs, ..student.clone() }
    }

    /// Temperature that the teacher is trained at and answers at.
    pub fn teacher_temperature(&self) -> f64 {
        if self.method.row().teacher_at_t { self.temperature() } else { 1.0 }
    }

    /// Temperature that the student is trained at.
    pub fn student_temperature(&self) -> f64 {
        if self.method.row().student_at_t { self.temperature() } else { 1.0 }
    }

    /// What the teacher is trained on, a `set` in words, for reports.
    pub(crate) fn teacher_trained_on(&self, set: &str) -> String {
        if let Some(file) = self.teacher_file() {
            let name = file.file_name().unwrap_or(file.as_os_str());
            return format!("unknown ({})", name.display());
        }
        let temperature =
            if self.method.row().teacher_at_t { ", at the distillation temperature" } else { "" };
        format!("{set}{temperature}{}", perturbed(self.teacher_crafting()))
    }

    /// What the student is trained on, a `set` in words, for reports.
    pub(crate) fn student_trained_on(&self, set: &str) -> String {
        let answers = match self.method.row().lesson {
            StudentLesson::Labels => "",
            StudentLesson::SoftLabels => " with the teacher's soft labels",
            StudentLesson::OutlierLabels => " with labels and an outlier class by the teacher's doubts",
            StudentLesson::RobustDistillation => " and the teacher's answers to it",
        };
        let start = match self.start {
            StudentStart::Random => "",
            StudentStart::Teacher => ", from the teacher's weights on",
        };
        let views = match self.views {
            Views::One => String::new(),
            views => format!("; answers are means over {} views", views.count()),
        };
        let perturbed = match self.ensemble.networks.len() {
            0 => perturbed(self.student_crafting()),
            count => format!(
                ", a share of {} of each batch perturbed against {count} other network{} by up to {}",
                crate::text::number(self.ensemble.share),
                if count == 1 { "" } else { "s" },
                crate::text::number(self.crafting.eps),
            ),
        };
        format!("{set}{answers}{start}{perturbed}{views}")
    }

    /// How the teacher's images are perturbed, if they are.
    pub fn teacher_crafting(&self) -> Option<CraftingConfig> {
        let asked = matches!(self.adversarial, AdversarialNetworks::Teacher | AdversarialNetworks::Both);
        asked.then_some(self.crafting)
    }

    /// How the student's images are perturbed, if they are.
    pub fn student_crafting(&self) -> Option<CraftingConfig> {
        let asked = matches!(self.adversarial, AdversarialNetworks::Student | AdversarialNetworks::Both);
        (asked || self.method.row().needs_examples).then_some(self.crafting)
    }
}

/// How inputs are perturbed in training, for reports: empty if they are not.
pub(crate) fn perturbed(crafting: Option<CraftingConfig>) -> String {
    crafting.map_or_else(String::new, |crafting| {
        format!(", perturbed against it by up to {}", crate::text::number(crafting.eps))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_one_row_and_the_name_that_configs_give_it() {
        for method in [Method::None, Method::Defensive, Method::Ard, Method::Ltd, Method::Extended] {
            assert_eq!(TABLE.iter().filter(|row| row.method == method).count(), 1);
            let written = serde_json::to_value(method).expect("a word");
            assert_eq!(written, method.name());
        }
    }

    #[test]
    fn temperatures_are_the_published_ones_unless_one_is_set() {
        let at = |method, temperature| {
            let config = DistillConfig { method, temperature, ..DistillConfig::default() };
            [config.teacher_temperature(), config.temperature(), config.student_temperature()]
        };
        // Papernot 2016: 20 for both; Goldblum 2020: 30 in the divergence alone; Chen & Lee 2021: 5 for the teacher, 1 for the student.
        assert_eq!(at(Method::None, 0.0), [1.0, 1.0, 1.0]);
        assert_eq!(at(Method::Defensive, 0.0), [20.0, 20.0, 20.0]);
        assert_eq!(at(Method::Ard, 0.0), [1.0, 30.0, 1.0]);
        assert_eq!(at(Method::Ltd, 0.0), [5.0, 5.0, 1.0]);
        assert_eq!(at(Method::Ltd, 3.0), [3.0, 3.0, 1.0]);
        assert_eq!(at(Method::Extended, 0.0), [1.0, 1.0, 1.0]);
        assert_eq!(at(Method::Extended, 10.0), [1.0, 10.0, 10.0]);
    }

    #[test]
    fn an_extended_student_cannot_begin_as_its_teacher() {
        let begun =
            |method| DistillConfig { method, start: StudentStart::Teacher, ..DistillConfig::default() };
        assert!(begun(Method::Ltd).check("distill").is_ok());
        let error = begun(Method::Extended).check("distill").expect_err("another output").to_string();
        assert!(error.contains("distill.start") && error.contains("outliers"), "{error}");
    }

    #[test]
    fn a_teacher_learns_for_its_own_epochs_where_they_are_given() {
        let student = TrainConfig::one_cycle(30, 64, 0.01);
        let teacher = |teacher_epochs| {
            DistillConfig { teacher_epochs, ..DistillConfig::default() }.teacher_training(&student)
        };
        assert_eq!(teacher(0), student);
        assert_eq!(teacher(8), TrainConfig { epochs: 8, ..student.clone() });
    }

    #[test]
    fn reports_are_told_what_both_were_trained_on() {
        let plain = DistillConfig::default();
        assert_eq!(
            plain.teacher_trained_on("the purified set"),
            "the purified set, at the distillation temperature"
        );
        assert_eq!(
            plain.student_trained_on("the purified set"),
            "the purified set with the teacher's soft labels"
        );
        let crafting = CraftingConfig { eps: 0.03, ..CraftingConfig::default() };
        let robust = DistillConfig { method: Method::Ard, crafting, ..plain.clone() };
        assert_eq!(robust.teacher_trained_on("the purified set"), "the purified set");
        assert_eq!(
            robust.student_trained_on("the purified set"),
            "the purified set and the teacher's answers to it, perturbed against it by up to 0.03"
        );
        let begun = DistillConfig { start: StudentStart::Teacher, ..plain };
        assert_eq!(
            begun.student_trained_on("the purified set"),
            "the purified set with the teacher's soft labels, from the teacher's weights on"
        );
        let given = DistillConfig {
            teacher: "over/there/robust.safetensors".to_owned(),
            views: Views::Cross,
            ..begun
        };
        assert_eq!(given.teacher_trained_on("the purified set"), "unknown (robust.safetensors)");
        let among_others = DistillConfig {
            adversarial: AdversarialNetworks::Student,
            ensemble: ensemble(&["teacher", "other.safetensors"]),
            crafting,
            ..DistillConfig::default()
        };
        assert_eq!(
            among_others.student_trained_on("the purified set"),
            "the purified set with the teacher's soft labels, a share of 0.5 of each batch perturbed against 2 other networks by up to 0.03"
        );
        assert!(given.student_trained_on("the purified set").ends_with("; answers are means over 5 views"));
    }

    #[test]
    fn a_network_from_elsewhere_is_known_by_its_file() {
        let with = |teacher: &str, networks: &[&str]| DistillConfig {
            teacher: teacher.to_owned(),
            ensemble: ensemble(networks),
            ..DistillConfig::default()
        };
        assert!(!with("", &["teacher"]).has_given_networks(), "the run's own teacher");
        assert!(with("vgg.safetensors", &[]).has_given_networks());
        assert!(with("", &["teacher", "vgg.safetensors"]).has_given_networks());
    }

    fn ensemble(networks: &[&str]) -> EnsembleConfig {
        let networks = networks.iter().map(|&network| network.to_owned()).collect();
        EnsembleConfig { networks, ..EnsembleConfig::default() }
    }

    #[test]
    fn an_ensemble_is_the_teacher_and_files_each_once_of_a_student_that_sees_examples() {
        let of = |adversarial, ensemble| DistillConfig { adversarial, ensemble, ..DistillConfig::default() };
        let asked =
            of(AdversarialNetworks::Student, ensemble(&["a.safetensors", "teacher", "b.safetensors"]));
        asked.check("distill").expect("sound");
        assert!(asked.ensemble.has_teacher());
        let files: Vec<&Path> = asked.ensemble.files().collect();
        assert_eq!(files, [Path::new("a.safetensors"), Path::new("b.safetensors")]);
        let refusal = |config: DistillConfig| config.check("distill").expect_err("refused").to_string();
        let unseen = refusal(of(AdversarialNetworks::Teacher, ensemble(&["teacher"])));
        assert!(unseen.contains("distill.ensemble.networks") && unseen.contains("student"), "{unseen}");
        for twice in [&["teacher", "teacher"][..], &[""]] {
            let refused = refusal(of(AdversarialNetworks::Student, ensemble(twice)));
            assert!(refused.contains("each once"), "{refused}");
        }
        let all = EnsembleConfig { share: 0.0, ..ensemble(&["teacher"]) };
        assert!(refusal(of(AdversarialNetworks::Student, all)).contains("distill.ensemble.share"));
    }

    #[test]
    fn students_of_robust_methods_are_always_attacked_in_training_and_teachers_only_when_asked_for() {
        use AdversarialNetworks::{Both, None, Student, Teacher};
        let attacked = |method, adversarial| {
            let config = DistillConfig { method, adversarial, ..DistillConfig::default() };
            [config.teacher_crafting().is_some(), config.student_crafting().is_some()]
        };
        assert_eq!(attacked(Method::Defensive, None), [false, false]);
        assert_eq!(attacked(Method::Defensive, Teacher), [true, false]);
        assert_eq!(attacked(Method::None, Student), [false, true]);
        assert_eq!(attacked(Method::Ltd, None), [false, true]);
        assert_eq!(attacked(Method::Ard, Teacher), [true, true]);
        assert_eq!(attacked(Method::Ard, Both), [true, true]);
    }
}
