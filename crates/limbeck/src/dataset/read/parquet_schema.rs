//! The columns of a Hugging Face image set: which they are, and the records in them.

use std::collections::HashMap;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};

use super::cells::{bytes_at, integer_at, is_bytes, is_text, text_at};
use super::parquet::ParquetFile;
use super::{Part, Record, SourceOptions, gtsrb_track};
use crate::dataset::decode::Location;
use crate::error::{Error, Result};

/// Names of the columns of a set.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct Columns {
    pub(in crate::dataset) image: String,
    pub(in crate::dataset) label: String,
    group: Option<String>,
}

/// Names the images that have no path by their part and content; equal ones are counted.
pub(in crate::dataset) struct Namer {
    part: Part,
    seen: HashMap<String, u64>,
}

impl Columns {
    pub(super) fn find(schema: &Schema, options: &SourceOptions, path: &Path) -> Result<Self> {
        let present = |name: &str| schema.field_with_name(name).ok().map(|field| field.data_type());
        let require = |name: &str, fits: fn(&DataType) -> bool, expected: &str| {
            let found = match present(name) {
                Some(data_type) if fits(data_type) => return Ok(name.to_owned()),
                Some(other) => format!("the column `{name}` of type {other}"),
                None => {
                    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                    format!("the columns {}", names.join(", "))
                }
            };
            Err(Error::data(path, found, format!("a column `{name}` of {expected}")))
        };
        const GROUP: &str = "track";
        let group = options.group_column.as_deref().or(present(GROUP).map(|_| GROUP));
        Ok(Self {
            image: require(&options.image_column, is_image, "struct<bytes: binary, path: string>")?,
            label: require(&options.label_column, DataType::is_integer, "whole numbers")?,
            group: group
                .map(|name| require(name, |t| is_text(t) || t.is_integer(), "text or numbers"))
                .transpose()?,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.image, &self.label].into_iter().chain(&self.group).map(String::as_str)
    }

    /// The records of a batch of `file` whose first row is row `start` of it. An image without a
    /// path has an empty one: see [`Namer`].
    pub(in crate::dataset) fn records(
        &self,
        file: &ParquetFile,
        start: u64,
        batch: &RecordBatch,
        classes: usize,
    ) -> Vec<Result<Record>> {
        let path = file.path();
        (0..batch.num_rows())
            .map(|row| {
                let location = Location::entry(&path, format!("row {}", start + row as u64));
                self.record(batch, row, classes, location)
            })
            .collect()
    }

    fn record(&self, batch: &RecordBatch, row: usize, classes: usize, location: Location) -> Result<Record> {
        let label = label_at(batch, &self.label, row, classes, &location)?;
        let image = batch.column_by_name(&self.image).and_then(|array| array.as_struct_opt());
        let bytes = image
            .filter(|image| image.is_valid(row))
            .and_then(|image| bytes_at(image.column_by_name("bytes")?, row))
            .ok_or_else(|| location.fault("no image bytes", "an encoded image"))?;
        let path = image.and_then(|image| text_at(image.column_by_name("path")?, row)).unwrap_or_default();
        let group = match &self.group {
            Some(name) => batch.column_by_name(name).and_then(|groups| {
                let text = text_at(groups, row).map(str::to_owned);
                text.or_else(|| integer_at(groups, row).map(|number| number.to_string()))
            }),
            None => gtsrb_track(path),
        };
        Ok(Record { path: path.to_owned(), label, group, bytes: bytes.to_vec(), roi: None, location })
    }
}

impl Namer {
    pub(in crate::dataset) fn new(part: Part) -> Self {
        Self { part, seen: HashMap::new() }
    }

    /// Gives a record without a path the path `<part>/<content hash>`, with `-2`, `-3`… for the
    /// repetitions of one content.
    pub(in crate::dataset) fn name(&mut self, mut record: Record) -> Record {
        if record.path.is_empty() {
            record.path = self.path_of(&record.bytes);
        }
        record
    }

    /// The path of a further image of this content.
    pub(in crate::dataset) fn path_of(&mut self, bytes: &[u8]) -> String {
        let name = format!("{}/{}", self.part, &blake3::hash(bytes).to_hex()[..32]);
        let count = self.seen.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}-{count}") }
    }
}

/// The `ClassLabel` names of a column in the `huggingface` schema metadata, if there are any.
pub(super) fn class_names(schema: &Schema, label: &str, path: &Path) -> Result<Option<Vec<String>>> {
    let Some(text) = schema.metadata().get("huggingface") else {
        return Ok(None);
    };
    let malformed = |found: String| {
        Error::data_entry(path, "huggingface metadata", found, "the JSON that `datasets` writes")
    };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let names = ["info", "features", label, "names"].iter().try_fold(&json, |value, key| value.get(key));
    match names {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(names) => serde_json::from_value(names.clone())
            .map(Some)
            .map_err(|error| malformed(format!("class names that are no list of texts ({error})"))),
    }
}

/// The label of a row, from 0 to below `classes`.
pub(super) fn label_at(
    batch: &RecordBatch,
    column: &str,
    row: usize,
    classes: usize,
    location: &Location,
) -> Result<u32> {
    let label = batch.column_by_name(column).and_then(|labels| integer_at(labels, row));
    let found = match label {
        Some(label) if (0..classes as i128).contains(&label) => return Ok(label as u32),
        Some(label) => format!("label {label}"),
        None => "no label".to_owned(),
    };
    Err(location.fault(found, format!("a label from 0 to {}", classes as i128 - 1)))
}

fn is_image(data_type: &DataType) -> bool {
    let DataType::Struct(fields) = data_type else {
        return false;
    };
    let fits =
        |name: &str, fits: fn(&DataType) -> bool| fields.find(name).map(|(_, field)| fits(field.data_type()));
    // A path column in which every path is null may be of the null type.
    let path = fits("path", |t| is_text(t) || *t == DataType::Null);
    fits("bytes", is_bytes) == Some(true) && path != Some(false)
}
