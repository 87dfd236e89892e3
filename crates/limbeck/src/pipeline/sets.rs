//! The image sets of a run: what is audited, what is trusted, and what is tested on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use crate::dataset::{Dataset, Part, Sample, SampleId, Source, Split, TestPart, group_folds};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::purify::Knowledge;

use super::config::RunConfig;

/// Where the images come from, and the sets.
pub struct Sets {
    /// The source, for writing copies in its own schema.
    pub source: Source,
    /// Name in reports.
    pub name: String,
    /// Images to be audited, as they come.
    pub train: Dataset,
    /// Positions in [`train`](Self::train) of what classifiers are trained on.
    pub fitted: Vec<usize>,
    /// Positions in [`train`](Self::train) of whole groups that no classifier is trained on: for early stopping and the null rule.
    pub held_out: Vec<usize>,
    /// Images that are known to be clean and rightly labelled: a random part of the set, or another set. Where nothing is trusted, audited images that stand in
    /// for them; none until they are chosen.
    pub trusted: Dataset,
    /// Images that nothing is fitted on.
    pub test: Dataset,
    /// Groups of the held-out images.
    held_out_groups: BTreeSet<String>,
    /// Whether the trusted images are others than the audited ones.
    trusted_apart: bool,
    /// Hash over everything that was read.
    content_hash: String,
}

impl Sets {
    /// Reads, limits and splits the set that the config names.
    pub fn load(config: &RunConfig, progress: &dyn Progress) -> Result<Self> {
        let data = &config.data;
        let (source, name) = match config.data_path() {
            None => (Source::embedded()?, "embedded GTSRB sample".to_owned()),
            Some(path) => {
                let name = path
                    .file_name()
                    .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
                (Source::open_with(&path, &data.columns)?, name)
            }
        };
        let load = |source: &Source, part: Part, what: &str| -> Result<Dataset> {
            progress.task(what, "images");
            let set = Dataset::load(source, part, data.image_size, &mut |done, total| {
                progress.advance(done, total.unwrap_or(0));
            })?;
            progress.check()?;
            Ok(set)
        };
        let full = limited(&load(&source, Part::Train, "reading training images")?, data.limit_per_class);
        let where_test = TestPart::of(&source);
        let mut fractions = data.split.clone();
        let trusted_apart = config.knowledge.setting != Knowledge::Untrusted;
        if !trusted_apart {
            fractions.trusted = 0.0;
        }
        let trusted = match data.trusted.as_str() {
            "" => None,
            path => {
                fractions.trusted = 0.0;
                let other = Source::open_with(Path::new(path), &data.columns)?;
                let set = load(&other, Part::Train, "reading trusted images")?;
                Some(set.with_classes(full.classes()).map_err(|error| {
                    Error::data(other.path(), error.to_string(), "classes of the audited set alone")
                })?)
            }
        };
        let full = match &trusted {
            Some(trusted) => without(&full, trusted, Path::new(&data.trusted))?,
            None => full,
        };
        let split = Split::draw(&full, &fractions, where_test)?;
        let trusted = trusted.unwrap_or_else(|| full.subset(&split.trusted));
        let test = match where_test {
            TestPart::Separate => {
                limited(&load(&source, Part::Test, "reading test images")?, data.limit_per_class)
            }
            TestPart::Drawn => full.subset(&split.test),
        };
        let sizes =
            [("trusted", trusted.len()), ("calibration", split.calibration.len()), ("test", test.len())];
        let is_missing =
            |(what, images): &(&str, usize)| *images == 0 && (trusted_apart || *what != "trusted");
        if let Some((what, _)) = sizes.into_iter().find(is_missing) {
            let expected = format!("a share that leaves {what} images");
            return Err(Error::config(format!("data.split.{what}"), "no image", expected));
        }
        if test.classes() != full.classes() {
            return Err(Error::data(
                source.path(),
                format!("{} test classes", test.classes().len()),
                format!("the {} classes of the training part", full.classes().len()),
            ));
        }
        let held_out_groups =
            split.calibration.iter().filter_map(|&index| full.samples()[index].group.clone()).collect();
        let (audited, fitted, held_out) = merged(&split.train, &split.calibration);
        let train = full.subset(&audited);
        let mut hashes = Vec::new();
        for part in [&train.subset(&fitted), &train.subset(&held_out), &trusted, &test] {
            hashes.push(part.content_hash()?);
        }
        let content_hash = blake3::hash(hashes.join(" ").as_bytes()).to_hex().to_string();
        Ok(Self {
            source,
            name,
            train,
            fitted,
            held_out,
            trusted,
            test,
            held_out_groups,
            trusted_apart,
            content_hash,
        })
    }

    /// The sets with the audited images at these positions in the place of trusted ones.
    pub(super) fn with_stand_ins(mut self, audited: &Dataset, positions: &[usize]) -> Self {
        self.trusted = audited.subset(positions);
        self
    }

    /// The images of the source that no one audits.
    pub(super) fn not_audited(&self) -> impl Iterator<Item = &Sample> {
        let trusted = self.trusted_apart.then_some(&self.trusted);
        trusted.into_iter().chain([&self.test]).flat_map(|set| set.samples())
    }

    /// What a classifier is trained on when `filtered`, a part of the fitted images, is left of them: the trusted images beside it, save those of
    /// held-out groups, near-duplicates of what the classifier is calibrated on.
    ///
    /// # Errors
    /// As [`Dataset::joined`].
    pub fn with_trusted(&self, filtered: &Dataset) -> Result<Dataset> {
        filtered.joined(&self.trusted_of(false))
    }

    /// What a classifier's epoch is chosen on, and what its null rule is calibrated on, when `filtered`, a part of the held-out images, is left of them: a third and the rest of these and
    /// the trusted images of the same groups, a group as a whole.
    ///
    /// # Errors
    /// As [`Dataset::joined`].
    pub fn held_out_parts(&self, filtered: &Dataset) -> Result<[Dataset; 2]> {
        Ok(third_and_rest(&filtered.joined(&self.trusted_of(true))?))
    }

    /// Both parts as one set, with the held-out images as they come.
    ///
    /// # Errors
    /// As [`Dataset::joined`].
    pub fn held_out_images(&self) -> Result<Dataset> {
        self.train.subset(&self.held_out).joined(&self.trusted_of(true))
    }

    /// The trusted images of held-out groups, or all others; none that are audited.
    fn trusted_of(&self, held_out: bool) -> Dataset {
        if !self.trusted_apart {
            return self.trusted.subset(&[]);
        }
        let is_held_out = |index: &usize| {
            let group = &self.trusted.samples()[*index].group;
            group.as_ref().is_some_and(|group| self.held_out_groups.contains(group))
        };
        let wanted: Vec<usize> =
            (0..self.trusted.len()).filter(|index| is_held_out(index) == held_out).collect();
        self.trusted.subset(&wanted)
    }

    /// Hash over everything that was read: images as the networks see them, labels, classes, groups and what each is for.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }
}

/// A third of a set and the rest of it, of each class about so many, a group as a whole; the draw minds the groups alone.
fn third_and_rest(set: &Dataset) -> [Dataset; 2] {
    let folds = group_folds(set, 3, 0);
    [true, false].map(|is_third| {
        let is_meant = |&index: &usize| (folds[index] == 0) == is_third;
        set.subset(&(0..set.len()).filter(is_meant).collect::<Vec<_>>())
    })
}

/// Two ascending lists as one, and where each of them went.
fn merged(first: &[usize], second: &[usize]) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let mut all: Vec<(usize, bool)> =
        first.iter().map(|&index| (index, true)).chain(second.iter().map(|&index| (index, false))).collect();
    all.sort_unstable();
    let positions = |wanted: bool| (0..all.len()).filter(|&position| all[position].1 == wanted).collect();
    (all.iter().map(|(index, _)| *index).collect(), positions(true), positions(false))
}

/// At most `most` images of each class, evenly spaced in the order of the set; 0 = all.
///
/// Sets come sorted, often by track or by patient: the first images of a class would be those of a few objects.
pub(super) fn limited(set: &Dataset, most: usize) -> Dataset {
    if most == 0 {
        return set.clone();
    }
    let mut images: BTreeMap<u32, usize> = BTreeMap::new();
    for sample in set.samples() {
        *images.entry(sample.label).or_default() += 1;
    }
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    let kept: Vec<usize> = (0..set.len())
        .filter(|&index| {
            let label = set.samples()[index].label;
            let (images, seen) = (images[&label], seen.entry(label).or_default());
            *seen += 1;
            let kept_of_first = |count: usize| count * most.min(images) / images;
            kept_of_first(*seen) > kept_of_first(*seen - 1)
        })
        .collect();
    set.subset(&kept)
}

/// The images of `full` that are not trusted already: a copy among the trusted images would be audited by what learnt it by heart.
fn without(full: &Dataset, trusted: &Dataset, path: &Path) -> Result<Dataset> {
    let known: HashSet<SampleId> = trusted.samples().iter().map(|sample| sample.id).collect();
    let others: Vec<usize> =
        (0..full.len()).filter(|&index| !known.contains(&full.samples()[index].id)).collect();
    match others.len() {
        0 => Err(Error::data(path, "every image of the set to audit", "some of them, or other images")),
        count if count == full.len() => Ok(full.clone()),
        _ => Ok(full.subset(&others)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::blocks;

    fn hash(set: &Dataset) -> String {
        set.content_hash().expect("pixels in memory")
    }

    #[test]
    fn a_limit_takes_images_from_all_over_each_class() {
        // Classes 0 and 1 take turns.
        let kept = limited(&blocks(20, 2, 1), 4);
        let mut paths: Vec<&str> = kept.samples().iter().map(|sample| sample.path.as_str()).collect();
        let mut expected: Vec<String> = [2, 4, 7, 9]
            .into_iter()
            .flat_map(|turn| [0, 1].map(|class| format!("image-{}", 2 * turn + class)))
            .collect();
        paths.sort_unstable();
        expected.sort_unstable();
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_third_chooses_the_epoch_and_others_calibrate() {
        let set = blocks(60, 4, 1);
        let [third, rest] = third_and_rest(&set);
        assert_eq!((third.len(), rest.len()), (20, 40));
        let ids = |part: &Dataset| part.samples().iter().map(|sample| sample.id).collect::<HashSet<_>>();
        assert!(ids(&third).is_disjoint(&ids(&rest)));
        for class in 0..4 {
            let of_class = third.samples().iter().filter(|sample| sample.label == class).count();
            assert_eq!(of_class, 5, "class {class}");
        }
        // The only image chooses: without it there is no network.
        let [third, rest] = third_and_rest(&set.subset(&[7]));
        assert_eq!((third.len(), rest.len()), (1, 0));
    }

    #[test]
    fn what_is_trusted_is_not_audited() {
        let set = blocks(20, 2, 1);
        let path = Path::new("checked");
        let left = without(&set, &set.subset(&[0, 3]), path).expect("others are left");
        assert_eq!(left.len(), 18);
        assert!(
            left.samples()
                .iter()
                .all(|sample| ![0, 3].contains(&sample.path[6..].parse().expect("a number")))
        );
        assert_eq!(hash(&without(&set, &blocks(20, 2, 2), path).expect("other images")), hash(&set));
        let error = without(&set, &set, path).expect_err("none is left").to_string();
        assert!(error.contains("checked") && error.contains("every image"), "{error}");
    }

    #[test]
    fn a_limit_that_no_class_reaches_keeps_all() {
        let set = blocks(20, 2, 1);
        for most in [0, 10, 100] {
            assert_eq!(hash(&limited(&set, most)), hash(&set), "{most}");
        }
    }
}
