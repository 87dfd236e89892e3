//! Training, calibration, trusted and test indices, stratified by class.
//!
//! Images of one group are near-duplicates (frames of one drive towards a sign), so a group lies in
//! training, calibration or test as a whole; an image without a group is its own. Trusted images are
//! drawn at random from training and calibration, whatever their group: a person who checks a random
//! part of a set sees frames of most groups, and only such a part is exchangeable with the rest. The
//! draw depends on the seeds and on the samples, not on their order.

use std::collections::{BTreeMap, VecDeque};

use rand::SeedableRng;
use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::read::{Part, Source};
use super::sample::{Sample, SampleId};
use super::set::Dataset;
use crate::error::{Error, Result};

/// Trusted images of a class below which folds of them would lack the class.
const LEAST_TRUSTED: usize = 4;

/// How large the sides are, as fractions of each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// Fraction that is checked to be clean and rightly labelled, 0 or more, drawn image by image.
    /// Default 0.05.
    pub trusted: f64,
    /// Fraction that no classifier is trained on, 0 or more, drawn group by group: a third of it
    /// chooses their epochs, the rest calibrates the null rule. Default 0.15, about 31 images of the
    /// smallest GTSRB class: one of its seven tracks.
    pub calibration: f64,
    /// Fraction for the final figures, 0 or more, used only where the source has no test part.
    /// Default 0.15, as calibration.
    pub test: f64,
    /// Seed of the draw of groups. Default 0, whatever the seed of a run, so that models of several
    /// runs of one set and one `split` are tested on images that none of them learnt from. Trusted
    /// images are drawn by the seed of the run.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { trusted: 0.05, calibration: 0.15, test: 0.15, seed: 0 }
    }
}

/// Where test images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestPart {
    /// The source has a test part of its own: nothing is drawn for it.
    Separate,
    /// They are drawn from the training part.
    Drawn,
}

impl TestPart {
    /// [`Separate`](Self::Separate) if the source has a test part.
    pub fn of(source: &Source) -> Self {
        if source.count(Part::Test).is_some() { Self::Separate } else { Self::Drawn }
    }
}

/// Indices of a data set, each in exactly one of the first lists, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// What classifiers are trained on, once it is audited.
    pub train: Vec<usize>,
    /// What null rules are fitted on, once it is audited.
    pub calibration: Vec<usize>,
    /// What is known to be clean: thresholds are fitted on it.
    pub trusted: Vec<usize>,
    /// Those of them that were drawn from calibration: no classifier is trained on them.
    pub trusted_for_calibration: Vec<usize>,
    /// What final figures are taken on; empty where the source has a test part of its own.
    pub test: Vec<usize>,
}

impl Split {
    /// Draws a split.
    ///
    /// A side takes whole groups of a class until its fraction of the class's images is best met,
    /// and at least one group if there are enough: a class of two groups or more is in training
    /// and calibration, one of three or more in test too. A group of several labels counts for its
    /// most frequent one. Of the images of training and calibration the trusted fraction is then
    /// taken by the seed `trusted`, at least four of a class that has five times as many.
    ///
    /// # Errors
    /// [`Error::Config`] for fractions that are not in `[0, 1)` or leave nothing for training;
    /// [`Error::Input`] for a class none of whose images would be in training.
    pub fn draw(dataset: &Dataset, config: &SplitConfig, test: TestPart, trusted: u64) -> Result<Self> {
        let test_fraction = match test {
            TestPart::Separate => 0.0,
            TestPart::Drawn => config.test,
        };
        check_fraction("split.trusted", config.trusted)?;
        check_fraction("split.calibration", config.calibration)?;
        check_fraction("split.test", test_fraction)?;
        if config.calibration + test_fraction >= 1.0 {
            let sum = config.calibration + test_fraction;
            return Err(Error::config("split.calibration", sum, "below 1 together with split.test"));
        }
        let mut split = Self::default();
        for (class, mut groups) in strata(dataset.samples()) {
            let [mut by_group, mut by_image] = [config.seed, trusted].map(ChaCha8Rng::seed_from_u64);
            by_group.set_stream(u64::from(class));
            // A stream of its own, in case both seeds are one.
            by_image.set_stream(u64::MAX - u64::from(class));
            groups.shuffle(&mut by_group);
            let mut class = Self::default();
            class.deal(groups, [config.calibration, test_fraction]);
            class.entrust(dataset.samples(), config.trusted, &mut by_image);
            split.append(class);
        }
        let Self { train, calibration, trusted, trusted_for_calibration, test } = &mut split;
        for side in [train, calibration, trusted, trusted_for_calibration, test] {
            side.sort_unstable();
        }
        split.check_classes(dataset)?;
        Ok(split)
    }

    /// Deals the groups of one class, in the order drawn, to test, calibration and training: what is tested on does not hang on how much is calibrated on.
    fn deal(&mut self, groups: Vec<Vec<usize>>, [calibration, test]: [f64; 2]) {
        let images: usize = groups.iter().map(Vec::len).sum();
        let wanted = |fraction: f64| fraction * images as f64;
        let mut groups = VecDeque::from(groups);
        // One group stays for training, and one for calibration before any is for the test.
        take(&mut groups, &mut self.test, wanted(test), 1 + usize::from(calibration > 0.0));
        take(&mut groups, &mut self.calibration, wanted(calibration), 1);
        self.train.extend(groups.into_iter().flatten());
    }

    /// Moves a random part of the images of one class from training and calibration to the trusted ones.
    fn entrust(&mut self, samples: &[Sample], fraction: f64, rng: &mut ChaCha8Rng) {
        for side in [&mut self.train, &mut self.calibration] {
            side.sort_unstable_by_key(|&index| (&samples[index].path, samples[index].id));
        }
        // A side keeps its only image.
        let sides = [(&mut self.train, false), (&mut self.calibration, true)].into_iter();
        let sides: Vec<(&mut Vec<usize>, bool)> = sides.filter(|(side, _)| side.len() > 1).collect();
        let images: usize = sides.iter().map(|(side, _)| side.len()).sum();
        if fraction == 0.0 || images == 0 {
            return;
        }
        let least = if images >= 5 * LEAST_TRUSTED { LEAST_TRUSTED } else { 1 };
        let count = ((fraction * images as f64).round() as usize).max(least);
        let mut chosen = vec![false; images];
        for position in index::sample(rng, images, count.min(images - 1)) {
            chosen[position] = true;
        }
        let mut chosen = chosen.into_iter();
        for (side, is_for_calibration) in sides {
            let (trusted, rest) =
                side.drain(..).partition::<Vec<_>, _>(|_| chosen.next().unwrap_or_default());
            self.trusted.extend(&trusted);
            *side = rest;
            if is_for_calibration {
                self.trusted_for_calibration = trusted;
            }
        }
    }

    fn append(&mut self, class: Self) {
        self.train.extend(class.train);
        self.calibration.extend(class.calibration);
        self.trusted.extend(class.trusted);
        self.trusted_for_calibration.extend(class.trusted_for_calibration);
        self.test.extend(class.test);
    }

    fn check_classes(&self, dataset: &Dataset) -> Result<()> {
        let mut in_training = vec![false; dataset.classes().len()];
        for &index in self.train.iter().chain(&self.trusted) {
            in_training[dataset.samples()[index].label as usize] = true;
        }
        let untrained = dataset.samples().iter().map(|s| s.label as usize).find(|&label| !in_training[label]);
        match untrained {
            None => Ok(()),
            Some(label) => Err(Error::input(
                "split",
                format!("no training image of class {label} ({})", dataset.classes()[label]),
                "a group of each class for training",
            )),
        }
    }
}

/// Deals the groups of each class into `folds` of about as many images; the fold of each image, below `folds`.
///
/// A group lies in one fold as a whole, so that what learns from the others has seen none of its near-duplicates.
pub fn group_folds(dataset: &Dataset, folds: usize, seed: u64) -> Vec<usize> {
    let mut fold_of = vec![0; dataset.len()];
    let mut images = vec![0; folds.max(1)];
    for (class, mut groups) in strata(dataset.samples()) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(class));
        groups.shuffle(&mut rng);
        let mut of_class = vec![0; images.len()];
        for group in groups {
            // The fold with the fewest images of the class, and of these that with the fewest of all.
            let fold = (0..images.len()).min_by_key(|&fold| (of_class[fold], images[fold])).unwrap_or(0);
            of_class[fold] += group.len();
            images[fold] += group.len();
            group.into_iter().for_each(|index| fold_of[index] = fold);
        }
    }
    fold_of
}

/// Moves groups from the front to a side until about `wanted` images are there, at least one group,
/// while more than `reserved` are left.
fn take(groups: &mut VecDeque<Vec<usize>>, side: &mut Vec<usize>, wanted: f64, reserved: usize) {
    if wanted == 0.0 {
        return;
    }
    let mut taken = 0;
    while let Some(next) = groups.front() {
        // With half of the group within what is wanted, taking it is nearer than leaving it.
        let is_nearer = taken == 0 || taken as f64 + next.len() as f64 / 2.0 <= wanted;
        if groups.len() <= reserved || !is_nearer {
            break;
        }
        taken += next.len();
        side.extend(groups.pop_front().into_iter().flatten());
    }
}

fn check_fraction(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(key, value, "a fraction from 0 to below 1"))
}

/// What orders and joins samples: the name of a group, or an image by itself.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum GroupKey<'a> {
    Named(&'a str),
    Single(&'a str, SampleId),
}

/// The groups of each class, in the order of their keys; indices within one by path and id.
fn strata(samples: &[Sample]) -> BTreeMap<u32, Vec<Vec<usize>>> {
    let mut groups: BTreeMap<GroupKey<'_>, Vec<usize>> = BTreeMap::new();
    for (index, sample) in samples.iter().enumerate() {
        let key = match &sample.group {
            Some(name) => GroupKey::Named(name),
            None => GroupKey::Single(&sample.path, sample.id),
        };
        groups.entry(key).or_default().push(index);
    }
    let mut strata: BTreeMap<u32, Vec<Vec<usize>>> = BTreeMap::new();
    for group in groups.into_values() {
        strata.entry(most_frequent_label(samples, &group)).or_default().push(group);
    }
    strata
}

/// The most frequent label of a group; of several, the lowest.
fn most_frequent_label(samples: &[Sample], group: &[usize]) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for &index in group {
        *counts.entry(samples[index].label).or_insert(0) += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    counts.into_iter().find(|&(_, count)| count == most).map_or(0, |(label, _)| label)
}

#[cfg(test)]
mod tests;
