//! The scores of the trusted images as a file: what every threshold and p-value of an audit can be checked against.

use std::path::Path;

use super::judge::TrustedScores;
use super::scores::ScoreKind;
use crate::artefact::write_atomically;
use crate::error::{Error, Result};

impl TrustedScores {
    /// Writes `id,label` and one column `score_<name>` for each score (csv), a row an image.
    ///
    /// # Errors
    /// [`Error::Io`] names the file that cannot be written; nothing half-written stays.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        write_atomically(path, |out| {
            let mut table = csv::Writer::from_writer(out);
            let write = |failure: csv::Error| Error::io("write", path)(failure.into());
            let scores = ScoreKind::names().into_iter().map(|name| format!("score_{name}"));
            table
                .write_record(["id", "label"].map(str::to_owned).into_iter().chain(scores))
                .map_err(write)?;
            for (row, (id, label)) in self.images.iter().enumerate() {
                let scores = self.columns.iter().map(|column| column[row].to_string());
                table
                    .write_record([id.clone(), label.to_string()].into_iter().chain(scores))
                    .map_err(write)?;
            }
            table.flush().map_err(Error::io("write", path))
        })
    }

    /// One column of such a file.
    ///
    /// # Errors
    /// [`Error::Artefact`] names the file and the line that does not read as a number, or the column that is missing.
    pub fn read_column(path: &Path, kind: ScoreKind) -> Result<Vec<f64>> {
        let refused = |found: String| Error::artefact(path, found, "a number for each trusted image");
        let mut table =
            csv::Reader::from_path(path).map_err(|failure| Error::io("read", path)(failure.into()))?;
        let name = format!("score_{}", kind.name());
        let headers = table.headers().map_err(|failure| refused(failure.to_string()))?;
        let column = headers.iter().position(|header| header == name);
        let column = column.ok_or_else(|| refused(format!("no column `{name}`")))?;
        let number = |(row, record): (usize, csv::Result<csv::StringRecord>)| {
            let record = record.map_err(|failure| refused(failure.to_string()))?;
            let text = record.get(column).unwrap_or_default();
            text.parse().map_err(|_| refused(format!("`{text}` in row {} of `{name}`", row + 1)))
        };
        table.records().enumerate().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trusted_scores.csv");
        let columns: Vec<Vec<f64>> =
            (0..ScoreKind::names().len()).map(|column| vec![0.1 + column as f64, -1e-9]).collect();
        let images = vec![("a".to_owned(), 3), ("b".to_owned(), 0)];
        TrustedScores { images, columns: columns.clone() }.write_csv(&path).expect("written");
        let read = TrustedScores::read_column(&path, ScoreKind::Label).expect("read");
        assert_eq!(read, columns[ScoreKind::Label.position()]);
    }

    #[test]
    fn a_damaged_file_is_refused_by_name_and_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trusted_scores.csv");
        let refusal = |text: &str| {
            std::fs::write(&path, text).expect("written");
            TrustedScores::read_column(&path, ScoreKind::Mse).expect_err("damaged").to_string()
        };
        let message = refusal("id,label,score_mse\na,1,0.5\nb,1,much\n");
        assert!(message.contains("trusted_scores.csv") && message.contains("`much` in row 2"), "{message}");
        assert!(refusal("id,label,score_kl\na,1,0.5\n").contains("no column `score_mse`"));
    }
}
