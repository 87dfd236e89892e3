//! 3x3 convolutions at stride 1 with fewer multiplications (Winograd 1980; Lavin & Gray 2016), at the price of some rounding.
//!
//! An image is cut into tiles of 2x2 or 4x4 outputs. Each tile's inputs, with a border of one pixel, are mapped to 4x4 or 6x6 frequencies, in each of which
//! the convolution is a plain product of channels with weights; the products are mapped back. That takes 4 or 2.25 products an output instead of nine.
//! Everything is channels-last, so the maps run over whole panels of channels without a transpose.

use std::mem::MaybeUninit;

use super::simd::{Isa, LANES, Panel, simd};
use super::threads::{Disjoint, for_each, sized};
use super::tile::{Start, load_some, store_some};

/// Outputs of one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// F(2x2, 3x3), as exact as the direct sum.
    Two,
    /// F(4x4, 3x3), with two to three times its rounding.
    Four,
}

impl Variant {
    /// Side of a tile of outputs.
    fn tile(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// Number of frequencies.
    fn frequencies(self) -> usize {
        (self.tile() + 2).pow(2)
    }

    /// Rows and columns of tiles that cover an image.
    fn tiles(self, size: [usize; 2]) -> [usize; 2] {
        size.map(|side| side.div_ceil(self.tile()))
    }
}

/// One-dimensional maps between `TILE` outputs, `SIDE` inputs, and as many frequencies.
trait Maps<const TILE: usize, const SIDE: usize> {
    /// Frequencies of a kernel of three taps.
    const WEIGHT: [[f64; 3]; SIDE];
    /// Frequencies of the inputs.
    unsafe fn input<P: Panel>(values: [P; SIDE]) -> [P; SIDE];
    /// Outputs of the products.
    unsafe fn output<P: Panel>(products: [P; SIDE]) -> [P; TILE];
}

struct Two;

impl Maps<2, 4> for Two {
    const WEIGHT: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    unsafe fn input<P: Panel>([a, b, c, d]: [P; 4]) -> [P; 4] {
        unsafe { [a.minus(c), b.plus(c), c.minus(b), d.minus(b)] }
    }

    #[inline(always)]
    unsafe fn output<P: Panel>([a, b, c, d]: [P; 4]) -> [P; 2] {
        unsafe { [a.plus(b.plus(c)), b.minus(c).plus(d)] }
    }
}

/// `Four` evaluates its polynomials at 0, ±[`NEAR`], ±[`FAR`] and infinity. The usual 1 and 2 make twice the error
/// (five times the largest); all powers needed of these two are exact in single precision.
const NEAR: f64 = 0.625;
/// See [`NEAR`].
const FAR: f64 = 1.5;

struct Four;

impl Four {
    const NEAR1: f32 = NEAR as f32;
    const NEAR2: f32 = (NEAR * NEAR) as f32;
    const NEAR3: f32 = (NEAR * NEAR * NEAR) as f32;
    const FAR1: f32 = FAR as f32;
    const FAR2: f32 = (FAR * FAR) as f32;
    const FAR3: f32 = (FAR * FAR * FAR) as f32;
    const SUM: f32 = (NEAR * NEAR + FAR * FAR) as f32;
    const PRODUCT: f32 = (NEAR * NEAR * FAR * FAR) as f32;
}

impl Maps<4, 6> for Four {
    const WEIGHT: [[f64; 3]; 6] = {
        const SCALE: f64 = 1.0 / (NEAR * NEAR * FAR * FAR);
        const N: f64 = 1.0 / (2.0 * NEAR * NEAR * (NEAR * NEAR - FAR * FAR));
        const F: f64 = 1.0 / (2.0 * FAR * FAR * (FAR * FAR - NEAR * NEAR));
        [
            [SCALE, 0.0, 0.0],
            [N, NEAR * N, NEAR * NEAR * N],
            [N, -NEAR * N, NEAR * NEAR * N],
            [F, FAR * F, FAR * FAR * F],
            [F, -FAR * F, FAR * FAR * F],
            [0.0, 0.0, 1.0],
        ]
    };

    #[inline(always)]
    unsafe fn input<P: Panel>([a, b, c, d, e, f]: [P; 6]) -> [P; 6] {
        unsafe {
            let (near, far) = (&-Self::FAR2, &-Self::NEAR2);
            let (even, odd) = (e.add_scaled(near, c), d.add_scaled(near, b));
            let (far_even, far_odd) = (e.add_scaled(far, c), d.add_scaled(far, b));
            [
                e.add_scaled(&-Self::SUM, c).add_scaled(&Self::PRODUCT, a),
                even.add_scaled(&Self::NEAR1, odd),
                even.add_scaled(&-Self::NEAR1, odd),
                far_even.add_scaled(&Self::FAR1, far_odd),
                far_even.add_scaled(&-Self::FAR1, far_odd),
                f.add_scaled(&-Self::SUM, d).add_scaled(&Self::PRODUCT, b),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<P: Panel>([a, b, c, d, e, f]: [P; 6]) -> [P; 4] {
        unsafe {
            let (sum, difference) = (b.plus(c), b.minus(c));
            let (far_sum, far_difference) = (d.plus(e), d.minus(e));
            let zero = P::zero();
            [
                a.plus(sum).plus(far_sum),
                zero.add_scaled(&Self::NEAR1, difference).add_scaled(&Self::FAR1, far_difference),
                zero.add_scaled(&Self::NEAR2, sum).add_scaled(&Self::FAR2, far_sum),
                f.add_scaled(&Self::NEAR3, difference).add_scaled(&Self::FAR3, far_difference),
            ]
        }
    }
}

/// A kernel's frequencies.
pub(crate) struct Kernel {
    variant: Variant,
    /// Channels of the source.
    sources: usize,
    /// Channels of the target.
    targets: usize,
    /// `[panel of targets, frequency, source, 16 targets]`.
    weights: Vec<f32>,
}

impl Kernel {
    /// `weight(target, source, tap)` looks a weight up.
    pub(crate) fn new(
        isa: Isa,
        variant: Variant,
        [sources, targets]: [usize; 2],
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let (panels, panel) = (targets.div_ceil(LANES), variant.frequencies() * sources * LANES);
        let mut weights = vec![0.0; panels * panel];
        let parts = Disjoint::new(&mut weights);
        for_each(panels, |number, scratch| {
            let taps = sized(&mut scratch.rows, sources * TAPS * LANES);
            let lanes = (targets - number * LANES).min(LANES);
            taps.fill(0.0);
            for (index, taps) in taps.chunks_exact_mut(LANES).enumerate() {
                for (lane, value) in taps[..lanes].iter_mut().enumerate() {
                    *value = weight(number * LANES + lane, index / TAPS, index % TAPS);
                }
            }
            // SAFETY: each panel is visited once.
            map_weights(isa, variant, taps, unsafe { parts.part(number, panel) });
        });
        Self { variant, sources, targets, weights }
    }

    /// Images whose tiles fill a few blocks, as long as that leaves work for every thread.
    pub(crate) fn together(&self, size: [usize; 2], images: usize) -> usize {
        let [height, width] = self.variant.tiles(size);
        let filling = (2 * BLOCK).div_ceil(height * width).next_multiple_of(3);
        filling.min(images.div_ceil(rayon::current_num_threads())).max(1)
    }
}

/// The fastest variant for channels in and out and the size of images, if one beats the direct sum.
///
/// The number of images has no say, so that an image's outputs do not depend on the batch that it is in.
///
/// Costs are in products for each pair of channels, fitted to timings on a core with AVX2 of 8 to 512 channels, 2 to 64 pixels a side, 1 to 128 images:
/// the multiplication itself, the maps (which matter less the more channels share them), and the kernel's frequencies (which take a few images to pay
/// off). Tiles that stick out of a small image are paid for in full, so that `Two` wins where `Four` would compute mostly nothing.
pub(crate) fn worthwhile(sources: usize, targets: usize, size: [usize; 2]) -> Option<Variant> {
    if sources < FEW {
        return None;
    }
    let shared = 0.5 * (1.0 / sources as f64 + 1.0 / targets.max(FEW) as f64);
    let cost = |variant: Variant| {
        let (product, maps, kernel) = match variant {
            Variant::Two => (1.15, 8.0, 600.0),
            Variant::Four => (1.5, 10.0, 1500.0),
        };
        let tiles = USUAL * variant.tiles(size).iter().product::<usize>();
        (tiles * variant.frequencies()) as f64 * (product + maps * shared) + kernel
    };
    let direct = (USUAL * size[0] * size[1] * TAPS) as f64;
    [Variant::Four, Variant::Two]
        .into_iter()
        .filter(|variant| variant.frequencies() * sources * targets <= MANY)
        .map(|variant| (variant, cost(variant)))
        .filter(|(_, cost)| GAIN * cost <= direct)
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(variant, _)| variant)
}

/// Channels that a map takes together at least; with fewer inputs it would compute mostly nothing.
const FEW: usize = 8;
/// Weights' frequencies above which loading them takes longer than using them.
const MANY: usize = 5 << 20;
/// Times faster that a variant has to be to pay for its rounding.
const GAIN: f64 = 1.15;

/// Images that the frequencies of a kernel serve, as a rule.
const USUAL: usize = 128;

const TAPS: usize = 9;

simd! {
    /// Frequencies `[frequency, source, 16]` of taps `[source, tap, 16]`.
    fn map_weights(variant: Variant, taps: &[f32], weights: &mut [f32]) = map_weights_of;
}

#[inline(always)]
fn map_weights_of<P: Panel>(variant: Variant, taps: &[f32], weights: &mut [f32]) {
    match variant {
        Variant::Two => map_weights_by::<Two, 2, 4>(taps, weights),
        Variant::Four => map_weights_by::<Four, 4, 6>(taps, weights),
    }
}

/// In double precision, because it costs next to nothing here.
#[inline(always)]
fn map_weights_by<M: Maps<TILE, SIDE>, const TILE: usize, const SIDE: usize>(
    taps: &[f32],
    weights: &mut [f32],
) {
    let stride = weights.len() / (SIDE * SIDE);
    for (source, taps) in taps.chunks_exact(TAPS * LANES).enumerate() {
        let mut rows = [[[0.0; LANES]; 3]; SIDE];
        for (row, factors) in rows.iter_mut().zip(M::WEIGHT) {
            for (column, sums) in row.iter_mut().enumerate() {
                for (tap, factor) in factors.into_iter().enumerate() {
                    let taps = &taps[(tap * 3 + column) * LANES..][..LANES];
                    for lane in 0..LANES {
                        sums[lane] += factor * f64::from(taps[lane]);
                    }
                }
            }
        }
        for (row, taps) in rows.iter().enumerate() {
            for (column, factors) in M::WEIGHT.iter().enumerate() {
                let target = &mut weights[(row * SIDE + column) * stride + source * LANES..][..LANES];
                for lane in 0..LANES {
                    let sum =
                        factors[0] * taps[0][lane] + factors[1] * taps[1][lane] + factors[2] * taps[2][lane];
                    target[lane] = sum as f32;
                }
            }
        }
    }
}

/// Convolves some images that lie one after the other.
pub(crate) fn convolve(
    isa: Isa,
    kernel: &Kernel,
    images: &[f32],
    size: [usize; 2],
    bias: &[f32],
    start: Start,
    relu: bool,
    buffers: [&mut Vec<f32>; 2],
    target: &mut [f32],
) {
    let [padded, tiles] = buffers;
    let (channels, side) = (kernel.sources, kernel.variant.tile());
    let [height, width] = kernel.variant.tiles(size).map(|count| count * side + 2);
    let image = height * width * channels;
    let count = images.len() / (size[0] * size[1] * channels);
    // The last pixel's channels are read in whole panels.
    let padded = sized(padded, count * image + LANES);
    let row = size[1] * channels;
    for (source, target) in images.chunks_exact(size[0] * row).zip(padded.chunks_exact_mut(image)) {
        let mut rows = target.chunks_exact_mut(width * channels);
        for row in rows.by_ref().take(1) {
            row.fill(0.0);
        }
        for (source, target) in source.chunks_exact(row).zip(rows.by_ref()) {
            target[..channels].fill(0.0);
            target[channels..][..row].copy_from_slice(source);
            target[channels + row..].fill(0.0);
        }
        rows.for_each(|row| row.fill(0.0));
    }
    let tiles = sized(tiles, scratch(kernel) + LANES);
    let aligned = tiles.as_ptr().align_offset(64).min(LANES);
    let tiles = &mut tiles[aligned..];
    convolve_tiles(isa, kernel, padded, size, count, bias, start, relu, tiles, target);
}

/// Tiles that are worked on together: few enough that the frequencies of many channels stay in the second-level cache.
const BLOCK: usize = 12;

/// Floats of a block's frequencies, and of its products with one panel.
fn scratch(kernel: &Kernel) -> usize {
    kernel.variant.frequencies() * BLOCK * LANES * (kernel.sources.div_ceil(LANES) + 1)
}

simd! {
    /// Convolves padded images, [`BLOCK`] tiles at a time.
    fn convolve_tiles(
        kernel: &Kernel,
        padded: &[f32],
        size: [usize; 2],
        images: usize,
        bias: &[f32],
        start: Start,
        relu: bool,
        scratch: &mut [f32],
        target: &mut [f32],
    ) = convolve_tiles_of;
}

#[inline(always)]
fn convolve_tiles_of<P: Panel>(
    kernel: &Kernel,
    padded: &[f32],
    size: [usize; 2],
    images: usize,
    bias: &[f32],
    start: Start,
    relu: bool,
    buffer: &mut [f32],
    target: &mut [f32],
) {
    let tiles = kernel.variant.tiles(size);
    let padded_size = tiles.map(|count| count * kernel.variant.tile() + 2);
    let panels = kernel.targets.div_ceil(LANES);
    assert!(padded.len() >= images * padded_size[0] * padded_size[1] * kernel.sources + LANES);
    assert!(target.len() >= images * size[0] * size[1] * kernel.targets && bias.len() >= panels * LANES);
    assert!(buffer.len() >= scratch(kernel));
    let (products, frequencies) = buffer.split_at_mut(kernel.variant.frequencies() * BLOCK * LANES);
    let work = Work {
        kernel,
        padded: padded.as_ptr(),
        padded_size,
        size,
        tiles,
        bias: bias.as_ptr(),
        start,
        relu,
        products: products.as_mut_ptr(),
        frequencies: frequencies.as_mut_ptr(),
        target: target.as_mut_ptr(),
    };
    let all = images * tiles[0] * tiles[1];
    for first in (0..all).step_by(BLOCK) {
        let count = BLOCK.min(all - first);
        // SAFETY: the assertions above bound what the tiles reach.
        unsafe {
            match kernel.variant {
                Variant::Two => work.block::<P, Two, 2, 4>(first, count),
                Variant::Four => work.block::<P, Four, 4, 6>(first, count),
            }
        }
    }
}

/// Some images' convolution.
struct Work<'a> {
    kernel: &'a Kernel,
    padded: *const f32,
    padded_size: [usize; 2],
    size: [usize; 2],
    /// Rows and columns of tiles in an image.
    tiles: [usize; 2],
    bias: *const f32,
    start: Start,
    relu: bool,
    /// `[panel of sources, frequency, BLOCK, 16]`: all steps but the first are known to the compiler.
    frequencies: *mut f32,
    /// `[frequency, BLOCK, 16 targets]`.
    products: *mut f32,
    target: *mut f32,
}

impl Work<'_> {
    /// Image, row and column of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let [height, width] = self.tiles;
        [tile / (height * width), tile / width % height, tile % width]
    }

    /// `count` tiles from `first` on.
    #[inline(always)]
    unsafe fn block<P: Panel, M: Maps<TILE, SIDE>, const TILE: usize, const SIDE: usize>(
        &self,
        first: usize,
        count: usize,
    ) {
        unsafe {
            for tile in 0..count {
                // Half panels, because whole ones of a column would not fit into the registers.
                self.map_inputs::<P::Half, M, TILE, SIDE>(first + tile, tile);
            }
            for panel in 0..self.kernel.targets.div_ceil(LANES) {
                let valid = self.kernel.targets - panel * LANES;
                if valid <= P::Half::WIDTH {
                    self.panel::<P::Half, M, TILE, SIDE>(panel, first, count);
                } else {
                    self.panel::<P, M, TILE, SIDE>(panel, first, count);
                }
            }
        }
    }

    /// The frequencies of one tile's inputs.
    #[inline(always)]
    unsafe fn map_inputs<P: Panel, M: Maps<TILE, SIDE>, const TILE: usize, const SIDE: usize>(
        &self,
        tile: usize,
        slot: usize,
    ) {
        unsafe {
            let channels = self.kernel.sources;
            let [image, row, column] = self.place(tile);
            let [height, width] = self.padded_size;
            let pixel = (image * height + row * TILE) * width + column * TILE;
            let source = self.padded.add(pixel * channels);
            let row = width * channels;
            for channel in (0..channels).step_by(P::WIDTH) {
                // Lanes beyond the channels hold a neighbour's values, which no product reads.
                let mut pixel = source.add(channel);
                let mut columns = [MaybeUninit::<[P; SIDE]>::uninit(); SIDE];
                for column in &mut columns {
                    let mut values = [P::zero(); SIDE];
                    for (index, value) in values.iter_mut().enumerate() {
                        *value = P::load(pixel.add(index * row));
                    }
                    column.write(M::input(values));
                    pixel = pixel.add(channels);
                }
                let panel = channel / LANES * SIDE * SIDE * BLOCK * LANES;
                let target = self.frequencies.add(panel + slot * LANES + channel % LANES);
                for row in 0..SIDE {
                    let mut values = [P::zero(); SIDE];
                    for (value, column) in values.iter_mut().zip(&columns) {
                        *value = column.assume_init_ref()[row];
                    }
                    for (column, value) in M::input(values).into_iter().enumerate() {
                        value.store(target.add((row * SIDE + column) * BLOCK * LANES));
                    }
                }
            }
        }
    }

    /// One panel's outputs of some tiles.
    #[inline(always)]
    unsafe fn panel<P: Panel, M: Maps<TILE, SIDE>, const TILE: usize, const SIDE: usize>(
        &self,
        panel: usize,
        first: usize,
        count: usize,
    ) {
        unsafe {
            let sources = self.kernel.sources;
            for frequency in 0..SIDE * SIDE {
                if frequency < count {
                    self.prefetch_outputs::<P, TILE>(panel, first + frequency);
                }
                let weights =
                    self.kernel.weights.as_ptr().add((panel * SIDE * SIDE + frequency) * sources * LANES);
                self.multiply_all::<P, SIDE>(frequency, weights, count);
            }
            for tile in 0..count {
                self.map_outputs::<P, M, TILE, SIDE>(panel, first + tile, tile);
            }
        }
    }

    /// Fetches the target lines of one tile while products are computed; otherwise every store would wait for memory.
    #[inline(always)]
    unsafe fn prefetch_outputs<P: Panel, const TILE: usize>(&self, panel: usize, tile: usize) {
        unsafe {
            let channels = self.kernel.targets;
            let [image, row, column] = self.place(tile);
            let [height, width] = self.size;
            let (rows, columns) = ((height - row * TILE).min(TILE), (width - column * TILE).min(TILE));
            let pixel = (image * height + row * TILE) * width + column * TILE;
            let target = self.target.add(pixel * channels + panel * LANES);
            for row in 0..rows {
                for column in 0..columns {
                    P::prefetch(target.add((row * width + column) * channels));
                }
            }
        }
    }

    /// All tiles' products in one frequency, in blocks as large as the registers allow.
    #[inline(always)]
    unsafe fn multiply_all<P: Panel, const SIDE: usize>(
        &self,
        frequency: usize,
        weights: *const f32,
        count: usize,
    ) {
        unsafe {
            let mut tile = 0;
            let height = P::PIXELS.min(BLOCK);
            while tile + height <= count {
                match height {
                    12 => self.multiply::<P, SIDE, 12>(frequency, weights, tile),
                    6 => self.multiply::<P, SIDE, 6>(frequency, weights, tile),
                    _ => self.multiply::<P, SIDE, 2>(frequency, weights, tile),
                }
                tile += height;
            }
            while tile + 4 <= count {
                self.multiply::<P, SIDE, 4>(frequency, weights, tile);
                tile += 4;
            }
            while tile + 2 <= count {
                self.multiply::<P, SIDE, 2>(frequency, weights, tile);
                tile += 2;
            }
            if tile < count {
                self.multiply::<P, SIDE, 1>(frequency, weights, tile);
            }
        }
    }

    /// `N` tiles' products in one frequency.
    #[inline(always)]
    unsafe fn multiply<P: Panel, const SIDE: usize, const N: usize>(
        &self,
        frequency: usize,
        mut weights: *const f32,
        tile: usize,
    ) {
        unsafe {
            let offset = (frequency * BLOCK + tile) * LANES;
            let mut values = self.frequencies.add(offset).cast_const();
            let mut sums = [P::zero(); N];
            let mut left = self.kernel.sources;
            while left > 0 {
                let lanes = left.min(LANES);
                if lanes == LANES {
                    for lane in 0..LANES {
                        let panel = P::load(weights);
                        weights = weights.add(LANES);
                        for n in 0..N {
                            sums[n] = sums[n].add_scaled(values.add(n * LANES + lane), panel);
                        }
                    }
                } else {
                    for lane in 0..lanes {
                        let panel = P::load(weights);
                        weights = weights.add(LANES);
                        for n in 0..N {
                            sums[n] = sums[n].add_scaled(values.add(n * LANES + lane), panel);
                        }
                    }
                }
                values = values.add(SIDE * SIDE * BLOCK * LANES);
                left -= lanes;
            }
            let target = self.products.add(offset);
            for (n, sum) in sums.into_iter().enumerate() {
                sum.store(target.add(n * LANES));
            }
        }
    }

    /// One panel's outputs of one tile.
    #[inline(always)]
    unsafe fn map_outputs<P: Panel, M: Maps<TILE, SIDE>, const TILE: usize, const SIDE: usize>(
        &self,
        panel: usize,
        tile: usize,
        slot: usize,
    ) {
        unsafe {
            let channels = self.kernel.targets;
            let valid = (channels - panel * LANES).min(P::WIDTH);
            let [image, row, column] = self.place(tile);
            let [height, width] = self.size;
            let (rows, columns) = ((height - row * TILE).min(TILE), (width - column * TILE).min(TILE));
            let products = self.products.add(slot * LANES);
            let mut mapped = [MaybeUninit::<[P; TILE]>::uninit(); SIDE];
            for (column, mapped) in mapped.iter_mut().enumerate() {
                let mut values = [P::zero(); SIDE];
                for (row, value) in values.iter_mut().enumerate() {
                    *value = P::load(products.add((row * SIDE + column) * BLOCK * LANES));
                }
                mapped.write(M::output(values));
            }
            let pixel = (image * height + row * TILE) * width + column * TILE;
            let mut target = self.target.add(pixel * channels + panel * LANES);
            let bias = P::load(self.bias.add(panel * LANES));
            let whole = rows == TILE && columns == TILE && valid == P::WIDTH && self.start == Start::Bias;
            for row in 0..rows {
                let mut values = [P::zero(); SIDE];
                for (value, column) in values.iter_mut().zip(&mapped) {
                    *value = column.assume_init_ref()[row];
                }
                let outputs = M::output(values);
                if whole {
                    let mut target = target;
                    for value in outputs {
                        let value = value.plus(bias);
                        (if self.relu { value.relu() } else { value }).store(target);
                        target = target.add(channels);
                    }
                } else {
                    for (column, value) in outputs.into_iter().enumerate().take(columns) {
                        let target = target.add(column * channels);
                        let before = match self.start {
                            Start::Bias => bias,
                            Start::Target => load_some(target, valid),
                        };
                        let value = value.plus(before);
                        store_some(if self.relu { value.relu() } else { value }, target, valid);
                    }
                }
                target = target.add(width * channels);
            }
        }
    }
}
