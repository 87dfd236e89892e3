//! Files that limbeck writes and reads back: atomic writes, JSON, content hashes.
//!
//! A file is first written in full under a temporary name in the folder of its target, synced, and
//! only then renamed over it. Whoever reads the target sees the old file or the new one, never half
//! of either. A symbolic link at the target is replaced, not followed. The folder must exist.
//!
//! ```
//! use limbeck::artefact::{hash_file, read_json, write_json};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("epochs.json");
//! write_json(&path, &vec![1, 2, 3])?;
//! assert_eq!(read_json::<Vec<u32>>(&path)?, [1, 2, 3]);
//! assert_eq!(hash_file(&path)?.len(), 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Begins the names of folders that are not complete yet.
pub(crate) const HIDDEN: &str = ".limbeck-";

/// Writes a file in full or not at all.
///
/// `write` is given a buffered writer; it need not flush. When it fails, or the disk does, the
/// temporary file is removed and what was at `path` before stays as it was.
///
/// # Errors
/// Whatever `write` returns, and [`Error::Io`] naming `path` when the temporary file cannot be
/// created in its folder, filled, synced or renamed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut buffer = BufWriter::new(temporary_beside(path)?);
    write(&mut buffer)?;
    let file = buffer.into_inner().map_err(|failure| Error::io("write", path)(failure.into_error()))?;
    file.as_file().sync_all().map_err(Error::io("sync", path))?;
    file.persist(path).map_err(|failure| Error::io("rename a temporary file to", path)(failure.error))?;
    Ok(())
}

/// Writes `value` as indented JSON with a newline at the end, atomically.
///
/// JSON has no NaN and no infinity: `serde_json` writes both as `null`, which does not read back as
/// a number. Keep them out, or hold them in an `Option`.
///
/// # Errors
/// [`Error::Io`] as in [`write_atomically`], also when `value` has no JSON form (a map with keys
/// that are no strings).
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)
            .map_err(|failure| Error::io("write", path)(failure.into()))?;
        out.write_all(b"\n").map_err(Error::io("write", path))
    })
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Artefact`] with line and column when it is
/// not the JSON of a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|failure| {
        Error::artefact(path, failure.to_string(), format!("the JSON of a {}", std::any::type_name::<T>()))
    })
}

/// Keeps other processes out of what `file` stands for, until it is closed.
///
/// # Errors
/// [`Error::Data`] names `place`, that `others` (such as "another run") are at work in it, and what to do `instead`; [`Error::Io`] where the
/// file system locks nothing.
pub(crate) fn lock(file: &File, place: &Path, others: &str, instead: &str) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::data(place, format!("{others} at work in it"), instead)),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", place)(error)),
    }
}

/// BLAKE3 hash of a file's bytes, as 64 lower-case hexadecimal digits. Reads in pieces: memory
/// stays constant.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn hash_file(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(Error::io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A temporary file in the folder of `path`: a rename is atomic only inside one file system.
fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // Temporary files are 0600 by default; an artefact is an ordinary file, subject to the
        // user's umask.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder).map_err(Error::io("create a temporary file beside", path))
}

#[cfg(test)]
mod tests {
    use std::io;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn names_in(folder: &TempDir) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder.path())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() -> TestResult {
        let folder = tempdir()?;
        let path = folder.path().join("ledger.csv");
        fs::write(&path, "old")?;
        let outcome = write_atomically(&path, |out| {
            // More than the buffer holds, so that some of it reaches the temporary file.
            out.write_all(&[b'x'; 100_000]).map_err(Error::io("write", &path))?;
            Err(Error::io("write", &path)(io::ErrorKind::StorageFull.into()))
        });
        assert!(matches!(outcome, Err(Error::Io { operation: "write", .. })), "{outcome:?}");
        assert_eq!(fs::read_to_string(&path)?, "old");
        assert_eq!(names_in(&folder)?, ["ledger.csv"]);
        Ok(())
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() -> TestResult {
        let folder = tempdir()?;
        let path = folder.path().join("occupied");
        fs::create_dir(&path)?;
        let outcome = write_atomically(&path, |_| Ok(()));
        let Err(Error::Io { path: named, .. }) = outcome else { return Err("a folder was replaced".into()) };
        assert_eq!(named, path);
        assert_eq!(names_in(&folder)?, ["occupied"]);
        Ok(())
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() -> TestResult {
        let path = tempdir()?.path().join("gone").join("a.json");
        let Err(failure) = write_json(&path, &1) else {
            return Err("wrote into a folder that is not there".into());
        };
        assert!(failure.to_string().contains("a.json"), "{failure}");
        Ok(())
    }

    #[test]
    fn json_is_indented_ends_in_a_newline_and_reads_back() -> TestResult {
        let folder = tempdir()?;
        let path = folder.path().join("a.json");
        fs::write(&path, "something longer than what replaces it, to be overwritten in full")?;
        write_json(&path, &[("mse", 0.25)])?;
        assert_eq!(fs::read_to_string(&path)?, "[\n  [\n    \"mse\",\n    0.25\n  ]\n]\n");
        assert_eq!(read_json::<Vec<(String, f64)>>(&path)?, [("mse".to_owned(), 0.25)]);
        Ok(())
    }

    #[test]
    fn broken_json_is_an_artefact_error_that_gives_the_place() -> TestResult {
        let folder = tempdir()?;
        let path = folder.path().join("a.json");
        fs::write(&path, "[1,\n x]")?;
        let Err(failure) = read_json::<Vec<u32>>(&path) else { return Err("read broken JSON".into()) };
        assert!(matches!(failure, Error::Artefact { .. }));
        assert!(failure.to_string().contains("line 2 column 2"), "{failure}");
        Ok(())
    }

    #[test]
    fn the_hash_is_blake3() -> TestResult {
        let folder = tempdir()?;
        let path = folder.path().join("bytes");
        // First entry of the official test vectors (BLAKE3 repository, test_vectors.json, input_len 0).
        fs::write(&path, b"")?;
        assert_eq!(hash_file(&path)?, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        // Larger than one read: the pieces must add up to the whole.
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes)?;
        assert_eq!(hash_file(&path)?, blake3::hash(&bytes).to_hex().to_string());
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn an_artefact_gets_the_permissions_of_an_ordinary_file() -> TestResult {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempdir()?;
        let (ours, ordinary) = (folder.path().join("ours"), folder.path().join("ordinary"));
        write_atomically(&ours, |_| Ok(()))?;
        File::create(&ordinary)?;
        assert_eq!(fs::metadata(&ours)?.permissions().mode(), fs::metadata(&ordinary)?.permissions().mode());
        Ok(())
    }
}
