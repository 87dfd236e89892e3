//! The audit's stages: the networks that it looks with, the judged set, and the purified one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::config::{ClassifierSection, DaeSection};
use super::copies::label_network;
use super::findings::TRUSTED_SCORES;
use super::run::Run;
use super::sets::Sets;
use super::stages::{Made, Poison, Trained};
use crate::artefact::{HIDDEN, read_json, write_json};
use crate::dataset::{Dataset, Edit, SampleId, encode_png, rewrite_all};
use crate::error::{Error, Result};
use crate::network::{TrainedAutoencoder, TrainedClassifier};
use crate::purify::{
    Defence, IntentModel, Judgement, LabelModel, Ledger, NoiseConfig, ScoreKind, Threshold, Twins, Verdict,
    craft_twins, judge, purified_set, train_autoencoder, train_label_model,
};
use crate::train::Targets;

/// What the defender audits with.
pub(super) struct Networks {
    pub(super) undefended: Made<Trained<TrainedClassifier>>,
    pub(super) dae: Made<Trained<TrainedAutoencoder>>,
    pub(super) label_model: Made<Option<LabelModel>>,
    pub(super) intent: Made<IntentModel>,
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
    /// What chooses the epoch of a classifier: a part of the held-out images that were kept, and of trusted ones of the same groups.
    pub(super) validation: Dataset,
    /// What the null rule is calibrated on, the others: what they promise holds for a student that they had no part in.
    pub(super) calibration: Dataset,
    pub(super) key: String,
}

impl Purified {
    /// The set as it came.
    pub(super) fn nothing(sets: &Sets) -> Result<Self> {
        let [validation, calibration] = sets.held_out_parts(&sets.train.subset(&sets.held_out))?;
        let train = sets.with_trusted(&sets.train.subset(&sets.fitted))?;
        Ok(Self { train, validation, calibration, key: sets.content_hash().to_owned() })
    }
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

    /// Trains an autoencoder and writes `<name>.safetensors` and `<name>-curve.json`; `twins` are what it learns from and what it is validated on.
    pub(super) fn autoencoder(
        &mut self,
        name: &str,
        upstream: &str,
        set: &Dataset,
        twins: impl FnOnce(&Self, &DaeSection) -> Result<[Twins; 2]>,
    ) -> Result<Made<Trained<TrainedAutoencoder>>> {
        let section = self.config.dae.clone();
        let key = self.key(name, &section, &[upstream]);
        let (weights, curve) = (format!("{name}.safetensors"), format!("{name}-curve.json"));
        self.stage(name, &key, &[&weights, &curve], |run, checkpoints| {
            let [train, calibration] = twins(run, &section)?;
            let (trained, epochs) = train_autoencoder(
                section.spec(set),
                &train,
                &calibration,
                &section.noise,
                section.head_weight,
                &section.training(train.images.len()),
                &run.device,
                run.seed(name),
                checkpoints,
                run.progress,
            )?;
            trained.save(&run.path(&weights))?;
            write_json(&run.path(&curve), &epochs)
        })?;
        let value =
            Trained::read(&self.path(&weights), &self.path(&curve), &self.device, TrainedAutoencoder::load)?;
        Ok(Made { value, key })
    }

    pub(super) fn dae(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        poison: &Poison,
        undefended: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Made<Trained<TrainedAutoencoder>>> {
        self.autoencoder("dae", &undefended.key, audited, |run, section| {
            let classifier = &undefended.value.network;
            Ok([
                run.taught(sets, audited, poison, classifier)?,
                run.twins(&sets.trusted, "calibration twins", &section.noise, classifier)?,
            ])
        })
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

    /// Trains what tells crafted images from honest damage.
    pub(super) fn intent(
        &mut self,
        sets: &Sets,
        undefended: &Made<Trained<TrainedClassifier>>,
    ) -> Result<Made<IntentModel>> {
        let name = "intent";
        let key = self.key(name, &(), &[&undefended.key]);
        let files = IntentModel::files(name);
        let names: Vec<&str> = files.iter().map(String::as_str).collect();
        let paths = |run: &Self| names.iter().map(|file| run.path(file)).collect::<Vec<_>>();
        self.stage(name, &key, &names, |run, _| {
            let classifier = &undefended.value.network;
            IntentModel::fit(&sets.trusted, classifier, run.seed(name), run.progress)?.save(&paths(run))
        })?;
        Ok(Made { value: IntentModel::load(&paths(self), &self.device)?, key })
    }

    pub(super) fn defence<'a>(&self, networks: &'a Networks) -> Defence<'a> {
        let Networks { undefended, dae, label_model, intent } = networks;
        Defence {
            autoencoder: &dae.value.network,
            classifier: &undefended.value.network,
            label_model: label_model.value.as_ref(),
            intent: Some(&intent.value),
            kl_temperature: self.config.purify.kl_temperature,
        }
    }

    /// Judges the audited set: what is proposed, before any decision by hand.
    pub(super) fn audit(&mut self, sets: &Sets, audited: &Dataset, networks: &Networks) -> Result<Audit> {
        let config = self.config.purify;
        let settings = (config, ScoreKind::names());
        let key = self.key(
            "audit",
            &settings,
            &[&networks.dae.key, &networks.label_model.key, &networks.intent.key],
        );
        let (ledger, thresholds) = ("proposed.parquet", "thresholds.json");
        self.stage("audit", &key, &[ledger, thresholds, TRUSTED_SCORES], |run, _| {
            let defence = run.defence(networks);
            let judged: Judgement = judge(audited, &sets.trusted, &defence, &config, run.progress)?;
            judged.ledger.write_parquet(&run.path(ledger))?;
            judged.calibration.write_csv(&run.path(TRUSTED_SCORES))?;
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
        // The copy has what nobody reads too, other columns and parts; nothing that is learnt hangs on those.
        let copied = self.key("purified", &sets.known().to_vec(), &[&key, &sets.source.fingerprint()?]);
        self.stage("purify", &copied, &["purified"], |run, _| {
            let (destination, fresh) = (run.path("purified"), run.path(&format!("{HIDDEN}purified")));
            run.progress.task("writing the purified set", "images");
            let edits = purified_edits(sets, &set, &kept, audit)?;
            rewrite_all(&sets.source, &fresh, &mut |id, _, _| {
                run.progress.check()?;
                Ok(edits.get(id).cloned().unwrap_or(Edit::Drop))
            })?;
            // What was there stays until the new one is complete.
            if destination.exists() {
                std::fs::remove_dir_all(&destination).map_err(Error::io("replace", &destination))?;
            }
            std::fs::rename(&fresh, &destination).map_err(Error::io("rename to", &destination))
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
        let [validation, calibration] = sets.held_out_parts(&of_kept(&sets.held_out, &[Verdict::Keep]))?;
        let train = sets.with_trusted(&of_kept(&sets.fitted, &[Verdict::Keep, Verdict::Reconstruct]))?;
        Ok(Purified { train, validation, calibration, key })
    }
}

/// What becomes of each sample of the source, by its id there: audited images as judged, those that a trusted set has as it has them, the others as they are.
fn purified_edits(
    sets: &Sets,
    purified: &Dataset,
    kept: &[usize],
    audit: &Audit,
) -> Result<HashMap<SampleId, Edit>> {
    let mut edits: HashMap<SampleId, Edit> =
        sets.not_audited().map(|sample| (sample.id, Edit::Keep)).collect();
    edits.extend(sets.known().iter().map(|known| {
        let label = (known.label != known.trusted_label).then_some(known.trusted_label);
        (known.id, label.map_or(Edit::Keep, |label| Edit::Replace { image: None, label: Some(label) }))
    }));
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
