//! Where in an image the autoencoder sees something: the mean over channels of |x − D(x)|, smoothed with a 5 x 5 median (Kascenas 2022).

/// Side of the median's window.
const WINDOW: usize = 5;

/// Anchors of the colour map "inferno" (van der Walt & Smith 2015), from black to light yellow: lightness rises evenly, so that it reads
/// the same without colour.
const INFERNO: [[f64; 3]; 8] = [
    [0.0, 0.0, 4.0],
    [40.0, 11.0, 84.0],
    [101.0, 21.0, 110.0],
    [159.0, 42.0, 99.0],
    [212.0, 72.0, 66.0],
    [245.0, 125.0, 21.0],
    [250.0, 193.0, 39.0],
    [252.0, 255.0, 164.0],
];

/// The map of one image, `[height, width]`, from image and reconstruction as `[3, height, width]` in `[0, 1]`.
pub(super) fn anomaly_map(image: &[f32], reconstruction: &[f32], width: usize) -> Vec<f32> {
    let residual: Vec<f32> =
        image.iter().zip(reconstruction).map(|(pixel, denoised)| pixel - denoised).collect();
    smoothed(&magnitudes(&residual), width, Smoothing::Median)
}

/// What a classifier's answer hangs on: the map of a gradient `[3, height, width]`, `[height, width]`, as shares of its largest value. Its mean over the
/// window keeps a trigger that is smaller than half of it, as the median would not.
pub(super) fn saliency_map(gradient: &[f32], width: usize) -> Vec<f32> {
    let map = smoothed(&magnitudes(gradient), width, Smoothing::Mean);
    let largest = map.iter().copied().fold(0.0, f32::max);
    let scale = if largest > 0.0 { largest.recip() } else { 0.0 };
    map.into_iter().map(|value| scale * value).collect()
}

/// Mean over channels of the absolute values: `[3, height, width]` to `[height, width]`.
pub(super) fn magnitudes(changes: &[f32]) -> Vec<f32> {
    let area = changes.len() / 3;
    let at = |pixel: usize| [pixel, area + pixel, 2 * area + pixel];
    (0..area).map(|pixel| at(pixel).map(|at| changes[at].abs()).iter().sum::<f32>() / 3.0).collect()
}

/// How a map is smoothed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Smoothing {
    /// Forgets what is smaller than half the window.
    Median,
    /// Keeps it, blurred.
    Mean,
}

impl Smoothing {
    pub(super) const ALL: [Self; 2] = [Self::Median, Self::Mean];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::Mean => "mean",
        }
    }

    fn of(self, window: &mut [f32; WINDOW * WINDOW]) -> f32 {
        match self {
            Self::Median => *window.select_nth_unstable_by(WINDOW * WINDOW / 2, f32::total_cmp).1,
            Self::Mean => window.iter().sum::<f32>() / window.len() as f32,
        }
    }
}

/// Each pixel the median or mean of the window around it; beyond its edges the image is mirrored.
pub(super) fn smoothed(map: &[f32], width: usize, smoothing: Smoothing) -> Vec<f32> {
    let height = map.len() / width;
    let around = |at: usize, size: usize| -> [usize; WINDOW] {
        std::array::from_fn(|step| mirrored(at as isize + step as isize - (WINDOW / 2) as isize, size))
    };
    let mut found = Vec::with_capacity(map.len());
    for y in 0..height {
        let rows = around(y, height);
        for x in 0..width {
            let columns = around(x, width);
            let mut window = [0.0; WINDOW * WINDOW];
            for (cell, slot) in window.iter_mut().enumerate() {
                *slot = map[rows[cell / WINDOW] * width + columns[cell % WINDOW]];
            }
            found.push(smoothing.of(&mut window));
        }
    }
    found
}

/// `d c b a | a b c d | d c b a`, however far outside.
fn mirrored(at: isize, size: usize) -> usize {
    let inside = at.rem_euclid(2 * size as isize) as usize;
    inside.min(2 * size - 1 - inside)
}

/// The map as an RGB8 image, `[3, height, width]`, and what it was multiplied with: a power of two that brings its largest value near white.
pub(super) fn coloured(map: &[f32]) -> (Vec<u8>, f64) {
    let largest = map.iter().copied().fold(1.0 / 1024.0, f32::max);
    let gain = f64::from(largest).recip().log2().floor().exp2();
    let channel = |channel: usize| map.iter().map(move |&value| inferno(gain * f64::from(value))[channel]);
    ((0..3).flat_map(channel).collect(), gain)
}

fn inferno(value: f64) -> [u8; 3] {
    let last = INFERNO.len() - 1;
    let position = value.clamp(0.0, 1.0) * last as f64;
    let anchor = (position as usize).min(last - 1);
    let weight = position - anchor as f64;
    let between = |(a, b): (f64, f64)| (a + weight * (b - a)).round() as u8;
    std::array::from_fn(|channel| between((INFERNO[anchor][channel], INFERNO[anchor + 1][channel])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_keeps_what_a_median_of_the_same_window_forgets() {
        // A patch of 3 x 3 is 9 of 25 pixels.
        let mut map = vec![0.0; 16 * 16];
        for y in 8..11 {
            map[y * 16 + 8..y * 16 + 11].fill(0.5);
        }
        assert_eq!(smoothed(&map, 16, Smoothing::Median), vec![0.0; 256]);
        assert!((smoothed(&map, 16, Smoothing::Mean)[9 * 16 + 9] - 0.5 * 9.0 / 25.0).abs() < 1e-7);
    }

    #[test]
    fn a_saliency_map_is_brightest_at_the_largest_gradient_however_small_that_is() {
        let mut gradient = vec![0.0; 3 * 16 * 16];
        // One channel of a patch of 3 x 3, downwards.
        for y in 8..11 {
            gradient[256 + y * 16 + 4..256 + y * 16 + 7].fill(-1e-6);
        }
        let map = saliency_map(&gradient, 16);
        assert_eq!(map[9 * 16 + 5], 1.0);
        assert_eq!(map[2 * 16 + 12], 0.0);
        assert_eq!(saliency_map(&[0.0; 3 * 64], 8), vec![0.0; 64]);
    }

    #[test]
    fn a_single_odd_pixel_is_noise_and_a_patch_stays_where_it_is() {
        let mut map = vec![0.0; 16 * 16];
        map[3 * 16 + 3] = 1.0;
        for y in 8..13 {
            map[y * 16 + 7..y * 16 + 12].fill(0.5);
        }
        let filtered = smoothed(&map, 16, Smoothing::Median);
        assert_eq!(filtered[3 * 16 + 3], 0.0);
        assert_eq!(filtered[10 * 16 + 9], 0.5);
        assert!(filtered[..7 * 16].iter().all(|&value| value == 0.0));
    }

    #[test]
    fn the_median_at_a_corner_is_that_of_the_mirrored_image() {
        // Pixels 10 y + x. Mirrored, rows and columns are 1 0 0 1 2: twice the rows 0 and 1, once row 2. Of the 25 values, ten are
        // below 10 (those of row 0), the others 10 10 11 11 12 twice and 20 20 21 21 22: the 13th is a 10.
        let map: Vec<f32> = (0..36).map(|pixel| (10 * (pixel / 6) + pixel % 6) as f32).collect();
        let filtered = smoothed(&map, 6, Smoothing::Median);
        assert_eq!(filtered[0], 10.0);
        // Without an edge in reach it is the middle itself.
        assert_eq!(filtered[2 * 6 + 3], 23.0);
    }

    #[test]
    fn a_window_larger_than_the_image_is_mirrored_more_than_once() {
        // … | a b | b a | a b | b a | a b …, where the middle pair is the image.
        assert_eq!((-4..6).map(|at| mirrored(at, 2)).collect::<Vec<_>>(), [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]);
        assert_eq!(smoothed(&[0.25; 2], 1, Smoothing::Median), [0.25; 2]);
    }

    #[test]
    fn the_map_is_the_mean_over_channels_of_the_absolute_difference() {
        // 0.3 off in red, −0.6 in blue, nothing in green, everywhere: (0.3 + 0.6) / 3.
        let area = 36;
        let image = vec![0.5_f32; 3 * area];
        let mut reconstruction = image.clone();
        reconstruction[..area].fill(0.2);
        reconstruction[2 * area..].fill(1.1);
        let map = anomaly_map(&image, &reconstruction, 6);
        assert!(map.iter().all(|value| (value - 0.3).abs() < 1e-6), "{map:?}");
    }

    #[test]
    fn gains_are_powers_of_two_and_white_is_never_passed() {
        for (largest, expected) in [(1.0, 1.0), (0.5, 2.0), (0.03, 32.0), (0.0, 1024.0)] {
            let (pixels, gain) = coloured(&[0.0, largest]);
            assert_eq!(gain, expected, "{largest}");
            assert_eq!([pixels[0], pixels[2], pixels[4]], [0, 0, 4], "nothing is black");
        }
        assert_eq!(coloured(&[0.0, 1.0]).0, [0, 252, 0, 255, 4, 164]);
    }
}
