//! From the scores of a row to what is done with it.
//!
//! Each score becomes a surprise, −ln p among trusted rows with a tail beyond them; the mixture is the largest surprise, and its score is the culprit. A row above the
//! threshold is discarded if the culprit is its label. Otherwise its features are to blame: they are reconstructed if a network that did not learn from the row still
//! reads its label in the reconstruction, and the row is discarded if not.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::purify::{Surprise, Verdict};

/// The scores of a row; a larger one is more suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorScore {
    /// Mean over features of (x − D(x))².
    Reconstruction,
    /// Log-odds of the autoencoder's detection head.
    Head,
    /// How much networks that did not learn from the row contradict its target.
    Label,
}

/// All scores, by name and in words: listing one here puts it into the ledger and into reports.
pub const VECTOR_SCORES: [(VectorScore, &str, &str); 3] = [
    (VectorScore::Reconstruction, "reconstruction", "reconstruction error"),
    (VectorScore::Head, "head", "detection head"),
    (VectorScore::Label, "label", "out-of-fold label score"),
];

/// The scores of a row, in the order of [`VECTOR_SCORES`].
pub(super) type RowScores = [f64; VECTOR_SCORES.len()];

/// Folds in which trusted rows are compared with the others: a row with nineteen twentieths of them.
const TRUSTED_FOLDS: usize = 20;

/// The largest surprise, fitted on trusted rows.
pub(super) struct LargestSurprise {
    surprises: Vec<Surprise>,
}

impl LargestSurprise {
    /// From the scores of trusted rows, at least one.
    pub(super) fn fit(trusted: &[RowScores]) -> Result<Self> {
        let surprise =
            |score: usize| Surprise::fit(&trusted.iter().map(|row| row[score]).collect::<Vec<_>>());
        Ok(Self { surprises: (0..VECTOR_SCORES.len()).map(surprise).collect::<Result<_>>()? })
    }

    /// The mixture of each trusted row, by surprises that were fitted on others: among those that it is itself one of, a row is less of a surprise than a new one, the more so
    /// the fewer they are, and a threshold of such values would flag too many clean rows.
    pub(super) fn of_trusted(trusted: &[RowScores]) -> Result<Vec<f64>> {
        let folds = trusted.len().min(TRUSTED_FOLDS);
        if folds < 2 {
            let mixture = Self::fit(trusted)?;
            return Ok(trusted.iter().map(|scores| mixture.of(scores).0).collect());
        }
        let without = |fold: usize| {
            let others = trusted.iter().enumerate().filter(|(row, _)| row % folds != fold);
            Self::fit(&others.map(|(_, scores)| *scores).collect::<Vec<_>>())
        };
        let mixtures = (0..folds).map(without).collect::<Result<Vec<_>>>()?;
        Ok(trusted.iter().enumerate().map(|(row, scores)| mixtures[row % folds].of(scores).0).collect())
    }

    /// The mixture of a row's scores, and the score it is that of.
    pub(super) fn of(&self, scores: &RowScores) -> (f64, VectorScore) {
        let each = self.surprises.iter().zip(scores).zip(VECTOR_SCORES);
        let each = each.map(|((surprise, &score), (kind, ..))| (surprise.of(score), kind));
        each.reduce(|a, b| if b.0 > a.0 { b } else { a }).expect("there are scores")
    }
}

/// What is done with a row whose culprit is known, and why; `is_read` says whether its label is read in its reconstruction.
pub(super) fn judged(is_flagged: bool, culprit: VectorScore, is_read: bool) -> (Verdict, &'static str) {
    match (is_flagged, culprit, is_read) {
        (false, ..) => (Verdict::Keep, "no more suspicious than trusted rows are"),
        (true, VectorScore::Label, _) => {
            (Verdict::Discard, "networks that did not learn from it contradict its target")
        }
        (true, VectorScore::Head, true) => (
            Verdict::Reconstruct,
            "the detection head takes it for perturbed; its target is read in the reconstruction",
        ),
        (true, VectorScore::Head, false) => (
            Verdict::Discard,
            "the detection head takes it for perturbed; its target is not read in the reconstruction",
        ),
        (true, VectorScore::Reconstruction, true) => {
            (Verdict::Reconstruct, "unlike its reconstruction, in which its target is read")
        }
        (true, VectorScore::Reconstruction, false) => {
            (Verdict::Discard, "unlike its reconstruction, in which its target is not read")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_label_is_discarded_and_a_perturbed_row_reconstructed_where_its_label_is_read() {
        use VectorScore::{Head, Label, Reconstruction};
        let verdict = |flagged, culprit, read| judged(flagged, culprit, read).0;
        for culprit in [Head, Label, Reconstruction] {
            assert_eq!(verdict(false, culprit, false), Verdict::Keep);
        }
        assert_eq!([true, false].map(|read| verdict(true, Label, read)), [Verdict::Discard; 2]);
        for culprit in [Head, Reconstruction] {
            let found = [true, false].map(|read| verdict(true, culprit, read));
            assert_eq!(found, [Verdict::Reconstruct, Verdict::Discard]);
        }
    }

    #[test]
    fn a_threshold_of_few_trusted_rows_flags_as_many_new_ones_as_was_asked_for() {
        use rand::Rng as _;

        use crate::purify::{CalibrationScores, Rule, Threshold};

        // 60 trusted rows of three independent scores and 200 new ones, 100 times: 5 % asked for.
        let mut rng = crate::rng::Seed::new(3).rng("scores");
        let mut flagged = [0usize; 2];
        for _ in 0..100 {
            let mut draw = || -> RowScores { std::array::from_fn(|_| -rng.random::<f64>().ln()) };
            let trusted: Vec<RowScores> = (0..60).map(|_| draw()).collect();
            let new: Vec<RowScores> = (0..200).map(|_| draw()).collect();
            let mixture = LargestSurprise::fit(&trusted).expect("finite");
            let own: Vec<f64> = trusted.iter().map(|scores| mixture.of(scores).0).collect();
            let of_others = LargestSurprise::of_trusted(&trusted).expect("finite");
            for (count, scores) in flagged.iter_mut().zip([of_others, own]) {
                let scores = CalibrationScores::new(scores).expect("finite");
                let threshold = Threshold::infer(&scores, Rule::default()).expect("inferred");
                *count += new.iter().filter(|scores| threshold.flags(mixture.of(scores).0)).count();
            }
        }
        let [of_others, own] = flagged.map(|count| count as f64 / 20_000.0);
        // By the rows themselves it would be more; percentiles of 60 are interpolated, so a little more than 5 % is expected in any case.
        assert!(of_others < 0.075 && of_others < own, "{of_others} and {own}");
    }

    #[test]
    fn the_mixture_is_the_largest_surprise_and_names_its_score() {
        // A hundred trusted rows with scores 0 to 99 of the head and the rest constant.
        let trusted: Vec<RowScores> = (0..100).map(|row| [0.0, f64::from(row), 0.0]).collect();
        let mixture = LargestSurprise::fit(&trusted).expect("finite");
        // 30 of 100 are 70 or more: p = 31/101. A constant score is met by all: p = 1.
        let (suspicion, culprit) = mixture.of(&[0.0, 70.0, 0.0]);
        assert!((suspicion + (31.0 / 101.0_f64).ln()).abs() < 1e-12);
        assert_eq!(culprit, VectorScore::Head);
        assert_eq!(mixture.of(&[0.0, -1.0, 0.0]).0, 0.0);
    }
}
