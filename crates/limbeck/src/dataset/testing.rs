//! Small sets on disk for the tests of this room.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::decode::encode_png;
use super::sample::ImageSize;

pub(super) const KAGGLE_HEADER: &str = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path";
pub(super) const OFFICIAL_HEADER: &str = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId";

/// A 4 x 4 PNG whose red is `seed + 4 y + x`, green `seed` and blue 255.
pub(super) fn png(seed: u8) -> Vec<u8> {
    let red = (0..16).map(|i| seed.wrapping_add(i));
    let pixels: Vec<u8> = red.chain([seed; 16]).chain([255; 16]).collect();
    encode_png(&pixels, ImageSize { width: 4, height: 4 }).expect("48 bytes")
}

/// Writes a file below `root`, and the folders above it.
pub(super) fn write(root: &Path, relative: &str, bytes: &[u8]) {
    let path = root.join(relative);
    fs::create_dir_all(path.parent().expect("below the root")).expect("writable");
    fs::write(path, bytes).expect("writable");
}

/// Two classes, a train and a test part, two images a class and part.
pub(super) fn image_folder() -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    for (part, first) in [("train", 0), ("test", 100)] {
        for (class, offset) in [("cat", 0), ("dog", 20)] {
            for image in 0..2 {
                let file = format!("{part}/{class}/{image}.png");
                write(root.path(), &file, &png(first + offset + image));
            }
        }
    }
    root
}

/// Two classes, three training rows and one test row; regions of columns and rows 1..3.
pub(super) fn kaggle() -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    let table = |rows: &[(u32, &str, u8)]| {
        let mut text = format!("{KAGGLE_HEADER}\n");
        for (class, path, seed) in rows {
            write(root.path(), path, &png(*seed));
            text += &format!("4,4,1,1,3,3,{class},{path}\n");
        }
        text
    };
    let train = table(&[
        (0, "Train/0/00000_00001_00000.png", 0),
        (1, "Train/1/00001_00002_00000.png", 20),
        (1, "Train/1/00001_00002_00001.png", 40),
    ]);
    let test = table(&[(1, "Test/00000.png", 60)]);
    write(root.path(), "Train.csv", train.as_bytes());
    write(root.path(), "Test.csv", test.as_bytes());
    root
}

/// A row of a parquet fixture; `None` is null.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) path: Option<&'static str>,
    pub(super) label: ArrayValue,
    pub(super) track: Option<&'static str>,
}

/// A label cell; `None` is null.
pub(super) type ArrayValue = Option<i64>;

/// A row with an image, a path and a label.
pub(super) fn row(seed: u8, path: &'static str, label: i64) -> Row {
    Row { bytes: Some(png(seed)), path: Some(path), label: Some(label), track: None }
}

/// The `huggingface` metadata of a set with these class names.
pub(super) fn huggingface(names: &[&str]) -> (String, String) {
    let json = serde_json::json!({"info": {"features": {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }}});
    ("huggingface".to_owned(), json.to_string())
}

/// A batch in the Hugging Face schema, labels as int64.
pub(super) fn batch(rows: &[Row], metadata: Option<(String, String)>) -> RecordBatch {
    let bytes: BinaryArray = rows.iter().map(|row| row.bytes.as_deref()).collect();
    let paths: StringArray = rows.iter().map(|row| row.path).collect();
    let fields = Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ]);
    let arrays: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(paths)];
    let image: ArrayRef = Arc::new(StructArray::new(fields, arrays, None));
    let label: ArrayRef = Arc::new(rows.iter().map(|row| row.label).collect::<Int64Array>());
    let track: ArrayRef = Arc::new(rows.iter().map(|row| row.track).collect::<StringArray>());
    columns(vec![("image", image), ("label", label), ("track", track)], metadata)
}

/// A batch of nullable columns.
pub(super) fn columns(columns: Vec<(&str, ArrayRef)>, metadata: Option<(String, String)>) -> RecordBatch {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Schema::new(fields).with_metadata(metadata.into_iter().collect());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).expect("consistent columns")
}

/// Writes one batch as a parquet file below `root`.
pub(super) fn write_parquet(root: &Path, relative: &str, batch: &RecordBatch) {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("schema");
    writer.write(batch).expect("in memory");
    writer.close().expect("in memory");
    write(root, relative, &bytes);
}

/// Two named classes, three training rows and a test row.
pub(super) fn parquet_folder() -> TempDir {
    let root = tempfile::tempdir().expect("temporary folder");
    let names = Some(huggingface(&["cat", "dog"]));
    let train = [row(0, "a.png", 0), row(20, "b.png", 1), row(40, "c.png", 1)];
    let train_batch = batch(&train, names.clone());
    write_parquet(root.path(), "data/train-00000-of-00001.parquet", &train_batch);
    write_parquet(root.path(), "data/test-00000-of-00001.parquet", &batch(&[row(60, "d.png", 0)], names));
    root
}

/// A set in each layout, in the order of the table of readers.
pub(super) fn one_of_each_layout() -> [TempDir; 3] {
    [parquet_folder(), kaggle(), image_folder()]
}
