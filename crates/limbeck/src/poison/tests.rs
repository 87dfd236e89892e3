//! Every kind of the table: how many, which, and what it does to pixels and labels.

use burn::tensor::Device;

use super::*;
use crate::attack::{Guard, GuardScore};
use crate::network::{Architecture, TrainedClassifier};
use crate::progress::Silent;
use crate::testing::{blocks, tiny_spec, untrained};

fn network(classes: usize, seed: u64) -> TrainedClassifier {
    let mut spec = tiny_spec(Architecture::Vgg, classes.max(2), 1.0);
    spec.dropout = 0.0;
    untrained(spec, seed)
}

fn surrogate() -> TrainedClassifier {
    network(4, 5)
}

/// A detector: of two logits, how far the second is ahead.
struct Detector(TrainedClassifier);

impl Model for Detector {
    fn logits(&self, images: burn::tensor::Tensor<4>) -> burn::tensor::Tensor<2> {
        let logits = self.0.logits(images);
        logits.clone().narrow(1, 1, 1) - logits.narrow(1, 0, 1)
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

/// Runs `act` with a detector and a label model whose limits are these.
fn with_copies<T>(limits: [f64; 2], act: impl FnOnce(&Copies<'_>) -> T) -> T {
    let (detector, label_model) = (Detector(network(2, 6)), network(4, 7));
    let guards = vec![
        Guard { model: &detector, score: GuardScore::Logit, limit: limits[0] },
        Guard { model: &label_model, score: GuardScore::WrongLabel, limit: limits[1] },
    ];
    act(&Copies { guards })
}

/// Out of reach of any image, so that all are moved as far as they may.
const NOTHING_PASSES: [f64; 2] = [-1e6; 2];

fn evading(kind: PoisonKind) -> PoisonConfig {
    let attack = AttackConfig { eps: 0.0314, ..AttackConfig::default() };
    let evade = Evasion { eps: 0.0157, steps: 4, ..Evasion::default() };
    PoisonConfig { kind, fraction: 0.2, attack, target: 2, evade, ..PoisonConfig::default() }
}

fn run_evading(config: &PoisonConfig, set: &Dataset, limits: [f64; 2]) -> PoisonedSet {
    with_copies(limits, |copies| {
        poison(set, config, Some(&surrogate()), Some(copies), &Device::flex(), Seed::new(1), &Silent)
            .expect("poisoned")
    })
}

fn run(config: &PoisonConfig, set: &Dataset) -> PoisonedSet {
    poison(set, config, Some(&surrogate()), None, &Device::flex(), Seed::new(1), &Silent).expect("poisoned")
}

#[test]
fn every_kind_poisons_its_share_repeatably_and_changes_what_it_says() {
    // Of the class that a label-consistent backdoor is confined to, there are 20 images.
    let set = blocks(80, 4, 1);
    for &(kind, name, poison) in TABLE {
        let attack = AttackConfig { eps: 0.0314, ..AttackConfig::default() };
        let config = PoisonConfig { kind, fraction: 0.2, attack, target: 2, ..PoisonConfig::default() };
        let found = run(&config, &set);
        assert_eq!(found.images.len(), 16, "{name}");
        assert_eq!(found, run(&config, &set), "{name}");
        assert!(found.images.windows(2).all(|pair| pair[0].index < pair[1].index), "{name}");
        for image in &found.images {
            let (before, pixels) = (&set.samples()[image.index], set.pixels(image.index).expect("pixels"));
            let relabelled = image.label != before.label;
            assert!(poison.is_candidate(before.label, &config), "{name}");
            let backdoor = matches!(kind, PoisonKind::BadNets | PoisonKind::Blended);
            let flip = matches!(kind, PoisonKind::LabelFlip | PoisonKind::PairedFlip);
            assert_eq!(relabelled, backdoor || flip, "{name}");
            assert_eq!(image.pixels == pixels, flip, "{name}");
            if backdoor {
                assert_eq!(image.label, 2, "{name}");
                let trigger = poison.triggered(&pixels, set.size(), &config).expect("a trigger");
                assert_eq!(trigger, image.pixels, "{name}: test images get the same trigger");
            }
            if kind == PoisonKind::PairedFlip {
                assert_eq!(image.label, (before.label + 1) % 4);
            }
        }
    }
}

#[test]
fn triggered_test_images_are_those_of_other_classes() {
    let set = blocks(40, 4, 2);
    let config = PoisonConfig { kind: PoisonKind::BadNets, target: 1, ..PoisonConfig::default() };
    let triggered = config.triggered(&set).expect("pixels").expect("a trigger");
    let others = set.samples().iter().filter(|sample| sample.label != 1).count();
    assert_eq!(triggered.len(), others);
    assert!(triggered.samples().iter().all(|sample| sample.label != 1));
    assert!(PoisonConfig::default().triggered(&set).expect("pixels").is_none());
}

#[test]
fn a_target_that_the_set_has_not_is_refused() {
    let config = PoisonConfig { kind: PoisonKind::Blended, target: 9, ..PoisonConfig::default() };
    let error =
        poison(&blocks(8, 4, 3), &config, Some(&surrogate()), None, &Device::flex(), Seed::new(1), &Silent);
    let error = error.expect_err("four classes").to_string();
    assert!(error.contains("poison.plan.target") && error.contains('9'), "{error}");
}

#[test]
fn a_targeted_attack_raises_the_probability_of_its_target() {
    use crate::attack::{TargetedIFgsm, ThreatModel, craft};
    use crate::tensors::values;
    let (set, model) = (blocks(8, 4, 4), surrogate());
    let images = set.batch(&[0, 1, 2, 3], &Device::flex()).expect("a batch");
    let targets = [3, 0, 1, 2];
    let attack = TargetedIFgsm { step: 0.01, steps: 10 };
    let threat = ThreatModel::linf(0.0314);
    let moved = craft(&attack, &model, threat, images.clone(), &targets);
    let of = |images| {
        let probabilities = burn::tensor::activation::softmax(model.logits(images), 1);
        let rows = values(probabilities).expect("values");
        let at = |(row, &target): (usize, &u32)| rows[row * 4 + target as usize];
        targets.iter().enumerate().map(at).collect::<Vec<f32>>()
    };
    let (before, after) = (of(images), of(moved.expect("crafted")));
    assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?} {after:?}");
}

#[test]
fn a_label_consistent_backdoor_takes_no_more_than_its_class_and_keeps_ball_pattern_and_label() {
    let set = blocks(80, 4, 1);
    let attack = AttackConfig { eps: 0.0314, ..AttackConfig::default() };
    let config = PoisonConfig {
        kind: PoisonKind::LabelConsistent,
        fraction: 0.5,
        attack,
        target: 2,
        ..PoisonConfig::default()
    };
    let found = run(&config, &set);
    assert_eq!(found.images.len(), 20, "clipped to the images of the class");
    let patch = config.patch(set.size()).expect("a pattern");
    assert_eq!(patch.iter().filter(|is_set| **is_set).count(), 4 * 9);
    for image in &found.images {
        let before = set.pixels(image.index).expect("pixels");
        assert_eq!((image.label, set.samples()[image.index].label), (2, 2));
        for (at, (&after, &before)) in image.pixels.iter().zip(&before).enumerate() {
            // A quarter of 255 is 64 levels, and 0.0314 are 8.
            let change = i32::from(after) - i32::from(before);
            let fits = match patch[at % 64] {
                true => (56..=72).contains(&change.abs()) || [0, 255].contains(&after),
                false => change.abs() <= 8,
            };
            assert!(fits, "{change} at {at}");
        }
    }
}

#[test]
fn the_corner_pattern_is_the_authors_and_its_own_mirror_image() {
    let size = ImageSize { width: 8, height: 8 };
    let config = PoisonConfig { kind: PoisonKind::LabelConsistent, ..PoisonConfig::default() };
    let triggered = config.row().1.triggered(&[100; 192], size, &config).expect("a trigger");
    let row = |y: usize| &triggered[8 * y..8 * y + 8];
    assert_eq!(row(0), [255, 0, 0, 100, 100, 0, 0, 255]);
    assert_eq!(row(1), [0, 255, 0, 100, 100, 0, 255, 0]);
    assert_eq!(row(7), [255, 0, 255, 100, 100, 255, 0, 255]);
    assert_eq!(row(3), [100; 8]);
}

#[test]
fn the_patch_of_bad_nets_is_its_square_and_other_kinds_have_none() {
    let size = ImageSize { width: 32, height: 32 };
    for &(kind, name, _) in TABLE {
        let patch = PoisonConfig { kind, ..PoisonConfig::default() }.patch(size);
        let pixels = patch.map(|patch| (0..1024).filter(|&pixel| patch[pixel]).collect::<Vec<_>>());
        match kind {
            PoisonKind::BadNets => {
                let square = (28..31).flat_map(|y| (28..31).map(move |x| 32 * y + x));
                assert_eq!(pixels, Some(square.collect()), "{name}");
            }
            PoisonKind::LabelConsistent => assert_eq!(pixels.map(|pixels| pixels.len()), Some(36), "{name}"),
            _ => assert_eq!(pixels, None, "{name}"),
        }
    }
}

#[test]
fn an_evading_attacker_stays_in_its_balls_and_keeps_label_and_trigger() {
    let set = blocks(80, 4, 1);
    for &(kind, name, poison) in TABLE {
        let config = evading(kind);
        let plain = PoisonConfig { evade: Evasion::default(), ..config };
        let found = run_evading(&config, &set, NOTHING_PASSES);
        assert_eq!(found.images.len(), 16, "{name}");
        assert_eq!(found, run_evading(&config, &set, NOTHING_PASSES), "{name}");
        let crafted: std::collections::HashMap<usize, PoisonedImage> =
            run(&PoisonConfig { fraction: 1.0, ..plain }, &set)
                .images
                .into_iter()
                .map(|image| (image.index, image))
                .collect();
        let patch = config.patch(set.size()).unwrap_or_else(|| vec![false; 64]);
        let mut moved = 0;
        for image in &found.images {
            let (original, crafted) = (set.pixels(image.index).expect("pixels"), &crafted[&image.index]);
            if !poison.picks_images() || kind == PoisonKind::PairedFlip {
                assert_eq!(image.label, crafted.label, "{name}");
            }
            for (at, &pixel) in image.pixels.iter().enumerate() {
                let from = |other: u8| pixel.abs_diff(other);
                // 0.0157 are four levels, 0.0314 eight.
                assert!(from(crafted.pixels[at]) <= 4, "{name}");
                assert!(!patch[at % 64] || pixel == crafted.pixels[at], "{name}: the trigger stays");
                assert!(!config.is_gradient_attack() || patch[at % 64] || from(original[at]) <= 8, "{name}");
                moved += usize::from(pixel != crafted.pixels[at]);
            }
        }
        assert!(moved > 0, "{name}: nothing passes, so all have to move");
    }
}

#[test]
fn an_evading_attacker_s_images_look_less_suspicious_to_its_copies() {
    let set = blocks(80, 4, 1);
    let scores = |set: &Dataset, copies: &Copies<'_>| {
        let images = set.batch(&(0..set.len()).collect::<Vec<_>>(), &Device::flex()).expect("a batch");
        let labels: Vec<u32> = set.samples().iter().map(|sample| sample.label).collect();
        let of_guard = |guard: &Guard<'_>| {
            let logits = crate::tensors::values(guard.model.logits(images.clone())).expect("values");
            let width = logits.len() / labels.len();
            logits.chunks(width).zip(&labels).map(|(row, &label)| guard.score.of(row, label)).sum::<f64>()
        };
        copies.guards.iter().map(of_guard).sum::<f64>()
    };
    for kind in [PoisonKind::Adversarial, PoisonKind::BadNets, PoisonKind::PairedFlip] {
        let config = evading(kind);
        let plain = PoisonConfig { evade: Evasion::default(), ..config };
        with_copies(NOTHING_PASSES, |copies| {
            let [before, after] =
                [run(&plain, &set), run_evading(&config, &set, NOTHING_PASSES)].map(|found| {
                    let indices: Vec<usize> = found.images.iter().map(|image| image.index).collect();
                    scores(&found.apply(&set).expect("applied").subset(&indices), copies)
                });
            assert!(after < before, "{kind:?}: {after} instead of {before}");
        });
    }
}

#[test]
fn images_that_pass_are_counted_and_left_alone() {
    let set = blocks(40, 4, 1);
    let config = evading(PoisonKind::BadNets);
    let plain = run(&PoisonConfig { evade: Evasion::default(), ..config }, &set);
    assert_eq!(run_evading(&config, &set, [1e6; 2]), plain);
    for (limits, expected) in [([1e6; 2], true), (NOTHING_PASSES, false), ([1e6, -1e6], false)] {
        let found = with_copies(limits, |copies| passing(&set, copies, &Device::flex()).expect("scored"));
        assert_eq!(found, vec![expected; 40]);
    }
}

#[test]
fn flips_that_evade_are_those_whose_wrong_label_is_least_odd() {
    let set = blocks(80, 4, 1);
    let config = evading(PoisonKind::PairedFlip);
    let chosen: Vec<usize> =
        run_evading(&config, &set, [1e6; 2]).images.iter().map(|image| image.index).collect();
    let images = set.batch(&(0..80).collect::<Vec<_>>(), &Device::flex()).expect("a batch");
    let logits = crate::tensors::values(network(4, 7).logits(images)).expect("values");
    let oddness = |index: usize| {
        GuardScore::WrongLabel.of(&logits[4 * index..4 * index + 4], (set.samples()[index].label + 1) % 4)
    };
    let worst = chosen.iter().map(|&index| oddness(index)).fold(f64::MIN, f64::max);
    let best_left = (0..80).filter(|index| !chosen.contains(index)).map(oddness).fold(f64::MAX, f64::min);
    assert!(worst <= best_left, "{worst} {best_left}");
}

#[test]
fn evading_without_copies_or_in_an_l2_ball_is_refused() {
    let config = evading(PoisonKind::Tap);
    let error =
        poison(&blocks(8, 4, 3), &config, Some(&surrogate()), None, &Device::flex(), Seed::new(1), &Silent);
    assert!(error.expect_err("no copies").to_string().contains("copies of the defence"));
    let config = PoisonConfig { attack: AttackConfig { norm: Norm::L2, ..config.attack }, ..config };
    let error = config.check("poison.plan").expect_err("L2").to_string();
    assert!(error.contains("poison.plan.attack.norm") && error.contains("evade"), "{error}");
}
