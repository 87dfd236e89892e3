//! The null rule as a model that an attack can mind.

use burn::tensor::{Device, Tensor};

use super::abstention::NullRule;
use super::uncertainty::Seen;
use crate::network::{Model, TrainedClassifier};
use crate::rng::Seed;

/// The logarithm of a student's uncertainty as a model of one logit, `[batch, 1]`: differentiable, through every dropout pass.
///
/// With the rule's own thinned networks it is what decides; with others it is the attacker's estimate of it, an expectation over dropout (Athalye 2018).
pub struct NullScore<'a> {
    student: &'a TrainedClassifier,
    rule: &'a NullRule,
    passes: usize,
    draws: Seed,
}

impl<'a> NullScore<'a> {
    /// By the thinned networks of the rule itself.
    pub fn of_rule(student: &'a TrainedClassifier, rule: &'a NullRule) -> Self {
        Self { student, rule, passes: rule.passes, draws: rule.draws() }
    }

    /// By so many others.
    pub fn by_other_draws(
        student: &'a TrainedClassifier,
        rule: &'a NullRule,
        passes: usize,
        draws: Seed,
    ) -> Self {
        Self { student, rule, passes, draws }
    }

    /// The largest value that the rule does not answer null; `None` where it never answers null for want of sureness.
    pub fn limit(&self) -> Option<f64> {
        self.rule.threshold.map(|threshold| (threshold + FLOOR).ln())
    }
}

/// A certain answer has a logarithm too, and a gradient.
const FLOOR: f64 = 1e-9;

impl Model for NullScore<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let (logits, passes) = self.student.differentiable_passes(images, self.passes, self.draws);
        // The answer's class is a choice, without a gradient.
        let answers = logits.narrow(1, 0, self.student.spec().classes.len()).argmax(1).flatten(0, 1);
        let references = self.rule.references_of(answers);
        let seen = Seen::new(passes, self.student.spec().temperature, references);
        let uncertainty = self.rule.uncertainty.of(&seen);
        let [batch] = uncertainty.dims();
        uncertainty.clamp_min(0.0).add_scalar(FLOOR).log().reshape([batch, 1])
    }

    fn device(&self) -> Device {
        self.student.device()
    }
}
