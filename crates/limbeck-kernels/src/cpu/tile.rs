//! The two micro-kernels that do all the multiplying.
//!
//! [`convolve`]: a few pixels times sixteen output channels in registers, a broadcast input value times a panel of weights at a time.
//! [`weight_gradient`]: a few weight rows times sixteen output channels in registers, over all pixels. No im2col: taps of one row lie side by side in a
//! channels-last image, so a pixel's inputs are a few contiguous runs.

use super::plan::Pass;
use super::simd::{LANES, Panel, simd};

/// What an output starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The channel's bias.
    Bias,
    /// What the output holds already.
    Target,
}

simd! {
    /// Runs `pass` over one padded image.
    ///
    /// `weights` are packed panels, `bias` is padded to whole panels, `target` is `[pixels, channels]`.
    pub(crate) fn convolve(
        pass: &Pass,
        source: &[f32],
        weights: &[f32],
        bias: &[f32],
        start: Start,
        relu: bool,
        target: &mut [f32],
        channels: usize,
    ) = convolve_panels;
}

/// Bytes of a panel of weights above which pixels are walked in blocks, so that the block's inputs stay in the first-level cache.
const LARGE_PANEL: usize = 24_000;
/// Pixels of such a block: a multiple of every tile.
const BLOCK: usize = 84;

#[inline(always)]
fn convolve_panels<P: Panel>(
    pass: &Pass,
    source: &[f32],
    weights: &[f32],
    bias: &[f32],
    start: Start,
    relu: bool,
    target: &mut [f32],
    channels: usize,
) {
    let depth = pass.depth();
    let panels = channels.div_ceil(LANES);
    let pixels = pass.sources.len();
    assert!(source.len() >= pass.source_end() && weights.len() >= panels * depth * LANES);
    assert!(bias.len() >= panels * LANES && target.len() >= pass.target_end() * channels);
    let block = if depth * LANES * size_of::<f32>() > LARGE_PANEL { BLOCK } else { pixels };
    let mut first = 0;
    while first < pixels {
        let last = (first + block).min(pixels);
        for panel in 0..panels {
            let tile = Tile {
                pass,
                source: source.as_ptr(),
                weights: weights[panel * depth * LANES..].as_ptr(),
                bias: bias[panel * LANES..].as_ptr(),
                start,
                relu,
                target: target.as_mut_ptr(),
                channels,
                panel,
            };
            // SAFETY: the assertions above bound every source, weight, bias and target that a pixel of the pass reaches.
            unsafe {
                if channels - panel * LANES <= P::Half::WIDTH {
                    tile.run_all::<P::Half>(first, last);
                } else {
                    tile.run_all::<P>(first, last);
                }
            }
        }
        first = last;
    }
}

struct Tile<'a> {
    pass: &'a Pass,
    source: *const f32,
    weights: *const f32,
    bias: *const f32,
    start: Start,
    relu: bool,
    target: *mut f32,
    channels: usize,
    panel: usize,
}

impl Tile<'_> {
    /// The pixels from `first` to `last`, in tiles as large as the registers allow.
    #[inline(always)]
    unsafe fn run_all<P: Panel>(&self, first: usize, last: usize) {
        let mut pixel = first;
        unsafe {
            while pixel + P::PIXELS <= last {
                match P::PIXELS {
                    14 => self.run::<P, 14>(pixel),
                    12 => self.run::<P, 12>(pixel),
                    6 => self.run::<P, 6>(pixel),
                    _ => self.run::<P, 2>(pixel),
                }
                pixel += P::PIXELS;
            }
            while pixel + 4 <= last {
                self.run::<P, 4>(pixel);
                pixel += 4;
            }
            while pixel + 2 <= last {
                self.run::<P, 2>(pixel);
                pixel += 2;
            }
            if pixel < last {
                self.run::<P, 1>(pixel);
            }
        }
    }

    /// One panel's channels of `N` pixels from `pixel` on.
    #[inline(always)]
    unsafe fn run<P: Panel, const N: usize>(&self, pixel: usize) {
        unsafe {
            let pass = self.pass;
            let valid = (self.channels - self.panel * LANES).min(P::WIDTH);
            let targets = pass.targets.as_ptr().add(pixel);
            let target =
                |n: usize| self.target.add(*targets.add(n) as usize * self.channels + self.panel * LANES);
            let mut sums = match self.start {
                Start::Bias => [P::load(self.bias); N],
                Start::Target => {
                    let mut sums = [P::zero(); N];
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = load_some::<P>(target(n), valid);
                    }
                    sums
                }
            };
            let sources = pass.sources.as_ptr().add(pixel);
            let mut weights = self.weights;
            for row in 0..pass.rows {
                let mut runs = [self.source; N];
                for (n, run) in runs.iter_mut().enumerate() {
                    *run = self.source.add(*sources.add(n) as usize + row * pass.row_stride);
                }
                for k in 0..pass.run {
                    let panel = P::load(weights);
                    weights = weights.add(LANES);
                    for n in 0..N {
                        sums[n] = sums[n].add_scaled(runs[n].add(k), panel);
                    }
                }
            }
            for (n, sum) in sums.into_iter().enumerate() {
                let sum = if self.relu { sum.relu() } else { sum };
                store_some(sum, target(n), valid);
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn load_some<P: Panel>(from: *const f32, valid: usize) -> P {
    unsafe {
        if valid == P::WIDTH {
            return P::load(from);
        }
        let mut lanes = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), valid);
        P::load(lanes.as_ptr())
    }
}

#[inline(always)]
pub(super) unsafe fn store_some<P: Panel>(sum: P, to: *mut f32, valid: usize) {
    unsafe {
        if valid == P::WIDTH {
            return sum.store(to);
        }
        let mut lanes = [0.0; LANES];
        sum.store(lanes.as_mut_ptr());
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, valid);
    }
}

simd! {
    /// Adds some images' weight gradient of `pass` to `gradient`, `[depth, channels in whole panels]`.
    ///
    /// `sources` are the padded images one after the other; `output_gradient` is theirs at the pass's pixels, `[panel, image, pixel, 16]`.
    pub(crate) fn weight_gradient(
        pass: &Pass,
        sources: &[f32],
        images: usize,
        output_gradient: &[f32],
        channels: usize,
        gradient: &mut [f32],
    ) = weight_gradient_panels;
}

/// Pixels whose inputs and gradients stay in the first-level cache while all weight rows pass by.
pub(crate) const PIXEL_BLOCK: usize = 64;

#[inline(always)]
fn weight_gradient_panels<P: Panel>(
    pass: &Pass,
    sources: &[f32],
    images: usize,
    output_gradient: &[f32],
    channels: usize,
    gradient: &mut [f32],
) {
    let (depth, pixels, panels) = (pass.depth(), pass.sources.len(), channels.div_ceil(LANES));
    let image = sources.len() / images;
    assert!(image >= pass.source_end() && output_gradient.len() >= panels * images * pixels * LANES);
    assert!(gradient.len() >= depth * panels * LANES);
    let stride = panels * LANES;
    let mut first = 0;
    while first < pixels {
        let last = (first + PIXEL_BLOCK).min(pixels);
        for row in 0..pass.rows {
            let mut k = 0;
            while k < pass.run {
                let start = row * pass.row_stride + k;
                let mut height = 1;
                for panel in 0..panels {
                    let block = Block {
                        sources: sources[start..].as_ptr(),
                        image,
                        images,
                        offsets: &pass.sources[first..last],
                        output: output_gradient[(panel * images * pixels + first) * LANES..].as_ptr(),
                        output_image: pixels * LANES,
                        target: gradient[(row * pass.run + k) * stride + panel * LANES..].as_mut_ptr(),
                        stride,
                    };
                    // SAFETY: the assertions above bound what the pass's pixels and rows reach.
                    height = unsafe {
                        if channels - panel * LANES <= P::Half::WIDTH && panels == 1 {
                            block.run::<P::Half>(pass.run - k)
                        } else {
                            block.run::<P>(pass.run - k)
                        }
                    };
                }
                k += height;
            }
        }
        first = last;
    }
}

/// A few weight rows times one panel, summed over a block of pixels of some images.
struct Block<'a> {
    sources: *const f32,
    /// Floats from one source image to the next.
    image: usize,
    images: usize,
    offsets: &'a [u32],
    output: *const f32,
    /// Floats from one image's output gradient to the next.
    output_image: usize,
    target: *mut f32,
    stride: usize,
}

impl Block<'_> {
    /// As many rows as the registers and `left` allow; returns how many.
    #[inline(always)]
    unsafe fn run<P: Panel>(&self, left: usize) -> usize {
        let height = [P::PIXELS, 4, 3, 2, 1].into_iter().find(|&height| height <= left).unwrap_or(1);
        unsafe {
            match height {
                14 => self.rows::<P, 14>(),
                12 => self.rows::<P, 12>(),
                6 => self.rows::<P, 6>(),
                4 => self.rows::<P, 4>(),
                3 => self.rows::<P, 3>(),
                2 => self.rows::<P, 2>(),
                _ => self.rows::<P, 1>(),
            }
        }
        height
    }

    #[inline(always)]
    unsafe fn rows<P: Panel, const N: usize>(&self) {
        unsafe {
            let mut sums = [P::zero(); N];
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = P::load(self.target.add(n * self.stride));
            }
            for image in 0..self.images {
                let sources = self.sources.add(image * self.image);
                let mut output = self.output.add(image * self.output_image);
                for &offset in self.offsets {
                    let values = sources.add(offset as usize);
                    let panel = P::load(output);
                    output = output.add(LANES);
                    for n in 0..N {
                        sums[n] = sums[n].add_scaled(values.add(n), panel);
                    }
                }
            }
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(self.target.add(n * self.stride));
            }
        }
    }
}
