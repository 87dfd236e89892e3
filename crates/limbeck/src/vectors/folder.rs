//! The output folder: new, empty, or left by an earlier `limbeck vectors`; nothing else is ever written over.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::artefact;
use crate::error::{Error, Result};

/// Says that a folder is one of ours.
const MARKER: &str = "limbeck-vectors.json";

/// How the folder of files that are being written is called.
const HIDDEN: &str = ".limbeck-";

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

    /// Makes the folder, marks it as ours, and makes a hidden place in it for new files: what lies in the folder stays until they are complete.
    ///
    /// # Errors
    /// [`Error::Io`] where that cannot be made or written to; [`Error::Data`] where another run is at work.
    pub(super) fn staging(&self) -> Result<Staging> {
        let folder = &self.0;
        let made_folder = !folder.exists();
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (marker, made_marker) = (folder.join(MARKER), !Self::is_ours(folder));
        let file = File::options().write(true).create(true).truncate(false).open(&marker);
        let file = file.map_err(Error::io("write", &marker))?;
        artefact::lock(&file, folder, "another `limbeck vectors`", "one at a time")?;
        let mut staging =
            Staging { folder: folder.clone(), made_folder, made_marker, marker: file, files: None };
        let text = serde_json::json!({ "limbeck_version": crate::VERSION, "command": "vectors" }).to_string();
        let written = staging.marker.set_len(0).and_then(|()| staging.marker.write_all(text.as_bytes()));
        written.map_err(Error::io("write", &marker))?;
        let files = tempfile::Builder::new().prefix(HIDDEN).tempdir_in(folder);
        staging.files = Some(files.map_err(Error::io("create a folder in", folder))?);
        Ok(staging)
    }
}

/// The files of a run that is under way; removed when dropped, with what was made for them.
pub(super) struct Staging {
    folder: PathBuf,
    made_folder: bool,
    made_marker: bool,
    /// Locked, so that no other run works here.
    marker: File,
    /// `None` before it is made and when it is gone.
    files: Option<TempDir>,
}

impl Staging {
    /// A file of the run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        debug_assert!(FILES.contains(&name), "{name} would be left behind by a later run");
        self.hidden().join(name)
    }

    fn hidden(&self) -> &Path {
        self.files.as_ref().expect("only a drop takes it").path()
    }

    /// Puts the files in the place of those of an earlier run, and removes what that and runs that were killed have left.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub(super) fn commit(mut self) -> Result<()> {
        (self.made_folder, self.made_marker) = (false, false);
        for name in FILES {
            let (new, path) = (self.hidden().join(name), self.folder.join(name));
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
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))?;
        for entry in entries.flatten() {
            if entry.path().is_dir() && entry.file_name().to_string_lossy().starts_with(HIDDEN) {
                // Whatever stays is hidden and does no harm.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        drop(self.files.take());
        // Another error is on its way already; a folder that holds something else stays.
        if self.made_marker {
            let _ = std::fs::remove_file(self.folder.join(MARKER));
        }
        if self.made_folder {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Folder, name: &str) {
        let staging = folder.staging().expect("within it");
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
        let staging = own.staging().expect("within it");
        std::fs::write(staging.file(STUDENT), b"half").expect("written");
        drop(staging);
        assert!(path.join("teacher.safetensors").exists(), "what was there stays until the new files are");
        assert!(!path.join(STUDENT).exists());
        std::fs::create_dir(path.join(".limbeck-killed")).expect("made");
        written(&own, STUDENT);
        let mut left: Vec<_> =
            path.read_dir().expect("readable").flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, [MARKER, "notes.txt", STUDENT]);
        std::fs::remove_file(path.join(MARKER)).expect("removed");
        let message = Folder::check(path, &[]).err().expect("no longer ours").to_string();
        assert!(message.contains("earlier `limbeck vectors`"), "{message}");
        assert!(path.join("notes.txt").exists());
    }

    #[test]
    fn a_run_that_fails_leaves_no_folder_that_it_made() {
        let above = tempfile::tempdir().expect("a folder");
        let path = &above.path().join("deep/run");
        let folder = Folder::check(path, &[]).expect("new");
        let staging = folder.staging().expect("made");
        std::fs::write(staging.file(STUDENT), b"half").expect("written");
        assert!(Folder::is_ours(path), "a run that is killed here can be given again");
        let other = Folder::check(path, &[]).and_then(|folder| folder.staging().map(drop));
        assert!(other.expect_err("at work").to_string().contains("one at a time"));
        drop(staging);
        assert!(!path.exists());
        std::fs::create_dir(path).expect("made by somebody else");
        drop(Folder::check(path, &[]).expect("empty").staging().expect("made"));
        assert_eq!(path.read_dir().expect("it stays").count(), 0);
    }

    #[test]
    fn an_input_that_would_be_written_over_is_refused() {
        let above = tempfile::tempdir().expect("a folder");
        let path = &above.path().join("run");
        written(&Folder::check(path, &[]).expect("new"), "purified.csv");
        assert!(Folder::check(path, &[path.join("purified.csv")]).is_err());
    }
}
