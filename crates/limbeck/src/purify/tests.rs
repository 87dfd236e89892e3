//! Scores have their closed forms, thresholds look at calibration alone, verdicts follow the rule.

use burn::tensor::{Device, Tensor};

use super::*;
use crate::attack::{Attack, Evasive, Guard, GuardScore, ThreatModel};
use crate::dataset::Dataset;
use crate::network::{
    Architecture, AutoencoderKind, AutoencoderSpec, Denoised, Model, ReconstructionError, TrainedAutoencoder,
    TrainedClassifier,
};
use crate::progress::Silent;
use crate::rng::Seed;
use crate::tensors::values;
use crate::testing::{blocks, tiny_spec, uniform, untrained, untrained_autoencoder};

struct Networks {
    autoencoder: TrainedAutoencoder,
    classifier: TrainedClassifier,
    label_model: LabelModel,
}

/// Trusted images of these tests.
const TRUSTED: usize = 24;

fn networks() -> Networks {
    let spec = AutoencoderSpec { kind: AutoencoderKind::Bottleneck, width: 4, latent: 8, image_size: [8, 8] };
    let autoencoder = untrained_autoencoder(spec, 4);
    let classifier = untrained(tiny_spec(Architecture::Vgg, 4, 1.0), 5);
    let label_model = LabelModel { classifier: classifier.clone(), trusted_margins: vec![0.0; TRUSTED] };
    Networks { autoencoder, classifier, label_model }
}

impl Networks {
    fn defence(&self) -> Defence<'_> {
        let Self { autoencoder, classifier, label_model } = self;
        Defence { autoencoder, classifier, label_model: Some(label_model), intent: None, kl_temperature: 1.0 }
    }
}

impl Networks {
    fn shown(&self, images: Tensor<4>, reconstructions: Tensor<4>) -> Shown<'static> {
        let logits = Tensor::zeros([reconstructions.dims()[0]], &reconstructions.device());
        Shown::new(&self.defence(), images, &[0; 3], Denoised { reconstructions, logits })
    }
}

#[test]
fn the_label_score_is_the_margin_of_the_best_other_class_over_the_label() {
    let networks = networks();
    let images = uniform([3, 3, 8, 8], 0.0, 1.0, 6);
    let rows = values(networks.classifier.logits(images.clone())).expect("values");
    let (_, _, score) = TABLE[ScoreKind::Label.position()];
    let labels = [2, 0, 3];
    let shown = Shown { labels: &labels, ..networks.shown(images.clone(), images) };
    let found = values(score.score(&networks.defence(), &shown)).expect("values");
    for ((row, label), found) in rows.chunks_exact(4).zip(labels).zip(found) {
        let others = (0..4).filter(|&class| class != label).map(|class| row[class as usize]);
        let expected = others.fold(f32::NEG_INFINITY, f32::max) - row[label as usize];
        assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
    }
}

fn config(flagged: FlaggedPolicy) -> PurifyConfig {
    PurifyConfig {
        score: ScoreKind::Mse,
        rule: Rule::Percentile { percentile: 50.0, margin: 0.0 },
        flagged,
        class_fdr: 0.0,
        least_kept: 0.0,
        kl_temperature: 1.0,
    }
}

#[test]
fn every_score_of_an_image_that_is_its_own_reconstruction_is_zero_and_of_another_is_not() {
    let networks = networks();
    let (images, others) = (uniform([3, 3, 8, 8], 0.0, 1.0, 1), uniform([3, 3, 8, 8], 0.0, 1.0, 2));
    // Detection head and label model do not look at the reconstruction.
    let of_reconstruction =
        [ScoreKind::Mse, ScoreKind::TopError, ScoreKind::Kl, ScoreKind::HiddenKl, ScoreKind::Jsd];
    for (_, name, score) in TABLE.iter().filter(|(kind, ..)| of_reconstruction.contains(kind)) {
        let of = |reconstructions| {
            values(score.score(&networks.defence(), &networks.shown(images.clone(), reconstructions)))
                .expect("values")
        };
        // An untrained classifier answers nearly the same to all: at temperature 40 the difference is small.
        for (same, other) in of(images.clone()).into_iter().zip(of(others.clone())) {
            assert!(same.abs() < 1e-6 && other > same.abs() + 1e-7, "{name}: {same} and {other}");
        }
    }
}

#[test]
fn mse_is_the_mean_square_over_pixels_of_each_image() {
    // 0.1 off everywhere: 0.01; 0.2 off in one channel of three: 0.04 / 3.
    let images = uniform([2, 3, 8, 8], 0.3, 0.6, 3);
    let first = images.clone().narrow(0, 0, 1).add_scalar(0.1);
    let second = images.clone().narrow(0, 1, 1);
    let red = second.clone().narrow(1, 0, 1).add_scalar(0.2);
    let second = burn::tensor::Tensor::cat(vec![red, second.narrow(1, 1, 2)], 1);
    let moved = burn::tensor::Tensor::cat(vec![first, second], 0);
    let networks = networks();
    let (_, _, score) = TABLE[ScoreKind::Mse.position()];
    let found = values(score.score(&networks.defence(), &networks.shown(images, moved))).expect("values");
    assert!((found[0] - 0.01).abs() < 1e-6 && (found[1] - 0.04 / 3.0).abs() < 1e-6, "{found:?}");
}

#[test]
fn the_residual_score_is_the_share_of_the_fine_structure_that_is_taken_away() {
    // Noise of 0.3: beside its mean square the floor is nothing. A quarter of what differs from its surroundings is taken away from the first image,
    // a grey of its own from the second, which is no fine structure.
    let images = uniform([2, 3, 8, 8], 0.3, 0.6, 3);
    let structure = crate::network::fine_structure(images.clone());
    let sharp = structure.clone().narrow(0, 0, 1).mul_scalar(0.25);
    let flat = structure.clone().narrow(0, 1, 1).zeros_like().add_scalar(0.1);
    let restored = images.clone() - burn::tensor::Tensor::cat(vec![sharp, flat.clone()], 0);
    let networks = networks();
    let (_, _, score) = TABLE[ScoreKind::Residual.position()];
    let found =
        values(score.score(&networks.defence(), &networks.shown(images.clone(), restored))).expect("values");
    assert!((found[0] - 0.25).abs() < 1e-3, "{found:?}");
    let mean = |tensor: Tensor<4>| f64::from(tensor.mean().into_scalar::<f32>());
    let of_second = structure.narrow(0, 1, 1);
    let expected = 0.1 * mean(of_second.clone()) / (mean(of_second.square()) + 0.25 / (255.0 * 255.0));
    assert!((f64::from(found[1]) - expected).abs() < 1e-5, "{found:?} and {expected}");
    // An image of one grey has none.
    let grey = images.zeros_like().add_scalar(0.5);
    let found = values(score.score(&networks.defence(), &networks.shown(grey.clone(), grey.sub_scalar(0.1))))
        .expect("values");
    assert!(found.iter().all(|share| share.abs() < 1e-4), "{found:?}");
}

#[test]
fn an_attacker_sees_the_logarithm_of_that_error_and_can_lower_it() {
    let networks = networks();
    let (model, images) = (ReconstructionError(&networks.autoencoder), uniform([2, 3, 8, 8], 0.3, 0.6, 3));
    let restored = networks.autoencoder.reconstruct(images.clone());
    let (_, _, score) = TABLE[ScoreKind::Mse.position()];
    let errors = score.score(&networks.defence(), &networks.shown(images.clone(), restored));
    let before = values(model.logits(images.clone())).expect("values");
    for (logarithm, error) in before.iter().zip(values(errors).expect("values")) {
        assert!((logarithm - error.ln()).abs() < 1e-4, "{logarithm} of {error}");
    }
    let guards = vec![Guard { model: &model, score: GuardScore::Logit, limit: -100.0 }];
    let attack = Evasive { guards, step: 0.01, steps: 5, weight: 1.0, confidence: 1.0 };
    let moved =
        attack.propose(&networks.classifier, ThreatModel::linf(0.05), images, &[0, 0]).expect("crafted");
    let after = values(model.logits(moved)).expect("values");
    assert!(before.iter().zip(&after).all(|(before, after)| after < before), "{before:?}, then {after:?}");
}

#[test]
fn the_top_error_is_that_of_the_worst_pixels_and_the_jensen_shannon_divergence_is_at_most_ln_2() {
    // Of 3 x 8 x 8 values a hundredth is two: one off by 0.3, one by 0.1.
    let images = uniform([1, 3, 8, 8], 0.3, 0.6, 3);
    let mut pixels = values(images.clone()).expect("values");
    pixels[5] += 0.3;
    pixels[100] -= 0.1;
    let moved = crate::tensors::images(pixels, [1, 3, 8, 8], &Device::flex());
    let networks = networks();
    let of = |kind: ScoreKind, shown: &Shown<'_>| {
        values(TABLE[kind.position()].2.score(&networks.defence(), shown)).expect("values")[0]
    };
    let mut shown = networks.shown(images, moved);
    assert!((of(ScoreKind::TopError, &shown) - 0.05).abs() < 1e-6, "(0.09 + 0.01) / 2");
    let sure = |class: usize| {
        let logits = (0..4).map(|other| if other == class { 4000.0 } else { 0.0 }).collect::<Vec<f32>>();
        Tensor::<1>::from_floats(logits.as_slice(), &Device::flex()).reshape([1, 4])
    };
    (shown.read.logits, shown.restored.logits) = (sure(1), sure(2));
    let most = of(ScoreKind::Jsd, &shown);
    assert!((most - std::f32::consts::LN_2).abs() < 1e-5, "{most}");
}

#[test]
fn verdicts_follow_the_threshold_that_the_calibration_images_alone_gave() {
    let (networks, audited, calibration) = (networks(), blocks(40, 4, 1), blocks(TRUSTED, 4, 2));
    let judged = judge(&audited, &calibration, &networks.defence(), &config(FlaggedPolicy::Discard), &Silent)
        .expect("judged");
    let threshold = judged.thresholds[0].value();
    for row in &judged.ledger.rows {
        let expected = if row.scores[0] > threshold { Verdict::Discard } else { Verdict::Keep };
        assert_eq!(row.verdict, expected, "{} against {threshold}", row.scores[0]);
        assert!(row.p_value > 0.0 && row.p_value <= 1.0);
    }
    // The same calibration images and another audited set: the same threshold.
    let other =
        judge(&blocks(9, 4, 3), &calibration, &networks.defence(), &config(FlaggedPolicy::Discard), &Silent);
    assert_eq!(other.expect("judged").thresholds[0].value(), threshold);
}

#[test]
fn of_each_class_the_least_suspicious_images_are_kept_whatever_the_threshold() {
    let (networks, audited, trusted) = (networks(), blocks(40, 4, 1), blocks(TRUSTED, 4, 2));
    let most = Rule::Percentile { percentile: 0.0, margin: -1.0 };
    let judged = |least_kept: f64| {
        let config = PurifyConfig { rule: most, least_kept, ..config(FlaggedPolicy::Discard) };
        judge(&audited, &trusted, &networks.defence(), &config, &Silent).expect("judged").ledger.rows
    };
    assert!(judged(0.0).iter().all(|row| row.verdict == Verdict::Discard));
    let rows = judged(0.25);
    for class in 0..4 {
        let of = |verdict: Verdict| {
            rows.iter()
                .filter(move |row| row.label == class && row.verdict == verdict)
                .map(|row| row.suspicion)
        };
        // A quarter of ten images: the percentile lies between the third and the fourth.
        assert_eq!(of(Verdict::Keep).count(), 3);
        assert!(of(Verdict::Keep).fold(f64::MIN, f64::max) < of(Verdict::Discard).fold(f64::MAX, f64::min));
    }
}

#[test]
fn the_purified_set_keeps_kept_images_leaves_out_discarded_ones_and_replaces_the_others() {
    let (networks, audited) = (networks(), blocks(40, 4, 1));
    let defence = networks.defence();
    let judged =
        judge(&audited, &blocks(TRUSTED, 4, 2), &defence, &config(FlaggedPolicy::Reconstruct), &Silent)
            .expect("judged");
    let mut ledger = judged.ledger;
    ledger.rows[0].verdict = Verdict::Discard;
    let (purified, kept): (Dataset, Vec<usize>) =
        purified_set(&audited, &ledger, &defence).expect("purified");
    assert!(!kept.contains(&0) && purified.len() == 39);
    for (position, &index) in kept.iter().enumerate() {
        let same = purified.pixels(position).expect("pixels") == audited.pixels(index).expect("pixels");
        assert_eq!(same, ledger.rows[index].verdict == Verdict::Keep, "image {index}");
    }
}

#[test]
fn twins_are_within_their_attack_s_ball_and_in_the_set_s_order() {
    let (networks, images) = (networks(), blocks(12, 4, 1));
    for twin in NoiseConfig::default().twins {
        let noise = NoiseConfig { twins: vec![twin], ..NoiseConfig::default() };
        let device = Device::flex();
        let twins = craft_twins(&images, &noise, &networks.classifier, &device, Seed::new(1), &Silent);
        let (twins, label) = (twins.expect("crafted").twins, twin.label());
        let mut changed = 0;
        for index in 0..images.len() {
            let (before, after) =
                (images.pixels(index).expect("pixels"), twins.pixels(index).expect("pixels"));
            let most = before.iter().zip(&after).map(|(a, b)| a.abs_diff(*b)).max().expect("pixels");
            let levels = twin.threat().levels();
            assert!(most <= levels, "{label}: image {index} moved by {most} levels");
            changed += usize::from(most > 0);
        }
        assert!(changed >= 10, "{label}: only {changed} of 12 twins differ from their image");
    }
}

#[test]
fn a_score_of_whole_classes_is_fitted_on_the_audited_images_and_never_reconstructs() {
    let (networks, audited, trusted) = (networks(), blocks(48, 4, 1), blocks(24, 4, 2));
    let defence = networks.defence();
    for (kind, name, _) in FITTED {
        let config = PurifyConfig { score: *kind, ..config(FlaggedPolicy::Decide) };
        let judged = judge(&audited, &trusted, &defence, &config, &Silent).expect("judged");
        let position = kind.position();
        assert_eq!(judged.ledger.score_names[position], *name);
        let suspicions: Vec<f64> = judged.ledger.rows.iter().map(|row| row.suspicion).collect();
        let column: Vec<f64> = judged.ledger.rows.iter().map(|row| row.scores[position]).collect();
        assert!(suspicions == column && column.iter().any(|score| *score != 0.0), "{name}: {column:?}");
        assert!(judged.ledger.rows.iter().all(|row| row.verdict != Verdict::Reconstruct), "{name}");
        // The scorer of held-out images is fitted on the same audited ones.
        let scorer = Scorer::new(&audited, &trusted, defence, &Silent).expect("fitted");
        assert_eq!(scorer.score(&audited, &Silent).expect("scored")[position], column, "{name}");
        // Fitted on other images, it is another score.
        let other = Scorer::new(&blocks(48, 4, 3), &trusted, defence, &Silent).expect("fitted");
        assert_ne!(other.score(&audited, &Silent).expect("scored")[position], column, "{name}");
    }
}

#[test]
fn where_most_of_a_suspicious_class_is_discarded_nothing_of_it_is_reconstructed() {
    use Verdict::{Discard, Keep, Reconstruct};
    let row = |(label, threshold, verdict): (u32, f64, Verdict)| LedgerRow {
        id: String::new(),
        path: String::new(),
        label,
        suspicion: 0.0,
        p_value: 1.0,
        threshold,
        verdict,
        reason: "why".into(),
        scores: Vec::new(),
    };
    let judged = |rows: &[(u32, f64, Verdict)]| {
        let mut rows: Vec<LedgerRow> = rows.iter().copied().map(row).collect();
        super::judge::discard_with_their_class(&mut rows, 5.0, &["a".into(), "b".into(), "c".into()]);
        rows.into_iter().map(|row| (row.verdict, row.reason)).collect::<Vec<_>>()
    };
    let found = judged(&[
        // The target of a backdoor: two of three are something else.
        (0, 4.0, Discard),
        (0, 4.0, Discard),
        (0, 4.0, Reconstruct),
        (0, 4.0, Keep),
        // Perturbed as a whole, under the right label.
        (1, 4.0, Discard),
        (1, 4.0, Reconstruct),
        // A class like any other.
        (2, 5.0, Discard),
        (2, 5.0, Discard),
        (2, 5.0, Reconstruct),
    ]);
    let verdicts: Vec<_> = found.iter().map(|(verdict, _)| *verdict).collect();
    let expected = [Discard, Discard, Discard, Keep, Discard, Reconstruct, Discard, Discard, Reconstruct];
    assert_eq!(verdicts, expected);
    let told = found.iter().map(|(_, reason)| reason.contains("most of the suspicious \"a\""));
    assert_eq!(told.enumerate().filter(|(_, told)| *told).map(|(row, _)| row).collect::<Vec<_>>(), [2]);
}

#[test]
fn the_names_of_a_ledger_row_are_in_the_order_of_positions_and_the_mixture_is_last() {
    let names = ScoreKind::names();
    for (kind, name) in TABLE.iter().map(|row| (row.0, row.1)).chain(FITTED.iter().map(|row| (row.0, row.1)))
    {
        assert_eq!((names[kind.position()].as_str(), kind.name()), (name, name));
    }
    assert_eq!(ScoreKind::Mixture.position(), names.len() - 1);
}
