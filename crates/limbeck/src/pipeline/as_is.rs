//! A run without an audit: a student distilled from a set as it is, and what that student is worth.

use std::path::Path;

use super::audit::Purified;
use super::evaluation::{classifier_curve, example_draw};
use super::manifest::{Kind, Manifest};
use super::run::{REVISION, Run};
use super::sets::Sets;
use super::stages::{Made, Trained, attack_checkpoints};
use crate::artefact::{read_json, write_json};
use crate::distill::{Abstaining, NullRule};
use crate::error::Result;
use crate::evaluate::results::{StudentEvaluation, TaughtSet};
use crate::evaluate::{AttackCheckpoints, Subject, abstention, attack_set, examine, robustness};
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

/// What such a run learns from, its networks, and when the student is silent.
struct Taught {
    from: Purified,
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
        self.taught_as_it_is(&sets)?;
        self.name_stale();
        Ok(())
    }

    /// Measures teacher and student of such a run on its test images, the student with its null rule, and writes `evaluation.json`; what is missing of the
    /// run is made first.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn evaluate_as_it_is(&mut self) -> Result<StudentEvaluation> {
        let evaluation = self.evaluation_as_it_is()?;
        self.name_stale();
        Ok(evaluation.value)
    }

    /// Measures them likewise, and writes `report.html`.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn report_as_it_is(&mut self) -> Result<StudentEvaluation> {
        let Made { value, key } = self.evaluation_as_it_is()?;
        self.page(&key, || crate::report::render_student(&value))?;
        self.name_stale();
        Ok(value)
    }

    fn evaluation_as_it_is(&mut self) -> Result<Made<StudentEvaluation>> {
        let sets = self.start(Kind::AsIs)?;
        let taught = self.taught_as_it_is(&sets)?;
        let key = self.key("evaluate", &self.config, &[&taught.null_rule.key]);
        let file = "evaluation.json";
        self.stage("evaluate", &key, &[file], |run, checkpoints| {
            let checkpoints = attack_checkpoints(checkpoints);
            write_json(&run.path(file), &run.measured_as_it_is(&sets, &taught, &checkpoints)?)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }

    fn taught_as_it_is(&mut self, sets: &Sets) -> Result<Taught> {
        let from = Purified::nothing(sets)?;
        let teacher = self.teacher(&from)?;
        let soft_labels = self.soft_labels(&from, &teacher)?;
        let student = self.student(&from, &teacher, &soft_labels)?;
        let null_rule = self.null_rule(&from, &student, &soft_labels, None)?;
        Ok(Taught { from, teacher, student, null_rule })
    }

    fn measured_as_it_is(
        &self,
        sets: &Sets,
        taught: &Taught,
        checkpoints: &AttackCheckpoints,
    ) -> Result<StudentEvaluation> {
        let Taught { from, teacher, student, null_rule } = taught;
        let (config, distill, progress) = (&self.config.evaluate, &self.config.distill, self.progress);
        let attacked = attack_set(&sets.test, config.attacked_images, self.seed("evaluate"));
        let trials = config.trials(&sets.test, &attacked, checkpoints);
        let abstaining =
            Abstaining { student: &student.value.network, rule: &null_rule.value, autoencoder: None };
        let (for_teacher, for_student) =
            (distill.teacher_trained_on(AS_IS), distill.student_trained_on(AS_IS));
        let classifier_curves = [("teacher", teacher), ("student", student)]
            .map(|(name, made)| classifier_curve(name, &made.value.epochs))
            .to_vec();
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
        let (mut student, _) = examine(
            &Subject {
                name: "student",
                trained_on: &for_student,
                classifier: &student.value.network,
                abstaining: Some(abstaining),
                transfer: Some(&on_teacher),
                probed: true,
                examples: Some(example_draw(config.examples, self.seed("evaluate"))),
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
        let attacked_examples = std::mem::take(&mut student.examples);
        let examined = [teacher, student];
        let robustness = robustness(&examined)?;
        let checks = examined.iter().flat_map(|model| model.checks.clone()).collect();
        Ok(StudentEvaluation {
            limbeck_version: crate::VERSION.to_owned(),
            config_hash: self.config.hash(),
            revision: REVISION,
            config_toml: self.config.to_toml(),
            seed: self.config.seed,
            dataset: TaughtSet {
                name: sets.name.clone(),
                classes: sets.train.classes().to_vec(),
                train_images: from.train.len() as u64,
                held_out_images: (from.validation.len() + from.calibration.len()) as u64,
                test_images: sets.test.len() as u64,
                image_size: [sets.train.size().width, sets.train.size().height],
                content_hash: sets.content_hash().to_owned(),
            },
            distillation: distill.method.name().to_owned(),
            given_networks: distill.has_given_networks(),
            models: examined.into_iter().map(|model| model.row).collect(),
            robustness,
            abstention: null,
            classifier_curves,
            attacked_examples,
            checks,
        })
    }
}
