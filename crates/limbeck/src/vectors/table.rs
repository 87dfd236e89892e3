//! Tables of numbers on disk: which columns are features, which are targets, and copies with rows edited.
//!
//! A `.csv` file (comma, semicolon or tab, told by the header) or a `.parquet` file. Feature columns are all columns but the target and the
//! ignored ones, in file order; each of their cells is a finite number. A parquet column `x` whose cells are lists of n numbers is the n features `x[0]` to `x[n − 1]`. Target cells
//! are text or numbers. A copy keeps format, columns and order, and lists as lists; a row that is kept has the same cells to the byte.
//!
//! Refused, naming file, row (from 1, the header not counted) and column: a feature that is no finite number, a list of another length than the others of its column, lists of anything but
//! numbers, an empty target, a target that is a list, two columns of one name, a missing target, a target that never varies, fewer than 20 rows.

use std::path::{Path, PathBuf};

use super::csv_file::CsvFile;
use super::parquet_file::{ListLength, ParquetFile};
use crate::artefact::write_atomically;
use crate::error::{Error, Result};

/// The fewest rows of a table that is split into test, trusted and audited rows.
const LEAST_ROWS: usize = 20;

/// What the columns of a table are; see [`VectorData`](super::VectorData).
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Columns to predict.
    pub target: &'a [String],
    /// Columns that are carried along.
    pub ignore: &'a [String],
}

/// A table with its features as numbers and its targets as text.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    original: Original,
    /// Places of the feature columns among those of the file, lists spread.
    features: Vec<usize>,
    /// Places of the target columns likewise.
    targets: Vec<usize>,
    /// Row by row.
    values: Vec<f64>,
}

/// A table as its format has it.
#[derive(Clone, Debug)]
enum Original {
    Csv(CsvFile),
    Parquet(ParquetFile),
}

/// What becomes of a row in a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum RowEdit {
    /// The same cells.
    Keep,
    /// Left out.
    Drop,
    /// Its features, in the order of [`Table::features`], replaced.
    Features(Vec<f64>),
    /// Its targets, in the order of [`Table::targets`], replaced.
    Targets(Vec<String>),
}

/// A new cell.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Text(String),
}

/// What becomes of a row: `None` = dropped, else the cells that change, with their columns.
pub(super) type CellEdits = Option<Vec<(usize, Cell)>>;

impl Original {
    /// `asked` are columns that it is to have: they tell how a csv file is separated.
    fn read(path: &Path, asked: &[String]) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let original = match ending.as_deref() {
            Some("csv") => Self::Csv(CsvFile::read(path, asked)?),
            Some("parquet") => Self::Parquet(ParquetFile::read(path)?),
            _ => return Err(Error::data(path, "another kind of file", "a table: .csv or .parquet")),
        };
        if original.rows() == 0 {
            return Err(Error::data(path, "no data rows", "at least one"));
        }
        Ok(original)
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Csv(file) => file.names().to_vec(),
            Self::Parquet(file) => file.names(),
        }
    }

    fn columns(&self) -> usize {
        match self {
            Self::Csv(file) => file.names().len(),
            Self::Parquet(file) => file.columns(),
        }
    }

    /// The same with a column for each place of the lists of those columns that `length` gives a length.
    fn spread(self, length: impl Fn(&str) -> Option<ListLength>) -> Result<Self> {
        Ok(match self {
            Self::Csv(file) => Self::Csv(file),
            Self::Parquet(file) => Self::Parquet(file.spread(length)?),
        })
    }

    fn rows(&self) -> usize {
        match self {
            Self::Csv(file) => file.rows(),
            Self::Parquet(file) => file.rows(),
        }
    }

    /// A cell's text, or what is there instead.
    fn text(&self, row: usize, column: usize) -> std::result::Result<String, String> {
        match self {
            Self::Csv(file) => Ok(file.cell(row, column).to_owned()),
            Self::Parquet(file) => file.text(row, column),
        }
    }

    /// A cell's finite number, or what is there instead.
    fn number(&self, row: usize, column: usize) -> std::result::Result<f64, String> {
        let text = self.text(row, column)?;
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Err(text.trim().to_owned()),
            Err(_) if text.trim().is_empty() => Err("an empty cell".to_owned()),
            Err(_) => Err(format!("the text `{}`", shortened(text.trim()))),
        }
    }

    fn edited(&self, edits: &[CellEdits]) -> Result<Self> {
        Ok(match self {
            Self::Csv(file) => Self::Csv(file.edited(edits)?),
            Self::Parquet(file) => Self::Parquet(file.edited(edits)?),
        })
    }
}

/// The beginning of a text that may be long.
fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST).collect::<String>() + "…"
    }
}

/// Whether a feature is a place of the lists of a column.
fn is_place_of(feature: &str, column: &str) -> bool {
    let place = feature.strip_prefix(column).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
    place.is_some_and(|place| place.parse::<usize>().is_ok())
}

/// The first of many names.
pub(super) fn listed(names: &[String]) -> String {
    const MOST: usize = 12;
    let (first, more) = names.split_at(names.len().min(MOST));
    let first = first.join(", ");
    if more.is_empty() { first } else { format!("{first} and {} more", more.len()) }
}

impl Table {
    /// Reads a table of at least 20 rows whose targets vary.
    ///
    /// # Errors
    /// Refuses by file, row and column whatever is not a table of finite numbers with its targets.
    pub fn read(path: &Path, columns: Columns<'_>) -> Result<Self> {
        let table = Self::read_part(path, columns)?;
        if table.rows() < LEAST_ROWS {
            let expected = format!("at least {LEAST_ROWS} rows");
            return Err(Error::data(
                path,
                match table.rows() {
                    1 => "1 data row".to_owned(),
                    rows => format!("{rows} data rows"),
                },
                expected,
            ));
        }
        for (place, name) in table.targets().iter().enumerate() {
            let first = table.target(0, place);
            if (1..table.rows()).all(|row| table.target(row, place) == first) {
                let found = format!("`{}` in every row", shortened(&first));
                let column = format!("column `{name}`");
                return Err(Error::data_entry(path, column, found, "a target that varies"));
            }
        }
        Ok(table)
    }

    /// Reads a table of any number of rows but none: of trusted or of test rows alone.
    ///
    /// # Errors
    /// Refuses by file, row and column whatever is not a table of finite numbers with its targets.
    pub fn read_part(path: &Path, columns: Columns<'_>) -> Result<Self> {
        let original = Original::read(path, &[columns.target, columns.ignore].concat())?;
        check_names(path, &original.names(), columns)?;
        let is_named = |name: &str| columns.target.iter().chain(columns.ignore).any(|other| other == name);
        let original = original.spread(|name| (!is_named(name)).then_some(ListLength::OfTheFirst))?;
        let names = original.names();
        check_names(path, &names, columns)?;
        let place = |name: &String| names.iter().position(|other| other == name);
        let targets: Vec<usize> = columns.target.iter().filter_map(place).collect();
        let is_feature = |at: &usize| !targets.contains(at) && !columns.ignore.contains(&names[*at]);
        let features: Vec<usize> = (0..names.len()).filter(is_feature).collect();
        if features.is_empty() {
            return Err(Error::data(path, "no column but targets and ignored ones", "at least one feature"));
        }
        Self::of(path.to_path_buf(), original, features, targets)
    }

    /// Reads these feature columns, in this order, of a table that may have others; it has no targets.
    ///
    /// Features `x[0]` to `x[n − 1]` are columns of these names, or one column `x` of lists of n numbers.
    ///
    /// # Errors
    /// Names file and column of a feature that is not there, and by row and column what is no finite number and lists of another length.
    pub fn read_features(path: &Path, names: &[String]) -> Result<Self> {
        let original = Original::read(path, names)?;
        let found = original.names();
        check_names(path, &found, Columns { target: &[], ignore: &[] })?;
        let missing: Vec<&String> = names.iter().filter(|name| !found.contains(name)).collect();
        let original = original.spread(|column| {
            let places = missing.iter().filter(|name| is_place_of(name, column)).count();
            (places > 0).then_some(ListLength::Of(places))
        })?;
        let found = original.names();
        check_names(path, &found, Columns { target: &[], ignore: &[] })?;
        let place = |name: &String| {
            let missing = || {
                let columns = format!("columns {}", listed(&found));
                Error::data(path, columns, format!("the feature column `{name}`"))
            };
            found.iter().position(|other| other == name).ok_or_else(missing)
        };
        let features = names.iter().map(place).collect::<Result<_>>()?;
        Self::of(path.to_path_buf(), original, features, Vec::new())
    }

    fn of(path: PathBuf, original: Original, features: Vec<usize>, targets: Vec<usize>) -> Result<Self> {
        let names = original.names();
        let refused = |row: usize, column: usize, found: String, expected: &str| {
            Error::data_entry(&path, format!("row {}, column `{}`", row + 1, names[column]), found, expected)
        };
        let mut values = Vec::with_capacity(original.rows() * features.len());
        for row in 0..original.rows() {
            for &column in &features {
                // A table without targets is one that is asked about: its features are the network's.
                let expected = match targets.is_empty() {
                    true => "a finite number",
                    false => "a finite number, or --ignore for a column that is no feature",
                };
                let number = original.number(row, column);
                values.push(number.map_err(|found| refused(row, column, found, expected))?);
            }
            for &column in &targets {
                let text =
                    original.text(row, column).map_err(|found| refused(row, column, found, "a target"))?;
                if text.trim().is_empty() {
                    return Err(refused(row, column, "an empty cell".to_owned(), "a target"));
                }
            }
        }
        Ok(Self { path, original, features, targets, values })
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Data rows.
    pub fn rows(&self) -> usize {
        self.original.rows()
    }

    /// Names of the feature columns, in file order.
    pub fn features(&self) -> Vec<String> {
        let names = self.original.names();
        self.features.iter().map(|&column| names[column].clone()).collect()
    }

    /// Names of the target columns, in the order that they were asked for.
    pub fn targets(&self) -> Vec<String> {
        let names = self.original.names();
        self.targets.iter().map(|&column| names[column].clone()).collect()
    }

    /// Features of a row, in their own units.
    pub fn values(&self, row: usize) -> &[f64] {
        let features = self.features.len();
        &self.values[row * features..][..features]
    }

    /// A target of a row as text; whole numbers have one form, whether they are written `3` or `3.0`.
    pub fn target(&self, row: usize, place: usize) -> String {
        let text = self.original.text(row, self.targets[place]).unwrap_or_default();
        let text = text.trim();
        match text.parse::<f64>() {
            Ok(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{}", number as i64),
            _ => text.to_owned(),
        }
    }

    /// A target of a row as a number.
    ///
    /// # Errors
    /// Names file, row and column of what is no finite number.
    pub fn quantity(&self, row: usize, place: usize) -> Result<f64> {
        let column = self.targets[place];
        self.original.number(row, column).map_err(|found| {
            let entry = format!("row {}, column `{}`", row + 1, self.original.names()[column]);
            Error::data_entry(&self.path, entry, found, "a finite number, the target of a regression")
        })
    }

    /// Row number, from 1, and the BLAKE3 of the row's cells: names a row in the ledger.
    pub fn id(&self, row: usize) -> String {
        let mut hasher = blake3::Hasher::new();
        for column in 0..self.original.columns() {
            hasher.update(self.original.text(row, column).unwrap_or_default().as_bytes()).update(&[0x1f]);
        }
        format!("{}-{}", row + 1, &hasher.finalize().to_hex()[..16])
    }

    /// A copy in the same format, with one edit for each row.
    ///
    /// A column of whole numbers stays one: in csv if `keep_whole`, in parquet in any case, where it is the column's type. A column of lists stays one, of the same lengths.
    ///
    /// # Errors
    /// [`Error::Input`] for edits or cells of another number; [`Error::Data`] for what the column's type cannot hold.
    pub fn edited(&self, edits: &[RowEdit], keep_whole: bool) -> Result<Self> {
        let refused = |found: String, expected: String| Error::input("edit a table", found, expected);
        if edits.len() != self.rows() {
            return Err(refused(
                format!("{} edits", edits.len()),
                format!("one for each of {} rows", self.rows()),
            ));
        }
        let whole: Vec<bool> =
            (0..self.features.len()).map(|place| keep_whole && self.is_whole(place)).collect();
        let cells = |edit: &RowEdit| -> Result<CellEdits> {
            Ok(Some(match edit {
                RowEdit::Keep => Vec::new(),
                RowEdit::Drop => return Ok(None),
                RowEdit::Features(values) if values.len() == self.features.len() => {
                    let value = |(place, value): (usize, &f64)| {
                        let value = if whole[place] { value.round() } else { *value };
                        (self.features[place], Cell::Number(value))
                    };
                    values.iter().enumerate().map(value).collect()
                }
                RowEdit::Targets(texts) if texts.len() == self.targets.len() => {
                    self.targets.iter().copied().zip(texts.iter().cloned().map(Cell::Text)).collect()
                }
                RowEdit::Features(_) | RowEdit::Targets(_) => {
                    let expected =
                        format!("{} features or {} targets", self.features.len(), self.targets.len());
                    return Err(refused("another number of cells".to_owned(), expected));
                }
            }))
        };
        let edits = edits.iter().map(cells).collect::<Result<Vec<_>>>()?;
        let original = self.original.edited(&edits)?;
        Self::of(self.path.clone(), original, self.features.clone(), self.targets.clone())
    }

    /// Whether a feature column holds whole numbers, written as such, alone.
    fn is_whole(&self, place: usize) -> bool {
        let column = self.features[place];
        let is_whole =
            |row| self.original.text(row, column).is_ok_and(|text| text.trim().parse::<i64>().is_ok());
        (0..self.rows()).all(is_whole)
    }

    /// Writes the table, atomically, in the format that it was read in.
    ///
    /// # Errors
    /// [`Error::Io`] as in [`write_atomically`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = match &self.original {
            Original::Csv(file) => file.bytes(),
            Original::Parquet(file) => file.bytes()?,
        };
        write_atomically(path, |out| out.write_all(&bytes).map_err(Error::io("write", path)))
    }

    /// The ending of its format, without a point.
    pub fn ending(&self) -> &'static str {
        match &self.original {
            Original::Csv(_) => "csv",
            Original::Parquet(_) => "parquet",
        }
    }
}

/// Refuses columns without a name or of one name, and asked-for columns that are not there.
fn check_names(path: &Path, names: &[String], columns: Columns<'_>) -> Result<()> {
    let expected = "columns of different names";
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() {
            let entry = format!("column {} of the header", at + 1);
            return Err(Error::data_entry(path, entry, "no name", "a name for each column"));
        }
        if names[..at].contains(name) {
            return Err(Error::data_entry(path, "header", format!("two columns named `{name}`"), expected));
        }
    }
    let known = || listed(names);
    for (what, asked) in [("target", columns.target), ("ignored", columns.ignore)] {
        if let Some(name) = asked.iter().find(|name| !names.contains(name)) {
            return Err(Error::data(
                path,
                format!("columns {}", known()),
                format!("the {what} column `{name}`"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
