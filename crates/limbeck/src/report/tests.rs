//! Claims about the page as a whole.

use super::sample;
use super::sound::{assert_sound, tags};
use super::*;
use crate::evaluate::results::*;

fn page(run: &Evaluation) -> String {
    render(run).expect("the sample renders")
}

/// Runs at the edges: unknown truth, nothing at all, one epoch, a thousand classes, no trials, no finite number.
fn edges() -> Vec<(&'static str, Evaluation)> {
    let edge = |change: fn(&mut Evaluation)| {
        let mut run = sample::evaluation();
        change(&mut run);
        run
    };
    vec![
        ("truth", sample::evaluation()),
        ("no truth", sample::without_truth()),
        ("nothing", edge(empty)),
        ("one epoch", edge(one_epoch)),
        ("many classes", edge(many_classes)),
        ("no trials", edge(no_trials)),
        ("not finite", edge(not_finite)),
        ("too few to calibrate", edge(too_few_to_calibrate)),
    ]
}

fn empty(run: &mut Evaluation) {
    *run = sample::without_truth();
    run.verdicts = VerdictCounts::default();
    run.dataset.classes.clear();
    run.by_class.clear();
    run.dae.epochs.clear();
    run.models.clear();
    run.robustness = Robustness::default();
    run.controls.clear();
    run.shield = None;
    run.abstention.outcomes.clear();
    run.abstention.risk_coverage.clear();
    run.classifier_curves.clear();
    run.suspicion_points.clear();
    run.triptychs.clear();
    run.attacked_examples.clear();
    run.checks.clear();
    run.statements.clear();
}

fn one_epoch(run: &mut Evaluation) {
    run.dae.epochs.truncate(1);
    run.classifier_curves.iter_mut().for_each(|curve| curve.epochs.truncate(1));
    run.suspicion_points.truncate(1);
    run.abstention.risk_coverage.truncate(1);
}

fn many_classes(run: &mut Evaluation) {
    run.dataset.classes = (0..1_000).map(|i| format!("{i}_{}", "unbroken".repeat(40))).collect();
    let row = run.by_class[3].clone();
    run.by_class = (0..1_000).map(|class| ClassRow { class, ..row.clone() }).collect();
}

fn no_trials(run: &mut Evaluation) {
    run.models.iter_mut().for_each(|row| row.clean = Rate::default());
    for row in &mut run.robustness.worst_cases {
        row.accuracy = Rate::default();
        row.attacks.iter_mut().for_each(|attack| attack.accuracy = Rate::default());
    }
    run.robustness
        .curves
        .iter_mut()
        .flat_map(|curve| &mut curve.points)
        .for_each(|point| point.accuracy = Rate::default());
    run.robustness.calibration.iter_mut().for_each(|model| (model.error, model.bins) = (None, Vec::new()));
    run.controls.iter_mut().for_each(|row| row.clean = Rate::default());
    for row in &mut run.detection {
        (row.precision, row.recall, row.false_positives) = Default::default();
    }
    for row in &mut run.abstention.outcomes {
        (row.right, row.wrong, row.null) = (0, 0, 0);
    }
}

fn too_few_to_calibrate(run: &mut Evaluation) {
    run.abstention.threshold = None;
    let detector = run.abstention.detector.as_mut().expect("the sample has one");
    (detector.log_odds, detector.log_error) = (None, None);
}

fn not_finite(run: &mut Evaluation) {
    run.suspicion_threshold = f64::NAN;
    run.dae.clean_test_error = f64::INFINITY;
    (run.dae.restored_psnr, run.dae.restored_ssim) = (None, None);
    run.robustness.calibration[0].error = Some(f64::NAN);
    run.robustness.curves[0].points[0].eps = f64::NAN;
    run.robustness.comparisons[0].p_value = f64::NAN;
    run.abstention.aurc = f64::NAN;
    run.abstention.risk_coverage[3] = [f64::NAN, f64::NAN];
    run.detection[0].auroc = f64::NAN;
    run.detection[0].recall_at_1_percent = f64::NAN;
    run.detection[0].roc[5] = [0.2, f64::NAN];
    run.triptychs[0].p_value = f64::NEG_INFINITY;
    run.attacked_examples[0].clean.probability = None;
    run.suspicion_points[0].score = f64::NAN;
    run.dae.epochs.iter_mut().for_each(|epoch| epoch.validation_loss = f64::NAN);
}

#[test]
fn same_results_give_the_same_bytes() {
    assert_eq!(page(&sample::evaluation()), page(&sample::evaluation()));
}

#[test]
fn every_edge_is_a_sound_page() {
    for (name, run) in edges() {
        assert_sound(name, &page(&run));
    }
}

#[test]
fn a_number_that_is_not_finite_is_an_en_dash() {
    let mut run = sample::evaluation();
    not_finite(&mut run);
    assert!(page(&run).contains("at the threshold –;"));
}

#[test]
fn a_null_rule_says_where_too_few_images_calibrate_it() {
    let mut run = sample::evaluation();
    let calibrated = page(&run);
    assert!(
        calibrated.contains("is above 0.83;") && calibrated.contains("finds that an image looks perturbed")
    );
    too_few_to_calibrate(&mut run);
    let page = page(&run);
    for phrase in ["never silent for want of sureness: 240 held-out images", "310 trusted images are too few"]
    {
        assert!(page.contains(phrase) && !calibrated.contains(phrase), "{phrase}");
    }
    assert!(!page.contains("conformal calibration"), "nothing is promised");
}

#[test]
fn text_from_the_audited_set_is_escaped() {
    let attack = "\"'><script>alert(1)</script>{{ run.seed }}";
    let mut run = sample::evaluation();
    run.dataset.name = attack.to_owned();
    run.dataset.classes.fill(attack.to_owned());
    run.triptychs[0].path = attack.to_owned();
    run.triptychs[0].reason = attack.to_owned();
    run.attacked_examples[0].path = attack.to_owned();
    run.attacked_examples[0].attack = attack.to_owned();
    run.statements[0].text = attack.to_owned();
    run.suspicion_score = attack.to_owned();
    run.detection[0].score = attack.to_owned();
    run.models[0].model = attack.to_owned();
    run.classifier_curves[0].model = attack.to_owned();
    run.config_toml = attack.to_owned();
    let page = page(&run);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(page.contains("{{ run.seed }}"), "text is not a template");
}

#[test]
fn a_picture_that_is_not_base64_is_refused() {
    for picture in ["\" onerror=\"x", "abc", "====", ""] {
        let mut run = sample::evaluation();
        run.triptychs[1].residual_png = picture.to_owned();
        let error = render(&run).expect_err(picture).to_string();
        assert!(error.contains("base64") && error.contains(&run.triptychs[1].path), "{error}");
        let mut run = sample::evaluation();
        run.attacked_examples[2].difference_png = picture.to_owned();
        let error = render(&run).expect_err(picture).to_string();
        assert!(error.contains("base64") && error.contains(&run.attacked_examples[2].path), "{error}");
    }
}

#[test]
fn decisions_by_hand_are_named_beside_the_figures_that_they_are_in() {
    let mut run = sample::evaluation();
    assert!(!page(&run).contains("by hand"));
    run.decided_by_hand = 12;
    assert!(page(&run).contains("<strong>12 images were decided about by hand</strong>"));
}

#[test]
fn without_the_truth_no_detection_rate_is_printed() {
    let page = page(&sample::without_truth());
    assert!(page.contains("truth unknown") && page.contains("audited as it came"));
    assert!(!page.contains("AUROC of 0.5 is blind") && !page.contains("id=\"roc\""));
}

#[test]
fn failures_are_named_in_words() {
    let page = page(&sample::evaluation());
    for word in [">Worked<", ">Failed<", ">Not known<", ">PASS<", ">FAIL<", ">UNKNOWN<"] {
        assert!(page.contains(word), "{word} missing");
    }
}

#[test]
fn a_failed_check_is_stamped_on_the_first_screen_and_none_is_not() {
    let mut run = sample::evaluation();
    let stamped = page(&run);
    let (stamp, main) = (stamped.find("class=\"stamp\""), stamped.find("<main>"));
    assert!(stamp.is_some() && stamp < main, "{stamp:?} and {main:?}");
    run.robustness.masking_suspected = false;
    assert!(!page(&run).contains("class=\"stamp\""));
}

#[test]
fn the_worst_case_is_shown_with_null_counted_both_ways() {
    let page = page(&sample::evaluation());
    let row =
        page.split("<section id=\"robustness\">").nth(1).and_then(|section| section.split("student").nth(1));
    let row = row.and_then(|row| row.split("</tr>").next()).expect("the student's row");
    // 24, 9 and 260 of 1,000 in the sample.
    for share in ["2.4\u{202f}%", "0.9\u{202f}%", "26.0\u{202f}%"] {
        assert!(row.contains(share), "{share} is not in {row}");
    }
}

#[test]
fn attacked_images_are_shown_with_both_answers_whatever_became_of_them() {
    let mut run = sample::evaluation();
    let shown = page(&run);
    let section =
        shown.split("<section id=\"robustness\">").nth(1).and_then(|page| page.split("</section>").next());
    let examples =
        section.and_then(|section| section.split("Attacked test images").nth(1)).expect("examples");
    let rows: Vec<_> = examples.split("<article").skip(1).collect();
    let attacked =
        ["● right:</span> 00000", "○ null, looks perturbed; likeliest Stop", "▲ wrong:</span> Speed"];
    assert_eq!(rows.len(), attacked.len());
    for (row, attacked) in rows.into_iter().zip(attacked) {
        let answers: Vec<_> =
            row.split("<dd>").map(|answer| answer.split("</dd>").next().unwrap_or("")).collect();
        assert!(answers[2].contains("● right:") && answers[2].contains("98.0"), "{answers:?}");
        assert!(answers[3].contains(attacked), "{answers:?}");
        assert!(row.contains("difference ×18") && row.contains("7 levels of 255"), "{row}");
        assert!(row.contains("wrong answers to 550 of 1,000 images"), "{row}");
    }
    run.attacked_examples.clear();
    assert!(!page(&run).contains("Attacked test images"), "no heading above nothing");
}

#[test]
fn the_authors_of_gtsrb_are_cited_for_their_images_only() {
    let mut run = sample::evaluation();
    assert!(page(&run).contains("Stallkamp"));
    run.dataset.name = "plankton.parquet".to_owned();
    assert!(!page(&run).contains("Stallkamp"));
}

#[test]
fn more_points_than_the_limit_are_thinned_and_the_caption_says_so() {
    let mut run = sample::evaluation();
    assert!(!page(&run).contains("one image in"));
    let point = run.suspicion_points[0].clone();
    run.suspicion_points = (0..10_000).map(|index| SuspicionPoint { index, ..point.clone() }).collect();
    assert!(page(&run).contains("one image in 4 is drawn"));
}

#[test]
fn every_id_is_unique_and_headings_skip_no_level() {
    let page = page(&sample::evaluation());
    let ids: Vec<_> = tags(&page).filter_map(|tag| tag.split_once(" id=\"")?.1.split('"').next()).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    let levels: Vec<u32> =
        tags(&page).filter_map(|tag| tag.split(' ').next()?.strip_prefix('h')?.parse().ok()).collect();
    assert_eq!(levels.first(), Some(&1));
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
}
