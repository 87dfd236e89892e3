//! Scores that look at a whole class at once: fitted on the audited set, class by class, then applied to any image.
//!
//! They read the last hidden layer of the defender's classifier, which was trained on the audited set: a backdoor that it has learnt shows there as a second group
//! within the class. Trusted images are not needed to fit them, only to place a threshold. They take the rarer kind of images in a class for the
//! poison, so where more than half of a class is poisoned they point at the clean ones. They are no part of the mixture.

use rayon::prelude::*;

use super::clustering::ActivationClustering;
use super::scores::{Defence, ScoreKind};
use super::spectral::SpectralSignature;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// Images that a class needs; the images of a smaller one have the neutral score 0.
const FEWEST: usize = 10;

/// Activations of the last hidden layer, with the labels of the images.
#[derive(Clone, Debug)]
pub struct Activations {
    /// `[images, units]`.
    values: Vec<f32>,
    units: usize,
    labels: Vec<u32>,
}

impl Activations {
    /// From values `[images, units]`, row by row, and the label of each row.
    ///
    /// # Errors
    /// [`Error::Input`] when these do not fit; [`Error::Numeric`] for a value that is not finite.
    pub fn new(values: Vec<f32>, units: usize, labels: Vec<u32>) -> Result<Self> {
        const OPERATION: &str = "activations";
        if units == 0 || values.len() != units * labels.len() {
            let found = format!("{} values of {units} units", values.len());
            return Err(Error::input(OPERATION, found, format!("{} rows, one a label", labels.len())));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::Numeric { operation: OPERATION, found: value.to_string() });
        }
        Ok(Self { values, units, labels })
    }

    /// What the defender's classifier makes of a set: 4 bytes for each image and unit, and no more images at a time than a batch.
    fn read(set: &Dataset, defence: &Defence<'_>, progress: &dyn Progress) -> Result<Self> {
        let (classifier, device) = (defence.classifier, defence.autoencoder.device());
        let indices: Vec<usize> = (0..set.len()).collect();
        let mut activations = Vec::with_capacity(set.len() * classifier.spec().hidden);
        for chunk in indices.chunks(INFERENCE_BATCH) {
            progress.check()?;
            let features = classifier.features(set.batch(chunk, device)?);
            activations.extend(values(classifier.hidden(features))?);
            progress.advance((activations.len() / classifier.spec().hidden) as u64, set.len() as u64);
        }
        Self::new(activations, classifier.spec().hidden, set.labels(&indices))
    }

    /// What `fit` makes of the rows of each class; `None` for a class of fewer than ten images.
    pub(super) fn by_class<T: Send>(&self, fit: impl Fn(&[&[f32]]) -> Option<T> + Sync) -> Vec<Option<T>> {
        let mut classes = vec![Vec::new(); self.labels.iter().max().map_or(0, |most| *most as usize + 1)];
        let rows = self.values.chunks_exact(self.units);
        rows.zip(&self.labels).for_each(|(row, label)| classes[*label as usize].push(row));
        classes.par_iter().map(|rows| if rows.len() < FEWEST { None } else { fit(rows) }).collect()
    }
}

/// A score that has been fitted on a set.
pub trait FittedScore: Send + Sync {
    /// Of an image with these activations `[units]` and this label; larger = more suspicious, 0 in a class that was too small to be fitted.
    fn score(&self, activations: &[f32], label: u32) -> f64;
}

/// Fits a score on the audited set.
pub type Fit = fn(&Activations) -> Box<dyn FittedScore>;

/// All fitted scores: listing one here computes it, writes it to the ledger and measures it.
pub const FITTED: &[(ScoreKind, &str, Fit)] = &[
    (ScoreKind::Spectral, "spectral", |audited| Box::new(SpectralSignature::fit(audited))),
    (ScoreKind::Clustering, "clustering", |audited| Box::new(ActivationClustering::fit(audited))),
];

/// Every score of [`FITTED`], fitted.
pub(super) struct FittedScores(Vec<Box<dyn FittedScore>>);

impl FittedScores {
    /// Fits all of them on the audited set.
    pub(super) fn fit(audited: &Dataset, defence: &Defence<'_>, progress: &dyn Progress) -> Result<Self> {
        progress.task("looking at whole classes", "images");
        let activations = Activations::read(audited, defence, progress)?;
        Ok(Self(FITTED.iter().map(|(.., fit)| fit(&activations)).collect()))
    }

    /// One value for each score, in the order of [`FITTED`].
    pub(super) fn of<'a>(&'a self, activations: &'a [f32], label: u32) -> impl Iterator<Item = f64> + 'a {
        self.0.iter().map(move |score| score.score(activations, label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 rows of 12 units without any pattern, but that every fourth is 2 larger in the first three units; of class 1, after 9 rows of class 0.
    fn planted() -> Activations {
        let value = |row: i64, unit: i64| {
            let noise = ((row * row * row + 2) * (unit + 3) * (unit + 1) + 5 * row * unit) % 17;
            noise as f32 / 17.0 + if row % 4 == 0 && unit < 3 { 2.0 } else { 0.0 }
        };
        let row = |row: i64| (0..12).map(move |unit| value(row, unit));
        let values = (0..9).chain(0..24).flat_map(row).collect();
        let labels = (0..33).map(|row| u32::from(row >= 9)).collect();
        Activations::new(values, 12, labels).expect("the parts fit")
    }

    fn scores(kind: ScoreKind) -> impl Fn(usize, u32) -> f64 {
        let activations = planted();
        let (.., fit) = FITTED.iter().find(|row| row.0 == kind).expect("a fitted score");
        let fitted = fit(&activations);
        move |row, label| fitted.score(&activations.values[12 * (9 + row)..12 * (10 + row)], label)
    }

    #[test]
    fn scores_agree_with_numpy_and_scikit_learn() {
        // ((x − x.mean(0)) @ numpy.linalg.svd(x − x.mean(0))[2][0]) ** 2 of the 24 rows in double precision, numpy 2.4.
        let spectral = [9.31252039, 0.78730425, 1.18138088, 1.01424742, 7.37519092, 1.77465636];
        // Projection on the first ten singular vectors; KMeans(2, n_init=50) and silhouette_score(metric="sqeuclidean") = 0.85817093 of scikit-learn 1.9.1;
        // 6 of 24 rows in the smaller cluster.
        let clustering = [0.37303733, -0.32470263, -0.34243455, -0.36490174, 0.37617172, -0.37427017];
        for (kind, expected) in [(ScoreKind::Spectral, spectral), (ScoreKind::Clustering, clustering)] {
            let score = scores(kind);
            for (row, expected) in expected.into_iter().enumerate() {
                let found = score(row, 1);
                assert!((found - expected).abs() < 1e-4 * expected.abs(), "{kind:?}, row {row}: {found}");
            }
        }
    }

    #[test]
    fn a_class_that_is_too_small_or_unknown_is_neutral() {
        for (kind, ..) in FITTED {
            let score = scores(*kind);
            assert_eq!([score(0, 0), score(0, 2)], [0.0; 2], "nine rows, and none");
        }
    }

    #[test]
    fn the_same_activations_give_the_same_scores() {
        for (kind, ..) in FITTED {
            let (first, second) = (scores(*kind), scores(*kind));
            assert!((0..24).all(|row| first(row, 1).to_bits() == second(row, 1).to_bits()), "{kind:?}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let message = Activations::new(vec![0.0; 7], 3, vec![0; 2]).expect_err("7 of 6 values").to_string();
        assert!(message.contains("7 values of 3 units"), "{message}");
        assert!(Activations::new(vec![0.0, f32::NAN], 1, vec![0; 2]).is_err());
    }
}
