//! `manifest.json`: which stages are done, with which inputs, and the hashes of their files.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::artefact::{hash_file, read_json, write_json};
use crate::error::{Error, Result};

const FILE: &str = "manifest.json";

/// What a run directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of limbeck that wrote it.
    pub limbeck_version: String,
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
            Ok(mut entries) => entries.next().is_some(),
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
        Ok(Self { limbeck_version: crate::VERSION.to_owned(), stages: BTreeMap::new() })
    }

    /// Writes the manifest, making the folder if need be.
    pub fn save(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
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
