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
