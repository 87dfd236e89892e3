//! Carlini & Wagner's L2 attack (2017, section VI-A): the shortest perturbation that fools the model with a given confidence.
//!
//! Minimises ‖x' − x‖₂² + c · max(z_y − max_{j≠y} z_j, −κ) over w, where x' = (tanh w + 1) / 2 keeps to the pixel box, by Adam; c is
//! searched by halving. The threat model's eps plays no part in the search: a longer perturbation is cut to it afterwards.

use burn::tensor::Tensor;

use super::gradient::slope;
use super::loss::margin;
use super::rows::{pick, replace, select};
use super::threat::l2_norms;
use super::{Attack, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::tensors::values;

/// Where the search for c begins (the authors' code).
const FIRST_C: f64 = 1e-3;

/// Stands for "no c was large enough yet" (the authors' code).
const NO_BOUND: f64 = 1e10;

/// Keeps atanh finite at black and white (the authors' code).
const BOX_MARGIN: f64 = 0.999_999;

/// Share of a step's iterations after which an image whose loss does not fall is left alone (the authors' code).
const CHECKS: usize = 10;

/// For each image the shortest perturbation found; an image for which none was found stays as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarliniWagner {
    /// κ: by how much the other class's logit has to lead.
    pub confidence: f64,
    /// Values of c that are tried.
    pub search_steps: usize,
    /// Adam's iterations for each c.
    pub steps: usize,
    /// Adam's learning rate, in the space of w.
    pub learning_rate: f64,
}

/// The search for one image's c.
#[derive(Clone, Copy)]
struct Search {
    low: f64,
    high: f64,
    c: f64,
}

impl Search {
    const START: Self = Self { low: 0.0, high: NO_BOUND, c: FIRST_C };

    fn next(&mut self, fooled: bool) {
        if fooled {
            self.high = self.high.min(self.c);
        } else {
            self.low = self.low.max(self.c);
        }
        self.c = if self.high < NO_BOUND { f64::midpoint(self.low, self.high) } else { self.c * 10.0 };
    }
}

/// The shortest perturbations so far.
struct Shortest {
    images: Tensor<4>,
    /// Squared length; infinite while none was found.
    distances: Vec<f64>,
}

impl Attack for CarliniWagner {
    fn propose(
        &self,
        model: &dyn Model,
        _: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let mut searches = vec![Search::START; labels.len()];
        let mut shortest = Shortest { distances: vec![f64::INFINITY; labels.len()], images: images.clone() };
        for _ in 0..self.search_steps {
            let fooled = self.minimise(model, &images, labels, &searches, &mut shortest)?;
            searches.iter_mut().zip(fooled).for_each(|(search, fooled)| search.next(fooled));
        }
        Ok(shortest.images)
    }
}

impl CarliniWagner {
    /// One minimisation at each image's c; says which images fooled the model on the way.
    fn minimise(
        &self,
        model: &dyn Model,
        images: &Tensor<4>,
        labels: &[u32],
        searches: &[Search],
        shortest: &mut Shortest,
    ) -> Result<Vec<bool>> {
        let mut fooled = vec![false; labels.len()];
        let mut left: Vec<usize> = (0..labels.len()).collect();
        let mut adam =
            Adam::at(images.clone().mul_scalar(2.0).sub_scalar(1.0).mul_scalar(BOX_MARGIN).atanh());
        let mut originals = images.clone();
        let mut classes = labels.to_vec();
        let mut earlier = vec![f64::INFINITY; labels.len()];
        let check = (self.steps / CHECKS).max(1);
        for iteration in 0..self.steps {
            let tanh = adam.w.clone().tanh();
            let moved = tanh.clone().add_scalar(1.0).div_scalar(2.0);
            let perturbation = moved.clone() - originals.clone();
            let found = slope(model, moved.clone(), &classes, |row, logits, class, slopes| {
                hinge(logits, class, self.confidence, searches[left[row]].c, slopes)
            })?;
            let distances = values(l2_norms(perturbation.clone()).square().flatten::<1>(0, 3))?;
            let distances: Vec<f64> = distances.into_iter().map(f64::from).collect();
            let margins = found.logits.margins(&classes);
            let fooling = |row: &usize| margins[*row] + self.confidence < 0.0;
            let rows: Vec<usize> = (0..left.len()).filter(fooling).collect();
            rows.iter().for_each(|&row| fooled[left[row]] = true);
            shortest.improve(&left, &rows, &moved, &distances);
            // d x' / d w = (1 − tanh² w) / 2.
            let slope_of_box = (tanh.square().neg().add_scalar(1.0)).div_scalar(2.0);
            let gradient = (perturbation.mul_scalar(2.0) + found.gradient) * slope_of_box;
            adam.step(gradient, self.learning_rate);
            if iteration % check == check - 1 {
                let losses: Vec<f64> = distances.iter().zip(&found.losses).map(|(d, f)| d + f).collect();
                let falling: Vec<usize> =
                    (0..left.len()).filter(|&row| losses[row] < 0.9999 * earlier[row]).collect();
                if falling.is_empty() {
                    break;
                }
                earlier = pick(&losses, &falling);
                if falling.len() < left.len() {
                    left = pick(&left, &falling);
                    classes = pick(&classes, &falling);
                    originals = select(&originals, &falling);
                    adam.keep(&falling);
                }
            }
        }
        Ok(fooled)
    }
}

impl Shortest {
    /// Takes over the images of `rows`, whose places are `left`, that are nearer than what was known.
    fn improve(&mut self, left: &[usize], rows: &[usize], moved: &Tensor<4>, distances: &[f64]) {
        let better: Vec<usize> =
            rows.iter().copied().filter(|&row| distances[row] < self.distances[left[row]]).collect();
        if better.is_empty() {
            return;
        }
        better.iter().for_each(|&row| self.distances[left[row]] = distances[row]);
        let places = pick(left, &better);
        self.images = replace(self.images.clone(), &places, select(moved, &better));
    }
}

/// c · max(z_y − max_{j≠y} z_j + κ, 0) and its gradient: never negative, so that it can be seen to fall no more.
fn hinge(logits: &[f32], class: usize, confidence: f64, c: f64, gradient: &mut [f64]) -> f64 {
    let (lead, rival) = margin(logits, class);
    if lead > -confidence {
        gradient[class] = c;
        gradient[rival] = -c;
    }
    c * (lead + confidence).max(0.0)
}

/// Adam (Kingma & Ba 2015) on w, with its published constants.
struct Adam {
    w: Tensor<4>,
    mean: Tensor<4>,
    square: Tensor<4>,
    steps: i32,
}

impl Adam {
    fn at(w: Tensor<4>) -> Self {
        Self { mean: w.zeros_like(), square: w.zeros_like(), w, steps: 0 }
    }

    fn step(&mut self, gradient: Tensor<4>, learning_rate: f64) {
        const DECAYS: [f64; 2] = [0.9, 0.999];
        self.steps += 1;
        let [first, second] = DECAYS;
        let [unbias_first, unbias_second] = DECAYS.map(|decay| 1.0 - decay.powi(self.steps));
        self.mean = self.mean.clone().mul_scalar(first) + gradient.clone().mul_scalar(1.0 - first);
        self.square = self.square.clone().mul_scalar(second) + gradient.square().mul_scalar(1.0 - second);
        let scale = self.square.clone().div_scalar(unbias_second).sqrt().add_scalar(1e-8);
        let step = self.mean.clone().mul_scalar(learning_rate / unbias_first) / scale;
        self.w = self.w.clone() - step;
    }

    fn keep(&mut self, rows: &[usize]) {
        for tensor in [&mut self.w, &mut self.mean, &mut self.square] {
            *tensor = select(tensor, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hinge_s_gradient_agrees_with_differences_and_ends_at_the_confidence() {
        for (logits, confidence) in
            [([0.3f32, 1.1, -0.4], 0.0), ([2.0, 1.1, 0.4], 1.5), ([2.0, -1.0, 0.4], 1.5)]
        {
            let mut gradient = [0.0; 3];
            hinge(&logits, 1, confidence, 7.0, &mut gradient);
            for index in 0..3 {
                let at = |step: f32| {
                    let mut moved = logits;
                    moved[index] += step;
                    hinge(&moved, 1, confidence, 7.0, &mut [0.0; 3])
                };
                let numeric = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((numeric - gradient[index]).abs() < 1e-2, "{logits:?}: {numeric} and {gradient:?}");
            }
        }
        let mut beyond = [0.0; 3];
        assert_eq!(hinge(&[5.0, 1.0, 0.0], 1, 2.0, 3.0, &mut beyond), 0.0);
        assert_eq!(beyond, [0.0; 3]);
    }

    #[test]
    fn c_grows_tenfold_until_it_is_enough_and_is_halved_in_after_that() {
        let mut search = Search::START;
        search.next(false);
        assert_eq!(search.c, 0.01);
        search.next(true);
        assert_eq!(search.c, (0.001 + 0.01) / 2.0);
        search.next(false);
        assert!((search.c - 0.00775).abs() < 1e-12);
    }
}
