//! The format is Optuna's; what is damaged is named.

use super::*;

/// As Optuna 5.0.0 wrote it for a study with a complete, a pruned and a failed trial, worker ids shortened, one trial added whole.
const BY_OPTUNA: &str = r#"{"op_code":0,"worker_id":"w","study_name":"other","directions":[1]}
{"op_code":0,"worker_id":"w","study_name":"limbeck","directions":[2]}
{"op_code":2,"worker_id":"w","study_id":1,"user_attr":{"u":3}}
{"op_code":4,"worker_id":"w","study_id":0,"datetime_start":"2026-11-23T07:34:48.766831+00:00"}
{"op_code":4,"worker_id":"w","study_id":1,"datetime_start":"2026-11-23T07:34:48.766831+00:00"}
{"op_code":5,"worker_id":"w","trial_id":1,"param_name":"lr","param_value_internal":0.00010347122832963733,"distribution":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 0.0001, \"high\": 0.01, \"log\": true}}"}
{"op_code":5,"worker_id":"w","trial_id":1,"param_name":"k","param_value_internal":1,"distribution":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [\"unet\", \"bottleneck\"]}}"}
{"op_code":7,"worker_id":"w","trial_id":1,"step":1,"intermediate_value":0.5}
{"op_code":6,"worker_id":"w","trial_id":1,"state":1,"values":[0.75],"datetime_complete":"2026-11-23T07:34:48.779547+00:00"}
{"op_code":4,"worker_id":"w","study_id":1,"datetime_start":"2026-11-23T07:34:48.780393+00:00"}
{"op_code":7,"worker_id":"w","trial_id":2,"step":1,"intermediate_value":0.25}
{"op_code":6,"worker_id":"w","trial_id":2,"state":2,"values":[0.25],"datetime_complete":"2026-11-23T07:34:48.785140+00:00"}
{"op_code":6,"worker_id":"w","trial_id":2,"state":1,"values":[0.99],"datetime_complete":"2026-11-23T07:34:48.785140+00:00"}
{"op_code":4,"worker_id":"w","study_id":1,"datetime_start":"2026-11-23T07:34:48.785974+00:00"}
{"op_code":6,"worker_id":"w","trial_id":3,"state":3,"values":null,"datetime_complete":"2026-11-23T07:34:48.801921+00:00"}
{"op_code":4,"worker_id":"w","study_id":1,"datetime_start":null,"state":1,"value":0.5,"values":null,"distributions":{"w":"{\"name\": \"IntDistribution\", \"attributes\": {\"log\": false, \"step\": 4, \"low\": 8, \"high\": 24}}"},"params":{"w":12.0},"user_attrs":{},"system_attrs":{},"intermediate_values":{"1":0.5}}
{"op_code":9,"worker_id":"w","trial_id":4,"system_attr":{"fixed_params":{}}}
"#;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.log");
    std::fs::write(&path, text).expect("writable");
    (folder, path)
}

fn refusal(text: &str) -> String {
    let (_folder, path) = file(text);
    Journal::read(&path).expect_err("damaged").to_string()
}

#[test]
fn what_optuna_wrote_is_read() {
    let (_folder, path) = file(BY_OPTUNA);
    let study = Journal::read(&path).expect("sound").expect("the study is there");
    assert_eq!(study.attributes["u"], 3);
    let states: Vec<TrialState> = study.trials.iter().map(|trial| trial.state).collect();
    use TrialState::{Complete, Failed, Pruned};
    assert_eq!(states, [Complete, Pruned, Failed, Complete]);
    let first = &study.trials[0];
    assert_eq!(first.id, 1, "trials are counted over all studies");
    assert_eq!(first.parameters["lr"].0, 0.000_103_471_228_329_637_33);
    assert_eq!(first.parameters["k"].1.value(1.0).expect("a choice").to_string(), "bottleneck");
    assert_eq!((first.value, &first.curve), (Some(0.75), &BTreeMap::from([(1, 0.5)])));
    assert_eq!(study.trials[1].value, Some(0.25), "a finished trial is not changed");
    assert_eq!((study.trials[3].value, study.trials[3].parameters["w"].0), (Some(0.5), 12.0));
    assert_eq!((study.best(Direction::Maximize), study.best(Direction::Minimize)), (Some(0), Some(3)));
}

#[test]
fn a_study_reads_back_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal.log");
    let attributes = Map::from_iter([("limbeck".to_owned(), json!({ "sampler": "tpe" }))]);
    let (mut journal, mut written) =
        Journal::open(&path, Direction::Minimize, attributes.clone()).expect("a new journal");
    for (key, text) in [("dae.width", "int:8..24/4"), ("dae.kind", "choice:unet,bottleneck")] {
        let distribution = Distribution::parse(key, text).expect("a distribution");
        let mut trial = journal.create_trial().expect("written");
        journal.set_parameter(&mut trial, key, 1.0, &distribution).expect("written");
        journal.set_intermediate(trial.id, 1, 0.1 + 0.2).expect("written");
        trial.curve.insert(1, 0.1 + 0.2);
        journal.set_attribute(&mut trial, "seconds", json!(1.5)).expect("written");
        journal.finish(&mut trial, TrialState::Complete, Some(1e-300)).expect("written");
        written.trials.push(trial);
    }
    written.trials.push(journal.create_trial().expect("written"));
    let busy = Journal::open(&path, Direction::Minimize, attributes.clone())
        .err()
        .expect("it is locked")
        .to_string();
    assert!(busy.contains("another search at work"), "{busy}");
    drop(journal);
    assert_eq!(Journal::read(&path).expect("sound"), Some(written.clone()));
    let (mut journal, again) = Journal::open(&path, Direction::Minimize, attributes.clone()).expect("sound");
    assert_eq!(again, written);
    assert_eq!(journal.create_trial().expect("written").id, 3);
    drop(journal);
    let turned =
        Journal::open(&path, Direction::Maximize, attributes).err().expect("turned round").to_string();
    assert!(turned.contains("directions [1]") && turned.contains("expected [2]"), "{turned}");
}

#[test]
fn a_last_line_without_its_end_is_cut_off_wherever_it_ends() {
    let line = BY_OPTUNA.lines().next_back().expect("lines");
    let whole = BY_OPTUNA.strip_suffix(&format!("{line}\n")).expect("its last line");
    for end in [0, 1, line.len() / 2, line.len()] {
        let (_folder, path) = file(&format!("{whole}{}", &line[..end]));
        let read = Journal::read(&path).expect("an interrupted write").expect("the study");
        let (mut journal, opened) = Journal::open(&path, Direction::Maximize, Map::new()).expect("the same");
        assert_eq!(read, opened);
        journal.create_trial().expect("written");
        drop(journal);
        assert_eq!(Journal::read(&path).expect("sound").expect("the study").trials.len(), 5);
    }
}

#[test]
fn other_damage_is_named_with_its_line() {
    let lines: Vec<&str> = BY_OPTUNA.lines().collect();
    let with = |index: usize, line: &str| {
        let mut lines = lines.clone();
        lines[index] = line;
        lines.join("\n") + "\n"
    };
    let without = |index: usize| {
        let mut lines = lines.clone();
        lines.remove(index);
        lines.join("\n") + "\n"
    };
    for (text, words) in [
        (with(2, &lines[2][..20]), ["in line 3:", "expected a JSON record"]),
        (with(2, "\u{0}\u{0}\u{0}"), ["in line 3:", "expected a JSON record"]),
        (with(2, r#"{"op_code":77}"#), ["in line 3: operation 77", "0 to 10"]),
        (with(2, "[]"), ["in line 3:", "expected a JSON record"]),
        (with(3, r#"{"op_code":4,"study_id":7}"#), ["in line 4: study 7", "an earlier line creates"]),
        (
            with(8, r#"{"op_code":6,"trial_id":1,"state":9,"values":null}"#),
            ["in line 9: no usable `state`", "fields"],
        ),
        (
            with(
                5,
                r#"{"op_code":5,"trial_id":1,"param_name":"lr","param_value_internal":1,"distribution":"{}"}"#,
            ),
            ["in line 6: {}", "a distribution of Optuna"],
        ),
        (
            with(7, r#"{"op_code":7,"trial_id":1,"step":-1,"intermediate_value":1}"#),
            ["in line 8:", "expected a JSON record"],
        ),
        // A line that is lost is missed by those that build on it.
        (without(13), ["in line 14: trial 3", "an earlier line creates"]),
    ] {
        let refused = refusal(&text);
        assert!(words.iter().all(|word| refused.contains(word)), "{words:?} not in {refused}");
    }
}

#[test]
fn a_file_that_is_not_there_or_has_no_such_study_has_none() {
    let (folder, path) = file("");
    assert_eq!(Journal::read(&path).expect("empty"), None);
    assert_eq!(Journal::read(&folder.path().join("none")).expect("no file"), None);
    let first = BY_OPTUNA.lines().next().expect("lines");
    std::fs::write(&path, format!("{first}\n")).expect("writable");
    assert_eq!(Journal::read(&path).expect("another study's"), None);
    let (journal, _) = Journal::open(&path, Direction::Minimize, Map::new()).expect("beside the other one");
    assert_eq!(journal.study_id, 1);
}
