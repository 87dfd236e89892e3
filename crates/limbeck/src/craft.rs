//! Attacked images of a set: batches through an attack, stored in 8 bits within the eps ball.
//!
//! Where sets and attacks meet, for poison, for the twins of the autoencoder and for evaluation: an attack itself knows
//! no dataset.

use burn::tensor::{Device, Tensor};

use crate::attack::{Attack, AttackConfig, Batches, Norm, ThreatModel, craft};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::Model;
use crate::progress::Progress;
use crate::tensors::{argmax, values};

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

/// Attacks the images at `indices` on `model`, in that order; what an attack learns from many images, it learns from these.
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
    let chunks: Vec<(&[usize], &[u32])> = indices.chunks(BATCH).zip(classes.chunks(BATCH)).collect();
    let read = |chunk: usize| {
        progress.check()?;
        let (indices, classes) = chunks[chunk];
        Ok((set.batch(indices, &device)?, classes.to_vec()))
    };
    let fitted = attack.fit(model, threat, &Batches { count: chunks.len(), read: &read })?;
    let attack = fitted.as_deref().unwrap_or(attack);
    let mut crafted = Vec::with_capacity(indices.len());
    for (number, &(chunk, classes)) in chunks.iter().enumerate() {
        progress.advance(crafted.len() as u64, indices.len() as u64);
        let proposal = craft(attack, model, threat, read(number)?.0, classes)?;
        let pixels = stored_within(set, chunk, proposal, threat)?;
        let shown = pixels.iter().flatten().map(|&byte| f32::from(byte) / 255.0).collect();
        let answers = argmax(model.logits(set.tensor(shown, chunk.len(), &device)))?;
        crafted
            .extend(pixels.into_iter().zip(answers).map(|(pixels, answer)| CraftedImage { pixels, answer }));
    }
    Ok(crafted)
}

/// Attacked images `[batch, 3, h, w]`, one for each of `indices`, as [`quantise_within`] stores them: RGB8, `[3, height, width]` each.
pub(crate) fn stored_within(
    set: &Dataset,
    indices: &[usize],
    attacked: Tensor<4>,
    threat: ThreatModel,
) -> Result<Vec<Vec<u8>>> {
    let attacked = values(attacked)?;
    let pairs = indices.iter().zip(attacked.chunks_exact(set.size().bytes()));
    pairs.map(|(&index, attacked)| Ok(quantise_within(attacked, &set.pixels(index)?, threat))).collect()
}

/// Pixels in `[0, 1]` to 8 bits, to the nearest level.
pub fn quantise(pixels: &[f32]) -> Vec<u8> {
    pixels.iter().map(|&pixel| (pixel.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
}

/// Pixels to 8 bits near `attacked`, within the ball around the 8-bit original: of the stored image, exactly.
///
/// L-infinity: each pixel goes to the nearest level that is no further than eps from the original, as [`ThreatModel::levels`] counts. At eps 0.01 (2.55 levels) a full step
/// is therefore stored as 2 levels, not 3. L2: each pixel goes to its nearest level; where the changes together are then
/// longer than eps, those that rounding made larger are rounded the other way, the most enlarged first, until they are not.
pub fn quantise_within(attacked: &[f32], original: &[u8], threat: ThreatModel) -> Vec<u8> {
    let mut stored = quantise(attacked);
    match threat.norm {
        Norm::Linf => {
            let levels = i32::from(threat.levels());
            for (pixel, &original) in stored.iter_mut().zip(original) {
                let original = i32::from(original);
                *pixel =
                    i32::from(*pixel).clamp((original - levels).max(0), (original + levels).min(255)) as u8;
            }
        }
        Norm::L2 => shorten(&mut stored, attacked, original, threat.eps),
    }
    stored
}

/// Moves pixels of `stored` towards the original, a level each, until their changes are no longer than `eps` together.
fn shorten(stored: &mut [u8], attacked: &[f32], original: &[u8], eps: f64) {
    let allowed = ((eps * 255.0).powi(2) + 1e-6).floor() as i64;
    let change = |stored: u8, original: u8| i64::from(stored) - i64::from(original);
    let mut length: i64 =
        stored.iter().zip(original).map(|(&stored, &original)| change(stored, original).pow(2)).sum();
    while length > allowed {
        // In levels, what rounding added to each change; what a round before took away makes it negative.
        let mut enlarged: Vec<(usize, f64)> = (0..stored.len())
            .filter(|&pixel| stored[pixel] != original[pixel])
            .map(|pixel| {
                let wanted = (f64::from(attacked[pixel]) * 255.0 - f64::from(original[pixel])).abs();
                (pixel, change(stored[pixel], original[pixel]).abs() as f64 - wanted)
            })
            .collect();
        enlarged.sort_by(|a, b| b.1.total_cmp(&a.1));
        // What rounding did not enlarge waits for a round in which nothing else is left.
        let most = enlarged.iter().filter(|(_, excess)| *excess > 0.0).count().max(1);
        for (pixel, _) in enlarged.into_iter().take(most) {
            if length <= allowed {
                return;
            }
            let distance = change(stored[pixel], original[pixel]);
            length -= 2 * distance.abs() - 1;
            stored[pixel] = (i64::from(stored[pixel]) - distance.signum()) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_step_of_eps_0_01_is_stored_as_two_levels() {
        assert_eq!(quantise_within(&[0.51], &[128], ThreatModel::linf(0.01)), [130]);
        assert_eq!(quantise_within(&[0.49], &[128], ThreatModel::linf(0.01)), [126]);
        for (eps, levels) in [(0.0039, 1), (0.0078, 2), (0.0314, 8), (0.0038, 0), (1.0, 127)] {
            assert_eq!(quantise_within(&[1.0], &[128], ThreatModel::linf(eps)), [128 + levels], "eps {eps}");
        }
    }

    proptest! {
        #[test]
        fn stored_pixels_never_leave_the_ball(attacked in 0f32..=1.0, original: u8, eps in 0f64..0.2) {
            let stored = quantise_within(&[attacked], &[original], ThreatModel::linf(eps))[0];
            let distance = (f64::from(stored) - f64::from(original)).abs() / 255.0;
            prop_assert!(distance <= eps + 0.02 / 255.0 + 1e-9, "{distance} > {eps}");
        }

        #[test]
        fn stored_images_never_leave_the_l2_ball_and_stay_within_a_level_of_what_was_asked(
            changes in proptest::collection::vec(-0.1f32..0.1, 48), original in proptest::collection::vec(any::<u8>(), 48),
        ) {
            let before = original.iter().map(|&level| f32::from(level) / 255.0);
            let attacked: Vec<f32> = before.zip(&changes).map(|(pixel, change)| (pixel + change).clamp(0.0, 1.0)).collect();
            let length = |levels: &mut dyn Iterator<Item = f64>| levels.map(|level| level.powi(2)).sum::<f64>().sqrt();
            let eps = length(&mut attacked.iter().zip(&original).map(|(a, &o)| f64::from(*a) - f64::from(o) / 255.0));
            let stored = quantise_within(&attacked, &original, ThreatModel::l2(eps));
            let found = length(&mut stored.iter().zip(&original).map(|(&s, &o)| (f64::from(s) - f64::from(o)) / 255.0));
            prop_assert!(found <= eps + 1e-8, "{found} > {eps}");
            prop_assert!(stored.iter().zip(&attacked).all(|(&s, a)| (f64::from(s) - f64::from(*a) * 255.0).abs() < 1.001));
        }

        #[test]
        fn an_image_beyond_the_l2_ball_is_brought_back_into_it(
            attacked in proptest::collection::vec(0f32..=1.0, 48), original in proptest::collection::vec(any::<u8>(), 48), eps in 0f64..2.0,
        ) {
            let stored = quantise_within(&attacked, &original, ThreatModel::l2(eps));
            let length: f64 = stored.iter().zip(&original).map(|(&s, &o)| ((f64::from(s) - f64::from(o)) / 255.0).powi(2)).sum();
            prop_assert!(length.sqrt() <= eps + 1e-5, "{} > {eps}", length.sqrt());
        }
    }
}
