//! The whole chain on a small part of the embedded sample: it ends with a report, and a run that was stopped ends with the same bytes.

#[path = "pipeline/vectors.rs"]
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use limbeck::Error;
use limbeck::dataset::{Dataset, Edit, ImageSize, Part, Source, rewrite};
use limbeck::distill::{SoftLabels, TABLE};
use limbeck::pipeline::{Goal, MeasuredOn, Preset, Run, RunConfig, Sets, Student, evaluate_model};
use limbeck::progress::{Progress, Silent, StageEvent};
use limbeck::purify::{Ledger, ScoreKind, Verdict};

/// 14 images a class, one epoch, a network of width 4: seconds, and every stage.
fn config() -> RunConfig {
    let overrides = [
        "data.limit_per_class=14",
        "data.image_size={width=16,height=16}",
        "classifier.network.width=4",
        "classifier.network.hidden=16",
        "classifier.train.epochs=1",
        "poison.surrogate.architecture=vgg",
        "poison.surrogate.width=4",
        "poison.train.epochs=1",
        "label_model.agreement=0",
        "label_model.width=4",
        "label_model.first_epochs=1",
        "label_model.folds=2",
        "label_model.least_steps=0",
        "label_model.train.epochs=1",
        "dae.width=4",
        "dae.train.epochs=1",
        "purify.rule.percentile=90",
        "abstention.passes=4",
        "evaluate.attacked_images=16",
        "evaluate.held_out.images=16",
        "evaluate.held_out.knowing_images=8",
        "evaluate.examples=6",
    ];
    RunConfig::resolve(Preset::Sample, None, &overrides.map(str::to_owned)).expect("the overrides fit")
}

/// The ledger of an audit with a setting changed, the size of the purified set, and the files that are left.
fn purified(set: &[&str]) -> limbeck::Result<(Ledger, usize, BTreeMap<String, Vec<u8>>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config();
    for text in set {
        let (key, value) = text.split_once('=').expect("a key and a value");
        config = config.with(key, value.parse().expect("a TOML value"))?;
    }
    let outcome =
        Run::open(folder.path(), config, &limbeck::device("flex")?, &Silent)?.execute(Goal::Purify)?;
    let purified = Source::open(folder.path().join("purified"))?;
    let images = Dataset::load(&purified, Part::Train, ImageSize::default(), &mut |_, _| {})?.len();
    Ok((outcome.ledger.expect("every goal has one"), images, files(folder.path())))
}

fn run(directory: &Path, progress: &dyn Progress) -> limbeck::Result<limbeck::pipeline::Outcome> {
    Run::open(directory, config(), &limbeck::device("flex")?, progress)?.execute(Goal::Report)
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder_now) = open.pop() {
        for entry in std::fs::read_dir(&folder_now).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Stops at the n-th safe point, as Ctrl-C does.
struct StopsAfter(AtomicI64);

impl Progress for StopsAfter {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

/// Stops at the first safe point of the task of this name, and notes which tasks told how far they are.
#[derive(Default)]
struct StopsAt {
    name: Option<String>,
    at_hand: std::sync::Mutex<String>,
    advanced: std::sync::Mutex<BTreeSet<String>>,
}

impl Progress for StopsAt {
    fn task(&self, name: &str, _: &'static str) {
        name.clone_into(&mut self.at_hand.lock().expect("not poisoned"));
    }

    fn advance(&self, _: u64, _: u64) {
        let at_hand = self.at_hand.lock().expect("not poisoned").clone();
        self.advanced.lock().expect("not poisoned").insert(at_hand);
    }

    fn cancelled(&self) -> bool {
        let at_hand = self.at_hand.lock().expect("not poisoned");
        self.name.as_deref().is_some_and(|name| *at_hand == name)
    }
}

/// Notes which stages ran.
#[derive(Default)]
struct Stages(std::sync::Mutex<Vec<(String, StageEvent)>>);

impl Progress for Stages {
    fn stage(&self, stage: &str, event: StageEvent) {
        self.0.lock().expect("not poisoned").push((stage.to_owned(), event));
    }
}

#[test]
fn the_chain_ends_with_a_report_and_a_stopped_run_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let outcome = run(&straight, &Silent).expect("the chain runs");
    let results = outcome.evaluation.expect("the goal asks for it");
    let ledger = outcome.ledger.expect("every goal has one");

    // The figures agree with the artefacts that they come from.
    assert_eq!(ledger, Ledger::read_parquet(&straight.join("ledger.parquet")).expect("a ledger"));
    assert_eq!(results.dataset.train_images, ledger.rows.len() as u64);
    let verdicts = results.verdicts;
    assert_eq!(verdicts.keep + verdicts.reconstruct + verdicts.discard, ledger.rows.len() as u64);
    let poison = results.poison.as_ref().expect("the sample preset poisons");
    assert_eq!(poison.images, (0.1 * ledger.rows.len() as f64).round() as u64);
    assert_eq!(results.detection.len(), ScoreKind::names().len());
    let held_out = results.held_out.as_ref().expect("the attacker has a network of its own");
    assert!(held_out.attacks.iter().all(|row| row.flagged.trials == if row.knows_detector { 8 } else { 16 }
        && row.auroc.len() == ScoreKind::names().len()));
    let knowing = held_out.attacks.iter().filter(|row| row.knows_detector);
    assert_eq!(knowing.count(), 1);
    assert!(held_out.attacks.iter().all(|row| row.evaded.successes <= row.fooled.successes));
    assert!(results.models.iter().map(|row| row.model.as_str()).eq([
        "clean-trained",
        "undefended",
        "teacher",
        "student"
    ]));
    assert!(
        results.controls.iter().map(|row| row.filter.as_str()).eq(["none", "limbeck", "random", "perfect"])
    );
    let robustness = &results.robustness;
    let of_student = |model: &str| model == "student";
    assert_eq!(robustness.worst_cases.len(), 8, "four models in two balls");
    for case in &robustness.worst_cases {
        let own = results.models.iter().find(|row| row.model == case.model).expect("a model of the run");
        let (attacks, best) =
            (case.attacks.len(), case.attacks.iter().map(|row| row.accuracy.successes).min());
        assert!(Some(case.accuracy.successes) <= best && case.accuracy.trials == 16, "{case:?}");
        // The larger ball holds the smaller; the student is shown what its undefended model was attacked with too.
        let within = if case.eps > 0.02 { own.attacked.len() } else { own.attacked.len() / 2 };
        assert_eq!(attacks, within * if of_student(&case.model) { 2 } else { 1 }, "{case:?}");
        assert_eq!(case.with_null.is_some(), of_student(&case.model));
        let ordered = |rates: limbeck::evaluate::results::WorstCaseWithNull| {
            rates.as_error.successes <= case.accuracy.successes
                && case.accuracy.successes <= rates.as_no_error.successes
        };
        assert!(case.with_null.is_none_or(ordered), "{case:?}");
    }
    // As many as examples were asked for, each another image.
    let shown: BTreeSet<_> = results.attacked_examples.iter().map(|row| &row.path).collect();
    assert_eq!((results.attacked_examples.len(), shown.len()), (6, 6));
    for row in &results.attacked_examples {
        // 0.01 * 255 = 2.55 levels and 0.0314 * 255 = 8; on some images a student of one epoch has no gradient.
        let most = if row.attack.ends_with(" eps 0.01") { 2 } else { 8 };
        assert!(row.wrong.trials == 16 && row.largest_change <= most, "{row:?}");
    }
    assert!(results.attacked_examples.iter().any(|row| row.largest_change > 0));
    // The student once as it is deployed and once at the temperature that its rule calibrated.
    assert_eq!((robustness.curves.len(), robustness.calibration.len()), (4, 5));
    assert_eq!(robustness.comparisons.len(), 9, "clean and two balls, against three models");
    let failed = |check: &limbeck::evaluate::results::Check| {
        check.outcome == limbeck::evaluate::results::Outcome::Fail
    };
    assert_eq!(robustness.masking_suspected, results.checks.iter().any(failed));
    assert_eq!(results.controls[3].poison_left, Some(0), "the perfect filter leaves no poison");
    let page = std::fs::read_to_string(straight.join("report.html")).expect("a report");
    assert!(page.contains("embedded GTSRB sample") && !page.contains("<script"));
    assert!(page.contains("<h3>Attacked test images</h3>"));
    let page = std::fs::read_to_string(straight.join("audit.html")).expect("the page of the audit");
    let flagged = verdicts.reconstruct + verdicts.discard;
    assert!(page.contains(&format!("{flagged} of {} images are suspicious", ledger.rows.len())));
    assert_eq!(outcome.flagged, flagged);

    // The purified set is a complete set: what was judged clean, and the held-out images, in the input's own schema.
    let purified = Source::open(straight.join("purified")).expect("a set");
    let train =
        Dataset::load(&purified, Part::Train, ImageSize::default(), &mut |_, _| {}).expect("it loads");
    let trusted = results.dataset.trusted_images;
    assert_eq!(train.len() as u64, verdicts.keep + verdicts.reconstruct + trusted);
    let discarded = ledger.rows.iter().filter(|row| row.verdict == Verdict::Discard);
    let paths: std::collections::BTreeSet<_> =
        train.samples().iter().map(|sample| sample.path.as_str()).collect();
    assert!(
        discarded.into_iter().all(|row| !paths.contains(row.path.as_str())),
        "a discarded image is in the set"
    );

    // Stopped at safe points all over the run, then run to the end.
    for stop in [3, 40, 80, 120, 160] {
        match run(&stopped, &StopsAfter(AtomicI64::new(stop))) {
            Ok(_) | Err(Error::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // An evaluation that was stopped attacks no image twice.
    let [first, second] = [1, 2].map(|number| {
        format!("attack {number} of 4 on teacher, {}", ["fgsm eps 0.01", "i-fgsm eps 0.01"][number - 1])
    });
    let at_second = StopsAt { name: Some(second.clone()), ..StopsAt::default() };
    assert!(matches!(run(&stopped, &at_second), Err(Error::Interrupted)));
    let attacked = |progress: StopsAt| progress.advanced.into_inner().expect("not poisoned");
    assert!(attacked(at_second).contains(&first));
    let checkpoints = |folder: &Path| {
        let entries =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "checkpoint")).count()
    };
    assert_eq!(checkpoints(&stopped), 1, "of the evaluation");
    let to_the_end = StopsAt::default();
    run(&stopped, &to_the_end).expect("it goes on");
    assert_eq!(checkpoints(&stopped), 0);
    let attacked = attacked(to_the_end);
    assert!(attacked.contains(&second) && !attacked.contains(&first), "{attacked:?}");
    let (a, b) = (files(&straight), files(&stopped));
    assert!(a.keys().eq(b.keys()), "{:?} and {:?}", a.keys(), b.keys());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{name} differs after the stops");
    }

    // Nothing is done twice, and a damaged artefact is made again.
    let stages = Stages::default();
    run(&straight, &stages).expect("nothing to do");
    assert!(
        stages.0.into_inner().expect("not poisoned").iter().all(|(_, event)| *event == StageEvent::Skipped)
    );
    std::fs::write(straight.join("student.safetensors"), b"torn").expect("written");
    run(&straight, &Silent).expect("it mends");
    assert!(files(&straight) == a, "mended to other bytes");

    // The student answers files, and only files that are images.
    let student = Student::load(&straight, &limbeck::device("flex").expect("the CPU")).expect("a student");
    let detector = student.rule().detector.clone().expect("the audit's detector is asked");
    assert_eq!((detector.trusted_images as u64, results.abstention.detector), (trusted, Some(detector)));
    let outcomes = &results.abstention.outcomes;
    assert!(outcomes.iter().any(|row| row.inputs.ends_with("avoiding null, detector unknown")));
    assert!(outcomes.iter().all(|row| row.perturbed <= row.null));
    let device = limbeck::device("flex").expect("the CPU");
    let copy = folder.path().join("student alone");
    std::fs::create_dir(&copy).expect("a folder");
    student.save(&copy).expect("saved");
    let names: Vec<_> = files(&copy).into_keys().collect();
    let mut expected: Vec<_> = student.files().map(|(_, file)| file.to_owned()).collect();
    expected.sort();
    assert_eq!(names, expected, "all that it needs, and no more");
    Student::load(&copy, &device).expect("complete");
    // As an audit with other settings would leave it: a network that loads, and is another.
    std::fs::copy(stopped.join("student.safetensors"), copy.join("dae.safetensors")).expect("copied");
    let error = Student::load(&copy, &device).err().expect("another file").to_string();
    assert!(error.contains("dae.safetensors") && error.contains("distil again"), "{error}");
    // As a run that was stopped between its student and its null rule would.
    std::fs::copy(stopped.join("teacher.safetensors"), copy.join("student.safetensors")).expect("copied");
    let error = Student::load(&copy, &device).err().expect("another file").to_string();
    assert!(error.contains("student.safetensors") && error.contains("distil again"), "{error}");

    let error = student.predict(&[straight.join("config.toml")], &Silent).expect_err("no image").to_string();
    assert!(error.contains("config.toml") && error.contains("expected"), "{error}");
}

#[test]
fn a_folder_that_is_no_run_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.txt"), b"years of work").expect("written");
    let error = run(folder.path(), &Silent).expect_err("another's folder").to_string();
    assert!(error.contains("no limbeck run"), "{error}");
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn what_a_run_does_not_come_to_is_named_stale_and_what_it_reads_is_not_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let device = limbeck::device("flex").expect("the CPU");
    let directory = folder.path().join("run");
    Run::open(&directory, config(), &device, &Silent)
        .and_then(|mut run| run.execute(Goal::Purify))
        .expect("it purifies");
    let left = ["audit-0123456789abcdef.checkpoint", ".limbeck-purified"].map(|name| directory.join(name));
    left.iter().for_each(|path| std::fs::write(path, b"of a run that was killed").expect("written"));
    let before = files(&directory.join("purified"));
    let audited = |percentile: i64| {
        let config = config().with("purify.rule.percentile", toml::Value::from(percentile))?;
        let stages = Stages::default();
        Run::open(&directory, config, &device, &stages)?.execute(Goal::Audit)?;
        let stages = stages.0.into_inner().expect("not poisoned");
        let stale = stages.into_iter().filter(|(_, event)| *event == StageEvent::Stale);
        Ok::<_, Error>(stale.map(|(stage, _)| stage).collect::<Vec<_>>())
    };
    assert_eq!(audited(90).expect("nothing to do"), [""; 0], "the purified set is of these inputs");
    assert_eq!(audited(60).expect("audited"), ["purify"]);
    assert_eq!(files(&directory.join("purified")), before, "it stays as it was");
    assert!(left.iter().all(|path| !path.exists()), "what a killed run left is swept away");

    let purified = directory.join("purified");
    let own = config().with("data.path", toml::Value::from(purified.to_str().expect("a path of UTF-8")));
    let error = own.and_then(|config| Run::open(&directory, config, &device, &Silent)?.execute(Goal::Purify));
    let error = error.expect_err("its own input").to_string();
    assert!(error.contains("purified") && error.contains("write over it"), "{error}");
    assert_eq!(files(&purified), before);
}

#[test]
fn images_that_are_trusted_elsewhere_are_not_audited_and_get_the_trusted_class() {
    let folder = tempfile::tempdir().expect("a folder");
    let checked = folder.path().join("checked");
    let (mut image, mut put_right) = (0, BTreeSet::new());
    rewrite(&Source::embedded().expect("built in"), Part::Train, &checked, &mut |_, path, label| {
        image += 1;
        Ok(match (image % 3, label) {
            (0, 0) => {
                put_right.insert(path.to_owned());
                Edit::Replace { image: None, label: Some(1) }
            }
            (0, _) => Edit::Keep,
            _ => Edit::Drop,
        })
    })
    .expect("written");
    let run = folder.path().join("run");
    let execute = || {
        let trusted = toml::Value::from(checked.to_str().expect("a path of UTF-8"));
        let config = config().with("data.trusted", trusted)?;
        Run::open(&run, config, &limbeck::device("flex")?, &Silent)?.execute(Goal::Purify)
    };
    let outcome = execute().expect("audited");
    let audited: BTreeSet<String> =
        outcome.ledger.expect("every goal has one").rows.into_iter().map(|row| row.path).collect();
    assert!(audited.is_disjoint(&put_right));
    assert!(outcome.known > 43 && outcome.beyond_limit > 0, "{} known", outcome.known);
    assert!((1..=put_right.len() as u64).contains(&outcome.known_otherwise));
    let purified = Source::open(run.join("purified")).expect("a set");
    let set = Dataset::load(&purified, Part::Train, ImageSize::default(), &mut |_, _| {}).expect("loads");
    let found = set.samples().iter().filter(|sample| put_right.contains(&sample.path));
    let labels: Vec<u32> = found.map(|sample| sample.label).collect();
    assert_eq!(labels, vec![1; outcome.known_otherwise as usize]);

    // A place within what is trusted would be read as a part of it the next time.
    let within = config().with("data.trusted", toml::Value::from(folder.path().to_str().expect("UTF-8")));
    let run = Run::open(&run, within.expect("it fits"), &limbeck::device("flex").expect("the CPU"), &Silent);
    let error = run.expect("an own folder").execute(Goal::Audit).expect_err("within").to_string();
    assert!(error.contains("inside the source"), "{error}");
}

#[test]
fn where_nothing_is_trusted_every_image_is_audited() {
    let untrusted = ["knowledge.setting=\"untrusted\""];
    let (ledger, images, files) = purified(&untrusted).expect("the chain runs");
    let (of_trusted, ..) = purified(&[]).expect("the chain runs");
    let kept = ledger.rows.iter().filter(|row| row.verdict != Verdict::Discard).count();
    assert!(ledger.rows.len() > of_trusted.rows.len(), "nothing is set apart");
    assert_eq!(images, kept, "a discarded image is in the set, or one that was kept is not");
    let stand_ins: Vec<usize> = serde_json::from_slice(&files["stand_ins.json"]).expect("a list");
    assert!(stand_ins.len() >= 43 && stand_ins.iter().all(|index| *index < ledger.rows.len()));
    let (again, ..) = purified(&untrusted).expect("the chain runs");
    assert_eq!(ledger, again);
}

#[test]
fn an_oracle_knows_what_images_were_before() {
    let (ledger, _, files) = purified(&["knowledge.setting=\"oracle\""]).expect("the chain runs");
    let (of_trusted, _, without) = purified(&[]).expect("the chain runs");
    assert_eq!(ledger.rows.len(), of_trusted.rows.len());
    assert_ne!(files["dae.safetensors"], without["dae.safetensors"], "it learnt from nothing else");
    assert_eq!(files["label_model.safetensors"], without["label_model.safetensors"]);
    for (set, expected) in [
        (["knowledge.setting=\"oracle\"", "poison.plan.fraction=0.0"], "simulated attacker"),
        (["knowledge.setting=\"untrusted\"", "data.trusted=\"elsewhere\""], "data.trusted"),
        (["knowledge.setting=\"untrusted\"", "data.split.trusted=0.0"], "stand in"),
    ] {
        let [a, b] = set;
        let error = purified(&[b, a]).expect_err("a contradiction").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Distils into `folder` from images as they are, and gives the student's weights.
fn distilled(folder: &Path, method: &str, adversarial: &str, teacher: &Path) -> limbeck::Result<Vec<u8>> {
    let overrides = [
        ("distill.method", toml::Value::from(method)),
        ("distill.adversarial", toml::Value::from(adversarial)),
        ("distill.teacher", toml::Value::from(teacher.to_str().expect("a path of UTF-8"))),
        ("distill.crafting.steps", toml::Value::from(1)),
        ("distill.crafting.ramp", toml::Value::from(0.5)),
    ];
    let config = overrides.into_iter().try_fold(config(), |config, (key, value)| config.with(key, value))?;
    let device = limbeck::device("flex")?;
    Run::open(folder, config, &device, &Silent)?.distil_as_it_is()?;
    let loaded = Student::load(folder, &device)?;
    assert!(loaded.rule().threshold.is_none_or(f64::is_finite), "{method}");
    assert_eq!(loaded.rule().detector, None, "without an audit there is no detector to ask");
    Ok(std::fs::read(folder.join("student.safetensors")).expect("a student"))
}

#[test]
fn every_way_of_distilling_makes_its_own_student_and_the_first_comes_back_to_the_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let student = |method: &str, adversarial: &str| {
        distilled(folder.path(), method, adversarial, Path::new(""))
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    };
    let mut students: Vec<Vec<u8>> = TABLE.iter().map(|row| student(row.name, "none")).collect();
    students.push(student("none", "student"));
    students.push(student("ard", "teacher"));
    for (index, bytes) in students.iter().enumerate() {
        assert!(!students[..index].contains(bytes), "student {index} is an earlier one");
    }
    assert!(student(TABLE[0].name, "none") == students[0], "the first method makes another student now");
    // A run with an audit would put its own student in the place of this one.
    let error = run(folder.path(), &Silent).expect_err("distilled as it is").to_string();
    assert!(error.contains("--as-is") && error.contains("limbeck evaluate"), "{error}");
    assert!(std::fs::read(folder.path().join("student.safetensors")).expect("a student") == students[0]);
}

#[test]
fn a_student_is_measured_on_test_images_or_on_held_out_ones_that_it_did_not_learn_from() -> limbeck::Result<()>
{
    let folder = tempfile::tempdir().expect("a folder");
    distilled(folder.path(), "defensive", "none", Path::new(""))?;
    let soft_labels = SoftLabels::load(&folder.path().join("soft_labels.parquet"))?;
    let (sets, device) = (Sets::load(&config(), &Silent)?, limbeck::device("flex")?);
    let held_out = sets.held_out_images()?;
    let learnt_from =
        (0..held_out.len()).filter(|&image| soft_labels.targets(&held_out.subset(&[image])).is_ok());
    assert_eq!(learnt_from.count(), 0);
    for (images, expected) in [(MeasuredOn::Test, sets.test.len()), (MeasuredOn::HeldOut, held_out.len())] {
        let student = folder.path().join("student.safetensors");
        let found = evaluate_model(&config(), &student, None, images, &device, &Silent)?;
        assert_eq!((found.images, found.model.clean.trials), (images, expected as u64));
        assert!(found.model.attacked.iter().all(|row| row.accuracy.trials == 16));
    }
    Ok(())
}

#[test]
fn a_run_without_an_audit_is_measured_with_its_null_rule_and_only_once() -> limbeck::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let device = limbeck::device("flex")?;
    let targeted = r#"[{kind="i-fgsm",eps=0.0314},{kind="i-fgsm",eps=0.0314,target="least-likely"}]"#;
    let attacks: toml::Table = toml::from_str(&format!("attacks = {targeted}")).expect("attacks");
    let config = config().with("evaluate.attacks", attacks["attacks"].clone())?;
    let evaluate = || {
        let mut run = Run::open(folder.path(), config.clone(), &device, &Silent)?;
        run.evaluate_as_it_is()
    };
    let found = evaluate()?;
    assert!(limbeck::pipeline::is_as_is(folder.path())?);
    let names: Vec<&str> = found.models.iter().map(|row| row.model.as_str()).collect();
    assert_eq!(names, ["teacher", "student"]);
    assert!(found.models[1].trained_on.starts_with("the set as it is"), "{}", found.models[1].trained_on);
    for row in &found.models {
        let [any, least_likely] = &row.attacked[..] else { panic!("two attacks: {row:?}") };
        assert_eq!(any.reached, None);
        let reached = least_likely.reached.expect("a class is sought");
        assert_eq!(reached.trials, 16, "every image has another class to be led to");
        assert!(reached.successes + least_likely.accuracy.successes <= 16, "{least_likely:?}");
    }
    let student = found.robustness.worst_cases.iter().find(|case| case.model == "student");
    assert!(student.expect("it was attacked").with_null.is_some(), "null is counted both ways");
    let test = Sets::load(&config, &Silent)?.test.len() as u64;
    let clean = &found.abstention.outcomes[0];
    assert_eq!((clean.inputs.as_str(), clean.right + clean.wrong + clean.null), ("clean", test));
    assert_eq!(found.abstention.detector, None);
    let written = std::fs::read(folder.path().join("evaluation.json")).expect("it is written");
    assert_eq!(evaluate()?, found);
    assert!(std::fs::read(folder.path().join("evaluation.json")).expect("it is there") == written);
    Ok(())
}

#[test]
fn a_teacher_that_is_there_already_teaches_as_it_did_where_it_was_trained() {
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let teacher = first.path().join("teacher.safetensors");
    let taught = |method: &str, teacher: &Path| distilled(second.path(), method, "none", teacher);
    for method in ["ard", "defensive"] {
        let by_its_own = distilled(first.path(), method, "none", Path::new("")).expect("a student");
        assert!(taught(method, &teacher).expect("a student") == by_its_own, "{method}");
        let copy = std::fs::read(second.path().join("teacher.safetensors")).expect("the teacher's copy");
        assert!(copy == std::fs::read(&teacher).expect("the teacher"), "{method}");
    }
    // Of another set in the same folder it teaches another student.
    for method in ["defensive", "ltd"] {
        let folder = tempfile::tempdir().expect("a folder");
        let of_images = |limit: i64| {
            let given = toml::Value::from(teacher.to_str().expect("a path of UTF-8"));
            let config = config().with("data.limit_per_class", toml::Value::from(limit))?;
            let config = config.with("distill.method", toml::Value::from(method))?;
            let config = config.with("distill.temperature", toml::Value::from(20))?;
            let config = config.with("distill.teacher", given)?;
            Run::open(folder.path(), config, &limbeck::device("flex")?, &Silent)?.distil_as_it_is()?;
            Ok::<_, limbeck::Error>(
                std::fs::read(folder.path().join("student.safetensors")).expect("a student"),
            )
        };
        assert!(of_images(14).expect("a student") != of_images(13).expect("a student"), "{method}");
    }
    // The defensive method's, trained at 20, for one that asks at 1; and a network of other classes.
    let hot = taught("ard", &teacher).expect_err("another temperature").to_string();
    assert!(hot.contains("teacher.safetensors") && hot.contains("temperature 20"), "{hot}");
    distilled(first.path(), "extended", "none", Path::new("")).expect("a student");
    let outlier = taught("ard", &first.path().join("student.safetensors")).expect_err("an output more");
    assert!(outlier.to_string().contains("outlier class"), "{outlier}");
    let missing = taught("ard", &first.path().join("nobody.safetensors")).expect_err("no file").to_string();
    assert!(missing.contains("nobody.safetensors"), "{missing}");
    let own = distilled(first.path(), "ard", "none", &first.path().join("student.safetensors"));
    let own = own.expect_err("it would change its own teacher").to_string();
    assert!(own.contains("student.safetensors") && own.contains("run directory"), "{own}");
    let narrow = config().with("classifier.network.width", toml::Value::from(6)).and_then(|config| {
        let file = first.path().join("teacher.safetensors");
        let config = config.with("distill.start", toml::Value::from("teacher"))?;
        let config =
            config.with("distill.teacher", toml::Value::from(file.to_str().expect("a path of UTF-8")))?;
        Run::open(&second.path().join("other"), config, &limbeck::device("flex")?, &Silent)?.distil_as_it_is()
    });
    let narrow = narrow.expect_err("another shape").to_string();
    assert!(narrow.contains("width 4") && narrow.contains("width 6"), "{narrow}");
    assert!(!second.path().join("other").exists(), "nothing is made before the teacher is known to fit");
    let learnt_on = |start: &str, networks: Vec<toml::Value>| {
        let config = config().with("distill.adversarial", toml::Value::from("student"))?;
        let config = config.with("distill.start", toml::Value::from(start))?;
        let config = config.with("distill.ensemble.networks", toml::Value::from(networks))?;
        Run::open(&second.path().join("among"), config, &limbeck::device("flex")?, &Silent)?.distil_as_it_is()
    };
    let file = |network: &Path| toml::Value::from(network.to_str().expect("UTF-8"));
    let among = |network: &Path| learnt_on("random", vec![toml::Value::from("teacher"), file(network)]);
    let missing = among(&first.path().join("nobody.safetensors")).expect_err("no file").to_string();
    assert!(missing.contains("nobody.safetensors"), "{missing}");
    assert!(!second.path().join("among").exists(), "nothing is made before the ensemble is known to fit");
    among(&teacher).expect("a student");
    let student = |folder: &Path| std::fs::read(folder.join("student.safetensors")).expect("a student");
    let among_others = student(&second.path().join("among"));
    // Another network under the same name makes another student.
    std::fs::copy(second.path().join("teacher.safetensors"), &teacher).expect("copied");
    among(&teacher).expect("a student");
    let others_again = student(&second.path().join("among"));
    assert!(others_again != among_others);
    // The same networks in other roles, too.
    learnt_on("teacher", vec![file(&teacher)]).expect("a student");
    assert!(student(&second.path().join("among")) != others_again);
    let both = distilled(second.path(), "ard", "both", &teacher).expect_err("trained already").to_string();
    assert!(both.contains("distill.adversarial"), "{both}");
}
