//! Parquet in, parquet out: file for file, under the same names.
//!
//! All columns, the order of rows, the schema metadata (`huggingface` included) and the compression
//! stay. A dropped row is gone; a replaced image gets new bytes and keeps its path, a replaced
//! label keeps its column's type. Row groups hold at most 2,048 rows and 128 MiB.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::cells::{replace_images, replace_labels};
use super::{Edit, Rewrite};
use crate::dataset::read::parquet::{BATCH_ROWS, ParquetFile, ParquetLayout, numbered, unreadable};
use crate::dataset::read::parquet_schema::{Columns, Namer};
use crate::dataset::read::{Part, Record};
use crate::error::{Error, Result};

const ROW_GROUP_ROWS: usize = 2048;
const ROW_GROUP_BYTES: usize = 128 << 20;

/// Copies a part of a parquet set.
pub(in crate::dataset) fn rewrite(layout: &ParquetLayout, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
    let mut editor =
        Editor { columns: layout.columns(), namer: Namer::new(part), namer_of_copy: Namer::new(part) };
    for file in layout.files(part) {
        let (path, sink) = job.create(&file.name)?;
        copy_file(file, &path, sink, &mut editor, job)?;
    }
    Ok(())
}

/// Copies one file to a sink, which `path` names in messages.
fn copy_file<W: Write + Send>(
    file: &ParquetFile,
    path: &Path,
    sink: W,
    editor: &mut Editor<'_>,
    job: &mut Rewrite<'_>,
) -> Result<()> {
    let failed = |error: ParquetError| Error::io("write", path)(std::io::Error::other(error));
    let builder = file.builder()?;
    let properties = properties(builder.metadata(), &editor.columns.image);
    let mut writer =
        ArrowWriter::try_new(sink, Arc::clone(builder.schema()), Some(properties)).map_err(failed)?;
    let reader =
        builder.with_batch_size(BATCH_ROWS).build().map_err(|error| unreadable(&file.path(), &error))?;
    for batch in numbered(file.path(), reader) {
        let (start, batch) = batch?;
        let edited = editor.edit(file, start, &batch, job)?;
        writer.write(&edited).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(())
}

/// Metadata and compression of the file that is copied; no dictionary over image bytes, which
/// hardly repeat.
fn properties(metadata: &ParquetMetaData, image: &str) -> WriterProperties {
    const WRITTEN_BY_THE_WRITER: &str = "ARROW:schema";
    let key_values = metadata
        .file_metadata()
        .key_value_metadata()
        .map(|all| all.iter().filter(|pair| pair.key != WRITTEN_BY_THE_WRITER).cloned().collect::<Vec<_>>());
    let image_bytes = ColumnPath::new(vec![image.to_owned(), "bytes".to_owned()]);
    let first = metadata.row_groups().first().and_then(|group| group.columns().first());
    let mut properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_key_value_metadata(key_values)
        .set_column_dictionary_enabled(image_bytes, false);
    if let Some(column) = first {
        properties = properties.set_compression(column.compression());
    }
    properties.build()
}

/// Applies edits to batches, naming images without a path as the reader of the copy will.
struct Editor<'a> {
    columns: &'a Columns,
    namer: Namer,
    namer_of_copy: Namer,
}

/// The answers for one batch, by row.
#[derive(Default)]
struct Edits {
    kept: Vec<bool>,
    images: HashMap<usize, Vec<u8>>,
    labels: HashMap<usize, u32>,
}

impl Editor<'_> {
    fn edit(
        &mut self,
        file: &ParquetFile,
        start: u64,
        batch: &RecordBatch,
        job: &mut Rewrite<'_>,
    ) -> Result<RecordBatch> {
        let mut edits = Edits::default();
        let records = self.columns.records(file, start, batch, job.classes().len());
        for (row, record) in records.into_iter().enumerate() {
            self.ask(row, record?, job, &mut edits)?;
        }
        apply(batch, self.columns, &edits)
            .map_err(|error| Error::data(file.path(), error.to_string(), "columns to edit"))
    }

    fn ask(&mut self, row: usize, record: Record, job: &mut Rewrite<'_>, edits: &mut Edits) -> Result<()> {
        let is_named = !record.path.is_empty();
        let record = self.namer.name(record);
        let edit = job.decide(&record)?;
        edits.kept.push(edit != Edit::Drop);
        let (image, label) = match edit {
            Edit::Drop => return Ok(()),
            Edit::Keep => (None, None),
            Edit::Replace { image, label } => (image, label),
        };
        let is_replaced = image.is_some() || label.is_some();
        let bytes = image.as_deref().unwrap_or(&record.bytes);
        let path = if is_named { record.path.clone() } else { self.namer_of_copy.path_of(bytes) };
        if is_replaced {
            job.replaced(&record, path, bytes);
        }
        edits.labels.extend(label.map(|label| (row, label)));
        edits.images.extend(image.map(|image| (row, image)));
        Ok(())
    }
}

fn apply(
    batch: &RecordBatch,
    columns: &Columns,
    edits: &Edits,
) -> std::result::Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let mut arrays = batch.columns().to_vec();
    if !edits.images.is_empty() {
        let index = schema.index_of(&columns.image)?;
        arrays[index] = replace_images(arrays[index].as_struct(), &edits.images)?;
    }
    if !edits.labels.is_empty() {
        let index = schema.index_of(&columns.label)?;
        arrays[index] = replace_labels(&arrays[index], &edits.labels)?;
    }
    let edited = RecordBatch::try_new(schema, arrays)?;
    if edits.kept.iter().all(|&kept| kept) {
        return Ok(edited);
    }
    filter_record_batch(&edited, &BooleanArray::from(edits.kept.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Source;
    use crate::dataset::sample::SampleId;
    use crate::dataset::write::RewriteSummary;

    /// A disk with room for a few bytes.
    struct FullDisk(usize);

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_naming_the_file_wherever_it_fills() {
        let root = crate::dataset::testing::parquet_folder();
        let layout = Source::open(root.path()).expect("fixture");
        let files = ParquetLayout::open(root.path(), &Default::default()).expect("fixture");
        let file = files.files(Part::Train).next().expect("one file");
        for room in [0, 4, 100, 700] {
            let mut job = Rewrite {
                root: root.path(),
                classes: layout.classes(),
                edit: &mut |_: &SampleId, _: &str, _: u32| Ok(Edit::Keep),
                summary: RewriteSummary::default(),
            };
            let mut editor = Editor {
                columns: files.columns(),
                namer: Namer::new(Part::Train),
                namer_of_copy: Namer::new(Part::Train),
            };
            let path = Path::new("out/train.parquet");
            let error = copy_file(file, path, FullDisk(room), &mut editor, &mut job)
                .expect_err("no room")
                .to_string();
            assert!(error.contains("cannot write out/train.parquet"), "{room}: {error}");
        }
    }
}
