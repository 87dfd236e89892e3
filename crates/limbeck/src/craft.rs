//! Attacked images of a set: batches through an attack, stored in 8 bits within the eps ball.
//!
//! Where sets and attacks meet, for poison, for the twins of the autoencoder and for evaluation: an attack itself knows
//! no dataset.

use burn::tensor::Device;

use crate::attack::{Attack, AttackConfig, ThreatModel, craft};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::Model;
use crate::progress::Progress;
use crate::tensors::{argmax, labels, values};

/// Images attacked at once.
const BATCH: usize = 128;

/// An attacked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CraftedImage {
    /// RGB8, `[3, height, width]`.
    pub pixels: Vec<u8>,
    /// What the attacked model answers on these very pixels.
    pub answer: u32,
}

/// Attacks the images at `indices` on `model`, in that order.
pub fn craft_images(
    set: &Dataset,
    indices: &[usize],
    attack: &AttackConfig,
    model: &dyn Model,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Vec<CraftedImage>> {
    let built = attack.build();
    craft_towards(set, indices, &set.labels(indices), &*built, attack.threat(), model, device, progress)
}

/// The same with an attack that is told `classes`, one for each of `indices`, instead of the images' labels.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn craft_towards(
    set: &Dataset,
    indices: &[usize],
    classes: &[u32],
    attack: &dyn Attack,
    threat: ThreatModel,
    model: &dyn Model,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Vec<CraftedImage>> {
    let device = device.clone().without_autodiff();
    let mut crafted = Vec::with_capacity(indices.len());
    for (chunk, classes) in indices.chunks(BATCH).zip(classes.chunks(BATCH)) {
        progress.check()?;
        let proposal = craft(attack, model, threat, set.batch(chunk, &device)?, labels(classes, &device))?;
        let proposal = values(proposal)?;
        let bytes = set.size().bytes();
        let mut pixels = Vec::with_capacity(chunk.len());
        for (&index, attacked) in chunk.iter().zip(proposal.chunks_exact(bytes)) {
            pixels.push(quantise_within(attacked, &set.pixels(index)?, threat.eps));
        }
        let shown = pixels.iter().flatten().map(|&byte| f32::from(byte) / 255.0).collect();
        let answers = argmax(model.logits(set.tensor(shown, chunk.len(), &device)))?;
        crafted
            .extend(pixels.into_iter().zip(answers).map(|(pixels, answer)| CraftedImage { pixels, answer }));
        progress.advance(crafted.len() as u64, indices.len() as u64);
    }
    Ok(crafted)
}

/// Pixels in `[0, 1]` to 8 bits, to the nearest level.
pub fn quantise(pixels: &[f32]) -> Vec<u8> {
    pixels.iter().map(|&pixel| (pixel.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
}

/// Pixels to 8 bits, to the nearest level that is no further than `eps` from the 8-bit original.
///
/// At eps 0.01 (2.55 levels) a full step is therefore stored as 2 levels, not 3.
pub fn quantise_within(attacked: &[f32], original: &[u8], eps: f64) -> Vec<u8> {
    let levels = (eps * 255.0 + 1e-9).floor() as i32;
    quantise(attacked)
        .into_iter()
        .zip(original)
        .map(|(pixel, &original)| {
            let original = i32::from(original);
            i32::from(pixel).clamp((original - levels).max(0), (original + levels).min(255)) as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_step_of_eps_0_01_is_stored_as_two_levels() {
        assert_eq!(quantise_within(&[0.51], &[128], 0.01), [130]);
        assert_eq!(quantise_within(&[0.49], &[128], 0.01), [126]);
    }

    proptest! {
        #[test]
        fn stored_pixels_never_leave_the_ball(attacked in 0f32..=1.0, original: u8, eps in 0f64..0.2) {
            let stored = quantise_within(&[attacked], &[original], eps)[0];
            let distance = (f64::from(stored) - f64::from(original)).abs() / 255.0;
            prop_assert!(distance <= eps + 1e-9, "{distance} > {eps}");
        }
    }
}
