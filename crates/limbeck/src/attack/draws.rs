//! Random numbers of an attack: each image has a generator of its own, derived from the attack's seed and the image's pixels.
//!
//! So what is drawn for an image does not depend on its place, its batch, or its neighbours.

use burn::tensor::{Device, Tensor};
use rand::Rng as _;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::{Norm, ThreatModel};
use crate::error::Result;
use crate::rng::{Rng, Seed};
use crate::tensors::values;

/// One generator for each image of a batch.
pub(super) struct Draws {
    generators: Vec<Rng>,
    shape: [usize; 4],
    device: Device,
}

impl Draws {
    /// Generators for `images`; those of another `name` draw other numbers.
    pub(super) fn new(seed: Seed, name: &str, images: &Tensor<4>) -> Result<Self> {
        let (shape, device) = (images.dims(), images.device());
        let pixels = values(images.clone())?;
        let generators = pixels
            .par_chunks_exact(shape[1] * shape[2] * shape[3])
            .map(|image| {
                let bytes: Vec<u8> = image.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
                seed.child(blake3::hash(&bytes).to_hex().as_str()).rng(name)
            })
            .collect();
        Ok(Self { generators, shape, device })
    }

    /// The generators themselves, one for each image.
    pub(super) fn into_generators(self) -> Vec<Rng> {
        self.generators
    }

    /// Values in `[-1, 1)`, `[batch, 3, height, width]`.
    pub(super) fn uniform(&mut self) -> Tensor<4> {
        self.each(|rng, image| image.iter_mut().for_each(|value| *value = rng.random_range(-1.0..1.0)))
    }

    /// Values of a standard normal distribution, `[batch, 3, height, width]`.
    pub(super) fn normal(&mut self) -> Tensor<4> {
        self.each(normal)
    }

    /// Perturbations from everywhere in the ball, each as likely.
    pub(super) fn in_ball(&mut self, threat: ThreatModel) -> Tensor<4> {
        match threat.norm {
            Norm::Linf => self.uniform().mul_scalar(threat.eps),
            Norm::L2 => self.each(|rng, image| {
                normal(rng, image);
                // A share r^d of a ball's volume lies within r of its radius.
                let radius = rng.random::<f64>().powf(1.0 / image.len() as f64) * threat.eps;
                scale_to(image, radius);
            }),
        }
    }

    /// Perturbations to start from: anywhere in the L-infinity ball; in the L2 ball in any direction, each length as likely.
    ///
    /// Nearly all of a ball of many dimensions lies at its surface, and starts from there were measured to be weaker.
    pub(super) fn start(&mut self, threat: ThreatModel) -> Tensor<4> {
        match threat.norm {
            Norm::Linf => self.in_ball(threat),
            Norm::L2 => self.each(|rng, image| {
                normal(rng, image);
                scale_to(image, rng.random::<f64>() * threat.eps);
            }),
        }
    }

    /// Perturbations of L2 norm `length`, each direction as likely.
    pub(super) fn of_length(&mut self, length: f64) -> Tensor<4> {
        self.each(|rng, image| {
            normal(rng, image);
            scale_to(image, length);
        })
    }

    fn each(&mut self, fill: impl Fn(&mut Rng, &mut [f32]) + Sync) -> Tensor<4> {
        let mut numbers = vec![0.0; self.shape.iter().product()];
        let length = self.shape[1] * self.shape[2] * self.shape[3];
        numbers
            .par_chunks_exact_mut(length)
            .zip(&mut self.generators)
            .for_each(|(image, rng)| fill(rng, image));
        crate::tensors::images(numbers, self.shape, &self.device)
    }
}

fn normal(rng: &mut Rng, image: &mut [f32]) {
    image.iter_mut().for_each(|value| *value = StandardNormal.sample(rng));
}

fn scale_to(image: &mut [f32], length: f64) {
    let norm = image.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let factor = (length / norm.max(f64::MIN_POSITIVE)) as f32;
    image.iter_mut().for_each(|value| *value *= factor);
}
