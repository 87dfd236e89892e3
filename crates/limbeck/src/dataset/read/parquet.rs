//! Parquet in the schema that the Hugging Face `datasets` library uses for images.
//!
//! | column | type |
//! | --- | --- |
//! | `image` | struct of `bytes` (binary) and, optionally, `path` (text) |
//! | `label` | whole number of any width, from 0 |
//! | `track`, optional | text or whole number: the group |
//!
//! The names of the columns are settings ([`SourceOptions`]). One file, or every `.parquet` file of
//! a folder or of its `data/`; the part is the word `train`, `validation` or `test` in the file's
//! name, as on the Hugging Face hub, and `train` without one. Class names come from the
//! `huggingface` schema metadata; without them classes are `0` to the highest label of any part.
//!
//! An image without a `path` is named by its part and content, so that it keeps its id when rows
//! before it are dropped. Refused, naming the row (from 0): null bytes, a null or negative label,
//! a label beyond the names.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::parquet_schema::{Columns, Namer, class_names, label_at};
use super::{Layout, Part, Records, SourceOptions, list};
use crate::dataset::decode::Location;
use crate::dataset::write::Rewrite;
use crate::error::{Error, Result};

/// Rows decoded at a time: few, since an image of some sets takes megabytes.
pub(in crate::dataset) const BATCH_ROWS: usize = 128;

/// A label that asks for more is taken for a damaged column and not for so many classes.
const MAX_CLASSES: usize = 1 << 16;

/// Whether `path` is a parquet file, or a folder with parquet files in it or in its `data/`.
pub(super) fn detect(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(!files_of(path)?.is_empty());
    }
    Ok(is_parquet(path))
}

/// Parquet files whose schemas agree.
pub(in crate::dataset) struct ParquetLayout {
    files: Vec<ParquetFile>,
    classes: Arc<[String]>,
    columns: Columns,
}

/// One file of a set.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct ParquetFile {
    /// Relative to the root of the set, with `/` between folders.
    pub(in crate::dataset) name: String,
    content: Content,
    rows: u64,
}

#[derive(Debug, Clone)]
enum Content {
    Disk(Arc<Path>),
    Embedded(&'static [u8]),
}

impl ParquetLayout {
    /// Lists the files and checks the schema of each.
    pub(in crate::dataset) fn open(path: &Path, options: &SourceOptions) -> Result<Self> {
        let files = if path.is_dir() {
            files_of(path)?
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            vec![ParquetFile::on_disk(name.unwrap_or_default(), path.to_path_buf())]
        };
        Self::over(files, options)
    }

    /// A set of these files.
    pub(super) fn over(mut files: Vec<ParquetFile>, options: &SourceOptions) -> Result<Self> {
        let mut columns = None;
        let mut names: Option<Vec<String>> = None;
        for file in &mut files {
            let builder = file.builder()?;
            file.rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
            let found = Columns::find(builder.schema(), options, &file.path())?;
            let own_names = class_names(builder.schema(), &found.label, &file.path())?;
            if let (Some(first), Some(own)) = (&names, &own_names)
                && first != own
            {
                let expected = "the class names of the other files";
                return Err(Error::data(file.path(), "other class names", expected));
            }
            names = names.or(own_names);
            columns.get_or_insert(found);
        }
        let Some(columns) = columns else {
            return Err(Error::input("parquet set", "no files", "at least one"));
        };
        let classes = match names {
            Some(names) => names,
            None => numbered_classes(&files, &columns)?,
        };
        Ok(Self { files, classes: classes.into(), columns })
    }

    pub(in crate::dataset) fn files(&self, part: Part) -> impl Iterator<Item = &ParquetFile> {
        self.files.iter().filter(move |file| file.part() == part)
    }

    pub(in crate::dataset) fn columns(&self) -> &Columns {
        &self.columns
    }
}

impl Layout for ParquetLayout {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn count(&self, part: Part) -> Option<u64> {
        self.files(part).map(|file| file.rows).reduce(|a, b| a + b)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let on_disk = |file: &ParquetFile| match &file.content {
            Content::Disk(path) => Some(path.to_path_buf()),
            Content::Embedded(_) => None,
        };
        Ok(self.files.iter().filter_map(on_disk).collect())
    }

    fn records(&self, part: Part) -> Result<Records> {
        let files: Vec<_> = self.files(part).cloned().collect();
        let (columns, classes) = (self.columns.clone(), self.classes.len());
        let mut namer = Namer::new(part);
        let records = files.into_iter().flat_map(move |file| {
            let batches = file.batches(&columns);
            let columns = columns.clone();
            flatten(batches.map(|batches| {
                batches.flat_map(move |batch| {
                    flatten(
                        batch
                            .map(|(start, batch)| columns.records(&file, start, &batch, classes).into_iter()),
                    )
                })
            }))
        });
        Ok(Box::new(records.map(move |record| Ok(namer.name(record?)))))
    }

    fn rewrite(&self, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
        crate::dataset::write::parquet::rewrite(self, part, job)
    }
}

/// An iterator of results from a result of an iterator.
fn flatten<T>(nested: Result<impl Iterator<Item = Result<T>>>) -> impl Iterator<Item = Result<T>> {
    let (items, error) = match nested {
        Ok(items) => (Some(items), None),
        Err(error) => (None, Some(Err(error))),
    };
    items.into_iter().flatten().chain(error)
}

impl ParquetFile {
    fn on_disk(name: String, path: PathBuf) -> Self {
        Self { name, content: Content::Disk(path.into()), rows: 0 }
    }

    pub(super) fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        Self { name: name.to_owned(), content: Content::Embedded(bytes), rows: 0 }
    }

    /// The file, or the name of an embedded one, for messages.
    pub(in crate::dataset) fn path(&self) -> Arc<Path> {
        match &self.content {
            Content::Disk(path) => Arc::clone(path),
            Content::Embedded(_) => Path::new("embedded sample").join(&self.name).into(),
        }
    }

    /// The first word of the name that stands for a part, else the training part.
    fn part(&self) -> Part {
        let file = self.name.rsplit('/').next().unwrap_or_default();
        let mut words = file.split(|c: char| !c.is_ascii_alphanumeric());
        words.find_map(Part::named).unwrap_or(Part::Train)
    }

    /// A reader at the start of the file.
    pub(in crate::dataset) fn builder(&self) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let path = self.path();
        let file = match &self.content {
            Content::Disk(path) => File::open(path).map_err(Error::io("open", path))?,
            // The reader takes files; an unlinked copy of 6 MB costs less than another dependency.
            Content::Embedded(bytes) => {
                let copy = || -> std::io::Result<File> {
                    let mut file = tempfile::tempfile()?;
                    file.write_all(bytes)?;
                    file.rewind()?;
                    Ok(file)
                };
                copy().map_err(Error::io("copy", &path))?
            }
        };
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&path, &error))
    }

    /// Batches of the columns that make a record, each with the number of its first row.
    fn batches(&self, columns: &Columns) -> Result<impl Iterator<Item = Result<(u64, RecordBatch)>> + use<>> {
        self.batches_of(columns.names().collect())
    }

    fn batches_of(
        &self,
        names: Vec<&str>,
    ) -> Result<impl Iterator<Item = Result<(u64, RecordBatch)>> + use<>> {
        let path = self.path();
        let builder = self.builder()?;
        let fields = builder.schema().fields().iter().enumerate();
        let roots: Vec<_> = fields
            .filter(|(_, field)| names.contains(&field.name().as_str()))
            .map(|(index, _)| index)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let reader = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| unreadable(&path, &error))?;
        Ok(numbered(path, reader))
    }
}

/// Numbers batches by their first row and names the file of an unreadable one.
pub(in crate::dataset) fn numbered(
    path: Arc<Path>,
    reader: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
) -> impl Iterator<Item = Result<(u64, RecordBatch)>> {
    let mut start = 0;
    reader.map(move |batch| {
        let batch = batch.map_err(|error| {
            let entry = format!("rows from {start}");
            Error::data_entry(&path, entry, error.to_string(), "readable parquet")
        })?;
        let first = start;
        start += batch.num_rows() as u64;
        Ok((first, batch))
    })
}

/// `0`, `1`… up to the highest label of any file.
fn numbered_classes(files: &[ParquetFile], columns: &Columns) -> Result<Vec<String>> {
    let mut highest = 0;
    for file in files {
        for batch in file.batches_of(vec![&columns.label])? {
            let (start, batch) = batch?;
            for row in 0..batch.num_rows() {
                let location = Location::entry(&file.path(), format!("row {}", start + row as u64));
                highest = highest.max(label_at(&batch, &columns.label, row, MAX_CLASSES, &location)?);
            }
        }
    }
    Ok((0..=highest).map(|label| label.to_string()).collect())
}

/// The parquet files of a folder, or of its `data/`, in sorted order.
fn files_of(root: &Path) -> Result<Vec<ParquetFile>> {
    for prefix in ["", "data/"] {
        let folder = root.join(prefix);
        if !folder.is_dir() {
            continue;
        }
        let files: Vec<_> = list(&folder)?
            .into_iter()
            .filter(|entry| !entry.is_dir && is_parquet(&entry.path))
            .map(|entry| ParquetFile::on_disk(format!("{prefix}{}", entry.name), entry.path))
            .collect();
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

pub(in crate::dataset) fn unreadable(path: &Path, error: &ParquetError) -> Error {
    Error::data(path, error.to_string(), "a parquet file")
}

#[cfg(test)]
mod tests;
