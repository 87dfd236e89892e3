//! Every kind of the table: how many, which, and what it does to pixels and labels.

use burn::tensor::Device;

use super::*;
use crate::network::{Architecture, TrainedClassifier};
use crate::progress::Silent;
use crate::testing::{blocks, tiny_spec};

fn surrogate() -> TrainedClassifier {
    let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
    let network = spec.init(&Device::flex(), &mut Seed::new(5).rng("weights")).expect("the spec fits");
    TrainedClassifier::freeze(&network, spec, &Device::flex())
}

fn run(config: &PoisonConfig, set: &Dataset) -> PoisonedSet {
    poison(set, config, &surrogate(), &Device::flex(), Seed::new(1), &Silent).expect("poisoned")
}

#[test]
fn every_kind_poisons_its_share_repeatably_and_changes_what_it_says() {
    let set = blocks(80, 4, 1);
    for &(kind, name, poison) in TABLE {
        let attack = AttackConfig { eps: 0.0314, ..AttackConfig::default() };
        let config = PoisonConfig { kind, fraction: 0.25, attack, target: 2, ..PoisonConfig::default() };
        let found = run(&config, &set);
        assert_eq!(found.images.len(), 20, "{name}");
        assert_eq!(found, run(&config, &set), "{name}");
        assert!(found.images.windows(2).all(|pair| pair[0].index < pair[1].index), "{name}");
        for image in &found.images {
            let (before, pixels) = (&set.samples()[image.index], set.pixels(image.index).expect("pixels"));
            let relabelled = image.label != before.label;
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
    let error = poison(&blocks(8, 4, 3), &config, &surrogate(), &Device::flex(), Seed::new(1), &Silent);
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
