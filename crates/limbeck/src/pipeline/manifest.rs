//! `manifest.json`: which stages are done, with which inputs, and the hashes of their files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{self, hash_file, read_json, write_json};
use crate::error::{Error, Result};

const FILE: &str = "manifest.json";

/// Locked while a run is at work in its folder.
const LOCK: &str = ".lock";

/// What a run directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of limbeck that wrote it.
    pub limbeck_version: String,
    /// What kind of run it is; `None` of one that has not begun, and of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// By stage name.
    pub stages: BTreeMap<String, StageRecord>,
}

/// A finished stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRecord {
    /// Hash of everything that the stage depends on.
    pub inputs: String,
    /// BLAKE3 of each file it wrote, by path below the run directory.
    pub files: BTreeMap<String, String>,
}

/// What a run does about its training set; a folder holds runs of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It audits it first.
    Audited,
    /// It distils from all of it as it is.
    AsIs,
}

impl Manifest {
    /// Reads the manifest of a run directory, or starts one for an empty or missing folder; writes nothing.
    ///
    /// # Errors
    /// Refuses a folder that holds something else, so that nothing of the user's is overwritten.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        if path.exists() {
            return read_json(&path);
        }
        let occupied = match std::fs::read_dir(directory) {
            Ok(mut entries) => entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io("read", directory)(error)),
        };
        if occupied {
            return Err(Error::data(
                directory,
                "files that are no limbeck run",
                "a new or empty folder, or a run directory",
            ));
        }
        Ok(Self { limbeck_version: crate::VERSION.to_owned(), kind: None, stages: BTreeMap::new() })
    }

    /// Makes the folder, and keeps other runs out of it until what is returned is dropped.
    ///
    /// # Errors
    /// [`Error::Data`] where another run is at work in it.
    pub fn lock(directory: &Path) -> Result<File> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        let path = directory.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::io("write", &path))?;
        artefact::lock(&file, directory, "another run", "one at a time, or a folder for each")?;
        Ok(file)
    }

    /// Every audit begins with the undefended classifier, and nothing but an audit makes one.
    fn is_audited(&self) -> bool {
        self.kind.map_or_else(|| self.stages.contains_key("undefended"), |kind| kind == Kind::Audited)
    }

    /// Whether a set was distilled as it is.
    pub(super) fn is_as_is(&self) -> bool {
        let is_taught = || self.stages.contains_key("teacher") && !self.is_audited();
        self.kind.map_or_else(is_taught, |kind| kind == Kind::AsIs)
    }

    /// Refuses to mix a run with an audit and one without in one folder: each would write over the other's student.
    ///
    /// # Errors
    /// [`Error::Data`] names the folder and what it holds.
    pub(super) fn refuse_other_kind(&self, directory: &Path, kind: Kind) -> Result<()> {
        let (found, expected) = match kind {
            Kind::Audited if self.is_as_is() => (
                "a set that was distilled as it is (--as-is)",
                "another folder for a run with an audit; its student is measured by `limbeck evaluate FOLDER`, and shown by `limbeck report FOLDER`",
            ),
            Kind::AsIs if self.is_audited() => {
                ("a run with an audit", "another folder for a set that is distilled as it is (--as-is)")
            }
            _ => return Ok(()),
        };
        Err(Error::data(directory, found, expected))
    }

    /// Writes the manifest, making the folder if need be.
    pub fn save(&mut self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        crate::VERSION.clone_into(&mut self.limbeck_version);
        write_json(&directory.join(FILE), self)
    }

    /// Whether the stage was finished with these inputs, wrote all of `outputs`, and its files are as it left them.
    pub fn is_done(&self, directory: &Path, stage: &str, inputs: &str, outputs: &[&str]) -> Result<bool> {
        let Some(record) = self.stages.get(stage).filter(|record| record.inputs == inputs) else {
            return Ok(false);
        };
        // An earlier version of the stage may have written less.
        let is_recorded = |output: &&str| record.files.keys().any(|file| Path::new(file).starts_with(output));
        if !outputs.iter().all(is_recorded) {
            return Ok(false);
        }
        for (file, hash) in &record.files {
            let path = directory.join(file);
            if !path.is_file() || hash_file(&path)? != *hash {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records a finished stage and the hashes of its files; folders are recorded file by file.
    pub fn record(&mut self, directory: &Path, stage: &str, inputs: &str, outputs: &[&str]) -> Result<()> {
        let mut files = BTreeMap::new();
        for output in outputs {
            collect(directory, Path::new(output), &mut files)?;
        }
        self.stages.insert(stage.to_owned(), StageRecord { inputs: inputs.to_owned(), files });
        self.save(directory)
    }
}

fn collect(directory: &Path, relative: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    let path = directory.join(relative);
    if path.is_dir() {
        for entry in std::fs::read_dir(&path).map_err(Error::io("read", &path))? {
            let entry = entry.map_err(Error::io("read", &path))?;
            collect(directory, &relative.join(entry.file_name()), files)?;
        }
        return Ok(());
    }
    files.insert(relative.to_string_lossy().into_owned(), hash_file(&path)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_is_at_work_in_a_folder() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("run");
        let lock = Manifest::lock(&folder).expect("nobody else");
        let error = Manifest::lock(&folder).expect_err("locked").to_string();
        assert!(error.contains("run") && error.contains("another run at work"), "{error}");
        drop(lock);
        drop(Manifest::lock(&folder).expect("free again"));
        assert!(Manifest::open(&folder).is_ok(), "what locked an empty folder is nobody's work");
    }

    #[test]
    fn a_folder_holds_a_run_with_an_audit_or_one_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut manifest = Manifest::open(folder.path()).expect("empty");
        manifest.refuse_other_kind(folder.path(), Kind::Audited).expect("nothing is done yet");
        manifest.record(folder.path(), "teacher", "key", &[]).expect("written");
        let mut manifest = Manifest::open(folder.path()).expect("read");
        manifest.refuse_other_kind(folder.path(), Kind::AsIs).expect("its own kind");
        let error =
            manifest.refuse_other_kind(folder.path(), Kind::Audited).expect_err("as it is").to_string();
        assert!(error.contains("--as-is") && error.contains("another folder"), "{error}");
        manifest.record(folder.path(), "undefended", "key", &[]).expect("written");
        let error = manifest.refuse_other_kind(folder.path(), Kind::AsIs).expect_err("audited").to_string();
        assert!(error.contains("found a run with an audit"), "{error}");
    }

    #[test]
    fn a_run_that_has_finished_no_stage_has_its_kind_already() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut manifest = Manifest::open(folder.path()).expect("empty");
        assert!(!manifest.is_as_is() && !manifest.is_audited());
        for (kind, other) in [(Kind::AsIs, Kind::Audited), (Kind::Audited, Kind::AsIs)] {
            manifest.kind = Some(kind);
            manifest.save(folder.path()).expect("written");
            let manifest = Manifest::open(folder.path()).expect("read");
            assert_eq!(
                (manifest.is_as_is(), manifest.is_audited()),
                (kind == Kind::AsIs, other == Kind::AsIs)
            );
            manifest.refuse_other_kind(folder.path(), kind).expect("its own kind");
            manifest.refuse_other_kind(folder.path(), other).expect_err("the other kind");
        }
    }
}
