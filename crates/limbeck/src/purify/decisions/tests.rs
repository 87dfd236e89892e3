//! Files of decisions as people and programs leave them, what is refused, and what decisions do to a ledger.

use std::fs;

use tempfile::tempdir;

use super::*;
use crate::dataset::Dataset;
use crate::purify::LedgerRow;
use crate::testing::blocks;

/// Three images of the classes 0, 1 and 2 of "class 0" to "class 3".
fn set() -> Dataset {
    blocks(3, 4, 1)
}

fn id(index: usize) -> String {
    set().samples()[index].id.to_string()
}

fn ledger() -> Ledger {
    let verdicts = [Verdict::Keep, Verdict::Discard, Verdict::Reconstruct];
    let row = |(index, verdict): (usize, Verdict)| LedgerRow {
        id: id(index),
        path: format!("=image-{index}"),
        label: index as u32,
        suspicion: index as f64,
        p_value: 0.1,
        threshold: 0.5,
        verdict,
        reason: "as measured".to_owned(),
        scores: Vec::new(),
    };
    Ledger { score_names: Vec::new(), rows: verdicts.into_iter().enumerate().map(row).collect() }
}

fn read(text: impl AsRef<[u8]>) -> Result<DecisionFile> {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("decisions.csv");
    fs::write(&path, text).expect("writable");
    DecisionFile::read(&path)
}

fn resolved(text: impl AsRef<[u8]>) -> Decisions {
    read(text).and_then(|file| file.resolve(&set())).expect("decisions about the set")
}

#[track_caller]
fn is_refused(text: impl AsRef<[u8]>, words: &[&str]) {
    let error = read(text).and_then(|file| file.resolve(&set())).expect_err("refused").to_string();
    for word in ["decisions.csv"].iter().chain(words) {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}

#[test]
fn an_offer_as_it_is_decides_nothing() {
    let text = offer(&ledger(), set().classes(), None);
    assert!(resolved(&text).is_empty());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "id,path,label,class,suspicion,verdict,decision,reason");
    // The most suspicious first, kept images not at all, and no formula.
    assert_eq!(lines[1], format!("{},'=image-2,2,class 2,2.0,reconstruct,,as measured", id(2)));
    assert_eq!(lines[2], format!("{},'=image-1,1,class 1,1.0,discard,,as measured", id(1)));
    assert_eq!(lines.len(), 3);
}

#[test]
fn what_spreadsheet_programs_make_of_a_file_reads_the_same() {
    let plain = format!("id,decision\n{},discard\n{},relabel:class 3\n{},\n", id(0), id(1), id(2));
    let expected = resolved(&plain);
    assert_eq!(expected.len(), 2);
    let same = [
        format!("\u{feff}{}", plain.replace('\n', "\r\n")),
        plain.replace(',', ";"),
        plain.replace(',', "\t"),
        format!("note;Decision;\"id\"\n\"a;b\"; Discard ;{}\n;RELABEL: class 3;\"{}\"\n;;\n", id(0), id(1)),
        // Cut after the last cell that is not empty, and a blank line.
        format!("id,decision,note\n{},discard\n\n{}\n{},relabel:3,x\n", id(0), id(2), id(1)),
    ];
    for text in same {
        assert_eq!(resolved(&text), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_its_line() {
    let (first, second) = (id(0), id(1));
    let expected = "expected keep, reconstruct, discard, relabel:CLASS, or nothing";
    is_refused(
        format!("id,decision\n{first},\n{second},delete\n"),
        &["line 3", "found decision `delete`", expected],
    );
    is_refused(format!("id,decision\n{first},relabel:\n"), &["line 2", "`relabel:`", expected]);
    is_refused(
        "id,decision\n1.2E+31,keep\n",
        &["line 2", "found id `1.2E+31`", "expected the id of an audited image"],
    );
    is_refused(
        format!("id,decision\n{first},relabel:class 9\n"),
        &["line 2", "found class `class 9`", "class 0, class 1", "an index from 0 to 3"],
    );
    is_refused(format!("id,decision\n{first},relabel:4\n"), &["found class `4`"]);
    is_refused(
        format!("id,decision\n{first},keep\n{second},keep\n{first},discard\n"),
        &["line 4", &first, "than in line 2", "expected each image decided once"],
    );
    is_refused(format!("id,verdict\n{first},keep\n"), &["line 1", "found columns id, verdict", "`decision`"]);
    is_refused("id,decision,decision\n", &["line 1", "two columns `decision`"]);
    is_refused("id,decision\n,keep\n", &["line 2", "`keep` without an id"]);
    is_refused("", &["line 1", "found nothing"]);
    is_refused(b"\xFF\xFEi\0d\0", &["found UTF-16 text", "expected UTF-8"]);
    is_refused(
        [format!("id,decision\n{first},relabel:").as_bytes(), b"\xFC\n"].concat(),
        &["line 2", "UTF-8"],
    );
}

#[test]
fn an_image_may_be_decided_twice_the_same_way() {
    assert_eq!(resolved(format!("id,decision\n{0},keep\n{0},Keep\n", id(1))).len(), 1);
}

#[test]
fn a_class_that_is_named_like_an_index_is_meant_by_its_name() {
    let classes = ["2", "0", "cat"].map(str::to_owned);
    assert_eq!(class_of(&classes, "2"), Some(0));
    assert_eq!(class_of(&classes, "1"), Some(1));
    assert_eq!(class_of(&classes, "3"), None);
    for label in 0..3 {
        assert_eq!(class_of(&classes, &class_word(&classes, label)), Some(label));
    }
}

#[test]
fn decisions_overrule_verdicts_and_the_reason_says_so() {
    let text = format!("id,decision\n{},discard\n{},relabel:3\n{},relabel:2\n", id(0), id(1), id(2));
    let mut ledger = ledger();
    let labels = resolved(text).overrule(&mut ledger, set().classes());
    assert_eq!(labels, [(1, 3)], "a label that stays is no new one");
    let verdicts: Vec<Verdict> = ledger.rows.iter().map(|row| row.verdict).collect();
    assert_eq!(verdicts, [Verdict::Discard, Verdict::Keep, Verdict::Keep]);
    assert_eq!(ledger.rows[0].reason, "decided by hand: discard; proposed was keep: as measured");
    assert!(ledger.rows[1].reason.starts_with("decided by hand: relabel from \"class 1\" to \"class 3\"; "));
}

#[test]
fn saved_decisions_read_back() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let decisions = resolved(format!("id,decision\n{},discard\n{},relabel:3\n", id(0), id(1)));
    let folder = tempdir()?;
    let path = folder.path().join("decided.csv");
    decisions.save(&path, set().classes())?;
    assert_eq!(DecisionFile::read(&path)?.resolve(&set())?, decisions);
    Ok(())
}

#[test]
fn an_offer_carries_earlier_decisions_over_by_id() {
    let earlier = read(format!("decision;id\nkeep;{}\nrelabel:class 0;{}\nkeep;{:032}\n", id(2), id(0), 0));
    let text = offer(&ledger(), set().classes(), Some(&earlier.expect("readable")));
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert!(lines[0].starts_with(&id(2)) && lines[0].contains(",reconstruct,keep,"), "{text}");
    assert!(lines[1].starts_with(&id(1)) && lines[1].contains(",discard,,"), "{text}");
    assert!(lines[2].starts_with(&id(0)) && lines[2].contains(",keep,relabel:class 0,"), "{text}");
    assert_eq!(lines.len(), 3, "an image that is not in the set any more is dropped");
}
