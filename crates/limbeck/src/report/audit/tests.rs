//! Claims about the page of an audit.

use super::super::sound::assert_sound;
use super::*;
use crate::evaluate::results::{Verdict, VerdictCounts};
use crate::evaluate::{AuditOrigin, Chance};
use crate::purify::Knowledge;

/// The signature of a PNG in base64: enough for markup.
const PNG: &str = "iVBORw0KGgo=";

fn exhibit(rank: u64) -> Exhibit {
    Exhibit {
        rank: Some(rank),
        path: format!("train/1/{rank:05}.png"),
        label: 1,
        score: 9.0 / rank as f64,
        p_value: 0.005,
        verdict: Verdict::Discard,
        reason: "head is above the threshold; its reconstruction reads as \"cat\", its label is \"dog\""
            .to_owned(),
        image_png: PNG.to_owned(),
        reconstruction_png: PNG.to_owned(),
        anomaly_png: PNG.to_owned(),
        anomaly_gain: 16.0,
        saliency_png: PNG.to_owned(),
    }
}

fn class(class: u32, images: u64, discard: u64) -> ClassRow {
    let verdicts = VerdictCounts { keep: images - discard, reconstruct: 0, discard };
    ClassRow { class, images, verdicts, false_positives: None, false_negatives: None }
}

fn findings() -> AuditFindings {
    AuditFindings {
        origin: AuditOrigin {
            limbeck_version: "0.1.0".to_owned(),
            name: "photos".to_owned(),
            content_hash: "7d793037".to_owned(),
            seed: 7,
            knowledge: Knowledge::Trusted,
            simulated_poison: 0.0,
        },
        classes: ["cat", "dog"].map(str::to_owned).to_vec(),
        image_size: [32, 32],
        audited: 1_000,
        verdicts: VerdictCounts { keep: 880, reconstruct: 20, discard: 100 },
        score: "head".to_owned(),
        threshold: 2.5,
        classes_apart: 0,
        above_threshold: 120,
        chance: Chance { rate: 0.02, expected: 20.0, range: [9, 41] },
        audited_scores: (0..1_000).map(|i| f64::from(i) / 100.0 - 5.0).collect(),
        calibration_scores: (0..200).map(|i| f64::from(i) / 50.0 - 3.0).collect(),
        by_class: vec![class(0, 900, 30), class(1, 100, 90)],
        most_suspicious: (1..=3).map(exhibit).collect(),
        just_above: vec![exhibit(120)],
        just_below: vec![Exhibit { rank: None, verdict: Verdict::Keep, ..exhibit(121) }],
    }
}

fn page(findings: &AuditFindings) -> String {
    render_audit(findings).expect("the findings render")
}

fn edge(change: fn(&mut AuditFindings)) -> AuditFindings {
    let mut found = findings();
    change(&mut found);
    found
}

fn clean(found: &mut AuditFindings) {
    found.verdicts = VerdictCounts { keep: 1_000, ..VerdictCounts::default() };
    found.most_suspicious.clear();
    found.just_above.clear();
}

fn not_finite(found: &mut AuditFindings) {
    found.audited_scores[..3].copy_from_slice(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    found.most_suspicious[0].score = f64::NAN;
    found.threshold = f64::NAN;
}

fn many_classes(found: &mut AuditFindings) {
    found.by_class = (0..1_000).map(|index| class(index, 10, u64::from(index == 900))).collect();
}

#[test]
fn the_headline_says_how_many_at_which_threshold_and_what_chance_explains() {
    let page = page(&findings());
    for words in
        ["120 of 1,000 images are suspicious", "200 trusted images", "2.5", "9 to 41", "more than chance"]
    {
        assert!(page.contains(words), "no {words:?}");
    }
}

#[test]
fn as_many_as_chance_explains_are_called_that() {
    let few =
        |successes| Summary::of(&AuditFindings { above_threshold: successes, ..findings() }).against_chance;
    assert_eq!([few(8), few(9), few(41), few(42)], ["fewer", "as-many", "as-many", "more"]);
}

/// What a class with a lower threshold has more of is not held against chance at the threshold for all.
#[test]
fn classes_with_a_threshold_of_their_own_are_named() {
    let apart = page(&AuditFindings { classes_apart: 2, above_threshold: 30, ..findings() });
    for words in [
        "120 of 1,000 images are suspicious",
        "another one in 2 classes",
        "30 of the audited images are above it",
        "no more than chance",
    ] {
        assert!(apart.contains(words), "no {words:?}");
    }
    assert!(!page(&findings()).contains("another one"));
}

#[test]
fn every_edge_is_a_sound_page() {
    let one_score = |found: &mut AuditFindings| found.audited_scores = vec![1.0];
    for found in [findings(), edge(clean), edge(not_finite), edge(many_classes), edge(one_score)] {
        assert_sound("audit", &page(&found));
    }
}

#[test]
fn text_from_the_audited_set_is_escaped_and_pictures_are_checked() {
    let attack = "\"'><script>alert(1)</script>{{ audit }}";
    let mut found = findings();
    found.origin.name = attack.to_owned();
    found.classes.fill(attack.to_owned());
    found.most_suspicious[0].path = attack.to_owned();
    found.most_suspicious[0].reason = attack.to_owned();
    found.score = attack.to_owned();
    let page = page(&found);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;") && page.contains("{{ audit }}"));
    found.just_below[0].anomaly_png = "\" onerror=\"x".to_owned();
    let error = render_audit(&found).expect_err("no base64").to_string();
    assert!(error.contains("base64") && error.contains(&found.just_below[0].path), "{error}");
}

#[test]
fn classes_beyond_the_limit_are_summed_up_and_the_worst_stand_first() {
    let found = edge(many_classes);
    let summary = Summary::of(&found);
    assert_eq!((summary.classes[0].row.class, summary.classes.len()), (900, MOST_CLASSES));
    let further = summary.further.expect("800 classes more");
    assert_eq!((further.classes, further.images, further.discarded), (800, 8_000, 0));
}

#[test]
fn a_simulated_attacker_is_named() {
    assert!(!page(&findings()).contains("simulated attacker"));
    assert!(page(&edge(|found| found.origin.simulated_poison = 0.1)).contains("simulated attacker"));
}

#[test]
fn the_bars_of_a_histogram_add_up_to_all_images() {
    let axis = Axis::around("", [0.0, 10.0]);
    let outline = histogram(&axis, &[0.0, 1.0, 1.0, 9.0, 10.0], 8);
    assert_eq!(outline.len(), 2 * 8 + 2);
    let sum: f64 = outline[1..=2 * 8].iter().step_by(2).map(|point| point[1]).sum();
    assert!((sum - 100.0).abs() < 1e-9, "{sum}");
    assert!(outline.is_sorted_by(|a, b| a[0] <= b[0]));
}

#[test]
fn survival_starts_with_all_images_and_ends_with_the_last() {
    let scores: Vec<f64> = (0..10_000).map(f64::from).collect();
    let curve = survival(&scores);
    assert_eq!((curve[0], curve.last()), ([0.0, 100.0], Some(&[9_999.0, 0.01])));
    assert!(curve.len() <= POINTS && curve.contains(&[9_995.0, 0.05]));
    assert_eq!(survival(&[1.0, 2.0]), [[1.0, 100.0], [2.0, 50.0]]);
}
