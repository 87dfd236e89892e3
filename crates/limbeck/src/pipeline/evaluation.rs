//! The last stages: every figure, and the page.

use super::audit::{Audit, Networks};
use super::controls::Control;
use super::copies::with_copies;
use super::run::{REVISION, Run};
use super::sets::Sets;
use super::stages::{Made, Poison, Trained, attack_checkpoints};
use crate::artefact::{read_json, write_atomically, write_json};
use crate::attack::AttackConfig;
use crate::dataset::Dataset;
use crate::distill::{Abstaining, NullRule};
use crate::error::{Error, Result};
use crate::evaluate::results::{
    ClassifierCurve, ClassifierEpoch, DatasetSummary, Evaluation, HeldOutDetection, ModelRow, PatchSummary,
    PoisonSummary, Rate,
};
use crate::evaluate::{
    AttackCheckpoints, AttackedSet, Examined, ExampleDraw, Mapped, Subject, Truth, abstention, accuracy,
    attack_set, backdoor_success, class_rows, detection, examine, held_out, localisation, random_overlap,
    restoration, robustness, shield, statements, suspicion_points, triptychs, verdict_counts,
};
use crate::network::{Tempered, TrainedClassifier};
use crate::poison::{Copies, passing};
use crate::purify::{ScoreKind, Scorer};
use crate::rng::Seed;
use crate::train::Epoch;

/// What teacher and student learn from, for reports.
const PURIFIED: &str = "the purified set";

/// The most attacked test images in the report: as many as are looked at one by one.
const ATTACKED_EXAMPLES: usize = 8;

/// Which of them are drawn, if so many examples are asked for.
pub(super) fn example_draw(asked_for: usize, seed: Seed) -> ExampleDraw {
    ExampleDraw { count: asked_for.min(ATTACKED_EXAMPLES), seed }
}

/// Every artefact that the evaluation looks at.
pub(super) struct Finished<'a> {
    pub(super) sets: &'a Sets,
    pub(super) audited: &'a Dataset,
    pub(super) poison: &'a Poison,
    pub(super) networks: &'a Networks,
    pub(super) audit: &'a Audit,
    pub(super) decided_by_hand: u64,
    pub(super) teacher: &'a Made<Trained<TrainedClassifier>>,
    pub(super) student: &'a Made<Trained<TrainedClassifier>>,
    pub(super) null_rule: &'a Made<NullRule>,
    pub(super) controls: &'a Made<Vec<Control>>,
}

impl Run<'_> {
    pub(super) fn evaluation(&mut self, finished: Finished<'_>) -> Result<Made<Evaluation>> {
        let upstream =
            [&finished.null_rule.key, &finished.controls.key, &finished.poison.key].map(String::as_str);
        let key = self.key("evaluate", &self.config, &upstream);
        let file = "evaluation.json";
        self.stage("evaluate", &key, &[file], |run, checkpoints| {
            let checkpoints = attack_checkpoints(checkpoints);
            write_json(&run.path(file), &run.evaluate(&finished, &checkpoints)?)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }

    fn evaluate(&self, finished: &Finished<'_>, checkpoints: &AttackCheckpoints) -> Result<Evaluation> {
        let Finished {
            sets, audited, poison, networks, audit, teacher, student, null_rule, controls, ..
        } = finished;
        let Networks { undefended, dae, .. } = networks;
        let progress = self.progress;
        let config = &self.config.evaluate;
        let truth = match &poison.truth {
            Some(manifest) => Truth::join(manifest, &audit.ledger)?,
            None => Truth::unknown(),
        };
        let attacked_test = attack_set(&sets.test, config.attacked_images, self.seed("evaluate"));
        let control = |filter: &str| controls.value.iter().find(|control| control.filter == filter);
        let clean_trained = control("clean").map(|control| {
            ("clean-trained", "the training set before poisoning", &control.classifier, &control.epochs)
        });
        let audited_words = if poison.truth.is_some() {
            "the poisoned set, no defence"
        } else {
            "the set as it came, no defence"
        };
        let distill = &self.config.distill;
        let (for_teacher, for_student) =
            (distill.teacher_trained_on(PURIFIED), distill.student_trained_on(PURIFIED));
        let entries = clean_trained.into_iter().chain([
            ("undefended", audited_words, &undefended.value.network, &undefended.value.epochs),
            ("teacher", for_teacher.as_str(), &teacher.value.network, &teacher.value.epochs),
            ("student", for_student.as_str(), &student.value.network, &student.value.epochs),
        ]);
        let backdoor = self.backdoor(sets, poison)?;
        let abstaining = Abstaining {
            student: &student.value.network,
            rule: &null_rule.value,
            autoencoder: Some(&dae.value.network),
        };
        let trials = config.trials(&sets.test, &attacked_test, checkpoints);
        let draw = example_draw(config.examples, self.seed("evaluate"));
        let (mut examined, mut curves, mut on_undefended) = (Vec::<Examined>::new(), Vec::new(), None);
        for (name, trained_on, classifier, epochs) in entries {
            let deployed = name == "student";
            let subject = Subject {
                name,
                trained_on,
                classifier,
                abstaining: deployed.then_some(abstaining),
                transfer: on_undefended.as_ref().filter(|_| deployed),
                probed: deployed,
                examples: deployed.then_some(draw),
            };
            let (mut model, attacked) = examine(&subject, trials, progress)?;
            model.row.backdoor = backdoor(classifier)?;
            examined.push(model);
            if name == "undefended" {
                on_undefended = Some(attacked);
            }
            curves.push(classifier_curve(name, epochs));
        }
        let models: Vec<ModelRow> = examined.iter().map(|model| model.row.clone()).collect();
        let on_student = examined.last().map_or(&[][..], |student| &student.attempts);
        let poison_attack = self.config.poison.plan.attack;
        let found = on_undefended.as_ref().and_then(|attacked| {
            attacked
                .find(|attack| is_poison_attack(attack, &poison_attack))
                .or_else(|| attacked.find(|_| true))
        });
        let crafted;
        let on_undefended = match found {
            Some(set) => set,
            None => {
                let model = Tempered(&undefended.value.network);
                crafted = AttackedSet::craft(&model, &AttackConfig::default(), &attacked_test, progress)?;
                &crafted
            }
        };
        let decisive = self.config.purify.score;
        let (controls, filters) = self.control_rows(finished, &examined, &backdoor)?;
        let mut results = Evaluation {
            limbeck_version: crate::VERSION.to_owned(),
            config_hash: self.config.hash(),
            revision: REVISION,
            config_toml: self.config.to_toml(),
            seed: self.config.seed,
            dataset: DatasetSummary {
                name: sets.name.clone(),
                classes: sets.train.classes().to_vec(),
                train_images: sets.train.len() as u64,
                knowledge: self.config.knowledge.setting,
                trusted_images: sets.trusted.len() as u64,
                calibration_images: sets.held_out.len() as u64,
                test_images: sets.test.len() as u64,
                image_size: [sets.train.size().width, sets.train.size().height],
                content_hash: sets.content_hash().to_owned(),
            },
            poison: self.poison_summary(sets, audited, poison, networks)?,
            verdicts: verdict_counts(&audit.ledger),
            decided_by_hand: finished.decided_by_hand,
            by_class: class_rows(&audit.ledger, sets.train.classes().len(), &truth),
            detection: detection(&audit.ledger, &audit.thresholds, decisive.position(), &truth)?,
            held_out: self.held_out(finished)?,
            dae: restoration(
                &dae.value.network,
                &dae.value.epochs,
                &sets.test,
                &attacked_test,
                on_undefended,
                progress,
            )?,
            distillation: distill.method.name().to_owned(),
            shield: shield(
                &student.value.network,
                &dae.value.network,
                &sets.test,
                &config.shield,
                self.seed("evaluate"),
                progress,
            )?,
            controls,
            filters,
            abstention: abstention(
                abstaining,
                &sets.test,
                (&attacked_test, on_student, &config.held_out.honest),
                (&config.knowing_rule, self.seed("knowing the null rule")),
                progress,
            )?,
            classifier_curves: curves,
            suspicion_points: suspicion_points(&audit.ledger, ScoreKind::Mse.position(), &truth),
            suspicion_threshold: audit.thresholds[decisive.position()].value(),
            suspicion_score: decisive.name().to_owned(),
            triptychs: triptychs(
                audited,
                poison.truth.as_ref().map(|_| &sets.train),
                &audit.ledger,
                &dae.value.network,
                &truth,
                config.examples,
            )?,
            attacked_examples: examined.last().map_or(Vec::new(), |student| student.examples.clone()),
            robustness: robustness(&examined)?,
            checks: examined.iter().flat_map(|model| model.checks.clone()).collect(),
            models,
            statements: Vec::new(),
        };
        // Exchangeable with the test images are calibration images that no network has seen.
        results.abstention.guaranteed &= !distill.has_given_networks();
        results.statements = statements(&results);
        Ok(results)
    }

    /// The frozen detector on test images, where there is an attacker's network to craft on.
    fn held_out(&self, finished: &Finished<'_>) -> Result<Option<HeldOutDetection>> {
        let Finished { sets, audited, poison, networks, audit, .. } = finished;
        let Some(surrogate) = &poison.surrogate else { return Ok(None) };
        held_out(
            &sets.test,
            &self.config.evaluate.held_out,
            surrogate,
            &networks.dae.value.network,
            &Scorer::new(audited, &sets.trusted, self.defence(networks), self.progress)?,
            self.config.purify.score,
            &audit.thresholds,
            self.seed("held-out"),
            self.progress,
        )
    }

    fn poison_summary(
        &self,
        sets: &Sets,
        audited: &Dataset,
        poison: &Poison,
        networks: &Networks,
    ) -> Result<Option<PoisonSummary>> {
        let (Some(poisoned), Some(surrogate)) = (&poison.poisoned, &poison.surrogate) else {
            return Ok(None);
        };
        let plan = self.config.poison.plan;
        let indices: Vec<usize> = poisoned.images.iter().map(|image| image.index).collect();
        let (before, poisoned_images) = (sets.train.subset(&indices), audited.subset(&indices));
        let passing = |copies: Option<&Copies<'_>>| {
            let rate = |copies| Ok(Rate::of(passing(&poisoned_images, copies, &self.device)?));
            copies.map(rate).transpose()
        };
        let after =
            poisoned_images.with_labels(before.samples().iter().map(|sample| sample.label).enumerate())?;
        let network = self.config.poison.surrogate;
        let (step, steps) = plan.attack.walk();
        Ok(Some(PoisonSummary {
            poison: plan.label(),
            attack: plan.is_gradient_attack().then_some(AttackConfig { step, steps, ..plan.attack }),
            fraction: plan.fraction,
            relabelled: poisoned
                .images
                .iter()
                .zip(before.samples())
                .filter(|(a, b)| a.label != b.label)
                .count() as u64,
            images: indices.len() as u64,
            surrogate: format!("{:?} of width {}", network.architecture, network.width),
            surrogate_clean: accuracy(surrogate, &before, self.progress)?,
            surrogate_attacked: accuracy(surrogate, &after, self.progress)?,
            pass_copies: with_copies(poison.copies.as_ref(), plan.evade.percentile, passing)?,
            patch: self.patch_summary(&poisoned_images, networks)?,
        }))
    }

    /// Whether maps show where the trigger is, if it is in one place.
    fn patch_summary(&self, poisoned: &Dataset, networks: &Networks) -> Result<Option<PatchSummary>> {
        let patch = self.config.poison.plan.patch(poisoned.size());
        let Some(patch) = patch.filter(|_| !poisoned.is_empty()) else { return Ok(None) };
        let Networks { undefended, dae, label_model, .. } = networks;
        let mapped = Mapped {
            autoencoder: &dae.value.network,
            undefended: &undefended.value.network,
            label_model: label_model.value.as_ref().map(|model| &model.classifier),
        };
        let pixels = patch.iter().filter(|is_set| **is_set).count();
        self.progress.task("maps of the trigger", "images");
        Ok(Some(PatchSummary {
            pixels: pixels as u64,
            area: patch.len() as u64,
            random_overlap: random_overlap(pixels, patch.len()),
            maps: localisation(poisoned, &patch, &mapped, self.progress)?,
        }))
    }

    /// How often a network falls for the poison's trigger, if it has one.
    fn backdoor(
        &self,
        sets: &Sets,
        poison: &Poison,
    ) -> Result<impl Fn(&TrainedClassifier) -> Result<Option<Rate>> + use<>> {
        let plan = self.config.poison.plan;
        let triggered = if poison.poisoned.is_some() { plan.triggered(&sets.test)? } else { None };
        Ok(move |network: &TrainedClassifier| {
            triggered.as_ref().map(|set| backdoor_success(network, set, plan.target)).transpose()
        })
    }

    pub(super) fn report(&mut self, evaluation: &Made<Evaluation>) -> Result<()> {
        self.page(&evaluation.key, || crate::report::render(&evaluation.value))
    }

    /// Writes the page of the evaluation that has this key.
    pub(super) fn page(&mut self, evaluation: &str, render: impl FnOnce() -> Result<String>) -> Result<()> {
        let key = self.key("report", &(), &[evaluation]);
        let file = "report.html";
        self.stage("report", &key, &[file], |run, _| {
            let page = render()?;
            let path = run.path(file);
            write_atomically(&path, |out| out.write_all(page.as_bytes()).map_err(Error::io("write", &path)))
        })
    }
}

fn is_poison_attack(attack: &AttackConfig, poison: &AttackConfig) -> bool {
    attack.kind == poison.kind && attack.threat() == poison.threat()
}

/// The learning curve of the classifier of this name.
pub(super) fn classifier_curve(name: &str, epochs: &[Epoch]) -> ClassifierCurve {
    ClassifierCurve { model: name.to_owned(), epochs: epochs.iter().enumerate().map(curve_epoch).collect() }
}

fn curve_epoch((index, epoch): (usize, &Epoch)) -> ClassifierEpoch {
    ClassifierEpoch {
        epoch: index as u32 + 1,
        train_loss: epoch.train_loss,
        validation_loss: epoch.validation.loss,
        validation_accuracy: epoch.validation.metric,
        robust_accuracy: epoch.validation.robust,
    }
}
