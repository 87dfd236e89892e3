//! Everything between convolutions, a row of an image at a time: padding, batch norm, ReLU, pooling, and their gradients.
//!
//! Per-channel factors come repeated over a row, so that the loops run over whole rows whatever the number of channels.

use super::simd::{Panel, simd};

/// Copies an image into the middle of one with `pad` zeros around.
pub(crate) fn pad(
    source: &[f32],
    [height, width]: [usize; 2],
    channels: usize,
    pad: usize,
    target: &mut [f32],
) {
    let (row, padded) = (width * channels, (width + 2 * pad) * channels);
    let side = pad * channels;
    target[..pad * padded].fill(0.0);
    target[(height + pad) * padded..].fill(0.0);
    for (source, target) in source.chunks_exact(row).zip(target[pad * padded..].chunks_exact_mut(padded)) {
        target[..side].fill(0.0);
        target[side..side + row].copy_from_slice(source);
        target[side + row..].fill(0.0);
    }
}

/// Which input of a 2x2 window was its maximum, 0 to 3 row by row; [`NONE`] when the ReLU cut it off.
pub(crate) type Winner = u8;
/// No gradient passes.
pub(crate) const NONE: Winner = 4;

/// Smaller values become 0; NaN stays NaN.
#[inline(always)]
fn relu(value: f32) -> f32 {
    if value < 0.0 { 0.0 } else { value }
}

simd! {
    /// Sums and sums of squares of each channel of one image, `[2, channels]`; `scratch` is two rows.
    pub(crate) fn moments(image: &[f32], channels: usize, scratch: &mut [f32], sums: &mut [f64]) = moments_of;
}

#[inline(always)]
fn moments_of<P: Panel>(image: &[f32], channels: usize, scratch: &mut [f32], sums: &mut [f64]) {
    scratch.fill(0.0);
    let (first, second) = scratch.split_at_mut(scratch.len() / 2);
    for row in image.chunks_exact(first.len()) {
        for ((sum, square), value) in first.iter_mut().zip(second.iter_mut()).zip(row) {
            *sum += value;
            *square += value * value;
        }
    }
    fold(scratch, channels, sums);
}

/// Adds rows of per-pixel sums `[2, row]` up to per-channel sums `[2, channels]`.
#[inline(always)]
fn fold(rows: &[f32], channels: usize, sums: &mut [f64]) {
    let halves = rows.chunks_exact(rows.len() / 2).zip(sums.chunks_exact_mut(channels));
    for (row, sums) in halves {
        sums.fill(0.0);
        for pixel in row.chunks_exact(channels) {
            for (sum, value) in sums.iter_mut().zip(pixel) {
                *sum += f64::from(*value);
            }
        }
    }
}

simd! {
    /// `target = relu?(scale · source + shift + residual?)`; `scale` and `shift` are one row long, no `residual` is an empty slice.
    pub(crate) fn affine(
        source: &[f32],
        scale: &[f32],
        shift: &[f32],
        residual: &[f32],
        relu: bool,
        target: &mut [f32],
    ) = affine_of;
}

#[inline(always)]
fn affine_of<P: Panel>(
    source: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: &[f32],
    cut: bool,
    target: &mut [f32],
) {
    let length = scale.len();
    let floor = if cut { 0.0 } else { f32::NEG_INFINITY };
    for (index, (source, target)) in
        source.chunks_exact(length).zip(target.chunks_exact_mut(length)).enumerate()
    {
        let factors = scale.iter().zip(shift);
        if residual.is_empty() {
            for ((target, value), (scale, shift)) in target.iter_mut().zip(source).zip(factors) {
                let value = scale * value + shift;
                *target = if value < floor { 0.0 } else { value };
            }
        } else {
            let residual = &residual[index * length..][..length];
            for (((target, value), residual), (scale, shift)) in
                target.iter_mut().zip(source).zip(residual).zip(factors)
            {
                let value = scale * value + shift + residual;
                *target = if value < floor { 0.0 } else { value };
            }
        }
    }
}

simd! {
    /// 2x2 maxima of `relu?(scale · source + shift)` of an image `[height, width, channels]`, and which input won.
    ///
    /// An odd last row or column is left out. The first of equals wins.
    pub(crate) fn affine_pool(
        source: &[f32],
        width: usize,
        scale: &[f32],
        shift: &[f32],
        relu: bool,
        target: &mut [f32],
        winners: &mut [Winner],
    ) = affine_pool_of;
}

#[inline(always)]
fn affine_pool_of<P: Panel>(
    source: &[f32],
    width: usize,
    scale: &[f32],
    shift: &[f32],
    cut: bool,
    target: &mut [f32],
    winners: &mut [Winner],
) {
    let channels = scale.len();
    let row = width * channels;
    let pooled = width / 2 * channels;
    if pooled == 0 {
        return;
    }
    let pairs = source.chunks_exact(2 * row);
    for ((pair, target), winners) in
        pairs.zip(target.chunks_exact_mut(pooled)).zip(winners.chunks_exact_mut(pooled))
    {
        let (upper, lower) = pair.split_at(row);
        let windows = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
        for ((target, winners), (upper, lower)) in
            target.chunks_exact_mut(channels).zip(winners.chunks_exact_mut(channels)).zip(windows)
        {
            let (a, b) = upper.split_at(channels);
            let (c, d) = lower.split_at(channels);
            let (b, c, d) = (&b[..channels], &c[..channels], &d[..channels]);
            let (scale, shift, a) = (&scale[..channels], &shift[..channels], &a[..channels]);
            let (target, winners) = (&mut target[..channels], &mut winners[..channels]);
            for k in 0..channels {
                let at = |values: &[f32]| scale[k] * values[k] + shift[k];
                let (mut best, mut winner) = (at(a), 0);
                for (index, value) in [(1, at(b)), (2, at(c)), (3, at(d))] {
                    let better = value > best;
                    best = if better { value } else { best };
                    winner = if better { index } else { winner };
                }
                target[k] = if cut { relu(best) } else { best };
                winners[k] = if cut && best <= 0.0 { NONE } else { winner };
            }
        }
    }
}

/// What the gradient of a block's output meets first on its way back.
#[derive(Clone, Copy)]
pub(crate) enum Tail<'a> {
    /// Nothing.
    Linear,
    /// A ReLU with these outputs.
    Relu(&'a [f32]),
    /// A 2x2 maximum with these winners.
    Pool(&'a [Winner]),
}

impl<'a> Tail<'a> {
    /// That of one image of a batch.
    pub(crate) fn image(self, index: usize, floats: usize) -> Self {
        match self {
            Self::Linear => Self::Linear,
            Self::Relu(outputs) => Self::Relu(&outputs[index * floats..][..floats]),
            Self::Pool(winners) => Self::Pool(&winners[index * floats..][..floats]),
        }
    }
}

simd! {
    /// The gradient before the tail, an image `[height, width, channels]`, from that after it.
    pub(crate) fn before_tail(
        gradient: &[f32],
        tail: Tail<'_>,
        width: usize,
        channels: usize,
        target: &mut [f32],
    ) = before_tail_of;
}

#[inline(always)]
fn before_tail_of<P: Panel>(
    gradient: &[f32],
    tail: Tail<'_>,
    width: usize,
    channels: usize,
    target: &mut [f32],
) {
    match tail {
        Tail::Linear => target.copy_from_slice(gradient),
        Tail::Relu(outputs) => {
            for ((target, gradient), output) in target.iter_mut().zip(gradient).zip(outputs) {
                *target = if *output > 0.0 { *gradient } else { 0.0 };
            }
        }
        Tail::Pool(winners) => {
            let row = width * channels;
            let pooled = width / 2 * channels;
            if target.len() / row % 2 == 1 {
                let last = target.len() - row;
                target[last..].fill(0.0);
            }
            if pooled == 0 {
                return target.fill(0.0);
            }
            let inputs = gradient.chunks_exact(pooled).zip(winners.chunks_exact(pooled));
            for (pair, (gradient, winners)) in target.chunks_exact_mut(2 * row).zip(inputs) {
                let (upper, lower) = pair.split_at_mut(row);
                if width % 2 == 1 {
                    upper[2 * pooled..].fill(0.0);
                    lower[2 * pooled..].fill(0.0);
                }
                let windows = upper.chunks_exact_mut(2 * channels).zip(lower.chunks_exact_mut(2 * channels));
                let inputs = gradient.chunks_exact(channels).zip(winners.chunks_exact(channels));
                for ((upper, lower), (gradient, winners)) in windows.zip(inputs) {
                    let (a, b) = upper.split_at_mut(channels);
                    let (c, d) = lower.split_at_mut(channels);
                    for (index, target) in [a, b, c, d].into_iter().enumerate() {
                        for ((target, gradient), winner) in target.iter_mut().zip(gradient).zip(winners) {
                            *target = if *winner == index as Winner { *gradient } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}

simd! {
    /// Sums of `gradient` and of `gradient · values` over the pixels of one image, `[2, channels]`; `scratch` is two rows.
    pub(crate) fn products(
        gradient: &[f32],
        values: &[f32],
        channels: usize,
        scratch: &mut [f32],
        sums: &mut [f64],
    ) = products_of;
}

#[inline(always)]
fn products_of<P: Panel>(
    gradient: &[f32],
    values: &[f32],
    channels: usize,
    scratch: &mut [f32],
    sums: &mut [f64],
) {
    scratch.fill(0.0);
    let (first, second) = scratch.split_at_mut(scratch.len() / 2);
    let length = first.len();
    for (gradient, values) in gradient.chunks_exact(length).zip(values.chunks_exact(length)) {
        for (((sum, product), gradient), value) in
            first.iter_mut().zip(second.iter_mut()).zip(gradient).zip(values)
        {
            *sum += gradient;
            *product += gradient * value;
        }
    }
    fold(scratch, channels, sums);
}

simd! {
    /// `gradient = a · gradient + b · values + c`, each factor one row long: batch norm's gradient to its input.
    pub(crate) fn combine(gradient: &mut [f32], values: &[f32], a: &[f32], b: &[f32], c: &[f32]) = combine_of;
}

#[inline(always)]
fn combine_of<P: Panel>(gradient: &mut [f32], values: &[f32], a: &[f32], b: &[f32], c: &[f32]) {
    for (gradient, values) in gradient.chunks_exact_mut(a.len()).zip(values.chunks_exact(a.len())) {
        for ((gradient, value), ((a, b), c)) in gradient.iter_mut().zip(values).zip(a.iter().zip(b).zip(c)) {
            *gradient = a * *gradient + b * value + c;
        }
    }
}
