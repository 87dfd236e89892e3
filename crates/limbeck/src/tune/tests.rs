//! Whole searches on a small part of the embedded sample.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::objective::Yardstick;
use super::results::SearchResults;
use super::*;
use crate::network::TrainedAutoencoder;
use crate::pipeline::{Goal, Preset, Run};
use crate::progress::{Progress, Silent};

/// 5 images a class, no attacker, networks of width 4: a trial takes a moment.
fn base(more: &[&str]) -> RunConfig {
    let overrides = [
        "data.limit_per_class=9",
        "data.image_size={width=16,height=16}",
        "poison.plan.fraction=0",
        "classifier.network.width=4",
        "classifier.network.hidden=16",
        "classifier.train.epochs=1",
        "dae.width=4",
        "dae.train.epochs=2",
    ];
    let overrides: Vec<String> = overrides.iter().chain(more).map(|text| (*text).to_owned()).collect();
    RunConfig::resolve(Preset::Sample, None, &overrides).expect("the overrides fit")
}

fn search(space: &[&str], sampler: SamplerKind, objective: ObjectiveKind, trials: usize) -> TuneConfig {
    let space = space.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    TuneConfig { space: Space::parse(&space).expect("a space"), sampler, objective, trials }
}

fn run(
    folder: &Path,
    base: &RunConfig,
    search: &TuneConfig,
    progress: &dyn Progress,
) -> Result<SearchResults> {
    tune(folder, base, search, &crate::device("flex").expect("the CPU"), progress)
}

/// What a clock has no part in.
fn timeless(mut results: SearchResults) -> SearchResults {
    results.trials.iter_mut().for_each(|trial| trial.seconds = None);
    results
}

/// Stops at the n-th safe point, as Ctrl-C does.
struct StopsAfter(AtomicI64);

impl Progress for StopsAfter {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

const SPACE: [&str; 2] = ["dae.train.learning_rate=log:1e-3..1e-2", "dae.train.batch=choice:16,32"];

#[test]
fn a_search_that_was_stopped_and_extended_ends_like_one_that_was_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (straight, stopped) = (folder.path().join("straight"), folder.path().join("stopped"));
    let base = base(&[]);
    let search = |trials| search(&SPACE, SamplerKind::Tpe, ObjectiveKind::Psnr, trials);
    let expected = timeless(run(&straight, &base, &search(7), &Silent).expect("it runs"));
    assert_eq!(expected.trials.len(), 7);
    let mut interruptions = 0;
    for points in [25, 40, 31] {
        match run(&stopped, &base, &search(4), &StopsAfter(AtomicI64::new(points))) {
            Err(Error::Interrupted) => interruptions += 1,
            other => drop(other.expect("nothing else goes wrong")),
        }
    }
    assert!(interruptions == 3, "{interruptions}");
    run(&stopped, &base, &search(4), &Silent).expect("it goes on");
    // A power cut in the middle of a write.
    let journal = stopped.join("journal.log");
    let mut bytes = std::fs::read(&journal).expect("the journal");
    bytes.extend_from_slice(b"{\"op_code\":4,\"wor");
    std::fs::write(&journal, bytes).expect("writable");
    assert_eq!(timeless(run(&stopped, &base, &search(7), &Silent).expect("it goes on")), expected);

    let [before, after] = [&straight, &stopped].map(|folder| {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("written");
        assert!(read("tune.html").contains("psnr") && read("trials.csv").lines().count() == 8);
        read("best.toml")
    });
    assert_eq!(before, after);
    let other = search(7);
    for (refused, words) in [
        (
            run(&stopped, &base, &TuneConfig { sampler: SamplerKind::Random, ..other.clone() }, &Silent),
            "sampler \"tpe\"",
        ),
        (
            run(
                &stopped,
                &base,
                &TuneConfig { objective: ObjectiveKind::Detection, ..other.clone() },
                &Silent,
            ),
            "objective \"psnr\"",
        ),
        (
            run(&stopped, &base, &TuneConfig { space: Space::default(), ..other.clone() }, &Silent),
            "a search with space",
        ),
        (run(&stopped, &self::base(&["seed=5"]), &other, &Silent), "a search with config"),
    ] {
        let refused = refused.expect_err(words).to_string();
        assert!(refused.contains(words) && refused.contains("another folder"), "{refused}");
    }
}

#[test]
fn the_best_settings_train_the_very_autoencoder_that_was_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let search = search(&SPACE, SamplerKind::Random, ObjectiveKind::ValidationLoss, 2);
    let results = run(folder.path(), &base(&[]), &search, &Silent).expect("it runs");
    let best = results.best().expect("complete trials");
    let least = results.trials.iter().filter_map(|trial| trial.value).fold(f64::INFINITY, f64::min);
    assert_eq!(best.value, Some(least));

    let config =
        RunConfig::resolve(Preset::Gtsrb, Some(&folder.path().join("best.toml")), &[]).expect("a config");
    let directory = folder.path().join("run");
    let mut run =
        Run::open(&directory, config, &crate::device("flex").expect("the CPU"), &Silent).expect("new");
    run.execute(Goal::Audit).expect("it runs");
    let images = run.images().expect("read");
    let ground = run.ground(&images).expect("made");
    let twins = run.yardstick(&images, &ground).expect("made");
    let purify = base(&[]).purify;
    let yardstick = Yardstick { twins: &twins, classifier: &ground.classifier, purify };
    let device = crate::device("flex").expect("the CPU");
    let network = TrainedAutoencoder::load(&directory.join("dae.safetensors"), &device).expect("written");
    let loss = yardstick.measure(ObjectiveKind::ValidationLoss, &network).expect("finite");
    assert_eq!(loss, least);
}

#[test]
fn trials_that_change_the_classifier_get_their_own_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let with_classifier =
        search(&["classifier.train.epochs=choice:1,2"], SamplerKind::Random, ObjectiveKind::Detection, 3);
    let results = run(folder.path(), &base(&["dae.train.epochs=1", "seed=2"]), &with_classifier, &Silent)
        .expect("it runs");
    let values = |epochs: i64| -> Vec<f64> {
        let trials = results.trials.iter().filter(|trial| trial.parameters == [Some(Scalar::Int(epochs))]);
        trials.map(|trial| trial.value.expect("complete")).collect()
    };
    let (one, two) = (values(1), values(2));
    assert!(!one.is_empty() && !two.is_empty(), "both are drawn: {results:?}");
    assert!(one.iter().all(|value| *value == one[0]) && two.iter().all(|value| *value == two[0]));
    assert_ne!(one[0], two[0], "another classifier makes other twins to learn from");
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["best.toml", "common", "journal.log", "trials.csv", "tune.html"]);
}

#[test]
fn a_trial_that_diverges_has_failed_and_the_search_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let wild =
        search(&["dae.train.learning_rate=choice:0.004,1e30"], SamplerKind::Random, ObjectiveKind::Psnr, 3);
    let results = run(folder.path(), &base(&["dae.train.epochs=1"]), &wild, &Silent).expect("it runs");
    assert!(results.count("failed") > 0 && results.count("complete") > 0, "{results:?}");
    for trial in &results.trials {
        let diverges = trial.parameters == [Some(Scalar::Float(1e30))];
        assert_eq!(trial.state == "failed", diverges);
        assert_eq!(
            trial.error.as_deref().is_some_and(|error| error.contains("training: a loss of")),
            diverges
        );
    }
}

#[test]
fn hyperband_trains_the_worse_trials_for_an_epoch_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = ["dae.train.learning_rate=log:1e-7..1e-2"];
    let search = search(&space, SamplerKind::Hyperband, ObjectiveKind::ValidationLoss, 9);
    let results =
        run(folder.path(), &base(&["dae.train.epochs=3", "seed=3"]), &search, &Silent).expect("it runs");
    // Brackets with first rungs after one and three epochs take the trials in turn.
    assert!(
        results.trials.iter().skip(1).step_by(2).all(|trial| trial.epochs == 3 && trial.state == "complete")
    );
    assert!(results.count("pruned") > 0, "{results:?}");
    for trial in results.trials.iter().filter(|trial| trial.state == "pruned") {
        assert_eq!((trial.epochs, trial.value), (1, Some(trial.curve[0].1)));
        let rivals: Vec<f64> =
            results.trials[..trial.number].iter().step_by(2).map(|rival| rival.curve[0].1).collect();
        let better = rivals.iter().filter(|rival| **rival < trial.curve[0].1).count();
        assert!(better >= (rivals.len() + 1).div_ceil(3), "{} of {rivals:?}", trial.curve[0].1);
    }
}

#[test]
fn what_cannot_be_searched_is_refused_before_any_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let label = ["purify.score=label"];
    for (overrides, space, sampler, objective, words) in [
        (&[][..], "seed=int:1..9", SamplerKind::Tpe, ObjectiveKind::Psnr, "`seed`"),
        (
            &[],
            "data.limit_per_class=int:5..9",
            SamplerKind::Tpe,
            ObjectiveKind::Psnr,
            "a key that decides psnr",
        ),
        (&[], "purify.score=choice:mse,head", SamplerKind::Tpe, ObjectiveKind::Psnr, "`purify.score`"),
        (&[], "purify.score=choice:mse,label", SamplerKind::Tpe, ObjectiveKind::Detection, "found label"),
        (
            &[],
            "purify.score=choice:mse,spectral",
            SamplerKind::Tpe,
            ObjectiveKind::Detection,
            "found spectral",
        ),
        (&[], "purify.score=choice:mse,intent", SamplerKind::Tpe, ObjectiveKind::Detection, "found intent"),
        (&label, "dae.width=int:4..8", SamplerKind::Tpe, ObjectiveKind::Detection, "found label"),
        (&[], "dae.train.epochs=int:1..9", SamplerKind::Hyperband, ObjectiveKind::Psnr, "another sampler"),
        (&[], "dae.least_steps=int:1..9", SamplerKind::Hyperband, ObjectiveKind::Psnr, "another sampler"),
    ] {
        let refused = run(&out, &base(overrides), &search(&[space], sampler, objective, 3), &Silent);
        let refused = refused.expect_err(space).to_string();
        assert!(refused.contains(words), "{refused}");
    }
    let none = search(&SPACE, SamplerKind::Tpe, ObjectiveKind::Psnr, 0);
    assert!(run(&out, &base(&[]), &none, &Silent).expect_err("none").to_string().contains("`trials`"));
    assert!(!out.exists());
    std::fs::create_dir(&out).expect("writable");
    std::fs::write(out.join("thesis.txt"), "years of work").expect("writable");
    let some = search(&SPACE, SamplerKind::Tpe, ObjectiveKind::Psnr, 1);
    let refused = run(&out, &base(&[]), &some, &Silent).expect_err("occupied").to_string();
    assert!(refused.contains("files that are no search"), "{refused}");
    std::fs::write(out.join("journal.log"), "{}\n").expect("writable");
    let refused = run(&out, &base(&[]), &some, &Silent).expect_err("damaged").to_string();
    assert!(refused.contains("journal.log") && refused.contains("line 1"), "{refused}");
}
