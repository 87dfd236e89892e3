//! Each stage: what it depends on, what it computes, what it writes.
//!
//! A stage always returns what it reads back from its files, so a resumed run sees the same values as an uninterrupted one.

use std::collections::HashMap;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::config::{ClassifierSection, NetworkConfig};
use super::copies::{CopiedDefence, label_network, with_copies};
use super::findings::CALIBRATION_SCORES;
use super::run::Run;
use super::sets::Sets;
use crate::artefact::{read_json, write_atomically, write_json};
use crate::attack::AttackConfig;
use crate::dataset::{Dataset, Edit, SampleId, encode_png, rewrite_all};
use crate::distill::{NullRule, SoftLabels};
use crate::error::{Error, Result};
use crate::evaluate::results::{
    AttackedRate, ClassifierCurve, ClassifierEpoch, ControlRow, DatasetSummary, Evaluation, HeldOutDetection,
    ModelRow, PatchSummary, PoisonSummary, Rate,
};
use crate::evaluate::{
    AttackedSet, Mapped, Truth, abstention, accuracy, attack_set, attacked_accuracy, backdoor_success,
    class_rows, detection, held_out, localisation, random_overlap, restoration, self_checks, statements,
    suspicion_points, triptychs, verdict_counts,
};
use crate::network::{TrainedAutoencoder, TrainedClassifier};
use crate::poison::{Copies, PoisonedSet, TruthManifest, passing, poison};
use crate::purify::{
    Defence, Judgement, LabelModel, Ledger, NoiseConfig, ScoreKind, Scorer, Threshold, Twins, Verdict,
    craft_twins, judge, purified_set, train_autoencoder, train_label_model,
};
use crate::train::{Epoch, Targets, TrainConfig, train_classifier};

/// A value and the key of the stage that made it.
pub(super) struct Made<T> {
    pub(super) value: T,
    pub(super) key: String,
}

/// A trained network with its learning curve.
pub(super) struct Trained<T> {
    pub(super) network: T,
    pub(super) epochs: Vec<Epoch>,
}

/// What the simulated attacker did, if there is one.
pub(super) struct Poison {
    pub(super) poisoned: Option<PoisonedSet>,
    pub(super) truth: Option<TruthManifest>,
    pub(super) surrogate: Option<TrainedClassifier>,
    /// Copies of the defence, of an attacker who knows it.
    pub(super) copies: Option<CopiedDefence>,
    pub(super) key: String,
}

/// What the defender audits with.
pub(super) struct Networks {
    pub(super) undefended: Made<Trained<TrainedClassifier>>,
    pub(super) dae: Made<Trained<TrainedAutoencoder>>,
    pub(super) label_model: Made<Option<LabelModel>>,
}

/// The judged set.
pub(super) struct Audit {
    pub(super) ledger: Ledger,
    /// New labels that were given by hand, by row of the ledger.
    pub(super) labels: Vec<(usize, u32)>,
    pub(super) thresholds: Vec<Threshold>,
    pub(super) key: String,
}

/// What classifiers learn from and are calibrated on once the set is purified, or left as it is.
pub(super) struct Purified {
    /// What is left of the fitted images, and trusted ones.
    pub(super) train: Dataset,
    /// Held-out images that were kept, and trusted ones of the same groups.
    pub(super) calibration: Dataset,
    pub(super) key: String,
}

impl Purified {
    /// The set as it came.
    pub(super) fn nothing(sets: &Sets) -> Result<Self> {
        Ok(Self {
            train: sets.with_trusted(&sets.train.subset(&sets.fitted))?,
            calibration: sets.with_held_out_trusted(&sets.train.subset(&sets.held_out))?,
            key: sets.content_hash(),
        })
    }
}

/// A classifier trained behind another filter.
pub(super) struct Control {
    filter: &'static str,
    removed: u64,
    reconstructed: u64,
    poison_left: Option<u64>,
    classifier: TrainedClassifier,
    epochs: Vec<Epoch>,
}

/// Every artefact that the evaluation looks at.
pub(super) struct Finished<'a> {
    pub(super) sets: &'a Sets,
    pub(super) audited: &'a Dataset,
    pub(super) poison: &'a Poison,
    pub(super) networks: &'a Networks,
    pub(super) audit: &'a Audit,
    pub(super) teacher: &'a Made<Trained<TrainedClassifier>>,
    pub(super) student: &'a Made<Trained<TrainedClassifier>>,
    pub(super) null_rule: &'a Made<NullRule>,
    pub(super) controls: &'a Made<Vec<Control>>,
}

/// Files of the thresholds that an audit froze.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    /// Name of the score that decides.
    decides: String,
    /// By position in the table of scores.
    thresholds: Vec<Threshold>,
}

impl Run<'_> {
    /// Trains a classifier and writes `<name>.safetensors` and `<name>-curve.json`.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different kind of thing; a bundle would only rename them"
    )]
    fn classifier(
        &mut self,
        name: &str,
        section: (NetworkConfig, &TrainConfig),
        temperature: f64,
        train: &Dataset,
        targets: impl FnOnce() -> Result<Targets>,
        validation: &Dataset,
        upstream: &[&str],
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let spec = section.0.spec(train, temperature);
        let key = self.key(name, &(&section, temperature), upstream);
        let (weights, curve) = (format!("{name}.safetensors"), format!("{name}-curve.json"));
        self.stage(name, &key, &[&weights, &curve], |run, checkpoints| {
            run.progress.task(&format!("training the {name} classifier"), "images");
            let (trained, epochs) = train_classifier(
                spec,
                train,
                &targets()?,
                validation,
                section.1,
                &run.device,
                run.seed(name),
                checkpoints,
                run.progress,
            )?;
            trained.save(&run.path(&weights))?;
            write_json(&run.path(&curve), &epochs)
        })?;
        let network = TrainedClassifier::load(&self.path(&weights), &self.device)?;
        Ok(Made { value: Trained { network, epochs: read_json(&self.path(&curve))? }, key })
    }

    pub(super) fn poison(&mut self, sets: &Sets, data: &str) -> Result<Poison> {
        let section = self.config.poison.clone();
        if section.plan.fraction == 0.0 {
            let key = data.to_owned();
            return Ok(Poison { poisoned: None, truth: None, surrogate: None, copies: None, key });
        }
        let surrogate = self.classifier(
            "surrogate",
            (section.surrogate, &section.train),
            1.0,
            &sets.train.subset(&sets.fitted),
            || Ok(Targets::Labels),
            &sets.train.subset(&sets.held_out),
            &[data],
        )?;
        let copies = self.copied_defence(sets, &surrogate)?;
        let upstream = [Some(&surrogate.key), copies.as_ref().map(|copies| &copies.key)];
        let upstream: Vec<&str> = upstream.into_iter().flatten().map(String::as_str).collect();
        let key = self.key("poison", &section.plan, &upstream);
        let copies = copies.map(|made| made.value);
        let (images, truth) = ("poison/images.safetensors", "poison/truth.csv");
        self.stage("poison", &key, &[images, truth], |run, _| {
            let network = &surrogate.value.network;
            let poisoned = with_copies(copies.as_ref(), section.plan.evade.percentile, |copies| {
                let seed = run.seed("poison");
                poison(&sets.train, &section.plan, network, copies, &run.device, seed, run.progress)
            })?;
            poisoned.save(&run.path(images))?;
            poisoned
                .truth(&sets.train, &poisoned.apply(&sets.train)?, &section.plan.label())
                .save(&run.path(truth))
        })?;
        Ok(Poison {
            poisoned: Some(PoisonedSet::load(&self.path(images))?),
            truth: Some(TruthManifest::load(&self.path(truth))?),
            surrogate: Some(surrogate.value.network),
            copies,
            key,
        })
    }

    pub(super) fn undefended(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        data: &str,
    ) -> Result<Made<Trained<TrainedClassifier>>> {
        let ClassifierSection { network, train } = self.config.classifier.clone();
        self.classifier(
            "undefended",
            (network, &train),
            1.0,
            &sets.with_trusted(&audited.subset(&sets.fitted))?,
            || Ok(Targets::Labels),
            &audited.subset(&sets.held_out),
            &[data],
        )
    }

    /// Twins of a set for the autoencoder, crafted on the defender's classifier.
    pub(super) fn twins(
        &self,
        set: &Dataset,
        name: &str,
        noise: &NoiseConfig,
        classifier: &TrainedClassifier,
    ) -> Result<Twins> {
        craft_twins(set, noise, classifier, &self.device, self.seed("dae").child(name), self.progress)
    }

    pub(super) fn dae(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        undefended: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Made<Trained<TrainedAutoencoder>>> {
        let section = self.config.dae.clone();
        let key = self.key("dae", &section, &[&undefended.key]);
        let (weights, curve) = ("dae.safetensors", "dae-curve.json");
        self.stage("dae", &key, &[weights, curve], |run, checkpoints| {
            let classifier = &undefended.value.network;
            let train = run.twins(audited, "train twins", &section.noise, classifier)?;
            let calibration = run.twins(&sets.trusted, "calibration twins", &section.noise, classifier)?;
            let (trained, epochs) = train_autoencoder(
                section.spec(audited),
                &train,
                &calibration,
                &section.noise,
                section.head_weight,
                &section.train,
                &run.device,
                run.seed("dae"),
                checkpoints,
                run.progress,
            )?;
            trained.save(&run.path(weights))?;
            write_json(&run.path(curve), &epochs)
        })?;
        let network = TrainedAutoencoder::load(&self.path(weights), &self.device)?;
        Ok(Made { value: Trained { network, epochs: read_json(&self.path(curve))? }, key })
    }

    pub(super) fn label_model(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        data: &str,
    ) -> Result<Made<Option<LabelModel>>> {
        let config = self.config.label_model.clone();
        if !config.enabled {
            return Ok(Made { value: None, key: data.to_owned() });
        }
        let network = label_network(&self.config);
        let key = self.key("label-model", &(&config, network), &[data]);
        let (weights, margins) = ("label_model.safetensors", "trusted_margins.json");
        self.stage("label-model", &key, &[weights, margins], |run, _| {
            let model = train_label_model(
                &network.spec(&sets.train, 1.0),
                &sets.trusted,
                audited,
                &config,
                &run.device,
                run.seed("label-model"),
                run.progress,
            )?;
            model.classifier.save(&run.path(weights))?;
            write_json(&run.path(margins), &model.trusted_margins)
        })?;
        let classifier = TrainedClassifier::load(&self.path(weights), &self.device)?;
        let trusted_margins = read_json(&self.path(margins))?;
        Ok(Made { value: Some(LabelModel { classifier, trusted_margins }), key })
    }

    fn defence<'a>(&self, networks: &'a Networks) -> Defence<'a> {
        let Networks { undefended, dae, label_model } = networks;
        Defence {
            autoencoder: &dae.value.network,
            classifier: &undefended.value.network,
            label_model: label_model.value.as_ref(),
            kl_temperature: self.config.purify.kl_temperature,
        }
    }

    /// Judges the audited set: what is proposed, before any decision by hand.
    pub(super) fn audit(&mut self, sets: &Sets, audited: &Dataset, networks: &Networks) -> Result<Audit> {
        let config = self.config.purify;
        let key = self.key("audit", &config, &[&networks.dae.key, &networks.label_model.key]);
        let (ledger, thresholds) = ("proposed.parquet", "thresholds.json");
        self.stage("audit", &key, &[ledger, thresholds, CALIBRATION_SCORES], |run, _| {
            let defence = run.defence(networks);
            let judged: Judgement = judge(audited, &sets.trusted, &defence, &config, run.progress)?;
            judged.ledger.write_parquet(&run.path(ledger))?;
            let decisive = &judged.calibration[config.score.position()];
            write_json(&run.path(CALIBRATION_SCORES), &decisive.ascending())?;
            let frozen =
                Thresholds { decides: config.score.name().to_owned(), thresholds: judged.thresholds };
            write_json(&run.path(thresholds), &frozen)
        })?;
        let frozen: Thresholds = read_json(&self.path(thresholds))?;
        let ledger = Ledger::read_parquet(&self.path(ledger))?;
        Ok(Audit { ledger, labels: Vec::new(), thresholds: frozen.thresholds, key })
    }

    pub(super) fn purify(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        networks: &Networks,
        audit: &Audit,
    ) -> Result<Purified> {
        let key = self.key("purify", &(), &[&audit.key]);
        let relabelled = audited.with_labels(audit.labels.iter().copied())?;
        let (set, kept) = purified_set(&relabelled, &audit.ledger, &self.defence(networks))?;
        self.stage("purify", &key, &["purified"], |run, _| {
            let destination = run.path("purified");
            if destination.exists() {
                std::fs::remove_dir_all(&destination).map_err(Error::io("replace", &destination))?;
            }
            run.progress.task("writing the purified set", "images");
            let edits = purified_edits(sets, &set, &kept, audit)?;
            rewrite_all(&sets.source, &destination, &mut |id, _, _| {
                run.progress.check()?;
                Ok(edits.get(id).cloned().unwrap_or(Edit::Drop))
            })?;
            Ok(())
        })?;
        let of_kept = |indices: &[usize], verdicts: &[Verdict]| {
            let mut wanted = vec![false; audited.len()];
            indices.iter().for_each(|&index| wanted[index] = true);
            let is_wanted = |&position: &usize| {
                let index = kept[position];
                wanted[index] && verdicts.contains(&audit.ledger.rows[index].verdict)
            };
            set.subset(&(0..kept.len()).filter(is_wanted).collect::<Vec<_>>())
        };
        Ok(Purified {
            train: sets.with_trusted(&of_kept(&sets.fitted, &[Verdict::Keep, Verdict::Reconstruct]))?,
            calibration: sets.with_held_out_trusted(&of_kept(&sets.held_out, &[Verdict::Keep]))?,
            key,
        })
    }

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

    /// The same classifier at T = 1 behind other filters, and on clean data: what the filter is worth, and what the poison costs.
    pub(super) fn controls(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        poison: &Poison,
        networks: &Networks,
        audit: &Audit,
        purified: &Purified,
    ) -> Result<Made<Vec<Control>>> {
        let mut controls = Vec::new();
        let mut keys = vec![audit.key.clone()];
        if self.config.evaluate.controls {
            let truth = match &poison.truth {
                Some(manifest) => Truth::join(manifest, &audit.ledger)?,
                None => Truth::unknown(),
            };
            let verdicts: Vec<Verdict> = audit.ledger.rows.iter().map(|row| row.verdict).collect();
            let mut shuffled = verdicts.clone();
            shuffled.shuffle(&mut self.seed("random filter").rng("verdicts"));
            let always = |flagged: Verdict| {
                let overruled =
                    |verdict: &Verdict| if *verdict == Verdict::Keep { Verdict::Keep } else { flagged };
                verdicts.iter().map(overruled).collect::<Vec<_>>()
            };
            let mut plans = Vec::new();
            if self.config.evaluate.ablation {
                plans.push(("discard all", always(Verdict::Discard)));
                plans.push(("reconstruct all", always(Verdict::Reconstruct)));
            }
            plans.extend([("limbeck", verdicts), ("random", shuffled)]);
            if let Some(truth) = truth.known() {
                let verdict = |poisoned: &bool| if *poisoned { Verdict::Discard } else { Verdict::Keep };
                plans.push(("perfect", truth.iter().map(verdict).collect()));
                plans.push(("clean", vec![Verdict::Keep; audited.len()]));
            }
            let ClassifierSection { network, train } = self.config.classifier.clone();
            for (filter, verdicts) in plans {
                let kept = |set: &Dataset| {
                    let is_kept = |index: &&usize| verdicts[**index] == Verdict::Keep;
                    let kept: Vec<usize> = sets.fitted.iter().filter(is_kept).copied().collect();
                    sets.with_trusted(&set.subset(&kept))
                };
                let set = match filter {
                    "limbeck" => purified.train.clone(),
                    "clean" => kept(&sets.train)?,
                    "reconstruct all" => {
                        let mut ledger = audit.ledger.clone();
                        ledger
                            .rows
                            .iter_mut()
                            .zip(&verdicts)
                            .for_each(|(row, verdict)| row.verdict = *verdict);
                        let (set, _) = purified_set(audited, &ledger, &self.defence(networks))?;
                        sets.with_trusted(&set.subset(&sets.fitted))?
                    }
                    // A random filter discards what it flags: it has no reason to reconstruct.
                    _ => kept(audited)?,
                };
                let made = self.classifier(
                    &format!("control-{}", filter.replace(' ', "-")),
                    (network, &train),
                    1.0,
                    &set,
                    || Ok(Targets::Labels),
                    &purified.calibration,
                    &[&purified.key],
                )?;
                let count = |verdict: Verdict| verdicts.iter().filter(|v| **v == verdict).count() as u64;
                let reconstructs = matches!(filter, "limbeck" | "reconstruct all");
                let reconstructed = if reconstructs { count(Verdict::Reconstruct) } else { 0 };
                controls.push(Control {
                    filter,
                    removed: verdicts.len() as u64 - count(Verdict::Keep) - reconstructed,
                    reconstructed,
                    poison_left: truth.known().map(|truth| {
                        let left = |(poisoned, verdict): &(&bool, &Verdict)| {
                            **poisoned && **verdict == Verdict::Keep
                        };
                        truth.iter().zip(&verdicts).filter(left).count() as u64
                    }),
                    classifier: made.value.network,
                    epochs: made.value.epochs,
                });
                keys.push(made.key);
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Ok(Made { key: self.key("controls", &(), &keys), value: controls })
    }

    pub(super) fn evaluation(&mut self, finished: Finished<'_>) -> Result<Made<Evaluation>> {
        let upstream =
            [&finished.null_rule.key, &finished.controls.key, &finished.poison.key].map(String::as_str);
        let key = self.key("evaluate", &self.config, &upstream);
        let file = "evaluation.json";
        self.stage("evaluate", &key, &[file], |run, _| {
            write_json(&run.path(file), &run.evaluate(&finished)?)
        })?;
        Ok(Made { value: read_json(&self.path(file))?, key })
    }

    fn evaluate(&self, finished: &Finished<'_>) -> Result<Evaluation> {
        let Finished { sets, audited, poison, networks, audit, teacher, student, null_rule, controls } =
            finished;
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
        let entries = clean_trained.into_iter().chain([
            ("undefended", audited_words, &undefended.value.network, &undefended.value.epochs),
            (
                "teacher",
                "the purified set, at the distillation temperature",
                &teacher.value.network,
                &teacher.value.epochs,
            ),
            (
                "student",
                "the purified set with the teacher's soft labels",
                &student.value.network,
                &student.value.epochs,
            ),
        ]);
        let backdoor = self.backdoor(sets, poison)?;
        let (mut models, mut curves, mut on_student, mut on_undefended) =
            (Vec::new(), Vec::new(), Vec::new(), None);
        for (model, trained_on, network, epochs) in entries {
            progress.task(&format!("accuracy of {model}"), "images");
            let clean = accuracy(network, &sets.test, progress)?;
            let mut attacked = Vec::new();
            for attack in &config.attacks {
                progress.task(&format!("{} on {model}", attack.label()), "images");
                let set = AttackedSet::craft(network, attack, &attacked_test, progress)?;
                attacked.push(AttackedRate {
                    attack: attack.label(),
                    accuracy: attacked_accuracy(network, &set)?,
                });
                match model {
                    "student" => on_student.push((attack.label(), set)),
                    "undefended"
                        if on_undefended.is_none()
                            || is_poison_attack(attack, &self.config.poison.plan.attack) =>
                    {
                        on_undefended = Some(set);
                    }
                    _ => {}
                }
            }
            models.push(ModelRow {
                model: model.to_owned(),
                trained_on: trained_on.to_owned(),
                clean,
                attacked,
                backdoor: backdoor(network)?,
            });
            curves.push(ClassifierCurve {
                model: model.to_owned(),
                epochs: epochs.iter().enumerate().map(curve_epoch).collect(),
            });
        }
        let on_undefended = match on_undefended {
            Some(set) => set,
            None => AttackedSet::craft(
                &undefended.value.network,
                &AttackConfig::default(),
                &attacked_test,
                progress,
            )?,
        };
        let decisive = self.config.purify.score;
        let mut results = Evaluation {
            limbeck_version: crate::VERSION.to_owned(),
            config_hash: self.config.hash(),
            config_toml: self.config.to_toml(),
            seed: self.config.seed,
            dataset: DatasetSummary {
                name: sets.name.clone(),
                classes: sets.train.classes().to_vec(),
                train_images: sets.train.len() as u64,
                trusted_images: sets.trusted.len() as u64,
                calibration_images: sets.held_out.len() as u64,
                test_images: sets.test.len() as u64,
                image_size: [sets.train.size().width, sets.train.size().height],
                content_hash: sets.content_hash(),
            },
            poison: self.poison_summary(sets, audited, poison, networks)?,
            verdicts: verdict_counts(&audit.ledger),
            by_class: class_rows(&audit.ledger, sets.train.classes().len(), &truth),
            detection: detection(&audit.ledger, &audit.thresholds, decisive.position(), &truth)?,
            held_out: self.held_out(finished)?,
            dae: restoration(
                &dae.value.network,
                &dae.value.epochs,
                &sets.test,
                &attacked_test,
                &on_undefended,
                progress,
            )?,
            controls: self.control_rows(finished, &models, &backdoor)?,
            abstention: abstention(
                &student.value.network,
                &null_rule.value,
                &sets.test,
                &on_student,
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
            checks: self_checks(&student.value.network, &models, &config.attacks, &attacked_test, progress)?,
            models,
            statements: Vec::new(),
        };
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
        let Networks { undefended, dae, label_model } = networks;
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

    fn control_rows(
        &self,
        finished: &Finished<'_>,
        models: &[ModelRow],
        backdoor: &impl Fn(&TrainedClassifier) -> Result<Option<Rate>>,
    ) -> Result<Vec<ControlRow>> {
        let undefended = models.iter().find(|row| row.model == "undefended");
        let poisoned = finished.poison.poisoned.as_ref().map(|set| set.images.len() as u64);
        let none = undefended.map(|row| ControlRow {
            filter: "none".to_owned(),
            removed: 0,
            reconstructed: 0,
            poison_left: poisoned,
            clean: row.clean,
            backdoor: row.backdoor,
        });
        let trained =
            finished.controls.value.iter().filter(|control| control.filter != "clean").map(|control| {
                Ok(ControlRow {
                    filter: control.filter.to_owned(),
                    removed: control.removed,
                    reconstructed: control.reconstructed,
                    poison_left: control.poison_left,
                    clean: accuracy(&control.classifier, &finished.sets.test, self.progress)?,
                    backdoor: backdoor(&control.classifier)?,
                })
            });
        none.map(Ok).into_iter().chain(trained).collect()
    }

    pub(super) fn report(&mut self, evaluation: &Made<Evaluation>) -> Result<()> {
        let key = self.key("report", &(), &[&evaluation.key]);
        let file = "report.html";
        self.stage("report", &key, &[file], |run, _| {
            let page = crate::report::render(&evaluation.value)?;
            let path = run.path(file);
            write_atomically(&path, |out| out.write_all(page.as_bytes()).map_err(Error::io("write", &path)))
        })
    }
}

fn is_poison_attack(attack: &AttackConfig, poison: &AttackConfig) -> bool {
    attack.kind == poison.kind && attack.threat() == poison.threat()
}

fn curve_epoch((index, epoch): (usize, &Epoch)) -> ClassifierEpoch {
    ClassifierEpoch {
        epoch: index as u32 + 1,
        train_loss: epoch.train_loss,
        validation_loss: epoch.validation.loss,
        validation_accuracy: epoch.validation.metric,
    }
}

/// What becomes of each sample of the source, by its id there: audited images as judged, the others as they are.
fn purified_edits(
    sets: &Sets,
    purified: &Dataset,
    kept: &[usize],
    audit: &Audit,
) -> Result<HashMap<SampleId, Edit>> {
    let not_audited = [&sets.trusted, &sets.test].into_iter().flat_map(|set| set.samples());
    let mut edits: HashMap<SampleId, Edit> = not_audited.map(|sample| (sample.id, Edit::Keep)).collect();
    for (position, &index) in kept.iter().enumerate() {
        let (before, after) = (&sets.train.samples()[index], &purified.samples()[position]);
        // An image that only changes its label keeps its own bytes.
        let same_image = before.id == after.id && audit.ledger.rows[index].verdict == Verdict::Keep;
        let image = match same_image {
            true => None,
            false => Some(encode_png(&purified.pixels(position)?, purified.size())?),
        };
        let edit = match (image, (before.label != after.label).then_some(after.label)) {
            (None, None) => Edit::Keep,
            (image, label) => Edit::Replace { image, label },
        };
        edits.insert(before.id, edit);
    }
    Ok(edits)
}
