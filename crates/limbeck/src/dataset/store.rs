//! Pixels of many equal-sized images: in memory up to [`MEMORY_LIMIT`] bytes, beyond that in an
//! unlinked temporary file, so that memory stays bounded for a set of any size.
//!
//! A store is written once, in order, and then read at random from any thread.

use std::fs::File;
use std::io::{self, BufWriter, Write};

/// Bytes of pixels kept in memory by one store: 256 MiB, 87,381 images of 32 x 32.
pub(super) const MEMORY_LIMIT: usize = 256 << 20;

/// A finished store of images of `image_bytes` bytes each.
#[derive(Debug)]
pub(super) struct PixelStore {
    image_bytes: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Memory(Vec<u8>),
    File(SharedFile),
}

impl PixelStore {
    /// A store over images that are already in memory, one after another.
    pub(super) fn from_memory(image_bytes: usize, pixels: Vec<u8>) -> Self {
        Self { image_bytes, backing: Backing::Memory(pixels) }
    }

    /// Fills `out` (one image long) with image `row`.
    pub(super) fn read(&self, row: usize, out: &mut [u8]) -> io::Result<()> {
        debug_assert_eq!(out.len(), self.image_bytes, "one image at a time");
        let start = row * self.image_bytes;
        match &self.backing {
            Backing::Memory(pixels) => {
                out.copy_from_slice(&pixels[start..start + self.image_bytes]);
                Ok(())
            }
            Backing::File(file) => file.read_exact_at(out, start as u64),
        }
    }

    #[cfg(test)]
    fn is_on_disk(&self) -> bool {
        matches!(self.backing, Backing::File(_))
    }
}

/// Takes images in order and becomes a [`PixelStore`].
pub(super) struct PixelWriter {
    image_bytes: usize,
    limit: usize,
    count: usize,
    memory: Vec<u8>,
    spill: Option<BufWriter<File>>,
}

impl PixelWriter {
    /// A writer that expects about `expected` images: it goes to disk at once when so many would
    /// not fit in [`MEMORY_LIMIT`], and otherwise reserves exactly their room.
    pub(super) fn new(image_bytes: usize, expected: Option<u64>) -> io::Result<Self> {
        Self::with_limit(image_bytes, expected, MEMORY_LIMIT)
    }

    fn with_limit(image_bytes: usize, expected: Option<u64>, limit: usize) -> io::Result<Self> {
        let expected_bytes = expected.unwrap_or(0).saturating_mul(image_bytes as u64);
        let mut writer = Self { image_bytes, limit, count: 0, memory: Vec::new(), spill: None };
        if expected_bytes > limit as u64 {
            writer.spill()?;
        } else {
            writer.memory.reserve_exact(expected_bytes as usize);
        }
        Ok(writer)
    }

    /// Images taken so far, the row of the next one.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Appends one image of `image_bytes` bytes.
    pub(super) fn push(&mut self, image: &[u8]) -> io::Result<()> {
        debug_assert_eq!(image.len(), self.image_bytes, "one image at a time");
        if self.spill.is_none() && self.memory.len() + image.len() > self.limit {
            self.spill()?;
        }
        match &mut self.spill {
            Some(file) => file.write_all(image)?,
            None => self.memory.extend_from_slice(image),
        }
        self.count += 1;
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        file.write_all(&std::mem::take(&mut self.memory))?;
        self.spill = Some(file);
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn finish(self) -> io::Result<PixelStore> {
        let backing = match self.spill {
            Some(file) => Backing::File(SharedFile::new(file.into_inner()?)),
            None => Backing::Memory(self.memory),
        };
        Ok(PixelStore { image_bytes: self.image_bytes, backing })
    }
}

/// A file that many threads read at once.
#[cfg(unix)]
#[derive(Debug)]
struct SharedFile(File);

#[cfg(unix)]
impl SharedFile {
    fn new(file: File) -> Self {
        Self(file)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, out, offset)
    }
}

/// A file that many threads read in turn, where the system has no portable positioned read.
#[cfg(not(unix))]
#[derive(Debug)]
struct SharedFile(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl SharedFile {
    fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // A reader that panicked left at worst another position, and each read seeks first.
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(row: u8) -> [u8; 6] {
        [row, row ^ 1, row ^ 2, row ^ 3, 255 - row, 7]
    }

    fn filled(expected: Option<u64>, limit: usize, count: u8) -> PixelStore {
        let mut writer = PixelWriter::with_limit(6, expected, limit).expect("temporary file");
        (0..count).for_each(|row| writer.push(&image(row)).expect("room"));
        assert_eq!(writer.count(), usize::from(count));
        writer.finish().expect("room")
    }

    fn assert_holds(store: &PixelStore, count: u8) {
        for row in (0..count).rev() {
            let mut out = [0; 6];
            store.read(usize::from(row), &mut out).expect("written row");
            assert_eq!(out, image(row));
        }
    }

    #[test]
    fn memory_holds_up_to_the_limit_and_disk_beyond_it_with_the_same_content() {
        let at_limit = filled(None, 60, 10);
        assert!(!at_limit.is_on_disk());
        assert_holds(&at_limit, 10);
        let beyond = filled(None, 60, 11);
        assert!(beyond.is_on_disk());
        assert_holds(&beyond, 11);
    }

    #[test]
    fn a_set_known_to_be_too_large_starts_on_disk() {
        let store = filled(Some(100), 60, 3);
        assert!(store.is_on_disk());
        assert_holds(&store, 3);
    }

    #[test]
    fn threads_read_one_store_at_once() {
        let store = filled(None, 0, 200);
        std::thread::scope(|scope| {
            (0..4).for_each(|_| {
                scope.spawn(|| assert_holds(&store, 200));
            });
        });
    }

    #[test]
    fn a_row_beyond_the_end_of_a_file_is_an_error() {
        let store = filled(None, 0, 2);
        assert!(store.read(2, &mut [0; 6]).is_err());
    }
}
