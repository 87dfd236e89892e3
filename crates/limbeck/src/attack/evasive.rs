//! Attacks that must pass a detector: projected gradient ascent on what is gained, less how much more suspicious than allowed an image looks.
//!
//! The joint objective of Carlini & Wagner (2017, "Adversarial Examples Are Not Easily Detected", section 2.4), with the detector's loss cut at what it lets
//! pass, so that only images that it would flag pay for it, and the gain at what is enough (both as in the selective steps of Bryniarski 2021, section 3.1). Each gradient is that of the 8-bit image that would
//! be stored, so what is kept stands as it was measured.

use burn::tensor::{Device, Tensor};

use super::gradient::slope;
use super::loss::{cross_entropy, margin};
use super::rows::{replace, select};
use super::{Attack, IFgsm, Norm, ThreatModel};
use crate::error::{Error, Result};
use crate::network::Model;

/// What an image must pass: a score of it may not be above a limit.
#[derive(Clone, Copy)]
pub struct Guard<'a> {
    /// The detector, or a copy of it.
    pub model: &'a dyn Model,
    /// What its logits say.
    pub score: GuardScore,
    /// The largest score that passes, in nats.
    pub limit: f64,
}

/// How a guard's logits become a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardScore {
    /// Its only logit: the log-odds that an image was perturbed, or the logarithm of its reconstruction error.
    Logit,
    /// How far the image's label is behind the strongest other class, in logits; the classes are those of the attacked network.
    WrongLabel,
}

/// What an attacker gains from one image on its own network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing that a perturbation could change.
    None,
    /// Cross-entropy of this class: the image is to be read as another.
    Away(u32),
    /// Negative cross-entropy of this class: the image is to be read as it.
    Towards(u32),
}

/// What is wanted of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// The label that it carries.
    pub label: u32,
    /// What it is to do.
    pub payload: Payload,
}

/// Signed steps that become ever smaller; each image ends as the one with the most payload among those that passed every guard, else as the least suspicious.
pub struct Evasive<'a> {
    /// All that must be passed.
    pub guards: Vec<Guard<'a>>,
    /// Size of the first step, in pixel units; the others fall evenly towards 0, so that all together are half as long as if they did not.
    pub step: f64,
    /// Number of steps.
    pub steps: usize,
    /// Nats of suspicion that a nat of payload is worth.
    pub weight: f64,
    /// Probability of what is wanted, another answer or a certain one, that is enough: from there on an image only becomes less suspicious. 1 = never.
    pub confidence: f64,
}

/// How an image stands.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Standing {
    /// Nats by which it is above the limits, together; 0 where it passes.
    excess: f64,
    payload: f64,
}

impl Standing {
    fn beats(self, other: Self) -> bool {
        match (self.excess == 0.0, other.excess == 0.0) {
            (true, true) => self.payload > other.payload,
            (false, false) => self.excess < other.excess,
            (passes, _) => passes,
        }
    }
}

/// The attacker's network and all guards as one model, whose logits are theirs in a row.
struct Joint<'a> {
    network: &'a dyn Model,
    guards: &'a [Guard<'a>],
}

impl Model for Joint<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let guards = self.guards.iter().map(|guard| guard.model.logits(images.clone()));
        Tensor::cat([self.network.logits(images.clone())].into_iter().chain(guards).collect(), 1)
    }

    fn device(&self) -> Device {
        self.network.device()
    }
}

impl<'a> Evasive<'a> {
    /// Whoever must fool the network and pass, and gains nothing by fooling it further.
    pub fn fooling(guards: Vec<Guard<'a>>, step: f64, steps: usize) -> Self {
        Self { guards, step, steps, weight: 0.2, confidence: 0.99 }
    }
}

impl Evasive<'_> {
    /// Moves the images at `start`, `[batch, 3, height, width]`, within what `allowed` lets through; one aim for each.
    ///
    /// `allowed` is a projection, and rounding to 8 bits must not leave what it projects to. Payloads are measured on `network`.
    pub fn steps_from(
        &self,
        start: Tensor<4>,
        network: &dyn Model,
        aims: &[Aim],
        allowed: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Result<Tensor<4>> {
        let joint = Joint { network, guards: &self.guards };
        let no_labels = vec![0; aims.len()];
        let (mut current, mut kept) = (allowed(start), None);
        for step in 0..=self.steps {
            let stored = current.clone().mul_scalar(255.0).round().div_scalar(255.0);
            let mut standings = Vec::with_capacity(aims.len());
            let gradient = slope(&joint, stored.clone(), &no_labels, |row, logits, _, slopes| {
                let standing = self.standing(logits, aims[row], slopes);
                standings.push(standing);
                self.weight * standing.payload - standing.excess
            })?
            .gradient;
            kept = Some(match kept {
                None => (stored, standings),
                Some((images, best)) => better(images, best, &stored, &standings),
            });
            if step < self.steps {
                let step = self.step * (self.steps - step) as f64 / self.steps as f64;
                current = allowed(current + gradient.sign().mul_scalar(step));
            }
        }
        Ok(kept.map_or(current, |(images, _)| images))
    }

    /// How one image stands, from the joint logits; `slopes` becomes the gradient of weight · payload − excess.
    fn standing(&self, logits: &[f32], aim: Aim, slopes: &mut [f64]) -> Standing {
        let classes = self.classes(logits.len());
        let mut payload = payload(aim.payload, &logits[..classes], &mut slopes[..classes]);
        let enough = aim.payload.at(self.confidence, classes);
        if payload >= enough {
            slopes[..classes].fill(0.0);
            payload = enough;
        }
        slopes[..classes].iter_mut().for_each(|slope| *slope *= self.weight);
        let (mut start, mut excess) = (classes, 0.0);
        for guard in &self.guards {
            let width = guard.score.width(classes);
            excess +=
                guard.excess(&logits[start..start + width], aim.label, &mut slopes[start..start + width]);
            start += width;
        }
        Standing { excess, payload }
    }

    /// Classes of the attacked network, of all joint logits.
    fn classes(&self, joint: usize) -> usize {
        let of_labels = self.guards.iter().filter(|guard| guard.score == GuardScore::WrongLabel).count();
        (joint - (self.guards.len() - of_labels)) / (1 + of_labels)
    }
}

/// Of each image the one that stands better.
fn better(
    images: Tensor<4>,
    mut best: Vec<Standing>,
    others: &Tensor<4>,
    found: &[Standing],
) -> (Tensor<4>, Vec<Standing>) {
    let rows: Vec<usize> = (0..best.len()).filter(|&row| found[row].beats(best[row])).collect();
    if rows.is_empty() {
        return (images, best);
    }
    rows.iter().for_each(|&row| best[row] = found[row]);
    (replace(images, &rows, select(others, &rows)), best)
}

impl Payload {
    /// What it is where what is wanted has this probability and, of `classes`, is the answer.
    fn at(self, confidence: f64, classes: usize) -> f64 {
        match self {
            Self::None => f64::INFINITY,
            // The answer has at least the mean probability.
            Self::Away(_) => -(1.0 - confidence).min(1.0 / classes as f64).ln(),
            Self::Towards(_) => confidence.ln(),
        }
    }
}

fn payload(payload: Payload, logits: &[f32], slopes: &mut [f64]) -> f64 {
    match payload {
        Payload::None => 0.0,
        Payload::Away(class) => cross_entropy(logits, class as usize, slopes),
        Payload::Towards(class) => {
            let loss = cross_entropy(logits, class as usize, slopes);
            slopes.iter_mut().for_each(|slope| *slope = -*slope);
            -loss
        }
    }
}

impl GuardScore {
    /// How many logits a guard has, for a network of `classes` classes.
    fn width(self, classes: usize) -> usize {
        match self {
            Self::Logit => 1,
            Self::WrongLabel => classes,
        }
    }

    /// The score of an image with this label.
    pub fn of(self, logits: &[f32], label: u32) -> f64 {
        match self {
            Self::Logit => f64::from(logits[0]),
            Self::WrongLabel => -margin(logits, label as usize).0,
        }
    }
}

impl Guard<'_> {
    /// Nats above the limit; `slopes` becomes the gradient of their negative.
    fn excess(&self, logits: &[f32], label: u32, slopes: &mut [f64]) -> f64 {
        let excess = (self.score.of(logits, label) - self.limit).max(0.0);
        if excess > 0.0 {
            match self.score {
                GuardScore::Logit => slopes[0] = -1.0,
                GuardScore::WrongLabel => {
                    let (_, rival) = margin(logits, label as usize);
                    slopes[label as usize] = 1.0;
                    slopes[rival] = -1.0;
                }
            }
        }
        excess
    }
}

impl Attack for Evasive<'_> {
    /// The images keep their labels and are to be read as any other class. What I-FGSM makes of them is where the steps begin: from the images themselves, which
    /// pass, no way was found to images that fool.
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        if threat.norm != Norm::Linf {
            return Err(Error::input("evasive attack", format!("{:?}", threat.norm), "an L-infinity ball"));
        }
        let aims: Vec<Aim> =
            labels.iter().map(|&label| Aim { label, payload: Payload::Away(label) }).collect();
        let ball = threat.in_whole_levels();
        let fooling = IFgsm { step: self.step, steps: self.steps };
        let start = fooling.propose(model, ball, images.clone(), labels)?;
        self.steps_from(start, model, &aims, |proposal| ball.project(&images, proposal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::values;
    use crate::testing::{LinearModel, uniform};

    /// One logit, w · x.
    struct LinearHead(Tensor<4>);

    impl Model for LinearHead {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            (images * self.0.clone()).flatten::<2>(1, 3).sum_dim(1)
        }

        fn device(&self) -> Device {
            Device::flex()
        }
    }

    fn evasive<'a>(head: &'a LinearHead, limit: f64) -> Evasive<'a> {
        let guards = vec![Guard { model: head, score: GuardScore::Logit, limit }];
        Evasive { guards, step: 1.0 / 255.0, steps: 30, weight: 1.0, confidence: 1.0 }
    }

    /// On 8-bit levels between 100 and 150.
    fn images() -> Tensor<4> {
        uniform([4, 3, 2, 2], 100.0, 150.0, 1).round().div_scalar(255.0)
    }

    #[test]
    fn an_image_passes_and_still_fools_where_both_can_be_had() {
        // The network minds the first half of the pixels, the head all of them: what the first half raises, the second must take back.
        let mut weights = [[1.0_f32; 6], [0.0; 6]].concat();
        let network =
            LinearModel(Tensor::<1>::from_floats(&weights[..], &Device::flex()).reshape([1, 3, 2, 2]));
        weights.fill(1.0);
        let head = LinearHead(Tensor::<1>::from_floats(&weights[..], &Device::flex()).reshape([1, 3, 2, 2]));
        let images = images();
        let before = values(head.logits(images.clone())).expect("values");
        // The limit is above the score of each image as it is.
        let limit = f64::from(before.iter().copied().fold(f32::MIN, f32::max)) + 0.01;
        let threat = ThreatModel::linf(8.0 / 255.0);
        let moved =
            evasive(&head, limit).propose(&network, threat, images.clone(), &[0; 4]).expect("crafted");
        let after = values(head.logits(moved.clone())).expect("values");
        assert!(after.iter().all(|score| f64::from(*score) <= limit + 1e-5), "{after:?} above {limit}");
        let payload = |images| values(network.logits(images)).expect("values");
        let (before, after) = (payload(images.clone()), payload(moved.clone()));
        let gained = before.chunks(2).zip(after.chunks(2)).all(|(before, after)| after[1] > before[1] + 0.05);
        assert!(gained, "{before:?} {after:?}");
        let levels = values(moved.clone().mul_scalar(255.0)).expect("values");
        assert!(levels.iter().all(|level| (level - level.round()).abs() < 1e-3), "whole levels");
        let change = values((moved - images).abs()).expect("values");
        assert!(change.iter().all(|change| f64::from(*change) <= 8.0 / 255.0 + 1e-6));
    }

    #[test]
    fn a_limit_out_of_reach_is_approached_as_far_as_the_ball_goes() {
        let network = LinearModel(Tensor::zeros([1, 3, 2, 2], &Device::flex()));
        let head = LinearHead(Tensor::ones([1, 3, 2, 2], &Device::flex()));
        let (images, threat) = (images(), ThreatModel::linf(8.0 / 255.0));
        let moved =
            evasive(&head, -100.0).propose(&network, threat, images.clone(), &[0; 4]).expect("crafted");
        let change = values(moved - images).expect("values");
        assert!(change.iter().all(|change| (f64::from(*change) + 8.0 / 255.0).abs() < 1e-6), "{change:?}");
    }

    #[test]
    fn slopes_of_a_wrong_label_point_from_the_rival_to_the_label() {
        let network = LinearModel(Tensor::zeros([1, 3, 2, 2], &Device::flex()));
        let guard = Guard { model: &network, score: GuardScore::WrongLabel, limit: 0.5 };
        let mut slopes = [0.0; 3];
        // The label 0 is 3 - 1 = 2 nats behind class 2.
        assert_eq!(guard.excess(&[1.0, 0.0, 3.0], 0, &mut slopes), 1.5);
        assert_eq!(slopes, [1.0, 0.0, -1.0]);
        let mut slopes = [0.0; 3];
        assert_eq!(guard.excess(&[1.0, 0.0, 1.25], 0, &mut slopes), 0.0);
        assert_eq!(slopes, [0.0; 3], "what passes is left alone");
    }

    #[test]
    fn where_the_network_is_fooled_enough_suspicion_alone_is_minded() {
        let head = LinearHead(Tensor::ones([1, 3, 2, 2], &Device::flex()));
        let evasive = Evasive { confidence: 0.9, ..evasive(&head, 1.0) };
        let standing = |rival: f32, payload| {
            let mut slopes = [0.0; 3];
            // Two logits of the network, one of the head.
            (evasive.standing(&[0.0, rival, 3.0], Aim { label: 0, payload }, &mut slopes), slopes)
        };
        // softmax of the other class: 0.88, then 0.95.
        let (short, slopes) = standing(2.0, Payload::Away(0));
        assert!(
            short.payload < -0.1_f64.ln() && slopes[1] > 0.0 && slopes[2] == -1.0,
            "{short:?} {slopes:?}"
        );
        for payload in [Payload::Away(0), Payload::Towards(1)] {
            let (fooled, slopes) = standing(3.0, payload);
            assert_eq!(slopes, [0.0, 0.0, -1.0], "{payload:?}");
            assert_eq!(fooled.excess, 2.0);
            assert_eq!(fooled, standing(9.0, payload).0, "{payload:?}: more is worth no more");
        }
    }

    #[test]
    fn what_passes_beats_what_does_not_then_payload_counts() {
        let standing = |excess, payload| Standing { excess, payload };
        assert!(standing(0.0, -5.0).beats(standing(0.1, 9.0)));
        assert!(!standing(0.1, 9.0).beats(standing(0.0, -5.0)));
        assert!(standing(0.0, 2.0).beats(standing(0.0, 1.0)));
        assert!(standing(0.1, 0.0).beats(standing(0.2, 9.0)));
    }

    #[test]
    fn an_l2_ball_is_refused() {
        let network = LinearModel(Tensor::zeros([1, 3, 2, 2], &Device::flex()));
        let head = LinearHead(Tensor::ones([1, 3, 2, 2], &Device::flex()));
        let error = evasive(&head, 0.0).propose(&network, ThreatModel::l2(0.5), images(), &[0; 4]);
        assert!(error.expect_err("L2").to_string().contains("L-infinity"));
    }
}
