//! The image sets of a run: what is audited, what is trusted, and what is tested on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Serialize;

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
    /// Whether each trusted image is of what no classifier is trained on.
    trusted_held_out: Vec<bool>,
    /// Images of the source that a trusted set of its own has too.
    known: Vec<KnownImage>,
    /// Images of the source above `data.limit_per_class`.
    beyond_limit: usize,
    /// Whether the trusted images are others than the audited ones.
    trusted_apart: bool,
    /// Hash over everything that was read.
    content_hash: String,
}

/// An image to audit that is trusted already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct KnownImage {
    /// As the source has it.
    pub(super) id: SampleId,
    /// In the source.
    pub(super) label: u32,
    /// Of the same image among the trusted ones.
    pub(super) trusted_label: u32,
    /// In the source.
    group: Option<String>,
    /// Positions of the same image among the trusted ones.
    trusted: Vec<usize>,
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
        let read = load(&source, Part::Train, "reading training images")?;
        let full = limited(&read, data.limit_per_class);
        let beyond_limit = read.len() - full.len();
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
        let (full, trusted, known) = match trusted {
            Some(trusted) => {
                let (full, known) = without(&full, &trusted, "set to audit", Path::new(&data.trusted))?;
                (full, Some(with_groups_of(&trusted, &known)?), known)
            }
            None => (full, None, Vec::new()),
        };
        let split = Split::draw(&full, &fractions, where_test, config.seed)?;
        let test = match where_test {
            TestPart::Separate => {
                let test = limited(&load(&source, Part::Test, "reading test images")?, data.limit_per_class);
                match &trusted {
                    Some(trusted) => without(&test, trusted, "test part", Path::new(&data.trusted))?.0,
                    None => test,
                }
            }
            TestPart::Drawn => full.subset(&split.test),
        };
        let groups = |part: &[usize]| {
            part.iter().filter_map(|&index| full.samples()[index].group.clone()).collect::<BTreeSet<String>>()
        };
        let (trusted, trusted_held_out) = match trusted {
            Some(trusted) => {
                let trusted = untested(&trusted, &groups(&split.test), Path::new(&data.trusted))?;
                let held_out = groups(&split.calibration);
                let is_held_out =
                    |sample: &Sample| sample.group.as_ref().is_some_and(|group| held_out.contains(group));
                let trusted_held_out = trusted.samples().iter().map(is_held_out).collect();
                (trusted, trusted_held_out)
            }
            None => {
                let is_held_out = |index| split.trusted_for_calibration.binary_search(index).is_ok();
                (full.subset(&split.trusted), split.trusted.iter().map(is_held_out).collect())
            }
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
            trusted_held_out,
            known,
            beyond_limit,
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

    /// Images of the source that are trusted already, and so not audited.
    pub(super) fn known(&self) -> &[KnownImage] {
        &self.known
    }

    /// Images of the source that `data.limit_per_class` leaves out.
    pub(super) fn beyond_limit(&self) -> usize {
        self.beyond_limit
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
        let is_wanted = |index: &usize| self.trusted_held_out[*index] == held_out;
        self.trusted.subset(&(0..self.trusted.len()).filter(is_wanted).collect::<Vec<_>>())
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

/// Trusted images without those of groups that are tested on: near-duplicates of test images teach nothing.
fn untested(trusted: &Dataset, tested: &BTreeSet<String>, path: &Path) -> Result<Dataset> {
    let is_tested =
        |index: &usize| trusted.samples()[*index].group.as_ref().is_some_and(|group| tested.contains(group));
    let others: Vec<usize> = (0..trusted.len()).filter(|index| !is_tested(index)).collect();
    match others.len() {
        0 => Err(Error::data(path, "images of tracks that are tested on alone", "images of other tracks")),
        count if count == trusted.len() => Ok(trusted.clone()),
        _ => Ok(trusted.subset(&others)),
    }
}

/// Trusted images with the groups that the set to audit has for what they show: a copy at another place has another group there, or none.
fn with_groups_of(trusted: &Dataset, known: &[KnownImage]) -> Result<Dataset> {
    let of_known = |known: &KnownImage| {
        let group = known.group.clone();
        known.trusted.iter().map(move |&index| (index, group.clone())).collect::<Vec<_>>()
    };
    trusted.with_groups(known.iter().flat_map(of_known))
}

/// Positions of the trusted images that show the same.
///
/// # Errors
/// Names two images that show the same under two classes.
fn by_pixels(trusted: &Dataset, path: &Path) -> Result<HashMap<[u8; 32], Vec<usize>>> {
    let mut seen: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
    let samples = trusted.samples();
    for (index, pixels) in trusted.pixel_hashes()?.into_iter().enumerate() {
        let same = seen.entry(pixels).or_default();
        same.push(index);
        let pair @ [a, b] = [same[0], index].map(|index| &samples[index]);
        if a.label != b.label {
            let [a, b] = pair
                .map(|sample| format!("{} as {:?}", sample.path, trusted.classes()[sample.label as usize]));
            let found = format!("one picture under two classes: {a}, {b}");
            return Err(Error::data(path, found, "one class for each"));
        }
    }
    Ok(seen)
}

/// The images of a set that are not trusted already, and the others: a copy among the trusted images would be audited, or tested on, by what learnt it by heart.
///
/// They are told by what they show, for somebody who checks images keeps them at another place.
fn without(set: &Dataset, trusted: &Dataset, what: &str, path: &Path) -> Result<(Dataset, Vec<KnownImage>)> {
    let by_pixels = by_pixels(trusted, path)?;
    let (mut others, mut known) = (Vec::new(), Vec::new());
    for (index, (sample, pixels)) in set.samples().iter().zip(set.pixel_hashes()?).enumerate() {
        match by_pixels.get(&pixels) {
            None => others.push(index),
            Some(same) => known.push(KnownImage {
                id: sample.id,
                label: sample.label,
                trusted_label: trusted.samples()[same[0]].label,
                group: sample.group.clone(),
                trusted: same.clone(),
            }),
        }
    }
    if others.is_empty() {
        return Err(Error::data(path, format!("every image of the {what}"), "some of them, or other images"));
    }
    Ok((set.subset(&others), known))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::blocks;

    /// A frame keeps its track wherever its copy lies, and one of a test track teaches nothing.
    #[test]
    fn a_trusted_copy_is_of_the_track_of_its_original() {
        let set = blocks(6, 2, 1);
        let in_tracks = |index: usize| (index, Some(format!("track {}", index / 2)));
        let set = set.with_groups((0..6).map(in_tracks)).expect("in range");
        let path = Path::new("checked");
        let copies =
            set.subset(&[1, 2]).with_groups([(0, None), (1, Some("other".to_owned()))]).expect("in range");
        let (left, known) = without(&set, &copies, "set to audit", path).expect("others are left");
        assert_eq!(left.len(), 4);
        let copies = with_groups_of(&copies, &known).expect("in range");
        let groups: Vec<_> = copies.samples().iter().map(|sample| sample.group.as_deref()).collect();
        assert_eq!(groups, [Some("track 0"), Some("track 1")]);
        let tested = BTreeSet::from(["track 1".to_owned()]);
        assert_eq!(hash(&untested(&copies, &tested, path).expect("one is left")), hash(&copies.subset(&[0])));
        let error = untested(&copies.subset(&[1]), &tested, path).expect_err("none").to_string();
        assert!(error.contains("checked") && error.contains("tested on alone"), "{error}");
    }

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

    /// Whoever checks images keeps them at another place, and may put some under another class.
    #[test]
    fn what_is_trusted_is_not_audited_wherever_it_lies() {
        let set = blocks(20, 2, 1);
        let path = Path::new("checked");
        let moved = |indices: &[usize]| {
            let part = set.subset(indices);
            let samples = part.samples().iter().enumerate().map(|(place, sample)| {
                Sample::new(format!("checked/{place}"), 1 - sample.label, None, sample.path.as_bytes())
            });
            let pixels = (0..part.len()).flat_map(|index| part.pixels(index).expect("in memory")).collect();
            Dataset::from_images(samples.collect(), set.classes().to_vec(), set.size(), pixels)
                .expect("a set")
        };
        let (left, known) = without(&set, &moved(&[0, 3]), "set to audit", path).expect("others are left");
        assert_eq!(left.len(), 18);
        let numbers: Vec<usize> =
            left.samples().iter().map(|sample| sample.path[6..].parse().expect("a number")).collect();
        assert!(!numbers.contains(&0) && !numbers.contains(&3), "{numbers:?}");
        let expected = [(0, 0), (1, 3)].map(|(place, index): (usize, usize)| {
            let Sample { id, label, ref group, .. } = set.samples()[index];
            KnownImage { id, label, trusted_label: 1 - label, group: group.clone(), trusted: vec![place] }
        });
        assert_eq!(known, expected);
        let (all, known) = without(&set, &blocks(20, 2, 2), "set to audit", path).expect("other images");
        assert_eq!((hash(&all), known), (hash(&set), Vec::new()));
        let twice = set.subset(&[0, 0]).with_labels([(1, 1)]).expect("in range");
        let error = without(&set, &twice, "set to audit", path).expect_err("two classes").to_string();
        assert!(error.contains("image-0 as \"class 0\"") && error.contains("two classes"), "{error}");
        let error = without(&set, &set, "test part", path).expect_err("none is left").to_string();
        assert!(error.contains("checked") && error.contains("every image of the test part"), "{error}");
    }

    #[test]
    fn a_limit_that_no_class_reaches_keeps_all() {
        let set = blocks(20, 2, 1);
        for most in [0, 10, 100] {
            assert_eq!(hash(&limited(&set, most)), hash(&set), "{most}");
        }
    }
}
