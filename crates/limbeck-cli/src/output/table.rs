//! Plain tables: columns aligned by their longest cell, two spaces apart, the header in bold.

use std::fmt;

use super::style;

/// A table of text; numbers stand to the right where a column asks for it.
pub(super) struct Table {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self::of(header.map(str::to_owned).to_vec())
    }

    /// The same with columns whose number only a result tells.
    pub(super) fn of(header: Vec<String>) -> Self {
        Self { right: vec![false; header.len()], header, rows: Vec::new() }
    }

    /// Puts the cells of a column, counted from 0, to its right.
    pub(super) fn right(mut self, column: usize) -> Self {
        self.right[column] = true;
        self
    }

    /// Adds a row; cells beyond the header are a bug.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.header.len(), "as many cells as columns");
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]);
            cells.chain([&self.header[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..self.header.len()).map(width).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let aligned = cells.iter().zip(widths).zip(&self.right).map(|((cell, &width), &right)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (widths, style) = (self.widths(), style::HEAD);
        writeln!(f, "{style}{}{style:#}", self.line(&self.header, &widths))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", self.line(row, &widths)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_counted_in_characters() {
        let mut table = Table::new(["name", "n"]).right(1);
        table.row(["Überholverbot".to_owned(), "7".to_owned()]);
        table.row(["a".to_owned(), "1234".to_owned()]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(text, "name              n\nÜberholverbot     7\na              1234\n");
    }

    #[test]
    fn no_line_ends_in_blanks() {
        let mut table = Table::new(["a", "b"]);
        table.row(["x".to_owned(), String::new()]);
        assert_eq!(anstream::adapter::strip_str(&table.to_string()).to_string(), "a  b\nx\n");
    }
}
