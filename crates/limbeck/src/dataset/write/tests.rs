use std::collections::BTreeMap;
use std::fs;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int8Array, RecordBatch};
use tempfile::TempDir;

use super::*;
use crate::dataset::testing::{
    self, Row, batch, columns, huggingface, image_folder, kaggle, parquet_folder, png, row, write_parquet,
};
use crate::dataset::{Dataset, ImageSize, decode_image};

fn keep(_: &SampleId, _: &str, _: u32) -> Result<Edit> {
    Ok(Edit::Keep)
}

/// Every file below a folder with its content.
fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(root, &path, files);
            } else {
                let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(root, root, &mut files);
    files
}

fn samples(path: &Path, part: Part) -> Vec<(String, u32, SampleId)> {
    let source = Source::open(path).expect("readable copy");
    let records = source.records(part).expect("part exists");
    records.map(|r| r.expect("readable")).map(|r| (r.path.clone(), r.label, r.id())).collect()
}

/// A folder that takes copies under the name `copy`.
fn destination() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("temporary folder");
    let copy = parent.path().join("copy");
    (parent, copy)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).expect("readable").count()
}

#[test]
fn a_copy_without_edits_reads_as_the_source_in_every_layout() {
    for root in testing::one_of_each_layout() {
        let (_parent, copy) = destination();
        let source = Source::open(root.path()).expect("fixture");
        let summary = rewrite_all(&source, &copy, &mut keep).expect("copies");
        assert_eq!(Some(summary.kept), source.count(Part::Train));
        assert_eq!((summary.dropped, summary.replaced), (0, 0));
        assert_eq!(Source::open(&copy).expect("readable").classes(), source.classes());
        for part in [Part::Train, Part::Test] {
            assert_eq!(samples(&copy, part), samples(root.path(), part));
        }
    }
}

#[test]
fn drops_and_replacements_of_every_layout_are_read_back_under_the_reported_ids() {
    for root in testing::one_of_each_layout() {
        let (_parent, copy) = destination();
        let source = Source::open(root.path()).expect("fixture");
        let before = samples(root.path(), Part::Train);
        let dropped = before.last().expect("not empty").2;
        let mut edit = |id: &SampleId, _: &str, label: u32| {
            Ok(if *id == before[0].2 {
                Edit::Replace { image: Some(png(200)), label: Some(1 - label) }
            } else if *id == dropped {
                Edit::Drop
            } else {
                Edit::Keep
            })
        };
        let summary = rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");
        assert_eq!((summary.dropped, summary.replaced), (1, 1));
        let after = samples(&copy, Part::Train);
        assert_eq!(after.len(), before.len() - 1);
        let [change] = &summary.changes[..] else { panic!("one replacement") };
        assert_eq!(change.before, before[0].2);
        let replaced = after.iter().find(|sample| sample.2 == change.after).expect("read back");
        assert_eq!((&replaced.0, replaced.1), (&change.path, 1 - before[0].1));
        assert!(!after.iter().any(|sample| sample.2 == dropped));
        assert_eq!(Source::open(&copy).expect("readable").parts(), [Part::Train]);
    }
}

#[test]
fn kept_files_of_a_folder_are_byte_identical() {
    let root = image_folder();
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("fixture");
    rewrite_all(&source, &copy, &mut keep).expect("copies");
    assert_eq!(tree(&copy), tree(root.path()));
}

#[test]
fn a_changed_label_moves_the_file_and_a_taken_name_gets_a_number() {
    let root = image_folder();
    // A kept jpeg and a replaced one beside a png of the same stem.
    testing::write(root.path(), "train/dog/1.jpg", b"kept as it is");
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("fixture");
    let mut edit = |_: &SampleId, path: &str, _: u32| {
        Ok(match path {
            "train/cat/0.png" => Edit::Replace { image: None, label: Some(1) },
            "train/dog/1.jpg" => Edit::Replace { image: Some(png(9)), label: None },
            _ => Edit::Keep,
        })
    };
    let summary = rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");
    let paths: Vec<_> = summary.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["train/dog/0-2.png", "train/dog/1-2.png"]);
    let files = tree(&copy);
    assert_eq!(files["train/dog/0-2.png"], png(0));
    assert_eq!(files["train/dog/1-2.png"], png(9));
    assert_eq!(files["train/dog/0.png"], png(20));
    assert_eq!(files.len(), 5, "{:?}", files.keys());
}

#[test]
fn a_class_that_lost_every_image_keeps_its_folder_and_is_named_when_read() {
    let root = image_folder();
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("fixture");
    let mut edit = |_: &SampleId, _: &str, label: u32| Ok(if label == 0 { Edit::Drop } else { Edit::Keep });
    rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");
    let error = Source::open(&copy).expect_err("empty class").to_string();
    assert!(error.contains("train/cat: found an empty class folder"), "{error}");
}

#[test]
fn a_replaced_csv_row_covers_its_whole_new_image() {
    let root = kaggle();
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("fixture");
    let mut edit = |_: &SampleId, path: &str, _: u32| {
        let crop = Edit::Replace { image: Some(png(77)), label: None };
        Ok(if path.ends_with("00002_00000.png") { crop } else { Edit::Keep })
    };
    rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");
    let table = fs::read_to_string(copy.join("Train.csv")).expect("written");
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows[0], testing::KAGGLE_HEADER);
    assert_eq!(rows[1], "4,4,1,1,3,3,0,Train/0/00000_00001_00000.png");
    assert_eq!(rows[2], "4,4,0,0,4,4,1,Train/1/00001_00002_00000.png");
    let size = ImageSize { width: 4, height: 4 };
    let copy = Source::open(&copy).expect("readable");
    let set = Dataset::load(&copy, Part::Train, size, &mut |_, _| {}).expect("readable");
    let expected = decode_image(&png(77), None, size, &super::super::Location::file("x"));
    assert_eq!(set.pixels(1).expect("in range"), expected.expect("own png"));
}

fn read_parquet(path: &Path) -> (RecordBatch, ParquetRecordBatchReaderBuilder<File>) {
    let open = || ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("written"));
    let reader = open().expect("parquet").with_batch_size(1 << 20).build().expect("parquet");
    let batches: Vec<_> = reader.map(|batch| batch.expect("readable")).collect();
    let schema = batches.first().expect("one batch").schema();
    let all = arrow_select::concat::concat_batches(&schema, &batches).expect("one schema");
    (all, open().expect("parquet"))
}

#[test]
fn parquet_keeps_columns_order_metadata_and_null_cells() {
    let root = tempfile::tempdir().expect("temporary folder");
    let rows: Vec<Row> = (0..300u32)
        .map(|i| Row {
            track: (i % 3 == 0).then_some("t"),
            path: (i % 2 == 0).then_some("named.png"),
            ..row((i % 250) as u8, "", i64::from(i % 2))
        })
        .collect();
    let names = huggingface(&["cat", "dog"]);
    let mut all = batch(&rows, Some(names.clone()));
    let extra: ArrayRef = std::sync::Arc::new(Int8Array::from_iter((0..300).map(|i| Some((i % 99) as i8))));
    let mut arrays: Vec<_> = vec![("extra", extra)];
    arrays.extend(["image", "label", "track"].into_iter().zip(all.columns().iter().cloned()));
    all = columns(arrays, Some(names.clone()));
    write_parquet(root.path(), "train.parquet", &all);

    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("parquet");
    let mut row_number = 0;
    let mut edit = |_: &SampleId, _: &str, label: u32| {
        row_number += 1;
        Ok(match row_number - 1 {
            i if i % 10 == 3 => Edit::Drop,
            7 => Edit::Replace { image: Some(png(251)), label: None },
            8 => Edit::Replace { image: None, label: Some(1 - label) },
            _ => Edit::Keep,
        })
    };
    rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");

    let (found, builder) = read_parquet(&copy.join("train.parquet"));
    assert_eq!(builder.schema().metadata().get(&names.0), Some(&names.1));
    assert_eq!(found.schema().fields(), all.schema().fields());
    let left: Vec<usize> = (0..300).filter(|i| i % 10 != 3).collect();
    assert_eq!(found.num_rows(), left.len());
    for (at, &from) in left.iter().enumerate() {
        assert_eq!(found.column(0).slice(at, 1).to_data(), all.column(0).slice(from, 1).to_data());
        assert_eq!(found.column(3).slice(at, 1).to_data(), all.column(3).slice(from, 1).to_data());
        let image = found.column(1).as_struct();
        let bytes = image.column(0).as_binary::<i32>().value(at);
        let expected = if from == 7 { png(251) } else { png((from % 250) as u8) };
        assert_eq!(bytes, expected, "row {from}");
        assert_eq!(image.column(1).is_null(at), from % 2 == 1);
        let label = found.column(2).as_primitive::<Int64Type>().value(at);
        assert_eq!(label, (from % 2) as i64 ^ i64::from(from == 8));
    }
}

#[test]
fn images_without_a_path_keep_their_ids_when_rows_before_them_are_dropped() {
    let root = tempfile::tempdir().expect("temporary folder");
    let rows: Vec<_> = (0..6u8).map(|i| Row { path: None, ..row(i, "", 1) }).collect();
    write_parquet(root.path(), "train.parquet", &batch(&rows, None));
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("parquet");
    let before = samples(root.path(), Part::Train);
    let mut edit = |id: &SampleId, _: &str, _: u32| {
        Ok(match before.iter().position(|sample| sample.2 == *id) {
            Some(0) => Edit::Drop,
            Some(2) => Edit::Replace { image: Some(png(99)), label: None },
            _ => Edit::Keep,
        })
    };
    let summary = rewrite(&source, Part::Train, &copy, &mut edit).expect("copies");
    let after = samples(&copy, Part::Train);
    assert_eq!(after[0], before[1]);
    assert_eq!(after[1].2, summary.changes[0].after);
    assert_eq!(after[2..], before[3..]);
}

#[test]
fn row_groups_hold_at_most_2048_rows() {
    let root = tempfile::tempdir().expect("temporary folder");
    let rows: Vec<_> = (0..4500).map(|i| row((i % 250) as u8, "p", 1)).collect();
    write_parquet(root.path(), "train.parquet", &batch(&rows, Some(huggingface(&["a", "b"]))));
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("parquet");
    rewrite(&source, Part::Train, &copy, &mut keep).expect("copies");
    let (_, builder) = read_parquet(&copy.join("train.parquet"));
    let groups: Vec<_> = builder.metadata().row_groups().iter().map(|g| g.num_rows()).collect();
    assert_eq!(groups, [2048, 2048, 404]);
}

#[test]
fn a_label_that_its_column_cannot_hold_is_refused() {
    let names: Vec<String> = (0..200).map(|i| i.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let image = std::sync::Arc::clone(batch(&[row(0, "a", 0)], None).column(0));
    let label: ArrayRef = std::sync::Arc::new(Int8Array::from(vec![0]));
    let narrow = columns(vec![("image", image), ("label", label)], Some(huggingface(&names)));
    let root = tempfile::tempdir().expect("temporary folder");
    write_parquet(root.path(), "train.parquet", &narrow);
    let (_parent, copy) = destination();
    let source = Source::open(root.path()).expect("parquet");
    let mut edit = |_: &SampleId, _: &str, _: u32| Ok(Edit::Replace { image: None, label: Some(150) });
    let error = rewrite(&source, Part::Train, &copy, &mut edit).expect_err("int8").to_string();
    assert!(error.contains("150") && error.contains("Int8"), "{error}");
}

#[test]
fn the_embedded_sample_is_copied_as_parquet_with_its_class_names() {
    let source = Source::embedded().expect("built in");
    let (_parent, copy) = destination();
    rewrite_all(&source, &copy, &mut keep).expect("copies");
    let on_disk = Source::open(&copy).expect("parquet");
    assert_eq!(on_disk.format(), "parquet");
    assert_eq!(on_disk.classes(), source.classes());
    let hash = |source: &Source| {
        let size = ImageSize { width: 1, height: 1 };
        Dataset::load(source, Part::Train, size, &mut |_, _| {}).expect("loads").content_hash()
    };
    assert_eq!(hash(&on_disk).expect("reads"), hash(&source).expect("reads"));
}

#[test]
fn an_edit_that_fails_midway_leaves_nothing_in_any_layout() {
    for root in testing::one_of_each_layout() {
        let (parent, copy) = destination();
        let source = Source::open(root.path()).expect("fixture");
        let mut left = 2;
        let mut edit = |_: &SampleId, _: &str, _: u32| {
            left -= 1;
            if left == 0 { Err(Error::Interrupted) } else { Ok(Edit::Keep) }
        };
        let error = rewrite_all(&source, &copy, &mut edit).expect_err("interrupted");
        assert!(matches!(error, Error::Interrupted), "{error}");
        assert_eq!(entries(parent.path()), 0);
    }
}

#[test]
fn an_edit_that_no_set_could_hold_is_refused_and_leaves_nothing() {
    let root = parquet_folder();
    let source = Source::open(root.path()).expect("fixture");
    for (edit, message) in [
        (Edit::Replace { image: Some(b"text".to_vec()), label: None }, "an encoded png"),
        (Edit::Replace { image: None, label: Some(2) }, "label 2"),
    ] {
        let (parent, copy) = destination();
        let mut answer = |_: &SampleId, _: &str, _: u32| Ok(edit.clone());
        let error = rewrite(&source, Part::Train, &copy, &mut answer).expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(entries(parent.path()), 0);
    }
}

#[test]
fn an_occupied_destination_is_refused_untouched_and_an_empty_one_is_used() {
    let root = image_folder();
    let source = Source::open(root.path()).expect("fixture");
    let (_parent, copy) = destination();
    testing::write(&copy, "mine.txt", b"precious");
    let error = rewrite_all(&source, &copy, &mut keep).expect_err("occupied").to_string();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(tree(&copy).len(), 1);

    let (parent, copy) = destination();
    fs::write(&copy, b"a file").expect("writable");
    assert!(rewrite_all(&source, &copy, &mut keep).is_err());
    assert_eq!(entries(parent.path()), 1);

    let (parent, copy) = destination();
    fs::create_dir(&copy).expect("writable");
    rewrite_all(&source, &copy, &mut keep).expect("an empty folder will do");
    assert_eq!((tree(&copy).len(), entries(parent.path())), (8, 1));
}

#[test]
fn a_destination_inside_the_source_is_refused() {
    let root = image_folder();
    let source = Source::open(root.path()).expect("fixture");
    let inside = root.path().join("copy");
    let error = rewrite_all(&source, &inside, &mut keep).expect_err("inside").to_string();
    assert!(error.contains("inside the source"), "{error}");
    assert_eq!(tree(root.path()).len(), 8);
}

#[cfg(unix)]
#[test]
fn a_copy_has_the_permissions_of_any_new_folder() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let root = image_folder();
    let source = Source::open(root.path()).expect("fixture");
    let (parent, copy) = destination();
    rewrite_all(&source, &copy, &mut keep).expect("copies");
    let plain = parent.path().join("plain");
    fs::create_dir(&plain).expect("writable");
    assert_eq!(mode(&copy), mode(&plain));
}
