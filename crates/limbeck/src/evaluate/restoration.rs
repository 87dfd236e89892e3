//! What the denoising autoencoder does to clean and to attacked test images.

use super::attacked_set::AttackedSet;
use super::image_quality::{WINDOW, mse, psnr, ssim};
use super::results::{DaeEpoch, DaeSummary};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::{AutoencoderKind, TrainedAutoencoder};
use crate::progress::Progress;
use crate::tensors::values;
use crate::train::{Epoch, INFERENCE_BATCH};

/// Reconstruction error on clean test images; MSE, PSNR and SSIM before and after on attacked ones.
///
/// `attacked` holds attacked versions of `originals`, in order.
pub fn restoration(
    autoencoder: &TrainedAutoencoder,
    epochs: &[Epoch],
    test: &Dataset,
    originals: &Dataset,
    attacked: &AttackedSet,
    progress: &dyn Progress,
) -> Result<DaeSummary> {
    let device = autoencoder.device();
    let indices: Vec<usize> = (0..test.len()).collect();
    let mut clean_error = 0.0;
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let images = test.batch(chunk, device)?;
        let error = (images.clone() - autoencoder.reconstruct(images)).square().mean().into_scalar::<f32>();
        clean_error += f64::from(error) * chunk.len() as f64;
    }
    let [height, width] = [originals.size().height as usize, originals.size().width as usize];
    let has_window = height.min(width) >= WINDOW;
    let pixels = originals.size().bytes();
    let (mut errors, mut similarities, mut images) = ([0.0; 2], [0.0; 2], 0);
    for (batch, _) in attacked.batches() {
        progress.check()?;
        let restored = values(autoencoder.reconstruct(batch.clone()))?;
        let attacked = values(batch)?;
        for (restored, attacked) in restored.chunks_exact(pixels).zip(attacked.chunks_exact(pixels)) {
            let original = originals.batch_f32(&[images])?;
            for (slot, image) in [restored, attacked].into_iter().enumerate() {
                errors[slot] += mse(&original, image)?;
                if has_window {
                    similarities[slot] += ssim(&original, image, 3, height, width)?;
                }
            }
            images += 1;
        }
    }
    let mean = |sum: f64| sum / images.max(1) as f64;
    let [restored, untouched] = errors.map(mean);
    let [restored_ssim, attacked_ssim] = similarities.map(|sum| has_window.then(|| mean(sum)));
    let [restored_psnr, attacked_psnr] =
        [restored, untouched].map(|mse| Some(psnr(mse)).filter(|db| db.is_finite()));
    Ok(DaeSummary {
        network: match autoencoder.spec().kind {
            AutoencoderKind::Unet => "unet",
            AutoencoderKind::Bottleneck => "bottleneck",
        }
        .to_owned(),
        parameters: autoencoder.parameters() as u64,
        epochs: epochs
            .iter()
            .enumerate()
            .map(|(index, epoch)| DaeEpoch {
                epoch: index as u32 + 1,
                train_loss: epoch.train_loss,
                validation_loss: epoch.validation.loss,
                reconstruction_error: epoch.validation.metric,
            })
            .collect(),
        clean_test_error: clean_error / test.len() as f64,
        restored_test_error: restored,
        attacked_test_error: untouched,
        restored_psnr,
        attacked_psnr,
        restored_ssim,
        attacked_ssim,
    })
}
