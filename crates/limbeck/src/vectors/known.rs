//! Rows of the table that the files of trusted and test rows have too: audited or learnt from there, they would be judged, or tested, by what learnt them by heart.

use std::collections::{HashMap, HashSet};

use super::table::{RowEdit, Table};

/// Rows that are not audited, and what becomes of them in the purified table.
#[derive(Debug, Default, PartialEq)]
pub(super) struct KnownRows(HashMap<usize, RowEdit>);

impl KnownRows {
    /// A row is trusted, and then keeps its features and gets the trusted targets, or tested on, and then is dropped. Each row of the files stands for one of the table with the same features, before all
    /// for one with the same targets: equal rows are common in tables of few values.
    ///
    /// Whether targets are compared as numbers, where they are, is for the caller to say: 1.10 may be a class of its own.
    pub(super) fn of(
        table: &Table,
        trusted: Option<&Table>,
        test: Option<&Table>,
        are_numbers: bool,
    ) -> Self {
        let matched = |other, taken: &HashSet<usize>| matched(table, other, taken, are_numbers);
        let mut known = HashMap::new();
        for (row, of) in trusted.iter().flat_map(|trusted| matched(trusted, &HashSet::new())) {
            let (own, checked) = ((table, row), (trusted.expect("it has a row"), of));
            let is_same = key(own, are_numbers) == key(checked, are_numbers);
            known.insert(row, if is_same { RowEdit::Keep } else { RowEdit::Targets(targets(checked)) });
        }
        let taken: HashSet<usize> = known.keys().copied().collect();
        for (row, _) in test.iter().flat_map(|test| matched(test, &taken)) {
            known.insert(row, RowEdit::Drop);
        }
        Self(known)
    }

    /// The other rows of a table of so many.
    pub(super) fn others(&self, rows: usize) -> Vec<usize> {
        (0..rows).filter(|row| !self.0.contains_key(row)).collect()
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What becomes of each.
    pub(super) fn edits(&self) -> impl Iterator<Item = (usize, &RowEdit)> {
        self.0.iter().map(|(&row, edit)| (row, edit))
    }
}

fn targets((table, row): (&Table, usize)) -> Vec<String> {
    (0..table.targets().len()).map(|place| table.target(row, place)).collect()
}

/// The same to be compared: as numbers, 1.5 and 1.50 are one.
fn key(at: (&Table, usize), are_numbers: bool) -> Vec<String> {
    let one_form = |text: String| match text.parse::<f64>() {
        Ok(number) if are_numbers => format!("{number:?}"),
        _ => text,
    };
    targets(at).into_iter().map(one_form).collect()
}

fn features((table, row): (&Table, usize)) -> Vec<u64> {
    // −0 is 0.
    table.values(row).iter().map(|value| (value + 0.0).to_bits()).collect()
}

/// Pairs of a row of `table`, but for those `taken`, and the row of `other` that is the same.
fn matched(table: &Table, other: &Table, taken: &HashSet<usize>, are_numbers: bool) -> Vec<(usize, usize)> {
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for minds_targets in [true, false] {
        let key = |at: (&Table, usize)| (features(at), minds_targets.then(|| key(at, are_numbers)));
        let used: HashSet<usize> = pairs.iter().map(|&(_, of)| of).collect();
        let mut left: HashMap<_, Vec<usize>> = HashMap::new();
        for of in (0..other.rows()).rev().filter(|of| !used.contains(of)) {
            left.entry(key((other, of))).or_default().push(of);
        }
        let found: HashSet<usize> = pairs.iter().map(|&(row, _)| row).collect();
        let is_free = |row: &usize| !taken.contains(row) && !found.contains(row);
        let same = |row: usize| Some((row, left.get_mut(&key((table, row)))?.pop()?));
        pairs.extend((0..table.rows()).filter(is_free).filter_map(same));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::vectors::Columns;

    fn table(folder: &Path, name: &str, rows: &[&str]) -> Table {
        let path = folder.join(name);
        std::fs::write(&path, format!("x,y\n{}\n", rows.join("\n"))).expect("written");
        let target = ["y".to_owned()];
        Table::read_part(&path, Columns { target: &target, ignore: &[] }).expect("a table")
    }

    #[test]
    fn a_row_of_the_files_stands_for_one_of_the_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = table(folder.path(), "data.csv", &["1,a", "2,a", "2,b", "2,b", "3,a", "0,b", "4,a"]);
        // One of two equal rows; one whose target was put right; one with another in its place; one that is not there.
        let trusted = table(folder.path(), "trusted.csv", &["2,b", "3.0,b", "9,a"]);
        let test = table(folder.path(), "test.csv", &["-0,b", "3,a", "2,a"]);
        let known = KnownRows::of(&data, Some(&trusted), Some(&test), true);
        let expected = [
            (1, RowEdit::Drop),
            (2, RowEdit::Keep),
            (4, RowEdit::Targets(vec!["b".to_owned()])),
            (5, RowEdit::Drop),
        ];
        assert_eq!(known, KnownRows(expected.into_iter().collect()));
        assert_eq!((known.others(7), known.count()), (vec![0, 3, 6], 4));
        assert_eq!(KnownRows::of(&data, None, None, true).others(7).len(), 7);
        let data = table(folder.path(), "quantities.csv", &["1,0.3", "1,1.50"]);
        let trusted = table(folder.path(), "checked.csv", &["1,1.5"]);
        let known = |are_numbers| KnownRows::of(&data, Some(&trusted), None, are_numbers);
        assert_eq!(known(true), KnownRows([(1, RowEdit::Keep)].into_iter().collect()));
        let relabelled = RowEdit::Targets(vec!["1.5".to_owned()]);
        assert_eq!(known(false), KnownRows([(0, relabelled)].into_iter().collect()));
    }
}
