//! GTSRB tables in, GTSRB tables out, with their images.
//!
//! Tables keep their columns, delimiter and place. A replaced image is written as `.png`, and its
//! row then says its whole size: `Width`, `Height` and a region that covers it. A changed label
//! changes `ClassId`; the file stays where it is, since the table says the class.

use std::path::Path;

use super::names::{Names, as_png};
use super::{Edit, Rewrite};
use crate::dataset::decode::png_size;
use crate::dataset::read::Part;
use crate::dataset::read::gtsrb_csv::{Columns, CsvLayout, Row, Table, TableReader};
use crate::error::{Error, Result};

/// Copies a part of a GTSRB tree.
pub(in crate::dataset) fn rewrite(layout: &CsvLayout, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
    let mut names = Names::new(image_paths(layout, part)?);
    for table in layout.tables(part) {
        rewrite_table(layout.root(), table, &mut names, job)?;
    }
    Ok(())
}

fn image_paths(layout: &CsvLayout, part: Part) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for table in layout.tables(part) {
        for row in TableReader::open(layout.root(), table)? {
            paths.push(row?.path);
        }
    }
    Ok(paths)
}

fn rewrite_table(root: &Path, table: &Table, names: &mut Names, job: &mut Rewrite<'_>) -> Result<()> {
    let rows = TableReader::open(root, table)?;
    let columns = rows.columns.clone();
    let (path, file) = job.create(&table.path)?;
    let failed = |error: csv::Error| Error::io("write", &path)(std::io::Error::other(error));
    let mut writer = csv::WriterBuilder::new().delimiter(rows.delimiter).from_writer(file);
    writer.write_record(&rows.header).map_err(failed)?;
    for row in rows {
        if let Some(fields) = copy_row(root, &row?, table, &columns, names, job)? {
            writer.write_record(&fields).map_err(failed)?;
        }
    }
    writer.flush().map_err(Error::io("write", &path))
}

/// Writes the image of a row; returns the fields of its new row, or `None` if it is dropped.
fn copy_row(
    root: &Path,
    row: &Row,
    table: &Table,
    columns: &Columns,
    names: &mut Names,
    job: &mut Rewrite<'_>,
) -> Result<Option<Vec<String>>> {
    let record = row.read(root)?;
    let mut fields: Vec<String> = row.fields.iter().map(str::to_owned).collect();
    match job.decide(&record)? {
        Edit::Drop => return Ok(None),
        Edit::Keep => job.write(&row.path, &record.bytes)?,
        Edit::Replace { image, label } => {
            let mut path = row.path.clone();
            if let Some(label) = label {
                fields[columns.label] = label.to_string();
            }
            if let Some(png) = &image {
                path = as_png(&path);
                if path != row.path {
                    path = names.free(path);
                }
                fields[columns.name] = path[table.base.len()..].to_owned();
                cover(&mut fields, columns, png)?;
            }
            let bytes = image.as_deref().unwrap_or(&record.bytes);
            job.write(&path, bytes)?;
            job.replaced(&record, path, bytes);
        }
    }
    Ok(Some(fields))
}

/// Makes a row say that all of the image counts.
fn cover(fields: &mut [String], columns: &Columns, png: &[u8]) -> Result<()> {
    let size = png_size(png)?;
    fields[columns.width] = size.width.to_string();
    fields[columns.height] = size.height.to_string();
    for (&column, value) in columns.roi.iter().zip([0, 0, size.width, size.height]) {
        fields[column] = value.to_string();
    }
    Ok(())
}
