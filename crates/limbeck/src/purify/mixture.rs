//! One score of several, without knowledge of the attack: how unlikely the least likely of them is on trusted images.
//!
//! Each part becomes a p-value, which makes them comparable; the mixture is the largest −ln p (the test of Tippett 1931, whose own null distribution is
//! again taken from the trusted images). The p-value of a part is normalised by class, for what is usual of one class is not of another: of n trusted
//! images of the class of which k are as suspicious it is (k + κ p) / (n + κ), the share in the class, drawn towards the conformal p-value p over all
//! classes as if κ further images had it. Since thresholds are fitted on the mixture of trusted images, the normalisation does not change how many
//! clean images are flagged, only which.

use super::scores::ScoreKind;
use super::threshold::CalibrationScores;
use crate::error::Result;

/// The scores that are mixed: one sees perturbations, the other wrong labels.
pub(super) const PARTS: [ScoreKind; 2] = [ScoreKind::Head, ScoreKind::Label];

/// κ: about as many images as a class of a few hundred has trusted ones, so that class and set weigh the same there.
const PRIOR_IMAGES: f64 = 10.0;

/// One score on trusted images.
#[derive(Clone, Debug)]
struct Reference {
    kind: ScoreKind,
    all: CalibrationScores,
    /// Ascending, by class.
    by_class: Vec<Vec<f64>>,
}

/// Whether an image is itself among the trusted ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Trusted,
    Audited,
}

impl Reference {
    fn p_value(&self, score: f64, label: u32, is: Is) -> f64 {
        let (itself, all) = (f64::from(is == Is::Trusted), self.all.len() as f64);
        // (1 + #{trusted >= s}) / (n + 1) would count the image itself twice.
        let p = match is {
            Is::Audited => self.all.p_value(score),
            Is::Trusted => (self.all.p_value(score) * (all + 1.0) - 1.0) / all,
        };
        let class = self.by_class.get(label as usize).map_or(&[][..], Vec::as_slice);
        let as_suspicious =
            if score.is_nan() { 0 } else { class.len() - class.partition_point(|&other| other < score) };
        let (count, images) = (as_suspicious as f64 - itself, class.len() as f64 - itself);
        (count + PRIOR_IMAGES * p) / (images + PRIOR_IMAGES)
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
        let reference = |kind: ScoreKind| {
            let column = &columns[kind.position()];
            let classes = labels.iter().max().map_or(0, |most| *most as usize + 1);
            let mut by_class = vec![Vec::new(); classes];
            column.iter().zip(labels).for_each(|(score, label)| by_class[*label as usize].push(*score));
            by_class.iter_mut().for_each(|scores| scores.sort_unstable_by(f64::total_cmp));
            Ok(Reference { kind, all: CalibrationScores::new(column.clone())?, by_class })
        };
        Ok(Self { references: PARTS.into_iter().map(reference).collect::<Result<_>>()? })
    }

    /// Of an image that is not among the trusted ones, from its scores in the order of the table and its label.
    pub(super) fn of(&self, scores: &[f64], label: u32) -> f64 {
        self.least(scores, label, Is::Audited).1
    }

    /// Of a trusted image: its rank is then among the others.
    pub(super) fn of_trusted(&self, scores: &[f64], label: u32) -> f64 {
        self.least(scores, label, Is::Trusted).1
    }

    /// The part that is least likely on trusted images.
    pub(super) fn culprit(&self, scores: &[f64], label: u32) -> ScoreKind {
        self.least(scores, label, Is::Audited).0
    }

    /// The least likely part and its −ln p.
    fn least(&self, scores: &[f64], label: u32, is: Is) -> (ScoreKind, f64) {
        self.references
            .iter()
            .map(|part| (part.kind, -part.p_value(scores[part.kind.position()], label, is).ln()))
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

    /// 99 trusted images: heads 1 to 99, label margins from 49 down to -49, class 0 up to head 89, then class 1.
    fn mixture() -> Mixture {
        let column = |kind: ScoreKind| match kind {
            ScoreKind::Head => (1..=99).map(f64::from).collect(),
            ScoreKind::Label => (1..=99).rev().map(|value| f64::from(value) - 50.0).collect(),
            _ => vec![0.0; 99],
        };
        let columns: Vec<_> = TABLE.iter().map(|(kind, ..)| column(*kind)).collect();
        let labels: Vec<u32> = (1..=99).map(|head| u32::from(head >= 90)).collect();
        Mixture::fit(&columns, &labels).expect("finite")
    }

    #[test]
    fn it_is_minus_the_logarithm_of_the_smallest_p_value() {
        // A class without trusted images: 95 of 1..=99, five are as large, p = 6/100. A label margin of -50 is below all: p = 1.
        assert!((mixture().of(&scores(95.0, -50.0), 7) + 0.06f64.ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(95.0, -50.0), 7), ScoreKind::Head);
        // A margin of 60 is above all: p = 1/100.
        assert!((mixture().of(&scores(95.0, 60.0), 7) + 0.01f64.ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(95.0, 60.0), 7), ScoreKind::Label);
    }

    #[test]
    fn what_is_usual_of_a_class_is_less_suspicious_there() {
        // Class 1 has heads 90 to 99: five of its ten are as large as 95. Class 0 has none of 89.
        let [usual, unusual] = [1, 0].map(|class| mixture().of(&scores(95.0, -50.0), class));
        assert!((usual + (5.6f64 / 20.0).ln()).abs() < 1e-12, "{usual}");
        assert!((unusual + (0.6f64 / 99.0).ln()).abs() < 1e-12, "{unusual}");
    }

    #[test]
    fn a_trusted_image_is_ranked_among_the_others() {
        // The largest of 99 is the first of 99, and none of the nine others of its class is as large.
        assert!((mixture().of_trusted(&scores(99.0, -49.0), 1) + (10.0 / 99.0 / 19.0f64).ln()).abs() < 1e-12);
    }
}
