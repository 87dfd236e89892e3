//! What is done with an image: keep it, reconstruct it, or discard it.

use serde::{Deserialize, Serialize};

/// What is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Kept as it is.
    Keep,
    /// Replaced with its reconstruction.
    Reconstruct,
    /// Left out.
    Discard,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Reconstruct, Self::Discard];

    /// Its name in ledgers and files of decisions.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reconstruct => "reconstruct",
            Self::Discard => "discard",
        }
    }
}
