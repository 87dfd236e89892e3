//! Square Attack (Andriushchenko 2020): random search over squares of the image; it asks the model for logits, never for a gradient.
//!
//! With the margin loss that AutoAttack uses it with. A change is kept where the label's lead falls.

use burn::tensor::Tensor;
use rand::Rng as _;
use rayon::prelude::*;

use super::draws::Draws;
use super::gradient::Logits;
use super::rows::restarted;
use super::{Attack, Norm, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::rng::{Rng, Seed};
use crate::tensors::{images as image_tensor, values};

/// Share of the image that the first squares cover (AutoAttack).
const FIRST_SHARE: f64 = 0.8;

/// Queries, of 10,000, after which the share is halved (section 3, algorithm 1's schedule).
const HALVINGS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// What the queries after which squares become smaller are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SquareSchedule {
    /// In 10,000 parts of the search, so that a search of any length ends with the smallest squares: Square by itself.
    OfSearch,
    /// In queries, so that a search of 5,000 ends with larger ones: Square within AutoAttack, whose code runs it so.
    InQueries,
}

/// Stops an image at the first query that fools the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Square {
    /// Questions to the model for each image and restart.
    pub queries: usize,
    /// Number of runs, 1 or more.
    pub restarts: usize,
    /// When squares become smaller.
    pub schedule: SquareSchedule,
    /// What the squares are drawn from.
    pub seed: Seed,
}

impl Attack for Square {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        restarted(self.restarts, model, &images, labels, |restart, images, labels| {
            let draws = Draws::new(self.seed.step(restart), "square", images)?;
            self.search(model, threat, images, labels, draws.into_generators())
        })
    }
}

/// Channels, height and width of an image.
#[derive(Clone, Copy)]
struct Size {
    channels: usize,
    height: usize,
    width: usize,
}

/// One image's search.
struct Search {
    label: u32,
    rng: Rng,
    original: Vec<f32>,
    best: Vec<f32>,
    candidate: Vec<f32>,
    lead: f64,
}

impl Square {
    fn search(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: &Tensor<4>,
        labels: &[u32],
        generators: Vec<Rng>,
    ) -> Result<Tensor<4>> {
        let shape @ [_, channels, height, width] = images.dims();
        let size = Size { channels, height, width };
        let pixels = values(images.clone())?;
        let originals = pixels.chunks_exact(channels * height * width);
        let mut searches: Vec<Search> = originals
            .zip(labels)
            .zip(generators)
            .map(|((original, &label), rng)| {
                let original = original.to_vec();
                Search {
                    label,
                    rng,
                    best: original.clone(),
                    candidate: original.clone(),
                    original,
                    lead: f64::INFINITY,
                }
            })
            .collect();
        for query in 0..self.queries.max(1) {
            let mut left: Vec<&mut Search> =
                searches.iter_mut().filter(|search| search.lead >= 0.0).collect();
            if left.is_empty() {
                break;
            }
            let share = self.share(query);
            left.par_iter_mut().for_each(|search| match query {
                0 => search.begin(threat, size),
                _ => search.vary(threat, size, share),
            });
            let asked = left.iter().flat_map(|search| search.candidate.iter().copied()).collect();
            let asked = image_tensor(asked, [left.len(), channels, height, width], &images.device());
            let classes: Vec<u32> = left.iter().map(|search| search.label).collect();
            let leads = Logits::of(model, asked, &classes)?.margins(&classes);
            for (search, lead) in left.into_iter().zip(leads) {
                if lead < search.lead {
                    search.lead = lead;
                    search.best.clone_from(&search.candidate);
                }
            }
        }
        let found = searches.into_iter().flat_map(|search| search.best).collect();
        Ok(image_tensor(found, shape, &images.device()))
    }

    /// Share of the image that a square covers at a query.
    fn share(&self, query: usize) -> f64 {
        let at = match self.schedule {
            SquareSchedule::OfSearch => query * 10_000 / self.queries.max(1),
            SquareSchedule::InQueries => query,
        };
        let halvings = HALVINGS.iter().filter(|&&after| at > after).count();
        FIRST_SHARE / f64::from(1u32 << halvings)
    }
}

impl Search {
    /// The first question: vertical stripes of ±eps, or a grid of bumps of length eps.
    fn begin(&mut self, threat: ThreatModel, size: Size) {
        match threat.norm {
            Norm::Linf => {
                let eps = threat.eps as f32;
                let stripes: Vec<f32> =
                    (0..size.channels * size.width).map(|_| eps * sign(&mut self.rng)).collect();
                for (index, pixel) in self.candidate.iter_mut().enumerate() {
                    let (channel, column) = (index / (size.width * size.height), index % size.width);
                    *pixel = (self.original[index] + stripes[channel * size.width + column]).clamp(0.0, 1.0);
                }
            }
            Norm::L2 => {
                let side = (size.height.min(size.width) / 5).max(1);
                let mut change = vec![0.0; self.original.len()];
                let offset = |length: usize| (length - length / side.max(1) * side) / 2;
                for top in (offset(size.height)..=size.height - side).step_by(side) {
                    for left in (offset(size.width)..=size.width - side).step_by(side) {
                        let bump = bump(side, &mut self.rng);
                        for channel in 0..size.channels {
                            let sign = f64::from(sign(&mut self.rng));
                            let window = Window { top, left, side };
                            for (at, value) in window.indices(size, channel).zip(&bump) {
                                change[at] += value * sign;
                            }
                        }
                    }
                }
                self.propose_of_length(&change, threat.eps);
            }
        }
    }

    /// A further question: the best so far, changed within a square.
    fn vary(&mut self, threat: ThreatModel, size: Size, share: f64) {
        let least = size.height.min(size.width);
        let side = (share * (size.height * size.width) as f64).sqrt().round() as usize;
        match threat.norm {
            Norm::Linf => {
                let window = Window::draw(side.clamp(1, (least - 1).max(1)), size, &mut self.rng);
                self.candidate.clone_from(&self.best);
                for channel in 0..size.channels {
                    // A step of 2 eps is cut to the ball: each pixel ends at one of its edges.
                    let change = sign(&mut self.rng) * threat.eps as f32;
                    for at in window.indices(size, channel) {
                        self.candidate[at] = (self.original[at] + change).clamp(0.0, 1.0);
                    }
                }
            }
            Norm::L2 => {
                let side = (side.max(3) | 1).min(least);
                self.move_length(threat.eps, size, side);
            }
        }
    }

    /// Takes what length the change has in two windows, adds what is missing to eps, and puts it all into the first (algorithm 3).
    fn move_length(&mut self, eps: f64, size: Size, side: usize) {
        let [to, from] = [0, 1].map(|_| Window::draw(side, size, &mut self.rng));
        let mut change: Vec<f64> = self
            .best
            .iter()
            .zip(&self.original)
            .map(|(best, original)| f64::from(*best) - f64::from(*original))
            .collect();
        let unused = (eps * eps - change.iter().map(|change| change * change).sum::<f64>()).max(0.0);
        let bump = bump(side, &mut self.rng);
        for channel in 0..size.channels {
            let sign = f64::from(sign(&mut self.rng));
            let old: Vec<f64> = to.indices(size, channel).map(|at| change[at]).collect();
            let inside: f64 = old.iter().map(|change| change * change).sum();
            let outside: f64 = from
                .indices(size, channel)
                .filter(|&at| !to.holds(size, at))
                .map(|at| change[at] * change[at])
                .sum();
            let new: Vec<f64> = bump
                .iter()
                .zip(&old)
                .map(|(bump, old)| bump * sign + old / (inside.sqrt() + 1e-12))
                .collect();
            let length = new.iter().map(|new| new * new).sum::<f64>().sqrt().max(1e-12);
            let wanted = (unused / size.channels as f64 + inside + outside).sqrt();
            from.indices(size, channel).for_each(|at| change[at] = 0.0);
            for (at, new) in to.indices(size, channel).zip(new) {
                change[at] = new * wanted / length;
            }
        }
        self.propose_of_length(&change, eps);
    }

    fn propose_of_length(&mut self, change: &[f64], eps: f64) {
        let length = change.iter().map(|change| change * change).sum::<f64>().sqrt().max(1e-12);
        for ((candidate, original), change) in self.candidate.iter_mut().zip(&self.original).zip(change) {
            *candidate = (f64::from(*original) + change * eps / length).clamp(0.0, 1.0) as f32;
        }
    }
}

/// A square of an image.
#[derive(Clone, Copy)]
struct Window {
    top: usize,
    left: usize,
    side: usize,
}

impl Window {
    fn draw(side: usize, size: Size, rng: &mut Rng) -> Self {
        Self {
            top: rng.random_range(0..=size.height - side),
            left: rng.random_range(0..=size.width - side),
            side,
        }
    }

    /// Places of a channel's values within the square, row by row.
    fn indices(self, size: Size, channel: usize) -> impl Iterator<Item = usize> {
        let first = channel * size.height * size.width;
        (0..self.side).flat_map(move |row| {
            let start = first + (self.top + row) * size.width + self.left;
            start..start + self.side
        })
    }

    fn holds(self, size: Size, at: usize) -> bool {
        let (row, column) = (at / size.width % size.height, at % size.width);
        (self.top..self.top + self.side).contains(&row)
            && (self.left..self.left + self.side).contains(&column)
    }
}

fn sign(rng: &mut Rng) -> f32 {
    if rng.random::<bool>() { 1.0 } else { -1.0 }
}

/// Two hills of opposite sign side by side, of length 1, lying or standing by chance (section 3.3, equation 2).
fn bump(side: usize, rng: &mut Rng) -> Vec<f64> {
    let upper = side / 2;
    let mut bump = hill(upper, side);
    bump.extend(hill(side - upper, side).into_iter().map(|value| -value));
    let length = bump.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
    bump.iter_mut().for_each(|value| *value /= length);
    if rng.random::<bool>() {
        bump = (0..side * side).map(|at| bump[at % side * side + at / side]).collect();
    }
    bump
}

/// A hill on `rows` x `columns` of length 1: nested rectangles around the middle, the k-th of them adding 1 / k².
fn hill(rows: usize, columns: usize) -> Vec<f64> {
    let mut hill = vec![0.0; rows * columns];
    let [middle_row, middle_column] = [rows / 2 + 1, columns / 2 + 1];
    for ring in 0..middle_row.max(middle_column) {
        // From the middle outwards; a rectangle that has reached an edge goes on along the other.
        let span = |middle: usize, length: usize| {
            let first = middle as isize - 1 - ring as isize;
            first.max(0) as usize..((first + 2 * ring as isize + 1).clamp(0, length as isize) as usize)
        };
        for row in span(middle_row, rows) {
            for column in span(middle_column, columns) {
                hill[row * columns + column] += 1.0 / ((ring + 1) * (ring + 1)) as f64;
            }
        }
    }
    let length = hill.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
    hill.into_iter().map(|value| value / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's schedule for 10,000 queries, with AutoAttack's first share of 0.8.
    #[test]
    fn squares_shrink_as_published() {
        let square = |queries, schedule| Square { queries, restarts: 1, schedule, seed: Seed::new(1) };
        for schedule in [SquareSchedule::OfSearch, SquareSchedule::InQueries] {
            let at = |query| square(10_000, schedule).share(query);
            assert_eq!([at(0), at(10), at(11), at(51), at(201)], [0.8, 0.8, 0.4, 0.2, 0.1]);
            assert_eq!(at(8001), 0.8 / 512.0);
        }
        let shorter = square(5_000, SquareSchedule::OfSearch);
        assert_eq!([shorter.share(6), shorter.share(4_999)], [0.4, 0.8 / 512.0], "squares shrink sooner");
        let published = square(5_000, SquareSchedule::InQueries);
        assert_eq!([published.share(6), published.share(4_999)], [0.8, 0.8 / 128.0], "the rest is left out");
    }

    #[test]
    fn a_bump_has_length_1_and_two_halves_of_opposite_sign() {
        for side in [1, 2, 3, 5, 8, 9] {
            let bump = bump(side, &mut Seed::new(1).rng("bump"));
            assert!((bump.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-9, "{side}");
            assert!(
                side == 1 || bump.iter().any(|value| *value > 0.0) && bump.iter().any(|value| *value < 0.0)
            );
        }
    }

    /// Of 3 x 3: the middle is in both rectangles, 1 + 1/4, the rest in the second alone.
    #[test]
    fn a_hill_falls_from_its_middle() {
        let hill = hill(3, 3);
        assert!((hill[4] / hill[0] - 5.0).abs() < 1e-9, "{hill:?}");
        assert!((hill[0] - hill[1]).abs() < 1e-12);
    }

    #[test]
    fn a_window_holds_its_own_places_and_no_others() {
        let size = Size { channels: 2, height: 5, width: 7 };
        let window = Window { top: 1, left: 3, side: 3 };
        let inside: Vec<usize> = window.indices(size, 1).collect();
        assert_eq!(inside[..4], [45, 46, 47, 52]);
        assert!((35..70).all(|at| window.holds(size, at) == inside.contains(&at)));
    }
}
