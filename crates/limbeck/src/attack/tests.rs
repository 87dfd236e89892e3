//! Laws that hold for every attack of the table, closed forms, and finite differences for every operation that an attack
//! differentiates through.

use burn::tensor::activation::{log_softmax, relu, sigmoid, softmax};
use burn::tensor::module::{conv2d, interpolate, linear, max_pool2d};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;

use super::draws::Draws;
use super::gradient::Logits;
use super::*;
use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec, Defended, TrainedClassifier, Views};
use crate::rng::Seed;
use crate::tensors::values;
use crate::testing::{LinearModel, tiny_spec, uniform, untrained, untrained_autoencoder};

/// Classes of the tests' networks: a targeted ratio of logits needs four.
const CLASSES: usize = 5;

/// Values of a test image, 3x8x8.
const VALUES: usize = 192;

/// Every attack on every ball that it is made for; an L2 ball with the same root mean square as the L-infinity ball of `eps`.
fn every_attack(eps: f64) -> Vec<AttackConfig> {
    let of_norm = |kind, norm| match norm {
        Norm::Linf => AttackConfig::linf(kind, eps),
        Norm::L2 => AttackConfig::l2(kind, eps * (VALUES as f64).sqrt()),
    };
    let kinds = TABLE.iter().map(|family| family.kind);
    kinds
        .flat_map(|kind| kind.norms().iter().map(move |&norm| of_norm(kind, norm)))
        .map(|config| match config.kind {
            // Fewer than published, for time; a step that crosses the ball twice; several draws, as one may do no harm.
            AttackKind::CarliniWagner => AttackConfig { steps: 100, ..config },
            AttackKind::ApgdCe | AttackKind::ApgdDlr | AttackKind::ApgdT | AttackKind::FabT => {
                AttackConfig { steps: 30, targets: 3, restarts: 2, ..config }
            }
            AttackKind::Square | AttackKind::AutoAttack => {
                AttackConfig { steps: 20, targets: 3, queries: 300, ..config }
            }
            _ => AttackConfig { step: config.eps.max(0.001) / 4.0, steps: 10, restarts: 10, ..config },
        })
        .collect()
}

fn run(config: &AttackConfig, model: &dyn Model, images: &Tensor<4>, classes: &[u32]) -> Tensor<4> {
    craft(config.build().as_ref(), model, config.threat(), images.clone(), classes).expect("the attack runs")
}

fn classifier(architecture: Architecture) -> TrainedClassifier {
    let spec = tiny_spec(architecture, CLASSES, 1.0);
    untrained(spec, 3)
}

/// Cross-entropy of each image.
fn losses(model: &dyn Model, images: Tensor<4>, classes: &[u32]) -> Vec<f64> {
    let [_, width] = model.logits(images.clone()).dims();
    let logits = values(model.logits(images)).expect("values");
    let rows = logits.chunks_exact(width).zip(classes);
    rows.map(|(row, &class)| cross_entropy(row, class as usize, &mut vec![0.0; width])).collect()
}

/// Length of each image's perturbation in the norm.
fn lengths(norm: Norm, images: &Tensor<4>, attacked: &Tensor<4>) -> Vec<f64> {
    let of_image = |(before, after): (&[f32], &[f32])| {
        let changes = before.iter().zip(after).map(|(a, b)| f64::from(b - a).abs());
        match norm {
            Norm::Linf => changes.fold(0.0, f64::max),
            Norm::L2 => changes.map(|change| change.powi(2)).sum::<f64>().sqrt(),
        }
    };
    let [before, after] = [images, attacked].map(|images| values(images.clone()).expect("values"));
    let length = before.len() / images.dims()[0];
    before.chunks_exact(length).zip(after.chunks_exact(length)).map(of_image).collect()
}

#[test]
fn every_attack_stays_in_the_ball_and_the_box_repeats_itself_and_raises_the_loss() {
    let images = uniform([6, 3, 8, 8], 0.0, 1.0, 1);
    let model = classifier(Architecture::Vgg);
    let classes = crate::tensors::argmax(model.logits(images.clone())).expect("answers");
    let before: f64 = losses(&model, images.clone(), &classes).iter().sum();
    let logits = values(model.logits(images.clone())).expect("values");
    for config in every_attack(0.03) {
        let name = config.label();
        let attacked = run(&config, &model, &images, &classes);
        let reach = config.threat().reach(VALUES);
        let lengths = lengths(config.norm, &images, &attacked);
        assert!(lengths.iter().all(|length| *length <= reach), "{name} leaves the ball: {lengths:?}");
        let pixels = values(attacked.clone()).expect("values");
        assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)), "{name} leaves the box");
        let again = values(run(&config, &model, &images, &classes)).expect("values");
        assert_eq!(pixels, again, "{name} is not deterministic");
        let after: f64 = losses(&model, attacked, &classes).iter().sum();
        assert!(after > before, "{name} does not raise the loss: {before} to {after}");
        assert_eq!(values(model.logits(images.clone())).expect("values"), logits, "{name} changes the model");
    }
}

#[test]
fn attacks_that_draw_follow_their_seed() {
    let (images, classes) = (uniform([2, 3, 8, 8], 0.2, 0.8, 1), [0, 1]);
    let model = classifier(Architecture::Vgg);
    for config in every_attack(0.03) {
        let config = AttackConfig { restarts: 1, ..config };
        let of_seed =
            |seed| values(run(&AttackConfig { seed, ..config }, &model, &images, &classes)).expect("values");
        let draws = !matches!(
            config.kind,
            AttackKind::Fgsm
                | AttackKind::IFgsm
                | AttackKind::MiFgsm
                | AttackKind::CarliniWagner
                | AttackKind::FabT
                | AttackKind::Universal
        );
        assert_eq!(of_seed(1) != of_seed(2), draws, "{}", config.label());
    }
}

#[test]
fn an_attack_with_eps_0_changes_nothing() {
    let images = uniform([2, 3, 8, 8], 0.0, 1.0, 2);
    for config in every_attack(0.0) {
        let attacked = run(&config, &classifier(Architecture::Vgg), &images, &[0, 1]);
        assert_eq!(
            values(attacked).expect("values"),
            values(images.clone()).expect("values"),
            "{}",
            config.label()
        );
    }
}

#[test]
fn an_attack_s_result_for_an_image_does_not_depend_on_its_neighbours() {
    let images = uniform([4, 3, 8, 8], 0.0, 1.0, 4);
    let model = classifier(Architecture::Vgg);
    for config in every_attack(0.02) {
        if config.kind == AttackKind::Universal {
            continue;
        }
        let together = values(run(&config, &model, &images, &[0, 1, 2, 0])).expect("values");
        let alone = values(run(&config, &model, &images.clone().narrow(0, 1, 1), &[1])).expect("values");
        let near = |(a, b): &(&f32, &f32)| (*a - *b).abs() < 1e-5;
        let same = alone.iter().zip(&together[192..384]).filter(near).count();
        // A gradient near zero may change its sign with the order of a sum.
        assert!(same >= 190, "{}: only {same} of 192 pixels agree", config.label());
    }
}

/// For logits (0, w·x) and label 0 the loss rises with w·x, so the optimum is x + eps sign(w), sign(0) = 0, or x + eps w / ‖w‖₂.
/// The shortest perturbation that leaves w·x > 0 just behind has the length w·x / ‖w‖₂.
#[test]
fn every_attack_finds_the_closed_form_optimum_of_a_linear_model() {
    let weights = uniform([1, 3, 8, 8], -1.0, 1.0, 5);
    let weights = weights.clone() * weights.clone().abs().greater_elem(0.2).float();
    let images = uniform([2, 3, 8, 8], 0.3, 0.7, 6);
    let model = LinearModel(weights.clone());
    let length = values(weights.clone().square().sum()).expect("values")[0].sqrt();
    for config in every_attack(0.05) {
        let direction = match (config.kind, config.norm) {
            (AttackKind::Fgsm | AttackKind::IFgsm | AttackKind::Pgd, Norm::Linf)
            | (AttackKind::MiFgsm | AttackKind::Universal, Norm::Linf) => weights.clone().sign(),
            (AttackKind::Fgsm | AttackKind::IFgsm | AttackKind::Pgd, Norm::L2)
            | (AttackKind::MiFgsm | AttackKind::Universal, Norm::L2) => weights.clone().div_scalar(length),
            // Noise cannot find it; the others stop where the model is fooled.
            _ => continue,
        };
        let attacked = run(&config, &model, &images, &[0, 0]);
        let best = direction.clone().mul_scalar(config.eps);
        let gain = |change: Tensor<4>| {
            values((change * weights.clone()).flatten::<2>(1, 3).sum_dim(1)).expect("values")
        };
        // What a random start moved across a weight of 0 stays; it also takes of the length of an L2 ball.
        let least = if config.norm == Norm::L2 { 0.9 } else { 0.9999 } * gain(best.clone())[0];
        let gains = gain(attacked.clone() - images.clone());
        assert!(gains.iter().all(|gain| *gain >= least), "{}: {gains:?} of {least}", config.label());
        if config.kind != AttackKind::Pgd {
            let distance = values((attacked - images.clone() - best).abs().max()).expect("values")[0];
            assert!(distance < 1e-5, "{} is {distance} from the optimum", config.label());
        }
    }
    let (label, leads): (u32, Vec<f32>) =
        (1, values(model.logits(images.clone()).narrow(1, 1, 1)).expect("values"));
    let config = AttackConfig { steps: 400, ..AttackConfig::l2(AttackKind::CarliniWagner, 10.0) };
    let attacked = run(&config, &model, &images, &[label; 2]);
    for (found, lead) in lengths(Norm::L2, &images, &attacked).iter().zip(leads) {
        let shortest = f64::from(lead.max(0.0) / length);
        assert!(*found >= shortest - 1e-5 && *found < shortest * 1.05 + 1e-3, "{found}, shortest {shortest}");
    }
}

#[test]
fn carlini_and_wagner_s_wrong_class_leads_by_the_confidence() {
    let images = uniform([3, 3, 8, 8], 0.3, 0.7, 6);
    let model = classifier(Architecture::Vgg);
    let classes = crate::tensors::argmax(model.logits(images.clone())).expect("answers");
    let mut before = vec![0.0; 3];
    for confidence in [0.0, 0.5] {
        let config =
            AttackConfig { steps: 200, confidence, ..AttackConfig::l2(AttackKind::CarliniWagner, 20.0) };
        let attacked = run(&config, &model, &images, &classes);
        let margins = Logits::of(&model, attacked.clone(), &classes).expect("logits").margins(&classes);
        assert!(margins.iter().all(|margin| *margin <= -confidence + 1e-4), "{confidence}: {margins:?}");
        let lengths = lengths(Norm::L2, &images, &attacked);
        assert!(lengths.iter().zip(&before).all(|(now, before)| now > before), "{lengths:?} {before:?}");
        before = lengths;
    }
}

/// For logits (0, w·x, −9, …) and label 1, no perturbation below w·x / ‖w‖₁ (L-infinity) or w·x / ‖w‖₂ (L2) fools the model: what stops
/// at the boundary must fool it a little above that, and nothing may below.
#[test]
fn attacks_that_stop_at_the_boundary_find_it_where_a_linear_model_has_it() {
    struct FiveClasses(LinearModel);
    impl Model for FiveClasses {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            let two = self.0.logits(images);
            let rest = two.zeros_like().sub_scalar(9.0);
            Tensor::cat(vec![two, rest.clone(), rest.narrow(1, 0, 1).sub_scalar(1.0)], 1)
        }

        fn device(&self) -> Device {
            self.0.device()
        }
    }
    let weights = uniform([1, 3, 8, 8], -1.0, 1.0, 5);
    let pixels = values(weights.clone()).expect("values");
    let model = FiveClasses(LinearModel(weights.clone()));
    let images = uniform([1, 3, 8, 8], 0.45, 0.55, 6) + weights.sign().mul_scalar(0.02);
    let lead = f64::from(values(model.logits(images.clone())).expect("values")[1]);
    assert!(lead > 0.5, "{lead}");
    let length = |power: i32| pixels.iter().map(|w| f64::from(w.abs()).powi(power)).sum::<f64>();
    for norm in [Norm::Linf, Norm::L2] {
        let shortest = if norm == Norm::Linf { lead / length(1) } else { lead / length(2).sqrt() };
        for (kind, above) in [
            (AttackKind::ApgdCe, 1.02),
            (AttackKind::ApgdDlr, 1.02),
            (AttackKind::ApgdT, 1.02),
            (AttackKind::FabT, 1.02),
            (AttackKind::AutoAttack, 1.02),
            // Random search needs some room: squares have one sign for many weights.
            (AttackKind::Square, 2.5),
        ] {
            for (share, fooled) in [(0.99, false), (above, true)] {
                let config = AttackConfig {
                    kind,
                    norm,
                    eps: share * shortest,
                    queries: 2000,
                    ..AttackConfig::default()
                };
                let attacked = run(&config, &model, &images, &[1]);
                let lead = Logits::of(&model, attacked, &[1]).expect("logits").margins(&[1])[0];
                assert_eq!(lead < 0.0, fooled, "{} at {share} of the shortest: {lead}", config.label());
            }
        }
        let mut walk = AttackConfig { kind: AttackKind::FabT, norm, eps: 0.0, ..AttackConfig::default() };
        walk.steps = 20;
        let found = walk.build().propose(&model, walk.threat(), images.clone(), &[1]).expect("it runs");
        let found = lengths(norm, &images, &found)[0];
        assert!(
            found >= shortest * 0.999 && found < shortest * 1.06,
            "{norm:?}: {found}, shortest {shortest}"
        );
    }
}

#[test]
fn an_ensemble_shows_an_attack_only_what_withstood_those_before_it() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static SHOWN: AtomicUsize = AtomicUsize::new(0);
    /// Counts the images that it is shown, and leaves them as they are.
    struct Watch;
    impl Attack for Watch {
        fn propose(&self, _: &dyn Model, _: ThreatModel, images: Tensor<4>, _: &[u32]) -> Result<Tensor<4>> {
            SHOWN.fetch_add(images.dims()[0], Ordering::Relaxed);
            Ok(images)
        }
    }
    let model = LinearModel(uniform([1, 3, 8, 8], -1.0, 1.0, 5));
    let images = uniform([4, 3, 8, 8], 0.2, 0.8, 6);
    // The first and the third are misread as they are: only the others need an attack, and none withstands an eps of 1.
    let answers = crate::tensors::argmax(model.logits(images.clone())).expect("answers");
    let classes = [1 - answers[0], answers[1], 1 - answers[2], answers[3]];
    for (eps, after_first) in [(0.0, 2), (1.0, 0)] {
        SHOWN.store(0, Ordering::Relaxed);
        let both = Ensemble { attacks: vec![Box::new(Fgsm), Box::new(Watch)] };
        let threat = ThreatModel::linf(eps);
        let attacked = craft(&both, &model, threat, images.clone(), &classes).expect("crafted");
        assert_eq!(SHOWN.load(Ordering::Relaxed), after_first, "eps {eps}");
        let first = |images: Tensor<4>| values(images.narrow(0, 0, 1)).expect("values");
        assert_eq!(
            first(attacked),
            first(images.clone()),
            "an image that is misread as it is stays as it is"
        );
    }
}

/// Each restart takes over the images on which it does better, so more of them never leave a label a larger lead.
#[test]
fn more_restarts_are_never_weaker() {
    let images = uniform([8, 3, 8, 8], 0.2, 0.8, 9);
    let model = classifier(Architecture::ResNet8);
    let classes = crate::tensors::argmax(model.logits(images.clone())).expect("answers");
    for kind in [AttackKind::Pgd, AttackKind::GaussianNoise, AttackKind::UniformNoise] {
        let margins = |restarts| {
            let config = AttackConfig { restarts, ..AttackConfig::linf(kind, 0.004) };
            let attacked = run(&config, &model, &images, &classes);
            Logits::of(&model, attacked, &classes).expect("logits").margins(&classes)
        };
        let (one, many) = (margins(1), margins(6));
        let pairs: Vec<(f64, f64)> = one.into_iter().zip(many).collect();
        assert!(pairs.iter().all(|(one, many)| *many <= one + 1e-6 || *one < 0.0), "{kind:?}: {pairs:?}");
        assert!(pairs.iter().any(|(one, many)| many < one), "{kind:?}: restarts changed nothing");
    }
}

#[test]
fn a_universal_perturbation_learnt_on_some_images_works_on_others_and_is_one_for_all() {
    let set = crate::testing::blocks(64, 3, 1);
    let spec = tiny_spec(Architecture::Vgg, 3, 1.0);
    let device = Device::flex();
    let model = untrained(spec, 3);
    let batch = |from: usize| {
        let indices: Vec<usize> = (from..from + 16).collect();
        (set.batch(&indices, &device).expect("a batch"), set.labels(&indices))
    };
    for threat in [ThreatModel::linf(0.05), ThreatModel::l2(0.5)] {
        let attack = Universal { step: threat.eps / 4.0, passes: 4 };
        let batches = Batches { count: 2, read: &|number| Ok(batch(16 * number)) };
        let fitted = attack.fit(&model, threat, &batches).expect("fitted").expect("it learns");
        let (images, classes) = batch(32);
        let attacked = craft(&*fitted, &model, threat, images.clone(), &classes).expect("crafted");
        let sum = |images| losses(&model, images, &classes).iter().sum::<f64>();
        assert!(sum(attacked.clone()) > sum(images.clone()), "{threat:?}");
        let changes = values(attacked - images).expect("values");
        let (first, others) = changes.split_at(VALUES);
        for change in others.chunks_exact(VALUES) {
            assert!(first.iter().zip(change).all(|(a, b)| (a - b).abs() < 1e-6), "{threat:?}");
        }
        let small = uniform([1, 3, 4, 4], 0.0, 1.0, 1);
        let refusal = craft(&*fitted, &model, threat, small, &[0]).expect_err("another size").to_string();
        assert!(refusal.contains("[3, 4, 4]") && refusal.contains("[3, 8, 8]"), "{refusal}");
    }
}

#[test]
fn labels_that_do_not_fit_images_or_model_are_refused() {
    let images = uniform([2, 3, 8, 8], 0.0, 1.0, 7);
    let refusal = |classes: &[u32]| {
        let model = classifier(Architecture::Vgg);
        craft(&Fgsm, &model, ThreatModel::linf(0.1), images.clone(), classes).expect_err("unfit").to_string()
    };
    let message = refusal(&[0, 1, 2]);
    assert!(message.contains("2 images and 3 labels"), "{message}");
    let message = refusal(&[0, 5]);
    assert!(message.contains("label 5") && message.contains("5 classes"), "{message}");
}

#[test]
fn no_images_are_attacked_to_no_images() {
    for config in every_attack(0.03) {
        let none =
            run(&config, &classifier(Architecture::Vgg), &Tensor::zeros([0, 3, 8, 8], &Device::flex()), &[]);
        assert_eq!(none.dims(), [0, 3, 8, 8], "{}", config.label());
    }
}

#[test]
fn a_ratio_of_logits_that_the_model_is_too_small_for_is_refused() {
    let images = uniform([1, 3, 8, 8], 0.1, 1.0, 7);
    let model = LinearModel(uniform([1, 3, 8, 8], 0.0, 1.0, 5));
    for (kind, expected) in [(AttackKind::ApgdDlr, "3 classes"), (AttackKind::ApgdT, "4 classes")] {
        let config = AttackConfig::linf(kind, 0.01);
        let refusal = craft(&*config.build(), &model, config.threat(), images.clone(), &[1]);
        let message = refusal.expect_err("two classes").to_string();
        assert!(message.contains("2 classes") && message.contains(expected), "{message}");
    }
}

#[test]
fn a_model_whose_logits_are_not_finite_is_reported() {
    let model = LinearModel(Tensor::full([1, 3, 8, 8], f32::INFINITY, &Device::flex()));
    let images = uniform([1, 3, 8, 8], 0.1, 1.0, 7);
    let result = craft(&Fgsm, &model, ThreatModel::linf(0.1), images, &[0]);
    let message = result.expect_err("infinite logits").to_string();
    assert!(message.contains("not finite"), "{message}");
}

#[test]
fn settings_out_of_range_and_norms_that_a_family_lacks_are_refused_by_name() {
    let refusal = |config: AttackConfig| config.check("a").expect_err("out of range").to_string();
    let base = AttackConfig::default();
    base.check("a").expect("the default is within range");
    for (key, config) in [
        ("a.eps", AttackConfig { eps: 1.5, ..base }),
        ("a.eps", AttackConfig { eps: f64::NAN, ..base }),
        ("a.step", AttackConfig { step: -0.1, ..base }),
        ("a.steps", AttackConfig { steps: 1_000_000, ..base }),
        ("a.restarts", AttackConfig { restarts: 0, ..base }),
        ("a.decay", AttackConfig { decay: f64::INFINITY, ..base }),
        ("a.confidence", AttackConfig { confidence: -1.0, ..base }),
        ("a.search_steps", AttackConfig { search_steps: 0, ..base }),
        ("a.norm", AttackConfig::linf(AttackKind::CarliniWagner, 0.1)),
    ] {
        let message = refusal(config);
        assert!(message.contains(key), "{key}: {message}");
    }
    AttackConfig::l2(AttackKind::Pgd, 2.0).check("a").expect("an L2 radius may be above 1");
}

#[test]
fn however_few_steps_reach_the_edge_of_the_ball_where_no_size_is_given() {
    let walk =
        |kind, norm, eps, steps| AttackConfig { kind, norm, eps, steps, ..AttackConfig::default() }.walk();
    for norm in [Norm::Linf, Norm::L2] {
        for kind in [AttackKind::IFgsm, AttackKind::Pgd, AttackKind::MiFgsm, AttackKind::Universal] {
            for steps in [1, 2, 5, 10, 40] {
                let (step, _) = walk(kind, norm, 0.3, steps);
                assert!(step * steps as f64 >= 0.3 - 1e-12, "{kind:?} {norm:?}: {steps} of {step}");
            }
        }
    }
    assert_eq!(walk(AttackKind::Pgd, Norm::Linf, 0.04, 0), (0.01, 10));
    assert_eq!(walk(AttackKind::Pgd, Norm::Linf, 0.04, 50), (0.01, 50), "more steps are no smaller");
    assert_eq!(walk(AttackKind::Pgd, Norm::Linf, 0.04, 1), (0.05, 1), "one goes to 1.25 eps (Wong 2020)");
    assert_eq!(walk(AttackKind::MiFgsm, Norm::Linf, 0.5, 5), (0.1, 5));
    assert_eq!(walk(AttackKind::IFgsm, Norm::Linf, 0.3, 10), (0.03, 10));
}

#[test]
fn a_config_of_four_keys_still_means_what_it_did_and_unknown_keys_are_refused() {
    let old: AttackConfig =
        toml::from_str("kind = \"i-fgsm\"\neps = 0.01\nstep = 0.02\nsteps = 7").expect("an old config");
    assert_eq!((old.threat(), old.walk()), (ThreatModel::linf(0.01), (0.02, 7)));
    let short: AttackConfig = toml::from_str("kind = \"i-fgsm\"\neps = 0.0314").expect("a short config");
    assert_eq!(short.walk(), (0.01, 10));
    let refusal = toml::from_str::<AttackConfig>("kind = \"pgd\"\neps = 0.01\nrestart = 2");
    assert!(refusal.expect_err("a key that is not there").to_string().contains("restart"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn projection_twice_is_projection_once_and_lands_in_ball_and_box(
        seed in 0u64..1000, eps in 0.0f64..0.5, norm in prop_oneof![Just(Norm::Linf), Just(Norm::L2)],
    ) {
        let (images, proposal) = (uniform([2, 3, 4, 4], 0.0, 1.0, seed), uniform([2, 3, 4, 4], -1.0, 2.0, seed + 1));
        let threat = ThreatModel { norm, eps };
        let once = threat.project(&images, proposal);
        let twice = threat.project(&images, once.clone());
        prop_assert!(lengths(norm, &images, &once).iter().all(|length| *length <= threat.reach(48)));
        let once = values(once).expect("values");
        prop_assert!(once.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        prop_assert_eq!(once, values(twice).expect("values"));
    }

    #[test]
    fn what_is_in_the_ball_and_the_box_is_left_alone(
        seed in 0u64..1000, norm in prop_oneof![Just(Norm::Linf), Just(Norm::L2)],
    ) {
        let (images, proposal) = (uniform([2, 3, 4, 4], 0.0, 1.0, seed), uniform([2, 3, 4, 4], 0.0, 1.0, seed + 1));
        let eps = lengths(norm, &images, &proposal).into_iter().fold(0.0, f64::max);
        let projected = ThreatModel { norm, eps: eps + 1e-6 }.project(&images, proposal.clone());
        prop_assert_eq!(values(projected).expect("values"), values(proposal).expect("values"));
    }

    #[test]
    fn steepest_directions_have_unit_size_whatever_the_gradient_s(seed in 0u64..1000, exponent in -30i32..30) {
        let gradient = uniform([2, 3, 4, 4], -1.0, 1.0, seed).mul_scalar(10f32.powi(exponent));
        for norm in [Norm::Linf, Norm::L2] {
            let direction = norm.steepest(gradient.clone());
            let sizes = lengths(norm, &direction.zeros_like(), &direction);
            prop_assert!(sizes.iter().all(|size| (size - 1.0).abs() < 1e-5), "{:?}: {:?}", norm, sizes);
        }
    }
}

#[test]
fn no_gradient_means_no_step() {
    for norm in [Norm::Linf, Norm::L2] {
        let direction = norm.steepest(Tensor::zeros([1, 3, 4, 4], &Device::flex()));
        assert!(values(direction).expect("values").iter().all(|value| *value == 0.0), "{norm:?}");
    }
}

/// Of a ball of dimension d, the share (1/2)^(1/d) of the radius splits the volume in halves.
#[test]
fn draws_fill_the_ball_evenly() {
    let images = uniform([400, 3, 1, 1], 0.4, 0.6, 1);
    for threat in [ThreatModel::linf(0.1), ThreatModel::l2(0.1)] {
        let noise = Draws::new(Seed::new(1), "test", &images).expect("draws").in_ball(threat);
        let lengths = lengths(threat.norm, &noise.zeros_like(), &noise);
        assert!(lengths.iter().all(|length| *length <= threat.reach(3)), "{threat:?}");
        let inner = lengths.iter().filter(|length| **length < 0.1 * 0.5f64.powf(1.0 / 3.0)).count();
        // Binomial(400, 1/2): six standard deviations.
        assert!((140..=260).contains(&inner), "{threat:?}: {inner} of 400");
    }
}

/// An operation with what its input may be, so that no kink lies within a finite difference.
type Operation = (&'static str, Box<dyn Fn(Tensor<4>) -> Tensor<2>>);

fn operations() -> Vec<Operation> {
    let flat = |x: Tensor<4>| x.flatten::<2>(1, 3);
    let kernel = |outputs: usize, size: usize| uniform([outputs, 3, size, size], -0.5, 0.5, 11);
    let conv = move |stride: usize, size: usize| -> Box<dyn Fn(Tensor<4>) -> Tensor<2>> {
        let pad = size / 2;
        let options = ConvOptions::new([stride, stride], [pad, pad], [1, 1], 1);
        Box::new(move |x| {
            flat(conv2d(x, kernel(4, size), Some(uniform([4], -0.5, 0.5, 12)), options.clone()))
        })
    };
    vec![
        ("convolution 3x3", conv(1, 3)),
        ("convolution 3x3, stride 2", conv(2, 3)),
        ("convolution 1x1, stride 2", conv(2, 1)),
        ("relu", Box::new(move |x| flat(relu(x - 0.5)))),
        ("sigmoid", Box::new(move |x| flat(sigmoid(x)))),
        ("max pool", Box::new(move |x| flat(max_pool2d(x, MaxPoolOptions::new([2, 2]))))),
        (
            "nearest upsampling",
            Box::new(move |x| {
                flat(interpolate(
                    x,
                    InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([16, 16]),
                ))
            }),
        ),
        ("global average", Box::new(|x| x.mean_dims(&[2, 3]).flatten::<2>(1, 3))),
        (
            "batch norm in inference",
            Box::new(move |x| {
                let statistic = |low, seed| uniform([3], low, 1.0, seed);
                let parts = [statistic(0.2, 13), statistic(-1.0, 14), statistic(0.0, 15), statistic(0.3, 16)];
                let [gamma, beta, mean, variance] = parts;
                flat(burn::tensor::module::batch_norm(x, gamma, beta, mean, variance, 1e-5))
            }),
        ),
        ("concatenation", Box::new(move |x| flat(Tensor::cat(vec![x.clone(), x.mul_scalar(2.0)], 1)))),
        ("clamp", Box::new(move |x| flat(x.clamp(0.25, 0.75)))),
        ("dense", Box::new(move |x| linear(flat(x), uniform([192, 5], -0.5, 0.5, 17), None))),
        ("softmax", Box::new(move |x| softmax(flat(x).narrow(1, 0, 12), 1))),
        ("log softmax", Box::new(move |x| log_softmax(flat(x).narrow(1, 0, 12), 1))),
        ("square", Box::new(move |x| flat(x.square()))),
    ]
}

/// Pixels on a grid of distinct values that keeps every pair, and 0.25, 0.5 and 0.75, further apart than a difference reaches.
fn separated() -> Vec<f32> {
    let mut values: Vec<f32> = (0..192).map(|index| (index as f32 + 0.5) / 192.0).collect();
    use rand::seq::SliceRandom;
    values.shuffle(&mut Seed::new(9).rng("pixels"));
    values
}

#[test]
fn every_operation_that_an_attack_differentiates_through_agrees_with_finite_differences() {
    let device = Device::flex();
    let image = |pixels: &[f32]| crate::tensors::images(pixels.to_vec(), [1, 3, 8, 8], &device);
    let pixels = separated();
    for (name, operation) in operations() {
        let outputs = operation(image(&pixels)).dims()[1];
        let weights = uniform([1, outputs], -1.0, 1.0, 18);
        let value = |pixels: &[f32]| -> f64 {
            let outputs = values(operation(image(pixels)) * weights.clone()).expect("values");
            outputs.into_iter().map(f64::from).sum()
        };
        let leaf = image(&pixels).autodiff().require_grad();
        let mut gradients = (operation(leaf.clone()) * weights.clone()).sum().backward();
        let analytic = values(leaf.grad_remove(&mut gradients).expect("a gradient")).expect("values");
        let step = 1e-3f32; // below half the distance of two pixels, 1/384
        for pixel in (0..192).step_by(7) {
            let mut moved = pixels.clone();
            moved[pixel] += step;
            let above = value(&moved);
            moved[pixel] -= 2.0 * step;
            let numeric = (above - value(&moved)) / (2.0 * f64::from(step));
            let difference = (numeric - f64::from(analytic[pixel])).abs();
            assert!(
                difference < 2e-3 + 1e-2 * numeric.abs(),
                "{name}, pixel {pixel}: {numeric} and {}",
                analytic[pixel]
            );
        }
    }
}

/// The whole chain: the directional derivative of the loss along its own gradient is the gradient's squared norm.
#[test]
fn input_gradients_of_every_network_agree_with_a_directional_difference() {
    let autoencoder = |kind| {
        let spec = AutoencoderSpec { kind, width: 4, latent: 8, image_size: [8, 8] };
        untrained_autoencoder(spec, 4)
    };
    let (vgg, resnet) = (classifier(Architecture::Vgg), classifier(Architecture::ResNet8));
    let (unet, bottleneck) = (autoencoder(AutoencoderKind::Unet), autoencoder(AutoencoderKind::Bottleneck));
    let several = vgg.clone().with_views(Views::Cross);
    let models: [(&str, &dyn Model); 5] = [
        ("vgg", &vgg),
        ("five views of vgg", &several),
        ("resnet", &resnet),
        ("unet before vgg", &Defended { autoencoder: &unet, classifier: &vgg }),
        ("bottleneck before resnet", &Defended { autoencoder: &bottleneck, classifier: &resnet }),
    ];
    let (images, classes) = (uniform([1, 3, 8, 8], 0.3, 0.7, 8), [1]);
    for (name, model) in models {
        let gradient = input_gradient(model, images.clone(), &classes).expect("a gradient");
        let norm = values(gradient.clone().square().sum()).expect("values")[0].sqrt();
        assert!(norm > 1e-6, "{name}: no gradient");
        let direction = gradient.div_scalar(norm);
        let loss = |step: f32| {
            let moved = images.clone() + direction.clone().mul_scalar(step);
            losses(model, moved, &classes)[0]
        };
        // Small enough that few of the network's kinks lie within it, large enough for 32-bit losses.
        let step = 1e-4;
        let numeric = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
        let relative = (numeric - f64::from(norm)).abs() / f64::from(norm);
        assert!(relative < 0.03, "{name}: {numeric} by differences, {norm} by autodiff");
    }
}
