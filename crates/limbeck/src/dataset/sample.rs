//! One labelled image's identity: a stable id, its path in the source, its label and its group.
//!
//! Scores, verdicts, soft labels and poisoning truth are joined by [`SampleId`], never by position.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The longest side, in pixels, of an image that is read or kept.
pub const MAX_SIDE: u32 = 16_384;

/// The first 128 bits of `blake3(path ++ 0x00 ++ content)`.
///
/// The content is the encoded image as its source holds it, or the raw `[channels, height, width]`
/// pixels of an image that was made in memory. Text form: 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId([u8; 16]);

impl SampleId {
    /// The id of `content` found at `path`.
    pub fn of(path: &str, content: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(path.as_bytes()).update(&[0]).update(content);
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }

    /// The 16 bytes, most significant first in the text form.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for SampleId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SampleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SampleId({self})")
    }
}

impl FromStr for SampleId {
    type Err = Error;

    /// Reads 32 lower-case hex digits; anything else is an [`Error::Input`].
    fn from_str(text: &str) -> Result<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let refused = || Error::input("sample id", format!("`{text}`"), "32 lower-case hex digits");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 16 || !rest.is_empty() {
            return Err(refused());
        }
        let mut id = [0; 16];
        for (byte, &[high, low]) in id.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(high), digit(low)) else {
                return Err(refused());
            };
            *byte = high << 4 | low;
        }
        Ok(Self(id))
    }
}

impl Serialize for SampleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SampleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What is known of one image besides its pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Stable identity.
    pub id: SampleId,
    /// Path in the source, with `/` between folders.
    pub path: String,
    /// Class index, below the number of classes of the set.
    pub label: u32,
    /// Images of one group (a GTSRB track, a patient) are near-duplicates: a split keeps a group
    /// on one side. `None`: the image is its own group.
    pub group: Option<String>,
}

impl Sample {
    /// A sample whose id is that of `content` at `path`.
    pub fn new(path: impl Into<String>, label: u32, group: Option<String>, content: &[u8]) -> Self {
        let path = path.into();
        Self { id: SampleId::of(&path, content), path, label, group }
    }
}

/// Width and height, in pixels, that every image of a set is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSize {
    /// Pixels from left to right. Default 32, the size of CIFAR images (Krizhevsky 2009) and
    /// of the GTSRB parquet copies.
    pub width: u32,
    /// Pixels from top to bottom. Default 32, as the width.
    pub height: u32,
}

impl Default for ImageSize {
    fn default() -> Self {
        Self { width: 32, height: 32 }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.width, self.height)
    }
}

impl ImageSize {
    /// Colour channels of a stored image.
    pub const CHANNELS: usize = 3;

    /// Width times height.
    pub fn area(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Bytes of one RGB8 image: `3 * height * width`.
    pub fn bytes(&self) -> usize {
        Self::CHANNELS * self.area()
    }

    /// Refuses a side of zero or beyond [`MAX_SIDE`].
    pub(crate) fn check(self) -> Result<Self> {
        let allowed = 1..=MAX_SIDE;
        if allowed.contains(&self.width) && allowed.contains(&self.height) {
            return Ok(self);
        }
        Err(Error::input("image size", format!("{self} pixels"), format!("sides of 1 to {MAX_SIDE} pixels")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_first_half_of_the_blake3_hash_of_path_nul_content() {
        // `printf 'a/b.png\0xyz' | b3sum` with the reference implementation's one-shot function.
        let whole = blake3::hash(b"a/b.png\0xyz").to_hex();
        assert_eq!(SampleId::of("a/b.png", b"xyz").to_string(), whole.as_str()[..32]);
    }

    #[test]
    fn the_separator_keeps_path_and_content_apart() {
        assert_ne!(SampleId::of("ab", b"c"), SampleId::of("a", b"bc"));
    }

    #[test]
    fn text_and_json_forms_round_trip() {
        let id = SampleId::of("x", b"y");
        assert_eq!(id.to_string().parse::<SampleId>().expect("own text"), id);
        let json = serde_json::to_string(&id).expect("plain string");
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<SampleId>(&json).expect("own json"), id);
    }

    #[test]
    fn order_of_ids_is_the_order_of_their_text() {
        let mut ids: Vec<_> = (0..64u8).map(|i| SampleId::of("p", &[i])).collect();
        ids.sort();
        let texts: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "00", &"A".repeat(32), &"g".repeat(32), &"0".repeat(33), &"é".repeat(16)] {
            let error = text.parse::<SampleId>().expect_err(text).to_string();
            assert!(error.contains("32 lower-case hex digits"), "{error}");
        }
    }

    #[test]
    fn sizes_of_zero_or_beyond_the_limit_are_refused() {
        for (width, height) in [(0, 32), (32, 0), (MAX_SIDE + 1, 1)] {
            assert!(ImageSize { width, height }.check().is_err());
        }
        assert!(ImageSize { width: MAX_SIDE, height: 1 }.check().is_ok());
    }

    #[test]
    fn an_unknown_key_in_a_size_is_refused() {
        assert!(serde_json::from_str::<ImageSize>(r#"{"width":8,"heigth":8}"#).is_err());
    }
}
