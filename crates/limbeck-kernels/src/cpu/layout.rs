//! Between planes `[channels, height, width]`, as images are stored, and channels-last, with a map of each value on the way.

use rayon::prelude::*;

use super::elementwise::logistic;
use super::memory::Buffer;
use super::simd::Isa;
use super::threads::{Disjoint, for_each};

/// Planes to channels-last; `map(channel, index, value)` with the value's index in the planes.
pub(crate) fn channels_last(
    planes: &[f32],
    channels: usize,
    pixels: usize,
    map: impl Fn(usize, usize, f32) -> f32 + Sync,
) -> Buffer {
    rearranged(planes, channels * pixels, |image, first, target| {
        for (channel, plane) in image.chunks_exact(pixels).enumerate() {
            for (pixel, &value) in plane.iter().enumerate() {
                target[pixel * channels + channel] = map(channel, first + channel * pixels + pixel, value);
            }
        }
    })
}

/// Channels-last to planes; `map(channel, value)`.
pub(crate) fn channels_first(
    images: &[f32],
    channels: usize,
    pixels: usize,
    map: impl Fn(usize, f32) -> f32 + Sync,
) -> Buffer {
    rearranged(images, channels * pixels, |image, _, target| {
        for (channel, plane) in target.chunks_exact_mut(pixels).enumerate() {
            for (pixel, value) in plane.iter_mut().enumerate() {
                *value = map(channel, image[pixel * channels + channel]);
            }
        }
    })
}

/// The logistic function of channels-last images, as planes.
pub(crate) fn logistic_channels_first(isa: Isa, images: &[f32], channels: usize, pixels: usize) -> Buffer {
    let mut squashed = Buffer::new(images.len());
    let image = channels * pixels;
    squashed
        .par_chunks_mut(image.max(1))
        .zip(images.par_chunks(image.max(1)))
        .for_each(|(target, image)| logistic(isa, image, target));
    channels_first(&squashed, channels, pixels, |_, value| value)
}

/// Each image on its own, from `work(image, index of its first value, target)`.
fn rearranged(images: &[f32], length: usize, work: impl Fn(&[f32], usize, &mut [f32]) + Sync) -> Buffer {
    let mut result = Buffer::new(images.len());
    let parts = Disjoint::new(&mut result);
    for_each(images.len() / length.max(1), |index, _| {
        // SAFETY: each index is visited once.
        let target = unsafe { parts.part(index, length) };
        work(&images[index * length..][..length], index * length, target);
    });
    result
}
