//! 2x2 max pooling on its own, where the unpooled image is needed too (a skip connection).

use super::memory::Buffer;
use super::rows::{Tail, Winner, affine_pool, before_tail};
use super::simd::Isa;
use super::threads::{Disjoint, for_each};

/// Maxima `[images, height/2, width/2, channels]` and which input won each.
pub(crate) fn max_pool(
    isa: Isa,
    input: &[f32],
    [height, width]: [usize; 2],
    channels: usize,
) -> (Buffer, Vec<Winner>) {
    let (image, pooled) = (height * width * channels, (height / 2) * (width / 2) * channels);
    let images = input.len() / image;
    let (mut output, mut winners) = (Buffer::new(images * pooled), vec![0; images * pooled]);
    let (one, zero) = (vec![1.0; channels], vec![0.0; channels]);
    let (outputs, winners_out) = (Disjoint::new(&mut output), Disjoint::new(&mut winners));
    for_each(images, |index, _| {
        // SAFETY: each index is visited once.
        let (output, winners) = unsafe { (outputs.part(index, pooled), winners_out.part(index, pooled)) };
        affine_pool(isa, &input[index * image..][..image], width, &one, &zero, false, output, winners);
    });
    (output, winners)
}

/// Gradient to the input from that of the maxima.
pub(crate) fn max_pool_backward(
    isa: Isa,
    gradient: &[f32],
    winners: &[Winner],
    [height, width]: [usize; 2],
    channels: usize,
) -> Buffer {
    let (image, pooled) = (height * width * channels, (height / 2) * (width / 2) * channels);
    let images = gradient.len() / pooled.max(1);
    let mut result = Buffer::new(images * image);
    let parts = Disjoint::new(&mut result);
    for_each(images, |index, _| {
        // SAFETY: each index is visited once.
        let target = unsafe { parts.part(index, image) };
        let tail = Tail::Pool(winners).image(index, pooled);
        before_tail(isa, &gradient[index * pooled..][..pooled], tail, width, channels, target);
    });
    result
}
