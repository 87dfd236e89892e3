//! What a convolution does, as tables: every kind of it, and each of its gradients, is a few [`Pass`]es of one micro-kernel.
//!
//! A pass computes some target pixels from a padded channels-last image. Rows and columns are independent, so a pass is the product of two
//! [`Axis`] entries: which targets, from which source positions, and which kernel taps meet there. Strided gradients and upsampled inputs fall into one
//! pass for each parity of the target, in which no product with a zero and none of the copied pixels is left: a nearest ×2 upsampling followed by a
//! 3x3 kernel costs four products an output instead of nine, because the taps that see the same source pixel are summed beforehand.

use rayon::prelude::*;

use super::few::is_few;
use super::simd::LANES;

/// How an input is read by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sampling {
    /// A square kernel of 1 or 3, with padding that keeps the size at stride 1; stride 1 or 2.
    Kernel {
        /// Side of the kernel.
        size: usize,
        /// Step between outputs.
        stride: usize,
    },
    /// Nearest-neighbour upsampling by 2, then a 3x3 kernel at stride 1.
    Upsampled,
}

impl Sampling {
    /// Side of the kernel.
    pub(crate) fn kernel(self) -> usize {
        match self {
            Self::Kernel { size, .. } => size,
            Self::Upsampled => 3,
        }
    }

    /// Length of an output axis for an input of this length.
    pub(crate) fn output(self, input: usize) -> usize {
        match self {
            Self::Kernel { stride, .. } => input.div_ceil(stride),
            Self::Upsampled => 2 * input,
        }
    }

    /// Zeros around the input, and around the gradient of the output.
    fn padding(self) -> usize {
        self.kernel() / 2
    }

    fn forward(self, input: usize) -> Vec<Axis> {
        let output = self.output(input);
        match self {
            Self::Kernel { size: 1, stride } => vec![Axis::new(output, (0, 1), (0, stride), &[&[0]])],
            Self::Kernel { stride, .. } => {
                vec![Axis::new(output, (0, 1), (0, stride), &[&[0], &[1], &[2]])]
            }
            Self::Upsampled => vec![
                Axis::new(input, (0, 2), (0, 1), &[&[0], &[1, 2]]),
                Axis::new(input, (1, 2), (1, 1), &[&[0, 1], &[2]]),
            ],
        }
    }

    fn backward(self, input: usize) -> Vec<Axis> {
        match self {
            Self::Kernel { size: 1, stride } => {
                vec![Axis::new(input.div_ceil(stride), (0, stride), (0, 1), &[&[0]])]
            }
            Self::Kernel { stride: 1, .. } => {
                vec![Axis::new(input, (0, 1), (0, 1), &[&[2], &[1], &[0]])]
            }
            Self::Kernel { .. } => vec![
                Axis::new(input.div_ceil(2), (0, 2), (1, 1), &[&[1]]),
                Axis::new(input / 2, (1, 2), (1, 1), &[&[2], &[0]]),
            ],
            Self::Upsampled => vec![Axis::new(input, (0, 1), (0, 2), &[&[2], &[1, 2], &[0, 1], &[0]])],
        }
    }
}

/// One dimension of a pass.
struct Axis {
    /// Number of targets.
    count: usize,
    /// First target and the step to the next.
    target: (usize, usize),
    /// Position in the padded source that the first tap of the first target sees, and the step to the next target's.
    source: (usize, usize),
    /// For each source position in turn, the kernel indices that meet there.
    taps: &'static [&'static [usize]],
}

impl Axis {
    fn new(
        count: usize,
        target: (usize, usize),
        source: (usize, usize),
        taps: &'static [&'static [usize]],
    ) -> Self {
        Self { count, target, source, taps }
    }
}

/// Some target pixels of a convolution, computed by one kernel of `rows` runs of contiguous source values.
pub(crate) struct Pass {
    /// Where in the padded source (in floats) each pixel's first row starts.
    pub(crate) sources: Vec<u32>,
    /// Index of each target pixel.
    pub(crate) targets: Vec<u32>,
    /// Rows of the kernel.
    pub(crate) rows: usize,
    /// Floats between rows of the source.
    pub(crate) row_stride: usize,
    /// Contiguous floats that a row of the kernel sees.
    pub(crate) run: usize,
    /// For each position of the kernel, the taps of the weights that are summed there.
    taps: Vec<Vec<usize>>,
    /// Channels of the source.
    pub(crate) channels: usize,
}

impl Pass {
    fn new(
        rows: &Axis,
        columns: &Axis,
        padded_width: usize,
        target_width: usize,
        channels: usize,
        kernel: usize,
    ) -> Self {
        let pixels =
            || (0..rows.count).flat_map(move |row| (0..columns.count).map(move |column| (row, column)));
        let at = |(start, step): (usize, usize), index: usize| start + index * step;
        let sources = pixels()
            .map(|(row, column)| {
                ((at(rows.source, row) * padded_width + at(columns.source, column)) * channels) as u32
            })
            .collect();
        let targets = pixels()
            .map(|(row, column)| (at(rows.target, row) * target_width + at(columns.target, column)) as u32)
            .collect();
        let taps = rows
            .taps
            .iter()
            .flat_map(|row| {
                columns.taps.iter().map(|column| {
                    row.iter().flat_map(|r| column.iter().map(move |c| r * kernel + c)).collect()
                })
            })
            .collect();
        Self {
            sources,
            targets,
            rows: rows.taps.len(),
            row_stride: padded_width * channels,
            run: columns.taps.len() * channels,
            taps,
            channels,
        }
    }

    /// Each of `count` rows of `length` values as a pixel of its own.
    pub(crate) fn rows(count: usize, length: usize) -> Self {
        Self {
            sources: (0..count).map(|row| (row * length) as u32).collect(),
            targets: (0..count as u32).collect(),
            rows: 1,
            row_stride: 0,
            run: length,
            taps: vec![vec![0]],
            channels: length,
        }
    }

    /// Source values that go into one output.
    pub(crate) fn depth(&self) -> usize {
        self.rows * self.run
    }

    /// One past the last source float that any pixel reads.
    pub(crate) fn source_end(&self) -> usize {
        let last = self.sources.iter().max().map_or(0, |&offset| offset as usize);
        if self.sources.is_empty() { 0 } else { last + (self.rows - 1) * self.row_stride + self.run }
    }

    /// One past the last target pixel.
    pub(crate) fn target_end(&self) -> usize {
        self.targets.iter().max().map_or(0, |&pixel| pixel as usize + 1)
    }

    /// Weights in panels `[panel, position, source channel, 16 target channels]`, or `[target, position, source channel]` where the targets are few;
    /// `weight(target, source, tap)` looks one up.
    fn pack(&self, targets: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Vec<f32> {
        let depth = self.depth();
        let of = |target: usize, row: usize| -> f32 {
            let (position, source) = (row / self.channels, row % self.channels);
            self.taps[position].iter().map(|&tap| weight(target, source, tap)).sum()
        };
        if is_few(self.channels, targets) {
            return (0..targets)
                .flat_map(|target| (0..depth).map(move |row| (target, row)))
                .map(|(t, r)| of(t, r))
                .collect();
        }
        let mut packed = vec![0.0; targets.div_ceil(LANES) * depth * LANES];
        packed.par_chunks_exact_mut(depth * LANES).enumerate().for_each(|(panel, block)| {
            let lanes = (targets - panel * LANES).min(LANES);
            // Target by target, as the weights lie in memory.
            for lane in 0..lanes {
                for (position, taps) in self.taps.iter().enumerate() {
                    for source in 0..self.channels {
                        let row = position * self.channels + source;
                        block[row * LANES + lane] =
                            taps.iter().map(|&tap| weight(panel * LANES + lane, source, tap)).sum();
                    }
                }
            }
        });
        packed
    }

    /// Floats of a weight gradient for `targets` channels as it is summed, in the layout of packed weights but position before panel.
    pub(crate) fn packed_gradient(&self, targets: usize) -> usize {
        self.depth() * if is_few(self.channels, targets) { targets } else { targets.next_multiple_of(LANES) }
    }
}

/// One input of a convolution and the passes that it takes.
pub(crate) struct Branch {
    pub(crate) sampling: Sampling,
    pub(crate) size: [usize; 2],
    pub(crate) channels: usize,
    /// The branch's first input channel in the weights.
    first_channel: usize,
    pub(crate) forward: Vec<Pass>,
    pub(crate) backward: Vec<Pass>,
}

impl Branch {
    /// Zeros around the input and around the output's gradient.
    pub(crate) fn padding(&self) -> usize {
        self.sampling.padding()
    }

    /// Floats of one image.
    pub(crate) fn image(&self) -> usize {
        self.size[0] * self.size[1] * self.channels
    }

    /// Whether some pixels reach no output, so that no backward pass writes their gradient.
    pub(crate) fn has_unseen_pixels(&self) -> bool {
        matches!(self.sampling, Sampling::Kernel { size: 1, stride: 2 })
    }
}

/// How sums of products are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Product by product.
    #[cfg_attr(not(test), expect(dead_code, reason = "what the fast way is held against"))]
    Direct,
    /// By fewer products and about twice the rounding where that is faster.
    Fast,
}

/// A convolution of one or more inputs, joined by channels, into one output: shapes, passes, weight layout `[outputs, inputs, k, k]`.
pub(crate) struct Plan {
    pub(crate) branches: Vec<Branch>,
    /// Height and width of the output.
    pub(crate) size: [usize; 2],
    /// Output channels.
    pub(crate) outputs: usize,
    pub(crate) precision: Precision,
    inputs: usize,
    taps: usize,
}

impl Plan {
    /// `inputs`: sampling, height and width, channels of each.
    pub(crate) fn new(
        inputs: &[(Sampling, [usize; 2], usize)],
        outputs: usize,
        precision: Precision,
    ) -> Self {
        let (sampling, size, _) = inputs[0];
        let size = size.map(|side| sampling.output(side));
        let kernel = sampling.kernel();
        let mut first_channel = 0;
        let branches = inputs
            .iter()
            .map(|&(sampling, input, channels)| {
                assert_eq!(input.map(|side| sampling.output(side)), size, "inputs of one output size");
                assert_eq!(sampling.kernel(), kernel, "inputs of one kernel size");
                let pad = 2 * sampling.padding();
                let passes =
                    |axes: fn(Sampling, usize) -> Vec<Axis>, source: usize, target: usize, channels| {
                        let columns = axes(sampling, input[1]);
                        axes(sampling, input[0])
                            .iter()
                            .flat_map(|rows| {
                                columns
                                    .iter()
                                    .map(|columns| {
                                        Pass::new(rows, columns, source + pad, target, channels, kernel)
                                    })
                                    .collect::<Vec<_>>()
                            })
                            .collect::<Vec<_>>()
                    };
                let branch = Branch {
                    sampling,
                    size: input,
                    channels,
                    first_channel,
                    forward: passes(Sampling::forward, input[1], size[1], channels),
                    backward: passes(Sampling::backward, size[1], input[1], outputs),
                };
                first_channel += channels;
                branch
            })
            .collect();
        Self { branches, size, outputs, precision, inputs: first_channel, taps: kernel * kernel }
    }

    /// Pixels of one output image.
    pub(crate) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Floats of one output image.
    pub(crate) fn image(&self) -> usize {
        self.pixels() * self.outputs
    }

    /// Number of weights.
    pub(crate) fn weights(&self) -> usize {
        self.outputs * self.inputs * self.taps
    }

    /// Where a weight lies.
    pub(crate) fn weight_at(&self, branch: &Branch, output: usize, input: usize, tap: usize) -> usize {
        (output * self.inputs + branch.first_channel + input) * self.taps + tap
    }

    /// Packed weights of every forward pass of one branch.
    pub(crate) fn pack_forward(&self, weight: &[f32], branch: &Branch) -> Vec<Vec<f32>> {
        assert_eq!(weight.len(), self.weights());
        let pack = |pass: &Pass| {
            pass.pack(self.outputs, |output, input, tap| weight[self.weight_at(branch, output, input, tap)])
        };
        branch.forward.iter().map(pack).collect()
    }

    /// Packed weights of every backward pass of one branch: inputs and outputs swapped.
    pub(crate) fn pack_backward(&self, weight: &[f32], branch: &Branch) -> Vec<Vec<f32>> {
        assert_eq!(weight.len(), self.weights());
        let pack = |pass: &Pass| {
            pass.pack(branch.channels, |input, output, tap| {
                weight[self.weight_at(branch, output, input, tap)]
            })
        };
        branch.backward.iter().map(pack).collect()
    }

    /// Adds a forward pass's weight gradient `[depth, panels · 16]`, or `[outputs, depth]` where outputs are few, to that of the weights: the
    /// transpose of packing.
    pub(crate) fn unpack_gradient(&self, branch: &Branch, pass: &Pass, packed: &[f32], gradient: &mut [f32]) {
        let (output_step, row_step) = if is_few(pass.channels, self.outputs) {
            (pass.depth(), 1)
        } else {
            (1, self.outputs.next_multiple_of(LANES))
        };
        for row in 0..pass.depth() {
            let (position, input) = (row / pass.channels, row % pass.channels);
            for &tap in &pass.taps[position] {
                let first = (branch.first_channel + input) * self.taps + tap;
                for output in 0..self.outputs {
                    gradient[first + output * self.inputs * self.taps] +=
                        packed[row * row_step + output * output_step];
                }
            }
        }
    }
}
