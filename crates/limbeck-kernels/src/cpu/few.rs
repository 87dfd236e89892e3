//! Convolutions into few channels (an image's three): sixteen lanes of target channels would be mostly idle, so the lanes run along the
//! source channels instead, and are summed at the end.

use super::plan::Pass;
use super::simd::{Panel, simd};
use super::tile::Start;

/// Lanes along the source.
const WIDTH: usize = 8;
/// Most target channels that are few.
const FEW: usize = 4;

/// Whether a pass from `sources` to `targets` channels is run here.
pub(crate) fn is_few(sources: usize, targets: usize) -> bool {
    targets <= FEW && sources.is_multiple_of(WIDTH)
}

simd! {
    /// Runs `pass` over one padded image, as [`convolve`](super::tile::convolve) does; `weights` are `[target channel, depth]`.
    pub(crate) fn convolve_few(
        pass: &Pass,
        source: &[f32],
        weights: &[f32],
        bias: &[f32],
        start: Start,
        relu: bool,
        target: &mut [f32],
        channels: usize,
    ) = convolve_few_of;
}

#[inline(always)]
fn convolve_few_of<P: Panel>(
    pass: &Pass,
    source: &[f32],
    weights: &[f32],
    bias: &[f32],
    start: Start,
    relu: bool,
    target: &mut [f32],
    channels: usize,
) {
    assert!(source.len() >= pass.source_end() && weights.len() >= channels * pass.depth());
    assert!(bias.len() >= channels && target.len() >= pass.target_end() * channels);
    assert!(is_few(pass.channels, channels) && P::Half::WIDTH == WIDTH);
    let tile = Tile { pass, source: source.as_ptr(), weights: weights.as_ptr(), bias, start, relu };
    // SAFETY: the assertions above bound every source, weight and target that a pixel of the pass reaches.
    unsafe {
        match channels {
            1 => tile.run_all::<P::Half, 1, 4>(target),
            2 => tile.run_all::<P::Half, 2, 4>(target),
            3 => tile.run_all::<P::Half, 3, 4>(target),
            _ => tile.run_all::<P::Half, 4, 2>(target),
        }
    }
}

struct Tile<'a> {
    pass: &'a Pass,
    source: *const f32,
    weights: *const f32,
    bias: &'a [f32],
    start: Start,
    relu: bool,
}

impl Tile<'_> {
    /// All pixels, `M` at a time, into `C` channels.
    #[inline(always)]
    unsafe fn run_all<P: Panel, const C: usize, const M: usize>(&self, target: &mut [f32]) {
        let pixels = self.pass.sources.len();
        let mut pixel = 0;
        unsafe {
            while pixel + M <= pixels {
                self.run::<P, C, M>(pixel, target);
                pixel += M;
            }
            while pixel < pixels {
                self.run::<P, C, 1>(pixel, target);
                pixel += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn run<P: Panel, const C: usize, const M: usize>(&self, pixel: usize, target: &mut [f32]) {
        unsafe {
            let (pass, depth) = (self.pass, self.pass.depth());
            let mut sums = [[P::zero(); C]; M];
            for row in 0..pass.rows {
                let mut runs = [self.source; M];
                for (m, run) in runs.iter_mut().enumerate() {
                    *run = self.source.add(pass.sources[pixel + m] as usize + row * pass.row_stride);
                }
                let weights = self.weights.add(row * pass.run);
                for k in (0..pass.run).step_by(WIDTH) {
                    let mut panels = [P::zero(); C];
                    for c in 0..C {
                        panels[c] = P::load(weights.add(c * depth + k));
                    }
                    for m in 0..M {
                        let values = P::load(runs[m].add(k));
                        for c in 0..C {
                            sums[m][c] = sums[m][c].add_product(values, panels[c]);
                        }
                    }
                }
            }
            for m in 0..M {
                let target = &mut target[pass.targets[pixel + m] as usize * C..][..C];
                for c in 0..C {
                    let first = if self.start == Start::Bias { self.bias[c] } else { target[c] };
                    let value = first + sums[m][c].total();
                    target[c] = if self.relu && value < 0.0 { 0.0 } else { value };
                }
            }
        }
    }
}

simd! {
    /// Adds some images' weight gradient of `pass` to `gradient`, `[target channel, depth]`.
    ///
    /// `sources` are the padded images one after the other, `output_gradient` is `[image, pixel, channel]` with `image` floats an image.
    pub(crate) fn weight_gradient_few(
        pass: &Pass,
        sources: &[f32],
        images: usize,
        output_gradient: &[f32],
        image: usize,
        channels: usize,
        gradient: &mut [f32],
    ) = weight_gradient_few_of;
}

#[inline(always)]
fn weight_gradient_few_of<P: Panel>(
    pass: &Pass,
    sources: &[f32],
    images: usize,
    output_gradient: &[f32],
    image: usize,
    channels: usize,
    gradient: &mut [f32],
) {
    let source_image = sources.len() / images;
    assert!(source_image >= pass.source_end() && image >= pass.target_end() * channels);
    assert!(output_gradient.len() >= images * image && gradient.len() >= channels * pass.depth());
    assert!(is_few(pass.channels, channels) && P::Half::WIDTH == WIDTH);
    let sums = Sums { pass, sources, source_image, images, output_gradient, image };
    // SAFETY: the assertions above bound what the pass's pixels and rows reach.
    unsafe {
        match channels {
            1 => sums.run_all::<P::Half, 1>(gradient),
            2 => sums.run_all::<P::Half, 2>(gradient),
            3 => sums.run_all::<P::Half, 3>(gradient),
            _ => sums.run_all::<P::Half, 4>(gradient),
        }
    }
}

struct Sums<'a> {
    pass: &'a Pass,
    sources: &'a [f32],
    source_image: usize,
    images: usize,
    output_gradient: &'a [f32],
    image: usize,
}

impl Sums<'_> {
    #[inline(always)]
    unsafe fn run_all<P: Panel, const C: usize>(&self, gradient: &mut [f32]) {
        for row in 0..self.pass.rows {
            let mut k = 0;
            while k < self.pass.run {
                // As many lanes together as the registers hold sums for.
                let panels = (self.pass.run - k) / WIDTH;
                unsafe {
                    match panels {
                        0 | 1 => self.run::<P, C, 1>(row, k, gradient),
                        2 | 3 => self.run::<P, C, 2>(row, k, gradient),
                        _ if C < 4 => self.run::<P, C, 4>(row, k, gradient),
                        _ => self.run::<P, C, 2>(row, k, gradient),
                    }
                }
                k += WIDTH
                    * if panels < 2 {
                        1
                    } else if panels < 4 || C == 4 {
                        2
                    } else {
                        4
                    };
            }
        }
    }

    /// `L` panels of a row of the kernel, from float `k` of its run on.
    #[inline(always)]
    unsafe fn run<P: Panel, const C: usize, const L: usize>(
        &self,
        row: usize,
        k: usize,
        gradient: &mut [f32],
    ) {
        unsafe {
            let (pass, depth) = (self.pass, self.pass.depth());
            let first = row * pass.run + k;
            let mut sums = [[P::zero(); C]; L];
            for (l, sums) in sums.iter_mut().enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = P::load(gradient.as_ptr().add(c * depth + first + l * WIDTH));
                }
            }
            for image in 0..self.images {
                let sources =
                    self.sources.as_ptr().add(image * self.source_image + row * pass.row_stride + k);
                let gradients = self.output_gradient.as_ptr().add(image * self.image);
                for (&source, &target) in pass.sources.iter().zip(&pass.targets) {
                    let (values, slopes) = (sources.add(source as usize), gradients.add(target as usize * C));
                    for (l, sums) in sums.iter_mut().enumerate() {
                        let values = P::load(values.add(l * WIDTH));
                        for (c, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add_scaled(slopes.add(c), values);
                        }
                    }
                }
            }
            for (l, sums) in sums.into_iter().enumerate() {
                for (c, sum) in sums.into_iter().enumerate() {
                    sum.store(gradient.as_mut_ptr().add(c * depth + first + l * WIDTH));
                }
            }
        }
    }
}
