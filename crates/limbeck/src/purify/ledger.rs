//! The ledger: for each image what was measured, what was decided, and why. As Parquet or CSV.
//!
//! Both files have the columns `id`, `path`, `label`, `suspicion`, `p_value`, `threshold`,
//! `verdict` (`keep`, `reconstruct`, `discard`), `reason`, then one `score_<name>` for each score.
//! In Parquet the label is an int64, figures are float64 and the rest is UTF-8, none of them null.
//! The same ledger always gives the same bytes. Parquet reads back without loss; a file with a
//! missing, unknown, mistyped or null column is refused.
//!
//! ```
//! use limbeck::purify::{Ledger, LedgerRow, Verdict};
//!
//! let row = LedgerRow {
//!     id: "9f2c".into(),
//!     path: "train/00014.png".into(),
//!     label: 14,
//!     suspicion: 3.5,
//!     p_value: 0.01,
//!     threshold: 2.0,
//!     verdict: Verdict::Discard,
//!     reason: "suspicion above the threshold".into(),
//!     scores: vec![0.008],
//! };
//! let ledger = Ledger { score_names: vec!["mse".into()], rows: vec![row] };
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("ledger.parquet");
//! ledger.write_parquet(&path)?;
//! assert_eq!(Ledger::read_parquet(&path)?, ledger);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::artefact::write_atomically;
use crate::error::{Error, Result};
use crate::purify::Verdict;

/// Columns before the scores.
const COLUMNS: [(&str, DataType); 8] = [
    ("id", DataType::Utf8),
    ("path", DataType::Utf8),
    ("label", DataType::Int64),
    ("suspicion", DataType::Float64),
    ("p_value", DataType::Float64),
    ("threshold", DataType::Float64),
    ("verdict", DataType::Utf8),
    ("reason", DataType::Utf8),
];
const SCORE_PREFIX: &str = "score_";

/// One image of the audited set.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRow {
    /// Content hash that names the image.
    pub id: String,
    /// Path in the source, as the reader gives it.
    pub path: String,
    /// Class index that the image is labelled with.
    pub label: u32,
    /// Value of the deciding score; larger is more suspicious.
    pub suspicion: f64,
    /// Conformal p-value of `suspicion`, in `(0, 1]`.
    pub p_value: f64,
    /// Threshold that `suspicion` was held against, in the same units.
    pub threshold: f64,
    /// What was decided.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// Every score, in the order of [`Ledger::score_names`].
    pub scores: Vec<f64>,
}

/// All images of an audited set, in the set's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Names in the table of scores; no two alike.
    pub score_names: Vec<String>,
    /// One row an image.
    pub rows: Vec<LedgerRow>,
}

impl Ledger {
    /// Writes the ledger as Parquet (zstd), atomically.
    ///
    /// # Errors
    /// [`Error::Input`] when two scores share a name or a row has not one value for each;
    /// [`Error::Io`] as in [`write_atomically`].
    pub fn write_parquet(&self, path: &Path) -> Result<()> {
        self.check()?;
        let bytes = self.encode().map_err(|failure| Error::io("encode", path)(io::Error::other(failure)))?;
        write_atomically(path, |out| out.write_all(&bytes).map_err(Error::io("write", path)))
    }

    /// Writes the ledger as CSV with a header, atomically. Figures have as many digits as read back
    /// exactly.
    ///
    /// # Errors
    /// As [`Ledger::write_parquet`].
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        self.check()?;
        write_atomically(path, |out| {
            let mut table = csv::Writer::from_writer(out);
            let header = schema(&self.score_names);
            let write = |failure: csv::Error| Error::io("write", path)(failure.into());
            table.write_record(header.fields().iter().map(|field| field.name())).map_err(write)?;
            for row in &self.rows {
                table.write_record(row.csv_fields()).map_err(write)?;
            }
            table.flush().map_err(Error::io("write", path))
        })
    }

    /// Reads what [`Ledger::write_parquet`] wrote, also after a round through pandas or another tool.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened; [`Error::Artefact`] naming the file and the
    /// column when it is no Parquet, a column is missing, unknown or of another type, or a value is
    /// null, a negative or too large label or no verdict.
    pub fn read_parquet(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let unreadable = |failure: String| Error::artefact(path, failure, "a ledger in Parquet");
        // Plain Parquet types: other writers store their own string types in the Arrow metadata.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
            .map_err(|failure| unreadable(failure.to_string()))?;
        let score_names = check_columns(path, builder.schema())?;
        let mut rows = Vec::new();
        for batch in builder.build().map_err(|failure| unreadable(failure.to_string()))? {
            let batch = batch.map_err(|failure| unreadable(failure.to_string()))?;
            append_rows(path, &batch, &score_names, &mut rows)?;
        }
        Ok(Self { score_names, rows })
    }

    fn check(&self) -> Result<()> {
        const OPERATION: &str = "write ledger";
        if let Some(name) = first_repeated(&self.score_names) {
            return Err(Error::input(OPERATION, format!("two scores named `{name}`"), "names that differ"));
        }
        let scores = self.score_names.len();
        match self.rows.iter().find(|row| row.scores.len() != scores) {
            Some(row) => Err(Error::input(
                OPERATION,
                format!("{} score values of image {}", row.scores.len(), row.path),
                format!("{scores}, one for each score name"),
            )),
            None => Ok(()),
        }
    }

    /// The Parquet file in memory: its writer wants `Send`, which the writer of an atomic file does
    /// not promise.
    fn encode(&self) -> parquet::errors::Result<Vec<u8>> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("limbeck version ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let batch = RecordBatch::try_new(Arc::new(schema(&self.score_names)), self.columns())?;
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.into_inner()
    }

    /// One array for each field of [`schema`], in its order.
    fn columns(&self) -> Vec<ArrayRef> {
        let text = |value: fn(&LedgerRow) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.rows.iter().map(value)))
        };
        let figure = |value: fn(&LedgerRow) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.rows.iter().map(value)))
        };
        let mut columns = vec![
            text(|row| &row.id),
            text(|row| &row.path),
            Arc::new(Int64Array::from_iter_values(self.rows.iter().map(|row| i64::from(row.label)))),
            figure(|row| row.suspicion),
            figure(|row| row.p_value),
            figure(|row| row.threshold),
            text(|row| row.verdict.word()),
            text(|row| &row.reason),
        ];
        columns.extend((0..self.score_names.len()).map(|score| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.rows.iter().map(|row| row.scores[score])))
        }));
        columns
    }
}

impl LedgerRow {
    fn csv_fields(&self) -> Vec<String> {
        let figure = |value: f64| format!("{value:?}"); // shortest that reads back; 1e-300 stays short
        let mut fields = vec![
            self.id.clone(),
            self.path.clone(),
            self.label.to_string(),
            figure(self.suspicion),
            figure(self.p_value),
            figure(self.threshold),
            self.verdict.word().to_owned(),
            self.reason.clone(),
        ];
        fields.extend(self.scores.iter().map(|&score| figure(score)));
        fields
    }
}

fn schema(score_names: &[String]) -> Schema {
    let fixed = COLUMNS.map(|(name, kind)| Field::new(name, kind, false));
    let scores =
        score_names.iter().map(|name| Field::new(format!("{SCORE_PREFIX}{name}"), DataType::Float64, false));
    Schema::new(fixed.into_iter().chain(scores).collect::<Vec<_>>())
}

fn first_repeated(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

/// Checks a file's columns against [`schema`], in any order, and returns the names of its scores in
/// the file's order.
fn check_columns(path: &Path, found: &Schema) -> Result<Vec<String>> {
    let names: Vec<String> = found.fields().iter().map(|field| field.name().clone()).collect();
    if let Some(name) = first_repeated(&names) {
        return Err(Error::artefact(path, format!("two columns `{name}`"), "columns that differ"));
    }
    let score_names: Vec<String> =
        names.iter().filter_map(|name| name.strip_prefix(SCORE_PREFIX)).map(str::to_owned).collect();
    let expected = schema(&score_names);
    for field in expected.fields() {
        let (name, kind) = (field.name(), field.data_type());
        match found.field_with_name(name) {
            Ok(column) if column.data_type() == kind => {}
            Ok(column) => {
                let found = format!("column `{name}` of type {}", column.data_type());
                return Err(Error::artefact(path, found, format!("type {kind}")));
            }
            Err(_) => {
                let found = format!("columns {}", names.join(", "));
                return Err(Error::artefact(path, found, format!("also a column `{name}` of type {kind}")));
            }
        }
    }
    match names.iter().find(|name| expected.field_with_name(name).is_err()) {
        Some(name) => Err(Error::artefact(path, format!("column `{name}`"), "only the columns of a ledger")),
        None => Ok(score_names),
    }
}

/// Appends the rows of one batch whose columns have passed [`check_columns`].
fn append_rows(
    path: &Path,
    batch: &RecordBatch,
    score_names: &[String],
    rows: &mut Vec<LedgerRow>,
) -> Result<()> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.null_count() > 0 {
            return Err(Error::artefact(
                path,
                format!("a null in column `{}`", field.name()),
                "a value in every row",
            ));
        }
    }
    let column = |name: &str| batch.column_by_name(name).expect("check_columns has found every column");
    let text = |name: &str| column(name).as_string::<i32>();
    let figures = |name: &str| column(name).as_primitive::<Float64Type>();
    let labels = column("label").as_primitive::<Int64Type>();
    let (ids, paths, verdicts, reasons) = (text("id"), text("path"), text("verdict"), text("reason"));
    let (suspicions, p_values, thresholds) = (figures("suspicion"), figures("p_value"), figures("threshold"));
    let scores: Vec<_> = score_names.iter().map(|name| figures(&format!("{SCORE_PREFIX}{name}"))).collect();
    for i in 0..batch.num_rows() {
        rows.push(LedgerRow {
            id: ids.value(i).to_owned(),
            path: paths.value(i).to_owned(),
            label: label(path, labels.value(i))?,
            suspicion: suspicions.value(i),
            p_value: p_values.value(i),
            threshold: thresholds.value(i),
            verdict: verdict(path, verdicts.value(i))?,
            reason: reasons.value(i).to_owned(),
            scores: scores.iter().map(|column| column.value(i)).collect(),
        });
    }
    Ok(())
}

fn label(path: &Path, found: i64) -> Result<u32> {
    let expected = || format!("a class index from 0 to {}", u32::MAX);
    u32::try_from(found).map_err(|_| Error::artefact(path, format!("{found} in column `label`"), expected()))
}

fn verdict(path: &Path, found: &str) -> Result<Verdict> {
    let known = Verdict::ALL.into_iter().find(|verdict| verdict.word() == found);
    known.ok_or_else(|| {
        let expected = Verdict::ALL.map(Verdict::word).join(", ");
        Error::artefact(path, format!("`{found}` in column `verdict`"), format!("one of {expected}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tempfile::tempdir;

    use super::*;

    fn ledger() -> Ledger {
        let row = |label, suspicion, verdict, path: &str| LedgerRow {
            id: format!("{label:04x}"),
            path: path.to_owned(),
            label,
            suspicion,
            p_value: 0.25,
            threshold: 0.1,
            verdict,
            reason: "a \"quoted\" word, and a comma".to_owned(),
            scores: vec![suspicion, 1e-300],
        };
        Ledger {
            score_names: vec!["mse".into(), "hidden_kl".into()],
            rows: vec![
                row(0, 0.1, Verdict::Keep, "a.png"),
                row(u32::MAX, f64::INFINITY, Verdict::Discard, "größe/ß.png"),
                row(7, -2.0, Verdict::Reconstruct, ""),
            ],
        }
    }

    /// Writes one batch of any shape and tells how the reader refuses it.
    fn refusal(fields: Vec<(&str, ArrayRef)>) -> String {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("odd.parquet");
        let batch = RecordBatch::try_from_iter(fields).expect("a batch");
        let file = File::create(&path).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("a batch written");
        writer.close().expect("a file closed");
        let failure = Ledger::read_parquet(&path).expect_err("no ledger");
        assert!(matches!(failure, Error::Artefact { .. }), "{failure:?}");
        let message = failure.to_string();
        assert!(message.contains("odd.parquet"), "{message}");
        message
    }

    fn fields() -> Vec<(&'static str, ArrayRef)> {
        let ledger = Ledger { score_names: vec![], rows: ledger().rows };
        COLUMNS.iter().map(|(name, _)| *name).zip(ledger.columns()).collect()
    }

    #[test]
    fn parquet_reads_back_what_was_written() -> Result<()> {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("ledger.parquet");
        for ledger in [ledger(), Ledger::default(), Ledger { score_names: vec!["mse".into()], rows: vec![] }]
        {
            ledger.write_parquet(&path)?;
            assert_eq!(Ledger::read_parquet(&path)?, ledger);
        }
        Ok(())
    }

    #[test]
    fn the_same_ledger_gives_the_same_bytes() -> Result<()> {
        assert_eq!(ledger().encode().expect("bytes"), ledger().encode().expect("bytes"));
        Ok(())
    }

    #[test]
    fn csv_quotes_text_and_keeps_every_digit() -> Result<()> {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("ledger.csv");
        ledger().write_csv(&path)?;
        // By hand, after RFC 4180.
        let expected = "id,path,label,suspicion,p_value,threshold,verdict,reason,score_mse,score_hidden_kl\n\
            0000,a.png,0,0.1,0.25,0.1,keep,\"a \"\"quoted\"\" word, and a comma\",0.1,1e-300\n\
            ffffffff,größe/ß.png,4294967295,inf,0.25,0.1,discard,\"a \"\"quoted\"\" word, and a comma\",inf,1e-300\n\
            0007,,7,-2.0,0.25,0.1,reconstruct,\"a \"\"quoted\"\" word, and a comma\",-2.0,1e-300\n";
        assert_eq!(std::fs::read_to_string(&path).expect("text"), expected);
        Ok(())
    }

    #[test]
    fn words_of_verdicts_are_those_of_serde() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_value(verdict).expect("a word"), verdict.word());
        }
    }

    #[test]
    fn a_ledger_that_does_not_fit_itself_is_not_written() {
        let path = Path::new("never written");
        let mut short = ledger();
        short.rows[1].scores.pop();
        let message = short.write_parquet(path).expect_err("one value short").to_string();
        assert!(message.contains("1 score values of image größe/ß.png"), "{message}");
        let twice = Ledger { score_names: vec!["mse".into(), "mse".into()], rows: vec![] };
        assert!(twice.write_csv(path).expect_err("a name twice").to_string().contains("`mse`"));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused_by_column() {
        let replaced = |name: &str, column: ArrayRef| {
            fields().into_iter().map(|(n, old)| (n, if n == name { column.clone() } else { old })).collect()
        };
        let missing = fields().into_iter().filter(|(name, _)| *name != "p_value").collect();
        assert!(refusal(missing).contains("also a column `p_value` of type Float64"));
        let mut extra = fields();
        extra.push(("index", Arc::new(Int64Array::from(vec![0, 1, 2]))));
        assert!(refusal(extra).contains("column `index`"));
        let mistyped = refusal(replaced("label", Arc::new(Float64Array::from(vec![0.0; 3]))));
        assert!(mistyped.contains("column `label` of type Float64, expected type Int64"), "{mistyped}");
        let null = refusal(replaced("label", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))));
        assert!(null.contains("a null in column `label`"), "{null}");
        let negative = refusal(replaced("label", Arc::new(Int64Array::from(vec![1, -1, 1]))));
        assert!(negative.contains("-1 in column `label`"), "{negative}");
        let verdict = refusal(replaced("verdict", Arc::new(StringArray::from(vec!["keep", "drop", "keep"]))));
        assert!(
            verdict.contains("`drop` in column `verdict`, expected one of keep, reconstruct, discard"),
            "{verdict}"
        );
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("damaged.parquet");
        let bytes = ledger().encode().expect("bytes");
        for damaged in [&bytes[..bytes.len() / 2], b"id,path\n", b""] {
            std::fs::write(&path, damaged).expect("a file");
            let failure = Ledger::read_parquet(&path).expect_err("damaged");
            assert!(
                matches!(failure, Error::Artefact { .. }) && failure.to_string().contains("damaged.parquet")
            );
        }
    }

    /// Any text: quotes, line breaks and letters of every script.
    fn text() -> impl Strategy<Value = String> {
        vec(any::<char>(), 0..12).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_ledger_survives_the_round_trip(
            rows in vec((text(), text(), any::<u32>(), -1e300..1e300_f64, 0..3_usize), 0..60),
            scores in 0..4_usize,
        ) {
            let row = |(id, path, label, suspicion, verdict): (String, String, u32, f64, usize)| LedgerRow {
                reason: path.clone(),
                p_value: suspicion / 3.0,
                threshold: -suspicion,
                verdict: Verdict::ALL[verdict],
                scores: vec![suspicion; scores],
                id,
                path,
                label,
                suspicion,
            };
            let rows = rows.into_iter().map(row).collect();
            let ledger = Ledger { score_names: (0..scores).map(|score| score.to_string()).collect(), rows };
            let folder = tempdir().expect("a folder");
            let path = folder.path().join("ledger.parquet");
            ledger.write_parquet(&path).expect("the disk takes it");
            prop_assert_eq!(Ledger::read_parquet(&path).expect("the disk takes it"), ledger);
        }
    }
}
