//! The sample that is built into the library, so that a first run needs no download.
//!
//! Where it comes from and how it was made stands in `data/README.md` of this crate.

use super::SourceOptions;
use super::parquet::{ParquetFile, ParquetLayout};
use crate::error::Result;

static TRAIN: &[u8] = include_bytes!("../../../data/gtsrb-sample-train.parquet");
static TEST: &[u8] = include_bytes!("../../../data/gtsrb-sample-test.parquet");

/// The sample under the file names that a copy of it gets on disk.
pub(super) fn open() -> Result<ParquetLayout> {
    let files = vec![
        ParquetFile::embedded("train-00000-of-00001.parquet", TRAIN),
        ParquetFile::embedded("test-00000-of-00001.parquet", TEST),
    ];
    ParquetLayout::over(files, &SourceOptions::default())
}
