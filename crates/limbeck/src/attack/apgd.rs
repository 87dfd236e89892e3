//! Auto-PGD (Croce & Hein 2020, algorithm 1): projected steps with momentum, whose size is halved when the loss stops rising.

use burn::tensor::Tensor;

use super::draws::Draws;
use super::gradient::{Logits, Slope, slope};
use super::loss::{cross_entropy, dlr, targeted_dlr, unit};
use super::rows::{pick, replace, restarted, select};
use super::{Attack, Norm, ThreatModel};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::rng::Seed;
use crate::tensors::images as image_tensor;

/// α: weight of the step against the one before it (section 3.1).
const MOMENTUM: f64 = 0.75;

/// ρ: least share of steps that must raise the loss (section 3.2).
const RISING: f64 = 0.75;

/// First period between checkpoints, by how much each is shorter than the one before, and the shortest, as shares of all steps (section 3.2).
const PERIODS: [f64; 3] = [0.22, 0.03, 0.06];

/// What is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApgdLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// Difference of logits ratio (equation 6), for three classes and more.
    Dlr,
    /// The ratio towards each of the most likely other classes in turn (equation 7), for four classes and more.
    TargetedDlr {
        /// Number of classes that are aimed at.
        targets: usize,
    },
}

/// Stops an image at the first step that fools the model; one that is never fooled ends where its loss was largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apgd {
    /// What is raised.
    pub loss: ApgdLoss,
    /// Number of steps of each run.
    pub steps: usize,
    /// Number of random starts, 1 or more.
    pub restarts: usize,
    /// What the starts are drawn from.
    pub seed: Seed,
}

impl Attack for Apgd {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let classes = model.logits(images.clone().narrow(0, 0, 1)).dims()[1];
        let (least, runs) = match self.loss {
            ApgdLoss::CrossEntropy => (2, 1),
            ApgdLoss::Dlr => (3, 1),
            ApgdLoss::TargetedDlr { targets } => (4, targets.clamp(1, classes.max(2) - 1)),
        };
        if classes < least {
            let expected = format!("{least} classes or more");
            return Err(Error::input(
                "APGD with its ratio of logits",
                format!("{classes} classes"),
                expected,
            ));
        }
        restarted(self.restarts * runs, model, &images, labels, |number, images, labels| {
            let (restart, run) = (number / runs, number % runs);
            let aims = match self.loss {
                ApgdLoss::TargetedDlr { .. } => likely(model, images, labels, run)?,
                _ => labels.to_vec(),
            };
            let noise = self.start(restart, run, threat, images)?;
            let start = threat.project(images, images.clone() + noise);
            Run { attack: *self, model, threat }.go(images, start, labels, &aims)
        })
    }
}

/// The other class with the `rank`-th largest logit on each image, 0 being the most likely.
pub(super) fn likely(model: &dyn Model, images: &Tensor<4>, labels: &[u32], rank: usize) -> Result<Vec<u32>> {
    let logits = Logits::of(model, images.clone(), labels)?;
    let of_image = |(row, &label): (usize, &u32)| {
        let logits = logits.row(row);
        let mut others: Vec<u32> = (0..logits.len() as u32).filter(|class| *class != label).collect();
        others.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        others[rank]
    };
    Ok(labels.iter().enumerate().map(of_image).collect())
}

/// One run on one batch.
struct Run<'a> {
    attack: Apgd,
    model: &'a dyn Model,
    threat: ThreatModel,
}

/// The images that still withstand, and how far each has come.
struct Climb {
    /// Their places in the batch.
    places: Vec<usize>,
    labels: Vec<u32>,
    aims: Vec<u32>,
    origin: Tensor<4>,
    previous: Tensor<4>,
    current: Tensor<4>,
    gradient: Tensor<4>,
    best: Tensor<4>,
    best_gradient: Tensor<4>,
    paces: Vec<Pace>,
}

/// One image's losses and step size.
#[derive(Clone, Copy)]
struct Pace {
    step: f64,
    loss: f64,
    best: f64,
    /// Steps since the last checkpoint that raised the loss.
    rises: usize,
    best_at_checkpoint: f64,
    halved_at_checkpoint: bool,
}

impl Pace {
    /// Whether the step is halved at a checkpoint that comes `period` steps after the last one (section 3.2, conditions 1 and 2).
    fn is_halved(&mut self, period: usize) -> bool {
        let wavers = (self.rises as f64) <= RISING * period as f64;
        let stuck = !self.halved_at_checkpoint && self.best_at_checkpoint >= self.best;
        self.halved_at_checkpoint = wavers || stuck;
        self.best_at_checkpoint = self.best;
        self.rises = 0;
        if self.halved_at_checkpoint {
            (self.step, self.loss) = (self.step / 2.0, self.best);
        }
        self.halved_at_checkpoint
    }
}

impl Apgd {
    fn start(
        &self,
        restart: usize,
        run: usize,
        threat: ThreatModel,
        images: &Tensor<4>,
    ) -> Result<Tensor<4>> {
        let mut draws = Draws::new(self.seed.step(restart).step(run), "apgd", images)?;
        Ok(match threat.norm {
            // As in the authors' code, the largest change is eps.
            Norm::Linf => {
                let noise = draws.uniform();
                let [batch, ..] = noise.dims();
                let largest = noise.clone().flatten::<2>(1, 3).max_abs_dim(1).reshape([batch, 1, 1, 1]);
                (noise / largest.clamp_min(f32::MIN_POSITIVE)).mul_scalar(threat.eps)
            }
            Norm::L2 => draws.of_length(threat.eps),
        })
    }
}

impl Run<'_> {
    fn slope(&self, at: &Tensor<4>, labels: &[u32], aims: &[u32]) -> Result<Slope> {
        slope(self.model, at.clone(), labels, |row, logits, label, slopes| {
            let loss = match self.attack.loss {
                ApgdLoss::CrossEntropy => cross_entropy(logits, label, slopes),
                ApgdLoss::Dlr => dlr(logits, label, slopes),
                ApgdLoss::TargetedDlr { .. } => targeted_dlr(logits, label, aims[row] as usize, slopes),
            };
            unit(slopes);
            loss
        })
    }

    fn go(self, images: &Tensor<4>, start: Tensor<4>, labels: &[u32], aims: &[u32]) -> Result<Tensor<4>> {
        let mut result = start.clone();
        let first = self.slope(&start, labels, aims)?;
        let pace = |&loss: &f64| Pace {
            step: 2.0 * self.threat.eps,
            loss,
            best: loss,
            rises: 0,
            best_at_checkpoint: loss,
            halved_at_checkpoint: true,
        };
        let mut climb = Climb {
            places: (0..labels.len()).collect(),
            labels: labels.to_vec(),
            aims: aims.to_vec(),
            origin: images.clone(),
            previous: start.clone(),
            current: start.clone(),
            gradient: first.gradient.clone(),
            best: start,
            best_gradient: first.gradient,
            paces: first.losses.iter().map(pace).collect(),
        };
        climb.drop_fooled(&first.logits, &mut result);
        let steps = self.attack.steps;
        let [mut period, shorter, shortest] = PERIODS.map(|share| ((share * steps as f64) as usize).max(1));
        let mut since = 0;
        for step in 0..steps {
            if climb.places.is_empty() {
                break;
            }
            // The first step has no momentum yet.
            let next = climb.next(self.threat, if step == 0 { 1.0 } else { MOMENTUM });
            let found = self.slope(&next, &climb.labels, &climb.aims)?;
            climb.arrive(next, &found);
            climb.drop_fooled(&found.logits, &mut result);
            since += 1;
            if since == period {
                climb.check(period);
                since = 0;
                period = (period.saturating_sub(shorter)).max(shortest);
            }
        }
        Ok(replace(result, &climb.places, climb.best))
    }
}

impl Climb {
    /// x + α (P(x + η d) − x) + (1 − α)(x − x_before), projected.
    fn next(&self, threat: ThreatModel, weight: f64) -> Tensor<4> {
        let steps = self.paces.iter().map(|pace| pace.step as f32).collect();
        let steps = image_tensor(steps, [self.paces.len(), 1, 1, 1], &self.current.device());
        let direction = threat.norm.steepest(self.gradient.clone());
        let target = threat.project(&self.origin, self.current.clone() + direction * steps);
        let step = (target - self.current.clone()).mul_scalar(weight);
        let momentum = (self.current.clone() - self.previous.clone()).mul_scalar(1.0 - weight);
        threat.project(&self.origin, self.current.clone() + step + momentum)
    }

    fn arrive(&mut self, next: Tensor<4>, found: &Slope) {
        self.previous = std::mem::replace(&mut self.current, next);
        self.gradient = found.gradient.clone();
        let mut better = Vec::new();
        for (row, (pace, &loss)) in self.paces.iter_mut().zip(&found.losses).enumerate() {
            pace.rises += usize::from(loss > pace.loss);
            pace.loss = loss;
            if loss > pace.best {
                pace.best = loss;
                better.push(row);
            }
        }
        self.best = replace(self.best.clone(), &better, select(&self.current, &better));
        self.best_gradient = replace(self.best_gradient.clone(), &better, select(&self.gradient, &better));
    }

    /// Halves steps that do not help any more; those images go on from their best place.
    fn check(&mut self, period: usize) {
        let halved: Vec<usize> = self
            .paces
            .iter_mut()
            .enumerate()
            .filter_map(|(row, pace)| pace.is_halved(period).then_some(row))
            .collect();
        self.current = replace(self.current.clone(), &halved, select(&self.best, &halved));
        self.gradient = replace(self.gradient.clone(), &halved, select(&self.best_gradient, &halved));
    }

    /// Writes the images that fool the model into `result`, and goes on without them.
    fn drop_fooled(&mut self, logits: &Logits, result: &mut Tensor<4>) {
        let margins = logits.margins(&self.labels);
        let (fooled, left): (Vec<usize>, Vec<usize>) =
            (0..margins.len()).partition(|&row| margins[row] < 0.0);
        if fooled.is_empty() {
            return;
        }
        *result = replace(result.clone(), &pick(&self.places, &fooled), select(&self.current, &fooled));
        self.places = pick(&self.places, &left);
        self.labels = pick(&self.labels, &left);
        self.aims = pick(&self.aims, &left);
        self.paces = pick(&self.paces, &left);
        let tensors = [
            &mut self.origin,
            &mut self.previous,
            &mut self.current,
            &mut self.gradient,
            &mut self.best,
            &mut self.best_gradient,
        ];
        for tensor in tensors {
            *tensor = select(tensor, &left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints of 100 steps in the paper's section 3.2: 22, 41, 57, 70, 80, 87, 93, 99.
    #[test]
    fn periods_shrink_as_published() {
        let [mut period, shorter, shortest] = PERIODS.map(|share| (share * 100.0) as usize);
        let mut checkpoints = vec![0];
        while checkpoints[checkpoints.len() - 1] + period <= 100 {
            checkpoints.push(checkpoints[checkpoints.len() - 1] + period);
            period = (period - shorter).max(shortest);
        }
        assert_eq!(checkpoints[1..], [22, 41, 57, 70, 80, 87, 93, 99]);
    }

    #[test]
    fn a_step_is_halved_when_the_loss_wavers_or_stands_still_but_not_twice_for_standing_still() {
        let pace = |rises, best, halved_at_checkpoint| Pace {
            step: 1.0,
            loss: 0.0,
            best,
            rises,
            best_at_checkpoint: 1.0,
            halved_at_checkpoint,
        };
        assert!(!pace(8, 2.0, false).is_halved(10), "rises often, to a new best");
        assert!(pace(7, 2.0, false).is_halved(10), "rises in 7 of 10 steps");
        assert!(pace(8, 1.0, false).is_halved(10), "no new best");
        assert!(!pace(8, 1.0, true).is_halved(10), "no new best, but just halved");
        let mut halved = pace(0, 3.0, false);
        halved.is_halved(10);
        assert_eq!((halved.step, halved.loss, halved.rises), (0.5, 3.0, 0));
    }
}
