//! One score of several, without knowledge of the attack: how unlikely the least likely of them is on calibration images.
//!
//! Each part becomes a conformal p-value, which makes them comparable; the mixture is the largest −ln p (the test of Tippett 1931, whose
//! own null distribution is again taken from the calibration images).

use super::scores::ScoreKind;
use super::threshold::CalibrationScores;
use crate::error::Result;

/// The scores that are mixed: one sees perturbations, the other wrong labels.
pub(super) const PARTS: [ScoreKind; 2] = [ScoreKind::Head, ScoreKind::Label];

/// Fitted on calibration images; see [`Mixture::fit`].
#[derive(Clone, Debug)]
pub(super) struct Mixture {
    parts: Vec<(ScoreKind, CalibrationScores)>,
}

impl Mixture {
    /// From the calibration images' columns, in the order of the table of scores.
    pub(super) fn fit(columns: &[Vec<f64>]) -> Result<Self> {
        let part = |kind: ScoreKind| Ok((kind, CalibrationScores::new(columns[kind.position()].clone())?));
        Ok(Self { parts: PARTS.into_iter().map(part).collect::<Result<_>>()? })
    }

    /// Of an image that is not among the calibration images, from its scores in the order of the table.
    pub(super) fn of(&self, scores: &[f64]) -> f64 {
        self.p_values(scores).map(|(_, p)| -p.ln()).fold(f64::NEG_INFINITY, f64::max)
    }

    /// Of a calibration image: its rank is then among the others.
    pub(super) fn of_calibration(&self, scores: &[f64]) -> f64 {
        let among_others = |(kind, p): (ScoreKind, f64)| {
            let count =
                self.parts.iter().find(|(of, _)| *of == kind).map_or(1, |(_, scores)| scores.len()) as f64;
            // (1 + #{calibration >= s}) / (n + 1) counts the image itself twice.
            -((p * (count + 1.0) - 1.0) / count).ln()
        };
        self.p_values(scores).map(among_others).fold(f64::NEG_INFINITY, f64::max)
    }

    /// The part that is least likely on calibration images.
    pub(super) fn culprit(&self, scores: &[f64]) -> ScoreKind {
        let smaller = |a: (ScoreKind, f64), b: (ScoreKind, f64)| if b.1 < a.1 { b } else { a };
        self.p_values(scores).reduce(smaller).map_or(ScoreKind::Mixture, |(kind, _)| kind)
    }

    fn p_values<'a>(&'a self, scores: &'a [f64]) -> impl Iterator<Item = (ScoreKind, f64)> + 'a {
        self.parts.iter().map(|(kind, calibration)| (*kind, calibration.p_value(scores[kind.position()])))
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

    fn mixture() -> Mixture {
        let column = |kind: ScoreKind| match kind {
            ScoreKind::Head => (1..=99).map(f64::from).collect(),
            ScoreKind::Label => (1..=99).rev().map(|value| f64::from(value) - 50.0).collect(),
            _ => vec![0.0; 99],
        };
        Mixture::fit(&TABLE.iter().map(|(kind, ..)| column(*kind)).collect::<Vec<_>>()).expect("finite")
    }

    #[test]
    fn it_is_minus_the_logarithm_of_the_smallest_p_value() {
        // 95 of 1..=99: five are as large, p = 6/100. A label margin of -50 is below all: p = 1.
        assert!((mixture().of(&scores(95.0, -50.0)) + 0.06f64.ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(95.0, -50.0)), ScoreKind::Head);
        // A margin of 60 is above all: p = 1/100.
        assert!((mixture().of(&scores(95.0, 60.0)) + 0.01f64.ln()).abs() < 1e-12);
        assert_eq!(mixture().culprit(&scores(95.0, 60.0)), ScoreKind::Label);
    }

    #[test]
    fn a_calibration_image_is_ranked_among_the_others() {
        // The largest of 99: no other is as large, so it is the first of 99.
        assert!((mixture().of_calibration(&scores(99.0, -49.0)) + (1.0 / 99.0f64).ln()).abs() < 1e-12);
    }
}
