//! Arrow columns with some cells replaced, of the same type as before.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, PrimitiveArray, StructArray,
};
use arrow_schema::{ArrowError, DataType};

type Result<T> = std::result::Result<T, ArrowError>;

/// The struct column with other `bytes` in some rows; its other fields stay.
pub(super) fn replace_images(images: &StructArray, new: &HashMap<usize, Vec<u8>>) -> Result<ArrayRef> {
    let (fields, mut arrays, nulls) = images.clone().into_parts();
    let Some((index, field)) = fields.find("bytes") else {
        return Err(ArrowError::SchemaError("no field `bytes`".to_owned()));
    };
    let old = Arc::clone(&arrays[index]);
    let pick = |(row, old)| new.get(&row).map(Vec::as_slice).or(old);
    arrays[index] = match field.data_type() {
        DataType::Binary => {
            Arc::new(old.as_binary::<i32>().iter().enumerate().map(pick).collect::<BinaryArray>())
        }
        DataType::LargeBinary => {
            Arc::new(old.as_binary::<i64>().iter().enumerate().map(pick).collect::<LargeBinaryArray>())
        }
        DataType::BinaryView => {
            Arc::new(old.as_binary_view().iter().enumerate().map(pick).collect::<BinaryViewArray>())
        }
        other => return Err(ArrowError::SchemaError(format!("images of type {other}"))),
    };
    Ok(Arc::new(StructArray::try_new(fields, arrays, nulls)?))
}

/// A column of whole numbers with other labels in some rows; a label that does not fit the
/// column's type is an error.
pub(super) fn replace_labels(old: &ArrayRef, new: &HashMap<usize, u32>) -> Result<ArrayRef> {
    match old.data_type() {
        DataType::Int8 => relabel::<Int8Type>(old, new),
        DataType::Int16 => relabel::<Int16Type>(old, new),
        DataType::Int32 => relabel::<Int32Type>(old, new),
        DataType::Int64 => relabel::<Int64Type>(old, new),
        DataType::UInt8 => relabel::<UInt8Type>(old, new),
        DataType::UInt16 => relabel::<UInt16Type>(old, new),
        DataType::UInt32 => relabel::<UInt32Type>(old, new),
        DataType::UInt64 => relabel::<UInt64Type>(old, new),
        other => Err(ArrowError::SchemaError(format!("labels of type {other}"))),
    }
}

fn relabel<T>(old: &ArrayRef, new: &HashMap<usize, u32>) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<u32>,
{
    let pick = |(row, old): (usize, Option<T::Native>)| match new.get(&row) {
        Some(&label) => T::Native::try_from(label)
            .map(Some)
            .map_err(|_| ArrowError::CastError(format!("label {label} in a column of {}", T::DATA_TYPE))),
        None => Ok(old),
    };
    let labels: Result<PrimitiveArray<T>> = old.as_primitive::<T>().iter().enumerate().map(pick).collect();
    Ok(Arc::new(labels?))
}
