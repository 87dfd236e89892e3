//! From a source to a set: records are read one after another, decoded in parallel and pushed to
//! the pixel store chunk by chunk, so that no more than one chunk of encoded images is in memory.

use std::collections::HashSet;

use rayon::prelude::*;

use super::decode::decode_image;
use super::read::{Part, Record, Source};
use super::sample::{ImageSize, Sample};
use super::set::{Dataset, store_error};
use super::store::PixelWriter;
use crate::error::{Error, Result};

/// A chunk is full at this many records…
const CHUNK_RECORDS: usize = 512;
/// …or at this many bytes of encoded images.
const CHUNK_BYTES: usize = 32 << 20;

impl Dataset {
    /// Loads one part of a source, every image decoded and resized to `size`.
    ///
    /// `observer` hears the number of images done and, where known, their total: once before the
    /// first and after every chunk.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file and entry of an image or label that cannot be taken, of a
    /// second copy of a sample, of a source without that part, with an empty part or with fewer
    /// than two classes; [`Error::Io`] for what the system refuses.
    pub fn load(
        source: &Source,
        part: Part,
        size: ImageSize,
        observer: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Self> {
        let total = source.count(part);
        let mut records = source.records(part)?;
        if source.classes().len() < 2 {
            let found = format!("one class ({})", source.classes().join(", "));
            return Err(Error::data(source.path(), found, "at least two classes"));
        }
        observer(0, total);
        let mut loader = Loader::new(size, total)?;
        loop {
            let chunk = next_chunk(&mut records)?;
            if chunk.is_empty() {
                break;
            }
            loader.push(&chunk)?;
            observer(loader.samples.len() as u64, total);
        }
        if loader.samples.is_empty() {
            return Err(Error::data(source.path(), format!("an empty {part} part"), "images"));
        }
        let store = loader.writer.finish().map_err(store_error("write"))?;
        Self::over(loader.samples, source.classes().to_vec(), size, store)
    }
}

struct Loader {
    size: ImageSize,
    samples: Vec<Sample>,
    seen: HashSet<super::SampleId>,
    writer: PixelWriter,
}

impl Loader {
    fn new(size: ImageSize, total: Option<u64>) -> Result<Self> {
        let writer = PixelWriter::new(size.check()?.bytes(), total).map_err(store_error("create"))?;
        Ok(Self { size, samples: Vec::new(), seen: HashSet::new(), writer })
    }

    fn push(&mut self, chunk: &[Record]) -> Result<()> {
        let size = self.size;
        let decoded: Vec<_> = chunk
            .par_iter()
            .map(|record| {
                let pixels = decode_image(&record.bytes, record.roi, size, &record.location)?;
                Ok((record.id(), pixels))
            })
            .collect::<Vec<Result<_>>>();
        // In order, so that of several faults the first is always the one reported.
        for (record, decoded) in chunk.iter().zip(decoded) {
            let (id, pixels) = decoded?;
            if !self.seen.insert(id) {
                return Err(record
                    .location
                    .fault(format!("a second copy of {}", record.path), "each path and content once"));
            }
            self.writer.push(&pixels).map_err(store_error("write"))?;
            self.samples.push(Sample {
                id,
                path: record.path.clone(),
                label: record.label,
                group: record.group.clone(),
            });
        }
        Ok(())
    }
}

/// The next records up to a full chunk; none at the end.
fn next_chunk(records: &mut impl Iterator<Item = Result<Record>>) -> Result<Vec<Record>> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_RECORDS && bytes < CHUNK_BYTES {
        match records.next().transpose()? {
            Some(record) => {
                bytes += record.bytes.len();
                chunk.push(record);
            }
            None => break,
        }
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests;
