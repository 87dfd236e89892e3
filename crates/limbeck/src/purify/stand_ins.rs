//! Which audited images stand in for trusted ones where nothing is trusted: cross-fitting.
//!
//! The set is dealt into folds, and each fold is looked at by an autoencoder and a classifier that learnt from the others alone, wrong labels and poison
//! included: what they have not seen they cannot have learnt by heart. Two kinds of images are left out:
//!
//! - those that look most perturbed to the detection head, as many of a fold as its log-odds say that there are (Saerens 2002);
//! - those whose label the classifier contradicts (Northcutt 2021, confident learning), the most contradicted first;
//!
//! of either no more than the share of poison that is reckoned with. Of the rest a random part of each class is drawn. To leave out a fixed share instead would
//! leave out clean images where there is less poison, so that thresholds of the rest are too low, and poison where it is of one kind alone.
//!
//! What the networks learn as usual looks usual to them: a trigger that most images of a class carry stands in for the class.

use burn::tensor::activation::softmax;
use rand::seq::index::sample;

use super::prevalence::{confidently_wrong, share_of_second};
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

/// Positions of the stand-ins, ascending: about `share` of each class and at least four of it, none of them suspicious unless their class has no others. At
/// most the share `assumed_poison` of a fold is suspicious for looking perturbed, and as many for their labels.
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
    let mut looks = vec![Look::default(); audited.len()];
    for (fold, networks) in networks.iter().enumerate() {
        let of_fold: Vec<usize> = (0..audited.len()).filter(|&index| fold_of[index] == fold).collect();
        progress.task(&format!("looking at fold {} of the audited images", fold + 1), "images");
        for (&index, look) in of_fold.iter().zip(look(audited, &of_fold, networks, assumed_poison, progress)?)
        {
            looks[index] = look;
        }
    }
    Ok(drawn(audited, &looks, share, seed))
}

/// What its fold's networks make of an image.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// Whether it cannot stand in.
    is_suspicious: bool,
    /// The smaller, the more suspicious: the less likely of its ranks in its fold by detection head and label margin.
    p_value: f64,
}

/// What the networks of a fold say of each of its images.
fn look(
    set: &Dataset,
    indices: &[usize],
    networks: &FoldNetworks,
    assumed_poison: f64,
    progress: &dyn Progress,
) -> Result<Vec<Look>> {
    let FoldNetworks { autoencoder, classifier } = networks;
    let classes = set.classes().len();
    let (mut head, mut margins, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let images = set.batch(chunk, autoencoder.device())?;
        head.extend(values(autoencoder.denoise(images.clone()).logits)?.into_iter().map(f64::from));
        let logits = classifier.logits(images);
        let of_labels = label_margins(logits.clone(), &set.labels(chunk));
        margins.extend(values(of_labels)?.into_iter().map(f64::from));
        let of_classes = values(softmax(logits, 1))?;
        probabilities
            .extend(of_classes.chunks(classes).map(|row| row.iter().copied().map(f64::from).collect()));
        progress.advance(head.len() as u64, indices.len() as u64);
    }
    let ranked = [CalibrationScores::new(head.clone())?, CalibrationScores::new(margins.clone())?];
    let most = (assumed_poison * indices.len() as f64).round() as usize;
    let perturbed = (share_of_second(&head) * indices.len() as f64).round() as usize;
    let mislabelled = confidently_wrong(&probabilities, &set.labels(indices));
    let contradicted = mislabelled.iter().filter(|&&is_wrong| is_wrong).count();
    let perturbed = largest(&head, |_| true, perturbed.min(most));
    let contradicted = largest(&margins, |index| mislabelled[index], contradicted.min(most));
    Ok((0..indices.len())
        .map(|index| Look {
            is_suspicious: perturbed[index] || contradicted[index],
            p_value: f64::min(ranked[0].p_value(head[index]), ranked[1].p_value(margins[index])),
        })
        .collect())
}

/// Which of the scores that are eligible are the `count` largest.
fn largest(scores: &[f64], is_eligible: impl Fn(usize) -> bool, count: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&index| is_eligible(index)).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut chosen = vec![false; scores.len()];
    order.into_iter().take(count).for_each(|index| chosen[index] = true);
    chosen
}

/// Of each class a random part of the images that are not suspicious, then the least suspicious of the others.
fn drawn(set: &Dataset, looks: &[Look], share: f64, seed: Seed) -> Vec<usize> {
    let mut by_suspicion: Vec<usize> = (0..set.len()).collect();
    by_suspicion.sort_by(|&a, &b| looks[a].p_value.total_cmp(&looks[b].p_value));
    let (suspicious, usual): (Vec<usize>, Vec<usize>) =
        by_suspicion.into_iter().partition(|&index| looks[index].is_suspicious);
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
        let looks: Vec<Look> = (0..80)
            .map(|index| match index % 4 {
                3 => Look { is_suspicious: true, p_value: 0.001 + 0.0001 * index as f64 },
                _ if index < 4 => Look { is_suspicious: true, p_value: 0.001 },
                _ => Look { is_suspicious: false, p_value: 0.5 },
            })
            .collect();
        let chosen = drawn(&set, &looks, 0.3, Seed::new(1));
        let of_class = |class: usize| chosen.iter().filter(|&&index| index % 4 == class).collect::<Vec<_>>();
        assert!((0..4).all(|class| of_class(class).len() == 6), "{chosen:?}");
        assert!((0..3).all(|class| of_class(class).iter().all(|&&index| index >= 4)), "{chosen:?}");
        assert_eq!(of_class(3), [&59, &63, &67, &71, &75, &79], "the least suspicious of them");
        assert!(chosen.is_sorted());
    }

    #[test]
    fn the_largest_are_those_of_the_eligible() {
        let chosen = largest(&[5.0, 1.0, 4.0, 3.0], |index| index != 0, 2);
        assert_eq!(chosen, [false, false, true, true]);
        assert_eq!(largest(&[1.0, 2.0], |_| true, 0), [false, false]);
        assert_eq!(largest(&[1.0, 2.0], |_| true, 9), [true, true]);
    }

    #[test]
    fn a_class_has_at_least_four_or_all_of_its_images() {
        let set = blocks(80, 4, 1)
            .subset(&(0..80).filter(|index| index % 4 != 2 || *index < 12).collect::<Vec<_>>());
        let chosen = drawn(&set, &vec![Look::default(); set.len()], 0.05, Seed::new(1));
        let images = |class: u32| chosen.iter().filter(|&&index| set.samples()[index].label == class).count();
        assert_eq!([images(0), images(1), images(2), images(3)], [4, 4, 3, 4]);
    }
}
