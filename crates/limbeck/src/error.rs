//! The one error type of the library.
//!
//! A variant names the operation, what was found and what was expected, so that a face (the
//! binary, a wheel) can print it without knowing where it came from. Messages are lower case and
//! carry no full stop.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, short of a bug of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried: "read", "create", "rename"…
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// An image set, or one image of it, is not what a reader can take.
    #[error("{}{}: found {found}, expected {expected}", path.display(), entry.as_deref().map(|e| format!(" ({e})")).unwrap_or_default())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The row, column or member inside the file.
        entry: Option<String>,
        /// What was there.
        found: String,
        /// What should have been there.
        expected: String,
    },
    /// A setting is unknown or out of its range.
    #[error("config key `{key}`: found {found}, expected {expected}")]
    Config {
        /// Dotted path of the key, as in `--set`.
        key: String,
        /// The value found.
        found: String,
        /// The values that are allowed.
        expected: String,
    },
    /// A tensor or array has the wrong shape or range at a public entry.
    #[error("{operation}: found {found}, expected {expected}")]
    Input {
        /// The function that refuses.
        operation: &'static str,
        /// What it was given.
        found: String,
        /// What it takes.
        expected: String,
    },
    /// A stored artefact (weights, ledger, manifest) does not fit its reader.
    #[error("artefact {}: found {found}, expected {expected}", path.display())]
    Artefact {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A computation left the finite numbers.
    #[error("{operation}: {found}")]
    Numeric {
        /// The computation.
        operation: &'static str,
        /// The value and where it appeared.
        found: String,
    },
    /// The caller asked to stop; what was finished is on disk.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An I/O failure of `operation` on `path`, for `map_err`.
    pub fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    /// A fault of a data file as a whole.
    pub fn data(path: impl AsRef<Path>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Data {
            path: path.as_ref().to_path_buf(),
            entry: None,
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// A fault of one entry (row, column, member) of a data file.
    pub fn data_entry(
        path: impl AsRef<Path>,
        entry: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Data {
            path: path.as_ref().to_path_buf(),
            entry: Some(entry.into()),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// A setting out of its range.
    pub fn config(key: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Config { key: key.into(), found: found.to_string(), expected: expected.into() }
    }

    /// An argument that a public function refuses.
    pub fn input(operation: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Input { operation, found: found.into(), expected: expected.into() }
    }

    /// An artefact that does not fit.
    pub fn artefact(path: impl AsRef<Path>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Artefact { path: path.as_ref().to_path_buf(), found: found.into(), expected: expected.into() }
    }
}
