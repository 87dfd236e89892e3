//! Reading a file of decisions, as people and spreadsheet programs leave it.
//!
//! UTF-8 with or without a byte order mark; lines that end in LF or CRLF; cells separated by commas, semicolons or tabs, told by the
//! header. The columns `id` and `decision` may stand anywhere and others beside them, which are ignored. A decision is `keep`,
//! `reconstruct`, `discard` (in any case) or `relabel:CLASS`, by name or, where no class has that name, by index; an empty one leaves the
//! image to the audit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{DECISION, Decision, Decisions, ID, RELABEL, class_of};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::purify::Verdict;

const WORDS: &str = "keep, reconstruct, discard, relabel:CLASS, or nothing";

/// A file of decisions that has been read, but not yet held against a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionFile {
    path: PathBuf,
    rows: Vec<Row>,
}

/// A decision that is not empty, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    line: u64,
    id: String,
    word: Word,
}

/// A decision whose class, if it names one, is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Verdict(Verdict),
    Relabel(String),
}

impl DecisionFile {
    /// Reads a file of decisions.
    ///
    /// # Errors
    /// [`Error::Data`] names the file and the line of a missing column, an unknown decision, a decision without an id, or an image that
    /// is decided twice in different ways; [`Error::Io`] when the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(Error::data(path, "UTF-16 text", "UTF-8 (\"CSV UTF-8\" in spreadsheet programs)"));
        }
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let (delimiter, columns) = columns(path, text)?;
        let mut decided: HashMap<String, (u64, Option<Word>)> = HashMap::new();
        let mut rows = Vec::new();
        for record in reader(text, delimiter).byte_records() {
            let record = record.map_err(|failure| Error::data(path, failure.to_string(), "a table"))?;
            let line = record.position().map_or(0, csv::Position::line);
            let cell = |column: usize| cell(path, line, record.get(column).unwrap_or_default());
            let (id, text) = (cell(columns.id)?, cell(columns.decision)?);
            let word = word(path, line, text)?;
            if id.is_empty() {
                match word {
                    None => continue,
                    Some(_) => return Err(fault(path, line, format!("`{text}` without an id"), "an id")),
                }
            }
            match decided.get(id) {
                None => {
                    decided.insert(id.to_owned(), (line, word.clone()));
                    rows.extend(word.map(|word| Row { line, id: id.to_owned(), word }));
                }
                Some((_, earlier)) if *earlier == word => {}
                Some((first, _)) => {
                    let found = format!("another decision about {id} than in line {first}");
                    return Err(fault(path, line, found, "each image decided once"));
                }
            }
        }
        Ok(Self { path: path.to_path_buf(), rows })
    }

    /// Holds the decisions against the set that they are about; `classes` are the set's.
    ///
    /// # Errors
    /// [`Error::Data`] names the file and the line of an id that no image of the set has, and of a class that is none of its classes.
    pub fn resolve(&self, set: &Dataset) -> Result<Decisions> {
        let labels: HashMap<String, u32> =
            set.samples().iter().map(|sample| (sample.id.to_string(), sample.label)).collect();
        let mut decisions = Decisions::default();
        for Row { line, id, word } in &self.rows {
            let Some(&label) = labels.get(id) else {
                let expected = "the id of an audited image, as ledger.csv has it";
                return Err(fault(&self.path, *line, format!("id `{id}`"), expected));
            };
            let decision = match word {
                Word::Verdict(verdict) => Decision::Verdict(*verdict),
                Word::Relabel(class) => match class_of(set.classes(), class) {
                    Some(new) if new == label => Decision::Verdict(Verdict::Keep),
                    Some(new) => Decision::Relabel(new),
                    None => {
                        let found = format!("class `{class}`");
                        return Err(fault(&self.path, *line, found, known(set.classes())));
                    }
                },
            };
            decisions.by_id.insert(id.clone(), decision);
        }
        Ok(decisions)
    }

    /// The decisions as they are written, by id.
    pub(super) fn words(&self) -> HashMap<&str, String> {
        let written = |word: &Word| match word {
            Word::Verdict(verdict) => verdict.word().to_owned(),
            Word::Relabel(class) => format!("{RELABEL}{class}"),
        };
        self.rows.iter().map(|row| (row.id.as_str(), written(&row.word))).collect()
    }
}

/// Where the two columns that count stand.
struct Columns {
    id: usize,
    decision: usize,
}

fn reader(text: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text)
}

/// The separator under which the header has both columns, and where they are.
fn columns(path: &Path, text: &[u8]) -> Result<(u8, Columns)> {
    let mut widest: Vec<String> = Vec::new();
    for delimiter in *b",;\t" {
        let mut reader = reader(text, delimiter);
        let header =
            reader.byte_headers().map_err(|failure| Error::data(path, failure.to_string(), "a table"))?;
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect();
        if let (Some(id), Some(decision)) = (place(path, &names, ID)?, place(path, &names, DECISION)?) {
            return Ok((delimiter, Columns { id, decision }));
        }
        if names.len() > widest.len() {
            widest = names;
        }
    }
    let found =
        if widest.is_empty() { "nothing".to_owned() } else { format!("columns {}", widest.join(", ")) };
    let expected = format!("columns `{ID}` and `{DECISION}`, separated by commas, semicolons or tabs");
    Err(fault(path, 1, found, expected))
}

/// Where the column of this name is, if there is one.
fn place(path: &Path, names: &[String], name: &str) -> Result<Option<usize>> {
    let mut places = (0..names.len()).filter(|&column| names[column] == name);
    match (places.next(), places.next()) {
        (_, Some(_)) => Err(fault(path, 1, format!("two columns `{name}`"), "one")),
        (place, None) => Ok(place),
    }
}

fn cell<'a>(path: &Path, line: u64, bytes: &'a [u8]) -> Result<&'a str> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        let found = format!("`{}`", String::from_utf8_lossy(bytes));
        fault(path, line, found, "UTF-8 (\"CSV UTF-8\" in spreadsheet programs)")
    })?;
    Ok(text.trim())
}

fn word(path: &Path, line: u64, text: &str) -> Result<Option<Word>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(verdict) = Verdict::ALL.into_iter().find(|verdict| text.eq_ignore_ascii_case(verdict.word()))
    {
        return Ok(Some(Word::Verdict(verdict)));
    }
    match text.split_at_checked(RELABEL.len()) {
        Some((head, class)) if head.eq_ignore_ascii_case(RELABEL) && !class.trim().is_empty() => {
            Ok(Some(Word::Relabel(class.trim().to_owned())))
        }
        _ => Err(fault(path, line, format!("decision `{text}`"), WORDS)),
    }
}

/// The classes there are, or the first of them.
fn known(classes: &[String]) -> String {
    const SHOWN: usize = 12;
    let names = classes.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if classes.len() > SHOWN { ", …" } else { "" };
    format!("one of the classes ({names}{more}) or an index from 0 to {}", classes.len() - 1)
}

fn fault(path: &Path, line: u64, found: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::data_entry(path, format!("line {line}"), found, expected)
}
