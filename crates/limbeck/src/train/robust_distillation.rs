//! Adversarially robust distillation: a student is to be like its teacher under attack (Goldblum 2020).
//!
//! The loss is (1 − a) · L(x) + a · T² · KL(softmax(z_t(x)/T) ‖ softmax(z_s(x + δ)/T)), where L is that of the labels on inputs as they are and δ a perturbation against the
//! student. The teacher is in inference mode, and asked about the very inputs that the student sees.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::scaled_divergence;
use crate::network::Model;
use crate::rng::Rng;

/// T and a of adversarially robust distillation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RobustLoss {
    /// T, of both sides of the divergence.
    pub(crate) temperature: f64,
    /// a, the weight of the teacher's answers beside the labels; a share.
    pub(crate) weight: f64,
}

impl RobustLoss {
    /// softmax(z_t(x)/T) of inputs that are off the autodiff device, `[batch, classes]`; `None` where they weigh nothing.
    ///
    /// A part of weight 0 is left out, with the passes that only it needs: they would move the statistics of batch norm.
    pub(crate) fn answers(&self, teacher: &dyn Model, inputs: Tensor<4>) -> Option<Tensor<2>> {
        let answers = || softmax(teacher.logits(inputs).div_scalar(self.temperature), 1).autodiff();
        (self.weight > 0.0).then(answers)
    }

    /// The loss of a batch for the teacher's [`answers`](Self::answers): `perturbed` gives the student's logits `[batch, classes]` at x + δ, `labelled` is L(x); both draw dropout.
    pub(crate) fn of(
        &self,
        answers: Option<Tensor<2>>,
        rng: &mut Rng,
        perturbed: impl FnOnce(&mut Rng) -> Tensor<2>,
        labelled: impl FnOnce(&mut Rng) -> Tensor<1>,
    ) -> Tensor<1> {
        let imitation = answers.map(|answers| {
            scaled_divergence(perturbed(rng), answers, self.temperature).mul_scalar(self.weight)
        });
        let labelled = (self.weight < 1.0).then(|| labelled(rng).mul_scalar(1.0 - self.weight));
        let parts = imitation.into_iter().chain(labelled);
        parts.reduce(|a, b| a + b).expect("the weights of both parts sum to 1")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::rng::Seed;

    /// Logits that are the inputs, whatever they are.
    struct Told;

    impl Model for Told {
        fn logits(&self, inputs: Tensor<4>) -> Tensor<2> {
            inputs.reshape([2, 3])
        }

        fn device(&self) -> Device {
            Device::flex()
        }
    }

    #[test]
    fn it_is_the_weighted_sum_of_the_divergence_and_the_labels_loss() {
        // The divergence is that of PyTorch 2: 25 · F.kl_div(log_softmax(z/5), softmax(t/5), reduction="batchmean") of these z and t.
        let device = Device::flex();
        let teacher = Tensor::<2>::from_floats([[4.0, 1.0, -2.0], [-1.0, 3.0, 0.5]], &device);
        let logits = Tensor::<2>::from_floats([[1.5, -0.5, 2.0], [0.2, 0.1, -3.0]], &device.autodiff());
        let mut rng = Seed::new(1).rng("dropout");
        for weight in [1.0, 0.25, 0.0] {
            let loss = RobustLoss { temperature: 5.0, weight };
            let answers = loss.answers(&Told, teacher.clone().reshape([2, 1, 1, 3]));
            assert_eq!(answers.is_some(), weight > 0.0);
            let labelled = Tensor::<1>::from_floats([4.0], &logits.device());
            let found = loss.of(answers, &mut rng, |_| logits.clone(), |_| labelled.clone());
            let expected = weight * 2.617_888_560_595_965 + (1.0 - weight) * 4.0;
            let found = f64::from(found.into_scalar::<f32>());
            assert!((found - expected).abs() < 1e-4, "{found}, expected {expected} of weight {weight}");
        }
    }
}
