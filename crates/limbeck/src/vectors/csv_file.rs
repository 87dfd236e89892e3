//! A csv file with the bytes of each row, so that a row that is kept is copied and not written anew.

use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, StringRecord, Terminator, WriterBuilder};

use super::table::{Cell, CellEdits};
use crate::error::{Error, Result};

/// A csv file in memory.
#[derive(Clone, Debug)]
pub(super) struct CsvFile {
    path: PathBuf,
    /// The header's bytes, its line end among them.
    header: Vec<u8>,
    names: Vec<String>,
    delimiter: u8,
    rows: Vec<Row>,
}

/// One row: its bytes as they stand in the file, its line end among them, and what they say.
#[derive(Clone, Debug)]
struct Row {
    bytes: Vec<u8>,
    cells: StringRecord,
}

impl CsvFile {
    /// Reads a whole file; `asked` are columns that it is to have.
    pub(super) fn read(path: &Path, asked: &[String]) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::parse(path, &bytes, asked)
    }

    fn parse(path: &Path, bytes: &[u8], asked: &[String]) -> Result<Self> {
        let delimiter = delimiter_of(bytes, asked);
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(bytes);
        let (mut starts, mut records) = (Vec::new(), Vec::new());
        let mut record = ByteRecord::new();
        loop {
            let start = reader.position().byte() as usize;
            let row = format!("row {}", records.len());
            let unreadable = |found: String| Error::data_entry(path, row.clone(), found, "a row of csv");
            if !reader.read_byte_record(&mut record).map_err(|error| unreadable(error.to_string()))? {
                break;
            }
            let text = StringRecord::from_byte_record(record.clone())
                .map_err(|_| unreadable("bytes that are no UTF-8".to_owned()))?;
            // The reader ends a row at the first byte of CR LF.
            let is_split = bytes[..start].ends_with(b"\r") && bytes[start..].starts_with(b"\n");
            starts.push(start + usize::from(is_split));
            records.push(text);
        }
        let ends = starts.iter().copied().skip(1).chain([bytes.len()]);
        let slices: Vec<Vec<u8>> =
            starts.iter().zip(ends).map(|(&start, end)| bytes[start..end].to_vec()).collect();
        let mut rows = slices.into_iter().zip(records).map(|(bytes, cells)| Row { bytes, cells });
        let Some(header) = rows.next() else {
            return Err(Error::data(path, "an empty file", "a header and data rows"));
        };
        let file = Self {
            path: path.to_path_buf(),
            names: header.cells.iter().map(column_name).collect(),
            header: header.bytes,
            delimiter,
            rows: rows.collect(),
        };
        let columns = file.names.len();
        match file.rows.iter().position(|row| row.cells.len() != columns) {
            Some(row) => {
                let found = format!("{} cells", file.rows[row].cells.len());
                let expected = format!("{columns}, one for each column of the header");
                Err(Error::data_entry(path, format!("row {}", row + 1), found, expected))
            }
            None => Ok(file),
        }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn cell(&self, row: usize, column: usize) -> &str {
        &self.rows[row].cells[column]
    }

    /// A copy with rows dropped and cells changed; a row without a change keeps its bytes.
    pub(super) fn edited(&self, edits: &[CellEdits]) -> Result<Self> {
        let mut rows = Vec::with_capacity(self.rows.len());
        for (row, edit) in self.rows.iter().zip(edits) {
            match edit {
                None => {}
                Some(cells) if cells.is_empty() => rows.push(row.clone()),
                Some(cells) => rows.push(self.row_with(row, cells)?),
            }
        }
        Ok(Self { rows, ..self.clone() })
    }

    fn row_with(&self, row: &Row, changes: &[(usize, Cell)]) -> Result<Row> {
        let mut cells: Vec<String> = row.cells.iter().map(str::to_owned).collect();
        for (column, cell) in changes {
            cells[*column] = match cell {
                Cell::Number(number) => number_text(*number),
                Cell::Text(text) => text.clone(),
            };
        }
        let terminator = if row.bytes.ends_with(b"\r\n") { Terminator::CRLF } else { Terminator::Any(b'\n') };
        let mut writer =
            WriterBuilder::new().delimiter(self.delimiter).terminator(terminator).from_writer(Vec::new());
        writer.write_record(&cells).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        let bytes =
            writer.into_inner().map_err(|error| Error::io("write", &self.path)(error.into_error()))?;
        Ok(Row { bytes, cells: StringRecord::from(cells) })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        self.rows.iter().for_each(|row| bytes.extend_from_slice(&row.bytes));
        bytes
    }
}

/// The shortest text that is read as this number. Whole numbers have no point.
fn number_text(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        format!("{}", number as i64)
    } else {
        format!("{number:?}")
    }
}

/// A column's name without spaces around it and without a byte order mark.
fn column_name(cell: &str) -> String {
    cell.trim_start_matches('\u{feff}').trim().to_owned()
}

/// The separator under which the header has the asked columns and, of several, the most columns; of equals a comma before a semicolon before a tab.
fn delimiter_of(bytes: &[u8], asked: &[String]) -> u8 {
    let merit = |delimiter: &u8| {
        let names = names_under(*delimiter, bytes);
        (asked.iter().all(|name| names.contains(name)), names.len())
    };
    // Of equals it takes the last.
    [b'\t', b';', b','].into_iter().max_by_key(merit).unwrap_or(b',')
}

/// The header's columns under a separator; none where nothing can be read.
fn names_under(delimiter: u8, bytes: &[u8]) -> Vec<String> {
    let mut reader = ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(bytes);
    let mut header = ByteRecord::new();
    match reader.read_byte_record(&mut header) {
        Ok(true) => header.iter().map(|cell| column_name(&String::from_utf8_lossy(cell))).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> CsvFile {
        CsvFile::parse(Path::new("t.csv"), text.as_bytes(), &[]).expect("a table")
    }

    #[test]
    fn rows_that_are_kept_are_the_same_to_the_byte() {
        for text in [
            "a,b\n1,\"x, y\"\n 2 ,z\n",
            "\u{feff}a;b\r\n1;\"q\"\"q\"\r\n2;z",
            "a\tb\n1\t\"two\nlines\"\n\n3\tz\n",
        ] {
            let file = parsed(text);
            assert_eq!(file.names(), ["a", "b"]);
            assert_eq!(file.bytes(), text.as_bytes());
            let kept = vec![Some(Vec::new()); file.rows()];
            assert_eq!(file.edited(&kept).expect("edited").bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_changed_cell_changes_its_row_alone_and_keeps_its_line_end() {
        let file = parsed("a,b\r\n1,\"x\"\r\n2,\"y, z\"\r\n3,w\r\n");
        let edits = [Some(Vec::new()), Some(vec![(0, Cell::Number(2.5))]), None];
        let copy = file.edited(&edits).expect("edited");
        assert_eq!(copy.bytes(), b"a,b\r\n1,\"x\"\r\n2.5,\"y, z\"\r\n");
    }

    #[test]
    fn the_separator_is_told_by_the_asked_columns_and_then_by_how_many_there_are() {
        let named = |text: &str, asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
            let file = CsvFile::parse(Path::new("t.csv"), text.as_bytes(), &asked).expect("a table");
            file.names().to_vec()
        };
        // A comma within quotes separates nothing.
        assert_eq!(named("\"x, in m\";y\n1;2\n", &[]), ["x, in m", "y"]);
        assert_eq!(named("\u{feff}\"y\";\"x, in m\"\r\n1;2\r\n", &["y"]), ["y", "x, in m"]);
        // As many columns under each: the asked one decides, and a comma where none is asked for.
        assert_eq!(named("x, in m;y\n1;2\n", &["y"]), ["x, in m", "y"]);
        assert_eq!(named("x;y,z\n1,2\n", &[]), ["x;y", "z"]);
        // More columns under the wrong one.
        assert_eq!(named("a;b;c,y\n1,2\n", &["y"]), ["a;b;c", "y"]);
        assert_eq!(named("y\n1\n", &["y"]), ["y"]);
    }

    #[test]
    fn numbers_are_short_and_read_back_to_32_bits() {
        assert_eq!([0.1, 3.0, -0.25, 1e-20].map(number_text), ["0.1", "3", "-0.25", "1e-20"]);
    }
}
