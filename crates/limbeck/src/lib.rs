//! limbeck audits an image training set for poison, purifies it with a denoising autoencoder, distils a classifier
//! that can answer null, and measures what that is worth.
//!
//! The method of Badjie, Cecílio and Casimiro (2023), room by room: [`dataset`] reads, [`network`] and [`train`] learn,
//! [`attack`] and [`poison`] harm, [`purify`] finds and cleans, [`distill`] teaches, [`evaluate`] measures, [`report`] shows,
//! [`pipeline`] runs it all, [`tune`] searches for better settings, and [`vectors`] does the same
//! for tables of numbers. Pixels are in `[0, 1]`, eps is in pixel units, a larger score is more suspicious.

pub mod artefact;
pub mod attack;
pub mod craft;
pub mod damage;
pub mod dataset;
mod device;
pub mod distill;
pub mod error;
pub mod evaluate;
pub mod network;
pub mod pipeline;
pub mod poison;
pub mod progress;
pub mod purify;
pub mod report;
pub mod rng;
pub mod speed;
mod tensors;
#[cfg(test)]
mod testing;
mod text;
pub mod train;
pub mod tune;
pub mod vectors;

pub use device::{DEVICES, device};
pub use error::{Error, Result};

/// Version of this library, as it is recorded in artefacts.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
