//! A run without an audit: a student distilled from a set as it is, and what that student is worth.

use std::path::Path;

use super::audit::Purified;
use super::manifest::{Kind, Manifest};
use super::run::{REVISION, Run};
use super::sets::Sets;
use super::stages::{Made, Trained};
use crate::artefact::{read_json, write_json};
use crate::distill::{Abstaining, NullRule};
use crate::error::Result;
use crate::evaluate::results::StudentEvaluation;
use crate::evaluate::{Subject, abstention, attack_set, examine, robustness};
use crate::network::TrainedClassifier;

/// What the images are that a run without an audit learns from, for reports.
const AS_IS: &str = "the set as it is";

/// Whether a folder holds a run without an audit.
///
/// # Errors
/// Whatever hinders its manifest from being read.
pub fn is_as_is(run: &Path) -> Result<bool> {
    Manifest::open(run).map(|manifest| manifest.is_as_is())
}

/// The networks of such a run, and when the student is silent.
struct Taught {
    teacher: Made<Trained<TrainedClassifier>>,
    student: Made<Trained<TrainedClassifier>>,
    null_rule: Made<NullRule>,
}

impl Run<'_> {
    /// Distils from the set as it is, without an audit: teacher, soft labels, student, null rule.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn distil_as_it_is(&mut self) -> Result<()> {
        let sets = self.start(Kind::AsIs)?;
        self.taught_as_it_is(&sets).map(drop)
    }

    /// Measures teacher and student of such a run on its test images, the student with its null rule, and writes `evaluation.json`; what is missing of the
    /// run is made first.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn evaluate_as_it_is(&mut self) -> Result<StudentEvaluation> {
        let sets = self.start(Kind::AsIs)?;
        let taught = self.taught_as_it_is(&sets)?;
        let key = self.key("evaluate", &self.config, &[&taught.null_rule.key]);
        let file = "evaluation.json";
        self.stage("evaluate", &key, &[file], |run, _| {
            write_json(&run.path(file), &run.measured_as_it_is(&sets, &taught)?)
        })?;
        read_json(&self.path(file))
    }

    fn taught_as_it_is(&mut self, sets: &Sets) -> Result<Taught> {
        let unfiltered = Purified::nothing(sets)?;
        let teacher = self.teacher(&unfiltered)?;
        let soft_labels = self.soft_labels(&unfiltered, &teacher)?;
        let student = self.student(&unfiltered, &teacher, &soft_labels)?;
        let null_rule = self.null_rule(&unfiltered, &student, &soft_labels, None)?;
        Ok(Taught { teacher, student, null_rule })
    }

    fn measured_as_it_is(&self, sets: &Sets, taught: &Taught) -> Result<StudentEvaluation> {
        let Taught { teacher, student, null_rule } = taught;
        let (config, distill, progress) = (&self.config.evaluate, &self.config.distill, self.progress);
        let attacked = attack_set(&sets.test, config.attacked_images, self.seed("evaluate"));
        let trials = config.trials(&sets.test, &attacked);
        let abstaining =
            Abstaining { student: &student.value.network, rule: &null_rule.value, autoencoder: None };
        let (for_teacher, for_student) =
            (distill.teacher_trained_on(AS_IS), distill.student_trained_on(AS_IS));
        let (teacher, on_teacher) = examine(
            &Subject {
                name: "teacher",
                trained_on: &for_teacher,
                classifier: &teacher.value.network,
                abstaining: None,
                transfer: None,
                probed: false,
                examples: None,
            },
            trials,
            progress,
        )?;
        let (student, _) = examine(
            &Subject {
                name: "student",
                trained_on: &for_student,
                classifier: &student.value.network,
                abstaining: Some(abstaining),
                transfer: Some(&on_teacher),
                probed: true,
                examples: None,
            },
            trials,
            progress,
        )?;
        let mut null = abstention(
            abstaining,
            &sets.test,
            (&attacked, &student.attempts, &config.held_out.honest),
            (&config.knowing_rule, self.seed("knowing the null rule")),
            progress,
        )?;
        null.guaranteed &= !distill.has_given_networks();
        let examined = [teacher, student];
        let robustness = robustness(&examined)?;
        let checks = examined.iter().flat_map(|model| model.checks.clone()).collect();
        Ok(StudentEvaluation {
            limbeck_version: crate::VERSION.to_owned(),
            revision: REVISION,
            config_toml: self.config.to_toml(),
            seed: self.config.seed,
            models: examined.into_iter().map(|model| model.row).collect(),
            robustness,
            abstention: null,
            checks,
        })
    }
}
