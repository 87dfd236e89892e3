use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::dataset::ImageSize;

/// A set of 1 x 1 images of these (label, group) pairs.
fn set(samples: &[(u32, Option<String>)]) -> Dataset {
    let classes = 1 + samples.iter().map(|(label, _)| *label).max().unwrap_or(0).max(1);
    let samples: Vec<_> = samples
        .iter()
        .enumerate()
        .map(|(i, (label, group))| Sample::new(format!("{i}.png"), *label, group.clone(), b""))
        .collect();
    let pixels = vec![0; 3 * samples.len()];
    let names = (0..classes).map(|class| class.to_string()).collect();
    Dataset::from_images(samples, names, ImageSize { width: 1, height: 1 }, pixels).expect("valid")
}

/// `groups[class]` lists the sizes of the groups of a class; size 1 is an image without a group.
fn grouped(groups: &[Vec<usize>]) -> Dataset {
    let mut samples = Vec::new();
    for (class, sizes) in groups.iter().enumerate() {
        for (number, &size) in sizes.iter().enumerate() {
            let name = (size > 1).then(|| format!("{class}_{number}"));
            samples.extend((0..size).map(|_| (class as u32, name.clone())));
        }
    }
    set(&samples)
}

fn groups_in<'a>(set: &'a Dataset, side: &[usize]) -> BTreeSet<&'a str> {
    side.iter().filter_map(|&index| set.samples()[index].group.as_deref()).collect()
}

fn arb_groups() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let class = proptest::collection::vec(1usize..6, 1..9);
    proptest::collection::vec(class, 2..5)
}

proptest! {
    #[test]
    fn sides_are_disjoint_complete_and_keep_groups_whole(
        groups in arb_groups(), seed: u64, calibration in 0.05f64..0.5, test in 0.05f64..0.4,
    ) {
        let set = grouped(&groups);
        let config = SplitConfig { trusted: 0.0, calibration, test, seed };
        let split = Split::draw(&set, &config, TestPart::Drawn, 0).expect("one label a group");
        let mut all = [&split.train[..], &split.calibration, &split.test].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..set.len()).collect::<Vec<_>>());
        let sides = [&split.train, &split.calibration, &split.test].map(|s| groups_in(&set, s));
        prop_assert!(sides[0].is_disjoint(&sides[1]));
        prop_assert!(sides[0].is_disjoint(&sides[2]));
        prop_assert!(sides[1].is_disjoint(&sides[2]));
        for (class, sizes) in groups.iter().enumerate() {
            let has = |side: &[usize]| {
                side.iter().any(|&index| set.samples()[index].label as usize == class)
            };
            prop_assert!(has(&split.train));
            prop_assert!(sizes.len() < 2 || has(&split.calibration));
            prop_assert!(sizes.len() < 3 || has(&split.test));
        }
    }

    #[test]
    fn the_order_of_samples_does_not_matter(groups in arb_groups(), seed: u64) {
        let set = grouped(&groups);
        let reversed: Vec<_> = (0..set.len()).rev().collect();
        let mirrored = set.subset(&reversed);
        let config = SplitConfig { seed, ..SplitConfig::default() };
        let ids = |set: &Dataset| -> [BTreeSet<SampleId>; 4] {
            let split = Split::draw(set, &config, TestPart::Drawn, 0).expect("one label a group");
            [split.train, split.calibration, split.trusted, split.test]
                .map(|side| side.iter().map(|&index| set.samples()[index].id).collect())
        };
        prop_assert_eq!(ids(&set), ids(&mirrored));
    }
}

#[test]
fn trusted_images_come_from_most_groups() {
    let set = grouped(&[vec![30; 40], vec![30; 40]]);
    let config = SplitConfig { trusted: 0.1, ..SplitConfig::default() };
    let split = Split::draw(&set, &config, TestPart::Separate, 0).expect("valid");
    // 3 of 30 on average: a group is missed with probability 0.9^30 = 0.04.
    let groups = groups_in(&set, &split.trusted).len();
    assert!(
        split.trusted.len() == 240 && groups >= 70,
        "{} images of {groups} of 80 groups",
        split.trusted.len()
    );
}

#[test]
fn one_seed_one_split_and_another_seed_another() {
    let set = grouped(&[vec![3; 20], vec![3; 20]]);
    let draw = |seed| {
        let config = SplitConfig { seed, ..SplitConfig::default() };
        Split::draw(&set, &config, TestPart::Separate, 0).expect("one label a group")
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

/// What is tested on, and what no classifier is trained on, is the same for runs of every seed.
#[test]
fn another_seed_of_a_run_trusts_other_images_of_the_same_sides() {
    let set = grouped(&[vec![10; 20], vec![10; 20]]);
    let draw = |seed| Split::draw(&set, &SplitConfig::default(), TestPart::Drawn, seed).expect("valid");
    let (one, other) = (draw(1), draw(2));
    assert_ne!(one.trusted, other.trusted);
    assert_eq!(one.trusted.len(), other.trusted.len());
    assert_eq!(one.test, other.test);
    assert_eq!(groups_in(&set, &one.calibration), groups_in(&set, &other.calibration));
    assert_eq!(groups_in(&set, &one.train), groups_in(&set, &other.train));
    for split in [&one, &other] {
        let of_calibration = groups_in(&set, &split.calibration);
        let expected: Vec<usize> = split
            .trusted
            .iter()
            .copied()
            .filter(|&index| {
                set.samples()[index].group.as_deref().is_some_and(|group| of_calibration.contains(group))
            })
            .collect();
        assert_eq!(split.trusted_for_calibration, expected);
        assert!(!expected.is_empty());
    }
}

/// Presets hold out different shares: a model of one is tested under another.
#[test]
fn what_is_tested_on_does_not_hang_on_what_is_held_out() {
    let set = grouped(&[vec![10; 20], vec![1; 60]]);
    let draw = |calibration| {
        let config = SplitConfig { calibration, ..SplitConfig::default() };
        Split::draw(&set, &config, TestPart::Drawn, 1).expect("valid")
    };
    assert!(draw(0.15).calibration.len() > draw(0.05).calibration.len());
    assert_eq!(draw(0.15).test, draw(0.05).test);
}

#[test]
fn fractions_are_met_in_each_class_to_half_a_group() {
    let set = grouped(&[vec![1; 100], vec![5; 40]]);
    let split = Split::draw(&set, &SplitConfig::default(), TestPart::Drawn, 0).expect("valid");
    let count =
        |side: &[usize], label| side.iter().filter(|&&index| set.samples()[index].label == label).count();
    // 15 of 100 single images; 30 of 200 images in groups of five; of what is no test image a twentieth, 4 and 9.
    assert_eq!((count(&split.test, 0), count(&split.test, 1)), (15, 30));
    assert_eq!((count(&split.trusted, 0), count(&split.trusted, 1)), (4, 9));
    let untrusted = SplitConfig { trusted: 0.0, ..SplitConfig::default() };
    let split = Split::draw(&set, &untrusted, TestPart::Drawn, 0).expect("valid");
    assert_eq!((count(&split.calibration, 0), count(&split.calibration, 1)), (15, 30));
}

#[test]
fn a_separate_test_part_or_a_fraction_of_zero_draws_nothing() {
    let set = grouped(&[vec![1; 10], vec![1; 10]]);
    let config = SplitConfig { trusted: 0.0, calibration: 0.0, ..SplitConfig::default() };
    let split = Split::draw(&set, &config, TestPart::Separate, 0).expect("valid");
    assert_eq!((split.train.len(), split.calibration.len(), split.test.len()), (20, 0, 0));
}

#[test]
fn every_class_of_the_embedded_sample_is_in_training_and_calibration() {
    let source = Source::embedded().expect("built in");
    let size = ImageSize { width: 1, height: 1 };
    let set = Dataset::load(&source, Part::Train, size, &mut |_, _| {}).expect("built in");
    let split = Split::draw(&set, &SplitConfig::default(), TestPart::of(&source), 0).expect("valid");
    let classes =
        |side: &[usize]| -> BTreeSet<u32> { side.iter().map(|&index| set.samples()[index].label).collect() };
    assert_eq!((classes(&split.train).len(), classes(&split.calibration).len()), (43, 43));
    let of_class = |class| split.trusted.iter().filter(|&&index| set.samples()[index].label == class).count();
    assert!((0..43).all(|class| of_class(class) == 4), "five in a hundred are two, the least is four");
    assert!(split.test.is_empty());
}

#[test]
fn a_class_that_training_would_miss_is_named() {
    // The only image of class 1 lies in a group of class 0, and some seed draws that group.
    let group = |name: &str| Some(name.to_owned());
    let set = set(&[(0, group("a")), (0, group("b")), (0, group("b")), (1, group("b")), (0, group("c"))]);
    let errors: Vec<_> = (0..20)
        .map(|seed| SplitConfig { seed, ..SplitConfig::default() })
        .filter_map(|config| Split::draw(&set, &config, TestPart::Drawn, 0).err())
        .collect();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|e| e.to_string().contains("no training image of class 1")));
}

#[test]
fn fractions_out_of_range_are_refused() {
    let set = grouped(&[vec![1; 4], vec![1; 4]]);
    for (calibration, test) in [(-0.1, 0.1), (f64::NAN, 0.1), (0.5, 0.5), (0.1, 1.0)] {
        let config = SplitConfig { trusted: 0.0, calibration, test, seed: 0 };
        assert!(Split::draw(&set, &config, TestPart::Drawn, 0).is_err(), "{calibration} {test}");
    }
    let config = SplitConfig { trusted: 0.0, calibration: 0.5, test: 0.9, seed: 0 };
    assert!(Split::draw(&set, &config, TestPart::Separate, 0).is_ok(), "test is not used");
}

#[test]
fn folds_have_whole_groups_and_about_as_many_images_of_each_class() {
    let set = grouped(&[vec![30; 8], vec![5; 21], vec![7]]);
    let fold_of = group_folds(&set, 3, 7);
    for (index, sample) in set.samples().iter().enumerate() {
        let first = set.samples().iter().position(|other| other.group == sample.group).expect("itself");
        assert_eq!(fold_of[index], fold_of[first], "{:?} lies in two folds", sample.group);
    }
    let images = |class: u32, fold: usize| {
        (0..set.len()).filter(|&index| set.samples()[index].label == class && fold_of[index] == fold).count()
    };
    let by_fold = |class: u32| [0, 1, 2].map(|fold| images(class, fold));
    assert!(by_fold(0).iter().all(|images| [60, 90].contains(images)), "{:?}", by_fold(0));
    assert_eq!(by_fold(1), [35; 3]);
    assert_eq!(by_fold(2).iter().sum::<usize>(), 7);
    assert_eq!(fold_of, group_folds(&set, 3, 7));
    assert_ne!(fold_of, group_folds(&set, 3, 8));
}
