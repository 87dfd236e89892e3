use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{
    Array as _, ArrayRef, FixedSizeListArray, Float64Array, Int32Array, LargeListArray, ListArray,
    RecordBatch,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// A csv file of 20 rows whose row 3 is replaced.
fn file(header: &str, third: &str) -> (tempfile::TempDir, PathBuf) {
    let rows: Vec<String> = (0..20)
        .map(|row| if row == 2 { third.to_owned() } else { format!("{row},0.{row},{},n{row}", row % 3) })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.csv");
    std::fs::write(&path, format!("{header}\n{}\n", rows.join("\n"))).expect("written");
    (folder, path)
}

fn read(path: &Path, target: &str, ignore: &str) -> Result<Table> {
    let [target, ignore] = [target, ignore].map(|name| vec![name.to_owned()]);
    Table::read(path, Columns { target: &target, ignore: &ignore })
}

fn refusal(header: &str, third: &str, target: &str) -> String {
    let (_folder, path) = file(header, third);
    read(&path, target, "note").expect_err(third).to_string()
}

const HEADER: &str = "a,b,class,note";

#[test]
fn features_are_the_other_columns_in_file_order() {
    let (_folder, path) = file(HEADER, "2,0.2,2,n2");
    let table = read(&path, "class", "note").expect("a table");
    assert_eq!(
        (table.features(), table.targets(), table.rows()),
        (vec!["a".into(), "b".into()], vec!["class".into()], 20)
    );
    assert_eq!((table.values(4), table.target(4, 0)), (&[4.0, 0.4][..], "1".to_owned()));
    assert_ne!(table.id(4), table.id(5));
    assert!(table.id(4).starts_with("5-"));
}

#[test]
fn whole_numbers_have_one_form() {
    let (_folder, path) = file(HEADER, "2,0.2,2.0,n2");
    let table = read(&path, "class", "note").expect("a table");
    assert_eq!((table.target(2, 0), table.target(5, 0)), ("2".to_owned(), "2".to_owned()));
}

#[test]
fn what_is_no_feature_is_named_by_file_row_and_column() {
    for (third, found) in [
        ("2,x y,2,n", "the text `x y`"),
        ("2,,2,n", "an empty cell"),
        ("2,NaN,2,n", "NaN"),
        ("2,-inf,2,n", "-inf"),
    ] {
        let message = refusal(HEADER, third, "class");
        for word in ["t.csv", "row 3", "`b`", found, "--ignore"] {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
    let message = refusal(HEADER, "2,0.5, ,n", "class");
    assert!(message.contains("row 3, column `class`") && message.contains("an empty cell"), "{message}");
    let message = refusal(HEADER, "2,0.5", "class");
    assert!(message.contains("row 3") && message.contains("2 cells") && message.contains("4"), "{message}");
}

#[test]
fn a_header_that_cannot_be_meant_is_refused() {
    assert!(refusal("a,a,class,note", "2,0.2,2,n", "class").contains("two columns named `a`"));
    assert!(refusal("a,,class,note", "2,0.2,2,n", "class").contains("column 2 of the header"));
    let message = refusal(HEADER, "2,0.2,2,n", "price");
    assert!(message.contains("the target column `price`") && message.contains("a, b, class"), "{message}");
}

#[test]
fn too_few_rows_and_a_target_that_never_varies_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.csv");
    let write = |rows: usize| {
        let rows: Vec<String> = (0..rows).map(|row| format!("{row},1,7,n")).collect();
        std::fs::write(&path, format!("{HEADER}\n{}\n", rows.join("\n"))).expect("written");
        read(&path, "class", "note").expect_err("refused").to_string()
    };
    let message = write(19);
    assert!(message.contains("19 data rows") && message.contains("at least 20"), "{message}");
    let message = write(20);
    assert!(message.contains("column `class`") && message.contains("`7` in every row"), "{message}");
}

/// Writes a parquet file of these columns.
fn parquet(folder: &Path, columns: Vec<(&str, ArrayRef)>) -> PathBuf {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let path = folder.join("t.parquet");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    path
}

/// A column as another program reads it.
fn column(path: &Path, name: &str) -> ArrayRef {
    let file = std::fs::File::open(path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a table").build().expect("readable");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    Arc::clone(batches[0].column_by_name(name).expect(name))
}

/// Lists `[row, row + 0.1, row + 0.2]` of 20 rows, with that of row 3 as given.
fn lists(third: Option<Vec<Option<f32>>>) -> ArrayRef {
    let list = |row: usize| match row {
        2 => third.clone(),
        _ => Some((0..3).map(|place| Some(row as f32 + place as f32 / 10.0)).collect()),
    };
    Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>((0..20).map(list)))
}

fn classes() -> ArrayRef {
    Arc::new(Int32Array::from_iter_values((0..20).map(|row| row % 2)))
}

#[test]
fn a_list_of_numbers_is_as_many_features_and_a_copy_has_the_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut notes = ListBuilder::new(StringBuilder::new());
    (0..20).for_each(|row| notes.append_value((0..row % 3).map(|_| Some("seen"))));
    let columns = vec![
        ("gain", Arc::new(Float64Array::from_iter_values((0..20).map(f64::from))) as ArrayRef),
        ("pilot", lists(Some(vec![Some(9.5), Some(-1.0), Some(0.25)]))),
        ("note", Arc::new(notes.finish())),
        ("class", classes()),
    ];
    let path = parquet(folder.path(), columns);
    let table = read(&path, "class", "note").expect("a table");
    assert_eq!(table.features(), ["gain", "pilot[0]", "pilot[1]", "pilot[2]"]);
    assert_eq!((table.values(2), table.values(5)), (&[2.0, 9.5, -1.0, 0.25][..], &[5.0, 5.0, 5.1, 5.2][..]));
    assert_eq!((table.target(3, 0), table.id(2) == table.id(3)), ("1".to_owned(), false));

    let mut edits = vec![RowEdit::Keep; 20];
    edits[0] = RowEdit::Drop;
    edits[3] = RowEdit::Features(vec![3.0, 0.5, 1.5, 2.5]);
    let copy = folder.path().join("copy.parquet");
    table.edited(&edits, false).expect("edited").write(&copy).expect("written");
    for (name, edited) in [("pilot", Some(2)), ("gain", None), ("note", None), ("class", None)] {
        let (before, after) = (column(&path, name).slice(1, 19), column(&copy, name));
        assert_eq!((before.data_type(), after.len()), (after.data_type(), 19), "{name}");
        for row in (0..19).filter(|row| Some(*row) != edited) {
            assert!(before.slice(row, 1) == after.slice(row, 1), "row {row} of {name}");
        }
    }
    let lists = column(&copy, "pilot");
    let edited = lists.as_list::<i32>().value(2);
    assert_eq!(edited.as_primitive::<Float32Type>().values(), &[0.5, 1.5, 2.5][..]);
    let [target, ignore] = ["class", "note"].map(|name| vec![name.to_owned()]);
    let columns = Columns { target: &target, ignore: &ignore };
    assert_eq!(Table::read_part(&copy, columns).expect("a table").values(2), [3.0, 0.5, 1.5, 2.5]);
    let ignored = read(&path, "class", "pilot").expect_err("lists of text").to_string();
    assert!(ignored.contains("row 1, column `note`") && ignored.contains("List"), "{ignored}");
}

#[test]
fn lists_of_a_fixed_length_and_large_ones_stay_what_they_are_and_whole_numbers_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = |width: i64| (0..20).map(move |row| Some((0..width).map(move |at| Some(row * width + at))));
    let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(rows(2), 2);
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>(rows(1));
    let columns =
        vec![("a", Arc::new(fixed) as ArrayRef), ("b", Arc::new(large) as ArrayRef), ("class", classes())];
    let path = parquet(folder.path(), columns);
    let target = ["class".to_owned()];
    let table = Table::read(&path, Columns { target: &target, ignore: &[] }).expect("a table");
    assert_eq!(table.values(7), [14.0, 15.0, 7.0]);
    let mut edits = vec![RowEdit::Keep; 20];
    edits[1] = RowEdit::Features(vec![0.6, 70.2, -3.4]);
    let copy = folder.path().join("copy.parquet");
    table.edited(&edits, false).expect("edited").write(&copy).expect("written");
    for (name, width) in [("a", 2), ("b", 1)] {
        let (before, after) = (column(&path, name), column(&copy, name));
        assert_eq!(before.data_type(), after.data_type());
        assert_eq!(before.slice(2, 18).to_data(), after.slice(2, 18).to_data(), "{name} of {width}");
    }
    let copy = Table::read(&copy, Columns { target: &target, ignore: &[] }).expect("a table");
    assert_eq!((copy.values(0), copy.values(1)), (&[0.0, 1.0, 0.0][..], &[1.0, 70.0, -3.0][..]));
}

#[test]
fn a_list_that_is_no_row_of_features_is_named_by_file_row_and_column_with_its_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = |lists: ArrayRef, more: Option<&str>| {
        let mut columns = vec![("pilot", lists), ("class", classes()), ("note", classes())];
        columns.extend(more.map(|name| (name, classes())));
        let path = parquet(folder.path(), columns);
        read(&path, "class", "note").expect_err("refused").to_string()
    };
    let some = |numbers: &[f32]| Some(numbers.iter().copied().map(Some).collect());
    for (third, words) in [
        (
            some(&[1.0, 2.0]),
            &["row 3, column `pilot`", "a list of 2 numbers", "a list of 3 numbers", "--ignore"][..],
        ),
        (some(&[]), &["row 3, column `pilot`", "an empty list", "a list of 3 numbers"]),
        (None, &["row 3, column `pilot`", "a null", "a list of 3 numbers"]),
        (Some(vec![Some(1.0), None, Some(2.0)]), &["row 3, column `pilot[1]`", "a null", "a finite number"]),
        (some(&[1.0, 2.0, f32::NAN]), &["row 3, column `pilot[2]`", "NaN", "a finite number"]),
    ] {
        let message = refusal(lists(third), None);
        for word in words.iter().chain(&["t.parquet"]) {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
    let empty = ListArray::from_iter_primitive::<Float32Type, _, _>((0..20).map(|_| Some([])));
    let message = refusal(Arc::new(empty), None);
    assert!(message.contains("row 1, column `pilot`") && message.contains("an empty list"), "{message}");
    let message = refusal(lists(some(&[0.0; 3])), Some("pilot[2]"));
    assert!(message.contains("two columns named `pilot[2]`"), "{message}");
    let path = parquet(
        folder.path(),
        vec![("pilot", lists(some(&[0.0; 3]))), ("note", classes()), ("a", classes())],
    );
    let message = read(&path, "pilot", "note").expect_err("a target of lists").to_string();
    assert!(message.contains("row 1, column `pilot`") && message.contains("a target"), "{message}");
    let message = read(Path::new("t.xlsx"), "class", "note").expect_err("no table").to_string();
    assert!(message.contains(".csv or .parquet"), "{message}");
}

#[test]
fn features_of_lists_are_found_in_lists_of_their_length_and_in_columns_of_their_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let lists = lists(Some(vec![Some(9.5), Some(-1.0), Some(0.25)]));
    let path = parquet(folder.path(), vec![("class", classes()), ("pilot", lists), ("a", classes())]);
    let names = |length: usize| -> Vec<String> {
        (0..length).map(|place| format!("pilot[{place}]")).chain(["a".to_owned()]).collect()
    };
    let found = Table::read_features(&path, &names(3)).expect("features");
    assert_eq!((found.features(), found.values(2)), (names(3), &[9.5, -1.0, 0.25, 0.0][..]));
    for length in [2, 4] {
        let message = Table::read_features(&path, &names(length)).expect_err("another length").to_string();
        for word in
            ["row 1, column `pilot`", "a list of 3 numbers", &format!("a list of {length} numbers"), "learnt"]
        {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
    let csv = folder.path().join("t.csv");
    std::fs::write(&csv, "a,pilot[1],pilot[0],pilot[2]\n0,-1,9.5,0.25\n").expect("written");
    assert_eq!(Table::read_features(&csv, &names(3)).expect("features").values(0), found.values(2));
    let message = Table::read_features(&csv, &names(4)).expect_err("none").to_string();
    assert!(message.contains("feature column `pilot[3]`"), "{message}");
}

#[test]
fn edits_replace_features_or_targets_drop_rows_and_leave_the_rest_to_the_byte() {
    let (folder, path) = file(HEADER, "2,0.2,2,\"n, 2\"");
    let table = read(&path, "class", "note").expect("a table");
    let mut edits = vec![RowEdit::Keep; 20];
    edits[0] = RowEdit::Drop;
    edits[3] = RowEdit::Features(vec![3.4, 0.31]);
    edits[4] = RowEdit::Targets(vec!["0".to_owned()]);
    let copy = folder.path().join("copy.csv");
    table.edited(&edits, true).expect("edited").write(&copy).expect("written");
    let (before, after) =
        (std::fs::read_to_string(&path).expect("read"), std::fs::read_to_string(&copy).expect("read"));
    let mut expected: Vec<&str> = before.lines().collect();
    expected.remove(1);
    // Column a holds whole numbers and stays so.
    (expected[3], expected[4]) = ("3,0.31,0,n3", "4,0.4,0,n4");
    assert_eq!(after.lines().collect::<Vec<_>>(), expected);
    let free = table.edited(&edits, false).expect("edited");
    assert!((free.values(2)[0] - 3.4).abs() < 1e-6, "{:?}", free.values(2));
    assert!(table.edited(&edits[1..], true).is_err(), "one edit too few");
}
