//! Labelled images: reading them from disk, splitting them, writing edited copies.
//!
//! A [`Source`] is a set of encoded images on disk in one of several layouts (image folder, Hugging
//! Face parquet, GTSRB csv), or the sample that is built in. [`Dataset::load`] decodes one
//! [`Part`] of it to RGB8 pixels of one size; [`Split::draw`] keeps calibration images apart from
//! training images, whole groups at a time; [`rewrite`] copies a source in its own schema, with
//! samples dropped, relabelled or replaced.
//!
//! Every sample has an id of its path and bytes ([`SampleId`]). Pixels are kept in memory up to
//! 256 MiB and in a temporary file beyond that; encoded images are read as a stream.
//!
//! ```
//! use limbeck::dataset::{Dataset, ImageSize, Part, Source, Split, SplitConfig, TestPart};
//!
//! let source = Source::embedded()?;
//! let set = Dataset::load(&source, Part::Train, ImageSize::default(), &mut |_done, _total| {})?;
//! assert_eq!(set.classes()[14], "Stop");
//!
//! let split = Split::draw(&set, &SplitConfig::default(), TestPart::of(&source), 0)?;
//! let batch = set.batch_f32(&split.train[..8])?; // [8, 3, 32, 32] in [0, 1]
//! assert_eq!(batch.len(), 8 * 3 * 32 * 32);
//! # Ok::<(), limbeck::Error>(())
//! ```

mod decode;
mod load;
mod read;
mod sample;
mod set;
mod split;
mod store;
#[cfg(test)]
mod testing;
mod write;

pub(crate) use self::decode::shrunk;
pub use self::decode::{Location, MAX_DECODED, Roi, decode_image, encode_png};
pub use self::read::{Part, Record, Records, Source, SourceOptions};
pub use self::sample::{ImageSize, MAX_SIDE, Sample, SampleId};
pub use self::set::Dataset;
pub use self::split::{Split, SplitConfig, TestPart, group_folds};
pub(crate) use self::write::refuse_below;
pub use self::write::{Change, Edit, RewriteSummary, rewrite, rewrite_all};
