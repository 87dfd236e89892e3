use std::path::PathBuf;

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

#[test]
fn a_list_column_is_refused_by_its_type_and_another_file_by_its_kind() {
    use arrow_array::builder::{Float32Builder, ListBuilder};
    use arrow_array::{ArrayRef, Int32Array, RecordBatch};
    use std::sync::Arc;
    let mut lists = ListBuilder::new(Float32Builder::new());
    (0..20).for_each(|row| lists.append_value([Some(row as f32)]));
    let columns: [(&str, ArrayRef); 2] =
        [("a", Arc::new(lists.finish())), ("class", Arc::new(Int32Array::from_iter_values(0..20)))];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.parquet");
    let mut writer = parquet::arrow::ArrowWriter::try_new(
        std::fs::File::create(&path).expect("a file"),
        batch.schema(),
        None,
    )
    .expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let target = ["class".to_owned()];
    let columns = Columns { target: &target, ignore: &[] };
    let message = Table::read(&path, columns).expect_err("a list").to_string();
    assert!(message.contains("row 1, column `a`") && message.contains("List"), "{message}");
    let message = Table::read(Path::new("t.xlsx"), columns).expect_err("no table").to_string();
    assert!(message.contains(".csv or .parquet"), "{message}");
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
