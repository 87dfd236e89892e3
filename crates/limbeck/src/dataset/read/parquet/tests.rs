use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryViewArray, Int8Array, LargeBinaryArray, LargeStringArray, NullArray, StringArray,
    StructArray, UInt16Array,
};
use arrow_schema::{DataType, Field, Fields};

use super::super::{Record, Source};
use super::*;
use crate::dataset::testing::{
    Row, batch, columns, huggingface, parquet_folder, png, row, write, write_parquet,
};

fn records(source: &Source, part: Part) -> Vec<Record> {
    source.records(part).expect("part exists").map(|r| r.expect("readable")).collect()
}

fn open_rows(rows: &[Row], names: Option<&[&str]>) -> (tempfile::TempDir, Result<Source>) {
    let root = tempfile::tempdir().expect("temporary folder");
    write_parquet(root.path(), "train.parquet", &batch(rows, names.map(huggingface)));
    let source = Source::open(root.path());
    (root, source)
}

fn first_error(source: &Source) -> String {
    let mut records = source.records(Part::Train).expect("train");
    records.find_map(Result::err).expect("a fault").to_string()
}

#[test]
fn parts_come_from_file_names_and_classes_from_the_metadata() {
    let root = parquet_folder();
    let source = Source::open(root.path()).expect("parquet");
    assert_eq!(source.classes(), ["cat", "dog"]);
    assert_eq!(source.parts(), [Part::Train, Part::Test]);
    assert_eq!(source.count(Part::Train), Some(3));
    let train = records(&source, Part::Train);
    assert_eq!(train[2].path, "c.png");
    assert_eq!(train[2].label, 1);
    assert_eq!(train[2].bytes, png(40));
    assert_eq!(records(&source, Part::Test)[0].path, "d.png");
}

#[test]
fn the_part_is_a_word_of_the_file_name_and_else_train() {
    for (name, part) in [
        ("train-00000-of-00002.parquet", Part::Train),
        ("data/test.parquet", Part::Test),
        ("gtsrb_validation_0.parquet", Part::Validation),
        ("0000.parquet", Part::Train),
        ("testament.parquet", Part::Train),
    ] {
        assert_eq!(ParquetFile::embedded(name, &[]).part(), part, "{name}");
    }
}

#[test]
fn without_names_classes_count_up_to_the_highest_label_of_any_part() {
    let root = tempfile::tempdir().expect("temporary folder");
    write_parquet(root.path(), "train.parquet", &batch(&[row(0, "a", 0), row(1, "b", 1)], None));
    write_parquet(root.path(), "test.parquet", &batch(&[row(2, "c", 3)], None));
    let source = Source::open(root.path()).expect("parquet");
    assert_eq!(source.classes(), ["0", "1", "2", "3"]);
}

#[test]
fn faulty_rows_are_refused_with_their_number() {
    let good = row(0, "a.png", 0);
    let cases = [
        (Row { bytes: None, ..good.clone() }, "no image bytes"),
        (Row { label: None, ..good.clone() }, "no label"),
        (Row { label: Some(-1), ..good.clone() }, "label -1"),
        (Row { label: Some(2), ..good.clone() }, "label 2"),
    ];
    for (bad, message) in cases {
        let (_root, source) = open_rows(&[good.clone(), bad], Some(&["cat", "dog"]));
        let error = first_error(&source.expect("schema is fine"));
        assert!(error.contains("row 1") && error.contains(message), "{error}");
    }
    let (_root, source) = open_rows(&[good.clone(), Row { label: Some(-1), ..good }], None);
    assert!(source.expect_err("labels are read").to_string().contains("row 1"));
}

#[test]
fn rows_are_numbered_across_batches() {
    let mut rows: Vec<_> = (0..BATCH_ROWS + 9).map(|_| row(0, "a", 1)).collect();
    rows[BATCH_ROWS + 5].label = None;
    let (_root, source) = open_rows(&rows, Some(&["cat", "dog"]));
    let error = first_error(&source.expect("schema is fine"));
    assert!(error.contains(&format!("row {}", BATCH_ROWS + 5)), "{error}");
}

#[test]
fn the_group_column_is_track_if_there_and_must_exist_if_named() {
    let grouped = Row { track: Some("t7"), ..row(0, "a", 0) };
    let (root, source) = open_rows(&[grouped, row(1, "b", 1)], None);
    let groups: Vec<_> =
        records(&source.expect("parquet"), Part::Train).into_iter().map(|r| r.group).collect();
    assert_eq!(groups, [Some("t7".to_owned()), None]);
    let options = SourceOptions { group_column: Some("patient".into()), ..Default::default() };
    let error = Source::open_with(root.path(), &options).expect_err("no column").to_string();
    assert!(error.contains("image, label, track") && error.contains("`patient`"), "{error}");
    let options = SourceOptions { group_column: Some("label".into()), ..Default::default() };
    let by_label = Source::open_with(root.path(), &options).expect("numbers are groups too");
    assert_eq!(records(&by_label, Part::Train)[1].group.as_deref(), Some("1"));
}

#[test]
fn other_widths_of_the_same_types_are_read() {
    let image = |bytes: ArrayRef, path: ArrayRef| -> ArrayRef {
        let fields = Fields::from(vec![
            Field::new("bytes", bytes.data_type().clone(), true),
            Field::new("path", path.data_type().clone(), true),
        ]);
        Arc::new(StructArray::new(fields, vec![bytes, path], None))
    };
    let (one, two) = (png(1), png(2));
    let encoded = [Some(one.as_slice()), Some(two.as_slice())];
    let large = image(
        Arc::new(LargeBinaryArray::from_iter(encoded)),
        Arc::new(LargeStringArray::from(vec!["a", "b"])),
    );
    let view = image(Arc::new(BinaryViewArray::from_iter(encoded)), Arc::new(NullArray::new(2)));
    let int8: ArrayRef = Arc::new(Int8Array::from(vec![0, 1]));
    let uint16: ArrayRef = Arc::new(UInt16Array::from(vec![0, 1]));
    for (images, labels) in [(large, uint16), (view, int8)] {
        let root = tempfile::tempdir().expect("temporary folder");
        let batch = columns(vec![("image", images), ("label", labels)], None);
        write_parquet(root.path(), "set.parquet", &batch);
        let source = Source::open(root.path().join("set.parquet")).expect("parquet file");
        let records = records(&source, Part::Train);
        assert_eq!(records[1].bytes, two);
        assert_eq!(records[1].label, 1);
    }
}

#[test]
fn images_without_a_path_are_named_by_content_and_repetitions_are_counted() {
    let bare = |seed| Row { path: None, ..row(seed, "", 0) };
    let named = |rows: &[Row]| -> Vec<String> {
        let (_root, source) = open_rows(rows, Some(&["cat", "dog"]));
        records(&source.expect("parquet"), Part::Train).into_iter().map(|r| r.path).collect()
    };
    let all = named(&[bare(1), bare(2), bare(1)]);
    assert_eq!(all[2], format!("{}-2", all[0]));
    assert_eq!(named(&[bare(2)])[0], all[1], "the name does not depend on the row");
}

#[test]
fn a_wrong_schema_says_what_it_is() {
    let labels: ArrayRef = Arc::new(StringArray::from(vec!["cat"]));
    let whole = batch(&[row(0, "a", 0)], None);
    let image = Arc::clone(whole.column(0));
    let cases = [
        (columns(vec![("picture", Arc::clone(&image))], None), "the columns picture"),
        (columns(vec![("image", image), ("label", labels.clone())], None), "of type Utf8"),
        (columns(vec![("image", labels.clone()), ("label", labels)], None), "struct<bytes"),
    ];
    for (batch, message) in cases {
        let root = tempfile::tempdir().expect("temporary folder");
        write_parquet(root.path(), "train.parquet", &batch);
        let error = Source::open(root.path()).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn damaged_files_and_metadata_are_errors_naming_the_file() {
    let root = tempfile::tempdir().expect("temporary folder");
    write(root.path(), "train.parquet", b"PAR1 but no more");
    let error = Source::open(root.path()).expect_err("damaged").to_string();
    assert!(error.contains("train.parquet"), "{error}");

    let broken = Some(("huggingface".to_owned(), "{".to_owned()));
    write_parquet(root.path(), "train.parquet", &batch(&[row(0, "a", 0)], broken));
    let error = Source::open(root.path()).expect_err("metadata").to_string();
    assert!(error.contains("huggingface metadata"), "{error}");
}

#[test]
fn files_that_disagree_on_class_names_are_refused() {
    let root = tempfile::tempdir().expect("temporary folder");
    let rows = [row(0, "a", 0)];
    let batch_named = |names: &[&str]| batch(&rows, Some(huggingface(names)));
    write_parquet(root.path(), "train.parquet", &batch_named(&["cat", "dog"]));
    write_parquet(root.path(), "test.parquet", &batch_named(&["dog", "cat"]));
    let error = Source::open(root.path()).expect_err("swapped names").to_string();
    assert!(error.contains("other class names"), "{error}");
}

#[test]
fn the_fixture_is_in_the_schema_of_the_embedded_sample() {
    let source = Source::embedded().expect("built in");
    let fixture = batch(&[row(0, "a", 0)], None);
    assert!(matches!(fixture.column(0).as_struct().column(0).data_type(), DataType::Binary));
    assert_eq!(source.classes().len(), 43);
    assert_eq!(source.count(Part::Train), Some(1938));
    assert_eq!(source.count(Part::Test), Some(516));
}
