//! A folder that takes its name only when it is complete.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::artefact::HIDDEN;
use crate::dataset::read::Source;
use crate::error::{Error, Result};

/// A hidden folder beside `destination`; removed when dropped, renamed by [`commit`](Self::commit).
pub(super) struct Staging {
    folder: TempDir,
    destination: PathBuf,
}

impl Staging {
    /// Checks the destination (absent, or an empty folder, and not inside the source) and creates
    /// the hidden folder, and the folders above it.
    pub(super) fn new(source: &Source, destination: &Path) -> Result<Self> {
        refuse_occupied(destination)?;
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        refuse_inside(source.path(), parent, destination)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(HIDDEN);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new folder: the umask decides, not the privacy of temporary folders.
            builder.permissions(fs::Permissions::from_mode(0o777));
        }
        let folder = builder.tempdir_in(parent).map_err(Error::io("create", destination))?;
        Ok(Self { folder, destination: destination.to_path_buf() })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name. An empty folder in its place is replaced.
    pub(super) fn commit(self) -> Result<()> {
        refuse_occupied(&self.destination)?;
        if self.destination.is_dir() {
            let remove = fs::remove_dir(&self.destination);
            remove.map_err(Error::io("replace", &self.destination))?;
        }
        fs::rename(self.folder.path(), &self.destination)
            .map_err(Error::io("rename to", &self.destination))?;
        // Under its new name there is nothing left to remove.
        let _ = self.folder.keep();
        Ok(())
    }
}

/// Refuses a destination, made or not yet made, below the source.
pub(crate) fn refuse_below(source: &Path, destination: &Path) -> Result<()> {
    let destination = std::path::absolute(destination).map_err(Error::io("resolve", destination))?;
    let existing = destination.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    refuse_inside(source, existing, &destination)
}

fn refuse_occupied(destination: &Path) -> Result<()> {
    let found = if destination.is_dir() {
        let mut entries = fs::read_dir(destination).map_err(Error::io("list", destination))?;
        if entries.next().is_none() {
            return Ok(());
        }
        "a folder that is not empty"
    } else if destination.symlink_metadata().is_ok() {
        "a file"
    } else {
        return Ok(());
    };
    Err(Error::data(destination, found, "a new or empty folder to write to"))
}

/// Refuses a place below the source, where what is written would be read as part of it the next time; `parent` is an existing folder that the destination lies in.
fn refuse_inside(source: &Path, parent: &Path, destination: &Path) -> Result<()> {
    let parent = parent.canonicalize().map_err(Error::io("resolve", parent))?;
    match source.canonicalize() {
        Ok(source) if parent.starts_with(&source) => {
            Err(Error::data(destination, "a place inside the source", "a folder outside it"))
        }
        // The built-in sample has no path.
        _ => Ok(()),
    }
}
