//! The output folder: new, empty, or left by an earlier `limbeck vectors`; nothing else is ever written over.

use std::path::{Path, PathBuf};

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

    /// Makes the folder, marks it as ours, and removes what an earlier run left.
    pub(super) fn claim(&self) -> Result<()> {
        std::fs::create_dir_all(&self.0).map_err(Error::io("create", &self.0))?;
        let marker = serde_json::json!({ "limbeck_version": crate::VERSION, "command": "vectors" });
        write_json(&self.0.join(MARKER), &marker)?;
        for name in FILES {
            let path = self.0.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A file of the run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        debug_assert!(FILES.contains(&name), "{name} would be left behind by a later run");
        self.0.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_refused_and_an_own_one_is_cleared() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let own = Folder::check(path, &[]).expect("empty");
        own.claim().expect("marked");
        std::fs::write(own.file("teacher.safetensors"), b"old").expect("written");
        std::fs::write(path.join("notes.txt"), b"mine").expect("written");
        Folder::check(path, &[]).expect("ours").claim().expect("marked");
        assert!(!path.join("teacher.safetensors").exists() && path.join("notes.txt").exists());
        std::fs::remove_file(path.join(MARKER)).expect("removed");
        let message = Folder::check(path, &[]).err().expect("no longer ours").to_string();
        assert!(message.contains("earlier `limbeck vectors`"), "{message}");
        assert!(path.join("notes.txt").exists());
    }

    #[test]
    fn an_input_that_would_be_written_over_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Folder::check(folder.path(), &[]).expect("empty");
        own.claim().expect("marked");
        let input = own.file("purified.csv");
        std::fs::write(&input, b"x").expect("written");
        assert!(Folder::check(folder.path(), &[input]).is_err());
    }
}
