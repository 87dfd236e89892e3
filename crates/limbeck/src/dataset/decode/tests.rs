use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb as RgbPixel, RgbImage};
use proptest::prelude::*;

use super::*;
use crate::dataset::testing::png;

const FOUR: ImageSize = ImageSize { width: 4, height: 4 };

fn decode(bytes: &[u8], size: ImageSize) -> Result<Vec<u8>> {
    decode_image(bytes, None, size, &Location::file("dir/x.png"))
}

fn refusal(bytes: &[u8]) -> String {
    let error = decode(bytes, FOUR).expect_err("refused").to_string();
    assert!(error.starts_with("dir/x.png: found"), "{error}");
    error
}

fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("in memory");
    bytes.into_inner()
}

/// 7 x 5 pixels with slopes, an edge pattern and a product, interleaved.
fn slopes() -> RgbImage {
    RgbImage::from_fn(7, 5, |x, y| {
        let edge = if (x + y) % 3 == 0 { 255 } else { 10 };
        RgbPixel([(x * 37 + y * 11) as u8, edge, (x * y * 9) as u8])
    })
}

/// A PNG of one chunk that announces a size and holds no pixels. CRC-32 as in ISO 3309.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = !chunk.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    });
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(chunk);
    bytes.extend(crc.to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    bytes
}

proptest! {
    #[test]
    fn png_round_trip_is_the_identity(width in 1u32..9, height in 1u32..9, seed: u64) {
        let size = ImageSize { width, height };
        let pixels: Vec<u8> = (0..size.bytes() as u64)
            .map(|i| (seed.wrapping_mul(i + 1) >> 32) as u8)
            .collect();
        let bytes = encode_png(&pixels, size).expect("right length");
        prop_assert_eq!(&encode_png(&pixels, size).expect("right length"), &bytes);
        prop_assert_eq!(decode(&bytes, size).expect("own png"), pixels);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
                                       cut in 0usize..200, at in 0usize..200, to: u8) {
        let _ = decode(&bytes, FOUR);
        bytes = png(3);
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        let _ = decode(&bytes, FOUR);
    }
}

#[test]
fn pixels_come_in_channel_order() {
    let pixels = decode(&png(10), FOUR).expect("own png");
    assert_eq!(pixels[..16], (10..26).collect::<Vec<u8>>());
    assert_eq!(pixels[16..32], [10; 16]);
    assert_eq!(pixels[32..], [255; 16]);
}

#[test]
fn resizing_agrees_with_pillow_lanczos() {
    // Pillow 13: Image.fromarray(slopes).resize((4, 3), Image.LANCZOS) and (9, 6), blue channel.
    // (The other channels have hard edges, where the order of the two clipped passes shows.)
    let smaller = [1, 6, 11, 16, 7, 37, 71, 101, 13, 69, 130, 186];
    let larger_row_3 = [0, 12, 32, 47, 64, 81, 95, 116, 128];
    let bytes = encoded(slopes().into(), ImageFormat::Png);
    let near = |found: &[u8], expected: &[i16]| {
        found.iter().zip(expected).all(|(&a, &b)| (i16::from(a) - b).abs() <= 1)
    };
    let found = decode(&bytes, ImageSize { width: 4, height: 3 }).expect("png");
    assert!(near(&found[24..], &smaller), "{:?}", &found[24..]);
    let found = decode(&bytes, ImageSize { width: 9, height: 6 }).expect("png");
    let row_3 = 2 * 54 + 3 * 9;
    assert!(near(&found[row_3..row_3 + 9], &larger_row_3), "{:?}", &found[row_3..]);
}

#[test]
fn lossless_formats_give_the_pixels_of_the_png() {
    let size = ImageSize { width: 7, height: 5 };
    let expected = decode(&encoded(slopes().into(), ImageFormat::Png), size).expect("png");
    for format in [ImageFormat::Pnm, ImageFormat::Bmp, ImageFormat::WebP] {
        let bytes = encoded(slopes().into(), format);
        assert_eq!(decode(&bytes, size).expect("lossless"), expected, "{format:?}");
    }
}

#[test]
fn a_jpeg_is_near_and_a_truncated_one_is_refused() {
    let flat = RgbImage::from_pixel(16, 16, RgbPixel([200, 60, 20]));
    let bytes = encoded(flat.into(), ImageFormat::Jpeg);
    let pixels = decode(&bytes, FOUR).expect("jpeg");
    assert!(pixels[0].abs_diff(200) < 6 && pixels[16].abs_diff(60) < 6, "{pixels:?}");
    assert!(refusal(&bytes[..bytes.len() - 8]).contains("a truncated jpeg"));
    // A phone's film behind the picture, in which a scan seems to begin.
    let with_film = [&bytes[..], b"ftypmp42 \xff\xda \xff\xd8"].concat();
    assert_eq!(decode(&with_film, FOUR).expect("the picture is whole"), pixels);
    // A whole thumbnail within a segment makes no whole picture.
    let thumbnail = [b"\xff\xe1", &(bytes.len() as u16 + 2).to_be_bytes()[..], &bytes].concat();
    let torn = [&bytes[..2], &thumbnail, &bytes[2..bytes.len() - 8]].concat();
    assert!(refusal(&torn).contains("a truncated jpeg"));
}

#[test]
fn grey_is_spread_sixteen_bits_are_scaled_and_alpha_lies_over_black() {
    let one = ImageSize { width: 1, height: 1 };
    let pixel = |image: DynamicImage| decode(&encoded(image, ImageFormat::Png), one).expect("png");
    let grey = image::GrayImage::from_pixel(1, 1, image::Luma([77]));
    assert_eq!(pixel(grey.into()), [77; 3]);
    let deep = image::ImageBuffer::from_pixel(1, 1, RgbPixel([65535u16, 0, 257 * 99]));
    assert_eq!(pixel(DynamicImage::ImageRgb16(deep)), [255, 0, 99]);
    let half = image::RgbaImage::from_pixel(1, 1, image::Rgba([200, 100, 255, 128]));
    // Round(value * 128 / 255).
    assert_eq!(pixel(half.into()), [100, 50, 128]);
    let clear = image::RgbaImage::from_pixel(1, 1, image::Rgba([200, 100, 50, 0]));
    assert_eq!(pixel(clear.into()), [0; 3]);
}

#[test]
fn a_huge_header_is_refused_by_its_size() {
    let error = refusal(&png_header(60_000, 60_000));
    assert!(error.contains("60000 x 60000") && error.contains("16384"), "{error}");
    // Each side is allowed, but not the 768 MiB of both.
    assert!(refusal(&png_header(16_384, 16_384)).contains("16384 x 16384"));
    assert!(refusal(b"P6 60000 60000 255\n").contains("60000 x 60000"));
}

#[test]
fn what_is_no_supported_image_is_described() {
    assert!(refusal(b"").contains("an empty file"));
    assert!(refusal(b"just some notes\n").contains("found text, expected png, jpeg"));
    assert!(refusal(&[0, 1, 2, 3]).contains("unknown bytes (00010203"));
    assert!(refusal(b"GIF89a\x01\0\x01\0").contains("found gif"));
    let whole = png(0);
    assert!(refusal(&whole[..whole.len() - 20]).contains("damaged"));
    assert!(refusal(&whole[..20]).contains("damaged"));
}

#[test]
fn a_region_is_half_open_and_must_lie_inside() {
    let at = Location::file("x.png");
    let two = ImageSize { width: 2, height: 2 };
    let roi = |x1, y1, x2, y2| decode_image(&png(0), Some(Roi { x1, y1, x2, y2 }), two, &at);
    assert_eq!(roi(1, 2, 3, 4).expect("inside")[..4], [9, 10, 13, 14]);
    for (x1, y1, x2, y2) in [(1, 1, 1, 3), (3, 1, 1, 3), (0, 0, 5, 4), (0, 0, 4, 5)] {
        assert!(roi(x1, y1, x2, y2).is_err());
    }
}

#[test]
fn encoding_refuses_pixels_of_another_length() {
    let error = encode_png(&[0; 47], FOUR).expect_err("one byte short").to_string();
    assert!(error.contains("47 bytes") && error.contains("48 bytes"), "{error}");
}

#[test]
fn a_shrunk_image_keeps_its_proportions_and_a_small_one_its_bytes() {
    let size = ImageSize { width: 40, height: 10 };
    let pixels = [vec![200; 400], vec![100; 400], vec![0; 400]].concat();
    let (small, shape) = shrunk(&pixels, size, 8).expect("whole pixels");
    assert_eq!((shape.width, shape.height), (8, 2));
    assert_eq!(small, [vec![200; 16], vec![100; 16], vec![0; 16]].concat());
    assert_eq!(shrunk(&pixels, size, 40).expect("small enough"), (pixels, size));
}
