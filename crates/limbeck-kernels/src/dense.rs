//! Dense layers, their thinned copies for Monte Carlo dropout, and the two losses.

use burn::backend::{Dispatch, Flex};
use burn::module::{Module, Param};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Int, Tensor};

use crate::block::on_cpu;
use crate::cpu::{self, Isa, Matrix};
use crate::extension::{DenseLayers, buffer, floats};

/// `relu?(x · weight + bias)` of `[batch, inputs]`.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[inputs, outputs]`.
    weight: Param<Tensor<2>>,
    /// `[outputs]`.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    relu: bool,
}

impl Dense {
    /// With weights `[inputs, outputs]` and a bias `[outputs]`.
    pub fn new(weight: Param<Tensor<2>>, bias: Param<Tensor<1>>) -> Self {
        Self { weight, bias, relu: false }
    }

    /// Ends with a ReLU.
    pub fn relu(mut self) -> Self {
        self.relu = true;
        self
    }

    /// `[batch, inputs]` to `[batch, outputs]`.
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if on_cpu(&weight) {
            return Tensor::from_dispatch(<Dispatch as DenseLayers>::dense(
                input.into_dispatch(),
                weight.into_dispatch(),
                bias.into_dispatch(),
                self.relu,
            ));
        }
        primitive::dense(input, weight, bias, self.relu)
    }

    /// Copies of this layer without some of their inputs, the others times `factor`, to run on many inputs.
    pub fn thinned(&self, factor: f64) -> Thinned {
        let (weight, bias) = (self.weight.val().inner(), self.bias.val().inner());
        let matrix = on_cpu(&weight).then(|| {
            let [inputs, outputs] = weight.dims();
            let primitive = primitive_of(weight.clone());
            Matrix::new(floats(&primitive), inputs, outputs, factor as f32)
        });
        Thinned { weight, bias, relu: self.relu, factor, matrix }
    }
}

/// See [`Dense::thinned`].
pub struct Thinned {
    weight: Tensor<2>,
    bias: Tensor<1>,
    relu: bool,
    factor: f64,
    /// On the CPU, with the factor in it.
    matrix: Option<Matrix>,
}

impl Thinned {
    /// Outputs `[batch, outputs]` of each thinned layer, on the same `[batch, inputs]`; `kept[i]` are the inputs that layer i has, in rising order.
    ///
    /// # Panics
    /// If an input is kept that the layer has not.
    pub fn forward(&self, input: Tensor<2>, kept: &[Vec<u32>]) -> Vec<Tensor<2>> {
        let [rows, inputs] = input.dims();
        assert!(kept.iter().flatten().all(|&kept| (kept as usize) < inputs), "kept inputs of {inputs}");
        let Some(matrix) = &self.matrix else {
            return kept.iter().map(|kept| self.select(input.clone(), kept)).collect();
        };
        let (input, bias) = (primitive_of(input), primitive_of(self.bias.clone()));
        let [outputs] = self.bias.dims();
        cpu::thinned(Isa::best(), floats(&input), matrix, kept, floats(&bias), self.relu)
            .into_iter()
            .map(|output| Tensor::from_primitive::<Flex>(buffer(output, vec![rows, outputs])))
            .collect()
    }

    /// One of them in Burn's own operations.
    fn select(&self, input: Tensor<2>, kept: &[u32]) -> Tensor<2> {
        let kept: Vec<i32> = kept.iter().map(|&input| input as i32).collect();
        let kept = Tensor::<1, Int>::from_data(&kept[..], &input.device());
        let weight = self.weight.clone().select(0, kept.clone()).mul_scalar(self.factor);
        primitive::dense(input.select(1, kept), weight, self.bias.clone(), self.relu)
    }
}

fn primitive_of<const D: usize>(tensor: Tensor<D>) -> burn::backend::flex::FlexTensor {
    tensor.inner().try_into_primitive::<Flex>().expect("a tensor on the CPU without autodiff").to_contiguous()
}

/// Mean over the batch of CE(p, softmax(z/T)) for target distributions p and logits z, both `[batch, classes]`.
///
/// The gradient goes to the logits alone.
pub fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>, temperature: f64) -> Tensor<1> {
    if on_cpu(&logits) {
        return Tensor::from_dispatch(<Dispatch as DenseLayers>::soft_cross_entropy(
            logits.into_dispatch(),
            targets.into_dispatch(),
            temperature,
        ));
    }
    primitive::soft_cross_entropy(logits, targets, temperature)
}

/// Mean of squared differences. The gradient goes to the values alone, not to the targets.
pub fn mean_squared_error<const D: usize>(values: Tensor<D>, targets: Tensor<D>) -> Tensor<1> {
    assert_eq!(values.dims(), targets.dims(), "values and targets of one shape");
    if on_cpu(&values) {
        return Tensor::from_dispatch(<Dispatch as DenseLayers>::squared_error(
            values.into_dispatch(),
            targets.into_dispatch(),
        ));
    }
    (values - targets).square().mean()
}

/// The same in Burn's own operations, for devices that the kernels do not run on.
mod primitive {
    use super::*;

    pub(super) fn dense(input: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, cut: bool) -> Tensor<2> {
        let output = input.matmul(weight) + bias.unsqueeze();
        if cut { relu(output) } else { output }
    }

    pub(super) fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>, temperature: f64) -> Tensor<1> {
        let [batch, _] = logits.dims();
        (log_softmax(logits.div_scalar(temperature), 1) * targets).sum().div_scalar(-(batch as f64))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, Tolerance};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn leaf<const D: usize>(shape: [usize; D], rng: &mut ChaCha8Rng) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    fn same<const D: usize>(ours: Tensor<D>, theirs: Tensor<D>) {
        ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn a_dense_layer_is_the_same_by_kernels_and_by_burns_operations() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for cut in [false, true] {
            let (x, w, b) = (leaf([9, 300], &mut rng), leaf([300, 21], &mut rng), leaf([21], &mut rng));
            let layer = Dense {
                weight: Param::from_tensor(w.clone()),
                bias: Param::from_tensor(b.clone()),
                relu: cut,
            };
            let upstream = leaf([9, 21], &mut rng).detach();
            let (ours, theirs) =
                (layer.forward(x.clone()), primitive::dense(x.clone(), w.clone(), b.clone(), cut));
            let mut found = (ours.clone() * upstream.clone()).sum().backward();
            let mut expected = (theirs.clone() * upstream).sum().backward();
            same(ours, theirs);
            same(
                x.grad_remove(&mut found).expect("a gradient"),
                x.grad_remove(&mut expected).expect("a gradient"),
            );
            let [weight, bias] = [layer.weight.val().grad_remove(&mut found), None];
            same(weight.expect("a gradient"), w.grad_remove(&mut expected).expect("a gradient"));
            let bias = bias.or(layer.bias.val().grad_remove(&mut found).map(Tensor::unsqueeze::<2>));
            let theirs = b.grad_remove(&mut expected).expect("a gradient").unsqueeze::<2>();
            same(bias.expect("a gradient"), theirs);
        }
    }

    #[test]
    fn thinned_layers_are_the_same_by_kernels_and_by_burns_operations() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let layer =
            Dense::new(Param::from_tensor(leaf([40, 7], &mut rng)), Param::from_tensor(leaf([7], &mut rng)))
                .relu();
        let thinned = layer.thinned(2.0);
        let input = leaf([5, 40], &mut rng).inner();
        let kept: Vec<Vec<u32>> = (0..6).map(|i| (0..40).filter(|k| (k * 7 + i) % 5 < 2).collect()).collect();
        for (ours, kept) in thinned.forward(input.clone(), &kept).into_iter().zip(&kept) {
            same(ours, thinned.select(input.clone(), kept));
        }
    }

    #[test]
    fn losses_are_the_same_by_kernels_and_by_burns_operations() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let logits = leaf([6, 5], &mut rng);
        let targets = burn::tensor::activation::softmax(leaf([6, 5], &mut rng).inner(), 1).autodiff();
        let gradient = |loss: &Tensor<1>| {
            let mut found = loss.clone().mul_scalar(3.0).backward();
            logits.grad_remove(&mut found).expect("a gradient")
        };
        let ours = soft_cross_entropy(logits.clone(), targets.clone(), 5.0);
        let theirs = primitive::soft_cross_entropy(logits.clone(), targets.clone(), 5.0);
        same(gradient(&ours), gradient(&theirs));
        same(ours, theirs);
        let ours = mean_squared_error(logits.clone(), targets.clone());
        let theirs = (logits.clone() - targets).square().mean();
        same(gradient(&ours), gradient(&theirs));
        same(ours, theirs);
    }
}
