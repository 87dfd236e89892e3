//! Adversarial weight perturbation: a network learns from examples with the weights near its own that do worst on them.
//!
//! min over w of max over v of E max over δ of L(w + v, x + δ, y), each ‖v_l‖ ≤ γ ‖w_l‖ (Wu 2020, section 4). It flattens the loss around the weights, which narrows the gap
//! between training and test images under attack. v is one step up the gradient on the batch that is then learnt from (K2 = 1 there); its weights are those of convolutions
//! and dense layers, not biases and batch norm (as in their code). The gradient at w + v moves w.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the weights of a network in adversarial training are perturbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WeightPerturbation {
    /// γ: norm of a layer's perturbation as a share of the norm of its weights (Wu 2020: 0.005); 0 = none.
    pub size: f64,
    /// Share of the training before which weights are not perturbed. A step with perturbed weights costs a training step more.
    pub from: f64,
}

impl WeightPerturbation {
    pub(super) fn check(&self, key: &str) -> Result<()> {
        if !(0.0..1.0).contains(&self.size) {
            return Err(Error::config(format!("{key}.size"), self.size, "a share of the weights in [0, 1)"));
        }
        if !(0.0..1.0).contains(&self.from) {
            return Err(Error::config(format!("{key}.from"), self.from, "a share in [0, 1)"));
        }
        Ok(())
    }

    /// The loss of `network` at a `place` of its training, at the perturbed weights if it is their time: its gradient belongs to the network's own.
    pub(crate) fn loss<M: Module>(
        &self,
        network: &M,
        place: f64,
        mut loss_of: impl FnMut(&M) -> Tensor<1>,
    ) -> Tensor<1> {
        if self.size == 0.0 || place < self.from {
            return loss_of(network);
        }
        // A copy with batch norm statistics of its own: the network's see each batch once, at the perturbed weights (as in their code).
        let copy = network.valid().train();
        let gradients = GradientsParams::from_grads(loss_of(&copy).backward(), &copy);
        let mut ascent = Ascent { gradients, size: self.size };
        loss_of(&network.clone().map(&mut ascent))
    }
}

/// w becomes w + γ ‖w‖ g / ‖g‖, a function of w, so that gradients reach it.
struct Ascent {
    gradients: GradientsParams,
    size: f64,
}

impl ModuleMapper for Ascent {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Vectors are biases and batch norm's, its running statistics among them, which clones of a network share.
        let gradient = if D > 1 { self.gradients.get::<D>(param.id) } else { None };
        let Some(gradient) = gradient else { return param };
        let norm = |tensor: &Tensor<D>| f64::from(tensor.clone().square().sum().into_scalar::<f32>()).sqrt();
        param.map(|weights| {
            let length = self.size * norm(&weights.clone().inner());
            let slope = norm(&gradient);
            if slope == 0.0 {
                return weights;
            }
            weights + gradient.mul_scalar(length / slope).autodiff()
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use burn::tensor::{Device, TensorData};
    use rand::Rng as _;

    use super::*;
    use crate::network::{Architecture, Classifier};
    use crate::rng::Seed;
    use crate::testing::tiny_spec;
    use crate::train::soft_cross_entropy;

    fn network() -> Classifier {
        let spec = tiny_spec(Architecture::Vgg, 4, 1.0);
        spec.init(&Device::flex().autodiff(), &mut Seed::new(3).rng("weights")).expect("the spec fits")
    }

    /// Of eight random images, without dropout.
    fn loss_of(network: &Classifier) -> Tensor<1> {
        let device = Device::flex().autodiff();
        let mut rng = Seed::new(4).rng("images");
        let pixels: Vec<f32> = (0..8 * 3 * 64).map(|_| rng.random()).collect();
        let images = Tensor::from_data(TensorData::new(pixels, [8, 3, 8, 8]), &device);
        let targets = Tensor::<2>::eye(4, &device).repeat(&[2, 1]);
        soft_cross_entropy(network.train_logits(images, &mut Seed::new(5).rng("dropout")), targets, 1.0)
    }

    fn value(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_scalar::<f32>())
    }

    #[test]
    fn the_loss_rises_with_the_perturbation_and_is_the_plain_one_before_its_time() {
        let network = network();
        let plain = value(loss_of(&network));
        let perturbed =
            |size, from, place| value(WeightPerturbation { size, from }.loss(&network, place, loss_of));
        assert_eq!(perturbed(0.0, 0.0, 0.5), plain);
        assert_eq!(perturbed(0.05, 0.6, 0.5), plain);
        let (little, more) = (perturbed(0.005, 0.0, 0.5), perturbed(0.05, 0.5, 0.5));
        assert!(plain < little && little < more, "{plain}, {little}, {more}");
        assert_eq!(value(loss_of(&network)), plain, "the network itself is not moved");
    }

    /// Dimensions and values of every tensor of a network in the order of a visit, or of its gradient.
    #[derive(Default)]
    struct Tensors {
        gradients: Option<GradientsParams>,
        values: Vec<(usize, Vec<f32>)>,
    }

    impl ModuleVisitor for Tensors {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = match &self.gradients {
                None => Some(param.val().inner()),
                Some(gradients) => gradients.get::<D>(param.id),
            };
            if let Some(tensor) = tensor {
                self.values.push((D, crate::tensors::values(tensor).expect("values")));
            }
        }
    }

    fn weights(network: &Classifier) -> Vec<(usize, Vec<f32>)> {
        let mut weights = Tensors::default();
        network.visit(&mut weights);
        weights.values
    }

    fn gradient(loss: &Tensor<1>, network: &Classifier) -> Vec<(usize, Vec<f32>)> {
        let gradients = Some(GradientsParams::from_grads(loss.backward(), network));
        let mut gradient = Tensors { gradients, ..Tensors::default() };
        network.visit(&mut gradient);
        gradient.values
    }

    fn moved(network: &Classifier, size: f64) -> Classifier {
        let gradients = GradientsParams::from_grads(loss_of(network).backward(), network);
        network.clone().map(&mut Ascent { gradients, size })
    }

    #[test]
    fn each_layer_moves_by_its_share_and_vectors_stay() {
        let network = network();
        let norm = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let before = weights(&network);
        assert!(before.iter().any(|(dimensions, _)| *dimensions == 4));
        for ((dimensions, before), (_, after)) in before.iter().zip(weights(&moved(&network, 0.1))) {
            let difference: Vec<f32> =
                after.iter().zip(before).map(|(after, before)| after - before).collect();
            let (found, norm) = (norm(&difference), norm(before));
            let expected = if *dimensions > 1 { 0.1 * norm } else { 0.0 };
            assert!((found - expected).abs() <= 1e-3 * norm, "{found}, expected {expected}");
        }
    }

    #[test]
    fn batch_norm_sees_the_batch_once() {
        let (perturbed, plain) = (network(), network());
        let perturbation = WeightPerturbation { size: 1e-6, from: 0.0 };
        let _ = (perturbation.loss(&perturbed, 0.0, loss_of), loss_of(&plain));
        // What a network has in inference mode holds its running statistics.
        for ((_, found), (_, expected)) in weights(&perturbed.valid()).iter().zip(weights(&plain.valid())) {
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4, "off by {off}");
        }
    }

    #[test]
    fn the_gradient_at_the_perturbed_weights_reaches_the_networks_own() {
        let network = network();
        let perturbation = WeightPerturbation { size: 0.1, from: 0.0 };
        let found = gradient(&perturbation.loss(&network, 0.0, loss_of), &network);
        // The same network with the perturbed weights for its own.
        let moved = moved(&network, 0.1).valid().train();
        let expected = gradient(&loss_of(&moved), &moved);
        assert!(found.len() == expected.len() && found.len() > 6, "{} tensors", found.len());
        for ((_, found), (_, expected)) in found.iter().zip(&expected) {
            let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-3 * largest, "{found}, expected {expected}");
            }
        }
        assert_ne!(found, gradient(&loss_of(&network), &network), "it is another than the plain one");
    }
}
