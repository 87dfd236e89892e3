//! Fused convolution blocks for [Burn](burn) on the CPU, forward and backward, with activations channels-last throughout.
//!
//! A network is made of [`Block`]s. On Burn's CPU backend a block is one operation: direct convolution without im2col, with bias or batch norm,
//! residual, ReLU and pool done while its values are in the cache. On every other backend the same block is made of Burn's own operations, so a
//! network does not know which path runs. Results do not depend on the number of threads.
#![expect(unsafe_code, reason = "vector instructions, and threads that write disjoint parts of one slice")]

mod block;
mod cpu;
mod dense;
mod extension;
mod optimiser;

pub use block::{Block, channels_first, channels_last, max_pool_2x2, sigmoid_channels_first};
pub use dense::{Dense, Thinned, mean_squared_error, soft_cross_entropy};
pub use optimiser::{AdamStep, SgdStep};

/// Floating-point operations a second that `threads` threads reach with nothing but fused multiply-adds in registers, measured for `duration`.
///
/// The yardstick for the share of the processor that a network uses; one multiply-add counts as two operations.
pub fn peak_flops(threads: usize, duration: std::time::Duration) -> f64 {
    cpu::peak(threads, duration)
}
