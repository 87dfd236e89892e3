//! GTSRB with its annotation tables, in the Kaggle and in the official layout.
//!
//! | layout | tables | images |
//! | --- | --- | --- |
//! | Kaggle | `Train.csv`, `Test.csv`, fields apart by `,` | `Path`, relative to the root |
//! | official | `<class>/GT-<class>.csv` and `GT-final_test.csv`, apart by `;` | `Filename`, beside the table |
//!
//! The official tables are looked for in the root, in `Final_Training/Images` and in
//! `Final_Test/Images`; a test table without `ClassId` (the one handed out during the contest) is
//! no test part. The region of interest, in pixels and half-open, is what counts of an image. The
//! group is the track, from the file name `CCCCC_TTTTT_FFFFF` (Kaggle) or from class folder and
//! file name `CCCCC/TTTTT_FFFFF` (official). Classes are named by their number.
//!
//! Refused, naming the line: a missing field, a number that is none, a path that is absolute or
//! leaves the set.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::StringRecord;

use super::{Layout, Part, Record, Records, gtsrb_track, list};
use crate::dataset::decode::{Location, Roi};
use crate::dataset::write::Rewrite;
use crate::error::{Error, Result};

/// A class number beyond this is taken for a damaged table and not for so many classes.
const MAX_CLASS: u32 = 65_535;

/// Whether `path` is a folder with annotation tables of either layout.
pub(super) fn detect(path: &Path) -> Result<bool> {
    Ok(path.is_dir() && !tables(path)?.is_empty())
}

/// A GTSRB tree whose tables are listed.
pub(in crate::dataset) struct CsvLayout {
    root: PathBuf,
    classes: Vec<String>,
    tables: BTreeMap<Part, Vec<Table>>,
    counts: BTreeMap<Part, u64>,
}

/// One annotation table.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct Table {
    /// Relative to the root, with `/` between folders.
    pub(in crate::dataset) path: String,
    /// The folder that image names are relative to, relative to the root; empty or ending in `/`.
    pub(in crate::dataset) base: String,
    part: Part,
}

/// Where each field stands in the rows of a table.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct Columns {
    pub(in crate::dataset) name: usize,
    pub(in crate::dataset) label: usize,
    pub(in crate::dataset) width: usize,
    pub(in crate::dataset) height: usize,
    /// `Roi.X1`, `Roi.Y1`, `Roi.X2`, `Roi.Y2`.
    pub(in crate::dataset) roi: [usize; 4],
}

/// One row of a table, its image not yet read.
pub(in crate::dataset) struct Row {
    pub(in crate::dataset) fields: StringRecord,
    pub(in crate::dataset) path: String,
    pub(in crate::dataset) label: u32,
    roi: Roi,
    location: Location,
}

/// A table being read.
pub(in crate::dataset) struct TableReader {
    pub(in crate::dataset) header: StringRecord,
    pub(in crate::dataset) delimiter: u8,
    pub(in crate::dataset) columns: Columns,
    reader: csv::Reader<File>,
    file: Arc<Path>,
    base: String,
}

impl CsvLayout {
    /// Lists the tables and reads them once, for the classes and the counts.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let mut by_part: BTreeMap<Part, Vec<Table>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        let mut highest = 0;
        for table in tables(root)? {
            let count = counts.entry(table.part).or_insert(0);
            for row in TableReader::open(root, &table)? {
                highest = highest.max(row?.label);
                *count += 1;
            }
            by_part.entry(table.part).or_default().push(table);
        }
        let classes = (0..=highest).map(|class| class.to_string()).collect();
        Ok(Self { root: root.to_path_buf(), classes, tables: by_part, counts })
    }

    pub(in crate::dataset) fn root(&self) -> &Path {
        &self.root
    }

    pub(in crate::dataset) fn tables(&self, part: Part) -> &[Table] {
        self.tables.get(&part).map_or(&[], Vec::as_slice)
    }
}

impl Layout for CsvLayout {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn count(&self, part: Part) -> Option<u64> {
        self.counts.get(&part).copied()
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for table in self.tables.values().flatten() {
            files.push(self.root.join(&table.path));
            for row in TableReader::open(&self.root, table)? {
                files.push(self.root.join(row?.path));
            }
        }
        Ok(files)
    }

    fn records(&self, part: Part) -> Result<Records> {
        let root = self.root.clone();
        let readers = self
            .tables(part)
            .iter()
            .map(|table| TableReader::open(&self.root, table))
            .collect::<Result<Vec<_>>>()?;
        Ok(Box::new(readers.into_iter().flatten().map(move |row| row?.read(&root))))
    }

    fn rewrite(&self, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
        crate::dataset::write::gtsrb_csv::rewrite(self, part, job)
    }
}

impl Row {
    /// Reads the image of this row.
    pub(in crate::dataset) fn read(&self, root: &Path) -> Result<Record> {
        let path = root.join(&self.path);
        Ok(Record {
            path: self.path.clone(),
            label: self.label,
            group: gtsrb_track(&self.path),
            bytes: std::fs::read(&path).map_err(Error::io("read", &path))?,
            roi: Some(self.roi),
            location: self.location.clone(),
        })
    }
}

impl TableReader {
    /// Opens a table and finds its columns.
    pub(in crate::dataset) fn open(root: &Path, table: &Table) -> Result<Self> {
        let file: Arc<Path> = root.join(&table.path).into();
        let delimiter = delimiter(&file)?;
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .from_path(&file)
            .map_err(|error| csv_error(&file, &error))?;
        let header = reader.headers().map_err(|error| csv_error(&file, &error))?.clone();
        let columns = Columns::find(&header, &file)?;
        Ok(Self { header, delimiter, columns, reader, file, base: table.base.clone() })
    }

    fn parse(&self, fields: StringRecord) -> Result<Row> {
        let line = fields.position().map_or(0, csv::Position::line);
        let location = Location::entry(&self.file, format!("line {line}"));
        let number = |column: usize| {
            let text = fields.get(column).unwrap_or_default();
            text.parse::<u32>().map_err(|_| {
                let name = self.header.get(column).unwrap_or_default();
                location.fault(format!("{name} `{text}`"), "a whole number of 0 or more")
            })
        };
        let label = number(self.columns.label)?;
        if label > MAX_CLASS {
            return Err(location.fault(format!("class {label}"), format!("at most {MAX_CLASS}")));
        }
        let [x1, y1, x2, y2] = self.columns.roi.map(number);
        let roi = Roi { x1: x1?, y1: y1?, x2: x2?, y2: y2? };
        let name = fields.get(self.columns.name).unwrap_or_default();
        if !stays_inside(name) {
            return Err(location.fault(format!("the path `{name}`"), "a path inside the set"));
        }
        let path = format!("{}{name}", self.base);
        Ok(Row { path, label, roi, location, fields })
    }
}

impl Iterator for TableReader {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = StringRecord::new();
        match self.reader.read_record(&mut fields) {
            Ok(true) => Some(self.parse(fields)),
            Ok(false) => None,
            Err(error) => Some(Err(csv_error(&self.file, &error))),
        }
    }
}

impl Columns {
    fn find(header: &StringRecord, file: &Path) -> Result<Self> {
        let place = |wanted: &str| header.iter().position(|name| name == wanted);
        let require = |wanted: &str| {
            place(wanted).ok_or_else(|| {
                let found: Vec<_> = header.iter().collect();
                Error::data(file, format!("the columns {}", found.join(", ")), format!("a column {wanted}"))
            })
        };
        Ok(Self {
            name: place("Path").map_or_else(|| require("Filename"), Ok)?,
            label: require("ClassId")?,
            width: require("Width")?,
            height: require("Height")?,
            roi: [require("Roi.X1")?, require("Roi.Y1")?, require("Roi.X2")?, require("Roi.Y2")?],
        })
    }
}

/// The tables below a root, sorted; none if it is no GTSRB tree.
fn tables(root: &Path) -> Result<Vec<Table>> {
    let kaggle = kaggle_tables(root)?;
    if !kaggle.is_empty() {
        return Ok(kaggle);
    }
    let mut found = official_tables(root, "")?;
    for folder in ["Final_Training/Images/", "Final_Test/Images/"] {
        if root.join(folder).is_dir() {
            found.extend(official_tables(root, folder)?);
        }
    }
    Ok(found)
}

/// `Train.csv` and its companions, if they have a `Path` and a `Roi.X1` column.
fn kaggle_tables(root: &Path) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for entry in list(root)?.into_iter().filter(|entry| !entry.is_dir) {
        let part = entry.name.strip_suffix(".csv").and_then(Part::named);
        if let Some(part) = part
            && first_line(&entry.path)?.contains("Roi.X1")
        {
            tables.push(Table { path: entry.name, base: String::new(), part });
        }
    }
    let has_train = tables.iter().any(|table| table.part == Part::Train);
    Ok(if has_train { tables } else { Vec::new() })
}

/// `GT-*.csv` in the class folders of `folder`, and its own `GT-final_test.csv`.
fn official_tables(root: &Path, folder: &str) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for entry in list(&root.join(folder))? {
        if entry.is_dir {
            let base = format!("{folder}{}/", entry.name);
            let own = format!("GT-{}.csv", entry.name);
            if entry.path.join(&own).is_file() {
                tables.push(Table { path: format!("{base}{own}"), base, part: Part::Train });
            }
        } else if entry.name == "GT-final_test.csv" && first_line(&entry.path)?.contains("ClassId") {
            let path = format!("{folder}{}", entry.name);
            tables.push(Table { path, base: folder.to_owned(), part: Part::Test });
        }
    }
    Ok(tables)
}

fn delimiter(file: &Path) -> Result<u8> {
    Ok(if first_line(file)?.contains(';') { b';' } else { b',' })
}

/// The first line of a text file, at most 4 KiB of it.
fn first_line(file: &Path) -> Result<String> {
    use std::io::Read;
    let mut head = Vec::new();
    let opened = File::open(file).map_err(Error::io("open", file))?;
    opened.take(4096).read_to_end(&mut head).map_err(Error::io("read", file))?;
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Whether a path of a table has plain components only, and at least one.
fn stays_inside(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
    path.split('/').all(plain)
}

fn csv_error(file: &Path, error: &csv::Error) -> Error {
    match error.position() {
        Some(at) => Error::data_entry(
            file,
            format!("line {}", at.line()),
            error.to_string(),
            "a row of the annotation table",
        ),
        None => Error::data(file, error.to_string(), "an annotation table"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;
    use crate::dataset::testing::{KAGGLE_HEADER, OFFICIAL_HEADER, kaggle, png, write};
    use crate::dataset::{Dataset, ImageSize};

    #[test]
    fn the_kaggle_layout_gives_paths_labels_tracks_and_regions() {
        let root = kaggle();
        let source = Source::open(root.path()).expect("kaggle layout");
        assert_eq!(source.parts(), [Part::Train, Part::Test]);
        assert_eq!(source.classes(), ["0", "1"]);
        let records: Vec<_> =
            source.records(Part::Train).expect("train").map(|r| r.expect("readable")).collect();
        assert_eq!(records[1].path, "Train/1/00001_00002_00000.png");
        assert_eq!(records[1].label, 1);
        assert_eq!(records[1].group.as_deref(), Some("00001_00002"));
        assert_eq!(records[1].roi, Some(Roi { x1: 1, y1: 1, x2: 3, y2: 3 }));
        assert_eq!(source.count(Part::Train), Some(records.len() as u64));
    }

    #[test]
    fn the_official_layout_is_read_from_either_root() {
        let root = tempfile::tempdir().expect("temporary folder");
        for (class, track) in [(0, 0), (1, 5)] {
            let folder = format!("Final_Training/Images/{class:05}");
            let name = format!("{track:05}_00000.ppm");
            write(root.path(), &format!("{folder}/{name}"), &png(class));
            let row = format!("{OFFICIAL_HEADER}\r\n{name};4;4;1;1;3;3;{class}\r\n");
            write(root.path(), &format!("{folder}/GT-{class:05}.csv"), row.as_bytes());
        }
        let test = "Final_Test/Images";
        write(root.path(), &format!("{test}/00000.ppm"), &png(7));
        let row = format!("{OFFICIAL_HEADER}\r\n00000.ppm;4;4;0;0;4;4;1\r\n");
        write(root.path(), &format!("{test}/GT-final_test.csv"), row.as_bytes());

        let source = Source::open(root.path()).expect("official layout");
        assert_eq!(source.parts(), [Part::Train, Part::Test]);
        let records: Vec<_> =
            source.records(Part::Train).expect("train").map(|r| r.expect("readable")).collect();
        assert_eq!(records[0].path, "Final_Training/Images/00000/00000_00000.ppm");
        assert_eq!(records[1].group.as_deref(), Some("00001_00005"));
        let images = root.path().join("Final_Training/Images");
        assert_eq!(Source::open(images).expect("official layout").parts(), [Part::Train]);
    }

    #[test]
    fn only_the_region_of_interest_is_loaded() {
        let root = kaggle();
        let source = Source::open(root.path()).expect("kaggle layout");
        let size = ImageSize { width: 2, height: 2 };
        let set = Dataset::load(&source, Part::Train, size, &mut |_, _| {}).expect("loads");
        // `png(seed)` is 4 x 4 with red = seed + 4 y + x; the region is columns and rows 1..3.
        assert_eq!(set.pixels(0).expect("first")[..4], [5, 6, 9, 10]);
    }

    #[test]
    fn faulty_rows_are_refused_with_their_line() {
        let cases = [
            ("4,4,1,1,3,3,x,Train/0.png", "ClassId `x`"),
            ("4,4,-1,1,3,3,0,Train/0.png", "Roi.X1 `-1`"),
            ("4,4,1,1,3,3,0,../0.png", "`../0.png`"),
            ("4,4,1,1,3,3,0,/etc/passwd", "`/etc/passwd`"),
            ("4,4,1,1,3,3,0", "fields"),
            ("4,4,1,1,3,3,4000000000,Train/0.png", "class 4000000000"),
        ];
        for (row, message) in cases {
            let root = tempfile::tempdir().expect("temporary folder");
            let good = "4,4,1,1,3,3,0,Train/1.png";
            let table = format!("{KAGGLE_HEADER}\n{good}\n{row}\n");
            write(root.path(), "Train.csv", table.as_bytes());
            let error = Source::open(root.path()).expect_err(row).to_string();
            assert!(error.contains(message) && error.contains("line 3"), "{error}");
        }
    }

    #[test]
    fn a_region_outside_the_image_is_refused_when_decoded() {
        let root = kaggle();
        let row = "4,4,1,1,5,3,0,Train/0/00000_00001_00000.png";
        let other = "4,4,1,1,3,3,1,Train/1/00001_00002_00000.png";
        let table = format!("{KAGGLE_HEADER}\n{row}\n{other}\n");
        write(root.path(), "Train.csv", table.as_bytes());
        let source = Source::open(root.path()).expect("kaggle layout");
        let error = Dataset::load(&source, Part::Train, ImageSize::default(), &mut |_, _| {})
            .expect_err("region leaves the image")
            .to_string();
        assert!(error.contains("line 2") && error.contains("1..5"), "{error}");
    }

    #[test]
    fn a_table_without_a_column_names_it() {
        let root = tempfile::tempdir().expect("temporary folder");
        write(root.path(), "Train.csv", b"Width,Height,Roi.X1,ClassId,Path\n");
        let error = Source::open(root.path()).expect_err("no Roi.Y1").to_string();
        assert!(error.contains("a column Roi.Y1"), "{error}");
    }
}
