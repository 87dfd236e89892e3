//! The output folder: new, empty, or left by an earlier `limbeck vectors`; nothing else is ever written over.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::artefact::write_json;
use crate::error::{Error, Result};

/// Says that a folder is one of ours.
const MARKER: &str = "limbeck-vectors.json";

/// The student.
pub(super) const STUDENT: &str = "student.safetensors";

/// Every figure, the null rule and the intervals among them.
pub(super) const EVALUATION: &str = "evaluation.json";

/// Files that a run may leave; those of an earlier run that this one does not write are removed.
const FILES: [&str; 11] = [
    "config.toml",
    "ledger.csv",
    "poison_truth.csv",
    "purified.csv",
    "purified.parquet",
    "undefended.safetensors",
    "dae.safetensors",
    "teacher.safetensors",
    STUDENT,
    EVALUATION,
    "report.html",
];

/// A folder that may be written to.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Whether a folder was written by `limbeck vectors`.
    pub(super) fn is_ours(path: &Path) -> bool {
        path.join(MARKER).is_file()
    }

    /// Looks at a folder without changing anything; `inputs` are files that must outlive the run.
    ///
    /// # Errors
    /// [`Error::Data`] for a folder that holds something else, and for an input that would be written over.
    pub(super) fn check(path: &Path, inputs: &[PathBuf]) -> Result<Self> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => Some(entries),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let is_occupied = entries.is_some_and(|mut entries| entries.next().is_some());
        if is_occupied && !Self::is_ours(path) {
            let expected = "a new or empty folder, or one of an earlier `limbeck vectors`";
            return Err(Error::data(path, "files that `limbeck vectors` did not write", expected));
        }
        for input in inputs {
            let own = FILES.iter().map(|name| path.join(name));
            let is_same = |file: PathBuf| matches!((file.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b);
            if own.into_iter().any(is_same) {
                let expected = "a copy elsewhere: the run would write over it";
                return Err(Error::data(input, "a file of the output folder", expected));
            }
        }
        Ok(Self(path.to_path_buf()))
    }

    /// A place for new files beside the folder, on the same disk; what lies in the folder stays until they are complete.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder above cannot be made or written to.
    pub(super) fn staging(&self) -> Result<Staging<'_>> {
        let parent = match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let files = tempfile::Builder::new().prefix(".limbeck-").tempdir_in(parent);
        Ok(Staging { files: files.map_err(Error::io("create", &self.0))?, folder: self })
    }
}

/// The files of a run that is being written; removed when dropped.
pub(super) struct Staging<'a> {
    files: TempDir,
    folder: &'a Folder,
}

impl Staging<'_> {
    /// A file of the run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        debug_assert!(FILES.contains(&name), "{name} would be left behind by a later run");
        self.files.path().join(name)
    }

    /// Makes the folder, marks it as ours, and puts the files in the place of those of an earlier run.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub(super) fn commit(self) -> Result<()> {
        let folder = &self.folder.0;
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let marker = serde_json::json!({ "limbeck_version": crate::VERSION, "command": "vectors" });
        write_json(&folder.join(MARKER), &marker)?;
        for name in FILES {
            let (new, path) = (self.files.path().join(name), folder.join(name));
            if new.exists() {
                std::fs::rename(&new, &path).map_err(Error::io("rename to", &path))?;
                continue;
            }
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Folder, name: &str) {
        let staging = folder.staging().expect("beside it");
        std::fs::write(staging.file(name), b"new").expect("written");
        staging.commit().expect("renamed");
    }

    #[test]
    fn a_folder_of_something_else_is_refused_and_an_own_one_is_cleared() {
        let above = tempfile::tempdir().expect("a folder");
        let path = &above.path().join("run");
        written(&Folder::check(path, &[]).expect("new"), "teacher.safetensors");
        std::fs::write(path.join("notes.txt"), b"mine").expect("written");
        let own = Folder::check(path, &[]).expect("ours");
        let staging = own.staging().expect("beside it");
        std::fs::write(staging.file(STUDENT), b"half").expect("written");
        drop(staging);
        assert!(path.join("teacher.safetensors").exists(), "what was there stays until the new files are");
        assert!(!path.join(STUDENT).exists());
        written(&own, STUDENT);
        assert!(path.join(STUDENT).exists() && !path.join("teacher.safetensors").exists());
        assert!(path.join("notes.txt").exists());
        assert_eq!(above.path().read_dir().expect("readable").count(), 1, "nothing is left beside it");
        std::fs::remove_file(path.join(MARKER)).expect("removed");
        let message = Folder::check(path, &[]).err().expect("no longer ours").to_string();
        assert!(message.contains("earlier `limbeck vectors`"), "{message}");
        assert!(path.join("notes.txt").exists());
    }

    #[test]
    fn an_input_that_would_be_written_over_is_refused() {
        let above = tempfile::tempdir().expect("a folder");
        let path = &above.path().join("run");
        written(&Folder::check(path, &[]).expect("new"), "purified.csv");
        assert!(Folder::check(path, &[path.join("purified.csv")]).is_err());
    }
}
