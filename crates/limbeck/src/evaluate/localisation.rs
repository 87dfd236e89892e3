//! How well a map of an image tells where a trigger is: intersection over union with the pixels that the trigger sets.
//!
//! A map has no threshold of its own. It is cut so that as many pixels are above as the patch has, which is the best guess of one who knows the patch's size and nothing
//! else; an audit does not even know that, so these figures are an upper bound of what a person sees.

use super::anomaly_map::{Smoothing, magnitudes, smoothed};
use super::results::{Localisation, Rate};
use crate::attack::margin_gradient;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::tensors::values;

/// Images read at once.
const BATCH: usize = 128;

/// What maps are made of.
pub struct Mapped<'a> {
    /// The audit's autoencoder: |x − D(x)|.
    pub autoencoder: &'a TrainedAutoencoder,
    /// A classifier that learnt from the audited set as it is: |d(lead of the label)/dx|.
    pub undefended: &'a TrainedClassifier,
    /// The label model: the same.
    pub label_model: Option<&'a TrainedClassifier>,
}

/// What a map looked at, and what was counted.
struct Tally {
    map: &'static str,
    smoothing: Smoothing,
    overlap: f64,
    peaks: Vec<bool>,
}

/// Measures every map on poisoned images with the labels that they carry; `patch`, `[height, width]`, is where the trigger is.
pub fn localisation(
    poisoned: &Dataset,
    patch: &[bool],
    mapped: &Mapped<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Localisation>> {
    let indices: Vec<usize> = (0..poisoned.len()).collect();
    let (bytes, width) = (poisoned.size().bytes(), poisoned.size().width as usize);
    let mut tallies: Vec<Tally> = Vec::new();
    for chunk in indices.chunks(BATCH) {
        progress.check()?;
        for (map, changes) in changes(poisoned, chunk, mapped)? {
            for smoothing in Smoothing::ALL {
                let tally =
                    match tallies.iter().position(|tally| tally.map == map && tally.smoothing == smoothing) {
                        Some(position) => &mut tallies[position],
                        None => {
                            tallies.push(Tally { map, smoothing, overlap: 0.0, peaks: Vec::new() });
                            tallies.last_mut().expect("one was pushed")
                        }
                    };
                for image in changes.chunks_exact(bytes) {
                    let found = smoothed(&magnitudes(image), width, smoothing);
                    let pixels = largest_first(&found);
                    tally.overlap += overlap(&pixels, patch);
                    tally.peaks.push(patch[pixels[0]]);
                }
            }
        }
        progress.advance((chunk[0] + chunk.len()) as u64, poisoned.len() as u64);
    }
    let row = |tally: Tally| Localisation {
        map: format!("{}, {} of 5 x 5", tally.map, tally.smoothing.name()),
        overlap: tally.overlap / tally.peaks.len() as f64,
        peak_inside: Rate::of(tally.peaks),
    };
    Ok(tallies.into_iter().map(row).collect())
}

/// By the name of the map: for each image its `[3, height, width]`.
fn changes(set: &Dataset, chunk: &[usize], mapped: &Mapped<'_>) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let (images, labels) = (set.batch(chunk, mapped.autoencoder.device())?, set.labels(chunk));
    let residual = images.clone() - mapped.autoencoder.reconstruct(images.clone());
    let mut maps = vec![
        ("residual", values(residual)?),
        (
            "saliency of the undefended classifier",
            values(margin_gradient(mapped.undefended, images.clone(), &labels)?)?,
        ),
    ];
    if let Some(model) = mapped.label_model {
        maps.push(("saliency of the label model", values(margin_gradient(model, images, &labels)?)?));
    }
    Ok(maps)
}

/// Pixels from the largest value, the first of equals first.
fn largest_first(map: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..map.len()).collect();
    order.sort_by(|&a, &b| map[b].total_cmp(&map[a]).then(a.cmp(&b)));
    order
}

/// Intersection over union of the patch with as many of these pixels, from the first, as it has.
fn overlap(pixels: &[usize], patch: &[bool]) -> f64 {
    let size = patch.iter().filter(|is_set| **is_set).count();
    let both = pixels.iter().take(size).filter(|&&pixel| patch[pixel]).count();
    both as f64 / (2 * size - both) as f64
}

/// The expected intersection over union of two random sets of `size` of `area` pixels: the mean of i / (2 size − i) over the hypergeometric distribution of i.
pub fn random_overlap(size: usize, area: usize) -> f64 {
    let mut log_factorials = vec![0.0; area + 1];
    for n in 1..=area {
        log_factorials[n] = log_factorials[n - 1] + (n as f64).ln();
    }
    let log_choose = |n: usize, k: usize| log_factorials[n] - log_factorials[k] - log_factorials[n - k];
    let least = (2 * size).saturating_sub(area);
    (least..=size)
        .map(|both| {
            let log_probability =
                log_choose(size, both) + log_choose(area - size, size - both) - log_choose(area, size);
            log_probability.exp() * both as f64 / (2 * size - both) as f64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec};
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec, untrained, untrained_autoencoder};

    #[test]
    fn overlap_counts_the_largest_pixels_and_equals_by_place() {
        let overlap = |map: &[f32], patch: &[bool]| overlap(&largest_first(map), patch);
        let patch = [true, true, false, false, false, false];
        assert_eq!(overlap(&[0.9, 0.8, 0.1, 0.0, 0.0, 0.0], &patch), 1.0);
        // Pixels 0 and 2: one in both, three in either.
        assert_eq!(overlap(&[0.9, 0.1, 0.8, 0.0, 0.0, 0.0], &patch), 1.0 / 3.0);
        assert_eq!(overlap(&[0.0, 0.0, 0.1, 0.2, 0.3, 0.4], &patch), 0.0);
        // A map that says nothing names the first two.
        assert_eq!(overlap(&[0.5; 6], &[false, true, true, false, false, false]), 1.0 / 3.0);
    }

    #[test]
    fn the_overlap_of_chance_is_the_mean_over_all_draws() {
        // Two of four pixels: one draw of six has both, four have one, one has none: (1 + 4/3) / 6.
        assert!((random_overlap(2, 4) - (1.0 + 4.0 / 3.0) / 6.0).abs() < 1e-12);
        assert!((random_overlap(1, 10) - 0.1).abs() < 1e-12);
        // Three of four: any two draws share two or three: one in four is the same, the others share 2 of 4.
        assert!((random_overlap(3, 4) - (0.25 + 0.75 * 0.5)).abs() < 1e-12);
        assert_eq!(random_overlap(7, 7), 1.0);
    }

    #[test]
    fn every_map_is_measured_on_every_image() {
        let set = blocks(10, 4, 1);
        let spec = AutoencoderSpec { kind: AutoencoderKind::Unet, width: 4, latent: 8, image_size: [8, 8] };
        let autoencoder = untrained_autoencoder(spec, 4);
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        let classifier = untrained(spec, 5);
        let mut patch = vec![false; 64];
        patch[9] = true;
        let mapped =
            Mapped { autoencoder: &autoencoder, undefended: &classifier, label_model: Some(&classifier) };
        let found = localisation(&set, &patch, &mapped, &Silent).expect("measured");
        assert_eq!(found.len(), 3 * Smoothing::ALL.len());
        assert!(found.iter().all(|row| row.peak_inside.trials == 10));
        // Of one pixel, the overlap is 1 where the peak is inside and 0 elsewhere.
        assert!(found.iter().all(|row| row.peak_inside.share() == Some(row.overlap)));
        let (both, none) = (&found[2..4], Mapped { label_model: None, ..mapped });
        let without = localisation(&set, &patch, &none, &Silent).expect("measured");
        assert_eq!(without.len(), 2 * Smoothing::ALL.len());
        assert_eq!(without[2..4], *both);
    }
}
