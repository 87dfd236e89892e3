//! What is done number by number: the logistic function, losses, optimiser steps.
//!
//! The loops are plain; compiled for each instruction set, they run on its vector unit.

use rayon::prelude::*;

use super::memory::Buffer;
use super::simd::{Isa, Panel, simd};

/// Numbers that a thread takes at a time; sums are taken block by block.
const BLOCK: usize = 1 << 13;

simd! {
    /// The logistic function 1 / (1 + exp(−x)) of each number, within 2 units in the last place of 1.
    pub(crate) fn logistic(values: &[f32], target: &mut [f32]) = logistic_of;
}

#[inline(always)]
fn logistic_of<P: Panel>(values: &[f32], target: &mut [f32]) {
    for (target, value) in target.iter_mut().zip(values) {
        *target = 1.0 / (1.0 + exponential(-value));
    }
}

/// exp(x) by x = n ln 2 + r with r within ±ln 2 / 2, and the degree-6 Taylor-like polynomial of the Cephes library for exp(r).
///
/// Within 2 units in the last place where the result is a normal number; the argument is cut off at ±87, NaN stays NaN.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    // Adding and subtracting 1.5 · 2^23 rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = ((((1.987_569_1e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 0.166_666_65)
        * r
        + 0.5;
    let mantissa = p * r * r + r + 1.0;
    // SAFETY: n is a whole number within ±126, or NaN, in which case the mantissa is NaN whatever the bits are.
    let exponent = if n.is_nan() { 0 } else { unsafe { n.to_int_unchecked::<i32>() } };
    mantissa * f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Sum of squared differences.
pub(crate) fn squared_error(isa: Isa, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let blocks: Vec<f32> = a
        .par_chunks(BLOCK)
        .zip(b.par_chunks(BLOCK))
        .map(|(a, b)| {
            let mut sum = 0.0;
            squares(isa, a, b, &mut sum);
            sum
        })
        .collect();
    blocks.into_iter().map(f64::from).sum()
}

simd! {
    fn squares(a: &[f32], b: &[f32], sum: &mut f32) = squares_of;
}

#[inline(always)]
fn squares_of<P: Panel>(a: &[f32], b: &[f32], sum: &mut f32) {
    const LANES: usize = 32;
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    let rest = a.chunks_exact(LANES).remainder().iter().zip(b.chunks_exact(LANES).remainder());
    *sum = sums.iter().sum::<f32>() + rest.map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
}

/// `scale · (a − b)`.
pub(crate) fn scaled_difference(isa: Isa, a: &[f32], b: &[f32], scale: f32) -> Buffer {
    assert_eq!(a.len(), b.len());
    let mut result = Buffer::new(a.len());
    result
        .par_chunks_mut(BLOCK)
        .zip(a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK)))
        .for_each(|(target, (a, b))| difference(isa, a, b, scale, target));
    result
}

simd! {
    fn difference(a: &[f32], b: &[f32], scale: f32, target: &mut [f32]) = difference_of;
}

#[inline(always)]
fn difference_of<P: Panel>(a: &[f32], b: &[f32], scale: f32, target: &mut [f32]) {
    for (target, (a, b)) in target.iter_mut().zip(a.iter().zip(b)) {
        *target = scale * (a - b);
    }
}

/// Sum over rows of CE(p, softmax(z/T)) = log Σ exp(z_i/T) · Σ p_i − Σ p_i z_i/T, and its gradient to the logits z, both `[rows, classes]`.
pub(crate) fn soft_cross_entropy(
    logits: &[f32],
    targets: &[f32],
    classes: usize,
    temperature: f64,
) -> (f64, Vec<f32>) {
    assert_eq!(logits.len(), targets.len());
    let mut gradient = vec![0.0; logits.len()];
    let losses: Vec<f64> = gradient
        .par_chunks_exact_mut(classes)
        .with_min_len(32)
        .zip(logits.par_chunks_exact(classes).zip(targets.par_chunks_exact(classes)))
        .map(|(gradient, (logits, targets))| {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scaled = |logit: f32| f64::from(logit - largest) / temperature;
            let total: f64 = logits.iter().map(|&logit| scaled(logit).exp()).sum();
            let mass: f64 = targets.iter().map(|&target| f64::from(target)).sum();
            for ((gradient, &logit), &target) in gradient.iter_mut().zip(logits).zip(targets) {
                let probability = scaled(logit).exp() / total;
                *gradient = ((probability * mass - f64::from(target)) / temperature) as f32;
            }
            let products =
                logits.iter().zip(targets).map(|(&logit, &target)| f64::from(target) * scaled(logit));
            total.ln() * mass - products.sum::<f64>()
        })
        .collect();
    (losses.into_iter().sum(), gradient)
}

/// Factors of a step of SGD with momentum.
#[derive(Clone, Copy)]
pub(crate) struct Momentum {
    pub(crate) rate: f32,
    pub(crate) momentum: f32,
    pub(crate) decay: f32,
}

simd! {
    /// v ← μv + g + λw, w ← w − ηv.
    pub(crate) fn momentum_step(
        factors: Momentum,
        weights: &[f32],
        gradient: &[f32],
        velocity: &[f32],
        new_weights: &mut [f32],
        new_velocity: &mut [f32],
    ) = momentum_step_of;
}

#[inline(always)]
fn momentum_step_of<P: Panel>(
    factors: Momentum,
    weights: &[f32],
    gradient: &[f32],
    velocity: &[f32],
    new_weights: &mut [f32],
    new_velocity: &mut [f32],
) {
    let Momentum { rate, momentum, decay } = factors;
    let count = weights.len();
    let (gradient, velocity) = (&gradient[..count], &velocity[..count]);
    let (new_weights, new_velocity) = (&mut new_weights[..count], &mut new_velocity[..count]);
    for index in 0..count {
        let moved = momentum * velocity[index] + gradient[index] + decay * weights[index];
        new_velocity[index] = moved;
        new_weights[index] = weights[index] - rate * moved;
    }
}

/// Factors of a step of Adam, with the correction of the moments' bias in `rate` and `epsilon`.
#[derive(Clone, Copy)]
pub(crate) struct Adaptive {
    pub(crate) rate: f32,
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    pub(crate) epsilon: f32,
    pub(crate) decay: f32,
    pub(crate) shrink: f32,
}

simd! {
    /// m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², w ← shrink · w − η m / (√v + ε).
    pub(crate) fn adaptive_step(
        factors: Adaptive,
        weights: &[f32],
        gradient: &[f32],
        moments: [&[f32]; 2],
        new_weights: &mut [f32],
        new_moments: [&mut [f32]; 2],
    ) = adaptive_step_of;
}

#[inline(always)]
fn adaptive_step_of<P: Panel>(
    factors: Adaptive,
    weights: &[f32],
    gradient: &[f32],
    [first, second]: [&[f32]; 2],
    new_weights: &mut [f32],
    [new_first, new_second]: [&mut [f32]; 2],
) {
    let Adaptive { rate, beta_1, beta_2, epsilon, decay, shrink } = factors;
    let count = weights.len();
    let (gradient, first, second) = (&gradient[..count], &first[..count], &second[..count]);
    let (new_weights, new_first) = (&mut new_weights[..count], &mut new_first[..count]);
    let new_second = &mut new_second[..count];
    for index in 0..count {
        let slope = gradient[index] + decay * weights[index];
        let mean = beta_1 * first[index] + (1.0 - beta_1) * slope;
        let square = beta_2 * second[index] + (1.0 - beta_2) * slope * slope;
        new_first[index] = mean;
        new_second[index] = square;
        new_weights[index] = shrink * weights[index] - rate * mean / (square.sqrt() + epsilon);
    }
}
