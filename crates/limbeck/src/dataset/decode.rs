//! Encoded image bytes to RGB8 pixels of one size, and back to PNG.
//!
//! PNG, JPEG, PNM, BMP and WebP, told apart by their bytes and not by the file's name. Grey is
//! spread to three channels, 16-bit samples are scaled to 8, transparency is laid over black.
//! EXIF orientation is not applied: a training set is what its pixels say.
//!
//! Refuses, before allocating, a side beyond [`MAX_SIDE`] pixels or more than [`MAX_DECODED`]
//! bytes of pixels; refuses truncated files.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};

use super::sample::{ImageSize, MAX_SIDE};
use crate::error::{Error, Result};

/// The most bytes that one decoded image may take: 256 MiB.
pub const MAX_DECODED: u64 = 256 << 20;

const EXPECTED: &str = "png, jpeg, pnm, bmp or webp";

/// A rectangle of an image in pixels, half-open: `x1..x2` by `y1..y2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roi {
    /// First column.
    pub x1: u32,
    /// First row.
    pub y1: u32,
    /// One past the last column.
    pub x2: u32,
    /// One past the last row.
    pub y2: u32,
}

/// Where an encoded image was found, for messages.
#[derive(Debug, Clone)]
pub struct Location {
    file: Arc<Path>,
    entry: Option<String>,
}

impl Location {
    /// A file that is one image.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { file: path.as_ref().into(), entry: None }
    }

    /// An entry ("row 12") of a file of many images.
    pub(crate) fn entry(file: &Arc<Path>, entry: String) -> Self {
        Self { file: Arc::clone(file), entry: Some(entry) }
    }

    /// The error that names this place, what was found there and what was expected.
    pub(crate) fn fault(&self, found: impl Into<String>, expected: impl Into<String>) -> Error {
        match &self.entry {
            Some(entry) => Error::data_entry(&self.file, entry, found, expected),
            None => Error::data(&self.file, found, expected),
        }
    }
}

/// Decodes an image, crops it to `roi` and resizes it (Lanczos3, as Pillow's `LANCZOS`) to `size`
/// if its own size differs. Returns RGB8 in `[channels, height, width]` order.
///
/// # Errors
/// [`Error::Data`] naming `location` for bytes that are no supported image, are truncated or too
/// large, and for a rectangle that is empty or leaves the image.
pub fn decode_image(bytes: &[u8], roi: Option<Roi>, size: ImageSize, location: &Location) -> Result<Vec<u8>> {
    size.check()?;
    let decoded = decode_rgb(bytes, location)?;
    let cropped = match roi {
        Some(roi) => crop(decoded, roi, location)?,
        None => decoded,
    };
    let resized = resize(cropped, size)?;
    Ok(interleaved_to_planar(&resized))
}

/// Encodes RGB8 pixels in `[channels, height, width]` order as PNG. The same pixels always give
/// the same bytes.
///
/// # Errors
/// [`Error::Input`] if `pixels` is not `3 * height * width` bytes long.
pub fn encode_png(pixels: &[u8], size: ImageSize) -> Result<Vec<u8>> {
    size.check()?;
    if pixels.len() != size.bytes() {
        return Err(Error::input(
            "encode_png",
            format!("{} bytes", pixels.len()),
            format!("{} bytes (3 x {} x {})", size.bytes(), size.height, size.width),
        ));
    }
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Default, PngFilter::Adaptive)
        .write_image(&planar_to_interleaved(pixels), size.width, size.height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::input("encode_png", error.to_string(), "pixels of that size"))?;
    Ok(png)
}

/// Pixels as [`encode_png`] takes them, with the longest side at most `most` pixels long, in the same proportions.
///
/// # Errors
/// [`Error::Input`] if `pixels` is not `3 * height * width` bytes long.
pub(crate) fn shrunk(pixels: &[u8], size: ImageSize, most: u32) -> Result<(Vec<u8>, ImageSize)> {
    let longest = size.width.max(size.height);
    if longest <= most {
        return Ok((pixels.to_vec(), size));
    }
    let side = |side: u32| ((f64::from(side) * f64::from(most) / f64::from(longest)).round() as u32).max(1);
    let target = ImageSize { width: side(size.width), height: side(size.height) };
    let resized = resize(Rgb { pixels: planar_to_interleaved(pixels), size }, target)?;
    Ok((interleaved_to_planar(&resized), target))
}

/// The size of a PNG, from its header.
///
/// # Errors
/// [`Error::Input`] if the bytes do not begin as a PNG does.
pub(crate) fn png_size(bytes: &[u8]) -> Result<ImageSize> {
    ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png)
        .into_dimensions()
        .map(|(width, height)| ImageSize { width, height })
        .map_err(|error| Error::input("replaced image", error.to_string(), "an encoded png"))
}

/// An interleaved RGB8 image.
struct Rgb {
    pixels: Vec<u8>,
    size: ImageSize,
}

fn decode_rgb(bytes: &[u8], location: &Location) -> Result<Rgb> {
    let format = known_format(bytes, location)?;
    let undecodable =
        |error: image::ImageError| location.fault(format!("a damaged image: {error}"), EXPECTED);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_DECODED {
        return Err(location.fault(
            format!("an image of {width} x {height} pixels"),
            format!("at most {MAX_SIDE} pixels a side and {} MiB decoded", MAX_DECODED >> 20),
        ));
    }
    if width == 0 || height == 0 {
        return Err(location.fault(format!("an image of {width} x {height} pixels"), "pixels"));
    }
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    decoder.set_limits(limits).map_err(undecodable)?;
    let image = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    Ok(Rgb { pixels: over_black(image), size: ImageSize { width, height } })
}

/// The format that the first bytes announce, if it is one that is read.
fn known_format(bytes: &[u8], location: &Location) -> Result<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, Pnm, WebP};
    match image::guess_format(bytes) {
        Ok(Jpeg) if !jpeg_is_complete(bytes) => {
            Err(location.fault("a truncated jpeg (no end-of-image marker)", "a whole image"))
        }
        Ok(format @ (Png | Jpeg | Pnm | Bmp | WebP)) => Ok(format),
        Ok(other) => {
            let name = other.extensions_str().first().copied().unwrap_or("another image format");
            Err(location.fault(name, EXPECTED))
        }
        Err(_) => Err(location.fault(describe(bytes), EXPECTED)),
    }
}

/// Whether a JPEG has its end-of-image marker. The decoder is lenient and would fill what is missing
/// with grey. What follows the marker is none of the image's: phones append films there.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    // TEM and RST0 to RST7 stand alone, as SOI and EOI do.
    let stands_alone = |marker: u8| marker == 0x01 || (0xD0..=0xD8).contains(&marker);
    let mut at = 0;
    loop {
        // Within a scan 0xFF is escaped by 0 after it; before a marker it may be repeated.
        let Some(found) = bytes[at..].iter().position(|&byte| byte == 0xFF) else { return false };
        at += found + 1;
        match bytes.get(at) {
            None => return false,
            Some(0x00 | 0xFF) => {}
            Some(&END_OF_IMAGE) => return true,
            Some(&marker) if stands_alone(marker) => at += 1,
            Some(_) => {
                // A segment: its length counts the two bytes that hold it. The data of a scan comes after it.
                let Some(length) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if at > bytes.len() {
                    return false;
                }
            }
        }
    }
}

fn describe(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(512)];
    if head.is_empty() {
        return "an empty file".to_owned();
    }
    let is_text = |&byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || byte > 127;
    if head.iter().all(is_text) && String::from_utf8_lossy(head).chars().any(char::is_alphanumeric) {
        return "text".to_owned();
    }
    let hex: String = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("unknown bytes ({hex}…)")
}

fn over_black(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    let rgba = image.into_rgba8().into_raw();
    let (pixels, _) = rgba.as_chunks::<4>();
    pixels
        .iter()
        .flat_map(|&[red, green, blue, alpha]| {
            [red, green, blue].map(|value| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8)
        })
        .collect()
}

fn crop(image: Rgb, roi: Roi, location: &Location) -> Result<Rgb> {
    let Roi { x1, y1, x2, y2 } = roi;
    let ImageSize { width, height } = image.size;
    if x1 >= x2 || y1 >= y2 || x2 > width || y2 > height {
        return Err(location.fault(
            format!("the region {x1}..{x2} x {y1}..{y2} in an image of {width} x {height} pixels"),
            "a non-empty region inside the image",
        ));
    }
    let channels = ImageSize::CHANNELS;
    let columns = x1 as usize * channels..x2 as usize * channels;
    let pixels = image
        .pixels
        .chunks_exact(width as usize * channels)
        .take(y2 as usize)
        .skip(y1 as usize)
        .flat_map(|row| &row[columns.clone()])
        .copied()
        .collect();
    Ok(Rgb { pixels, size: ImageSize { width: x2 - x1, height: y2 - y1 } })
}

fn resize(image: Rgb, size: ImageSize) -> Result<Vec<u8>> {
    if image.size == size {
        return Ok(image.pixels);
    }
    let failed = |error: String| Error::input("resize", error, "an image of its declared size");
    let source = ImageRef::new(image.size.width, image.size.height, &image.pixels, PixelType::U8x3)
        .map_err(|error| failed(error.to_string()))?;
    let mut target = Image::new(size.width, size.height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    Resizer::new().resize(&source, &mut target, &options).map_err(|error| failed(error.to_string()))?;
    Ok(target.into_vec())
}

fn interleaved_to_planar(interleaved: &[u8]) -> Vec<u8> {
    let (pixels, _) = interleaved.as_chunks::<3>();
    (0..3).flat_map(|channel| pixels.iter().map(move |pixel| pixel[channel])).collect()
}

fn planar_to_interleaved(planar: &[u8]) -> Vec<u8> {
    let area = planar.len() / 3;
    (0..area).flat_map(|i| [planar[i], planar[area + i], planar[2 * area + i]]).collect()
}

#[cfg(test)]
mod tests;
