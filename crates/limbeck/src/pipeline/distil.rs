//! The stages of distillation: teacher, soft labels, student, null rule.

use std::path::Path;

use super::audit::{Audit, Purified};
use super::commands::{AUTOENCODER, STUDENT, load_fitting};
use super::config::ClassifierSection;
use super::findings::TRUSTED_SCORES;
use super::run::Run;
use super::stages::{Made, Teaching, Trained};
use crate::artefact::{hash_file, read_json, write_json};
use crate::dataset::Dataset;
use crate::distill::{DetectorLimits, Method, NullRule, SoftLabels, StudentLesson, StudentStart};
use crate::error::{Error, Result};
use crate::network::{TrainedClassifier, Views};
use crate::purify::{Knowledge, ScoreKind, TrustedScores};
use crate::train::{Ensemble, Epoch, RobustDistillation, Targets};

impl Run<'_> {
    pub(super) fn teacher(&mut self, purified: &Purified) -> Result<Made<Trained<TrainedClassifier>>> {
        let ClassifierSection { network, train } = self.config.classifier.clone();
        let distill = self.config.distill.clone();
        if let Some(file) = distill.teacher_file() {
            let key = self.key("teacher", &distill.teacher_temperature(), &[&hash_file(file)?]);
            let [weights, curve] = ["teacher.safetensors", "teacher-curve.json"];
            self.stage("teacher", &key, &[weights, curve], |run, _| {
                let teacher = run.given_teacher(&purified.train)?.expect("the config names one");
                teacher.save(&run.path(weights))?;
                write_json(&run.path(curve), &Vec::<Epoch>::new())
            })?;
            let value =
                Trained::read(&self.path(weights), &self.path(curve), &self.device, TrainedClassifier::load)?;
            return Ok(Made { value, key });
        }
        let train = distill.teacher_training(&train);
        let teaching = Teaching {
            temperature: distill.teacher_temperature(),
            adversarial: distill.teacher_crafting(),
            ensemble: None,
            robust_distillation: None,
            outlier: false,
            start: None,
            views: Views::One,
        };
        self.taught_classifier(
            "teacher",
            (network, &train),
            &teaching,
            &purified.train,
            || Ok(Targets::Labels),
            &purified.validation,
            &[&purified.key],
        )
    }

    /// The config's teacher that is there already, if it names one: asked at the temperature of the method.
    ///
    /// # Errors
    /// A file that is missing or damaged, and a network that cannot teach this student on these images.
    pub(super) fn given_teacher(&self, set: &Dataset) -> Result<Option<TrainedClassifier>> {
        let distill = &self.config.distill;
        let Some(file) = distill.teacher_file() else { return Ok(None) };
        let refused = |found: String, expected: String| Err(Error::artefact(file, found, expected));
        let teacher = self.named_classifier(file, set)?;
        if teacher.spec().outlier {
            let expected = "a teacher that answers with the classes of the set alone";
            return refused("a network with an outlier class".to_owned(), expected.to_owned());
        }
        if distill.method == Method::Extended && teacher.spec().dropout == 0.0 {
            let expected = "a teacher with dropout, which its doubts come from: distill.method = \"extended\" teaches these";
            return refused("a network without dropout".to_owned(), expected.to_owned());
        }
        // Answers of a network that was trained at 1 may be softened afterwards (Hinton 2015, section 2); what was trained softer is not hardened.
        let (trained_at, asked_at) = (teacher.spec().temperature, distill.teacher_temperature());
        if trained_at != 1.0 && trained_at != asked_at {
            let or = if asked_at == 1.0 { String::new() } else { format!(" or {asked_at}") };
            return refused(
                format!("a network trained at temperature {trained_at}"),
                format!(
                    "1{or}: distill.method = \"{}\" asks its teacher at {asked_at}",
                    distill.method.name()
                ),
            );
        }
        let teacher = teacher.at_temperature(asked_at);
        if distill.start == StudentStart::Teacher {
            let student = self.config.classifier.network.spec(set, distill.student_temperature());
            if !teacher.is_of_shape(&student) {
                return refused(
                    teacher.spec().shape(),
                    format!("{}, as the student is, or distill.start = \"random\"", student.shape()),
                );
            }
        }
        Ok(Some(teacher))
    }

    /// A classifier that the config names by its file, which this run must not write.
    fn named_classifier(&self, file: &Path, set: &Dataset) -> Result<TrainedClassifier> {
        let within = |folder: &Path| Some(file.canonicalize().ok()?.starts_with(folder.canonicalize().ok()?));
        if within(&self.directory) == Some(true) {
            let expected = "a network elsewhere: the run would change it and with it each student after";
            return Err(Error::artefact(file, "a file of the run directory itself", expected));
        }
        load_fitting(file, set, &self.device)
    }

    /// The stored networks that the student's examples are crafted on, beside the teacher.
    ///
    /// # Errors
    /// A file that is missing, damaged or of the run itself, and a network for other classes or another image size.
    pub(super) fn named_ensemble(&self, set: &Dataset) -> Result<Vec<TrainedClassifier>> {
        self.config.distill.ensemble.files().map(|file| self.named_classifier(file, set)).collect()
    }

    pub(super) fn soft_labels(
        &mut self,
        purified: &Purified,
        teacher: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Made<SoftLabels>> {
        let distill = self.config.distill.clone();
        let outlier =
            (distill.method.row().lesson == StudentLesson::OutlierLabels).then_some(distill.outlier);
        // A teacher that was there already knows nothing of this set: its key does not name it.
        let key = self.key("soft-labels", &outlier, &[&teacher.key, &purified.key]);
        let file = "soft_labels.parquet";
        self.stage("soft-labels", &key, &[file], |run, _| {
            let (teacher, set) = (&teacher.value.network, &purified.train);
            let labels = match outlier {
                None => SoftLabels::compute(teacher, set, run.progress)?,
                Some(config) => SoftLabels::with_outlier_class(
                    teacher,
                    set,
                    &config,
                    run.seed("soft-labels"),
                    run.progress,
                )?,
            };
            labels.save(&run.path(file))
        })?;
        Ok(Made { value: SoftLabels::load(&self.path(file))?, key })
    }

    pub(super) fn student(
        &mut self,
        purified: &Purified,
        teacher: &Made<Trained<TrainedClassifier>>,
        soft_labels: &Made<SoftLabels>,
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let ClassifierSection { network, train } = self.config.classifier.clone();
        let distill = self.config.distill.clone();
        let lesson = distill.method.row().lesson;
        let imitated = RobustDistillation {
            teacher: &teacher.value.network,
            temperature: distill.temperature(),
            weight: distill.weight,
        };
        let named = self.named_ensemble(&purified.train)?;
        let own = distill.ensemble.has_teacher().then_some(&teacher.value.network);
        let networks: Vec<&TrainedClassifier> = own.into_iter().chain(&named).collect();
        let teaching = Teaching {
            temperature: distill.student_temperature(),
            adversarial: distill.student_crafting(),
            ensemble: (!networks.is_empty())
                .then_some(Ensemble { networks: &networks, share: distill.ensemble.share }),
            robust_distillation: (lesson == StudentLesson::RobustDistillation).then_some(imitated),
            outlier: lesson == StudentLesson::OutlierLabels,
            start: (distill.start == StudentStart::Teacher).then_some(&teacher.value.network),
            views: distill.views,
        };
        let taught_by = match lesson {
            StudentLesson::Labels => None,
            StudentLesson::SoftLabels | StudentLesson::OutlierLabels => Some(&soft_labels.key),
            StudentLesson::RobustDistillation => Some(&teacher.key),
        };
        let hashes: Vec<String> = distill.ensemble.files().map(hash_file).collect::<Result<_>>()?;
        let learnt_from: Vec<&str> =
            [Some(&purified.key), taught_by, teaching.start.map(|_| &teacher.key), own.map(|_| &teacher.key)]
                .into_iter()
                .flatten()
                .chain(&hashes)
                .map(String::as_str)
                .collect();
        self.taught_classifier(
            "student",
            (network, &train),
            &teaching,
            &purified.train,
            || match lesson {
                StudentLesson::SoftLabels | StudentLesson::OutlierLabels => {
                    soft_labels.value.targets(&purified.train)
                }
                StudentLesson::Labels | StudentLesson::RobustDistillation => Ok(Targets::Labels),
            },
            &purified.validation,
            &learnt_from,
        )
    }

    /// Calibrates when the student answers null; its detector, where there was an `audit`, on the scores that this wrote of the trusted images.
    pub(super) fn null_rule(
        &mut self,
        purified: &Purified,
        student: &Made<Trained<TrainedClassifier>>,
        soft_labels: &Made<SoftLabels>,
        audit: Option<&Audit>,
    ) -> Result<Made<NullRule>> {
        let config = self.config.abstention;
        // Images that stand in for trusted ones were chosen by the detector's own scores: nothing can be promised by them.
        let is_trusted = self.config.knowledge.setting != Knowledge::Untrusted;
        let audit = audit.filter(|_| is_trusted && config.detector_rate > 0.0);
        let audited = audit.map_or("", |audit| &audit.key);
        // The same key may have made other bytes on another device: a rule is of one file.
        let student_hash = hash_file(&self.path(STUDENT))?;
        let autoencoder_hash = audit.map(|_| hash_file(&self.path(AUTOENCODER))).transpose()?;
        let autoencoder = autoencoder_hash.as_deref().unwrap_or_default();
        let upstream = [&student.key, &soft_labels.key, audited, &student_hash, autoencoder];
        let key = self.key("null-rule", &config, &upstream);
        let file = "null_rule.json";
        self.stage("null-rule", &key, &[file], |run, _| {
            let rule = NullRule::calibrate(
                &student.value.network,
                &soft_labels.value,
                &purified.calibration,
                &config,
                run.config.seed,
                run.progress,
            )?;
            let detector = autoencoder_hash.map(|autoencoder| {
                let trusted = |kind| TrustedScores::read_column(&run.path(TRUSTED_SCORES), kind);
                let is_taught = run.config.dae.head_weight > 0.0;
                let log_odds = is_taught.then(|| trusted(ScoreKind::Head)).transpose()?;
                let errors = trusted(ScoreKind::Mse)?;
                DetectorLimits::fit(autoencoder, log_odds, &errors, config.detector_rate)
            });
            let rule = NullRule { detector: detector.transpose()?, student: Some(student_hash), ..rule };
            write_json(&run.path(file), &rule)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }
}
