//! Convolution blocks over a batch: convolution, bias or batch norm, residual, ReLU, 2x2 max pool, and the gradients of all of it.

use std::ops::Range;

use rayon::prelude::*;

use super::few::{convolve_few, is_few, weight_gradient_few};
use super::memory::Buffer;
use super::plan::{Branch, Pass, Plan, Precision, Sampling};
use super::rows::{Tail, Winner, affine, affine_pool, before_tail, combine, moments, pad, products};
use super::simd::{Isa, LANES};
use super::threads::{Disjoint, Scratch, for_each, sized};
use super::tile::{PIXEL_BLOCK, Start, convolve, weight_gradient};
use super::winograd::{self, Kernel, Variant};

/// Weight gradients are summed in this many groups of images, whatever the number of threads...
const GROUPS: usize = 16;
/// ...or in this many where a group's sum has more floats than [`LARGE_SUM`], and memory would be what takes the time.
const FEWER_GROUPS: usize = 8;
const LARGE_SUM: usize = 1 << 16;

/// What follows bias or batch norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finish {
    /// Negative values become 0.
    pub(crate) relu: bool,
    /// 2x2 maxima, after the ReLU.
    pub(crate) pool: bool,
}

/// Output of a block with bias.
pub(crate) struct Biased {
    pub(crate) output: Buffer,
    /// Winners of the pool, empty without one.
    pub(crate) winners: Vec<Winner>,
}

/// Output of a block with batch norm in training.
pub(crate) struct Normed {
    pub(crate) output: Buffer,
    pub(crate) winners: Vec<Winner>,
    /// The convolution's output, before batch norm.
    pub(crate) convolved: Buffer,
    /// Mean and biased variance of each channel over the batch.
    pub(crate) mean: Vec<f32>,
    pub(crate) variance: Vec<f32>,
}

/// Which gradients are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) inputs: [bool; 2],
    pub(crate) residual: bool,
    /// Weight, and bias or the factors of batch norm.
    pub(crate) weights: bool,
}

/// Gradients, empty where not asked for.
#[derive(Default)]
pub(crate) struct Gradients {
    pub(crate) inputs: [Buffer; 2],
    pub(crate) residual: Buffer,
    pub(crate) weight: Vec<f32>,
    /// Bias, or beta of batch norm.
    pub(crate) shift: Vec<f32>,
    /// Gamma of batch norm.
    pub(crate) scale: Vec<f32>,
}

/// One row of an output, each channel's value repeated for every pixel.
fn repeated(values: &[f32], width: usize) -> Vec<f32> {
    values.repeat(width)
}

impl Plan {
    fn pooled(&self) -> usize {
        (self.size[0] / 2) * (self.size[1] / 2) * self.outputs
    }

    /// Winograd's variant for a branch, if it is one that has any and gains by it.
    fn variant(&self, branch: &Branch, [sources, targets]: [usize; 2]) -> Option<Variant> {
        match (self.precision, branch.sampling) {
            (Precision::Fast, Sampling::Kernel { size: 3, stride: 1 }) => {
                winograd::worthwhile(sources, targets, branch.size)
            }
            _ => None,
        }
    }

    fn forward_weights(&self, isa: Isa, weight: &[f32]) -> Vec<Weights> {
        let of = |branch: &Branch| {
            let channels = [branch.channels, self.outputs];
            match self.variant(branch, channels) {
                Some(variant) => {
                    Weights::Winograd(Kernel::new(isa, variant, channels, |output, input, tap| {
                        weight[self.weight_at(branch, output, input, tap)]
                    }))
                }
                None => Weights::Direct(self.pack_forward(weight, branch)),
            }
        };
        self.branches.iter().map(of).collect()
    }

    /// The gradient to the input is the convolution of the output's gradient with the kernel turned around.
    fn backward_weights(&self, isa: Isa, weight: &[f32], branch: &Branch) -> Weights {
        let channels = [self.outputs, branch.channels];
        match self.variant(branch, channels) {
            Some(variant) => Weights::Winograd(Kernel::new(isa, variant, channels, |input, output, tap| {
                weight[self.weight_at(branch, output, input, 8 - tap)]
            })),
            None => Weights::Direct(self.pack_backward(weight, branch)),
        }
    }

    /// The convolution of some images of every input, into `target` `[images, pixels, outputs]`.
    fn convolve_images(
        &self,
        isa: Isa,
        batch: Range<usize>,
        inputs: &[&[f32]],
        weights: &[Weights],
        bias: &[f32],
        relu: bool,
        [padded, tiles]: [&mut Vec<f32>; 2],
        target: &mut [f32],
    ) {
        let last = self.branches.len() - 1;
        for (number, (branch, (input, weights))) in
            self.branches.iter().zip(inputs.iter().zip(weights)).enumerate()
        {
            let sources = &input[batch.start * branch.image()..batch.end * branch.image()];
            let start = if number == 0 { Start::Bias } else { Start::Target };
            let relu = relu && number == last;
            match weights {
                Weights::Winograd(kernel) => {
                    let buffers = [&mut *padded, &mut *tiles];
                    winograd::convolve(isa, kernel, sources, branch.size, bias, start, relu, buffers, target);
                }
                Weights::Direct(weights) => {
                    for (source, target) in
                        sources.chunks_exact(branch.image()).zip(target.chunks_exact_mut(self.image()))
                    {
                        let source =
                            with_zeros(source, branch.size, branch.channels, branch.padding(), padded);
                        for (pass, weights) in branch.forward.iter().zip(weights) {
                            run_pass(isa, pass, source, weights, bias, start, relu, target, self.outputs);
                        }
                    }
                }
            }
        }
    }
}

/// One pass over one padded image, by the kernel for its channels.
fn run_pass(
    isa: Isa,
    pass: &Pass,
    source: &[f32],
    weights: &[f32],
    bias: &[f32],
    start: Start,
    relu: bool,
    target: &mut [f32],
    channels: usize,
) {
    let kernel = if is_few(pass.channels, channels) { convolve_few } else { convolve };
    kernel(isa, pass, source, weights, bias, start, relu, target, channels);
}

/// A branch's weights, as the kernel that is chosen for it wants them.
enum Weights {
    /// Of every pass.
    Direct(Vec<Vec<f32>>),
    Winograd(Kernel),
}

/// Images that a thread takes together, so that weights are loaded less often for small ones.
fn together<'a>(weights: impl IntoIterator<Item = &'a Weights>, size: [usize; 2], images: usize) -> usize {
    let of = |weights: &Weights| match weights {
        Weights::Direct(_) => 1,
        Weights::Winograd(kernel) => kernel.together(size, images),
    };
    weights.into_iter().map(of).max().unwrap_or(1)
}

/// Images with `padding` zeros around each; without padding, the images themselves.
fn with_zeros<'a>(
    images: &'a [f32],
    size: [usize; 2],
    channels: usize,
    padding: usize,
    padded: &'a mut Vec<f32>,
) -> &'a [f32] {
    if padding == 0 {
        return images;
    }
    let image = size[0] * size[1] * channels;
    let padded_image = (size[0] + 2 * padding) * (size[1] + 2 * padding) * channels;
    let target = sized(padded, images.len() / image * padded_image);
    for (image, target) in images.chunks_exact(image).zip(target.chunks_exact_mut(padded_image)) {
        pad(image, size, channels, padding, target);
    }
    target
}

/// Number of images, the same in every input.
fn images(plan: &Plan, inputs: &[&[f32]]) -> usize {
    assert_eq!(plan.branches.len(), inputs.len());
    let counts: Vec<usize> =
        plan.branches.iter().zip(inputs).map(|(branch, input)| input.len() / branch.image()).collect();
    assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "inputs of {counts:?} images");
    counts[0]
}

fn whole_panels(values: &[f32]) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(values.len().div_ceil(LANES) * LANES, 0.0);
    padded
}

/// `finish(convolution + bias + residual?)`; no residual is an empty slice, and a residual excludes a pool.
pub(crate) fn forward_biased(
    isa: Isa,
    plan: &Plan,
    inputs: &[&[f32]],
    weight: &[f32],
    bias: &[f32],
    residual: &[f32],
    finish: Finish,
) -> Biased {
    let images = images(plan, inputs);
    let weights = plan.forward_weights(isa, weight);
    let together = together(&weights, plan.size, images);
    let padded_bias = whole_panels(bias);
    let floats = if finish.pool { plan.pooled() } else { plan.image() };
    let mut output = Buffer::new(images * floats);
    let mut winners = vec![0; if finish.pool { output.len() } else { 0 }];
    let (one, zero) = (vec![1.0; plan.outputs], vec![0.0; plan.outputs]);
    let (ones, zeros) = (repeated(&one, plan.size[1]), repeated(&zero, plan.size[1]));
    let (outputs, winner_parts) = (Disjoint::new(&mut output), Disjoint::new(&mut winners));
    for_each(images.div_ceil(together), |number, scratch| {
        let Scratch { image, padded, tiles, .. } = scratch;
        let batch = number * together..((number + 1) * together).min(images);
        // SAFETY: each image is visited once.
        let target = unsafe { outputs.range(batch.start * floats, batch.len() * floats) };
        if !finish.pool && residual.is_empty() {
            let buffers = [padded, tiles];
            let relu = finish.relu;
            plan.convolve_images(isa, batch, inputs, &weights, &padded_bias, relu, buffers, target);
            return;
        }
        let image = sized(image, batch.len() * plan.image());
        plan.convolve_images(
            isa,
            batch.clone(),
            inputs,
            &weights,
            &padded_bias,
            false,
            [padded, tiles],
            image,
        );
        for (position, (index, image)) in batch.zip(image.chunks_exact(plan.image())).enumerate() {
            let target = &mut target[position * floats..][..floats];
            if finish.pool {
                // SAFETY: each image is visited once.
                let winners = unsafe { winner_parts.part(index, floats) };
                affine_pool(isa, image, plan.size[1], &one, &zero, finish.relu, target, winners);
            } else {
                let residual = &residual[index * floats..][..floats];
                affine(isa, image, &ones, &zeros, residual, finish.relu, target);
            }
        }
    });
    Biased { output, winners }
}

/// `finish(batch norm(convolution) + residual?)` with the statistics of the batch (Ioffe & Szegedy 2015, algorithm 1).
pub(crate) fn forward_normed(
    isa: Isa,
    plan: &Plan,
    inputs: &[&[f32]],
    weight: &[f32],
    [gamma, beta]: [&[f32]; 2],
    epsilon: f64,
    residual: &[f32],
    finish: Finish,
) -> Normed {
    let images = images(plan, inputs);
    let weights = plan.forward_weights(isa, weight);
    let together = together(&weights, plan.size, images);
    let channels = plan.outputs;
    let zero = whole_panels(&vec![0.0; channels]);
    let mut convolved = Buffer::new(images * plan.image());
    let mut sums = vec![0.0; images * 2 * channels];
    let (parts, sum_parts) = (Disjoint::new(&mut convolved), Disjoint::new(&mut sums));
    for_each(images.div_ceil(together), |number, scratch| {
        let batch = number * together..((number + 1) * together).min(images);
        // SAFETY: each image is visited once.
        let (targets, sums) = unsafe {
            (
                parts.range(batch.start * plan.image(), batch.len() * plan.image()),
                sum_parts.range(batch.start * 2 * channels, batch.len() * 2 * channels),
            )
        };
        let buffers = [&mut scratch.padded, &mut scratch.tiles];
        plan.convolve_images(isa, batch, inputs, &weights, &zero, false, buffers, targets);
        let rows = sized(&mut scratch.rows, 2 * plan.size[1] * channels);
        for (target, sums) in targets.chunks_exact(plan.image()).zip(sums.chunks_exact_mut(2 * channels)) {
            moments(isa, target, channels, rows, sums);
        }
    });
    let count = (images * plan.pixels()) as f64;
    let totals = totals(&sums, 2 * channels);
    let mean: Vec<f64> = totals[..channels].iter().map(|sum| sum / count).collect();
    let variance: Vec<f64> = totals[channels..]
        .iter()
        .zip(&mean)
        .map(|(square, mean)| (square / count - mean * mean).max(0.0))
        .collect();
    let scale: Vec<f32> = gamma
        .iter()
        .zip(&variance)
        .map(|(gamma, variance)| (f64::from(*gamma) / (variance + epsilon).sqrt()) as f32)
        .collect();
    let shift: Vec<f32> = beta
        .iter()
        .zip(scale.iter().zip(&mean))
        .map(|(beta, (scale, mean))| (f64::from(*beta) - f64::from(*scale) * mean) as f32)
        .collect();

    let floats = if finish.pool { plan.pooled() } else { plan.image() };
    let mut output = Buffer::new(images * floats);
    let mut winners = vec![0; if finish.pool { output.len() } else { 0 }];
    let (scales, shifts) = (repeated(&scale, plan.size[1]), repeated(&shift, plan.size[1]));
    let (outputs, winner_parts) = (Disjoint::new(&mut output), Disjoint::new(&mut winners));
    for_each(images, |index, _| {
        // SAFETY: each index is visited once.
        let (target, winners) = unsafe { (outputs.part(index, floats), winner_parts.part(index, floats)) };
        let image = &convolved[index * plan.image()..][..plan.image()];
        if finish.pool {
            affine_pool(isa, image, plan.size[1], &scale, &shift, finish.relu, target, winners);
        } else {
            let residual = if residual.is_empty() { residual } else { &residual[index * floats..][..floats] };
            affine(isa, image, &scales, &shifts, residual, finish.relu, target);
        }
    });
    let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    Normed { output, winners, convolved, mean: single(mean), variance: single(variance) }
}

/// Column sums of `[images, width]`, image after image.
fn totals(sums: &[f64], width: usize) -> Vec<f64> {
    sums.chunks_exact(width).fold(vec![0.0; width], |mut totals, image| {
        totals.iter_mut().zip(image).for_each(|(total, sum)| *total += sum);
        totals
    })
}

/// Gradients of [`forward_biased`].
pub(crate) fn backward_biased(
    isa: Isa,
    plan: &Plan,
    inputs: &[&[f32]],
    weight: &[f32],
    gradient: &[f32],
    tail: Tail<'_>,
    wanted: Wanted,
) -> Gradients {
    let images = images(plan, inputs);
    let channels = plan.outputs;
    let floats = gradient.len() / images;
    let mut residual = Buffer::new(if wanted.residual { images * plan.image() } else { 0 });
    let mut sums = vec![0.0; if wanted.weights { images * 2 * channels } else { 0 }];
    let (residuals, sum_parts) = (Disjoint::new(&mut residual), Disjoint::new(&mut sums));
    let mut result = conv_gradients(isa, plan, inputs, weight, images, wanted, |index, image, rows| {
        before_tail(
            isa,
            &gradient[index * floats..][..floats],
            tail.image(index, floats),
            plan.size[1],
            channels,
            image,
        );
        // SAFETY: each index is visited once.
        let (residual, sums) =
            unsafe { (residuals.part(index, plan.image()), sum_parts.part(index, 2 * channels)) };
        if !residual.is_empty() {
            residual.copy_from_slice(image);
        }
        if !sums.is_empty() {
            moments(isa, image, channels, sized(rows, 2 * plan.size[1] * channels), sums);
        }
    });
    result.residual = residual;
    if wanted.weights {
        result.shift = totals(&sums, 2 * channels)[..channels].iter().map(|&sum| sum as f32).collect();
    }
    result
}

/// Gradients of [`forward_normed`], through the batch's statistics (Ioffe & Szegedy 2015, section 3).
pub(crate) fn backward_normed(
    isa: Isa,
    plan: &Plan,
    inputs: &[&[f32]],
    weight: &[f32],
    gamma: &[f32],
    epsilon: f64,
    convolved: &[f32],
    [mean, variance]: [&[f32]; 2],
    gradient: &[f32],
    tail: Tail<'_>,
    wanted: Wanted,
) -> Gradients {
    let images = images(plan, inputs);
    let channels = plan.outputs;
    let floats = gradient.len() / images;
    let of = |index: usize| &convolved[index * plan.image()..][..plan.image()];
    let before = |index: usize, target: &mut [f32]| {
        let gradient = &gradient[index * floats..][..floats];
        before_tail(isa, gradient, tail.image(index, floats), plan.size[1], channels, target);
    };
    let mut residual = Buffer::new(if wanted.residual { images * plan.image() } else { 0 });
    let mut sums = vec![0.0; images * 2 * channels];
    let (residuals, sum_parts) = (Disjoint::new(&mut residual), Disjoint::new(&mut sums));
    for_each(images, |index, scratch| {
        let image = sized(&mut scratch.image, plan.image());
        before(index, image);
        // SAFETY: each index is visited once.
        let (residual, sums) =
            unsafe { (residuals.part(index, plan.image()), sum_parts.part(index, 2 * channels)) };
        if !residual.is_empty() {
            residual.copy_from_slice(image);
        }
        let rows = sized(&mut scratch.rows, 2 * plan.size[1] * channels);
        products(isa, image, of(index), channels, rows, sums);
    });
    let totals = totals(&sums, 2 * channels);
    let count = (images * plan.pixels()) as f64;
    let (mut scale, mut shift) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
    let mut factors = [(); 3].map(|()| Vec::with_capacity(channels));
    for channel in 0..channels {
        let (sum, product) = (totals[channel], totals[channels + channel]);
        let mean = f64::from(mean[channel]);
        let inverse = 1.0 / (f64::from(variance[channel]) + epsilon).sqrt();
        let gamma_gradient = (product - sum * mean) * inverse;
        // dy = γ/σ · (g − Σg/m − x̂ · Σ(g x̂)/m), as a·g + b·y + c of the convolution's output y.
        let a = f64::from(gamma[channel]) * inverse;
        let b = -a * inverse * gamma_gradient / count;
        let c = -a * sum / count - b * mean;
        scale.push(gamma_gradient as f32);
        shift.push(sum as f32);
        for (factors, value) in factors.iter_mut().zip([a, b, c]) {
            factors.push(value as f32);
        }
    }
    let [a, b, c] = factors.map(|values| repeated(&values, plan.size[1]));
    let mut result = conv_gradients(isa, plan, inputs, weight, images, wanted, |index, image, _| {
        before(index, image);
        combine(isa, image, of(index), &a, &b, &c);
    });
    result.residual = residual;
    if wanted.weights {
        (result.scale, result.shift) = (scale, shift);
    }
    result
}

/// Gradients of a convolution alone; `output_gradient(index, image, rows)` fills in one image's.
fn conv_gradients(
    isa: Isa,
    plan: &Plan,
    inputs: &[&[f32]],
    weight: &[f32],
    images: usize,
    wanted: Wanted,
    output_gradient: impl Fn(usize, &mut [f32], &mut Vec<f32>) + Sync,
) -> Gradients {
    let panels = plan.outputs.div_ceil(LANES);
    let backward: Vec<Option<Weights>> = plan
        .branches
        .iter()
        .zip(wanted.inputs)
        .map(|(branch, wanted)| wanted.then(|| plan.backward_weights(isa, weight, branch)))
        .collect();
    let fast = together(backward.iter().flatten(), plan.size, images);
    // Packed weight gradients of all passes, one after the other, for each group.
    let packed: usize = plan
        .branches
        .iter()
        .flat_map(|branch| &branch.forward)
        .map(|pass| pass.packed_gradient(plan.outputs))
        .sum();
    let group = if wanted.weights {
        images.div_ceil(if packed > LARGE_SUM { FEWER_GROUPS } else { GROUPS }).max(1)
    } else {
        fast
    };
    let groups = images.div_ceil(group);
    let mut partial = Buffer::new(if wanted.weights { groups * packed } else { 0 });
    let mut input_gradients = [Buffer::default(), Buffer::default()];
    for ((gradient, branch), wanted) in input_gradients.iter_mut().zip(&plan.branches).zip(wanted.inputs) {
        if wanted {
            *gradient = Buffer::new(images * branch.image());
        }
    }
    let [first, second] = &mut input_gradients;
    let parts = [Disjoint::new(first), Disjoint::new(second)];
    let partials = Disjoint::new(&mut partial);
    let no_bias = vec![0.0; plan.branches.iter().map(|branch| branch.channels + LANES).max().unwrap_or(0)];
    // Small images are taken together, so that their weight gradients are loaded and stored less often. How many
    // depends on the sizes alone, because the order of the sums depends on it.
    let passes = plan.branches.iter().flat_map(|branch| &branch.forward);
    let pixels = passes.map(|pass| pass.targets.len()).max().unwrap_or(1).max(1);
    let summed = (PIXEL_BLOCK / pixels).clamp(1, group);
    let together = fast.next_multiple_of(summed).min(group);
    for_each(groups, |number, scratch| {
        let Scratch { image: gradients, padded, panels: panel_buffer, rows, tiles } = scratch;
        // SAFETY: each group is visited once, and each of its images once.
        let weight_part = unsafe { partials.part(number, packed) };
        weight_part.fill(0.0);
        let group = number * group..((number + 1) * group).min(images);
        for first in group.clone().step_by(together) {
            let batch = first..(first + together).min(group.end);
            let gradients = sized(gradients, batch.len() * plan.image());
            for (index, gradient) in batch.clone().zip(gradients.chunks_exact_mut(plan.image())) {
                output_gradient(index, gradient, rows);
            }
            let mut rest = &mut *weight_part;
            for (branch, input) in plan.branches.iter().zip(inputs) {
                if !wanted.weights {
                    break;
                }
                let packed: usize =
                    branch.forward.iter().map(|pass| pass.packed_gradient(plan.outputs)).sum();
                let (part, others) = rest.split_at_mut(packed);
                rest = others;
                let sources = &input[batch.start * branch.image()..batch.end * branch.image()];
                let chunks = sources.chunks(summed * branch.image());
                for (sources, gradients) in chunks.zip(gradients.chunks(summed * plan.image())) {
                    let count = sources.len() / branch.image();
                    let sources = with_zeros(sources, branch.size, branch.channels, branch.padding(), padded);
                    let mut rest = &mut *part;
                    for pass in &branch.forward {
                        let (gradient, others) = rest.split_at_mut(pass.packed_gradient(plan.outputs));
                        rest = others;
                        if is_few(pass.channels, plan.outputs) {
                            let image = plan.image();
                            weight_gradient_few(
                                isa,
                                pass,
                                sources,
                                count,
                                gradients,
                                image,
                                plan.outputs,
                                gradient,
                            );
                            continue;
                        }
                        let buffer = sized(panel_buffer, panels * count * pass.targets.len() * LANES);
                        into_panels(gradients, plan.image(), &pass.targets, plan.outputs, buffer);
                        weight_gradient(isa, pass, sources, count, buffer, plan.outputs, gradient);
                    }
                }
            }
            for ((branch, weights), part) in plan.branches.iter().zip(&backward).zip(&parts) {
                let Some(weights) = weights else { continue };
                // SAFETY: as above.
                let targets =
                    unsafe { part.range(batch.start * branch.image(), batch.len() * branch.image()) };
                let weights = match weights {
                    Weights::Winograd(kernel) => {
                        let buffers = [&mut *padded, &mut *tiles];
                        let start = Start::Bias;
                        winograd::convolve(
                            isa, kernel, gradients, plan.size, &no_bias, start, false, buffers, targets,
                        );
                        continue;
                    }
                    Weights::Direct(weights) => weights,
                };
                let images =
                    gradients.chunks_exact(plan.image()).zip(targets.chunks_exact_mut(branch.image()));
                for (gradient, target) in images {
                    let source = with_zeros(gradient, plan.size, plan.outputs, branch.padding(), padded);
                    if branch.has_unseen_pixels() {
                        target.fill(0.0);
                    }
                    for (pass, weights) in branch.backward.iter().zip(weights) {
                        let start = Start::Bias;
                        run_pass(isa, pass, source, weights, &no_bias, start, false, target, branch.channels);
                    }
                }
            }
        }
    });
    let mut weight_gradient = Vec::new();
    if wanted.weights {
        let sum = sum_of_parts(&partial, packed);
        weight_gradient = vec![0.0; plan.weights()];
        let mut rest = &sum[..];
        for branch in &plan.branches {
            for pass in &branch.forward {
                let (gradient, others) = rest.split_at(pass.packed_gradient(plan.outputs));
                rest = others;
                plan.unpack_gradient(branch, pass, gradient, &mut weight_gradient);
            }
        }
    }
    Gradients { inputs: input_gradients, weight: weight_gradient, ..Gradients::default() }
}

/// The sum of parts of `length` floats, the first to the last for each float.
fn sum_of_parts(parts: &[f32], length: usize) -> Vec<f32> {
    const BLOCK: usize = 1 << 12;
    let mut sum = vec![0.0; length];
    sum.par_chunks_mut(BLOCK).enumerate().for_each(|(number, sum)| {
        for part in parts.chunks_exact(length) {
            let part = &part[number * BLOCK..][..sum.len()];
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
    });
    sum
}

/// Copies the pixels at `targets` of some images into panels `[panel, image, pixel, 16]`, zeros beyond the channels.
fn into_panels(images: &[f32], image: usize, targets: &[u32], channels: usize, panels: &mut [f32]) {
    let mut lanes_of = panels.chunks_exact_mut(LANES);
    for first in (0..channels).step_by(LANES) {
        let lanes = (channels - first).min(LANES);
        for image in images.chunks_exact(image) {
            for (target, lane) in targets.iter().zip(&mut lanes_of) {
                let source = &image[*target as usize * channels + first..][..lanes];
                if lanes == LANES {
                    lane.copy_from_slice(source);
                } else {
                    lane[..lanes].copy_from_slice(source);
                    lane[lanes..].fill(0.0);
                }
            }
        }
    }
}
