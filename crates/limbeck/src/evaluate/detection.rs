//! How well the audit told poisoned from clean images: truth and ledger are joined here, by id, and nowhere else.

use super::metrics::{auroc, auroc_interval, recall_at_false_positive_rate, roc_curve};
use super::results::{ClassRow, Rate, ScoreDetection, SuspicionPoint, Verdict, VerdictCounts};
use super::robustness::CURVE_POINTS;
use crate::error::{Error, Result};
use crate::poison::TruthManifest;
use crate::purify::{Ledger, LedgerRow, Threshold};

/// For each ledger row, whether its image is poisoned; `None` where no truth is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth(Option<Vec<bool>>);

impl Truth {
    /// No truth is known.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Joins a manifest with a ledger by id.
    ///
    /// # Errors
    /// [`Error::Input`] names the first ledger row that the manifest does not know.
    pub fn join(manifest: &TruthManifest, ledger: &Ledger) -> Result<Self> {
        let by_id: std::collections::HashMap<String, bool> =
            manifest.rows.iter().map(|row| (row.id.to_string(), row.poisoned)).collect();
        ledger
            .rows
            .iter()
            .map(|row| {
                by_id.get(&row.id).copied().ok_or_else(|| {
                    Error::input(
                        "joining truth and ledger",
                        format!("no truth for {} ({})", row.id, row.path),
                        "one row each",
                    )
                })
            })
            .collect::<Result<_>>()
            .map(|truth| Self(Some(truth)))
    }

    /// Whether the image of this ledger row is poisoned, if known.
    pub fn of(&self, row: usize) -> Option<bool> {
        self.0.as_ref().map(|truth| truth[row])
    }

    /// All of it, if known.
    pub fn known(&self) -> Option<&[bool]> {
        self.0.as_deref()
    }
}

/// Counts of verdicts over a ledger.
pub fn verdict_counts(ledger: &Ledger) -> VerdictCounts {
    ledger.rows.iter().fold(VerdictCounts::default(), |counts, row| counts.with(row.verdict))
}

impl VerdictCounts {
    fn with(mut self, verdict: Verdict) -> Self {
        match verdict {
            Verdict::Keep => self.keep += 1,
            Verdict::Reconstruct => self.reconstruct += 1,
            Verdict::Discard => self.discard += 1,
        }
        self
    }
}

/// Detection quality of every score; empty when no truth is known or one kind of image is missing.
pub fn detection(
    ledger: &Ledger,
    thresholds: &[Threshold],
    decisive: usize,
    truth: &Truth,
) -> Result<Vec<ScoreDetection>> {
    let Some(truth) =
        truth.known().filter(|truth| truth.iter().any(|poisoned| *poisoned) && truth.iter().any(|p| !p))
    else {
        return Ok(Vec::new());
    };
    ledger
        .score_names
        .iter()
        .enumerate()
        .map(|(score, name)| {
            let rows = |poisoned: bool| ledger.rows.iter().zip(truth).filter(move |(_, is)| **is == poisoned);
            let of =
                |poisoned: bool| -> Vec<f64> { rows(poisoned).map(|(row, _)| row.scores[score]).collect() };
            let (clean, poisoned) = (of(false), of(true));
            // What decides was held against the threshold of the image's class.
            let is_flagged = |row: &LedgerRow| match score == decisive {
                true => row.suspicion.is_nan() || row.suspicion > row.threshold,
                false => thresholds[score].flags(row.scores[score]),
            };
            let flagged = |poisoned: bool| Rate::of(rows(poisoned).map(|(row, _)| is_flagged(row)));
            let (false_positives, recall) = (flagged(false), flagged(true));
            let interval = match clean.len().min(poisoned.len()) {
                0 | 1 => [0.0, 1.0],
                _ => auroc_interval(&clean, &poisoned)?,
            };
            Ok(ScoreDetection {
                score: name.clone(),
                decides: score == decisive,
                auroc: auroc(&clean, &poisoned)?,
                auroc_interval: interval,
                recall_at_1_percent: recall_at_false_positive_rate(&clean, &poisoned, 0.01)?,
                threshold: thresholds[score].value(),
                precision: Rate {
                    successes: recall.successes,
                    trials: recall.successes + false_positives.successes,
                },
                recall,
                false_positives,
                roc: roc_curve(&clean, &poisoned, CURVE_POINTS)?,
            })
        })
        .collect()
}

/// Verdicts and error kinds of each class.
pub fn class_rows(ledger: &Ledger, classes: usize, truth: &Truth) -> Vec<ClassRow> {
    (0..classes as u32)
        .map(|class| {
            let rows: Vec<usize> =
                (0..ledger.rows.len()).filter(|&row| ledger.rows[row].label == class).collect();
            let flagged = |row: usize| ledger.rows[row].verdict != Verdict::Keep;
            let errors = |poisoned: bool| {
                truth.known().map(|truth| {
                    Rate::of(
                        rows.iter()
                            .filter(|&&row| truth[row] == poisoned)
                            .map(|&row| flagged(row) != poisoned),
                    )
                })
            };
            ClassRow {
                class,
                images: rows.len() as u64,
                verdicts: rows
                    .iter()
                    .fold(VerdictCounts::default(), |counts, &row| counts.with(ledger.rows[row].verdict)),
                false_positives: errors(false),
                false_negatives: errors(true),
            }
        })
        .collect()
}

/// One point an image, in the ledger's order (Figures 1 and 2 of the paper).
pub fn suspicion_points(ledger: &Ledger, mse: usize, truth: &Truth) -> Vec<SuspicionPoint> {
    ledger
        .rows
        .iter()
        .enumerate()
        .map(|(index, row)| SuspicionPoint {
            index: index as u64,
            score: row.suspicion,
            mse: row.scores[mse],
            poisoned: truth.of(index),
            verdict: row.verdict,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purify::{CalibrationScores, Rule};

    #[test]
    fn the_score_that_decides_is_held_against_the_threshold_of_each_class() {
        // Suspicion, the class's threshold, truth; the set's threshold is 10 of both scores.
        let images =
            [(9.0, 5.0, true), (12.0, 20.0, true), (11.0, 10.0, true), (9.0, 10.0, false), (6.0, 5.0, false)];
        let row = |(suspicion, threshold, _): (f64, f64, bool)| LedgerRow {
            id: String::new(),
            path: String::new(),
            label: 0,
            suspicion,
            p_value: 0.5,
            threshold,
            verdict: Verdict::Keep,
            reason: String::new(),
            scores: vec![suspicion, suspicion],
        };
        let ledger = Ledger {
            score_names: vec!["mixture".to_owned(), "head".to_owned()],
            rows: images.map(row).to_vec(),
        };
        let rule = Rule::Percentile { percentile: 100.0, margin: 0.0 };
        let of_all = CalibrationScores::new(vec![1.0, 10.0]).expect("finite");
        let thresholds = [(); 2].map(|()| Threshold::infer(&of_all, rule).expect("a threshold"));
        let truth = Truth(Some(images.map(|(.., is_poisoned)| is_poisoned).to_vec()));
        let found = detection(&ledger, &thresholds, 0, &truth).expect("both kinds");
        let counts = |row: &ScoreDetection| (row.recall.successes, row.false_positives.successes);
        assert_eq!(found.iter().map(counts).collect::<Vec<_>>(), [(2, 1), (2, 0)]);
        assert_eq!((found[0].precision.successes, found[0].precision.trials), (2, 3));
    }
}
