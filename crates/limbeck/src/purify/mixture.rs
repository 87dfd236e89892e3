//! One score of several, without knowledge of the attack: how unlikely the least likely of them is on trusted images.
//!
//! Each part becomes a surprise, −ln p, which makes them comparable; the mixture is the largest (the test of Tippett 1931, whose own null distribution is
//! again taken from the trusted images). Up to the 90th percentile of the trusted images' scores p is their share that is as suspicious; beyond, where
//! ranks soon say nothing more, it falls as the exponential distribution whose mean is their mean excess there (peaks over threshold, Pickands 1975, of
//! shape 0), so that scores beyond all trusted ones keep their order. How an image is painted differs from class to class: from the surprise at its texture goes
//! that of the class, the mean over its trusted images beyond the mean over all, drawn towards 0 as if κ further images were usual. A trusted image is compared
//! with the others. Wrong labels are not measured by class: one that is confused easily is the best place to hide them. Thresholds are fitted on the mixture of trusted images, so neither the tail nor the class changes how many clean images are flagged,
//! only which.

use super::scores::ScoreKind;
use super::threshold::CalibrationScores;
use crate::error::Result;

/// The scores that are mixed, and κ of each: what perturbs finely, what shows a wrong label, and what lies over an image as a whole.
pub(super) const PARTS: [(ScoreKind, f64); 3] =
    [(ScoreKind::Head, PRIOR_IMAGES), (ScoreKind::Label, f64::INFINITY), (ScoreKind::Mse, PRIOR_IMAGES)];

/// About as many images as a class of a few hundred has trusted ones, so that class and set weigh the same there.
const PRIOR_IMAGES: f64 = 10.0;

/// Share of trusted images whose excesses give the tail.
const TAIL: f64 = 0.1;

/// −ln p of a score, by the scores of trusted images.
#[derive(Clone, Debug)]
pub(crate) struct Surprise {
    trusted: CalibrationScores,
    /// Where the tail begins.
    onset: f64,
    /// Mean excess of the trusted images in the tail; 0 where none exceeds its onset.
    excess: f64,
}

impl Surprise {
    pub(crate) fn fit(scores: &[f64]) -> Result<Self> {
        let trusted = CalibrationScores::new(scores.to_vec())?;
        let ascending = trusted.ascending();
        let tail = ((TAIL * ascending.len() as f64).round() as usize).clamp(1, ascending.len());
        let tail = &ascending[ascending.len() - tail..];
        let onset = tail[0];
        let excess = tail.iter().map(|score| score - onset).sum::<f64>() / tail.len() as f64;
        Ok(Self { trusted, onset, excess })
    }

    pub(crate) fn of(&self, score: f64) -> f64 {
        let at_onset = -self.trusted.p_value(score.min(self.onset)).ln();
        let beyond = if self.excess > 0.0 { (score - self.onset).max(0.0) / self.excess } else { 0.0 };
        at_onset + beyond
    }
}

/// One score on trusted images.
#[derive(Clone, Debug)]
struct Reference {
    kind: ScoreKind,
    /// κ.
    prior_images: f64,
    surprise: Surprise,
    /// Mean surprise of the trusted images.
    mean: f64,
    /// Sum of their surprises and their number, by class.
    by_class: Vec<(f64, f64)>,
}

/// Whether an image is itself among the trusted ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Trusted,
    Audited,
}

impl Reference {
    fn fit((kind, prior_images): (ScoreKind, f64), scores: &[f64], labels: &[u32]) -> Result<Self> {
        let surprise = Surprise::fit(scores)?;
        let classes = labels.iter().max().map_or(0, |most| *most as usize + 1);
        let mut by_class = vec![(0.0, 0.0); classes];
        for (&score, &label) in scores.iter().zip(labels) {
            let (sum, images) = &mut by_class[label as usize];
            (*sum, *images) = (*sum + surprise.of(score), *images + 1.0);
        }
        let mean = by_class.iter().map(|(sum, _)| sum).sum::<f64>() / scores.len() as f64;
        Ok(Self { kind, prior_images, surprise, mean, by_class })
    }

    /// The surprise of a score beyond what is usual of its class.
    fn surprise(&self, score: f64, label: u32, is: Is) -> f64 {
        let surprise = self.surprise.of(score);
        let (mut sum, mut images) = self.by_class.get(label as usize).copied().unwrap_or_default();
        if is == Is::Trusted {
            (sum, images) = (sum - surprise, images - 1.0);
        }
        surprise - (sum - images * self.mean) / (images + self.prior_images)
    }
}

/// Fitted on trusted images; see [`Mixture::fit`].
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    references: Vec<Reference>,
}

impl Mixture {
    /// From the trusted images' columns, in the order of the table of scores, and their labels.
    pub(super) fn fit(columns: &[Vec<f64>], labels: &[u32]) -> Result<Self> {
        let reference = |part: (ScoreKind, f64)| Reference::fit(part, &columns[part.0.position()], labels);
        Ok(Self { references: PARTS.into_iter().map(reference).collect::<Result<_>>()? })
    }

    /// Of an image that is not among the trusted ones, from its scores in the order of the table and its label.
    pub(super) fn of(&self, scores: &[f64], label: u32) -> f64 {
        self.least_likely(scores, label, Is::Audited).1
    }

    /// Of a trusted image.
    pub(super) fn of_trusted(&self, scores: &[f64], label: u32) -> f64 {
        self.least_likely(scores, label, Is::Trusted).1
    }

    /// The part that is least likely on trusted images.
    pub(super) fn culprit(&self, scores: &[f64], label: u32) -> ScoreKind {
        self.least_likely(scores, label, Is::Audited).0
    }

    /// The least likely part and its surprise.
    fn least_likely(&self, scores: &[f64], label: u32, is: Is) -> (ScoreKind, f64) {
        self.references
            .iter()
            .map(|part| (part.kind, part.surprise(scores[part.kind.position()], label, is)))
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
            .unwrap_or((ScoreKind::Mixture, 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purify::TABLE;

    /// Scores of the table with these two values, zeros elsewhere.
    fn scores(head: f64, label: f64) -> Vec<f64> {
        let mut scores = vec![0.0; TABLE.len()];
        scores[ScoreKind::Head.position()] = head;
        scores[ScoreKind::Label.position()] = label;
        scores
    }

    /// A hundred trusted images of one class: heads -50 to 49 and label margins ten times as large, in the other order.
    fn trusted() -> (Vec<Vec<f64>>, Vec<u32>) {
        let column = |kind: ScoreKind| match kind {
            ScoreKind::Head => (-50..50).map(f64::from).collect(),
            ScoreKind::Label => (-50..50).rev().map(|value| 10.0 * f64::from(value)).collect(),
            _ => vec![0.0; 100],
        };
        (TABLE.iter().map(|(kind, ..)| column(*kind)).collect(), vec![0; 100])
    }

    fn mixture() -> Mixture {
        let (columns, labels) = trusted();
        Mixture::fit(&columns, &labels).expect("finite")
    }

    /// Of a class without trusted images, where surprises are not centred.
    fn of_no_class(head: f64, label: f64) -> f64 {
        mixture().of(&scores(head, label), 7)
    }

    #[test]
    fn it_is_minus_the_logarithm_of_the_smallest_p_value() {
        // 30 of the 100 trusted heads, 20 to 49, are as large.
        assert!((of_no_class(20.0, -500.0) + (31.0 / 101.0_f64).ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(20.0, -500.0), 0), ScoreKind::Head);
        assert!((of_no_class(-50.0, 200.0) + (31.0 / 101.0_f64).ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(-50.0, 200.0), 0), ScoreKind::Label);
    }

    #[test]
    fn beyond_the_ninetieth_percentile_it_rises_evenly() {
        // The ten largest are 40 to 49: 40 and a mean excess of 4.5.
        for (head, beyond) in [(40.0, 0.0), (45.0, 5.0 / 4.5), (49.0, 2.0), (1000.0, 960.0 / 4.5)] {
            let expected = -(11.0 / 101.0_f64).ln() + beyond;
            assert!((of_no_class(head, -500.0) - expected).abs() < 1e-9, "{head}");
        }
    }

    #[test]
    fn what_is_usual_of_a_class_is_less_suspicious_there() {
        let (mut columns, mut labels) = trusted();
        // Class 1 holds the 30 largest heads.
        labels[70..].fill(1);
        columns[ScoreKind::Label.position()].fill(0.0);
        let mixture = Mixture::fit(&columns, &labels).expect("finite");
        let [usual, of_no_class] = [1, 7].map(|class| mixture.of(&scores(45.0, -1.0), class));
        let surprise =
            |head: f64| Surprise::fit(&columns[ScoreKind::Head.position()]).expect("finite").of(head);
        let sum = |heads: std::ops::Range<i32>| heads.map(|head| surprise(f64::from(head))).sum::<f64>();
        let mean = sum(-50..50) / 100.0;
        assert!((of_no_class - usual - (sum(20..50) - 30.0 * mean) / 40.0).abs() < 1e-9);
        // A trusted image is compared with the 29 others.
        let trusted = mixture.of_trusted(&scores(45.0, -1.0), 1);
        assert!((of_no_class - trusted - (sum(20..50) - surprise(45.0) - 29.0 * mean) / 39.0).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_label_is_as_suspicious_in_a_class_that_is_confused_easily() {
        let (mut columns, mut labels) = trusted();
        // Class 1 holds the 30 largest margins.
        labels[..30].fill(1);
        columns[ScoreKind::Head.position()].fill(0.0);
        let mixture = Mixture::fit(&columns, &labels).expect("finite");
        let [confused, of_no_class] = [1, 7].map(|class| mixture.of(&scores(-1.0, 450.0), class));
        assert_eq!(confused, of_no_class);
    }

    #[test]
    fn one_odd_trusted_image_does_not_hide_its_class() {
        let (mut columns, labels) = trusted();
        columns[ScoreKind::Head.position()][0] = 200.0;
        let with_it = Mixture::fit(&columns, &labels).expect("finite");
        let suspicion = with_it.of(&scores(100.0, -500.0), 0);
        let others = (1..100).map(|row| {
            let scores: Vec<f64> = columns.iter().map(|column| column[row]).collect();
            with_it.of_trusted(&scores, 0)
        });
        assert!(others.fold(f64::MIN, f64::max) < suspicion);
    }

    #[test]
    fn without_any_spread_nothing_is_suspicious() {
        let columns = vec![vec![0.0; 10]; TABLE.len()];
        let mixture = Mixture::fit(&columns, &[0; 10]).expect("finite");
        assert_eq!(mixture.of(&scores(0.0, 0.0), 0), 0.0);
    }
}
