//! Statistics of the fine structure of a stored image: what is left of it beside its smoothed self, as steganalysis counts it (Fridrich & Kodovský 2012).
//!
//! Noise of a camera falls on each value by itself; an attack's steps are of one size, follow the edges of what the network sees, and stop at a ball's surface. Both are
//! a few grey levels, and which of them an image carries shows only in such counts.

use rayon::prelude::*;

use crate::dataset::{Dataset, ImageSize};
use crate::error::Result;

/// Shares of the values, the flattest first, whose fine structure is looked at by itself.
const FLATTEST: [f64; 3] = [0.25, 0.5, 1.0];

/// Bounds of the bins of |h| / rms(h).
const BINS: [f32; 9] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, f32::INFINITY];

/// Largest first difference that is counted by itself.
const FIRST: i32 = 6;

/// First differences beyond this are counted together.
const EDGE: i32 = 12;

/// Absolute second differences that are counted, from 0.
const SECOND: i32 = 9;

/// Distances, down and to the right, at which the fine structure is compared with itself.
const LAGS: [[usize; 2]; 4] = [[0, 1], [1, 0], [1, 1], [0, 2]];

/// Keeps quotients of what may be nothing finite, in squared grey levels.
const FLOOR: f32 = 1e-3;

/// Statistics of an image.
pub(super) const COUNT: usize =
    FLATTEST.len() * (3 + BINS.len()) + 3 * (2 * FIRST as usize + 2) + 2 * SECOND as usize + 3 + LAGS.len();

/// Of the images at `indices`, [`COUNT`] values each.
pub(super) fn statistics_of(set: &Dataset, indices: &[usize]) -> Result<Vec<f32>> {
    let rows: Vec<Vec<f32>> = indices
        .par_iter()
        .map(|&index| Ok(statistics(&set.pixels(index)?, set.size())))
        .collect::<Result<_>>()?;
    Ok(rows.concat())
}

/// [`COUNT`] values of an image, RGB8 `[3, height, width]`.
pub(super) fn statistics(pixels: &[u8], size: ImageSize) -> Vec<f32> {
    let planes = Planes { height: size.height as usize, width: size.width as usize };
    let smooth = planes.map(|at| planes.surroundings(pixels, at));
    let fine: Vec<f32> =
        pixels.iter().zip(&smooth).map(|(&pixel, smooth)| f32::from(pixel) - smooth).collect();
    let slopes = planes.map(|at| planes.slope(&smooth, at));
    let mut found = Vec::with_capacity(COUNT);
    for share in FLATTEST {
        found.extend(moments(&fine, &slopes, share));
    }
    // To the right, downwards, and from channel to channel.
    for step in [[0, 0, 1], [0, 1, 0], [1, 0, 0]] {
        let differences = planes.pairs(step).map(|(a, b)| i32::from(pixels[b]) - i32::from(pixels[a]));
        found.extend(histogram(differences, (2 * FIRST + 2) as usize, |difference| match difference {
            difference if difference.abs() <= FIRST => Some((difference + FIRST) as usize),
            difference if difference.abs() > EDGE => Some((2 * FIRST + 1) as usize),
            _ => None,
        }));
    }
    for step in [[0, 0, 1], [0, 1, 0]] {
        let differences = planes.pairs(step.map(|size| 2 * size)).map(|(a, b)| {
            let middle = usize::midpoint(a, b);
            (i32::from(pixels[a]) - 2 * i32::from(pixels[middle]) + i32::from(pixels[b])).abs()
        });
        found.extend(histogram(differences, SECOND as usize, |difference| {
            (difference < SECOND).then_some(difference as usize)
        }));
    }
    let area = planes.height * planes.width;
    let energy = |channel: usize| {
        fine[channel * area..][..area].iter().map(|value| value * value).sum::<f32>() / area as f32
    };
    for [a, b] in [[0, 1], [1, 2], [0, 2]] {
        let both =
            (0..area).map(|pixel| fine[a * area + pixel] * fine[b * area + pixel]).sum::<f32>() / area as f32;
        found.push(both / (energy(a) * energy(b) + FLOOR).sqrt());
    }
    let all = (0..3).map(energy).sum::<f32>() / 3.0;
    for [down, right] in LAGS {
        let (sum, pairs) = planes
            .pairs([0, down, right])
            .fold((0.0, 0.0_f32), |(sum, pairs), (a, b)| (sum + fine[a] * fine[b], pairs + 1.0));
        found.push(sum / pairs.max(1.0) / (all + FLOOR));
    }
    found
}

/// Three planes of values.
#[derive(Clone, Copy)]
struct Planes {
    height: usize,
    width: usize,
}

impl Planes {
    fn map(self, value: impl Fn([usize; 3]) -> f32) -> Vec<f32> {
        let Self { height, width } = self;
        (0..3 * height * width)
            .map(|at| value([at / (height * width), at / width % height, at % width]))
            .collect()
    }

    /// Position of a value; beyond an edge that of the edge.
    fn at(self, [channel, y, x]: [usize; 3], [down, right]: [isize; 2]) -> usize {
        let within = |at: usize, by: isize, size: usize| at.saturating_add_signed(by).min(size - 1);
        (channel * self.height + within(y, down, self.height)) * self.width + within(x, right, self.width)
    }

    /// Mean of the 3 x 3 values around.
    fn surroundings(self, pixels: &[u8], at: [usize; 3]) -> f32 {
        let sum: u32 = (-1..=1)
            .flat_map(|down| (-1..=1).map(move |right| [down, right]))
            .map(|by| u32::from(pixels[self.at(at, by)]))
            .sum();
        sum as f32 / 9.0
    }

    /// Sum of the absolute central differences in both directions.
    fn slope(self, values: &[f32], at: [usize; 3]) -> f32 {
        let along = |by: [isize; 2]| (values[self.at(at, by)] - values[self.at(at, by.map(|by| -by))]).abs();
        along([0, 1]) + along([1, 0])
    }

    /// Positions of all pairs of values that lie so many channels, rows and columns apart.
    fn pairs(self, [channels, down, right]: [usize; 3]) -> impl Iterator<Item = (usize, usize)> {
        let Self { height, width } = self;
        let distance = (channels * height + down) * width + right;
        let inside = move |&at: &usize| {
            let [channel, y, x] = [at / (height * width), at / width % height, at % width];
            channel + channels < 3 && y + down < height && x + right < width
        };
        (0..3 * height * width).filter(inside).map(move |at| (at, at + distance))
    }
}

/// Mean, mean square, kurtosis and evenness of |h|, and how |h| / rms(h) is spread, over the share of the values with the smallest slopes.
fn moments(fine: &[f32], slopes: &[f32], share: f64) -> Vec<f32> {
    let mut ascending = slopes.to_vec();
    let last = (share * (ascending.len() - 1) as f64) as usize;
    let limit = *ascending.select_nth_unstable_by(last, f32::total_cmp).1;
    let flat: Vec<f32> =
        fine.iter().zip(slopes).filter(|(_, slope)| **slope <= limit).map(|(value, _)| value.abs()).collect();
    let mean = |power: i32| flat.iter().map(|value| value.powi(power)).sum::<f32>() / flat.len() as f32;
    let [first, second, fourth] = [1, 2, 4].map(mean);
    let scale = (second + FLOOR).sqrt().recip();
    let spread = histogram(flat.iter().copied(), BINS.len() - 1, |value| {
        Some(BINS.partition_point(|bound| *bound <= value * scale) - 1)
    });
    [first, second, fourth / (second * second + FLOOR), first * scale].into_iter().chain(spread).collect()
}

/// The share of the values in each bin.
fn histogram<T>(values: impl Iterator<Item = T>, bins: usize, bin: impl Fn(T) -> Option<usize>) -> Vec<f32> {
    let (mut counts, mut all) = (vec![0.0; bins], 0.0_f32);
    for value in values {
        all += 1.0;
        if let Some(bin) = bin(value) {
            counts[bin] += 1.0;
        }
    }
    counts.into_iter().map(|count| count / all.max(1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ImageSize = ImageSize { width: 8, height: 8 };

    /// Where the counts of differences to the right begin.
    const RIGHT: usize = FLATTEST.len() * (3 + BINS.len());

    #[test]
    fn an_even_image_has_no_fine_structure_and_no_differences() {
        let found = statistics(&[128; 3 * 64], SIZE);
        assert_eq!(found.len(), COUNT);
        assert_eq!(COUNT, 103);
        assert!(found[..3].iter().all(|moment| *moment == 0.0));
        for direction in 0..3 {
            assert_eq!(found[RIGHT + 14 * direction + 6], 1.0, "all first differences are 0");
        }
        assert!(found.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn a_chequered_image_differs_from_its_neighbours_and_agrees_with_its_diagonal() {
        // 100 and 104 in turn.
        let pixels: Vec<u8> =
            (0..3 * 64).map(|at| if (at / 8 + at % 8) % 2 == 0 { 100 } else { 104 }).collect();
        let found = statistics(&pixels, SIZE);
        // To the right half of the differences are 4, half are -4; from channel to channel all are 0.
        assert_eq!((found[RIGHT + 2], found[RIGHT + 10]), (0.5, 0.5));
        assert_eq!(found[RIGHT + 28 + 6], 1.0);
        // Second differences are 8 throughout.
        assert_eq!(found[RIGHT + 42 + 8], 1.0);
        let [right, down, diagonal, two] = found[COUNT - 4..] else { panic!("four lags") };
        assert!(
            right < -0.8 && down < -0.8 && diagonal > 0.8 && two > 0.8,
            "{right} {down} {diagonal} {two}"
        );
        // The channels are the same.
        assert!(found[COUNT - 7..COUNT - 4].iter().all(|correlation| (correlation - 1.0).abs() < 1e-3));
    }

    #[test]
    fn images_too_small_for_a_lag_have_none() {
        let found = statistics(&[7; 3], ImageSize { width: 1, height: 1 });
        assert!(found.len() == COUNT && found.iter().all(|value| value.is_finite()));
    }
}
