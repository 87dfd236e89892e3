//! A synthetic evaluation for tests: 43 classes, 1,500 images, curves of a plausible shape. Nothing here was measured.

use crate::distill::DetectorLimits;
use crate::evaluate::results::*;
use crate::purify::Knowledge;

const IMAGES: u64 = 1_500;
const CLASSES: u32 = 43;
const THRESHOLD: f64 = 2.4;

/// The signature of a PNG in base64: enough for markup.
const PNG: &str = "iVBORw0KGgo=";

/// An audited set with simulated poison.
pub(crate) fn evaluation() -> Evaluation {
    let points: Vec<_> = (0..IMAGES).map(point).collect();
    let count = |verdict| points.iter().filter(|point| point.verdict == verdict).count() as u64;
    Evaluation {
        limbeck_version: "0.1.0".to_owned(),
        config_hash: "b3:5d41402abc4b2a76b9719d911017c592".to_owned(),
        revision: 6,
        config_toml: "seed = 7\n\n[poison]\nattack = \"i-fgsm\"\neps = 0.01\n".to_owned(),
        seed: 7,
        dataset: dataset(),
        poison: Some(poison()),
        verdicts: VerdictCounts {
            keep: count(Verdict::Keep),
            reconstruct: count(Verdict::Reconstruct),
            discard: count(Verdict::Discard),
        },
        decided_by_hand: 0,
        by_class: (0..CLASSES).map(class_row).collect(),
        detection: vec![
            detection("detection head", true, 0.93, THRESHOLD),
            detection("mse", false, 0.52, 0.013),
            detection("top-10% error", false, 0.58, 0.05),
            detection("kl", false, 0.71, 0.4),
            detection("mixture", false, 0.9, 1.1),
        ],
        held_out: Some(held_out()),
        dae: dae(),
        distillation: "defensive".to_owned(),
        shield: Some(shield()),
        models: models(),
        robustness: robustness(),
        controls: controls(),
        filters: filters(),
        abstention: abstention(),
        classifier_curves: MODELS.into_iter().zip(0..).map(curve).collect(),
        suspicion_points: points,
        suspicion_threshold: THRESHOLD,
        suspicion_score: "detection head".to_owned(),
        triptychs: (0..6).map(triptych).collect(),
        attacked_examples: (0..3).map(attacked_example).collect(),
        checks: checks(),
        statements: statements(),
    }
}

/// What a run on the same set without an audit says of the same teacher and student.
pub(crate) fn student_evaluation() -> StudentEvaluation {
    let mut run = evaluation();
    let is_taught = |model: &str| ["teacher", "student"].contains(&model);
    let robustness = &mut run.robustness;
    robustness.worst_cases.retain(|row| is_taught(&row.model));
    robustness.curves.retain(|row| is_taught(&row.model));
    robustness.calibration.retain(|row| row.model.split(',').next().is_some_and(is_taught));
    robustness.comparisons.retain(|row| is_taught(&row.first) && is_taught(&row.second));
    run.classifier_curves.retain(|row| is_taught(&row.model));
    run.models.retain(|row| is_taught(&row.model));
    run.models
        .iter_mut()
        .flat_map(|row| &mut row.transferred)
        .for_each(|row| row.crafted_on = "teacher".to_owned());
    StudentEvaluation {
        limbeck_version: run.limbeck_version,
        config_hash: run.config_hash,
        revision: run.revision,
        config_toml: run.config_toml,
        seed: run.seed,
        dataset: TaughtSet {
            name: run.dataset.name,
            classes: run.dataset.classes,
            train_images: run.dataset.train_images,
            held_out_images: run.dataset.calibration_images,
            test_images: run.dataset.test_images,
            image_size: run.dataset.image_size,
            content_hash: run.dataset.content_hash,
        },
        distillation: run.distillation,
        given_networks: false,
        models: run.models,
        robustness: run.robustness,
        abstention: AbstentionSummary { detector: None, ..run.abstention },
        classifier_curves: run.classifier_curves,
        attacked_examples: run.attacked_examples,
        checks: run.checks,
    }
}

/// The same set audited as it came: nothing is known about its images.
pub(crate) fn without_truth() -> Evaluation {
    let mut run = evaluation();
    run.poison = None;
    run.detection.clear();
    run.held_out = None;
    run.suspicion_points.iter_mut().for_each(|point| point.poisoned = None);
    run.controls.iter_mut().for_each(|row| row.poison_left = None);
    for row in &mut run.by_class {
        (row.false_positives, row.false_negatives) = (None, None);
    }
    for row in &mut run.triptychs {
        (row.poisoned, row.original_png) = (None, None);
    }
    run
}

/// A number in `[0, 1)` for each `n`, evenly spread and in no order (the mixer of SplitMix64, shortened).
fn scatter(n: u64) -> f64 {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// Roughly standard normal: a centred sum of six even numbers.
fn normal(n: u64) -> f64 {
    ((0..6).map(|i| scatter(6 * n + i)).sum::<f64>() - 3.0) * 2f64.sqrt()
}

fn rate(successes: u64, trials: u64) -> Rate {
    Rate { successes, trials }
}

fn point(index: u64) -> SuspicionPoint {
    let poisoned = scatter(index + 77) < 0.1;
    let score = if poisoned { 3.4 + 1.3 * normal(index) } else { 0.3 + normal(index) };
    let verdict = match score {
        score if score > THRESHOLD + 1.5 => Verdict::Discard,
        score if score > THRESHOLD => Verdict::Reconstruct,
        _ => Verdict::Keep,
    };
    let mse = (-5.3 + 0.55 * normal(index + IMAGES)).exp();
    SuspicionPoint { index, score, mse, poisoned: Some(poisoned), verdict }
}

fn dataset() -> DatasetSummary {
    let class = |i| match i {
        1 => "Speed limit (30 km/h)".to_owned(),
        14 => "Stop".to_owned(),
        42 => "End of no passing by vehicles over 3.5 metric tons".to_owned(),
        _ => format!("{i:05}"),
    };
    DatasetSummary {
        name: "embedded GTSRB sample".to_owned(),
        classes: (0..CLASSES).map(class).collect(),
        train_images: IMAGES,
        knowledge: Knowledge::Trusted,
        trusted_images: 0,
        calibration_images: 215,
        test_images: 12_630,
        image_size: [32, 32],
        content_hash: "b3:7d793037a0760186574b0282f2f435e7".to_owned(),
    }
}

fn poison() -> PoisonSummary {
    PoisonSummary {
        poison: "i-fgsm eps 0.01".to_owned(),
        attack: Some(crate::attack::AttackConfig::default()),
        fraction: 0.1,
        relabelled: 0,
        images: 150,
        surrogate: "convolutional, 4 blocks".to_owned(),
        surrogate_clean: rate(146, 150),
        surrogate_attacked: rate(12, 150),
        pass_copies: Some(rate(140, 150)),
        patch: Some(PatchSummary {
            pixels: 9,
            area: 1_024,
            random_overlap: 0.0048,
            maps: vec![
                Localisation {
                    map: "residual, median of 5 x 5".to_owned(),
                    overlap: 0.031,
                    peak_inside: rate(3, 150),
                },
                Localisation {
                    map: "saliency, mean of 5 x 5".to_owned(),
                    overlap: 0.42,
                    peak_inside: rate(93, 150),
                },
            ],
        }),
    }
}

fn class_row(class: u32) -> ClassRow {
    let images = 20 + u64::from(class * 7 % 31);
    let poisoned = images / 10;
    let flagged = u64::from(class % 4 == 1) + u64::from(class % 11 == 3);
    ClassRow {
        class,
        images,
        verdicts: VerdictCounts {
            keep: images - flagged - poisoned,
            reconstruct: flagged,
            discard: poisoned,
        },
        false_positives: Some(rate(flagged, images - poisoned)),
        false_negatives: Some(rate(u64::from(class.is_multiple_of(5)), poisoned)),
    }
}

fn held_out() -> HeldOutDetection {
    let rate = |successes| Rate { successes, trials: 1_000 };
    let attack = |name: &str, auroc: f64, flagged| HeldOutAttack {
        attack: name.to_owned(),
        mean_length: 0.61,
        auroc: vec![auroc, 0.52, 0.58, 0.71, auroc - 0.02],
        flagged: rate(flagged),
        called_crafted: rate(flagged / 2),
        recall_at_1_percent: 0.9 * auroc,
        knows_detector: name.ends_with("knowing the detector"),
        fooled: rate(870),
        evaded: rate(870 - flagged / 2),
    };
    let names = ["detection head", "mse", "top-10% error", "kl", "mixture"];
    HeldOutDetection {
        scores: names.map(str::to_owned).to_vec(),
        decides: "detection head".to_owned(),
        clean: rate(19),
        fooled_by_clean: rate(61),
        attacks: vec![
            attack("fgsm eps 0.0157", 0.97, 930),
            attack("i-fgsm eps 0.004", 0.88, 610),
            attack("i-fgsm eps 0.0157, knowing the detector", 0.51, 22),
        ],
        honest: vec![
            HeldOutDamage {
                damage: "jpeg quality 75".to_owned(),
                flagged: rate(24),
                called_crafted: rate(24 / 10),
            },
            HeldOutDamage {
                damage: "noise sigma 0.01".to_owned(),
                flagged: rate(310),
                called_crafted: rate(310 / 10),
            },
        ],
    }
}

/// A score whose ROC curve is `fpr^((1 - auroc) / auroc)`, the power curve with that area.
fn detection(score: &str, decides: bool, auroc: f64, threshold: f64) -> ScoreDetection {
    let recall = |fpr: f64| fpr.powf((1.0 - auroc) / auroc);
    let found = (150.0 * recall(0.03)) as u64;
    ScoreDetection {
        score: score.to_owned(),
        decides,
        auroc,
        auroc_interval: [auroc - 0.02, (auroc + 0.02).min(1.0)],
        recall_at_1_percent: recall(0.01),
        threshold,
        precision: rate(found, found + 40),
        recall: rate(found, 150),
        false_positives: rate(40, 1_350),
        roc: (0..200).map(|i| f64::from(i) / 199.0).map(|x| [x * x, recall(x * x)]).collect(),
    }
}

fn dae() -> DaeSummary {
    let epoch = |epoch: u32| {
        let fall = (-f64::from(epoch) / 6.0).exp();
        let jitter = 0.0008 * scatter(u64::from(epoch));
        DaeEpoch {
            epoch,
            train_loss: 0.004 + 0.05 * fall,
            validation_loss: 0.005 + 0.045 * fall + jitter,
            reconstruction_error: 0.0062 + 0.03 * fall + jitter,
        }
    };
    DaeSummary {
        network: "unet".to_owned(),
        parameters: 485_123,
        epochs: (1..=40).map(epoch).collect(),
        clean_test_error: 0.00641,
        restored_test_error: 0.00652,
        attacked_test_error: 0.000_091,
        restored_psnr: Some(28.4),
        attacked_psnr: Some(40.4),
        restored_ssim: Some(0.912),
        attacked_ssim: Some(0.978),
    }
}

fn models() -> Vec<ModelRow> {
    let row = |model: &str, trained_on: &str, right: [u64; 4]| ModelRow {
        model: model.to_owned(),
        trained_on: trained_on.to_owned(),
        clean: rate(right[0], 12_630),
        attacked: ["fgsm eps 0.01", "i-fgsm eps 0.01", "i-fgsm eps 0.03"]
            .into_iter()
            .zip(&right[1..])
            .map(|(attack, right)| AttackedRate {
                attack: attack.to_owned(),
                accuracy: rate(*right, 12_630),
                reached: None,
            })
            .collect(),
        transferred: Vec::new(),
        backdoor: None,
    };
    let transferred = vec![Transferred {
        crafted_on: "undefended".to_owned(),
        attacked: vec![AttackedRate {
            attack: "fgsm eps 0.01".to_owned(),
            accuracy: rate(10_612, 12_630),
            reached: None,
        }],
    }];
    let student = row("student", "the purified set, the teacher's soft labels", [11_377, 7_404, 4_612, 518]);
    vec![
        row("clean-trained", "the training set before it was poisoned", [11_510, 6_020, 3_100, 250]),
        row("undefended", "the poisoned set, hard labels", [11_402, 7_100, 4_350, 310]),
        row("teacher", "the purified set, hard labels at T = 20", [11_350, 6_890, 3_990, 300]),
        ModelRow { transferred, ..student },
    ]
}

const MODELS: [&str; 4] = ["clean-trained", "undefended", "teacher", "student"];

fn robustness() -> Robustness {
    let offsets = || MODELS.into_iter().zip(0u64..);
    Robustness {
        masking_suspected: true,
        worst_cases: offsets().map(worst_case).collect(),
        curves: offsets().map(eps_curve).collect(),
        comparisons: MODELS[..3]
            .iter()
            .flat_map(|other| {
                [("clean", 0.4), ("worst case on its own weights, L-infinity eps 0.03", 1e-9)]
                    .map(|row| comparison(other, row))
            })
            .collect(),
        calibration: offsets().map(reliability).collect(),
    }
}

fn worst_case((model, offset): (&str, u64)) -> WorstCase {
    let attack = |attack: &str, right| AttackedRate {
        attack: attack.to_owned(),
        accuracy: rate(right, 1_000),
        reached: None,
    };
    WorstCase {
        model: model.to_owned(),
        norm: crate::attack::Norm::Linf,
        eps: 0.03,
        accuracy: rate(8 * offset, 1_000),
        with_null: (model == "student")
            .then(|| WorstCaseWithNull { as_error: rate(9, 1_000), as_no_error: rate(260, 1_000) }),
        attacks: vec![attack("fgsm eps 0.03", 90 + offset), attack("i-fgsm eps 0.03", 20 + 8 * offset)],
    }
}

fn eps_curve((model, offset): (&str, u64)) -> EpsCurve {
    let point = |eps: f64| {
        let right = (940.0 * (-eps * (90.0 - 5.0 * offset as f64)).exp()) as u64;
        EpsPoint { eps, accuracy: rate(right, 1_000) }
    };
    let radii = [0.0, 0.0039, 0.0078, 0.0157, 0.0314, 0.0627, 0.1255, 0.25, 0.5, 1.0];
    EpsCurve {
        model: model.to_owned(),
        attack: "pgd, 10 steps".to_owned(),
        points: radii.map(point).to_vec(),
    }
}

fn comparison(other: &str, (inputs, p_value): (&str, f64)) -> Comparison {
    Comparison {
        inputs: inputs.to_owned(),
        first: "student".to_owned(),
        second: other.to_owned(),
        images: 1_000,
        only_first: 31,
        only_second: 27,
        p_value,
    }
}

fn reliability((model, offset): (&str, u64)) -> Calibration {
    let bin = |i: u64| {
        let [from, to] = [i, i + 1].map(|edge| edge as f64 / 15.0);
        let right = (40.0 * (from + to) / 2.0) as u64 + offset;
        ReliabilityBin { from, to, confidence: (from + to) / 2.0, accuracy: rate(right, 50) }
    };
    Calibration {
        model: model.to_owned(),
        error: Some(0.03 + 0.01 * offset as f64),
        bins: (3..15).map(bin).collect(),
    }
}

fn controls() -> Vec<ControlRow> {
    let row = |filter: &str, removed, reconstructed, left, right| ControlRow {
        filter: filter.to_owned(),
        removed,
        reconstructed,
        poison_left: Some(left),
        clean: rate(right, 12_630),
        backdoor: None,
    };
    vec![
        row("none", 0, 0, 150, 11_402),
        row("limbeck", 70, 90, 31, 11_350),
        row("random", 70, 90, 134, 11_298),
        row("perfect", 150, 0, 0, 11_455),
    ]
}

fn filters() -> Vec<Comparison> {
    let row = |(first, second, [only_first, only_second], p_value): (&str, &str, [u64; 2], f64)| Comparison {
        inputs: "clean".to_owned(),
        first: first.to_owned(),
        second: second.to_owned(),
        images: 12_630,
        only_first,
        only_second,
        p_value,
    };
    [
        ("limbeck", "none", [160, 212], 0.008),
        ("limbeck", "random", [188, 136], 0.0045),
        ("limbeck", "perfect", [77, 182], 4e-11),
        ("clean", "none", [150, 97], 0.0009),
    ]
    .map(row)
    .to_vec()
}

fn shield() -> ShieldSummary {
    let rate = |successes| Rate { successes, trials: 64 };
    let row = |attack: &str, [unaware, straight_through, exact, worst]: [u64; 4]| ShieldRow {
        attack: attack.to_owned(),
        unaware: rate(unaware),
        straight_through: rate(straight_through),
        exact: rate(exact),
        worst: rate(worst),
    };
    ShieldSummary {
        clean_without: rate(60),
        clean: rate(59),
        rows: vec![row("pgd eps 0.01", [48, 21, 19, 17]), row("pgd eps 0.0314", [31, 2, 1, 0])],
    }
}

fn abstention() -> AbstentionSummary {
    let row = |inputs: &str, right, wrong, null| AbstentionRow {
        inputs: inputs.to_owned(),
        right,
        wrong,
        null,
        perturbed: null / 3,
    };
    AbstentionSummary {
        detector: Some(DetectorLimits {
            log_odds: Some(0.7),
            log_error: Some(-13.5),
            target_null_rate: 0.02,
            trusted_images: 310,
            autoencoder: "b3".to_owned(),
        }),
        uncertainty: "KL to the class reference".to_owned(),
        calibration_images: 240,
        guaranteed: true,
        outlier_images: 0,
        compared: [("KL to the class reference", 0.04), ("predictive entropy", 0.05)]
            .map(|(words, aurc)| UncertaintyRow { uncertainty: words.to_owned(), aurc })
            .to_vec(),
        passes: 20,
        threshold: Some(0.83),
        target_null_rate: 0.05,
        outcomes: vec![
            row("clean", 10_980, 870, 780),
            row("i-fgsm eps 0.01", 4_210, 5_910, 2_510),
            row("i-fgsm eps 0.03", 400, 9_030, 3_200),
        ],
        damaged: vec![row("jpeg quality 75", 480, 12, 8), row("noise sigma 0.01", 10, 0, 490)],
        risk_coverage: (1..=100)
            .map(|i| f64::from(i) / 100.0)
            .map(|c| [c, 0.02 + 0.065 * c.powi(3)])
            .collect(),
        aurc: 0.04,
    }
}

fn curve((model, offset): (&str, u32)) -> ClassifierCurve {
    let epoch = |epoch: u32| {
        let fall = (-f64::from(epoch) / (4.0 + f64::from(offset))).exp();
        let jitter = 0.012 * (scatter(u64::from(epoch * 9 + offset)) - 0.5);
        ClassifierEpoch {
            epoch,
            train_loss: 3.7 * fall + 0.05,
            validation_loss: 3.7 * fall + 0.4,
            validation_accuracy: 0.92 - 0.01 * f64::from(offset) - 0.85 * fall + jitter,
            robust_accuracy: (offset == 0).then_some(0.6 - 0.55 * fall),
        }
    };
    ClassifierCurve { model: model.to_owned(), epochs: (1..=30).map(epoch).collect() }
}

fn triptych(n: u32) -> Triptych {
    let poisoned = n.is_multiple_of(2);
    let verdict = [Verdict::Discard, Verdict::Keep, Verdict::Reconstruct][n as usize % 3];
    Triptych {
        path: format!("train/{:05}/{:05}_00017.png", n * 7, n * 311),
        label: n * 7,
        verdict,
        reason: "detection head above its threshold".to_owned(),
        score: 3.1 + f64::from(n) / 3.0,
        p_value: 1.0 / f64::from(216 - 30 * n),
        poisoned: Some(poisoned),
        original_png: poisoned.then(|| PNG.to_owned()),
        suspicious_png: PNG.to_owned(),
        reconstructed_png: PNG.to_owned(),
        residual_png: PNG.to_owned(),
        residual_gain: 10.0,
    }
}

/// Answered rightly, null and wrongly when attacked, in this order.
fn attacked_example(n: u32) -> AttackedExample {
    let label = 14 * n;
    let answer =
        |class, share| GivenAnswer { class, probability: Some(share), null: false, perturbed: false };
    AttackedExample {
        path: format!("test/{label:05}/00017.png"),
        label,
        attack: "i-fgsm eps 0.03".to_owned(),
        wrong: rate(550, 1_000),
        clean: answer(label, 0.98),
        attacked: match n {
            0 => answer(label, 0.61),
            1 => GivenAnswer { null: true, perturbed: true, ..answer(label, 0.42) },
            _ => answer(1, 0.73),
        },
        largest_change: 7,
        clean_png: PNG.to_owned(),
        attacked_png: PNG.to_owned(),
        difference_png: PNG.to_owned(),
        difference_gain: 18,
    }
}

fn checks() -> Vec<Check> {
    let check = |claim: &str, outcome, detail: &str| Check {
        claim: claim.to_owned(),
        outcome,
        detail: detail.to_owned(),
    };
    vec![
        check("many steps beat one step", Outcome::Pass, "i-fgsm leaves 36.5 % right, fgsm 58.6 %"),
        check("accuracy reaches chance at eps = 1", Outcome::Fail, "9.8 % right, chance is 2.3 %"),
        check("white box beats transfer", Outcome::Unknown, "no second network was trained"),
    ]
}

fn statements() -> Vec<Statement> {
    let statement = |outcome, text: &str| Statement { outcome, text: text.to_owned() };
    vec![
        statement(
            Outcome::Pass,
            "The detection head tells poisoned from clean images with an AUROC of 0.930.",
        ),
        statement(Outcome::Fail, "The paper's own score, MSE, is blind at eps 0.01: its AUROC is 0.520."),
        statement(Outcome::Fail, "The student is right on only 4.1 % of images under i-fgsm at eps 0.03."),
        statement(Outcome::Unknown, "Whether the filter withstands an adaptive poisoner was not measured."),
    ]
}
