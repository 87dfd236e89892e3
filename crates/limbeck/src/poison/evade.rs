//! An attacker who knows the defence: it has copies of the defender's networks, trained on data of its own, and moves its images until the copies let them pass.
//!
//! Each image stays within an L-infinity ball around what its kind made of it, keeps its label and the pixels of its trigger, and, where the kind has a ball of
//! its own around the original, stays in that too. What its payload is worth to the attacker is weighed against suspicion; see
//! [`Evasive`](crate::attack::Evasive). The kinds that have nothing but labels choose the images whose wrong label the copy finds least odd.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PoisonedImage, Task};
use crate::attack::{Aim, Evasive, Guard, GuardScore, Payload, ThreatModel};
use crate::craft::quantise_within;
use crate::error::{Error, Result};
use crate::tensors::values;

/// Images moved at once.
const BATCH: usize = 128;

/// How an attacker who knows the defence evades it. The paper has no such attacker: the defaults are our own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evasion {
    /// How far each pixel may move from what the kind made of it, in pixel units; 0 = the attacker knows nothing of the defence.
    pub eps: f64,
    /// Gradient steps that become ever smaller, of 2.5 eps together (Madry 2018).
    pub steps: usize,
    /// Weight of a nat of payload, the loss of the attacker's own network, against a nat of suspicion.
    pub weight: f64,
    /// No image is to look more suspicious to the copies than this percentile of clean images of the attacker's own.
    pub percentile: f64,
}

impl Default for Evasion {
    fn default() -> Self {
        Self { eps: 0.0, steps: 40, weight: 0.2, percentile: 90.0 }
    }
}

impl Evasion {
    /// Whether the attacker knows the defence.
    pub fn is_on(&self) -> bool {
        self.eps > 0.0
    }

    pub(super) fn check(&self, key: &str) -> Result<()> {
        if !(0.0..=1.0).contains(&self.eps) {
            let expected =
                "a radius in [0, 1] pixel units (4/255 = 0.0157), or 0 for an attacker who knows nothing";
            return Err(Error::config(format!("{key}.eps"), self.eps, expected));
        }
        if !(1..=10_000).contains(&self.steps) {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 10000 steps"));
        }
        if !(0.0..=1000.0).contains(&self.weight) {
            return Err(Error::config(format!("{key}.weight"), self.weight, "a weight in [0, 1000]"));
        }
        if !(0.0..=100.0).contains(&self.percentile) {
            return Err(Error::config(format!("{key}.percentile"), self.percentile, "0 to 100"));
        }
        Ok(())
    }

    fn ball(&self) -> ThreatModel {
        ThreatModel::linf(self.eps)
    }
}

/// The attacker's copies of what the defender judges with.
#[derive(Clone)]
pub struct Copies<'a> {
    /// Log-odds that an image was perturbed, and the classes of images whatever their labels; each with its limit.
    pub guards: Vec<Guard<'a>>,
}

fn minds_labels(guard: &Guard<'_>) -> bool {
    guard.score == GuardScore::WrongLabel
}

impl Copies<'_> {
    /// Whether any of them can tell a wrong label.
    pub(super) fn mind_labels(&self) -> bool {
        self.guards.iter().any(minds_labels)
    }

    /// Scores of a batch of images `[batch, 3, height, width]` with these labels, one column for each guard.
    fn scores(&self, images: &Tensor<4>, labels: &[u32]) -> Result<Vec<Vec<f64>>> {
        let of_guard = |guard: &Guard<'_>| {
            let logits = guard.model.logits(images.clone());
            let [_, width] = logits.dims();
            let rows = values(logits)?;
            let scores = rows.chunks_exact(width).zip(labels).map(|(row, &label)| guard.score.of(row, label));
            Ok(scores.collect())
        };
        self.guards.iter().map(of_guard).collect()
    }
}

/// Moves poisoned images until the copies let them pass, as far as that can be; `payload` is what an image is to do, from its original label.
pub(super) fn evade(
    task: &Task<'_>,
    images: Vec<PoisonedImage>,
    copies: &Copies<'_>,
    payload: impl Fn(u32) -> Payload,
) -> Result<Vec<PoisonedImage>> {
    let Evasion { eps, steps, weight, .. } = task.config.evade;
    let attack = Evasive {
        guards: copies.guards.clone(),
        step: 5.0 * eps / steps as f64,
        steps,
        weight,
        confidence: 1.0,
    };
    let (set, device) = (task.set, task.device.clone().without_autodiff());
    let (ball, near) = (task.config.ball().map(ThreatModel::in_whole_levels), task.config.evade.ball());
    let free = free_pixels(task, &device);
    task.progress.task("evading the copies of the defence", "images");
    let mut moved = Vec::with_capacity(images.len());
    for chunk in images.chunks(BATCH) {
        task.progress.check()?;
        let originals: Vec<usize> = chunk.iter().map(|image| image.index).collect();
        let aims: Vec<Aim> = chunk
            .iter()
            .zip(set.labels(&originals))
            .map(|(image, original)| Aim { label: image.label, payload: payload(original) })
            .collect();
        let originals = set.batch(&originals, &device)?;
        let crafted = batch(task, chunk);
        let allowed = |proposal: Tensor<4>| {
            let proposal = near.in_whole_levels().project(&crafted, proposal);
            let proposal = ball.map_or(proposal.clone(), |ball| ball.project(&originals, proposal));
            crafted.clone() + (proposal - crafted.clone()) * free.clone()
        };
        let found = values(attack.steps_from(crafted.clone(), task.surrogate()?, &aims, allowed)?)?;
        moved.extend(chunk.iter().zip(found.chunks_exact(set.size().bytes())).map(|(image, pixels)| {
            PoisonedImage { pixels: quantise_within(pixels, &image.pixels, near), ..*image }
        }));
        task.progress.advance(moved.len() as u64, images.len() as u64);
    }
    Ok(moved)
}

/// The `count` images whose labels look least wrong to the copies that mind labels, in their own order.
pub(super) fn least_odd(
    task: &Task<'_>,
    images: Vec<PoisonedImage>,
    copies: &Copies<'_>,
    count: usize,
) -> Result<Vec<PoisonedImage>> {
    let copies =
        Copies { guards: copies.guards.iter().filter(|guard| minds_labels(guard)).copied().collect() };
    let mut oddness = Vec::with_capacity(images.len());
    for chunk in images.chunks(BATCH) {
        task.progress.check()?;
        let labels: Vec<u32> = chunk.iter().map(|image| image.label).collect();
        let columns = copies.scores(&batch(task, chunk), &labels)?;
        oddness.extend((0..chunk.len()).map(|row| columns.iter().map(|column| column[row]).sum::<f64>()));
    }
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by(|&a, &b| oddness[a].total_cmp(&oddness[b]).then(a.cmp(&b)));
    let mut chosen: Vec<usize> = order.into_iter().take(count).collect();
    chosen.sort_unstable();
    Ok(chosen.into_iter().map(|row| images[row].clone()).collect())
}

/// Poisoned images as a batch.
fn batch(task: &Task<'_>, images: &[PoisonedImage]) -> Tensor<4> {
    let pixels = images.iter().flat_map(|image| &image.pixels).map(|&byte| f32::from(byte) / 255.0).collect();
    task.set.tensor(pixels, images.len(), &task.device.clone().without_autodiff())
}

/// 0 where the trigger's pixels are, 1 elsewhere, `[1, 3, height, width]`.
fn free_pixels(task: &Task<'_>, device: &burn::tensor::Device) -> Tensor<4> {
    let area = task.set.size().bytes() / 3;
    let patch = task.config.patch(task.set.size()).unwrap_or_else(|| vec![false; area]);
    let plane = patch.iter().map(|&is_trigger| f32::from(u8::from(!is_trigger)));
    let planes: Vec<f32> = (0..3).flat_map(|_| plane.clone()).collect();
    task.set.tensor(planes, 1, device)
}

/// Whether each image of a set passes every guard.
pub fn passing(
    set: &crate::dataset::Dataset,
    copies: &Copies<'_>,
    device: &burn::tensor::Device,
) -> Result<Vec<bool>> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut passing = Vec::with_capacity(set.len());
    for chunk in indices.chunks(BATCH) {
        let columns = copies.scores(&set.batch(chunk, device)?, &set.labels(chunk))?;
        let passes =
            |row: usize| copies.guards.iter().zip(&columns).all(|(guard, column)| column[row] <= guard.limit);
        passing.extend((0..chunk.len()).map(passes));
    }
    Ok(passing)
}
