//! Image folder in, image folder out.
//!
//! A kept file is copied byte for byte under its own path. A replaced image is written as `.png`; a
//! changed label moves the file to the folder of its new class. Where the new name is taken, a
//! number is added. Every class of the training part keeps its folder, even if nothing is left in
//! it: the labels of the others hang on it, and reading the copy then names the empty class.

use super::names::{Names, as_png};
use super::{Edit, Rewrite};
use crate::dataset::read::folder::FolderLayout;
use crate::dataset::read::{Part, Record};
use crate::error::Result;

/// Copies a part of a folder set.
pub(in crate::dataset) fn rewrite(layout: &FolderLayout, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
    let Some(folder) = layout.part(part) else {
        return Ok(());
    };
    if part == Part::Train {
        for class in job.classes() {
            job.create_folder(&format!("{}{class}", folder.prefix))?;
        }
    }
    let mut names = Names::new(folder.files.iter().map(|file| file.path.clone()));
    for file in &folder.files {
        let record = file.read(layout.root())?;
        match job.decide(&record)? {
            Edit::Keep => job.write(&record.path, &record.bytes)?,
            Edit::Drop => {}
            Edit::Replace { image, label } => {
                let mut path = match label {
                    Some(label) => moved(&record, &folder.prefix, label, job.classes()),
                    None => record.path.clone(),
                };
                if image.is_some() {
                    path = as_png(&path);
                }
                if path != record.path {
                    path = names.free(path);
                }
                let bytes = image.as_deref().unwrap_or(&record.bytes);
                job.write(&path, bytes)?;
                job.replaced(&record, path, bytes);
            }
        }
    }
    Ok(())
}

/// The path of a record below the folder of another class.
fn moved(record: &Record, prefix: &str, label: u32, classes: &[String]) -> String {
    let inside = &record.path[prefix.len() + classes[record.label as usize].len()..];
    format!("{prefix}{}{inside}", classes[label as usize])
}
