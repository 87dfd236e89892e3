//! One axis of a figure: its range, its ticks, and where a value falls.

use super::filters::{count, number};

/// Values beyond this are no measurement; drawing them would overflow the arithmetic of a range.
const LARGEST: f64 = 1e150;

/// How many intervals an axis aims at; rounding the step makes it 3 to 7.
const INTERVALS: f64 = 5.0;

/// The least span of an axis, as a share of its largest value, so that jitter is not blown up to a trend.
const LEAST_SPAN: f64 = 0.05;

/// A labelled range of values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// What is measured, with its unit.
    pub(super) label: String,
    from: f64,
    to: f64,
    scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Linear,
    /// Linear with ticks on whole numbers only.
    Whole,
    Log,
}

/// Whether a value can be drawn.
pub(super) fn drawable(x: f64) -> bool {
    x.abs() < LARGEST
}

impl Axis {
    /// A linear axis over a given range.
    pub(super) fn fixed(label: impl Into<String>, from: f64, to: f64) -> Self {
        Self { label: label.into(), from, to, scale: Scale::Linear }
    }

    /// An axis of counts or epochs, from the least to the largest value.
    pub(super) fn whole(label: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values);
        let (from, to) = if high - low < 1.0 { (low - 0.5, high + 0.5) } else { (low, high) };
        Self { label: label.into(), from, to, scale: Scale::Whole }
    }

    /// A logarithmic axis over a given range above 0.
    pub(super) fn log(label: impl Into<String>, from: f64, to: f64) -> Self {
        Self { label: label.into(), from: from / 1.1, to: to * 1.1, scale: Scale::Log }
    }

    /// An axis around measured values: logarithmic when all are positive and span more than two decades.
    pub(super) fn around(label: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values);
        if low > 0.0 && high / low > 100.0 {
            return Self { label: label.into(), from: low / 1.3, to: high * 1.3, scale: Scale::Log };
        }
        Self::linear_around(label, [low, high])
    }

    /// A linear axis around measured values, never below zero when they are not.
    pub(super) fn linear_around(label: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values);
        let least = (LEAST_SPAN * high.abs().max(low.abs())).max(1e-9);
        let margin = (0.06 * (high - low)).max((least - (high - low)) / 2.0);
        let from = if low >= 0.0 { (low - margin).max(0.0) } else { low - margin };
        Self { label: label.into(), from, to: high + margin, scale: Scale::Linear }
    }

    /// Whether equal distances are equal ratios.
    pub(super) fn is_log(&self) -> bool {
        self.scale == Scale::Log
    }

    /// Where `x` falls: 0 at the start of the axis, 1 at its end; `None` outside.
    pub(super) fn place(&self, x: f64) -> Option<f64> {
        let position = match self.scale {
            Scale::Log => (x / self.from).ln() / (self.to / self.from).ln(),
            Scale::Linear | Scale::Whole => (x - self.from) / (self.to - self.from),
        };
        (-1e-9..=1.0 + 1e-9).contains(&position).then_some(position)
    }

    /// What lies at `place` of the axis: 0 is its start, 1 its end.
    pub(super) fn at(&self, place: f64) -> f64 {
        match self.scale {
            Scale::Log => self.from * (self.to / self.from).powf(place),
            Scale::Linear | Scale::Whole => self.from + place * (self.to - self.from),
        }
    }

    /// Start and end.
    pub(super) fn range(&self) -> [f64; 2] {
        [self.from, self.to]
    }

    /// Ticks inside the range as (value, label), in rising order.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Log => self.decades(),
            Scale::Linear => self.steps(round_step((self.to - self.from) / INTERVALS)),
            Scale::Whole => self.steps(round_step((self.to - self.from) / INTERVALS).max(1.0)),
        }
    }

    fn steps(&self, step: f64) -> Vec<(f64, String)> {
        let first = (self.from / step - 1e-9).ceil();
        let last = (self.to / step + 1e-9).floor();
        let decimals = (-step.log10().floor()).max(0.0);
        let label = |x: f64| {
            if decimals == 0.0 && (0.0..1e6).contains(&x) {
                count(x.round() as u64)
            } else if decimals <= 4.0 && x.abs() < 1e6 {
                format!("{x:.*}", decimals as usize).replace('-', "−")
            } else {
                number(x)
            }
        };
        let ticks = (last - first).clamp(0.0, 2.0 * INTERVALS) as usize;
        // Adding zero turns a negative zero into zero.
        (0..=ticks).map(|i| (first + i as f64) * step + 0.0).map(|x| (x, label(x))).collect()
    }

    fn decades(&self) -> Vec<(f64, String)> {
        let (first, last) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
        let stride = ((last - first) / 6 + 1) as usize;
        (first..=last).step_by(stride).map(|k| 10f64.powi(k)).map(|x| (x, number(x))).collect()
    }
}

/// The range of the drawable values; `[0, 1]` when there is none.
fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    values
        .into_iter()
        .filter(|&x| drawable(x))
        .fold(None, |range, x| {
            range.map_or(Some((x, x)), |(low, high): (f64, f64)| Some((low.min(x), high.max(x))))
        })
        .unwrap_or((0.0, 1.0))
}

/// The least of 1, 2, 5 times a power of ten that is at least three quarters of `raw`.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&step| step >= 0.75 * raw).unwrap_or(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn the_unit_range_is_marked_in_fifths() {
        assert_eq!(labels(&Axis::fixed("", 0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn one_epoch_has_one_whole_tick() {
        assert_eq!(labels(&Axis::whole("", [1.0])), ["1"]);
    }

    #[test]
    fn a_constant_is_not_labelled_with_equal_ticks() {
        let labels = labels(&Axis::around("", [0.031_94]));
        let unique: std::collections::BTreeSet<_> = labels.iter().collect();
        assert_eq!(unique.len(), labels.len(), "{labels:?}");
    }

    #[test]
    fn three_decades_are_logarithmic() {
        let axis = Axis::around("", [0.002, 5.0]);
        assert!(axis.is_log());
        assert_eq!(labels(&axis), ["0.01", "0.1", "1"]);
        let middle = axis.place((0.002 * 5.0_f64).sqrt());
        assert!(
            middle.is_some_and(|at| (at - 0.5).abs() < 1e-12),
            "the geometric mean lies in the middle: {middle:?}"
        );
    }

    #[test]
    fn what_lies_at_a_place_is_found_there() {
        for axis in [Axis::around("", [-3.0, 5.0]), Axis::around("", [0.01, 50.0])] {
            for place in [0.0, 0.3, 1.0] {
                let found = axis.place(axis.at(place)).expect("inside");
                assert!((found - place).abs() < 1e-12, "{found} for {place}");
            }
        }
    }

    #[test]
    fn every_range_has_ticks_inside_it() {
        let ranges = [
            [0.0, 0.0],
            [7.0, 7.0],
            [-3.0, 1e-9],
            [1e12, 1e12 + 1.0],
            [-1e-7, 1e-7],
            [-1e140, 1e140],
            [0.1, 9.9],
        ];
        for values in ranges {
            let axis = Axis::around("", values);
            let ticks = axis.ticks();
            assert!((2..=11).contains(&ticks.len()), "{values:?}: {ticks:?}");
            assert!(ticks.iter().all(|(x, _)| axis.place(*x).is_some()), "{values:?}: {ticks:?}");
        }
    }

    #[test]
    fn what_is_not_finite_does_not_stretch_the_axis() {
        let plain = Axis::around("", [1.0, 2.0]);
        assert_eq!(Axis::around("", [1.0, f64::NAN, f64::INFINITY, 2.0]), plain);
        assert_eq!(plain.place(f64::NAN), None);
    }
}
