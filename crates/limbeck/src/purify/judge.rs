//! From scores to verdicts, with the reason in words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::discovery::largest_discovery;
use super::fitted::FittedScores;
use super::intent::IntentModel;
use super::ledger::{Ledger, LedgerRow};
use super::mixture::Mixture;
use super::scores::{Defence, ScoreKind, Scored, columns, score_all};
use super::threshold::{CalibrationScores, Rule, Threshold};
use super::verdict::Verdict;
use crate::craft::quantise;
use crate::dataset::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::network::TrainedClassifier;
use crate::progress::Progress;
use crate::tensors::values;

/// How the audited set is judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurifyConfig {
    /// The score that decides; all scores are in the ledger.
    pub score: ScoreKind,
    /// How the threshold is fitted on the trusted images.
    pub rule: Rule,
    /// False-discovery rate within a class: where much of a class is suspicious, as with a backdoor's target, its threshold falls until this share of what is
    /// flagged there is expected to be clean (Benjamini & Hochberg 1995); 0 = one threshold for all.
    pub class_fdr: f64,
    /// Share of each class that is kept whatever its scores say, the least suspicious images: against a class that the audit does not know; 0 = none.
    pub least_kept: f64,
    /// What happens to a flagged image.
    pub flagged: FlaggedPolicy,
    /// Temperature on the first distribution of the KL score (AdversarialAE: 1).
    pub kl_temperature: f64,
}

/// What happens to an image whose score is above the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FlaggedPolicy {
    /// Reconstructed if the label model, or without one the classifier, reads its label in the reconstruction; discarded if not, and in a class whose threshold fell if
    /// most of what is flagged there is.
    Decide,
    /// Always discarded.
    Discard,
    /// Always reconstructed.
    Reconstruct,
}

impl PurifyConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if !(self.kl_temperature.is_finite() && self.kl_temperature > 0.0) {
            return Err(Error::config(
                format!("{key}.kl_temperature"),
                self.kl_temperature,
                "a finite number above 0",
            ));
        }
        if !(0.0..1.0).contains(&self.class_fdr) {
            return Err(Error::config(format!("{key}.class_fdr"), self.class_fdr, "a rate in [0, 1)"));
        }
        if !(0.0..=1.0).contains(&self.least_kept) {
            return Err(Error::config(format!("{key}.least_kept"), self.least_kept, "a share in [0, 1]"));
        }
        match self.rule {
            Rule::Percentile { percentile, margin } => {
                if !(0.0..=100.0).contains(&percentile) {
                    return Err(Error::config(format!("{key}.rule.percentile"), percentile, "0 to 100"));
                }
                if !margin.is_finite() {
                    return Err(Error::config(format!("{key}.rule.margin"), margin, "a finite number"));
                }
            }
            Rule::Fpr { fpr } => {
                if !(fpr > 0.0 && fpr < 1.0) {
                    return Err(Error::config(format!("{key}.rule.fpr"), fpr, "a rate in (0, 1)"));
                }
            }
        }
        Ok(())
    }
}

/// The judged set.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// One row an image, in the set's order.
    pub ledger: Ledger,
    /// The threshold of each score, in the order of the table of scores.
    pub thresholds: Vec<Threshold>,
    /// Scores of the trusted images.
    pub calibration: TrustedScores,
}

/// What the audited images are held against: every score of each trusted image.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedScores {
    /// Of each image, its id and label.
    pub images: Vec<(String, u32)>,
    /// One column for each score, in the order of [`ScoreKind::names`], with a value for each image.
    pub columns: Vec<Vec<f64>>,
}

/// Scores `audited`, fits thresholds on the trusted images alone, and decides.
///
/// # Errors
/// Refuses a set without trusted images; reports scores that are not finite.
pub fn judge(
    audited: &Dataset,
    trusted: &Dataset,
    defence: &Defence<'_>,
    config: &PurifyConfig,
    progress: &dyn Progress,
) -> Result<Judgement> {
    let fitted = FittedScores::fit(audited, defence, progress)?;
    progress.task("scoring trusted images", "images");
    let (mixture, columns) = calibrated(trusted, defence, &fitted, progress)?;
    let calibration = columns.iter().cloned().map(CalibrationScores::new).collect::<Result<Vec<_>>>()?;
    let images = trusted.samples().iter().map(|sample| (sample.id.to_string(), sample.label)).collect();
    let trusted_scores = TrustedScores { images, columns };
    let thresholds =
        calibration.iter().map(|scores| Threshold::infer(scores, config.rule)).collect::<Result<Vec<_>>>()?;
    progress.task("scoring the audited images", "images");
    let mut scored = score_all(audited, defence, &fitted, progress)?;
    for (image, sample) in scored.iter_mut().zip(audited.samples()) {
        image.scores.push(mixture.of(&image.scores, sample.label));
    }
    let decisive = config.score.position();
    let reference = &calibration[decisive];
    let suspicions: Vec<f64> = scored.iter().map(|image| image.scores[decisive]).collect();
    let p_values: Vec<f64> = suspicions.iter().map(|suspicion| reference.p_value(*suspicion)).collect();
    let by_class = by_class(audited, &suspicions)
        .into_iter()
        .map(|suspicions| class_threshold(suspicions, reference, thresholds[decisive], config))
        .collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<LedgerRow> = audited
        .samples()
        .iter()
        .zip(scored)
        .zip(p_values)
        .map(|((sample, scored), p_value)| {
            let threshold = &by_class[sample.label as usize];
            let suspicion = scored.scores[decisive];
            let culprit = match config.score {
                ScoreKind::Mixture => mixture.culprit(&scored.scores, sample.label),
                kind => kind,
            };
            let flagged = threshold.flags(suspicion).then_some(culprit);
            let crafted = calls_crafted(defence, scored.scores[ScoreKind::Intent.position()]);
            let (verdict, reason) =
                decide(&scored, flagged, crafted, sample.label, config, audited.classes());
            LedgerRow {
                id: sample.id.to_string(),
                path: sample.path.clone(),
                label: sample.label,
                suspicion,
                p_value,
                threshold: threshold.value(),
                verdict,
                reason,
                scores: scored.scores,
            }
        })
        .collect();
    if config.flagged == FlaggedPolicy::Decide {
        discard_with_their_class(&mut rows, thresholds[decisive].value(), audited.classes());
    }
    Ok(Judgement {
        ledger: Ledger { score_names: ScoreKind::names(), rows },
        thresholds,
        calibration: trusted_scores,
    })
}

/// In a class so suspicious that its threshold fell below that `for_all`, discards what was to be reconstructed where most of what is flagged is discarded.
///
/// There the label model may have learnt a trigger from images that it took for rightly labelled, and reads it in a reconstruction as the label. Where most
/// of what is flagged still reads as its label, the class is perturbed as a whole, and reconstruction is what mends it.
pub(super) fn discard_with_their_class(rows: &mut [LedgerRow], for_all: f64, classes: &[String]) {
    let mut counts = vec![[0_usize; 2]; classes.len()];
    for row in rows.iter().filter(|row| row.threshold < for_all) {
        match row.verdict {
            Verdict::Keep => {}
            Verdict::Reconstruct => counts[row.label as usize][0] += 1,
            Verdict::Discard => counts[row.label as usize][1] += 1,
        }
    }
    for row in rows.iter_mut().filter(|row| row.verdict == Verdict::Reconstruct) {
        let [reconstructed, discarded] = counts[row.label as usize];
        if discarded > reconstructed {
            let class = &classes[row.label as usize];
            row.verdict = Verdict::Discard;
            row.reason += &format!(", but most of the suspicious \"{class}\" are something else");
        }
    }
}

/// Values of the images of each class.
fn by_class(set: &Dataset, values: &[f64]) -> Vec<Vec<f64>> {
    let mut by_class = vec![Vec::new(); set.classes().len()];
    for (sample, value) in set.samples().iter().zip(values) {
        by_class[sample.label as usize].push(*value);
    }
    by_class
}

/// The threshold of a class whose audited images are this suspicious: that for all, a lower one where the false-discovery rate allows it, or a higher one where
/// less would be kept than is asked for.
fn class_threshold(
    suspicions: Vec<f64>,
    reference: &CalibrationScores,
    for_all: Threshold,
    config: &PurifyConfig,
) -> Result<Threshold> {
    if suspicions.is_empty() {
        return Ok(for_all);
    }
    let p_values = suspicions.iter().map(|suspicion| reference.p_value(*suspicion)).collect();
    let mut threshold = for_all;
    if let Some(fpr) = largest_discovery(p_values, config.class_fdr).filter(|fpr| *fpr < 1.0) {
        let lower = Threshold::infer(reference, Rule::Fpr { fpr })?;
        threshold = if lower.value() < threshold.value() { lower } else { threshold };
    }
    if config.least_kept > 0.0 {
        let rule = Rule::Percentile { percentile: 100.0 * config.least_kept, margin: 0.0 };
        let keeping = Threshold::infer(&CalibrationScores::new(suspicions)?, rule)?;
        threshold = if keeping.value() > threshold.value() { keeping } else { threshold };
    }
    Ok(threshold)
}

/// The mixture, and the columns of all scores of the trusted images, the mixture's last.
fn calibrated(
    trusted: &Dataset,
    defence: &Defence<'_>,
    fitted: &FittedScores,
    progress: &dyn Progress,
) -> Result<(Mixture, Vec<Vec<f64>>)> {
    let scored = score_all(trusted, defence, fitted, progress)?;
    let mut columns = columns(&scored);
    // Models that the trusted images taught have scored each by a network that it did not teach.
    let untaught = [
        (ScoreKind::Label, defence.label_model.map(|model| &model.trusted_margins[..])),
        (ScoreKind::Intent, defence.intent.map(IntentModel::of_trusted)),
    ];
    for (kind, scores) in untaught {
        let Some(scores) = scores else { continue };
        if scores.len() != trusted.len() {
            let found = format!("{} scores of {} trusted images", kind.name(), scores.len());
            return Err(Error::input("audit", found, format!("of {}", trusted.len())));
        }
        columns[kind.position()] = scores.to_vec();
    }
    let labels: Vec<u32> = trusted.samples().iter().map(|sample| sample.label).collect();
    let mixture = Mixture::fit(&columns, &labels)?;
    let of_trusted = |(index, &label): (usize, &u32)| {
        let scores: Vec<f64> = columns.iter().map(|column| column[index]).collect();
        mixture.of_trusted(&scores, label)
    };
    let mixed = labels.iter().enumerate().map(of_trusted).collect();
    columns.push(mixed);
    Ok((mixture, columns))
}

/// Scores of sets that are not the trusted images: one column for each score of a ledger row.
pub struct Scorer<'a> {
    defence: Defence<'a>,
    fitted: FittedScores,
    mixture: Mixture,
    /// Of the trusted images, one column for each score.
    trusted: Vec<Vec<f64>>,
}

impl<'a> Scorer<'a> {
    /// Fits on the audited images what looks at whole classes, and the mixture on the trusted images.
    pub fn new(
        audited: &Dataset,
        trusted: &Dataset,
        defence: Defence<'a>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let fitted = FittedScores::fit(audited, &defence, progress)?;
        let (mixture, trusted) = calibrated(trusted, &defence, &fitted, progress)?;
        Ok(Self { defence, fitted, mixture, trusted })
    }

    /// Of columns that [`score`](Self::score) gave, whether the fine structure of each image is called crafted.
    pub fn called_crafted(&self, columns: &[Vec<f64>]) -> Vec<bool> {
        let log_odds = &columns[ScoreKind::Intent.position()];
        log_odds.iter().map(|log_odds| calls_crafted(&self.defence, *log_odds)).collect()
    }

    /// A score of the trusted images, in their order.
    pub fn trusted(&self, kind: ScoreKind) -> &[f64] {
        &self.trusted[kind.position()]
    }

    /// The classifier that learnt its classes from trusted images, if there is one.
    pub fn label_model(&self) -> Option<&TrainedClassifier> {
        self.defence.label_model.map(|model| &model.classifier)
    }

    /// One column for each score, in the order of [`ScoreKind::names`].
    pub fn score(&self, set: &Dataset, progress: &dyn Progress) -> Result<Vec<Vec<f64>>> {
        let scored = score_all(set, &self.defence, &self.fitted, progress)?;
        let mut columns = columns(&scored);
        let of = |(image, sample): (&Scored, &Sample)| self.mixture.of(&image.scores, sample.label);
        columns.push(scored.iter().zip(set.samples()).map(of).collect());
        Ok(columns)
    }
}

/// Whether log-odds of intent are called those of a crafted image.
fn calls_crafted(defence: &Defence<'_>, log_odds: f64) -> bool {
    defence.intent.is_some_and(|model| model.calls_crafted(log_odds))
}

fn decide(
    scored: &Scored,
    flagged: Option<ScoreKind>,
    crafted: bool,
    label: u32,
    config: &PurifyConfig,
    classes: &[String],
) -> (Verdict, String) {
    let Some(culprit) = flagged else {
        let name = config.score.name();
        return (Verdict::Keep, format!("{name} is not above the threshold"));
    };
    let class = |index: u32| classes.get(index as usize).map_or("?", String::as_str);
    let why = match culprit {
        // These cannot tell intent: honest sensor noise looks like an attack to them.
        ScoreKind::Head | ScoreKind::Mse | ScoreKind::TopError | ScoreKind::Residual if crafted => {
            "perturbed as attacks perturb, not as noise does".to_owned()
        }
        ScoreKind::Head => {
            "unlike the trusted images: a fine perturbation, or noise that they lack".to_owned()
        }
        ScoreKind::Label => match scored.shown_class {
            Some(shown) if shown != label => {
                format!("it looks like \"{}\", its label is \"{}\"", class(shown), class(label))
            }
            _ => format!("it is an unusual \"{}\"", class(label)),
        },
        ScoreKind::Mse | ScoreKind::TopError | ScoreKind::Residual => {
            "unlike the trusted images: the autoencoder reconstructs it worse".to_owned()
        }
        ScoreKind::Spectral => {
            format!("far from the other images of \"{}\" in what these differ most in", class(label))
        }
        ScoreKind::Clustering => {
            format!("in the smaller of two groups that the classifier sees in \"{}\"", class(label))
        }
        other => format!("{} is above the threshold", other.name()),
    };
    let restored = scored.restored_answer == label;
    match config.flagged {
        FlaggedPolicy::Discard => (Verdict::Discard, why),
        FlaggedPolicy::Reconstruct => (Verdict::Reconstruct, why),
        FlaggedPolicy::Decide if !is_mendable(culprit) => (Verdict::Discard, why),
        FlaggedPolicy::Decide if restored => {
            (Verdict::Reconstruct, format!("{why}; its reconstruction still reads as its label"))
        }
        FlaggedPolicy::Decide => (
            Verdict::Discard,
            format!(
                "{why}; its reconstruction reads as \"{}\", its label is \"{}\"",
                class(scored.restored_answer),
                class(label)
            ),
        ),
    }
}

/// Whether a reconstruction can mend what a score sees: no wrong label, and no trigger that the classifier reads as its label in the reconstruction too.
fn is_mendable(kind: ScoreKind) -> bool {
    !matches!(kind, ScoreKind::Label | ScoreKind::Spectral | ScoreKind::Clustering)
}

/// The purified set and the audited position of each of its images: kept images as they are, reconstructed ones as D(x) in 8 bits.
pub fn purified_set(
    audited: &Dataset,
    ledger: &Ledger,
    defence: &Defence<'_>,
) -> Result<(Dataset, Vec<usize>)> {
    if ledger.rows.len() != audited.len() {
        return Err(Error::input(
            "purify",
            format!("{} ledger rows", ledger.rows.len()),
            format!("{} images", audited.len()),
        ));
    }
    let with = |verdict: Verdict| {
        (0..audited.len()).filter(move |&index| ledger.rows[index].verdict == verdict).collect::<Vec<_>>()
    };
    let reconstructed = with(Verdict::Reconstruct);
    let mut images = Vec::with_capacity(reconstructed.len());
    for chunk in reconstructed.chunks(crate::train::INFERENCE_BATCH) {
        let output = defence.autoencoder.reconstruct(audited.batch(chunk, defence.autoencoder.device())?);
        images.extend(values(output)?.chunks_exact(audited.size().bytes()).map(quantise));
    }
    let kept: Vec<usize> =
        (0..audited.len()).filter(|&index| ledger.rows[index].verdict != Verdict::Discard).collect();
    let restored = audited.with_pixels(reconstructed.into_iter().zip(images))?;
    Ok((restored.subset(&kept), kept))
}
