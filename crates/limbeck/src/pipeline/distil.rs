//! The stages of distillation: teacher, soft labels, student, null rule.

use super::audit::Purified;
use super::config::ClassifierSection;
use super::run::Run;
use super::stages::{Made, Trained};
use crate::artefact::{read_json, write_json};
use crate::distill::{NullRule, SoftLabels};
use crate::error::Result;
use crate::network::TrainedClassifier;
use crate::train::Targets;

impl Run<'_> {
    pub(super) fn teacher(&mut self, purified: &Purified) -> Result<Made<Trained<TrainedClassifier>>> {
        let ClassifierSection { network, train } = self.config.classifier.clone();
        let temperature = self.config.distill.temperature;
        self.classifier(
            "teacher",
            (network, &train),
            temperature,
            &purified.train,
            || Ok(Targets::Labels),
            &purified.calibration,
            &[&purified.key],
        )
    }

    pub(super) fn soft_labels(
        &mut self,
        purified: &Purified,
        teacher: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Made<SoftLabels>> {
        let key = self.key("soft-labels", &(), &[&teacher.key]);
        let file = "soft_labels.parquet";
        self.stage("soft-labels", &key, &[file], |run, _| {
            SoftLabels::compute(&teacher.value.network, &purified.train, run.progress)?.save(&run.path(file))
        })?;
        Ok(Made { value: SoftLabels::load(&self.path(file))?, key })
    }

    pub(super) fn student(
        &mut self,
        purified: &Purified,
        soft_labels: &Made<SoftLabels>,
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let ClassifierSection { network, train } = self.config.classifier.clone();
        let temperature = self.config.distill.temperature;
        self.classifier(
            "student",
            (network, &train),
            temperature,
            &purified.train,
            || soft_labels.value.targets(&purified.train),
            &purified.calibration,
            &[&soft_labels.key],
        )
    }

    pub(super) fn null_rule(
        &mut self,
        purified: &Purified,
        student: &Made<Trained<TrainedClassifier>>,
        soft_labels: &Made<SoftLabels>,
    ) -> Result<Made<NullRule>> {
        let config = self.config.abstention;
        let key = self.key("null-rule", &config, &[&student.key]);
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
            write_json(&run.path(file), &rule)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }
}
