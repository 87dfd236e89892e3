//! Sources of encoded, labelled images: one file for each layout, one table that lists them.
//!
//! A reader yields [`Record`]s one at a time and never decodes an image. What a layout accepts and
//! refuses stands at the top of its file.

mod cells;
mod embedded;
pub(super) mod folder;
pub(super) mod gtsrb_csv;
pub(super) mod parquet;
pub(super) mod parquet_schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::decode::{Location, Roi};
use super::sample::SampleId;
use super::write::Rewrite;
use crate::error::{Error, Result};

/// A part of a set, as its source names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What a model is trained on (and what an attacker may have poisoned).
    Train,
    /// Held out, in sources that have a part of that name (`validation`, `val`, `valid`).
    Validation,
    /// Held out for the final figures.
    Test,
}

impl Part {
    /// Every part, in the order in which they are copied.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The part that a folder or a word of a file name stands for, in any case.
    fn named(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validation" | "valid" | "val" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// One encoded image with what its source says of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Path in the source, with `/` between folders.
    pub path: String,
    /// Class index, below the number of classes of the source.
    pub label: u32,
    /// Images of one group are near-duplicates.
    pub group: Option<String>,
    /// The encoded image.
    pub bytes: Vec<u8>,
    /// The part of the image that counts, if not all.
    pub roi: Option<Roi>,
    /// Where it was found, for messages.
    pub location: Location,
}

impl Record {
    /// The id of the sample: that of its path and encoded bytes.
    pub fn id(&self) -> SampleId {
        SampleId::of(&self.path, &self.bytes)
    }
}

/// The records of one part, in the order of the source. Reading stops at the first error.
pub type Records = Box<dyn Iterator<Item = Result<Record>> + Send>;

/// Names of columns, for layouts that have columns of free names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceOptions {
    /// Column of the encoded image. Default `image`, as in Hugging Face `imagefolder` exports.
    pub image_column: String,
    /// Column of the class index. Default `label`, as in Hugging Face `imagefolder` exports.
    pub label_column: String,
    /// Column of the group. Default: `track` (the column of the GTSRB parquet copies) if there is
    /// one, else no groups.
    pub group_column: Option<String>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self { image_column: "image".to_owned(), label_column: "label".to_owned(), group_column: None }
    }
}

/// What every layout offers. Opening one lists its content and settles the classes.
pub(super) trait Layout: Send + Sync {
    /// Class names in label order.
    fn classes(&self) -> &[String];

    /// Number of images of a part; `None` if the source has no such part.
    fn count(&self, part: Part) -> Option<u64>;

    /// Every file on disk that belongs to it, tables and images of all parts.
    fn files(&self) -> Result<Vec<PathBuf>>;

    /// The records of a part that [`count`](Self::count) knows.
    fn records(&self, part: Part) -> Result<Records>;

    /// Copies that part in the layout's own schema, as `job` decides of each record.
    fn rewrite(&self, part: Part, job: &mut Rewrite<'_>) -> Result<()>;
}

/// A row of the table of readers.
struct Format {
    name: &'static str,
    accepts: &'static str,
    detect: fn(&Path) -> Result<bool>,
    open: fn(&Path, &SourceOptions) -> Result<Arc<dyn Layout>>,
}

/// The table of readers, the most specific first: the first that detects its layout opens it.
const FORMATS: [Format; 3] = [
    Format {
        name: "parquet",
        accepts: "Hugging Face parquet (a .parquet file, or a folder with .parquet files in it or \
                  in its data/)",
        detect: parquet::detect,
        open: |path, options| Ok(Arc::new(parquet::ParquetLayout::open(path, options)?)),
    },
    Format {
        name: "gtsrb csv",
        accepts: "GTSRB csv (a folder with Train.csv, or class folders with GT-*.csv)",
        detect: gtsrb_csv::detect,
        open: |path, _| Ok(Arc::new(gtsrb_csv::CsvLayout::open(path)?)),
    },
    Format {
        name: "image folder",
        accepts: "image folder (a folder for each class, below train/ and test/ or at the top)",
        detect: folder::detect,
        open: |path, _| Ok(Arc::new(folder::FolderLayout::open(path)?)),
    },
];

/// A set of encoded images on disk, or the sample that is built in.
#[derive(Clone)]
pub struct Source {
    layout: Arc<dyn Layout>,
    format: &'static str,
    path: PathBuf,
}

impl Source {
    /// Opens a set, whatever its layout, with the default [`SourceOptions`].
    ///
    /// # Errors
    /// [`Error::Io`] if the path is missing; [`Error::Data`] if no layout is recognised (the
    /// message says what was found and which layouts there are) or its content is inconsistent.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &SourceOptions::default())
    }

    /// As [`open`](Self::open), with names of columns.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Data`] if a named column is missing.
    pub fn open_with(path: impl AsRef<Path>, options: &SourceOptions) -> Result<Self> {
        let path = path.as_ref();
        std::fs::metadata(path).map_err(Error::io("open", path))?;
        for format in &FORMATS {
            if (format.detect)(path)? {
                let layout = (format.open)(path, options)?;
                return Ok(Self { layout, format: format.name, path: path.to_path_buf() });
            }
        }
        let accepted: Vec<_> = FORMATS.iter().map(|format| format.accepts).collect();
        Err(Error::data(path, describe(path)?, format!("one of: {}", accepted.join("; "))))
    }

    /// The built-in sample of GTSRB: 43 classes of traffic signs, 1,938 training images in tracks
    /// and 516 test images of 32 x 32 pixels.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no room for a temporary copy of 6 MB.
    pub fn embedded() -> Result<Self> {
        let layout = Arc::new(embedded::open()?);
        Ok(Self { layout, format: "embedded", path: PathBuf::from("embedded sample") })
    }

    /// Name of the layout: `parquet`, `gtsrb csv`, `image folder` or `embedded`.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// What was opened; `embedded sample` for the built-in one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hash over path, length and time of change of every file of the source: who keeps a copy of
    /// the whole of it, columns and parts that nobody reads included, sees by this that it is old.
    /// The built-in one never changes.
    ///
    /// # Errors
    /// [`Error::Io`] names the file that cannot be looked at.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for path in self.layout.files()? {
            let found = std::fs::metadata(&path).map_err(Error::io("look at", &path))?;
            let changed = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let name = path.as_os_str().as_encoded_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            hasher.update(&found.len().to_le_bytes());
            hasher.update(&changed.unwrap_or_default().as_nanos().to_le_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        self.layout.classes()
    }

    /// Number of images of a part; `None` if the source has no such part.
    pub fn count(&self, part: Part) -> Option<u64> {
        self.layout.count(part)
    }

    /// The parts that the source has.
    pub fn parts(&self) -> Vec<Part> {
        Part::ALL.into_iter().filter(|&part| self.count(part).is_some()).collect()
    }

    /// The records of a part in the order of the source, read as they are asked for.
    ///
    /// # Errors
    /// [`Error::Data`] if the source has no such part. The iterator yields [`Error::Io`] and
    /// [`Error::Data`] for an entry that cannot be read.
    pub fn records(&self, part: Part) -> Result<Records> {
        self.require(part)?;
        self.layout.records(part)
    }

    /// As [`Layout::rewrite`], of a part that must exist.
    pub(super) fn rewrite(&self, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
        self.require(part)?;
        self.layout.rewrite(part, job)
    }

    fn require(&self, part: Part) -> Result<()> {
        if self.count(part).is_some() {
            return Ok(());
        }
        let parts: Vec<_> = self.parts().iter().map(Part::to_string).collect();
        Err(Error::data(&self.path, format!("the parts {}", parts.join(", ")), format!("a part {part}")))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("format", &self.format)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// What lies at a path that no reader knows, in a few words.
fn describe(path: &Path) -> Result<String> {
    if !path.is_dir() {
        return Ok("a single file".to_owned());
    }
    let entries = list(path)?;
    if entries.is_empty() {
        return Ok("an empty folder".to_owned());
    }
    let names: Vec<_> = entries.iter().take(5).map(|entry| entry.name.as_str()).collect();
    let more = if entries.len() > names.len() { ", …" } else { "" };
    Ok(format!("a folder of {} entries ({}{more})", entries.len(), names.join(", ")))
}

/// An entry of a folder.
struct Entry {
    name: String,
    path: PathBuf,
    is_dir: bool,
}

/// The visible entries of a folder, sorted by name. Names that begin with a dot are left out, as
/// are the `__MACOSX` folders that zip files bring; a name that is not UTF-8 is refused.
fn list(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::data(&path, "a name that is not UTF-8", "a UTF-8 file name"));
        };
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        let is_dir = std::fs::metadata(&path).map_err(Error::io("read", &path))?.is_dir();
        entries.push(Entry { name: name.to_owned(), path, is_dir });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The track `CCCCC_TTTTT` (class and track number) that a GTSRB path tells: from the file name
/// `CCCCC_TTTTT_FFFFF.ext` of the Kaggle layout or `CCCCC/TTTTT_FFFFF.ext` of the official one.
/// Frames of one track are near-duplicates.
fn gtsrb_track(path: &str) -> Option<String> {
    let mut parts = path.rsplit('/');
    let stem = parts.next()?.split('.').next()?;
    let fields: Vec<_> = stem.split('_').collect();
    let (class, track, frame) = match fields[..] {
        [class, track, frame] => (class, track, frame),
        [track, frame] => (parts.next()?, track, frame),
        _ => return None,
    };
    let is_number = |field: &str| field.len() == 5 && field.bytes().all(|b| b.is_ascii_digit());
    [class, track, frame].into_iter().all(is_number).then(|| format!("{class}_{track}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn each_layout_is_detected_by_its_own_reader_and_no_earlier_one() {
        for (index, fixture) in testing::one_of_each_layout().iter().enumerate() {
            for (row, format) in FORMATS.iter().enumerate().take(index + 1) {
                let detected = (format.detect)(fixture.path()).expect("readable");
                assert_eq!(detected, row == index, "{} on fixture {index}", format.name);
            }
            assert_eq!(Source::open(fixture.path()).expect("valid").format(), FORMATS[index].name);
        }
    }

    #[test]
    fn an_unknown_layout_names_what_was_found_and_every_layout() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("notes.txt"), "x").expect("writable");
        let error = Source::open(folder.path()).expect_err("no layout").to_string();
        assert!(error.contains("notes.txt"), "{error}");
        for format in &FORMATS {
            assert!(error.contains(format.accepts), "{error}");
        }
        let missing = Source::open(folder.path().join("gone")).expect_err("missing").to_string();
        assert!(missing.contains("cannot open") && missing.contains("gone"), "{missing}");
    }

    #[test]
    fn the_fingerprint_sees_that_a_file_was_written() {
        for fixture in testing::one_of_each_layout() {
            let source = Source::open(fixture.path()).expect("valid");
            let before = source.fingerprint().expect("readable");
            assert_eq!(source.fingerprint().expect("readable"), before);
            let last = source.layout.files().expect("listed").pop().expect("a file");
            let yesterday = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
            let file = std::fs::File::options().append(true).open(&last).expect("writable");
            file.set_modified(yesterday).expect("touched");
            assert_ne!(source.fingerprint().expect("readable"), before, "{}", last.display());
        }
    }

    #[test]
    fn every_layout_names_its_files() {
        for fixture in testing::one_of_each_layout() {
            let source = Source::open(fixture.path()).expect("valid");
            let files = source.layout.files().expect("listed");
            let images: u64 = source.parts().into_iter().filter_map(|part| source.count(part)).sum();
            let least = if source.format() == "parquet" { 1 } else { images as usize };
            assert!(files.len() >= least && files.iter().all(|file| file.is_file()), "{files:?}");
        }
        let embedded = Source::embedded().expect("built in");
        assert_eq!(embedded.layout.files().expect("none"), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_part_that_is_not_there_is_an_error_naming_those_that_are() {
        let fixture = &testing::one_of_each_layout()[2];
        let source = Source::open(fixture.path()).expect("valid");
        let Err(error) = source.records(Part::Validation) else { panic!("no such part") };
        assert!(error.to_string().contains("train, test"), "{error}");
    }

    #[test]
    fn the_track_is_read_from_gtsrb_paths_only() {
        assert_eq!(gtsrb_track("Train/20/00020_00003_00029.png").as_deref(), Some("00020_00003"));
        assert_eq!(gtsrb_track("Images/00020/00003_00029.ppm").as_deref(), Some("00020_00003"));
        for other in
            ["20/00003_00029.png", "00020_00003.png", "00020_00003_0002.png", "a0020_00003_00029.png", ""]
        {
            assert_eq!(gtsrb_track(other), None, "{other}");
        }
    }
}
