//! Edited copies of a source in its own schema: a purified set, or a poisoned one.
//!
//! A copy is written to a hidden folder beside its destination and renamed at the end: an error, or
//! a kill, leaves no half-written set under the destination's name. What an edit does in each
//! layout stands at the top of that layout's file.

mod cells;
pub(super) mod folder;
pub(super) mod gtsrb_csv;
mod names;
pub(super) mod parquet;
mod staging;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use self::staging::Staging;
pub(crate) use self::staging::refuse_below;
use super::decode::png_size;
use super::read::{Part, Record, Source};
use super::sample::SampleId;
use crate::error::{Error, Result};

/// What becomes of one sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// It is copied as it is.
    Keep,
    /// It is left out.
    Drop,
    /// It is copied with another image, another label or both.
    Replace {
        /// The new image, encoded as PNG.
        image: Option<Vec<u8>>,
        /// The new class index.
        label: Option<u32>,
    },
}

/// A sample that was replaced, so that records kept by id can follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Id in the source.
    pub before: SampleId,
    /// Id in the copy. The same where neither path nor image changed.
    pub after: SampleId,
    /// Path in the copy.
    pub path: String,
}

/// What a copy holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RewriteSummary {
    /// Samples copied as they were.
    pub kept: u64,
    /// Samples left out.
    pub dropped: u64,
    /// Samples copied with another image or label.
    pub replaced: u64,
    /// The replaced samples, in the order of the source.
    pub changes: Vec<Change>,
}

/// Copies one part of a source to the folder `destination`, each sample as `edit` says of its id,
/// its path and its label. The built-in sample is copied as parquet.
///
/// # Errors
/// [`Error::Data`] if the source has no such part or one of its entries cannot be read, if the
/// destination is there and not an empty folder, or lies inside the source; [`Error::Input`] for a
/// replaced image that is no PNG or a label that is no class; [`Error::Io`]; and whatever `edit`
/// returns. After an error the destination is as it was.
pub fn rewrite(
    source: &Source,
    part: Part,
    destination: &Path,
    edit: &mut dyn FnMut(&SampleId, &str, u32) -> Result<Edit>,
) -> Result<RewriteSummary> {
    let staging = Staging::new(source, destination)?;
    let summary = rewrite_into(source, part, &staging, edit)?;
    staging.commit()?;
    Ok(summary)
}

/// As [`rewrite`] of the training part, with every other part of the source copied as it is, so
/// that the copy is a complete set. The summary is that of the training part.
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_all(
    source: &Source,
    destination: &Path,
    train_edit: &mut dyn FnMut(&SampleId, &str, u32) -> Result<Edit>,
) -> Result<RewriteSummary> {
    let staging = Staging::new(source, destination)?;
    let summary = rewrite_into(source, Part::Train, &staging, train_edit)?;
    for part in source.parts().into_iter().filter(|&part| part != Part::Train) {
        rewrite_into(source, part, &staging, &mut |_, _, _| Ok(Edit::Keep))?;
    }
    staging.commit()?;
    Ok(summary)
}

fn rewrite_into(
    source: &Source,
    part: Part,
    staging: &Staging,
    edit: &mut dyn FnMut(&SampleId, &str, u32) -> Result<Edit>,
) -> Result<RewriteSummary> {
    let mut job =
        Rewrite { root: staging.path(), classes: source.classes(), edit, summary: RewriteSummary::default() };
    source.rewrite(part, &mut job)?;
    Ok(job.summary)
}

/// One copy under way: where it is written, and what becomes of each sample.
pub(super) struct Rewrite<'a> {
    root: &'a Path,
    classes: &'a [String],
    edit: &'a mut dyn FnMut(&SampleId, &str, u32) -> Result<Edit>,
    summary: RewriteSummary,
}

impl Rewrite<'_> {
    /// Class names of the source.
    fn classes(&self) -> &[String] {
        self.classes
    }

    /// Asks what becomes of a record, checks the answer and counts it. A replacement by nothing is
    /// answered as [`Edit::Keep`].
    fn decide(&mut self, record: &Record) -> Result<Edit> {
        let edit = match (self.edit)(&record.id(), &record.path, record.label)? {
            Edit::Replace { image: None, label: None } => Edit::Keep,
            edit => edit,
        };
        match &edit {
            Edit::Keep => self.summary.kept += 1,
            Edit::Drop => self.summary.dropped += 1,
            Edit::Replace { image, label } => {
                image.as_deref().map(png_size).transpose()?;
                label.map(|label| self.check_label(record, label)).transpose()?;
                self.summary.replaced += 1;
            }
        }
        Ok(edit)
    }

    /// Notes under which path and content a replaced record now stands.
    fn replaced(&mut self, record: &Record, path: String, content: &[u8]) {
        let after = SampleId::of(&path, content);
        self.summary.changes.push(Change { before: record.id(), after, path });
    }

    fn check_label(&self, record: &Record, label: u32) -> Result<()> {
        if (label as usize) < self.classes.len() {
            return Ok(());
        }
        Err(Error::input(
            "rewrite",
            format!("label {label} for {}", record.path),
            format!("below the {} classes", self.classes.len()),
        ))
    }

    /// Creates a folder of the copy, and those above it.
    fn create_folder(&self, relative: &str) -> Result<()> {
        let path = self.root.join(relative);
        std::fs::create_dir_all(&path).map_err(Error::io("create", path))
    }

    /// Creates a file of the copy, and the folders above it. A file that is there is an error.
    fn create(&self, relative: &str) -> Result<(PathBuf, File)> {
        if let Some((folder, _)) = relative.rsplit_once('/') {
            self.create_folder(folder)?;
        }
        let path = self.root.join(relative);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        Ok((path, file))
    }

    /// Writes a whole file of the copy.
    fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        let (path, mut file) = self.create(relative)?;
        file.write_all(bytes).map_err(Error::io("write", path))
    }
}

#[cfg(test)]
mod tests;
