//! Which audited images stand in for trusted ones where nothing is trusted: cross-fitting.
//!
//! The set is dealt into folds, and each fold is looked at by an autoencoder and a classifier that learnt from the others alone, wrong labels and poison
//! included: what they have not seen they cannot have learnt by heart. An image is as suspicious as the less likely of two of its ranks within its fold, that
//! of the detection head's log-odds and that of how much surer the classifier is of another class than of the label (the latter: Northcutt 2021, confident
//! learning). The most suspicious share of the set, as large as the poison that is reckoned with, is left out, and of the rest a random part of each class
//! is drawn.
//!
//! What the networks learn as usual looks usual to them: a trigger that most images of a class carry stands in for the class.

use rand::seq::index::sample;

use super::scores::label_margins;
use super::threshold::CalibrationScores;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Model, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// Images of a class below which folds of them would lack the class, as for trusted images.
const LEAST: usize = 4;

/// The networks that look at a fold, which learnt from the others.
pub struct FoldNetworks {
    /// The denoiser.
    pub autoencoder: TrainedAutoencoder,
    /// The classifier, of the labels as they come.
    pub classifier: TrainedClassifier,
}

/// Positions of the stand-ins, ascending: about `share` of each class and at least four of it, none of them among the `assumed_poison` most suspicious
/// images of the set unless their class has no others.
///
/// `fold_of` says for each image which of `networks` looks at it.
///
/// # Errors
/// Refuses folds that do not fit the set or have no image; reports scores that are not finite.
pub fn stand_ins(
    audited: &Dataset,
    fold_of: &[usize],
    networks: &[FoldNetworks],
    [share, assumed_poison]: [f64; 2],
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<usize>> {
    if fold_of.len() != audited.len() || fold_of.iter().any(|&fold| fold >= networks.len()) {
        let found = format!("folds of {} images for {} networks", fold_of.len(), networks.len());
        return Err(Error::input("cross-fitting", found, format!("one of {} images", audited.len())));
    }
    let mut p_values = vec![1.0; audited.len()];
    for (fold, networks) in networks.iter().enumerate() {
        let of_fold: Vec<usize> = (0..audited.len()).filter(|&index| fold_of[index] == fold).collect();
        progress.task(&format!("looking at fold {} of the audited images", fold + 1), "images");
        for scores in out_of_fold_scores(audited, &of_fold, networks, progress)? {
            let of_all = CalibrationScores::new(scores.clone())?;
            for (&index, score) in of_fold.iter().zip(scores) {
                p_values[index] = f64::min(p_values[index], of_all.p_value(score));
            }
        }
    }
    Ok(drawn(audited, &p_values, share, assumed_poison, seed))
}

/// Log-odds of the head, and label margins.
fn out_of_fold_scores(
    set: &Dataset,
    indices: &[usize],
    networks: &FoldNetworks,
    progress: &dyn Progress,
) -> Result<[Vec<f64>; 2]> {
    let FoldNetworks { autoencoder, classifier } = networks;
    let (mut head, mut margins) = (Vec::new(), Vec::new());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let images = set.batch(chunk, autoencoder.device())?;
        head.extend(values(autoencoder.denoise(images.clone()).logits)?.into_iter().map(f64::from));
        let of_labels = label_margins(classifier.logits(images), &set.labels(chunk));
        margins.extend(values(of_labels)?.into_iter().map(f64::from));
        progress.advance(head.len() as u64, indices.len() as u64);
    }
    Ok([head, margins])
}

/// Of each class a random part of the images that are not among the most suspicious of the set, then the least suspicious of the others.
fn drawn(set: &Dataset, p_values: &[f64], share: f64, assumed_poison: f64, seed: Seed) -> Vec<usize> {
    let mut by_suspicion: Vec<usize> = (0..set.len()).collect();
    by_suspicion.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let (suspicious, usual) = by_suspicion.split_at((assumed_poison * set.len() as f64).round() as usize);
    let mut rng = seed.rng("stand-ins");
    let mut chosen = Vec::new();
    for class in 0..set.classes().len() as u32 {
        let of_class = |&&index: &&usize| set.samples()[index].label == class;
        let usual: Vec<usize> = usual.iter().filter(of_class).copied().collect();
        let others: Vec<usize> = suspicious.iter().rev().filter(of_class).copied().collect();
        let images = usual.len() + others.len();
        let wanted = ((share * images as f64).round() as usize).max(LEAST).min(images);
        let from_usual = wanted.min(usual.len());
        chosen.extend(sample(&mut rng, usual.len(), from_usual).into_iter().map(|index| usual[index]));
        chosen.extend(&others[..wanted - from_usual]);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::blocks;

    #[test]
    fn the_most_suspicious_images_cannot_stand_in_unless_their_class_has_no_others() {
        let set = blocks(80, 4, 1);
        // Class 3 is suspicious as a whole, the last image least; of the other classes the first image is.
        let p_values: Vec<f64> = (0..80)
            .map(|index| match index % 4 {
                3 => 0.001 + 0.0001 * index as f64,
                _ if index < 4 => 0.001,
                _ => 0.5,
            })
            .collect();
        let chosen = drawn(&set, &p_values, 0.3, 23.0 / 80.0, Seed::new(1));
        let of_class = |class: usize| chosen.iter().filter(|&&index| index % 4 == class).collect::<Vec<_>>();
        assert!((0..4).all(|class| of_class(class).len() == 6), "{chosen:?}");
        assert!((0..3).all(|class| of_class(class).iter().all(|&&index| index >= 4)), "{chosen:?}");
        assert_eq!(of_class(3), [&59, &63, &67, &71, &75, &79], "the least suspicious of them");
        assert!(chosen.is_sorted());
    }

    #[test]
    fn a_class_has_at_least_four_or_all_of_its_images() {
        let set = blocks(80, 4, 1)
            .subset(&(0..80).filter(|index| index % 4 != 2 || *index < 12).collect::<Vec<_>>());
        let chosen = drawn(&set, &vec![1.0; set.len()], 0.05, 0.0, Seed::new(1));
        let images = |class: u32| chosen.iter().filter(|&&index| set.samples()[index].label == class).count();
        assert_eq!([images(0), images(1), images(2), images(3)], [4, 4, 3, 4]);
    }
}
