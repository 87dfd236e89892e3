//! Dense layers: rows of values times a matrix, a few rows times sixteen outputs in registers.

use rayon::prelude::*;

use super::memory::Buffer;
use super::plan::Pass;
use super::rows::moments;
use super::simd::{Isa, LANES, Panel, simd};
use super::threads::{Disjoint, for_each, sized};
use super::tile::{load_some, store_some, weight_gradient};

/// Inputs whose weights of a panel, and whose values of a tile, stay in the first-level cache together.
const DEPTH: usize = 256;
/// Rows that all panels of such a block pass by together: a multiple of every tile.
const ROWS: usize = 24;
/// Columns of a weight gradient that one thread sums: a multiple of every tile.
const COLUMNS: usize = 96;
/// Thinned networks that share their work. More share more, in shorter sums; 4 was fastest for a layer of 2048 inputs.
const SHARED: usize = 4;

/// A matrix in the order in which it is multiplied by: `[panel of outputs, input, 16]`.
pub(crate) struct Matrix {
    inputs: usize,
    outputs: usize,
    packed: Buffer,
}

impl Matrix {
    /// From `[inputs, outputs]`, times `scale`.
    pub(crate) fn new(weight: &[f32], inputs: usize, outputs: usize, scale: f32) -> Self {
        Self::packed(weight, inputs, outputs, |block, panel, lanes| {
            for (block, row) in block.chunks_exact_mut(LANES).zip(weight.chunks_exact(outputs)) {
                for (value, source) in block.iter_mut().zip(&row[panel * LANES..][..lanes]) {
                    *value = scale * source;
                }
            }
        })
    }

    /// The transpose of `[outputs, inputs]`.
    fn transposed(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        Self::packed(weight, inputs, outputs, |block, panel, lanes| {
            for lane in 0..lanes {
                let source = &weight[(panel * LANES + lane) * inputs..];
                for (block, source) in block.chunks_exact_mut(LANES).zip(source) {
                    block[lane] = *source;
                }
            }
        })
    }

    /// `fill(block, panel, lanes)` for each panel.
    fn packed(
        weight: &[f32],
        inputs: usize,
        outputs: usize,
        fill: impl Fn(&mut [f32], usize, usize) + Sync,
    ) -> Self {
        assert_eq!(weight.len(), inputs * outputs);
        let mut packed = Buffer::new(outputs.div_ceil(LANES) * inputs * LANES);
        packed.par_chunks_exact_mut((inputs * LANES).max(1)).enumerate().for_each(|(panel, block)| {
            let lanes = (outputs - panel * LANES).min(LANES);
            if lanes < LANES {
                block.fill(0.0);
            }
            fill(block, panel, lanes);
        });
        Self { inputs, outputs, packed }
    }
}

/// `relu?(values · matrix + bias)` of `[rows, inputs]`.
pub(crate) fn dense(isa: Isa, values: &[f32], matrix: &Matrix, bias: &[f32], relu: bool) -> Buffer {
    let all: Vec<u32> = (0..matrix.inputs as u32).collect();
    thinned(isa, values, matrix, &[all], bias, relu).remove(0)
}

/// What [`dense`] gives with no inputs but those of `kept`, for each of several such lists.
///
/// A few thinned networks together sort the inputs by which of them keep it, and sum each class once: four networks that keep half of the inputs
/// take 15/16 of the products of the whole layer, not twice as many.
pub(crate) fn thinned(
    isa: Isa,
    values: &[f32],
    matrix: &Matrix,
    kept: &[Vec<u32>],
    bias: &[f32],
    relu: bool,
) -> Vec<Buffer> {
    let (inputs, outputs) = (matrix.inputs, matrix.outputs);
    let rows = values.len() / inputs;
    let mut padded_bias = bias.to_vec();
    padded_bias.resize(outputs, 0.0);
    let mut results: Vec<Buffer> = kept.iter().map(|_| Buffer::new(rows * outputs)).collect();
    let parts: Vec<_> = results.iter_mut().map(|result| Disjoint::new(result)).collect();
    let groups: Vec<(&[Disjoint<'_, f32>], Vec<Class>)> = parts
        .chunks(SHARED)
        .zip(kept.chunks(SHARED))
        .map(|(parts, kept)| (parts, classes(kept, inputs)))
        .collect();
    // A row's result does not depend on which rows are taken together, so that this may depend on the number of threads.
    let together = rows.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(ROWS).max(ROWS);
    let blocks = rows.div_ceil(together);
    for_each(groups.len() * blocks, |number, _| {
        let (parts, classes) = &groups[number / blocks];
        let first = number % blocks * together;
        let count = together.min(rows - first);
        let mut targets: Vec<&mut [f32]> = parts
            .iter()
            // SAFETY: each row of each result is visited once.
            .map(|part| unsafe { part.range(first * outputs, count * outputs) })
            .collect();
        let values = &values[first * inputs..][..count * inputs];
        multiply(isa, values, matrix, classes, &padded_bias, relu, &mut targets);
    });
    results
}

/// Inputs that the same networks of a group keep.
struct Class {
    inputs: Vec<u32>,
    /// Positions of these networks in the group.
    members: Vec<usize>,
}

fn classes(kept: &[Vec<u32>], inputs: usize) -> Vec<Class> {
    let mut keepers = vec![0_usize; inputs];
    for (member, kept) in kept.iter().enumerate() {
        kept.iter().for_each(|&input| keepers[input as usize] |= 1 << member);
    }
    let of = |set: usize| Class {
        inputs: (0..inputs as u32).filter(|&input| keepers[input as usize] == set).collect(),
        members: (0..kept.len()).filter(|member| set >> member & 1 == 1).collect(),
    };
    (1..1 << kept.len()).map(of).filter(|class| !class.inputs.is_empty()).collect()
}

simd! {
    /// For each class, its inputs' products added to its members' targets, between bias and ReLU.
    fn multiply(
        values: &[f32],
        matrix: &Matrix,
        classes: &[Class],
        bias: &[f32],
        relu: bool,
        targets: &mut [&mut [f32]],
    ) = multiply_by;
}

#[inline(always)]
fn multiply_by<P: Panel>(
    values: &[f32],
    matrix: &Matrix,
    classes: &[Class],
    bias: &[f32],
    relu: bool,
    targets: &mut [&mut [f32]],
) {
    let Matrix { inputs, outputs, packed } = matrix;
    let (inputs, outputs) = (*inputs, *outputs);
    let mut side_by_side = [0.0; ROWS * DEPTH];
    for (block, values) in values.chunks(ROWS * inputs).enumerate() {
        let rows = values.len() / inputs;
        let mut targets: Vec<&mut [f32]> = targets
            .iter_mut()
            .map(|target| &mut target[block * ROWS * outputs..][..rows * outputs])
            .collect();
        for target in &mut targets {
            target.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
        }
        for class in classes {
            let members: Vec<*mut f32> =
                class.members.iter().map(|&member| targets[member].as_mut_ptr()).collect();
            for steps in class.inputs.chunks(DEPTH) {
                // Side by side, as rows of a power of two would push each other out of the cache.
                for (target, row) in
                    side_by_side.chunks_exact_mut(steps.len()).zip(values.chunks_exact(inputs))
                {
                    for (target, &input) in target.iter_mut().zip(steps) {
                        *target = row[input as usize];
                    }
                }
                for (panel, weights) in packed.chunks_exact(inputs * LANES).enumerate() {
                    let lanes = outputs - panel * LANES;
                    let tile = Tile {
                        values: side_by_side.as_ptr(),
                        steps,
                        weights: weights.as_ptr(),
                        members: &members,
                        first: panel * LANES,
                        outputs,
                        lanes,
                    };
                    // SAFETY: `steps` indexed a row of as many values as the panel has weights, and rows and outputs are those of the targets.
                    unsafe {
                        if lanes <= P::Half::WIDTH {
                            tile.run_all::<P::Half>(rows);
                        } else {
                            tile.run_all::<P>(rows);
                        }
                    }
                }
            }
        }
        if relu {
            for value in targets.iter_mut().flat_map(|target| target.iter_mut()) {
                *value = if *value < 0.0 { 0.0 } else { *value };
            }
        }
    }
}

/// Some inputs of one panel.
struct Tile<'a> {
    /// `[row, step]`.
    values: *const f32,
    /// The inputs that are summed.
    steps: &'a [u32],
    weights: *const f32,
    /// Targets `[row, output]` that the sums are added to.
    members: &'a [*mut f32],
    /// The panel's first output.
    first: usize,
    outputs: usize,
    /// Outputs from the panel's first on.
    lanes: usize,
}

impl Tile<'_> {
    #[inline(always)]
    unsafe fn run_all<P: Panel>(&self, rows: usize) {
        let mut row = 0;
        unsafe {
            while row + P::PIXELS <= rows {
                match P::PIXELS {
                    14 => self.run::<P, 14>(row),
                    12 => self.run::<P, 12>(row),
                    6 => self.run::<P, 6>(row),
                    _ => self.run::<P, 2>(row),
                }
                row += P::PIXELS;
            }
            while row + 4 <= rows {
                self.run::<P, 4>(row);
                row += 4;
            }
            while row < rows {
                self.run::<P, 1>(row);
                row += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn run<P: Panel, const N: usize>(&self, row: usize) {
        unsafe {
            let mut sums = [P::zero(); N];
            let mut rows = [self.values; N];
            for (n, values) in rows.iter_mut().enumerate() {
                *values = self.values.add((row + n) * self.steps.len());
            }
            for (step, &input) in self.steps.iter().enumerate() {
                let panel = P::load(self.weights.add(input as usize * LANES));
                for n in 0..N {
                    sums[n] = sums[n].add_scaled(rows[n].add(step), panel);
                }
            }
            let valid = self.lanes.min(P::WIDTH);
            for &member in self.members {
                for n in 0..N {
                    let target = member.add((row + n) * self.outputs + self.first);
                    store_some(load_some::<P>(target, valid).plus(sums[n]), target, valid);
                }
            }
        }
    }
}

/// Gradients of [`dense`], empty where not asked for.
#[derive(Default)]
pub(crate) struct DenseGradients {
    pub(crate) values: Buffer,
    pub(crate) weight: Buffer,
    pub(crate) bias: Vec<f32>,
}

/// `output` is what [`dense`] gave if it ended with a ReLU; `weight` is `[inputs, outputs]`.
pub(crate) fn dense_backward(
    isa: Isa,
    values: &[f32],
    weight: &[f32],
    [inputs, outputs]: [usize; 2],
    output: Option<&[f32]>,
    gradient: &[f32],
    wanted_values: bool,
    wanted_weights: bool,
) -> DenseGradients {
    let mut masked = Buffer::default();
    let gradient = match output {
        None => gradient,
        Some(output) => {
            masked = Buffer::new(gradient.len());
            for ((masked, gradient), output) in masked.iter_mut().zip(gradient).zip(output) {
                *masked = if *output > 0.0 { *gradient } else { 0.0 };
            }
            &masked[..]
        }
    };
    let mut result = DenseGradients::default();
    if wanted_values {
        let transposed = Matrix::transposed(weight, outputs, inputs);
        result.values = dense(isa, gradient, &transposed, &[], false);
    }
    if wanted_weights {
        let mut sums = vec![0.0; 2 * outputs];
        moments(isa, gradient, outputs, &mut vec![0.0; 2 * outputs], &mut sums);
        result.bias = sums[..outputs].iter().map(|&sum| sum as f32).collect();
        result.weight = products_of_rows(isa, values, inputs, gradient, outputs);
    }
    drop(masked);
    result
}

/// `valuesᵀ · gradient`, `[inputs, outputs]`: each sum runs over the rows in their order, whatever thread takes it.
fn products_of_rows(isa: Isa, values: &[f32], inputs: usize, gradient: &[f32], outputs: usize) -> Buffer {
    let (rows, panels) = (gradient.len() / outputs, outputs.div_ceil(LANES));
    let mut in_panels = Buffer::new(panels * rows * LANES);
    in_panels.par_chunks_exact_mut(rows * LANES).enumerate().for_each(|(panel, target)| {
        let lanes = (outputs - panel * LANES).min(LANES);
        for (target, row) in target.chunks_exact_mut(LANES).zip(gradient.chunks_exact(outputs)) {
            target[..lanes].copy_from_slice(&row[panel * LANES..][..lanes]);
            target[lanes..].fill(0.0);
        }
    });
    let mut result = Buffer::new(inputs * outputs);
    let parts = Disjoint::new(&mut result);
    for_each(inputs.div_ceil(COLUMNS), |number, scratch| {
        let first = number * COLUMNS;
        let columns = (inputs - first).min(COLUMNS);
        let block = sized(&mut scratch.padded, rows * columns);
        for (target, row) in block.chunks_exact_mut(columns).zip(values.chunks_exact(inputs)) {
            target.copy_from_slice(&row[first..][..columns]);
        }
        let sums = sized(&mut scratch.image, columns * panels * LANES);
        sums.fill(0.0);
        weight_gradient(isa, &Pass::rows(rows, columns), block, 1, &in_panels, outputs, sums);
        // SAFETY: each column is visited once.
        let target = unsafe { parts.range(first * outputs, columns * outputs) };
        for (target, sums) in target.chunks_exact_mut(outputs).zip(sums.chunks_exact(panels * LANES)) {
            target.copy_from_slice(&sums[..outputs]);
        }
    });
    result
}
