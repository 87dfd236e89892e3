//! The binary as its users meet it: exit codes, what errors say, and what failed commands leave behind.
//!
//! Every refused command must fail before anything is trained, and what is trained is tiny, so all of this takes seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// A run of the binary with everything as text.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("limbeck writes UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Finished {
    /// The exit code is `code`, stdout is empty, and stderr holds every one of `words`.
    #[track_caller]
    fn is_refused(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
    }

    #[track_caller]
    fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }
}

/// A folder to work in, with the image sets that the tests need.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn limbeck(&self, arguments: &[&str]) -> Finished {
        let binary = env!("CARGO_BIN_EXE_limbeck");
        Command::new(binary)
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("the binary starts")
            .into()
    }

    /// An image folder `set` with four images in each of these classes.
    fn set(&self, classes: &[&str]) {
        for (class, name) in classes.iter().enumerate() {
            let folder = self.path("set").join(name);
            fs::create_dir_all(&folder).expect("writable");
            for index in 0..4_u8 {
                let image = RgbImage::from_pixel(8, 8, Rgb([60 * index, 100 * class as u8, 7]));
                image.save(folder.join(format!("{index}.png"))).expect("writable");
            }
        }
    }

    /// The set of two classes with one more file in it.
    fn set_with(&self, file: &str, bytes: &[u8]) {
        self.set(&["cat", "dog"]);
        fs::write(self.path("set").join(file), bytes).expect("writable");
    }

    /// `limbeck audit` with the tiny set's preset, into `out`.
    fn audit(&self, data: &str, more: &[&str]) -> Finished {
        self.limbeck(&[&["audit", data, "--out", "out", "--preset", "audit"], more].concat())
    }

    /// A run that found nothing to work on has not begun.
    #[track_caller]
    fn has_no_run(&self) {
        assert!(!self.path("out").exists(), "{:?} in out", names_in(&self.path("out")));
    }
}

/// What lies in a folder, but for the empty file that keeps a second run out of it.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != ".lock");
    names.sort();
    names
}

/// A chunk of a PNG file: length, type, data, CRC-32 (PNG specification, annex D).
fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind.as_slice(), data].concat();
    let crc = !body.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    });
    [&(data.len() as u32).to_be_bytes(), body.as_slice(), &crc.to_be_bytes()].concat()
}

/// The beginning of an 8-bit RGB image of these sides, with hardly any data behind it.
fn png_of(side: u32) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes()[..], &[8, 2, 0, 0, 0]].concat();
    // An empty zlib stream: two bytes of header, a final block of no bytes, Adler-32 of nothing.
    let data = [0x78, 0x01, 0x01, 0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x01];
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        png_chunk(b"IHDR", &header),
        png_chunk(b"IDAT", &data),
        png_chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn a_missing_folder_is_named() {
    let workshop = Workshop::new();
    workshop.audit("nowhere", &[]).is_refused(1, &["nowhere", "No such file"]);
    workshop.has_no_run();
}

/// A csv table of two features and a class that they tell, with one cell of row 7 as given.
fn vectors(workshop: &Workshop, cell: &str) {
    let row = |row: usize| {
        let [x, y] = [row * 7 % 10, row * 3 % 11];
        let y = if row == 7 { cell.to_owned() } else { y.to_string() };
        format!("{x},{y},{}\n", if x < 5 { "low" } else { "high" })
    };
    let rows: String = (1..=160).map(row).collect();
    fs::write(workshop.path("table.csv"), format!("x,y,class\n{rows}")).expect("writable");
}

#[test]
fn a_table_is_audited_and_its_files_are_named() {
    let workshop = Workshop::new();
    vectors(&workshop, "3");
    let small = ["network.hidden=[8]", "network.train.epochs=2", "dae.train.epochs=1", "audit.folds=2"];
    let small: Vec<&str> = small.iter().flat_map(|set| ["--set", set]).collect();
    let typed = ["vectors", "table.csv", "--target", "class", "--out", "out", "--seed", "2"];
    let said = workshop.limbeck(&[&typed[..], &small].concat()).succeeds();
    for word in ["audited rows", "clean test rows", "worst case", "undefended", "out/report.html"] {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    let names = names_in(&workshop.path("out"));
    for name in
        ["config.toml", "evaluation.json", "ledger.csv", "purified.csv", "report.html", "student.safetensors"]
    {
        assert!(names.iter().any(|found| found == name), "no {name} in {names:?}");
    }
    // Again into the same folder, and as JSON.
    let json = workshop.limbeck(&[&typed[..], &small, &["--json"]].concat()).succeeds();
    assert!(json.starts_with('{') && json.contains("\"audited\""), "{json}");
    for command in ["evaluate", "report"] {
        workshop
            .limbeck(&[command, "out"])
            .is_refused(1, &["out", "a folder of `limbeck vectors`", "a run directory"]);
    }
}

#[test]
fn a_cell_that_is_no_number_and_a_missing_target_are_named() {
    let workshop = Workshop::new();
    vectors(&workshop, "?");
    workshop
        .limbeck(&["vectors", "table.csv", "--target", "class", "--out", "out"])
        .is_refused(1, &["table.csv", "row 7, column `y`", "found the text `?`", "expected a finite number"]);
    workshop
        .limbeck(&["vectors", "table.csv", "--target", "price", "--out", "out"])
        .is_refused(1, &["table.csv", "the target column `price`"]);
    workshop.limbeck(&["vectors", "table.csv", "--out", "out"]).is_refused(1, &["data.target", "--target"]);
    workshop.has_no_run();
}

#[test]
fn a_folder_of_other_files_is_no_place_for_a_table_s_results() {
    let workshop = Workshop::new();
    vectors(&workshop, "3");
    fs::create_dir(workshop.path("mine")).expect("writable");
    fs::write(workshop.path("mine/notes.txt"), "mine").expect("writable");
    workshop
        .limbeck(&["vectors", "table.csv", "--target", "class", "--out", "mine"])
        .is_refused(1, &["mine", "earlier `limbeck vectors`"]);
    assert_eq!(names_in(&workshop.path("mine")), ["notes.txt"]);
}

#[test]
fn an_empty_class_is_named() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    fs::create_dir(workshop.path("set/owl")).expect("writable");
    workshop
        .audit("set", &[])
        .is_refused(1, &["set/owl", "found an empty class folder", "expected at least one image"]);
    workshop.has_no_run();
}

#[test]
fn one_class_is_too_few() {
    let workshop = Workshop::new();
    workshop.set(&["cat"]);
    workshop
        .audit("set", &[])
        .is_refused(1, &["set", "found one class (cat)", "expected at least two classes"]);
    workshop.has_no_run();
}

#[test]
fn a_truncated_image_is_named() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let whole = fs::read(workshop.path("set/cat/0.png")).expect("just written");
    fs::write(workshop.path("set/cat/half.png"), &whole[..whole.len() / 2]).expect("writable");
    workshop.audit("set", &[]).is_refused(1, &["set/cat/half.png", "found a damaged image", "expected png"]);
    workshop.has_no_run();
}

#[test]
fn a_header_that_claims_10_gigabytes_is_refused_by_its_claim() {
    let workshop = Workshop::new();
    workshop.set_with("dog/huge.png", &png_of(60_000));
    workshop.audit("set", &[]).is_refused(1, &["set/dog/huge.png", "60000", "expected"]);
    workshop.has_no_run();
}

#[test]
fn text_under_the_name_of_an_image_is_called_text() {
    let workshop = Workshop::new();
    workshop.set_with("dog/notes.png", b"these are notes");
    workshop.audit("set", &[]).is_refused(1, &["set/dog/notes.png", "found text", "expected png"]);
    workshop.has_no_run();
}

#[test]
fn a_parquet_name_does_not_make_a_parquet_file() {
    let workshop = Workshop::new();
    fs::write(workshop.path("set.parquet"), "these are notes").expect("writable");
    workshop.audit("set.parquet", &[]).is_refused(1, &["set.parquet", "found", "expected a parquet file"]);
    workshop.has_no_run();
}

#[test]
fn an_unknown_key_is_named_with_those_that_are_known() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    fs::write(workshop.path("my.toml"), "[dae]\nlerning_rate = 1\n").expect("writable");
    let words = ["`dae.lerning_rate`", "an unknown key", "expected one of: ", "noise"];
    let of_file = [&["my.toml"], &words[..]].concat();
    workshop.audit("set", &["--config", "my.toml"]).is_refused(1, &of_file);
    workshop.audit("set", &["--set", "dae.lerning_rate=1"]).is_refused(1, &words);
    assert!(!workshop.path("out").exists());
}

#[test]
fn a_learning_rate_that_is_no_number_is_refused() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let refused = workshop.audit("set", &["--set", "classifier.train.learning_rate=nan"]);
    refused.is_refused(
        1,
        &["`classifier.train.learning_rate`", "found NaN", "expected a finite number above 0"],
    );
    assert!(!workshop.path("out").exists());
}

#[test]
fn an_unknown_preset_is_a_usage_error_that_lists_the_presets() {
    let refused = Workshop::new().limbeck(&["run", "--preset", "best"]);
    refused.is_refused(2, &["'best'", "--preset", "sample, audit, gtsrb, robust, authors"]);
}

#[test]
fn a_limit_on_findings_is_read_before_any_work() {
    let workshop = Workshop::new();
    let refused = workshop.limbeck(&["audit", "set", "--out", "out", "--fail-on", "many"]);
    refused.is_refused(2, &["--fail-on", "found `many`", "expected a number of images"]);
    assert!(!workshop.path("out").exists());
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    fs::create_dir(workshop.path("out")).expect("writable");
    fs::write(workshop.path("out/thesis.txt"), "years of work").expect("writable");
    workshop
        .audit("set", &[])
        .is_refused(1, &["out", "found files that are no limbeck run", "expected a new or empty folder"]);
    assert_eq!(names_in(&workshop.path("out")), ["thesis.txt"]);
}

#[test]
fn a_folder_that_is_no_run_cannot_be_reported_or_asked() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    workshop
        .limbeck(&["report", "set"])
        .is_refused(1, &["set", "found no config.toml", "expected a run directory"]);
    workshop
        .limbeck(&["seeds", "set", "set"])
        .is_refused(1, &["set", "found no config.toml", "expected a run directory"]);
    workshop.limbeck(&["seeds", "set"]).is_refused(2, &["2 values required"]);
    workshop
        .limbeck(&["predict", "set", "set/cat/0.png"])
        .is_refused(1, &["set/student.safetensors", "No such file"]);
    assert_eq!(names_in(&workshop.path("set")), ["cat", "dog"]);
}

#[test]
fn a_run_is_measured_on_its_own_set_and_a_model_on_one_that_is_named() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    fs::write(workshop.path("model.safetensors"), "these are notes").expect("writable");
    workshop
        .limbeck(&["evaluate", "set", "set"])
        .is_refused(2, &["a run directory has its own DATA", "limbeck evaluate"]);
    workshop.limbeck(&["evaluate", "model.safetensors"]).is_refused(2, &["model.safetensors", "needs DATA"]);
    workshop
        .limbeck(&["evaluate", "set", "--transfer-from", "model.safetensors"])
        .is_refused(2, &["--transfer-from is for a model file", "limbeck evaluate"]);
    workshop
        .limbeck(&["evaluate", "set", "--held-out"])
        .is_refused(2, &["--held-out is for a model file", "limbeck evaluate"]);
    workshop
        .limbeck(&["evaluate", "model.safetensors", "set", "--budget", "endless"])
        .is_refused(2, &["endless", "quick, standard, full"]);
    let refused = workshop.limbeck(&["evaluate", "model.safetensors", "set"]);
    refused.is_refused(1, &["model.safetensors", "found", "expected safetensors weights"]);
}

#[test]
fn students_of_a_set_as_it_is_are_measured_with_their_null_rule_and_summed_up() {
    let workshop = Workshop::new();
    let tiny = [
        "data.limit_per_class=9",
        "data.image_size={width=16,height=16}",
        "classifier.network.width=4",
        "classifier.network.hidden=16",
        "classifier.train.epochs=1",
        "abstention.passes=4",
        "evaluate.attacked_images=8",
        "evaluate.attacks=[{kind=\"fgsm\",eps=0.0314,target=\"random\"}]",
        "evaluate.curve.eps=[0.0,1.0]",
        "evaluate.checklist.enabled=false",
        "evaluate.knowing_rule.eps=[]",
        "evaluate.held_out.honest=[]",
    ];
    let tiny: Vec<&str> = tiny.iter().flat_map(|set| ["--set", set]).collect();
    for seed in ["1", "2"] {
        let typed = ["distil", "sample", "--as-is", "--out", seed, "--seed", seed, "--quiet"];
        workshop.limbeck(&[&typed[..], &tiny].concat()).succeeds();
        let said = workshop.limbeck(&["evaluate", seed, "--quiet"]).succeeds();
        let words =
            ["teacher", "to a random class: answered with it", "10 steps on student", "null an error"];
        for word in words.into_iter().chain(["right alone", "student's answers to"]) {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    let said = workshop.limbeck(&["seeds", "1", "2"]).succeeds();
    assert!(said.contains("null answer") && said.contains("student: clean"), "{said}");
    workshop.limbeck(&["evaluate", "1", "--ablation"]).is_refused(2, &["--ablation", "no audit"]);
    workshop.limbeck(&["run", "--out", "1"]).is_refused(1, &["--as-is", "limbeck evaluate"]);
    let said = workshop.limbeck(&["report", "1", "--quiet"]).succeeds();
    assert!(said.contains("report.html"), "{said}");
    let page = fs::read_to_string(workshop.path("1/report.html")).expect("a page");
    assert!(page.contains("distilled without an audit") && page.contains("Attacked test images"));
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    fs::write(workshop.path("precious"), "mine").expect("writable");
    fs::create_dir_all(workshop.path("copy/set")).expect("writable");
    workshop
        .limbeck(&["config", "init", "precious"])
        .is_refused(1, &["precious", "found a file", "expected a new one"]);
    workshop
        .limbeck(&["train", "set", "--out", "precious"])
        .is_refused(1, &["precious", "expected a new file"]);
    workshop
        .limbeck(&["poison", "set", "--out", "copy"])
        .is_refused(1, &["copy/set", "expected a destination without it"]);
    assert_eq!(fs::read_to_string(workshop.path("precious")).expect("still there"), "mine");
    assert_eq!(names_in(&workshop.path("copy")), ["set"]);
}

#[test]
fn an_attack_without_the_norm_that_it_is_made_for_is_refused_by_its_key() {
    let workshop = Workshop::new();
    let refused = workshop.limbeck(&["poison", "sample", "--out", "copy", "--attack", "carlini-wagner"]);
    refused.is_refused(1, &["`poison.plan.attack.norm`", "carlini-wagner", "L2"]);
}

#[test]
fn a_poisoned_share_beyond_all_images_is_refused_by_its_key() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let refused = workshop.limbeck(&["poison", "set", "--out", "copy", "--fraction", "2"]);
    refused.is_refused(1, &["`poison.plan.fraction`", "found 2", "expected a share in [0, 1]"]);
    let none = workshop.limbeck(&["poison", "set", "--out", "copy", "--fraction", "0"]);
    none.is_refused(1, &["`poison.plan.fraction`", "found 0", "expected a share above 0"]);
    assert!(!workshop.path("copy").exists());
}

#[test]
fn an_option_that_changes_nothing_about_the_poison_is_a_usage_error() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let idle = [
        ("label-flip", "--eps", "0.5", "of these: --fraction"),
        ("bad-nets", "--attack", "pgd", "of these: --fraction, --target"),
        ("paired-flip", "--target", "1", "of these: --fraction"),
        ("bad-nets", "--label", "kept", "of these: --fraction, --target"),
    ];
    for (kind, option, value, expected) in idle {
        let refused = workshop.limbeck(&["poison", "set", "--out", "copy", "--kind", kind, option, value]);
        refused
            .is_refused(2, &[option, "changes nothing", kind.split('-').next().expect("a word"), expected]);
    }
    assert!(!workshop.path("copy").exists());
}

#[test]
fn settings_that_contradict_one_another_are_refused_wherever_they_stand() {
    let workshop = Workshop::new();
    let show = |more: &[&str]| workshop.limbeck(&[&["config", "show"], more].concat());
    show(&["--trusted", ""]).is_refused(2, &["--trusted"]);
    show(&["--data", "photos", "--trusted", "x", "--set", "knowledge.setting=untrusted"])
        .is_refused(1, &["`knowledge.setting`", "untrusted"]);
    show(&["--set", "distill.method=extended", "--set", "classifier.network.dropout=0"])
        .is_refused(1, &["`classifier.network.dropout`", "found 0", "doubts"]);
    fs::create_dir(workshop.path("run")).expect("writable");
    workshop
        .limbeck(&["evaluate", "run", "--seed", "3"])
        .is_refused(2, &["--seed", "a run directory has its own"]);
}

#[test]
fn a_search_that_makes_no_sense_is_refused_before_any_work() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let tune = |more: &[&str]| workshop.limbeck(&[&["tune", "set", "--out", "out"], more].concat());
    tune(&["--space", "dae.lerning_rate=log:1e-4..1e-2"])
        .is_refused(1, &["`dae.lerning_rate`", "found an unknown key", "noise"]);
    tune(&["--space", "dae.width=int:24..8"])
        .is_refused(1, &["`dae.width`", "found int:24..8", "expected LOW below HIGH"]);
    tune(&["--space", "dae.width=log:8..24"])
        .is_refused(1, &["dae.width", "found invalid type", "expected usize"]);
    tune(&["--space", "nowhere.toml"]).is_refused(1, &["nowhere.toml", "No such file"]);
    tune(&["--trials", "0"]).is_refused(1, &["`trials`", "found 0", "expected 1 or more"]);
    tune(&["--sampler", "grid"]).is_refused(2, &["'grid'", "--sampler", "random, tpe, hyperband"]);
    tune(&["--objective", "accuracy"])
        .is_refused(2, &["'accuracy'", "--objective", "validation-loss, detection, psnr"]);
    assert!(!workshop.path("out").exists());
}

#[test]
fn a_damaged_journal_is_named_with_its_line() {
    let workshop = Workshop::new();
    fs::create_dir(workshop.path("out")).expect("writable");
    fs::write(workshop.path("out/journal.log"), "{\"op_code\":2,\"study_id\":0}\n").expect("writable");
    workshop
        .limbeck(&["tune", "--out", "out"])
        .is_refused(1, &["out/journal.log", "in line 1: study 0", "expected a study"]);
    assert_eq!(names_in(&workshop.path("out")), ["journal.log"]);
}

#[test]
fn a_shown_config_is_the_config_of_a_file_that_holds_it() {
    let workshop = Workshop::new();
    for preset in ["sample", "audit", "gtsrb", "robust", "authors"] {
        let shown = workshop
            .limbeck(&["config", "show", "--preset", preset, "--seed", "9", "--data", "my photos"])
            .succeeds();
        assert!(shown.contains("seed = 9") && shown.contains("path = \"my photos\""), "{shown}");
        fs::write(workshop.path("shown.toml"), &shown).expect("writable");
        assert_eq!(
            workshop.limbeck(&["config", "show", "--config", "shown.toml"]).succeeds(),
            shown,
            "{preset}"
        );
    }
}

#[test]
fn an_initial_config_explains_itself_and_changes_nothing() {
    let workshop = Workshop::new();
    assert_eq!(
        workshop.limbeck(&["config", "init", "my.toml", "--preset", "authors"]).succeeds(),
        "my.toml\n"
    );
    let text = fs::read_to_string(workshop.path("my.toml")).expect("just written");
    assert!(text.contains("# Softmax temperature of teacher and student"), "{text}");
    let shown = |arguments: &[&str]| workshop.limbeck(&[&["config", "show"], arguments].concat()).succeeds();
    assert_eq!(shown(&["--config", "my.toml"]), shown(&["--preset", "authors"]));
}

#[test]
fn the_schema_is_json_and_knows_the_keys() {
    let schema = Workshop::new().limbeck(&["config", "schema"]).succeeds();
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert!(schema["properties"]["distill"].is_object(), "{schema}");
}

#[test]
fn every_shell_gets_a_completion_script() {
    let workshop = Workshop::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(workshop.limbeck(&["completions", shell]).succeeds().contains("limbeck"), "{shell}");
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = Workshop::new().limbeck(&["--version"]).succeeds();
    assert_eq!(version, concat!("limbeck ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn no_command_is_a_usage_error_that_shows_the_help() {
    let finished = Workshop::new().limbeck(&[]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
    assert!(finished.stderr.contains("Usage: limbeck <COMMAND>"), "{}", finished.stderr);
}

/// Settings under which an audit takes a second and flags about half of the set.
const TINY: [&str; 10] = [
    "--set",
    "data.image_size={width=8,height=8}",
    "--set",
    "classifier={network={width=4,hidden=8},train={epochs=1}}",
    "--set",
    "dae={width=4,train={epochs=1}}",
    "--set",
    "purify.rule.percentile=50",
    "--set",
    "purify.score=mse",
];

/// A table with a header, by the names of its columns.
fn table(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    // No cell of these tests has a comma or a quote in it but the reason, which stands behind all that are asked for.
    let text = fs::read_to_string(path).expect("a table");
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    lines.map(|cells| header.iter().cloned().zip(cells).collect()).collect()
}

impl Workshop {
    /// An image folder `set` of two classes with 30 images of noise each.
    fn noise(&self) {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); // Numerical Recipes' generator
            (state >> 24) as u8
        };
        for class in ["cat", "dog"] {
            fs::create_dir_all(self.path("set").join(class)).expect("writable");
            for index in 0..30 {
                let image = RgbImage::from_fn(8, 8, |_, _| Rgb([next(), next(), next()]));
                image.save(self.path(&format!("set/{class}/{index:02}.png"))).expect("writable");
            }
        }
    }

    fn tiny(&self, command: &str, more: &[&str]) -> Finished {
        self.limbeck(&[&[command, "set", "--out", "out"], TINY.as_slice(), more].concat())
    }
}

#[test]
fn an_audit_leaves_a_page_and_lists_and_names_the_next_command_which_works() {
    let workshop = Workshop::new();
    workshop.noise();
    let findings = workshop.tiny("audit", &["--fail-on", "0"]);
    assert_eq!(findings.code, Some(3), "{}", findings.stderr);
    let suspicious = table(&workshop.path("out/suspicious.csv"));
    assert!(findings.stdout.starts_with(&format!("{} of ", suspicious.len())), "{}", findings.stdout);
    // The limits themselves are allowed, whether counted or as a share.
    for most in [&suspicious.len().to_string(), "100%"] {
        workshop.tiny("audit", &["--fail-on", most, "--quiet"]).succeeds();
    }
    let less = (suspicious.len() - 1).to_string();
    for most in [less.as_str(), "1%"] {
        assert_eq!(workshop.tiny("audit", &["--fail-on", most]).code, Some(3), "{most}");
    }

    let page = fs::read_to_string(workshop.path("out/audit.html")).expect("a page");
    assert!(
        page.contains(&format!("{} of ", suspicious.len())) && page.contains("src=\"data:image/png;base64,")
    );
    let json = fs::read_to_string(workshop.path("out/suspicious.json")).expect("a list");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let offered = table(&workshop.path("out/decisions.csv"));
    assert_eq!(json.as_array().map(Vec::len), Some(suspicious.len()));
    for (at, row) in suspicious.iter().enumerate() {
        assert_eq!((&json[at]["id"], &offered[at]["id"]), (&row["id"].as_str().into(), &row["id"]));
        assert_eq!((row["rank"].clone(), offered[at]["decision"].as_str()), ((at + 1).to_string(), ""));
    }

    assert!(findings.stdout.contains("out/audit.html") && findings.stdout.contains("out/decisions.csv"));
    let next =
        findings.stdout.lines().last().expect("text").trim().strip_prefix("limbeck ").expect("a command");
    assert!(
        next.starts_with("purify set --out out ") && next.ends_with(" --decisions out/decisions.csv"),
        "{next}"
    );
    let words: Vec<&str> = next.split(' ').map(|word| word.trim_matches('\'')).collect();
    assert!(workshop.limbeck(&words).succeeds().contains("purified set: out/purified"));
}

#[test]
fn decisions_by_hand_are_obeyed_kept_and_forgotten_and_never_written_over() {
    let workshop = Workshop::new();
    workshop.noise();
    workshop.tiny("audit", &["--quiet"]).succeeds();
    let proposed = fs::read(workshop.path("out/ledger.csv")).expect("a ledger");
    let (offered, ledger) =
        (table(&workshop.path("out/decisions.csv")), table(&workshop.path("out/ledger.csv")));
    let sound = ledger.iter().find(|row| row["verdict"] == "keep").expect("about half of the set");
    let cats: Vec<_> = offered.iter().filter(|row| row["class"] == "cat").collect();

    // A flagged cat is kept, another one is a dog, and one that was not flagged goes.
    let text = format!(
        "id;decision\r\n{};keep\r\n{};relabel:dog\r\n{};discard\r\n",
        cats[0]["id"], cats[1]["id"], sound["id"]
    );
    fs::write(workshop.path("out/decisions.csv"), &text).expect("writable");
    let decided = workshop.tiny("purify", &["--decisions", "out/decisions.csv"]);
    for (mark, stage) in [
        ("=", "undefended"),
        ("=", "dae"),
        ("=", "audit"),
        ("=", "findings"),
        ("✓", "ledger"),
        ("✓", "purify"),
    ] {
        assert!(decided.stderr.contains(&format!("{mark} {stage} ")), "{stage}: {}", decided.stderr);
    }
    assert!(decided.succeeds().contains("\ndecided by hand: 3 images\n"));
    let bytes = |path: &str| fs::read(workshop.path(path)).expect("an image");
    let below =
        |root: &str, row: &std::collections::HashMap<String, String>| format!("{root}/{}", row["path"]);
    let purified = |row| workshop.path(&below("out/purified", row));
    assert_eq!(bytes(&below("out/purified", cats[0])), bytes(&below("set", cats[0])));
    assert!(!purified(cats[1]).exists() && !purified(sound).exists());
    let whole = bytes(&below("set", cats[1]));
    let dogs = names_in(&workshop.path("out/purified/dog"));
    assert!(dogs.iter().any(|name| bytes(&format!("out/purified/dog/{name}")) == whole), "{dogs:?}");
    let ledger = fs::read_to_string(workshop.path("out/ledger.csv")).expect("a ledger");
    assert_eq!(ledger.matches("decided by hand: ").count(), 3);
    assert!(
        ledger.contains("decided by hand: relabel from \"\"cat\"\" to \"\"dog\"\"; proposed was "),
        "{ledger}"
    );

    // Later commands obey them too; an audit that is redone carries them into a new file.
    let again = workshop.tiny("purify", &[]);
    assert!(!again.stderr.contains('✓'), "{}", again.stderr);
    let redone = workshop.tiny("audit", &["--set", "purify.rule.percentile=70", "--quiet"]).succeeds();
    assert!(redone.contains("out/decisions-2.csv"), "{redone}");
    assert_eq!(fs::read_to_string(workshop.path("out/decisions.csv")).expect("still there"), text);
    let carried = table(&workshop.path("out/decisions-2.csv"));
    let decision = |id: &str| carried.iter().find(|row| row["id"] == id).map(|row| row["decision"].as_str());
    assert_eq!(
        [&cats[0], &cats[1], &sound].map(|row| decision(&row["id"])),
        ["keep", "relabel:dog", "discard"].map(Some)
    );

    workshop.tiny("purify", &["--forget-decisions", "--quiet"]).succeeds();
    assert!(fs::read(workshop.path("out/ledger.csv")).expect("a ledger") == proposed);
    assert!(purified(sound).exists() && !workshop.path("out/decided.csv").exists());
}

#[test]
fn decisions_that_cannot_be_obeyed_are_refused_before_any_work() {
    let workshop = Workshop::new();
    workshop.set(&["cat", "dog"]);
    let refused = |text: &str| {
        fs::write(workshop.path("mine.csv"), text).expect("writable");
        workshop.tiny("purify", &["--decisions", "mine.csv"])
    };
    refused("id,decision\nx,delete\n")
        .is_refused(1, &["mine.csv (line 2)", "found decision `delete`", "expected keep"]);
    refused("id,verdict\n").is_refused(1, &["mine.csv (line 1)", "found columns id, verdict", "`decision`"]);
    workshop.has_no_run();
    refused("id,decision\n0123,keep\n").is_refused(1, &["mine.csv (line 2)", "found id `0123`"]);
    assert_eq!(names_in(&workshop.path("out")), ["config.toml", "manifest.json"]);
    let both = workshop.tiny("purify", &["--decisions", "mine.csv", "--forget-decisions"]);
    both.is_refused(2, &["--decisions", "--forget-decisions"]);
}

#[cfg(unix)]
mod unix {
    use std::io::Read;
    use std::process::Stdio;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;

    /// Runs the binary where no file may grow beyond `blocks` (of 512 or 1024 bytes, as the shell has it): a full disk
    /// that needs no disk.
    fn limbeck_on_a_full_disk(workshop: &Workshop, blocks: u32, arguments: &[&str]) -> Finished {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script, env!("CARGO_BIN_EXE_limbeck")])
            .args(arguments)
            .current_dir(workshop.0.path());
        shell.output().expect("sh starts").into()
    }

    const AUDIT: [&str; 6] = ["audit", "set", "--out", "out", "--preset", "audit"];

    #[test]
    fn a_disk_that_is_full_from_the_start_leaves_an_empty_folder() {
        let workshop = Workshop::new();
        workshop.set(&["cat", "dog"]);
        let refused = limbeck_on_a_full_disk(&workshop, 0, &AUDIT);
        refused.is_refused(1, &["cannot", "out/manifest.json", "File too large"]);
        assert_eq!(names_in(&workshop.path("out")), [""; 0]);
    }

    #[test]
    fn a_disk_that_fills_up_in_the_middle_leaves_whole_files_only() {
        let workshop = Workshop::new();
        workshop.set(&["cat", "dog"]);
        let refused = limbeck_on_a_full_disk(&workshop, 64, &AUDIT);
        refused.is_refused(1, &["cannot", "out/undefended", "File too large"]);
        assert_eq!(names_in(&workshop.path("out")), ["config.toml", "manifest.json"]);
        let shown = workshop.limbeck(&["config", "show", "--config", "out/config.toml"]).succeeds();
        assert_eq!(fs::read_to_string(workshop.path("out/config.toml")).expect("whole"), shown);
    }

    #[test]
    fn a_config_that_does_not_fit_on_the_disk_is_not_left_in_part() {
        let workshop = Workshop::new();
        let refused = limbeck_on_a_full_disk(&workshop, 1, &["config", "init", "my.toml"]);
        refused.is_refused(1, &["cannot write my.toml", "File too large"]);
        assert_eq!(names_in(workshop.0.path()), [""; 0]);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        let output = command.args(["config", "schema"]).stdout(writer).output().expect("the binary starts");
        let finished = Finished::from(output);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    }

    #[test]
    fn a_stopped_run_says_how_to_go_on() {
        let workshop = Workshop::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_limbeck"));
        let mut child = command
            .args(["run", "--out", "out"])
            .current_dir(workshop.0.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        // The folder is made after the signals are taken over.
        let begun = Instant::now();
        while !workshop.path("out/config.toml").exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the run does not begin");
            sleep(Duration::from_millis(5));
        }
        let killed =
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill starts");
        assert!(killed.success());
        let code = child.wait().expect("it ends").code();
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        assert_eq!(code, Some(130), "{stderr}");
        assert!(stderr.ends_with("interrupted: run the same command again to go on\n"), "{stderr}");
        let left = names_in(&workshop.path("out"));
        assert!(left.iter().all(|name| !name.starts_with('.')), "temporary files: {left:?}");
    }
}
