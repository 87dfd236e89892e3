//! Targeted fast adaptive boundary attack, FAB-T (Croce & Hein 2020, "Minimally distorted adversarial examples", algorithm 1): steps onto
//! the linearised boundary between the label and a target class, drawn back towards the image.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::apgd::likely;
use super::draws::Draws;
use super::gradient::{Logits, slope};
use super::{Attack, Norm, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;
use crate::tensors::{images as image_tensor, values};

/// Largest weight of the way from the image against the way from the present point (section 2.5).
const ALPHA: f64 = 0.1;

/// Overshoot behind the boundary (section 2.5).
const ETA: f64 = 1.05;

/// What is left of a perturbation after the step back (section 2.5).
const BETA: f64 = 0.9;

/// For each image the smallest perturbation found; an image that has one within eps is left alone from there on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fab {
    /// Steps of each run.
    pub steps: usize,
    /// Number of most likely other classes that are aimed at.
    pub targets: usize,
    /// Runs for each target, 1 or more: the first from the image itself, others from random places.
    pub restarts: usize,
    /// What the starts are drawn from.
    pub seed: Seed,
}

/// One image on its way.
struct Walk {
    label: u32,
    target: u32,
    original: Vec<f32>,
    current: Vec<f32>,
    shortest: Vec<f32>,
    distance: f64,
}

impl Attack for Fab {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let shape @ [_, channels, height, width] = images.dims();
        let pixels = values(images.clone())?;
        let logits = Logits::of(model, images.clone(), labels)?;
        let mut walks: Vec<Walk> = pixels
            .chunks_exact(channels * height * width)
            .zip(labels)
            .zip(logits.margins(labels))
            .map(|((original, &label), lead)| {
                let original = original.to_vec();
                // What is misread as it is needs no perturbation.
                let distance = if lead < 0.0 { 0.0 } else { f64::INFINITY };
                Walk {
                    label,
                    target: label,
                    current: original.clone(),
                    shortest: original.clone(),
                    original,
                    distance,
                }
            })
            .collect();
        let others = logits.row(0).len() - 1;
        for target in 0..self.targets.clamp(1, others) {
            let targets = likely(model, &images, labels, target)?;
            for restart in 0..self.restarts {
                for (walk, &target) in walks.iter_mut().zip(&targets) {
                    walk.target = target;
                    walk.current.clone_from(&walk.original);
                }
                if restart > 0 {
                    self.scatter(threat, &images, target, restart, &mut walks)?;
                }
                self.run(model, threat, &images, &mut walks)?;
            }
        }
        let found = walks.into_iter().flat_map(|walk| walk.shortest).collect();
        Ok(image_tensor(found, shape, &images.device()))
    }
}

impl Fab {
    /// Random starts within half of eps or of the shortest perturbation, as in the authors' code.
    fn scatter(
        &self,
        threat: ThreatModel,
        images: &Tensor<4>,
        target: usize,
        restart: usize,
        walks: &mut [Walk],
    ) -> Result<()> {
        let mut draws = Draws::new(self.seed.step(target).step(restart), "fab", images)?;
        let noise = values(draws.in_ball(ThreatModel { eps: 1.0, ..threat }))?;
        let length = noise.len() / walks.len();
        for (walk, noise) in walks.iter_mut().zip(noise.chunks_exact(length)) {
            let radius = (walk.distance.min(threat.eps) / 2.0) as f32;
            for (pixel, noise) in walk.current.iter_mut().zip(noise) {
                *pixel = (*pixel + radius * noise).clamp(0.0, 1.0);
            }
        }
        Ok(())
    }

    fn run(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: &Tensor<4>,
        walks: &mut [Walk],
    ) -> Result<()> {
        let [_, channels, height, width] = images.dims();
        for _ in 0..self.steps {
            let mut left: Vec<&mut Walk> =
                walks.iter_mut().filter(|walk| walk.distance > threat.eps).collect();
            if left.is_empty() {
                break;
            }
            let shape = [left.len(), channels, height, width];
            let tensor = |left: &[&mut Walk]| {
                let pixels = left.iter().flat_map(|walk| walk.current.iter().copied()).collect();
                image_tensor(pixels, shape, &images.device())
            };
            let labels: Vec<u32> = left.iter().map(|walk| walk.label).collect();
            let targets: Vec<usize> = left.iter().map(|walk| walk.target as usize).collect();
            let found = slope(model, tensor(&left), &labels, |row, logits, label, slopes| {
                slopes[targets[row]] = 1.0;
                slopes[label] = -1.0;
                f64::from(logits[targets[row]]) - f64::from(logits[label])
            })?;
            let gradients = values(found.gradient)?;
            left.par_iter_mut()
                .zip(gradients.par_chunks_exact(channels * height * width))
                .zip(&found.losses)
                .for_each(|((walk, gradient), &height)| walk.step(threat.norm, height, gradient));
            let leads = Logits::of(model, tensor(&left), &labels)?.margins(&labels);
            for (walk, lead) in left.into_iter().zip(leads) {
                if lead < 0.0 {
                    walk.step_back(threat.norm);
                }
            }
        }
        Ok(())
    }
}

impl Walk {
    /// To the plane on which the linearised z_target − z_label is 0: from the present point and, with a small weight, from the image.
    fn step(&mut self, norm: Norm, height: f64, gradient: &[f32]) {
        // The plane is w·x = b.
        let product = |point: &[f32]| -> f64 {
            point.iter().zip(gradient).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        let offset = product(&self.current) - height;
        let own = projection(norm, &self.current, gradient, offset - product(&self.current));
        let home = projection(norm, &self.original, gradient, offset - product(&self.original));
        let [near, far] = [&own, &home].map(|change| size(norm, change.iter().copied()).max(1e-8));
        let alpha = (near / (near + far)).min(ALPHA);
        for (index, pixel) in self.current.iter_mut().enumerate() {
            let from_here = f64::from(*pixel) + ETA * own[index];
            let from_home = f64::from(self.original[index]) + ETA * home[index];
            *pixel = ((1.0 - alpha) * from_here + alpha * from_home).clamp(0.0, 1.0) as f32;
        }
    }

    /// Remembers a point that fools the model if it is the nearest, and goes back towards the image.
    fn step_back(&mut self, norm: Norm) {
        let changes = self.current.iter().zip(&self.original);
        let distance = size(norm, changes.map(|(now, before)| f64::from(*now) - f64::from(*before)));
        if distance < self.distance {
            self.distance = distance;
            self.shortest.clone_from(&self.current);
        }
        for (pixel, original) in self.current.iter_mut().zip(&self.original) {
            let change = f64::from(*pixel) - f64::from(*original);
            *pixel = (f64::from(*original) + BETA * change) as f32;
        }
    }
}

fn size(norm: Norm, changes: impl Iterator<Item = f64>) -> f64 {
    match norm {
        Norm::Linf => changes.map(f64::abs).fold(0.0, f64::max),
        Norm::L2 => changes.map(|change| change * change).sum::<f64>().sqrt(),
    }
}

/// The smallest change d of a point of the box `[0, 1]` that stays in it and has w·d = `rise`; where none has, the change that comes nearest.
///
/// Each value moves at its own speed until it meets the box: at equal speed for L-infinity, at |w| for L2 (both follow from the
/// conditions of Karush, Kuhn and Tucker). So w·d is a concave, piecewise linear function of the time.
fn projection(norm: Norm, point: &[f32], w: &[f32], rise: f64) -> Vec<f64> {
    let speed = |w: f64| match norm {
        Norm::Linf => 1.0,
        Norm::L2 => w,
    };
    let moves: Vec<(f64, f64)> = point
        .iter()
        .zip(w)
        .map(|(&x, &w)| {
            let (x, up) = (f64::from(x), (w > 0.0) == (rise > 0.0));
            let (room, w) = (if up { 1.0 - x } else { x }, f64::from(w).abs());
            if w == 0.0 { (0.0, 0.0) } else { (w * speed(w), room.max(0.0) / speed(w)) }
        })
        .collect();
    let time = time_to_rise(&moves, rise.abs());
    let sign = rise.signum();
    w.iter()
        .zip(&moves)
        .map(|(&w, (_, end))| {
            let w = f64::from(w);
            if w == 0.0 { 0.0 } else { sign * w.signum() * speed(w.abs()) * end.min(time) }
        })
        .collect()
}

/// The time at which Σ slope · min(time, end) reaches `rise`; the last end where it never does.
///
/// Newton's method from 0: on a concave function it never oversteps, and it is exact once it is on the right piece.
fn time_to_rise(moves: &[(f64, f64)], rise: f64) -> f64 {
    let last = moves.iter().map(|(_, end)| *end).fold(0.0, f64::max);
    let mut time = 0.0;
    // Each round leaves at least one piece behind.
    for _ in 0..=moves.len() {
        let (mut reached, mut slope) = (0.0, 0.0);
        for &(rate, end) in moves {
            reached += rate * end.min(time);
            if end > time {
                slope += rate;
            }
        }
        if slope == 0.0 {
            return last;
        }
        let next = time + (rise - reached) / slope;
        if next <= time {
            break;
        }
        time = next;
    }
    time.min(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against bisection on the time, and never longer than what reaches the plane by scaling.
        #[test]
        fn projections_reach_the_plane_within_the_box_by_the_shortest_way(
            point in proptest::collection::vec(0f32..=1.0, 6),
            w in proptest::collection::vec(-1f32..1.0, 6),
            rise in -0.5f64..0.5,
        ) {
            for norm in [Norm::Linf, Norm::L2] {
                let change = projection(norm, &point, &w, rise);
                let inside = point.iter().zip(&change).all(|(x, d)| (-1e-6..=1.0 + 1e-6).contains(&(f64::from(*x) + d)));
                prop_assert!(inside, "{:?} leaves the box", change);
                let reach = |change: &[f64]| -> f64 { w.iter().zip(change).map(|(w, d)| f64::from(*w) * d).sum() };
                let most: f64 = point.iter().zip(&w).map(|(x, w)| {
                    let up = (*w > 0.0) == (rise > 0.0);
                    f64::from(w.abs()) * f64::from(if up { 1.0 - x } else { *x })
                }).sum();
                let wanted = rise.abs().min(most);
                prop_assert!((reach(&change).abs() - wanted).abs() < 1e-6, "{} of {wanted}", reach(&change));
                // Any other feasible change with the same rise is no shorter: random swaps of rise between two values.
                let length = size(norm, change.iter().copied());
                for (a, b) in [(0, 1), (2, 3), (4, 5), (1, 4)] {
                    if w[a].abs() < 1e-3 || w[b].abs() < 1e-3 {
                        continue;
                    }
                    for shift in [1e-3, -1e-3] {
                        let mut other = change.clone();
                        other[a] += shift / f64::from(w[a]);
                        other[b] -= shift / f64::from(w[b]);
                        let allowed = point.iter().zip(&other).all(|(x, d)| (0.0..=1.0).contains(&(f64::from(*x) + d)));
                        prop_assert!(!allowed || size(norm, other.iter().copied()) >= length - 1e-9);
                    }
                }
            }
        }
    }
}
