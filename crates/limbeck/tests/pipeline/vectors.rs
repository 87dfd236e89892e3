//! The whole chain on small tables of numbers: what is flipped is found, what is trained against attacks withstands them, and the purified table is the input without the rest.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, ListArray, RecordBatch, StringArray};
use limbeck::progress::Silent;
use limbeck::purify::Verdict;
use limbeck::rng::Seed;
use limbeck::vectors::results::{CaseKind, ModelFigures, Quality, VectorResults};
use limbeck::vectors::{RowContent, TrainedMlp, VectorConfig, VectorStudent, run_vectors};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::Rng as _;

const FEATURES: usize = 12;

/// Rows of 12 features, and of each the outputs of a fixed network of two layers.
fn rows(count: usize, outputs: usize) -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut rng = Seed::new(9).rng("table");
    let mut weights = |inputs: usize, outputs: usize| -> Vec<Vec<f64>> {
        (0..outputs).map(|_| (0..inputs).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
    };
    let (first, second) = (weights(FEATURES, 6), weights(6, outputs));
    let layer = |weights: &[Vec<f64>], x: &[f64]| -> Vec<f64> {
        weights.iter().map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let mut rng = Seed::new(10).rng("rows");
    let mut row = || {
        let x: Vec<f64> = (0..FEATURES).map(|_| rng.random_range(-1.0..1.0)).collect();
        let hidden: Vec<f64> = layer(&first, &x).into_iter().map(|h| (2.0 * h).tanh()).collect();
        let noise = || rng.random_range(-0.05..0.05);
        let y = layer(&second, &hidden).into_iter().zip(std::iter::repeat_with(noise)).map(|(y, n)| y + n);
        let y = y.collect();
        (x, y)
    };
    (0..count).map(|_| row()).collect()
}

/// Writes a csv table whose target is made of the outputs.
fn table(folder: &Path, rows: &[(Vec<f64>, Vec<f64>)], target: impl Fn(&[f64]) -> String) -> PathBuf {
    let header: Vec<String> = (0..FEATURES).map(|feature| format!("x{feature}")).collect();
    let mut text = format!("{},y\n", header.join(","));
    for (x, y) in rows {
        let x: Vec<String> = x.iter().map(|x| format!("{x:.4}")).collect();
        text += &format!("{},{}\n", x.join(","), target(y));
    }
    let path = folder.join("table.csv");
    std::fs::write(&path, text).expect("written");
    path
}

fn run(path: &Path, out: &Path, set: &[&str]) -> VectorResults {
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    let mut config = VectorConfig::resolve(None, &set).expect("known keys");
    config.data.path = path.to_string_lossy().into_owned();
    config.data.target = vec!["y".to_owned()];
    run_vectors(&config, out, &limbeck::device("flex").expect("the CPU"), &Silent).expect("it runs")
}

/// The column of a csv file as text, by the number of the row.
fn column(path: &Path, name: &str) -> HashMap<usize, String> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let headers = reader.headers().expect("a header").clone();
    let place = |name: &str| headers.iter().position(|header| header == name).expect(name);
    let (row, column) = (place("row"), place(name));
    let record = |record: csv::StringRecord| (record[row].parse().expect("a row"), record[column].to_owned());
    reader.records().map(|found| record(found.expect("a record"))).collect()
}

fn accuracy(quality: &Quality) -> f64 {
    match quality {
        Quality::Accuracy(rate) => rate.share().expect("rows"),
        Quality::Error(_) => panic!("a classification"),
    }
}

fn rmse(model: &ModelFigures, kind: CaseKind) -> f64 {
    let case = model.cases.iter().rfind(|case| case.kind == kind).expect("a case");
    match case.quality {
        Quality::Error(figures) => figures.rmse,
        Quality::Accuracy(_) => panic!("a regression"),
    }
}

#[test]
fn flipped_classes_are_found_and_the_purified_table_is_the_input_without_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = rows(1200, 3);
    let largest = |y: &[f64]| {
        let best = (0..3).fold(0, |best, class| if y[class] > y[best] { class } else { best });
        ["left", "middle", "right"][best].to_owned()
    };
    let path = table(folder.path(), &rows, largest);
    let out = folder.path().join("out");
    let set = [
        "network.train.epochs=25",
        "dae.train.epochs=5",
        "data.split.trusted=0.25",
        "poison.kind=label-flip",
        "evaluate.attacks=[{kind=\"fgsm\",eps=0.05},{kind=\"apgd-ce\",eps=0.05,steps=5}]",
    ];
    let results = run(&path, &out, &set);

    let poison = results.poison.as_ref().expect("an attacker");
    assert_eq!(poison.poisoned.successes, 72, "a tenth of 720 audited rows");
    let label = poison.detection.iter().find(|row| row.score.contains("label")).expect("a score");
    assert!(label.auroc > 0.9, "{label:?}");
    // 5 % are asked for, by the 95th percentile of 120 trusted rows: give or take 2 %, three times.
    assert!(poison.clean_flagged.share().expect("rows") < 0.12, "{:?}", poison.clean_flagged);
    assert!(poison.found.share().expect("rows") > 0.5, "{:?}", poison.found);
    let clean = |name: &str| {
        let filter = poison.filters.iter().find(|row| row.filter == name).expect(name);
        accuracy(&filter.quality)
    };
    assert!(clean("none") > 0.6 && clean("perfect") > 0.75, "{} {}", clean("none"), clean("perfect"));

    // Rows that are neither tested on, nor discarded, nor poisoned are in the copy to the byte and in order.
    let verdicts = column(&out.join("ledger.csv"), "verdict");
    let truth = column(&out.join("poison_truth.csv"), "poisoned");
    assert_eq!((verdicts.len(), truth.len()), (720, 720));
    let (before, after) =
        [&path, &out.join("purified.csv")].map(|path| std::fs::read_to_string(path).expect("read")).into();
    let after: Vec<&str> = after.lines().collect();
    assert_eq!(after.len() - 1, results.rows.purified as usize + results.rows.calibration as usize);
    let kept = |row: usize| verdicts.get(&row).map(String::as_str) == Some(Verdict::Keep.word());
    let mut rest = after.iter();
    for (row, line) in before.lines().enumerate().skip(1).filter(|(row, _)| kept(*row) && truth[row] == "0") {
        assert!(rest.any(|other| *other == line), "row {row} is not in the copy: {line}");
    }
    let student =
        TrainedMlp::load(&out.join("student.safetensors"), &limbeck::device("flex").expect("the CPU"));
    assert_eq!(student.expect("a network").spec().answers.classes(), Some(3));

    let student = VectorStudent::load(&out, &limbeck::device("flex").expect("the CPU")).expect("a student");
    let answers = student.predict(&path).expect("answered");
    let right =
        answers.iter().zip(&rows).filter(|(answer, (_, y))| answer.answer == RowContent::Class(largest(y)));
    assert!(right.count() > 900, "of 1200 rows");
    assert!(answers.iter().zip(1..).all(|(answer, row)| answer.row == row));
    // 2 % are asked for, by 60 rows.
    assert!(answers.iter().filter(|answer| answer.null).count() < 96);
}

/// Rows of a parquet table as they are: the list in column `pilot` and the text in `y`.
fn listed(path: &Path) -> Vec<(Vec<f32>, String)> {
    let file = std::fs::File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a table").build().expect("readable");
    let mut rows = Vec::new();
    for batch in reader.map(|batch| batch.expect("rows")) {
        let [lists, classes] =
            ["pilot", "y"].map(|name| Arc::clone(batch.column_by_name(name).expect("a column")));
        let list = |row| lists.as_list::<i32>().value(row).as_primitive::<Float32Type>().values().to_vec();
        let class = |row| classes.as_string::<i32>().value(row).to_owned();
        rows.extend((0..batch.num_rows()).map(|row| (list(row), class(row))));
    }
    rows
}

#[test]
fn a_table_of_lists_is_purified_as_lists_and_distilled_by_ard() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = rows(400, 1);
    let class = |x: &[f64]| if x[0] + x[1] > 0.0 { "on" } else { "off" };
    let path = folder.path().join("table.parquet");
    let list = |(x, _): &(Vec<f64>, Vec<f64>)| Some(x.iter().map(|x| Some(*x as f32)).collect::<Vec<_>>());
    let columns: [(&str, ArrayRef); 2] = [
        ("pilot", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.iter().map(list)))),
        ("y", Arc::new(StringArray::from_iter_values(rows.iter().map(|(x, _)| class(x))))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");

    let out = folder.path().join("out");
    let set = [
        "network.train.epochs=12",
        "dae.train.epochs=3",
        "audit.folds=2",
        "audit.rounds=1",
        "data.split.trusted=0.25",
        "distill.method=ard",
        "distill.adversarial=teacher",
        "distill.crafting.eps=0.08",
        "distill.crafting.steps=3",
        "evaluate.attacks=[{kind=\"pgd\",eps=0.08}]",
    ];
    let results = run(&path, &out, &set);
    assert_eq!((results.features, results.classes.as_slice()), (12, &["off", "on"].map(str::to_owned)[..]));
    let [_, teacher, student] = &results.models[..] else { panic!("three models") };
    let trained_on = [teacher, student].map(|model| model.trained_on.as_str());
    let expected = [
        "the purified rows, perturbed against it by up to 0.08",
        "the purified rows and the teacher's answers to them, perturbed against it by up to 0.08",
    ];
    assert_eq!(trained_on, expected);
    let right = |model: &ModelFigures, kind: CaseKind| {
        let case = model.cases.iter().rfind(|case| case.kind == kind).expect("a case");
        accuracy(&case.quality)
    };
    assert!(right(student, CaseKind::Clean) > 0.65, "{student:?}");

    // Rows that the audit keeps have the same lists, in their order; reconstructed ones are lists as long.
    let (before, after) = (listed(&path), listed(&out.join("purified.parquet")));
    assert_eq!(after.len() as u64, results.rows.purified + results.rows.calibration);
    assert!(after.iter().all(|(list, _)| list.len() == FEATURES));
    let verdicts = column(&out.join("ledger.csv"), "verdict");
    let mut rest = after.iter();
    for (at, row) in before.iter().enumerate() {
        if verdicts.get(&(at + 1)).map(String::as_str) == Some(Verdict::Keep.word()) {
            assert!(rest.any(|other| other == row), "row {} is not in the copy", at + 1);
        }
    }
    let changed = after.iter().filter(|row| !before.contains(row)).count() as u64;
    assert_eq!(changed, results.audit.verdicts.reconstruct);

    let student = VectorStudent::load(&out, &limbeck::device("flex").expect("the CPU")).expect("a student");
    let answers = student.predict(&path).expect("answered");
    let right = answers
        .iter()
        .zip(&before)
        .filter(|(answer, (_, class))| matches!(&answer.answer, RowContent::Class(found) if found == class));
    assert!(right.count() > 260, "of 400 rows");
}

#[test]
fn adversarial_training_of_a_regression_withstands_attacks_better_and_same_settings_give_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rows, target) = (rows(600, 1), |y: &[f64]| 10.0 + 5.0 * y[0]);
    let path = table(folder.path(), &rows, |y| format!("{:.5}", target(y)));
    let set = [
        "network.train.epochs=20",
        "dae.train.epochs=3",
        "audit.folds=2",
        "data.split.trusted=0.25",
        "distill.method=adversarial",
        "distill.crafting.eps=0.1",
        "evaluate.attacks=[{kind=\"fgsm\",eps=0.1},{kind=\"pgd\",eps=0.1}]",
    ];
    let outs = ["a", "b"].map(|name| folder.path().join(name));
    let results = run(&path, &outs[0], &set);

    let [undefended, teacher, student] = &results.models[..] else { panic!("three models") };
    let under_attack = [undefended, teacher, student].map(|model| rmse(model, CaseKind::Worst));
    let clean = [undefended, teacher, student].map(|model| rmse(model, CaseKind::Clean));
    assert!(
        under_attack[1] < under_attack[0] && under_attack[2] < under_attack[0],
        "{under_attack:?}, clean {clean:?}"
    );
    assert!((0..3).all(|model| under_attack[model] > clean[model]), "{under_attack:?}, clean {clean:?}");
    let intervals = results.intervals.as_ref().expect("60 rows suffice");
    // 90 % are asked for: of 120 rows, by 60 others.
    assert!(intervals[0].coverage.share().expect("rows") > 0.78, "{intervals:?}");
    assert!(results.poison.is_none() && !outs[0].join("poison_truth.csv").exists());

    // A stored student answers rows of a table without the target, whatever the order of its columns.
    let student =
        VectorStudent::load(&outs[0], &limbeck::device("flex").expect("the CPU")).expect("a student");
    let turned = |cells: &str| cells.rsplit(',').skip(1).chain(["?"]).collect::<Vec<_>>().join(",") + "\n";
    let text = std::fs::read_to_string(&path).expect("read");
    let other = folder.path().join("other.csv");
    std::fs::write(&other, text.lines().map(turned).collect::<String>()).expect("written");
    let contents = |table: &Path| -> Vec<RowContent> {
        student.predict(table).expect("answered").into_iter().map(|answer| answer.answer).collect()
    };
    let answers = contents(&path);
    assert!(contents(&other) == answers, "another order of the columns, another answer");
    let inside = answers.iter().zip(&rows).filter(|(content, (_, y))| {
        let RowContent::Quantities(quantities) = content else { panic!("{content:?}") };
        let [low, high] = quantities[0].interval.expect("calibrated");
        assert!((high - low - 2.0 * intervals[0].half_width).abs() < 1e-9);
        (low..=high).contains(&target(y))
    });
    assert!(inside.count() > 480, "of 600 rows");
    std::fs::write(&other, text.replacen("x3", "z", 1)).expect("written");
    let error = student.predict(&other).expect_err("no x3").to_string();
    assert!(error.contains("other.csv") && error.contains("feature column `x3`"), "{error}");

    run(&path, &outs[1], &set);
    let files = |out: &Path| -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(out).expect("a folder").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<(String, Vec<u8>)> = entries
            .map(|path| {
                (
                    path.file_name().expect("a name").to_string_lossy().into_owned(),
                    std::fs::read(&path).expect("read"),
                )
            })
            .collect();
        files.sort();
        files
    };
    let (first, second) = (files(&outs[0]), files(&outs[1]));
    assert!(first.len() >= 9);
    for ((name, bytes), (other, others)) in first.iter().zip(&second) {
        assert!(name == other && bytes == others, "{name} differs");
    }
}
