//! A parquet file in memory: numbers, truth values and text, one a cell, and lists of as many numbers in every row, which are so many columns.
//!
//! A list column `x` of n numbers can be spread over the columns `x[0]` to `x[n − 1]` in its place. A copy has it as the list that it was.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch};
use arrow_schema::{DataType, FieldRef};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use super::lists::{counted, is_of_numbers, items_of, list_of, with_items, with_list_types};
use super::table::{Cell, CellEdits};
use crate::error::{Error, Result};

/// A parquet file with all of its rows.
#[derive(Clone, Debug)]
pub(super) struct ParquetFile {
    path: PathBuf,
    batch: RecordBatch,
    metadata: Arc<ParquetMetaData>,
    columns: Vec<Column>,
}

/// A column as the table has it: one of the file, or the numbers at one place of the lists of one.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    /// Its place in the file.
    field: usize,
    /// Its place in each list; `None` = the whole column.
    item: Option<usize>,
}

/// How many numbers each list of a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListLength {
    /// As many as the first.
    OfTheFirst,
    /// So many.
    Of(usize),
}

impl ParquetFile {
    /// Reads a whole file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let unreadable = |found: String| Error::data(path, found, "a parquet file");
        // Plain parquet types: a table of another program may hold its own kinds of text, which only that program's metadata asks for.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let mut reader =
            ArrowReaderMetadata::load(&file, options).map_err(|error| unreadable(error.to_string()))?;
        if let Some(schema) = with_list_types(&reader) {
            let options = ArrowReaderOptions::new().with_schema(schema);
            // Metadata that does not fit its own file says nothing.
            reader = ArrowReaderMetadata::try_new(Arc::clone(reader.metadata()), options).unwrap_or(reader);
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, reader);
        let (schema, metadata) = (Arc::clone(builder.schema()), Arc::clone(builder.metadata()));
        let batches = builder.build().map_err(|error| unreadable(error.to_string()))?;
        let batches: Vec<RecordBatch> =
            batches.collect::<std::result::Result<_, _>>().map_err(|error| unreadable(error.to_string()))?;
        let batch = concat_batches(&schema, &batches).map_err(|error| unreadable(error.to_string()))?;
        let column =
            |(at, field): (usize, &FieldRef)| Column { name: field.name().clone(), field: at, item: None };
        let columns = schema.fields().iter().enumerate().map(column).collect();
        Ok(Self { path: path.to_path_buf(), batch, metadata, columns })
    }

    /// The same with a column for each place of the lists of numbers of those columns that `length` gives a length; other columns stay as they are.
    ///
    /// # Errors
    /// Names file, row and column of a list of another length, and of a row without one.
    pub(super) fn spread(self, length: impl Fn(&str) -> Option<ListLength>) -> Result<Self> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let array = self.batch.column(column.field);
            match length(&column.name).filter(|_| column.item.is_none() && is_of_numbers(array.data_type())) {
                None => columns.push(column.clone()),
                Some(length) => {
                    let place = |item| Column {
                        name: format!("{}[{item}]", column.name),
                        field: column.field,
                        item: Some(item),
                    };
                    columns.extend((0..self.list_length(column, length)?).map(place));
                }
            }
        }
        Ok(Self { columns, ..self })
    }

    /// The length of every list of a column.
    fn list_length(&self, column: &Column, length: ListLength) -> Result<usize> {
        let array = self.batch.column(column.field);
        let refused = |row: usize, found: String, expected: String| {
            let entry = format!("row {}, column `{}`", row + 1, column.name);
            Err(Error::data_entry(&self.path, entry, found, expected))
        };
        let first = match length {
            ListLength::Of(length) => length,
            ListLength::OfTheFirst => {
                let rows = (0..array.len()).filter(|&row| !array.is_null(row));
                rows.map(|row| list_of(array, row).1).next().unwrap_or_default()
            }
        };
        for row in 0..array.len() {
            let (_, found) = list_of(array, row);
            let is_null = array.is_null(row);
            if is_null || found != first || found == 0 {
                let found = if is_null { "a null".to_owned() } else { counted(found) };
                let expected = match (length, first) {
                    (ListLength::Of(_), _) => format!("{}, as the network learnt", counted(first)),
                    (_, 0) => "a list of numbers, or --ignore for a column that is no feature".to_owned(),
                    _ => format!(
                        "{}, the length of the column's first, or --ignore for a column that is no feature",
                        counted(first)
                    ),
                };
                return refused(row, found, expected);
            }
        }
        Ok(first)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// A cell as text, or what is there instead.
    pub(super) fn text(&self, row: usize, column: usize) -> std::result::Result<String, String> {
        let Column { field, item, .. } = self.columns[column];
        let array = self.batch.column(field);
        match item {
            None => text_of(array, row),
            Some(item) => text_of(items_of(array), list_of(array, row).0 + item),
        }
    }

    /// A copy with rows dropped and cells changed, of the same types.
    pub(super) fn edited(&self, edits: &[CellEdits]) -> Result<Self> {
        let unfit =
            |error: &dyn std::fmt::Display| Error::data(&self.path, error.to_string(), "cells of its types");
        let mut arrays = self.batch.columns().to_vec();
        // Of each column of the file the new cells, of lists by their place among all numbers of the column.
        let mut changed: Vec<HashMap<usize, &Cell>> = vec![HashMap::new(); arrays.len()];
        for (row, edit) in edits.iter().enumerate() {
            for (column, cell) in edit.iter().flatten() {
                let Column { field, item, .. } = self.columns[*column];
                let place = item.map_or(row, |item| list_of(&arrays[field], row).0 + item);
                changed[field].insert(place, cell);
            }
        }
        for (field, cells) in changed.iter().enumerate().filter(|(_, cells)| !cells.is_empty()) {
            arrays[field] = replaced(&arrays[field], cells).map_err(|found| {
                let entry = format!("column `{}`", self.batch.schema_ref().field(field).name());
                Error::data_entry(&self.path, entry, found, "what its type can hold")
            })?;
        }
        let edited = RecordBatch::try_new(self.batch.schema(), arrays).map_err(|error| unfit(&error))?;
        let kept: BooleanArray = edits.iter().map(|edit| Some(edit.is_some())).collect();
        let batch = filter_record_batch(&edited, &kept).map_err(|error| unfit(&error))?;
        Ok(Self { batch, ..self.clone() })
    }

    /// The whole file, with the metadata and the compression of the one that was read.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        const WRITTEN_BY_THE_WRITER: &str = "ARROW:schema";
        let unfit = |error: parquet::errors::ParquetError| {
            Error::data(&self.path, error.to_string(), "a table that parquet can hold")
        };
        let pairs = self.metadata.file_metadata().key_value_metadata();
        let pairs =
            pairs.map(|all| all.iter().filter(|pair| pair.key != WRITTEN_BY_THE_WRITER).cloned().collect());
        let mut properties = WriterProperties::builder().set_key_value_metadata(pairs);
        if let Some(column) = self.metadata.row_groups().first().and_then(|group| group.columns().first()) {
            properties = properties.set_compression(column.compression());
        }
        let mut writer =
            ArrowWriter::try_new(Vec::new(), self.batch.schema(), Some(properties.build())).map_err(unfit)?;
        writer.write(&self.batch).map_err(unfit)?;
        writer.into_inner().map_err(unfit)
    }
}

/// A cell of a column as text, or what is there instead.
fn text_of(array: &ArrayRef, row: usize) -> std::result::Result<String, String> {
    if array.is_null(row) {
        return Err("a null".to_owned());
    }
    Ok(match array.data_type() {
        DataType::Int8 => primitive::<Int8Type>(array, row),
        DataType::Int16 => primitive::<Int16Type>(array, row),
        DataType::Int32 => primitive::<Int32Type>(array, row),
        DataType::Int64 => primitive::<Int64Type>(array, row),
        DataType::UInt8 => primitive::<UInt8Type>(array, row),
        DataType::UInt16 => primitive::<UInt16Type>(array, row),
        DataType::UInt32 => primitive::<UInt32Type>(array, row),
        DataType::UInt64 => primitive::<UInt64Type>(array, row),
        DataType::Float32 => primitive::<Float32Type>(array, row),
        DataType::Float64 => primitive::<Float64Type>(array, row),
        DataType::Boolean => u8::from(array.as_boolean().value(row)).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).to_owned(),
        other => return Err(format!("a value of type {other}")),
    })
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> String
where
    T::Native: std::fmt::Display,
{
    array.as_primitive::<T>().value(row).to_string()
}

/// A column with the cells at some places replaced, of lists the numbers; whole numbers are rounded, and what does not fit is told.
fn replaced(array: &ArrayRef, cells: &HashMap<usize, &Cell>) -> std::result::Result<ArrayRef, String> {
    Ok(match array.data_type() {
        DataType::Int8 => with::<Int8Type>(array, cells, |number| number.round() as i8)?,
        DataType::Int16 => with::<Int16Type>(array, cells, |number| number.round() as i16)?,
        DataType::Int32 => with::<Int32Type>(array, cells, |number| number.round() as i32)?,
        DataType::Int64 => with::<Int64Type>(array, cells, |number| number.round() as i64)?,
        DataType::UInt8 => with::<UInt8Type>(array, cells, |number| number.round() as u8)?,
        DataType::UInt16 => with::<UInt16Type>(array, cells, |number| number.round() as u16)?,
        DataType::UInt32 => with::<UInt32Type>(array, cells, |number| number.round() as u32)?,
        DataType::UInt64 => with::<UInt64Type>(array, cells, |number| number.round() as u64)?,
        DataType::Float32 => with::<Float32Type>(array, cells, |number| number as f32)?,
        DataType::Float64 => with::<Float64Type>(array, cells, |number| number)?,
        DataType::Boolean => {
            let old = array.as_boolean();
            let value = |row: usize| -> std::result::Result<Option<bool>, String> {
                Ok(match cells.get(&row) {
                    Some(cell) => Some(number_of(cell)? >= 0.5),
                    None => (!old.is_null(row)).then(|| old.value(row)),
                })
            };
            Arc::new((0..old.len()).map(value).collect::<std::result::Result<BooleanArray, _>>()?)
        }
        DataType::Utf8 => {
            let old = array.as_string::<i32>();
            let mut builder = StringBuilder::new();
            for row in 0..old.len() {
                match cells.get(&row) {
                    Some(Cell::Text(text)) => builder.append_value(text),
                    Some(Cell::Number(number)) => builder.append_value(number.to_string()),
                    None => builder.append_option((!old.is_null(row)).then(|| old.value(row))),
                }
            }
            Arc::new(builder.finish())
        }
        list if is_of_numbers(list) => with_items(array, replaced(items_of(array), cells)?)?,
        other => return Err(format!("type {other}")),
    })
}

fn with<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    cells: &HashMap<usize, &Cell>,
    cast: impl Fn(f64) -> T::Native,
) -> std::result::Result<ArrayRef, String> {
    let old = array.as_primitive::<T>();
    let value = |row: usize| -> std::result::Result<Option<T::Native>, String> {
        Ok(match cells.get(&row) {
            Some(cell) => Some(cast(number_of(cell)?)),
            None => (!old.is_null(row)).then(|| old.value(row)),
        })
    };
    let values = (0..old.len()).map(value).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Arc::new(values.into_iter().collect::<PrimitiveArray<T>>()))
}

fn number_of(cell: &Cell) -> std::result::Result<f64, String> {
    match cell {
        Cell::Number(number) => Ok(*number),
        Cell::Text(text) => text.parse().map_err(|_| format!("the text `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int32Array, StringArray};

    use super::*;

    fn written(folder: &Path) -> ParquetFile {
        let columns: [(&str, ArrayRef); 3] = [
            ("a", Arc::new(Float64Array::from(vec![0.1, 0.2, 0.3]))),
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ("t", Arc::new(StringArray::from(vec!["x", "y", "z"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let path = folder.join("t.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&path).expect("a file"), batch.schema(), None)
            .expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        ParquetFile::read(&path).expect("read")
    }

    #[test]
    fn a_copy_keeps_names_types_and_every_cell_but_those_that_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = written(folder.path());
        let edits = [Some(Vec::new()), None, Some(vec![(0, Cell::Number(0.75)), (1, Cell::Number(4.6))])];
        let path = folder.path().join("copy.parquet");
        std::fs::write(&path, file.edited(&edits).expect("edited").bytes().expect("bytes")).expect("written");
        let copy = ParquetFile::read(&path).expect("read");
        assert_eq!((copy.names(), copy.rows()), (file.names(), 2));
        assert_eq!(copy.batch.schema().field(1).data_type(), &DataType::Int32);
        let cells: Vec<String> = (0..6).map(|cell| copy.text(cell / 3, cell % 3).expect("a cell")).collect();
        assert_eq!(cells, ["0.1", "1", "x", "0.75", "5", "z"]);
    }
}
