//! Columns of lists of numbers: where a row's numbers lie, and the same lists with other numbers.
//!
//! Lists of arrow's three kinds: `List` and `LargeList` by their offsets, `FixedSizeList` by its length.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, GenericListArray, OffsetSizeTrait};
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::parquet_to_arrow_schema;

/// The schema of a file's plain types, with the kinds of its lists of numbers as the writer's metadata have them: lists of a fixed length are plain ones in parquet itself. `None` = there are none.
pub(super) fn with_list_types(reader: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let file = reader.metadata().file_metadata();
    let told = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).ok()?;
    let is_told = |(plain, told): &(&FieldRef, &FieldRef)| {
        plain.data_type() != told.data_type()
            && is_of_numbers(plain.data_type())
            && is_of_numbers(told.data_type())
    };
    let fields: Vec<(&FieldRef, &FieldRef)> = reader.schema().fields().iter().zip(told.fields()).collect();
    fields.iter().any(is_told).then(|| {
        let field = |pair: &(&FieldRef, &FieldRef)| Arc::clone(if is_told(pair) { pair.1 } else { pair.0 });
        Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
    })
}

/// Whether a column's cells are lists of numbers.
pub(super) fn is_of_numbers(list: &DataType) -> bool {
    use DataType::{
        FixedSizeList, Float32, Float64, Int8, Int16, Int32, Int64, LargeList, List, UInt8, UInt16, UInt32,
        UInt64,
    };
    let item = match list {
        List(item) | LargeList(item) => item.data_type(),
        FixedSizeList(item, length) if *length > 0 => item.data_type(),
        _ => return false,
    };
    matches!(item, Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64)
}

/// Where a row's list begins among [`items_of`] its column, and how long it is.
pub(super) fn list_of(lists: &ArrayRef, row: usize) -> (usize, usize) {
    fn of<O: OffsetSizeTrait>(lists: &GenericListArray<O>, row: usize) -> (usize, usize) {
        let [start, end] = [row, row + 1].map(|at| lists.value_offsets()[at].as_usize());
        (start, end - start)
    }
    match lists.data_type() {
        DataType::List(_) => of(lists.as_list::<i32>(), row),
        DataType::LargeList(_) => of(lists.as_list::<i64>(), row),
        _ => {
            let lists = lists.as_fixed_size_list();
            (lists.value_offset(row) as usize, lists.value_length() as usize)
        }
    }
}

/// The numbers of all lists of a column.
pub(super) fn items_of(lists: &ArrayRef) -> &ArrayRef {
    match lists.data_type() {
        DataType::List(_) => lists.as_list::<i32>().values(),
        DataType::LargeList(_) => lists.as_list::<i64>().values(),
        _ => lists.as_fixed_size_list().values(),
    }
}

/// The same lists of other numbers.
pub(super) fn with_items(lists: &ArrayRef, items: ArrayRef) -> std::result::Result<ArrayRef, String> {
    fn of<O: OffsetSizeTrait>(
        lists: &GenericListArray<O>,
        item: FieldRef,
        items: ArrayRef,
    ) -> std::result::Result<ArrayRef, String> {
        let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
        let lists = GenericListArray::try_new(item, offsets, items, nulls);
        Ok(Arc::new(lists.map_err(|error| error.to_string())?))
    }
    match lists.data_type() {
        DataType::List(item) => of(lists.as_list::<i32>(), Arc::clone(item), items),
        DataType::LargeList(item) => of(lists.as_list::<i64>(), Arc::clone(item), items),
        DataType::FixedSizeList(item, length) => {
            let lists = FixedSizeListArray::try_new(Arc::clone(item), *length, items, lists.nulls().cloned());
            Ok(Arc::new(lists.map_err(|error| error.to_string())?))
        }
        other => Err(format!("type {other}")),
    }
}

/// A list's length in words.
pub(super) fn counted(length: usize) -> String {
    match length {
        0 => "an empty list".to_owned(),
        1 => "a list of 1 number".to_owned(),
        _ => format!("a list of {length} numbers"),
    }
}
