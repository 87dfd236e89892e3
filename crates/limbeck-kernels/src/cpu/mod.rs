//! The kernels themselves: plain slices in, plain vectors out, no Burn.
//!
//! Images are channels-last `[images, height, width, channels]`, weights `[outputs, inputs, k, k]`. Work is shared out by images; every sum over images is
//! taken in an order that depends on their number alone, so results are the same bytes for any number of threads.

#![allow(
    clippy::too_many_arguments,
    clippy::needless_range_loop,
    reason = "kernels take what they work on, and index registers"
)]

mod conv;
mod dense;
mod elementwise;
mod few;
mod layout;
mod memory;
mod peak;
mod plan;
mod pool;
mod rows;
mod simd;
mod threads;
mod tile;
mod winograd;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use conv::Biased;
pub(crate) use conv::{
    Finish, Gradients, Wanted, backward_biased, backward_normed, forward_biased, forward_normed,
};
pub(crate) use dense::{Matrix, dense, dense_backward, thinned};
pub(crate) use elementwise::{
    Adaptive, Momentum, adaptive_step, momentum_step, scaled_difference, soft_cross_entropy, squared_error,
};
pub(crate) use layout::{channels_first, channels_last, logistic_channels_first};
pub(crate) use memory::Buffer;
pub(crate) use peak::peak;
pub(crate) use plan::{Plan, Precision, Sampling};
pub(crate) use pool::{max_pool, max_pool_backward};
pub(crate) use rows::{Tail, Winner};
pub(crate) use simd::Isa;
pub(crate) use threads::Disjoint;
