//! Example rows for the report: original, suspicious, reconstructed, residual.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::detection::Truth;
use super::results::{Triptych, Verdict};
use crate::craft::quantise;
use crate::dataset::{Dataset, encode_png};
use crate::error::Result;
use crate::network::TrainedAutoencoder;
use crate::purify::Ledger;
use crate::tensors::values;

/// The most suspicious images, and as many again near the threshold on both sides, up to `count` rows.
///
/// `clean` is the set before poisoning, in the ledger's order, where it is known.
pub fn triptychs(
    audited: &Dataset,
    clean: Option<&Dataset>,
    ledger: &Ledger,
    autoencoder: &TrainedAutoencoder,
    truth: &Truth,
    count: usize,
) -> Result<Vec<Triptych>> {
    pick(ledger, truth, count)
        .into_iter()
        .map(|index| {
            let row = &ledger.rows[index];
            let suspicious = audited.pixels(index)?;
            let output = autoencoder.reconstruct(audited.batch(&[index], autoencoder.device())?);
            let reconstructed = quantise(&values(output)?);
            let (residual, gain) = amplified_residual(&suspicious, &reconstructed);
            let png = |pixels: &[u8]| -> Result<String> {
                Ok(STANDARD.encode(encode_png(pixels, audited.size())?))
            };
            Ok(Triptych {
                path: row.path.clone(),
                label: row.label,
                verdict: row.verdict,
                reason: row.reason.clone(),
                score: row.suspicion,
                p_value: row.p_value,
                poisoned: truth.of(index),
                original_png: clean.map(|clean| png(&clean.pixels(index)?)).transpose()?,
                suspicious_png: png(&suspicious)?,
                reconstructed_png: png(&reconstructed)?,
                residual_png: png(&residual)?,
                residual_gain: gain,
            })
        })
        .collect()
}

/// A third of the rows each: most suspicious flagged images, images closest to the threshold, and errors where the truth is known.
fn pick(ledger: &Ledger, truth: &Truth, count: usize) -> Vec<usize> {
    let rows = &ledger.rows;
    let mut by_suspicion: Vec<usize> = (0..rows.len()).collect();
    by_suspicion.sort_by(|&a, &b| rows[b].suspicion.total_cmp(&rows[a].suspicion).then(a.cmp(&b)));
    let mut by_distance = by_suspicion.clone();
    by_distance.sort_by(|&a, &b| {
        let distance = |row: usize| (rows[row].suspicion - rows[row].threshold).abs();
        distance(a).total_cmp(&distance(b)).then(a.cmp(&b))
    });
    let wrong = |row: &usize| {
        truth.of(*row).is_some_and(|poisoned| poisoned != (rows[*row].verdict != Verdict::Keep))
    };
    let errors: Vec<usize> = by_suspicion.iter().copied().filter(wrong).collect();
    let share = count.div_ceil(3);
    let mut picked = Vec::new();
    for (source, upto) in [(&by_suspicion, share), (&errors, 2 * share), (&by_distance, count)] {
        for &row in source {
            if picked.len() >= upto.min(count) {
                break;
            }
            if !picked.contains(&row) {
                picked.push(row);
            }
        }
    }
    picked
}

/// |a − b| times a power of two that brings the largest difference near white.
fn amplified_residual(a: &[u8], b: &[u8]) -> (Vec<u8>, f64) {
    let largest = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0).max(1);
    let gain = f64::from(2u32.pow((255.0 / f64::from(largest)).log2().floor() as u32));
    let residual =
        a.iter().zip(b).map(|(a, b)| (f64::from(a.abs_diff(*b)) * gain).min(255.0) as u8).collect();
    (residual, gain)
}
