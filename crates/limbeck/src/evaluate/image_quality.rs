//! How close a restored image is to its original: MSE, PSNR, SSIM.
//!
//! Pixels are in `[0, 1]`, planar: `[channels, height, width]`, row by row. MSE is in squared pixel
//! units, PSNR in dB, SSIM in `[-1, 1]` with 1 for identical images.
//!
//! ```
//! use limbeck::evaluate::image_quality::{mse, psnr};
//!
//! let error = mse(&[0.5, 0.5], &[0.6, 0.4])?;
//! assert!((psnr(error) - 20.0).abs() < 1e-5);
//! # Ok::<(), limbeck::error::Error>(())
//! ```

use crate::error::{Error, Result};

/// Side of the SSIM window, in pixels: sigma 1.5 cut at 3.5 sigma (Wang 2004, section III-C).
pub(super) const WINDOW: usize = 11;
/// Standard deviation of the SSIM window, in pixels.
const SIGMA: f64 = 1.5;
/// `(K1 L)^2` with K1 = 0.01 and range L = 1 (Wang 2004, eq. 7).
const C1: f64 = 0.01 * 0.01;
/// `(K2 L)^2` with K2 = 0.03 and range L = 1.
const C2: f64 = 0.03 * 0.03;

/// Mean squared error between two images, in squared pixel units; summed in `f64`.
///
/// # Errors
/// [`Error::Input`] when the images are empty or of different lengths.
pub fn mse(a: &[f32], b: &[f32]) -> Result<f64> {
    if a.is_empty() || a.len() != b.len() {
        return Err(Error::input(
            "mse",
            format!("{} and {} values", a.len(), b.len()),
            "two images of one size",
        ));
    }
    let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    Ok(sum / a.len() as f64)
}

/// Peak signal-to-noise ratio in dB at peak 1, `-10 log10(mse)`.
///
/// Identical images (`mse` 0) give infinity, and one of them makes any mean of PSNRs infinite. Over a
/// set, average the MSE and convert once: `psnr(mean of mse)`.
pub fn psnr(mse: f64) -> f64 {
    -10.0 * mse.log10()
}

/// Mean structural similarity of two images of shape `[channels, height, width]` (Wang 2004, eq. 13).
///
/// Gaussian window 11x11 with sigma 1.5, population covariance, only windows that lie inside the
/// image; averaged over windows and channels. Equal to scikit-image's
/// `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
/// data_range=1)`.
///
/// # Errors
/// [`Error::Input`] when a length is not `channels * height * width`, there is no channel, or a
/// side is shorter than the window.
pub fn ssim(a: &[f32], b: &[f32], channels: usize, height: usize, width: usize) -> Result<f64> {
    check_shape(a, b, [channels, height, width])?;
    let window = gaussian_window();
    let plane = height * width;
    let total: f64 =
        a.chunks_exact(plane).zip(b.chunks_exact(plane)).map(|(a, b)| plane_ssim(a, b, width, &window)).sum();
    Ok(total / channels as f64)
}

fn check_shape(a: &[f32], b: &[f32], shape: [usize; 3]) -> Result<()> {
    const OPERATION: &str = "ssim";
    let [channels, height, width] = shape;
    let size = channels.checked_mul(height).and_then(|rows| rows.checked_mul(width));
    if channels == 0 || size != Some(a.len()) || a.len() != b.len() {
        let found = format!("{} and {} values", a.len(), b.len());
        return Err(Error::input(OPERATION, found, format!("two images of shape {shape:?}")));
    }
    if height < WINDOW || width < WINDOW {
        let expected = format!("at least {WINDOW} x {WINDOW} pixels, the size of the window");
        return Err(Error::input(OPERATION, format!("{height} x {width} pixels"), expected));
    }
    Ok(())
}

/// SSIM of one channel: four filtered maps suffice, since only the sum of the two variances enters.
fn plane_ssim(a: &[f32], b: &[f32], width: usize, window: &[f64; WINDOW]) -> f64 {
    let filtered = |value: fn(f64, f64) -> f64| {
        let map: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| value(a.into(), b.into())).collect();
        filter_valid(&map, width, window)
    };
    let mean_a = filtered(|a, _| a);
    let mean_b = filtered(|_, b| b);
    let mean_squares = filtered(|a, b| a * a + b * b);
    let mean_product = filtered(|a, b| a * b);
    let total: f64 = (0..mean_a.len())
        .map(|i| {
            let product = mean_a[i] * mean_b[i];
            let squares = mean_a[i] * mean_a[i] + mean_b[i] * mean_b[i];
            let covariance = mean_product[i] - product;
            let variances = mean_squares[i] - squares;
            (2.0 * product + C1) * (2.0 * covariance + C2) / ((squares + C1) * (variances + C2))
        })
        .sum();
    total / mean_a.len() as f64
}

/// Separable filter over the windows that lie inside the map; `[h, w]` becomes `[h - 10, w - 10]`.
fn filter_valid(map: &[f64], width: usize, window: &[f64; WINDOW]) -> Vec<f64> {
    let inner = width - (WINDOW - 1);
    let height = map.len() / width;
    let mut rows = vec![0.0; height * inner];
    for (filtered, row) in rows.chunks_exact_mut(inner).zip(map.chunks_exact(width)) {
        for (tap, &weight) in window.iter().enumerate() {
            add_scaled(filtered, &row[tap..tap + inner], weight);
        }
    }
    let mut filtered = vec![0.0; (height - (WINDOW - 1)) * inner];
    for (tap, &weight) in window.iter().enumerate() {
        let shifted = &rows[tap * inner..][..filtered.len()];
        add_scaled(&mut filtered, shifted, weight);
    }
    filtered
}

fn add_scaled(sum: &mut [f64], values: &[f64], weight: f64) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// Gaussian weights that add up to 1.
fn gaussian_window() -> [f64; WINDOW] {
    let raw: [f64; WINDOW] = std::array::from_fn(|i| {
        let offset = i as f64 - (WINDOW / 2) as f64;
        (-offset * offset / (2.0 * SIGMA * SIGMA)).exp()
    });
    let sum: f64 = raw.iter().sum();
    raw.map(|weight| weight / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A patterned image and a noisy copy, in steps of 1/256 so that every program holds the very
    /// same numbers.
    fn pair(channels: i32, height: i32, width: i32) -> (Vec<f32>, Vec<f32>) {
        let places =
            (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
        let levels = places.map(|(c, y, x)| {
            let level = (7 * x + 5 * y + 40 * c + ((x / 4 + y / 3) % 2) * 60) % 256;
            let noise = (x * x * 31 + y * y * 17 + x * y * 13 + c * 7) % 23 - 11;
            (level as f32 / 256.0, (level + noise).clamp(0, 255) as f32 / 256.0)
        });
        levels.unzip()
    }

    #[test]
    fn mse_psnr_and_ssim_are_scikit_images() -> Result<()> {
        // scikit-image 0.26.0 in float64: structural_similarity(gaussian_weights=True, sigma=1.5,
        // use_sample_covariance=False, data_range=1), mean over channels; mean_squared_error;
        // peak_signal_noise_ratio
        for ([channels, height, width], similarity, error, ratio) in [
            ([3, 32, 32], 0.9894844804514354, 0.0006589839855829874, 31.811251393626634),
            ([1, 11, 11], 0.9824776776461307, 0.0006353204900568181, 31.97007137778055),
            ([3, 24, 17], 0.9858070218139711, 0.0006564769869536356, 31.82780493663192),
        ] {
            let (a, b) = pair(channels, height, width);
            let found = ssim(&a, &b, channels as usize, height as usize, width as usize)?;
            assert!((found - similarity).abs() < 1e-9, "ssim {found}, expected {similarity}");
            let found = mse(&a, &b)?;
            assert!((found - error).abs() < 1e-15, "mse {found}, expected {error}");
            assert!((psnr(found) - ratio).abs() < 1e-9);
        }
        Ok(())
    }

    #[test]
    fn an_inverted_image_has_negative_similarity() -> Result<()> {
        // scikit-image 0.26.0 as above
        let (a, _) = pair(3, 24, 17);
        let inverted: Vec<f32> = a.iter().map(|value| 1.0 - value).collect();
        assert!((ssim(&a, &inverted, 3, 24, 17)? - -0.7715472192044048).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn flat_images_are_compared_by_their_means_alone() -> Result<()> {
        // Variances vanish, so eq. 13 leaves (2ab + C1) / (a^2 + b^2 + C1).
        let expected = (2.0 * 0.25 * 0.75 + 1e-4) / (0.25 * 0.25 + 0.75 * 0.75 + 1e-4);
        let found = ssim(&[0.25; 144], &[0.75; 144], 1, 12, 12)?;
        assert!((found - expected).abs() < 1e-12, "{found}");
        Ok(())
    }

    #[test]
    fn identical_images_score_one_and_infinity() -> Result<()> {
        let (a, _) = pair(3, 32, 32);
        assert!((ssim(&a, &a, 3, 32, 32)? - 1.0).abs() < 1e-12);
        assert_eq!(psnr(mse(&a, &a)?), f64::INFINITY);
        Ok(())
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let image = [0.5; 300];
        assert!(mse(&image, &image[1..]).is_err());
        assert!(mse(&[], &[]).is_err());
        assert!(ssim(&image, &image[1..], 1, 15, 20).is_err());
        assert!(ssim(&image, &image, 2, 15, 20).is_err());
        assert!(ssim(&[], &[], 0, 15, 20).is_err());
        assert!(ssim(&image, &image, usize::MAX, 15, 20).is_err());
        let failure = ssim(&image, &image, 1, 10, 30).expect_err("smaller than the window");
        assert!(failure.to_string().contains("10 x 30 pixels"), "{failure}");
    }
}
