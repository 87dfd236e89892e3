//! What an audit alone found, for its page: no attacker and no truth needed, and none looked at.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anomaly_map::{anomaly_map, coloured, saliency_map};
use super::chance::Chance;
use super::detection::{Truth, class_rows, verdict_counts};
use super::results::{ClassRow, Verdict, VerdictCounts};
use crate::attack::margin_gradient;
use crate::craft::quantise;
use crate::dataset::{Dataset, encode_png, shrunk};
use crate::error::{Error, Result};
use crate::network::{TrainedAutoencoder, TrainedClassifier};
use crate::purify::{CalibrationScores, Knowledge, Ledger, Threshold, flagged_by_rank};
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// Longest side of a picture on the page, in pixels: four of them are at most 0.16 MB of base64.
const PICTURE_SIDE: u32 = 96;

/// What the page of an audit shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditPageConfig {
    /// The most suspicious images that are shown, at most 1000; each takes up to 0.16 MB of the page. `suspicious.csv` has all.
    pub most_suspicious: usize,
    /// Images shown just above and as many just below the threshold, at most 100 each.
    pub near_threshold: usize,
}

impl Default for AuditPageConfig {
    /// 100 and 6 on each side.
    fn default() -> Self {
        Self { most_suspicious: 100, near_threshold: 6 }
    }
}

impl AuditPageConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        let limits =
            [("most_suspicious", self.most_suspicious, 1000), ("near_threshold", self.near_threshold, 100)];
        match limits.into_iter().find(|(_, value, most)| value > most) {
            Some((name, value, most)) => Err(Error::config(
                format!("{key}.{name}"),
                value,
                format!("at most {most}, to keep the page small"),
            )),
            None => Ok(()),
        }
    }
}

/// Everything that the page of an audit prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditFindings {
    /// Where the figures come from.
    pub origin: AuditOrigin,
    /// Class names by class index.
    pub classes: Vec<String>,
    /// Width and height that the networks see, in pixels.
    pub image_size: [u32; 2],
    /// Images of the audited set.
    pub audited: u64,
    /// What is proposed for them.
    pub verdicts: VerdictCounts,
    /// Name of the score that decides.
    pub score: String,
    /// Images with a larger score are flagged, but for those of classes with a threshold of their own.
    pub threshold: f64,
    /// Classes with another threshold: lower where much is suspicious, higher where little would be left.
    pub classes_apart: u64,
    /// Images above [`threshold`](Self::threshold), flagged or not.
    pub above_threshold: u64,
    /// How many images would be above it by chance alone.
    pub chance: Chance,
    /// The deciding score of each audited image, in the ledger's order.
    pub audited_scores: Vec<f64>,
    /// The deciding score of each calibration image, in rising order.
    pub calibration_scores: Vec<f64>,
    /// Sizes and verdicts of each class.
    pub by_class: Vec<ClassRow>,
    /// The most suspicious flagged images, the most suspicious first.
    pub most_suspicious: Vec<Exhibit>,
    /// Flagged images nearest to the threshold, the nearest first.
    pub just_above: Vec<Exhibit>,
    /// Images that were not flagged nearest to the threshold, the nearest first.
    pub just_below: Vec<Exhibit>,
}

/// Where the figures of a page come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditOrigin {
    /// Version of limbeck that audited.
    pub limbeck_version: String,
    /// "embedded GTSRB sample" or the file name of the source.
    pub name: String,
    /// Hash over all sample ids.
    pub content_hash: String,
    /// Seed of the run.
    pub seed: u64,
    /// Share of the set that the run's own simulated attacker poisoned first; 0 = audited as it came.
    pub simulated_poison: f64,
    /// What the defender knew of the set.
    pub knowledge: Knowledge,
}

/// One image with what the autoencoder makes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exhibit {
    /// Position among the flagged images by suspicion, from 1; `None` when it was not flagged.
    pub rank: Option<u64>,
    /// Path in the source.
    pub path: String,
    /// Class index that it is labelled with.
    pub label: u32,
    /// Deciding score.
    pub score: f64,
    /// Conformal p-value of the score.
    pub p_value: f64,
    /// What is proposed.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// The image at the size that the networks see, base64 PNG; at most 96 pixels a side.
    pub image_png: String,
    /// Its reconstruction.
    pub reconstruction_png: String,
    /// Where the two differ, in colours from black to light yellow.
    pub anomaly_png: String,
    /// What the differences were multiplied with.
    pub anomaly_gain: f64,
    /// What a classifier that learnt from the set as it is hangs the label on, in the same colours.
    pub saliency_png: String,
}

/// What the pictures of an exhibit are made with.
#[derive(Clone, Copy)]
pub struct Lenses<'a> {
    /// The audit's autoencoder.
    pub autoencoder: &'a TrainedAutoencoder,
    /// A classifier that learnt from the audited set as it is, triggers and all.
    pub undefended: &'a TrainedClassifier,
}

/// Collects the findings of an audit whose ledger has the verdicts that are proposed.
///
/// # Errors
/// Refuses a ledger of another length than the set; reports pixels that cannot be read.
pub fn audit_findings(
    origin: AuditOrigin,
    audited: &Dataset,
    ledger: &Ledger,
    threshold: &Threshold,
    (score, calibration): (&str, &CalibrationScores),
    lenses: Lenses<'_>,
    config: &AuditPageConfig,
) -> Result<AuditFindings> {
    if ledger.rows.len() != audited.len() {
        let found = format!("{} ledger rows", ledger.rows.len());
        return Err(Error::input("findings of an audit", found, format!("{} images", audited.len())));
    }
    let flagged = flagged_by_rank(ledger);
    let apart = ledger.rows.iter().filter(|row| row.threshold != threshold.value()).map(|row| row.label);
    let exhibits = |rows: Vec<(usize, Option<u64>)>| exhibits(audited, ledger, lenses, &rows);
    let ranked = || flagged.iter().enumerate().map(|(place, &row)| (row, Some(place as u64 + 1)));
    Ok(AuditFindings {
        origin,
        classes: audited.classes().to_vec(),
        image_size: [audited.size().width, audited.size().height],
        audited: audited.len() as u64,
        verdicts: verdict_counts(ledger),
        score: score.to_owned(),
        threshold: threshold.value(),
        classes_apart: apart.collect::<BTreeSet<u32>>().len() as u64,
        above_threshold: ledger.rows.iter().filter(|row| row.suspicion > threshold.value()).count() as u64,
        chance: Chance::of(audited.len() as u64, calibration, threshold),
        audited_scores: ledger.rows.iter().map(|row| row.suspicion).collect(),
        calibration_scores: calibration.ascending().to_vec(),
        by_class: class_rows(ledger, audited.classes().len(), &Truth::unknown()),
        most_suspicious: exhibits(ranked().take(config.most_suspicious).collect())?,
        just_above: exhibits(ranked().rev().take(config.near_threshold).collect())?,
        just_below: exhibits(just_below(ledger, config.near_threshold))?,
    })
}

/// The most suspicious images that were not flagged.
fn just_below(ledger: &Ledger, count: usize) -> Vec<(usize, Option<u64>)> {
    let rows = &ledger.rows;
    let mut kept: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].verdict == Verdict::Keep).collect();
    kept.sort_by(|&a, &b| rows[b].suspicion.total_cmp(&rows[a].suspicion).then(a.cmp(&b)));
    kept.into_iter().take(count).map(|row| (row, None)).collect()
}

fn exhibits(
    audited: &Dataset,
    ledger: &Ledger,
    Lenses { autoencoder, undefended }: Lenses<'_>,
    rows: &[(usize, Option<u64>)],
) -> Result<Vec<Exhibit>> {
    let mut exhibits = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(INFERENCE_BATCH) {
        let indices: Vec<usize> = chunk.iter().map(|(row, _)| *row).collect();
        let (images, bytes) = (audited.batch_f32(&indices)?, audited.size().bytes());
        let (batch, width) = (audited.batch(&indices, autoencoder.device())?, audited.size().width as usize);
        let output = values(autoencoder.reconstruct(batch.clone()))?;
        let gradients = values(margin_gradient(undefended, batch, &audited.labels(&indices))?)?;
        for (((&(index, rank), image), reconstruction), gradient) in chunk
            .iter()
            .zip(images.chunks_exact(bytes))
            .zip(output.chunks_exact(bytes))
            .zip(gradients.chunks_exact(bytes))
        {
            let (anomaly, gain) = coloured(&anomaly_map(image, reconstruction, width));
            let (saliency, _) = coloured(&saliency_map(gradient, width));
            let row = &ledger.rows[index];
            exhibits.push(Exhibit {
                rank,
                path: row.path.clone(),
                label: row.label,
                score: row.suspicion,
                p_value: row.p_value,
                verdict: row.verdict,
                reason: row.reason.clone(),
                image_png: picture(audited, &audited.pixels(index)?)?,
                reconstruction_png: picture(audited, &quantise(reconstruction))?,
                anomaly_png: picture(audited, &anomaly)?,
                anomaly_gain: gain,
                saliency_png: picture(audited, &saliency)?,
            });
        }
    }
    Ok(exhibits)
}

fn picture(set: &Dataset, pixels: &[u8]) -> Result<String> {
    let (pixels, size) = shrunk(pixels, set.size(), PICTURE_SIDE)?;
    Ok(STANDARD.encode(encode_png(&pixels, size)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec};
    use crate::purify::{LedgerRow, Rule};
    use crate::testing::{blocks, tiny_spec, untrained, untrained_autoencoder};

    fn autoencoder() -> TrainedAutoencoder {
        let spec =
            AutoencoderSpec { kind: AutoencoderKind::Bottleneck, width: 4, latent: 8, image_size: [8, 8] };
        untrained_autoencoder(spec, 4)
    }

    fn classifier() -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        untrained(spec, 5)
    }

    /// Scores 0 to 19 in the set's order, flagged above 15.
    fn findings(config: AuditPageConfig) -> AuditFindings {
        let set = blocks(20, 4, 1);
        let row = |(index, sample): (usize, &crate::dataset::Sample)| LedgerRow {
            id: sample.id.to_string(),
            path: sample.path.clone(),
            label: sample.label,
            suspicion: index as f64,
            p_value: 0.5,
            threshold: 15.0,
            verdict: if index > 15 { Verdict::Discard } else { Verdict::Keep },
            reason: String::new(),
            scores: Vec::new(),
        };
        let rows = set.samples().iter().enumerate().map(row).collect();
        let ledger = Ledger { score_names: Vec::new(), rows };
        let calibration = CalibrationScores::new((1..=19).map(f64::from).collect()).expect("finite");
        let threshold = Threshold::infer(&calibration, Rule::Fpr { fpr: 0.25 }).expect("in range");
        let origin = AuditOrigin {
            limbeck_version: String::new(),
            name: String::new(),
            content_hash: String::new(),
            seed: 1,
            knowledge: Knowledge::Trusted,
            simulated_poison: 0.0,
        };
        let scores = ("head", &calibration);
        let lenses = Lenses { autoencoder: &autoencoder(), undefended: &classifier() };
        audit_findings(origin, &set, &ledger, &threshold, scores, lenses, &config).expect("findings")
    }

    fn shown(exhibits: &[Exhibit]) -> Vec<(Option<u64>, f64)> {
        exhibits.iter().map(|exhibit| (exhibit.rank, exhibit.score)).collect()
    }

    #[test]
    fn the_page_shows_the_most_suspicious_and_both_sides_of_the_threshold() {
        let found = findings(AuditPageConfig { most_suspicious: 3, near_threshold: 2 });
        assert_eq!(shown(&found.most_suspicious), [(Some(1), 19.0), (Some(2), 18.0), (Some(3), 17.0)]);
        assert_eq!(shown(&found.just_above), [(Some(4), 16.0), (Some(3), 17.0)]);
        assert_eq!(shown(&found.just_below), [(None, 15.0), (None, 14.0)]);
        assert_eq!((found.verdicts.keep, found.verdicts.discard), (16, 4));
        assert_eq!((found.chance.rate, found.chance.expected), (0.25, 5.0));
        assert_eq!((found.threshold, found.above_threshold, found.classes_apart), (15.0, 4, 0));
        assert_eq!(found.by_class.iter().map(|class| class.verdicts.discard).collect::<Vec<_>>(), [1; 4]);
    }

    #[test]
    fn fewer_flagged_images_than_asked_for_are_all_shown_and_no_others() {
        let found = findings(AuditPageConfig { most_suspicious: 1000, near_threshold: 100 });
        assert_eq!((found.most_suspicious.len(), found.just_above.len(), found.just_below.len()), (4, 4, 16));
    }

    #[test]
    fn a_page_without_bounds_is_refused_by_its_key() {
        let config = AuditPageConfig { most_suspicious: 1001, near_threshold: 0 };
        let error = config.check("audit").expect_err("too many").to_string();
        assert!(error.contains("`audit.most_suspicious`") && error.contains("at most 1000"), "{error}");
    }
}
