//! Honest damage: what cameras, lenses, light and file formats do to a picture without anybody meaning harm.
//!
//! A detector must tell it from poison: it is shown to the denoising autoencoder as harmless, and a frozen detector is measured on it.

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageFormat, RgbImage};
use rand::Rng as _;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::craft::quantise;
use crate::dataset::{Dataset, ImageSize};
use crate::error::{Error, Result};
use crate::rng::{Rng, Seed};

/// One kind of honest damage. The result is rounded to 8 bits, as a stored image is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum HonestDamage {
    /// Compression by JPEG.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// Gaussian sensor noise, independent in each pixel and channel.
    Noise {
        /// Standard deviation, in pixel units.
        sigma: f64,
    },
    /// Gaussian blur.
    Blur {
        /// Standard deviation, in pixels.
        sigma: f64,
    },
    /// All values times a factor.
    Brightness {
        /// 1 leaves the image alone.
        factor: f64,
    },
    /// Distance of all values from middle grey times a factor.
    Contrast {
        /// 1 leaves the image alone.
        factor: f64,
    },
    /// Values to a power, as another camera's response.
    Gamma {
        /// 1 leaves the image alone.
        exponent: f64,
    },
    /// Shrunk and enlarged again, as from further away.
    Resample {
        /// Side of the smaller image relative to the image's.
        scale: f64,
    },
}

impl HonestDamage {
    /// A kind other than [`Gamma`](Self::Gamma) and [`Resample`](Self::Resample), which are left for measuring a detector, with a strength between barely visible and strong; noise, which is most like a perturbation, half of the time.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.random_range(0..8) {
            0 => Self::Jpeg { quality: rng.random_range(40..=98) },
            1 => Self::Blur { sigma: rng.random_range(0.3..1.2) },
            2 => Self::Brightness { factor: rng.random_range(0.7..1.3) },
            3 => Self::Contrast { factor: rng.random_range(0.7..1.3) },
            _ => Self::draw_noise(rng),
        }
    }

    /// Noise as often between 1/500 and 1/125 as between 1/125 and 1/31.
    pub fn draw_noise(rng: &mut Rng) -> Self {
        Self::Noise { sigma: 0.002 * 16f64.powf(rng.random()) }
    }

    /// Kind and strength, as reports name them.
    pub fn label(&self) -> String {
        match self {
            Self::Jpeg { quality } => format!("jpeg quality {quality}"),
            Self::Noise { sigma } => format!("noise sigma {sigma}"),
            Self::Blur { sigma } => format!("blur sigma {sigma}"),
            Self::Brightness { factor } => format!("brightness x {factor}"),
            Self::Contrast { factor } => format!("contrast x {factor}"),
            Self::Gamma { exponent } => format!("gamma {exponent}"),
            Self::Resample { scale } => format!("resampled at {scale}"),
        }
    }

    /// A set with each image damaged; what is drawn depends on the kind and the seed alone.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn on(&self, set: &Dataset, seed: Seed) -> Result<Dataset> {
        let mut rng = seed.child("honest damage").rng(&self.label());
        let damaged = |index| Ok((index, self.apply(&set.pixels(index)?, set.size(), &mut rng)?));
        set.with_pixels((0..set.len()).map(damaged).collect::<Result<Vec<_>>>()?)
    }

    /// Damages an image, RGB8 `[3, height, width]`.
    ///
    /// # Errors
    /// Refuses pixels that are not an image of this size; reports what the codec does.
    pub fn apply(&self, pixels: &[u8], size: ImageSize, rng: &mut Rng) -> Result<Vec<u8>> {
        const OPERATION: &str = "honest damage";
        if pixels.len() != size.bytes() {
            return Err(Error::input(
                OPERATION,
                format!("{} bytes", pixels.len()),
                format!("{} bytes (3 x {} x {})", size.bytes(), size.height, size.width),
            ));
        }
        let each = |map: &mut dyn FnMut(f64) -> f64| {
            let values: Vec<f32> = pixels.iter().map(|&byte| map(f64::from(byte) / 255.0) as f32).collect();
            quantise(&values)
        };
        Ok(match *self {
            Self::Jpeg { quality } => {
                let mut bytes = Vec::new();
                let failed =
                    |error: image::ImageError| Error::input(OPERATION, error.to_string(), "a picture");
                let encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
                interleaved(pixels, size).write_with_encoder(encoder).map_err(failed)?;
                let decoded =
                    image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).map_err(failed)?;
                planar(&decoded.into_rgb8())
            }
            Self::Noise { sigma } => each(&mut |value| {
                let draw: f64 = StandardNormal.sample(rng);
                value + sigma * draw
            }),
            Self::Blur { sigma } => planar(&image::imageops::blur(&interleaved(pixels, size), sigma as f32)),
            Self::Brightness { factor } => each(&mut |value| value * factor),
            Self::Contrast { factor } => each(&mut |value| 0.5 + (value - 0.5) * factor),
            Self::Gamma { exponent } => each(&mut |value| value.powf(exponent)),
            Self::Resample { scale } => {
                let smaller = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
                let image = DynamicImage::ImageRgb8(interleaved(pixels, size));
                let filter = image::imageops::FilterType::Triangle;
                let small = image.resize_exact(smaller(size.width), smaller(size.height), filter);
                planar(&small.resize_exact(size.width, size.height, filter).into_rgb8())
            }
        })
    }
}

fn interleaved(pixels: &[u8], size: ImageSize) -> RgbImage {
    let plane = pixels.len() / 3;
    RgbImage::from_fn(size.width, size.height, |x, y| {
        let at = (y * size.width + x) as usize;
        image::Rgb([0, 1, 2].map(|channel| pixels[channel * plane + at]))
    })
}

fn planar(image: &RgbImage) -> Vec<u8> {
    (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel.0[channel])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seed;

    const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

    fn picture() -> Vec<u8> {
        (0..3 * 8 * 16).map(|index| (40 + index * 7 % 150) as u8).collect()
    }

    #[test]
    fn every_kind_changes_an_image_and_keeps_its_size() {
        let kinds = [
            HonestDamage::Jpeg { quality: 50 },
            HonestDamage::Noise { sigma: 0.01 },
            HonestDamage::Blur { sigma: 1.0 },
            HonestDamage::Brightness { factor: 1.2 },
            HonestDamage::Contrast { factor: 0.8 },
            HonestDamage::Gamma { exponent: 0.8 },
            HonestDamage::Resample { scale: 0.5 },
        ];
        let (pixels, mut rng) = (picture(), Seed::new(1).rng("damage"));
        for kind in kinds {
            let damaged = kind.apply(&pixels, SIZE, &mut rng).expect("a picture");
            assert_eq!(damaged.len(), pixels.len(), "{kind:?}");
            assert_ne!(damaged, pixels, "{kind:?}");
        }
    }

    #[test]
    fn strength_is_what_was_asked_for() {
        let (pixels, mut rng) = (vec![100; 3 * 8 * 16], Seed::new(2).rng("damage"));
        let mut of = |kind: HonestDamage| kind.apply(&pixels, SIZE, &mut rng).expect("a picture");
        assert!(of(HonestDamage::Brightness { factor: 1.2 }).iter().all(|&value| value == 120));
        // 127.5 + (100 - 127.5) / 2 = 113.75
        assert!(of(HonestDamage::Contrast { factor: 0.5 }).iter().all(|&value| value == 114));
        let noisy = of(HonestDamage::Noise { sigma: 0.02 });
        let square = |value: &u8| (f64::from(*value) - 100.0).powi(2);
        let deviation = (noisy.iter().map(square).sum::<f64>() / noisy.len() as f64).sqrt() / 255.0;
        assert!((deviation - 0.02).abs() < 0.002, "{deviation}");
    }

    #[test]
    fn pixels_of_another_size_are_refused() {
        let error = HonestDamage::Jpeg { quality: 90 }.apply(&[0; 5], SIZE, &mut Seed::new(3).rng("damage"));
        assert!(error.expect_err("too few").to_string().contains("5 bytes"));
    }
}
