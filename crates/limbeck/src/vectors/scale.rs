//! Units: features as shares of their range, targets as classes or in standard deviations.
//!
//! A feature x becomes (x − low) / (high − low), clipped to `[0, 1]`; one that never varies becomes 0. So eps is a share of each feature's range. A target of a regression becomes
//! (y − mean) / deviation for training and goes back to its own units for reports.
//!
//! Units come from the trusted rows. Audited rows may be hostile: one of them widens a range to eleven times that of the trusted rows at most, and moves neither mean nor deviation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::config::TaskChoice;
use super::table::Table;
use crate::error::{Error, Result};

/// The most classes that are taken for classes without being asked.
const MOST_CLASSES: usize = 100;

/// The least standard deviation that a column is divided by, as a share of its range: one far value must not make the rest of a column shout.
const LEAST_DEVIATION: f64 = 0.05;

/// How far audited features reach beyond the trusted ones, in widths of their range. Few trusted rows miss the tails of honest columns: with a reach of 1 the pixels at the edges of
/// digits were clipped so that perturbed rows were found with an AUROC of 0.87 to 0.92 by their reconstruction, where all values counted with 0.96 to 0.97.
const REACH: f64 = 5.0;

/// The same of targets: one that is far off is worth its square in a loss, and no network brings it back.
pub(super) const TARGET_REACH: f64 = 1.0;

/// What stands for the width of trusted values that are all equal, in median distances of the audited ones that differ from them.
const DISTANCES: f64 = 3.0;

/// The farthest that they reach, so that no width of a range overflows.
const FARTHEST: f64 = f64::MAX / 8.0;

/// How features are scaled, and what they are centred with inside a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputScale {
    /// Names of the features.
    pub names: Vec<String>,
    /// Where the range of each begins: the least value of the training rows that counts.
    pub low: Vec<f64>,
    /// Where it ends.
    pub high: Vec<f64>,
    /// Of each scaled feature the mean over the training rows and the reciprocal of its standard deviation.
    pub centre: Vec<[f32; 2]>,
}

impl InputScale {
    /// By the range of the trusted rows, which audited ones widen to eleven times that at most; where the trusted rows are all equal, by the usual distance of the audited values that differ
    /// from them. Without trusted rows by the range of the audited ones. At least one row in all; each has as many values as there are names.
    pub fn fit<'a>(
        names: Vec<String>,
        audited: impl Iterator<Item = &'a [f64]> + Clone,
        trusted: impl Iterator<Item = &'a [f64]> + Clone,
    ) -> Self {
        let features = names.len();
        let range = |at: usize| range_of(&column(audited.clone(), at), &column(trusted.clone(), at), REACH);
        let (low, high) = (0..features).map(range).unzip();
        let mut scale = Self { names, low, high, centre: Vec::new() };
        let scaled: Vec<Vec<f32>> = audited.chain(trusted).map(|row| scale.scaled(row)).collect();
        scale.centre = (0..features).map(|feature| centre(scaled.iter().map(|row| row[feature]))).collect();
        scale
    }

    /// Features in `[0, 1]`.
    pub fn scaled(&self, row: &[f64]) -> Vec<f32> {
        let scaled = |((value, low), high): ((&f64, &f64), &f64)| match high - low {
            range if range > 0.0 => ((value - low) / range).clamp(0.0, 1.0) as f32,
            _ => 0.0,
        };
        row.iter().zip(&self.low).zip(&self.high).map(scaled).collect()
    }

    /// How many features of a row lie outside their range by more than so many of its widths.
    pub(super) fn outside(&self, row: &[f64], widths: f64) -> usize {
        let ranges = self.low.iter().zip(&self.high);
        let is_outside =
            |&(value, low, high): &(f64, f64, f64)| (low - value).max(value - high) > widths * (high - low);
        row.iter().zip(ranges).map(|(&value, (&low, &high))| (value, low, high)).filter(is_outside).count()
    }

    /// Features in their own units.
    pub fn unscaled(&self, row: &[f32]) -> Vec<f64> {
        let ranges = self.low.iter().zip(&self.high);
        row.iter().zip(ranges).map(|(share, (low, high))| unscaled(*share, *low, *high)).collect()
    }
}

/// The value at a share of a range, with as many decimals as a share in 32 bits can tell apart: the others would be noise.
fn unscaled(share: f32, low: f64, high: f64) -> f64 {
    let range = high - low;
    if share == 0.0 || range == 0.0 {
        return low;
    }
    if share == 1.0 {
        return high;
    }
    let value = low + f64::from(share) * range;
    let decimals = -(range * f64::from(f32::EPSILON) / 2.0).log10().floor();
    let decimals = decimals.clamp(0.0, 320.0) as usize;
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

fn column<'a>(rows: impl Iterator<Item = &'a [f64]>, feature: usize) -> Vec<f64> {
    rows.map(|row| row[feature]).collect()
}

/// The least and the largest value of a column that count: those of all rows, but no farther beyond the trusted ones than `reach` times what these lie apart, so that whoever can
/// write audited rows widens the range to 1 + 2 `reach` times that of the trusted rows at most.
///
/// Trusted values that are all equal (a rare word, a seldom alarm) lie nothing apart. Then three times the median distance of the audited values that differ from them stands for that: to move
/// that it takes as many hostile rows as honest ones that differ. Without trusted values all count.
pub(super) fn range_of(audited: &[f64], trusted: &[f64], reach: f64) -> (f64, f64) {
    let (least, largest) = extremes(audited.iter().chain(trusted));
    if trusted.is_empty() {
        return (least, largest);
    }
    let (low, high) = extremes(trusted.iter());
    let width = match high - low {
        width if width > 0.0 => width,
        _ => DISTANCES * median_distance(audited, low),
    };
    let reach = (reach * width).min(FARTHEST);
    (least.max(low - reach), largest.min(high + reach))
}

fn extremes<'a>(values: impl Iterator<Item = &'a f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// The median distance from `constant` of the values that differ from it, of two the lower one; 0 where none differs.
fn median_distance(values: &[f64], constant: f64) -> f64 {
    let distances = values.iter().map(|value| (value - constant).abs());
    let mut distances: Vec<f64> = distances.filter(|distance| *distance > 0.0).collect();
    distances.sort_unstable_by(f64::total_cmp);
    distances.get(distances.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

fn centre(column: impl Iterator<Item = f32> + Clone) -> [f32; 2] {
    let (mean, deviation) = moments(column.map(f64::from));
    [mean as f32, deviation.max(LEAST_DEVIATION).recip() as f32]
}

/// Mean and standard deviation (of the rows as they are, not of what they were drawn from).
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, (values.map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
}

/// What a network answers with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum AnswerScale {
    /// Classes by their names, in order.
    Classes {
        /// As the table has them.
        names: Vec<String>,
    },
    /// Quantities.
    Values {
        /// Names of the outputs.
        names: Vec<String>,
        /// Mean of each over the trusted rows.
        mean: Vec<f64>,
        /// Standard deviation of each over the trusted rows, or a twentieth of its range, if that is more.
        deviation: Vec<f64>,
    },
}

/// Answers of rows, as a network learns them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answers {
    /// Class indices, and how many classes there are.
    Classes(Vec<u32>, usize),
    /// Standardised quantities, row by row, and how many a row has.
    Values(Vec<f32>, usize),
}

impl AnswerScale {
    /// Of some tables, of which the first says what the target is: classes are those of all of them, moments those of the trusted rows (without them, of the audited ones).
    ///
    /// # Errors
    /// Refuses text as a quantity, more than 100 classes of text without being asked for them, and a quantity that does not vary over audited and trusted rows.
    pub(super) fn fit(
        tables: &[&Table],
        task: TaskChoice,
        audited: (&Table, &[usize]),
        trusted: (&Table, &[usize]),
    ) -> Result<Self> {
        let table = tables[0];
        if is_classification(table, task)? {
            let mut names = BTreeSet::new();
            for table in tables {
                (0..table.rows()).for_each(|row| _ = names.insert(table.target(row, 0)));
            }
            let mut names: Vec<String> = names.into_iter().collect();
            // Numbers by their size: 10 after 9.
            names
                .sort_by_key(|name| (name.parse::<i64>().map_or((1, 0), |number| (0, number)), name.clone()));
            return Ok(Self::Classes { names });
        }
        let names = table.targets();
        let (mut mean, mut deviation) = (Vec::new(), Vec::new());
        for (place, name) in names.iter().enumerate() {
            let (audited, trusted) = (quantities(audited, place)?, quantities(trusted, place)?);
            let (low, high) = range_of(&audited, &trusted, TARGET_REACH);
            let known = if trusted.is_empty() { audited } else { trusted };
            let (centre, spread) = moments(known.into_iter());
            let spread = spread.max(LEAST_DEVIATION * (high - low));
            if !(spread.is_finite() && spread > 0.0) {
                let found = format!(
                    "column `{name}` with a standard deviation of {spread} over the rows to learn from"
                );
                return Err(Error::data(table.path(), found, "a target that varies"));
            }
            mean.push(centre);
            deviation.push(spread);
        }
        Ok(Self::Values { names, mean, deviation })
    }

    /// Numbers that a network answers with: a logit a class, or a value an output.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { names } | Self::Values { names, .. } => names.len(),
        }
    }

    /// The number of classes; `None` of a regression.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Classes { names } => Some(names.len()),
            Self::Values { .. } => None,
        }
    }

    /// The answers of rows of a table.
    pub(super) fn answers(&self, table: &Table, rows: &[usize]) -> Result<Answers> {
        match self {
            Self::Classes { names } => {
                let class = |&row: &usize| {
                    let name = table.target(row, 0);
                    names.iter().position(|known| *known == name).map(|class| class as u32).ok_or_else(|| {
                        let entry = format!("row {}", row + 1);
                        Error::data_entry(table.path(), entry, format!("class `{name}`"), "a known class")
                    })
                };
                Ok(Answers::Classes(rows.iter().map(class).collect::<Result<_>>()?, names.len()))
            }
            Self::Values { mean, deviation, .. } => {
                let mut values = Vec::with_capacity(rows.len() * mean.len());
                for &row in rows {
                    for (place, (mean, deviation)) in mean.iter().zip(deviation).enumerate() {
                        values.push(((table.quantity(row, place)? - mean) / deviation) as f32);
                    }
                }
                Ok(Answers::Values(values, mean.len()))
            }
        }
    }
}

fn quantities((table, rows): (&Table, &[usize]), place: usize) -> Result<Vec<f64>> {
    rows.iter().map(|&row| table.quantity(row, place)).collect()
}

fn is_classification(table: &Table, task: TaskChoice) -> Result<bool> {
    let targets = table.targets();
    match task {
        TaskChoice::Regression => return Ok(false),
        TaskChoice::Auto if targets.len() > 1 => return Ok(false),
        TaskChoice::Auto | TaskChoice::Classification => {}
    }
    let distinct: BTreeSet<String> = (0..table.rows()).map(|row| table.target(row, 0)).collect();
    let is_number = distinct.iter().all(|text| text.parse::<f64>().is_ok());
    let is_whole = distinct.iter().all(|text| text.parse::<i64>().is_ok());
    match distinct.len() <= MOST_CLASSES {
        _ if task == TaskChoice::Classification => Ok(true),
        true => Ok(!is_number || is_whole),
        false if is_number => Ok(false),
        false => {
            let entry = format!("column `{}`", targets[0]);
            let found = format!("text of {} distinct values", distinct.len());
            let expected = format!("at most {MOST_CLASSES} classes, numbers, or --task classification");
            Err(Error::data_entry(table.path(), entry, found, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Columns;

    fn table(targets: impl Fn(usize) -> String) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        let rows: Vec<String> = (0..240).map(|row| format!("{row},{}", targets(row))).collect();
        std::fs::write(&path, format!("x,y\n{}\n", rows.join("\n"))).expect("written");
        let target = ["y".to_owned()];
        let table = Table::read(&path, Columns { target: &target, ignore: &[] }).expect("a table");
        (folder, table)
    }

    fn fitted(task: TaskChoice, targets: impl Fn(usize) -> String) -> Result<AnswerScale> {
        let (_folder, table) = table(targets);
        AnswerScale::fit(&[&table], task, (&table, &[]), (&table, &(0..100).collect::<Vec<_>>()))
    }

    #[test]
    fn features_become_shares_of_their_range_and_go_back() {
        // Ranges 2 to 6 and 5 to 5: by hand.
        let rows = [[2.0, 5.0], [6.0, 5.0], [3.0, 5.0]];
        let names = vec!["a".into(), "b".into()];
        let scale = InputScale::fit(names, std::iter::empty(), rows.iter().map(|row| &row[..]));
        assert_eq!(scale.scaled(&[3.0, 5.0]), [0.25, 0.0]);
        assert_eq!(scale.scaled(&[60.0, -1.0]), [1.0, 0.0], "clipped");
        assert_eq!(scale.unscaled(&[0.25, 0.0]), [3.0, 5.0]);
        // A share keeps its 24 bits wherever the range lies, and shows no others.
        assert_eq!(unscaled(0.25, 1_700_000_000.5, 1_700_000_100.5), 1_700_000_025.5);
        assert_eq!(unscaled(0.1, 0.0, 1.0), 0.1);
        assert_eq!(unscaled(0.3, -1e-30, 1e-30), -4e-31);
        assert_eq!((unscaled(1.0, 0.1, 0.7), unscaled(0.0, 0.1, 0.7)), (0.7, 0.1));
        assert_eq!(unscaled(0.5, 0.0, 1e200), 5e199);
        // Scaled 0, 1, 1/4: mean 5/12, variance 17/48 − 25/144.
        let deviation = (17.0 / 48.0 - 25.0 / 144.0_f64).sqrt();
        assert!((f64::from(scale.centre[0][0]) - 5.0 / 12.0).abs() < 1e-6);
        assert!((f64::from(scale.centre[0][1]) - 1.0 / deviation).abs() < 1e-5);
        assert_eq!(scale.centre[1], [0.0, 20.0], "a constant is divided by the least deviation");
    }

    /// Of one feature.
    fn of_one(audited: &[f64], trusted: &[f64]) -> InputScale {
        InputScale::fit(vec!["x".into()], audited.chunks(1), trusted.chunks(1))
    }

    #[test]
    fn hostile_rows_widen_a_range_to_eleven_times_that_of_the_trusted_rows_and_no_further() {
        let scaled = |hostile: &[f64], value: f64| {
            of_one(&[&[3.0, 6.0][..], hostile].concat(), &[0.0, 10.0]).scaled(&[value])[0]
        };
        // The trusted rows' own range, 0 to 10; it and five widths above; and five below as well. By hand.
        assert_eq!([3.0, 6.0].map(|value| scaled(&[], value)), [0.3, 0.6]);
        for far in [1e9, f64::MAX] {
            assert_eq!([3.0, 6.0, far].map(|value| scaled(&[far], value)), [0.05, 0.1, 1.0]);
            let both = [5.0, 60.0, far, -50.0, -far].map(|value| scaled(&[far, -far], value));
            assert_eq!(both, [0.5, 1.0, 1.0, 0.0, 0.0], "110 in all");
        }
        let scale = of_one(&[12.0, 8.0], &[0.0, 10.0]);
        assert_eq!((scale.low[0], scale.high[0]), (0.0, 12.0), "what lies near counts as it is");
    }

    #[test]
    fn a_feature_that_is_constant_in_the_trusted_rows_keeps_its_rare_values_beside_a_hostile_one() {
        let range = |audited: &[f64]| {
            let scale = of_one(audited, &[0.0; 4]);
            (scale.low[0], scale.high[0])
        };
        let rare = [&[0.0; 97][..], &[1.0; 3]].concat();
        assert_eq!(range(&rare), (0.0, 1.0));
        // Distances 1, 1, 1 and 1e9: the lower median is 1, three of it stand for a width, and the range is five widths.
        assert_eq!(range(&[&rare[..], &[1e9]].concat()), (0.0, 15.0));
        assert_eq!(range(&[0.0, 0.0, 1.0, -1e9]), (-15.0, 1.0), "of two the lower");
        // One hostile row where nothing else varies: the others stay 0.
        assert_eq!(of_one(&[0.0, 1e9], &[0.0; 4]).scaled(&[0.0]), [0.0]);
        let scale = of_one(&[0.0], &[0.0; 4]);
        assert_eq!((scale.scaled(&[0.0]), scale.scaled(&[7.0])), (vec![0.0], vec![0.0]));
        let scale = of_one(&[f64::MAX, -f64::MAX], &[0.0; 4]);
        let found = [0.0, f64::MAX, -f64::MAX].map(|value| scale.scaled(&[value])[0]);
        assert_eq!(found, [0.5, 1.0, 0.0], "no width overflows");
        assert_eq!(range_of(&[3.0, 1.0, 1e9], &[], REACH), (1.0, 1e9), "all count where none is trusted");
    }

    #[test]
    fn features_outside_their_range_are_counted_by_how_far() {
        let rows = [[0.0, 10.0, 5.0], [1.0, 20.0, 5.0]];
        let names = vec!["a".into(), "b".into(), "c".into()];
        let scale = InputScale::fit(names, std::iter::empty(), rows.iter().map(|row| &row[..]));
        let outside = |row: [f64; 3]| [0.0, 1.0].map(|widths| scale.outside(&row, widths));
        assert_eq!(outside([0.0, 20.0, 5.0]), [0, 0], "the ends are inside");
        assert_eq!(outside([2.0, 9.0, 5.0]), [2, 0], "one width is not more than one");
        assert_eq!(outside([-1.5, 30.5, 5.5]), [3, 3], "a constant has no width");
    }

    #[test]
    fn whole_numbers_and_text_of_few_values_are_classes() {
        let classes = |task, targets: fn(usize) -> String| fitted(task, targets).expect("fitted").classes();
        use TaskChoice::{Auto, Classification, Regression};
        assert_eq!(classes(Auto, |row| (row % 12).to_string()), Some(12));
        assert_eq!(classes(Auto, |row| format!("c{}", row % 3)), Some(3));
        assert_eq!(classes(Auto, |row| (row % 101).to_string()), None, "101 values are a quantity");
        assert_eq!(classes(Auto, |row| format!("{}.5", row % 3)), None);
        assert_eq!(classes(Classification, |row| format!("{}.5", row % 3)), Some(3));
        assert_eq!(classes(Regression, |row| (row % 12).to_string()), None);
        assert!(fitted(Auto, |row| format!("c{row}")).expect_err("240 texts").to_string().contains("240"));
        assert!(
            fitted(Regression, |row| format!("c{}", row % 3))
                .expect_err("text")
                .to_string()
                .contains("row 1")
        );
    }

    #[test]
    fn classes_are_in_the_order_of_their_numbers() {
        let AnswerScale::Classes { names } =
            fitted(TaskChoice::Auto, |row| (row % 12).to_string()).expect("fitted")
        else {
            panic!("classes")
        };
        assert_eq!(names[8..], ["8", "9", "10", "11"]);
    }

    #[test]
    fn a_hostile_target_moves_neither_mean_nor_deviation() {
        let of = |targets: fn(usize) -> String| {
            let (_folder, table) = table(targets);
            let [audited, trusted]: [Vec<usize>; 2] = [(0..200).collect(), (200..240).collect()];
            let parts = ((&table, &audited[..]), (&table, &trusted[..]));
            let scale = AnswerScale::fit(&[&table], TaskChoice::Regression, parts.0, parts.1);
            let AnswerScale::Values { mean, deviation, .. } = scale.expect("fitted") else {
                panic!("values")
            };
            (mean[0], deviation[0])
        };
        let honest = of(|row| row.to_string());
        assert_eq!(honest, of(|row| if row == 3 { "1e12".to_owned() } else { row.to_string() }));
        // Trusted rows 200, 201 … 239: mean 219.5, variance (40² − 1) / 12.
        assert!((honest.0 - 219.5).abs() < 1e-9 && (honest.1 - (1599.0 / 12.0_f64).sqrt()).abs() < 1e-9);
        // Trusted ones are all 0; audited ones 0 to 4, whose median distance is 2: a range of 0 to 4, a twentieth of which is 0.2.
        let (mean, deviation) = of(|row| (if row < 200 { row % 5 } else { 0 }).to_string());
        assert!(mean == 0.0 && (deviation - 0.2).abs() < 1e-12, "{mean}, {deviation}");
    }

    #[test]
    fn quantities_are_standardised_by_the_rows_that_are_trusted() {
        let scale = fitted(TaskChoice::Regression, |row| format!("{}", row * 2)).expect("fitted");
        let AnswerScale::Values { mean, deviation, .. } = &scale else { panic!("values") };
        // 0, 2 … 198: mean 99, variance 4 (100² − 1) / 12.
        assert!((mean[0] - 99.0).abs() < 1e-9 && (deviation[0] - (9999.0 / 3.0_f64).sqrt()).abs() < 1e-9);
        let (_folder, table) = table(|row| format!("{}", row * 2));
        let Answers::Values(values, 1) = scale.answers(&table, &[0, 99]).expect("numbers") else {
            panic!("one output")
        };
        assert!((f64::from(values[1]) - 99.0 / deviation[0]).abs() < 1e-6 && values[0] == -values[1]);
    }
}
