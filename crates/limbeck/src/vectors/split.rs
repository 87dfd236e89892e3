//! Which rows are audited, trusted, set apart for calibration, and tested on.

use rand::seq::SliceRandom;

use super::config::VectorSplit;
use crate::error::{Error, Result};
use crate::rng::Seed;

/// Places of rows, each in one list at most, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Rows that may be poisoned.
    pub(super) audited: Vec<usize>,
    /// Rows taken to be clean, by which scores are judged; networks learn from them.
    pub(super) trusted: Vec<usize>,
    /// Rows taken to be clean that no network learns from.
    pub(super) calibration: Vec<usize>,
    /// Rows that nothing but the evaluation sees.
    pub(super) test: Vec<usize>,
}

/// How many rows come from files of their own instead of the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    /// Trusted rows, if they have a file.
    pub(super) trusted: Option<usize>,
    /// Whether the test rows have one.
    pub(super) test: bool,
}

impl Split {
    /// Draws from these rows of the table by the seed. Trusted rows of a file of their own are numbered by their place there.
    ///
    /// # Errors
    /// Refuses tables that leave fewer than 10 audited rows, 4 trusted, 2 for calibration or 2 for the test.
    pub(super) fn draw(
        mut order: Vec<usize>,
        apart: Apart,
        shares: &VectorSplit,
        seed: Seed,
    ) -> Result<Self> {
        let rows = order.len();
        order.shuffle(&mut seed.rng("split"));
        let part = |of: usize, share: f64| (share * of as f64).round() as usize;
        let take = |from: &mut Vec<usize>, count: usize| from.split_off(from.len().saturating_sub(count));
        let test = if apart.test { Vec::new() } else { take(&mut order, part(rows, shares.test)) };
        let mut trusted = match apart.trusted {
            Some(rows) => {
                let mut trusted: Vec<usize> = (0..rows).collect();
                trusted.shuffle(&mut seed.rng("trusted"));
                trusted
            }
            None => {
                let count = part(order.len(), shares.trusted);
                take(&mut order, count)
            }
        };
        let count = part(trusted.len(), shares.calibration);
        let calibration = take(&mut trusted, count);
        let mut split = Self { audited: order, trusted, calibration, test };
        let least = [
            ("audited rows", split.audited.len(), 10),
            ("trusted rows that teach", split.trusted.len(), 4),
            ("rows for calibration", split.calibration.len(), 2),
            ("test rows", if apart.test { 2 } else { split.test.len() }, 2),
        ];
        if let Some((what, found, least)) = least.into_iter().find(|(_, found, least)| found < least) {
            let expected = format!(
                "at least {least}: a longer table, other shares in data.split, or fewer rows that are trusted or tested on in files of their own"
            );
            return Err(Error::input(
                "splitting the table",
                format!("{found} {what} of {rows} rows"),
                expected,
            ));
        }
        for part in [&mut split.audited, &mut split.trusted, &mut split.calibration, &mut split.test] {
            part.sort_unstable();
        }
        Ok(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(rows: usize, apart: Apart) -> Result<Split> {
        Split::draw((0..rows).collect(), apart, &VectorSplit::default(), Seed::new(1))
    }

    #[test]
    fn every_row_is_in_one_part_of_the_size_that_was_asked_for() {
        let split = drawn(500, Apart::default()).expect("drawn");
        // A fifth of 500, a tenth of the other 400, half of these.
        assert_eq!([split.test.len(), split.trusted.len(), split.calibration.len()], [100, 20, 20]);
        let mut all = [split.audited, split.trusted, split.calibration, split.test].concat();
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn files_of_their_own_leave_the_table_whole() {
        let split = drawn(50, Apart { trusted: Some(40), test: true }).expect("drawn");
        assert_eq!((split.audited.len(), split.trusted.len(), split.calibration.len()), (50, 20, 20));
        assert!(split.test.is_empty());
    }

    #[test]
    fn a_table_that_is_too_short_says_what_it_lacks() {
        let message = drawn(30, Apart::default()).expect_err("30 rows").to_string();
        assert!(message.contains("trusted rows") && message.contains("of 30 rows"), "{message}");
    }
}
