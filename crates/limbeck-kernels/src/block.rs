//! The module that networks are built of, and the free operations beside it.

use burn::backend::{Dispatch, DispatchDevice};
use burn::module::{Module, Param};
use burn::nn::BatchNorm;
use burn::tensor::Tensor;
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::module::{batch_norm_train, conv2d, interpolate, max_pool2d};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};

use crate::cpu::{Finish, Sampling};
use crate::extension::{Blocks, Spec};

/// Convolution, bias or batch norm, residual, ReLU, 2x2 max pool, on channels-last images `[images, height, width, channels]`.
///
/// In training (a module on an autodiff device) batch norm takes the statistics of the batch and moves its running ones; otherwise
/// (after [`Module::valid`]) it is folded into weight and bias.
#[derive(Module, Debug)]
pub struct Block {
    /// `[outputs, inputs, k, k]`.
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    norm: Option<BatchNorm>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    finish: Finish,
}

impl Block {
    /// With a bias `[outputs]` for each output channel.
    pub fn with_bias(weight: Param<Tensor<4>>, bias: Param<Tensor<1>>) -> Self {
        Self { weight, bias: Some(bias), norm: None, stride: 1, finish: Finish::default() }
    }

    /// With batch norm (Ioffe & Szegedy 2015).
    pub fn with_norm(weight: Param<Tensor<4>>, norm: BatchNorm) -> Self {
        Self { weight, bias: None, norm: Some(norm), stride: 1, finish: Finish::default() }
    }

    /// Step between outputs, 1 or 2.
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Ends with a ReLU.
    pub fn relu(mut self) -> Self {
        self.finish.relu = true;
        self
    }

    /// Ends with 2x2 maxima; an odd last row or column is left out.
    pub fn pool(mut self) -> Self {
        self.finish.pool = true;
        self
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// The block on one input.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let sampling = self.sampling();
        self.run([(input, sampling)].into(), None)
    }

    /// The block with a residual `[images, height, width, outputs]` added before the ReLU (He 2016).
    ///
    /// A block with a residual has no pool.
    pub fn forward_add(&self, input: Tensor<4>, residual: Tensor<4>) -> Tensor<4> {
        assert!(!self.finish.pool, "a residual block with a pool");
        let sampling = self.sampling();
        self.run([(input, sampling)].into(), Some(residual))
    }

    /// The block on the nearest-neighbour upsampling of its input by 2 (Odena 2016), at stride 1.
    pub fn forward_upsampled(&self, input: Tensor<4>) -> Tensor<4> {
        self.run([(input, Sampling::Upsampled)].into(), None)
    }

    /// The block on the channels of an upsampled input and of one of twice its size, in this order: a U-Net's decoder.
    pub fn forward_joined(&self, coarse: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let sampling = self.sampling();
        self.run([(coarse, Sampling::Upsampled), (skip, sampling)].into(), None)
    }

    fn sampling(&self) -> Sampling {
        Sampling::Kernel { size: self.weight.dims()[2], stride: self.stride }
    }

    fn run(&self, inputs: Vec<(Tensor<4>, Sampling)>, residual: Option<Tensor<4>>) -> Tensor<4> {
        let weight = self.weight.val();
        match (&self.bias, &self.norm) {
            (_, Some(norm)) if weight.device().is_autodiff() => {
                let normed = normed(
                    inputs,
                    residual,
                    weight,
                    norm.gamma.val(),
                    norm.beta.val(),
                    norm.epsilon,
                    self.finish,
                );
                let moved = |running: Tensor<1>, batch: Tensor<1>| {
                    running.mul_scalar(1.0 - norm.momentum).add(batch.detach().mul_scalar(norm.momentum))
                };
                norm.running_mean.update(moved(norm.running_mean.value_sync(), normed.mean).detach());
                norm.running_var.update(moved(norm.running_var.value_sync(), normed.variance).detach());
                normed.output
            }
            (_, Some(norm)) => {
                let deviation = norm.running_var.value().add_scalar(norm.epsilon).sqrt();
                let scale = norm.gamma.val().div(deviation);
                let bias = norm.beta.val().sub(norm.running_mean.value().mul(scale.clone()));
                let weight = weight.mul(scale.reshape([-1, 1, 1, 1]));
                biased(inputs, residual, weight, bias, self.finish)
            }
            (Some(bias), None) => biased(inputs, residual, weight, bias.val(), self.finish),
            (None, None) => {
                let bias = Tensor::zeros([self.outputs()], &weight.device());
                biased(inputs, residual, weight, bias, self.finish)
            }
        }
    }
}

/// 2x2 maxima `[images, height/2, width/2, channels]`; an odd last row or column is left out.
pub fn max_pool_2x2(input: Tensor<4>) -> Tensor<4> {
    if on_cpu(&input) {
        return Tensor::from_dispatch(<Dispatch as Blocks>::max_pool_2x2(input.into_dispatch()));
    }
    pixels(max_pool2d(planes(input), MaxPoolOptions::new([2, 2])))
}

/// `scale · value + shift` of each channel of `[images, channels, height, width]`, as `[images, height, width, channels]`.
pub fn channels_last(images: Tensor<4>, scale: &[f32], shift: &[f32]) -> Tensor<4> {
    if on_cpu(&images) {
        let images = images.into_dispatch();
        return Tensor::from_dispatch(<Dispatch as Blocks>::scaled_channels_last(
            images,
            scale.to_vec(),
            shift.to_vec(),
        ));
    }
    let device = images.device();
    let row = |values: &[f32]| Tensor::<1>::from_floats(values, &device).reshape([1, 1, 1, values.len()]);
    images.permute([0, 2, 3, 1]) * row(scale) + row(shift)
}

/// `[images, height, width, channels]` as `[images, channels, height, width]`.
pub fn channels_first(images: Tensor<4>) -> Tensor<4> {
    if on_cpu(&images) {
        return Tensor::from_dispatch(<Dispatch as Blocks>::squashed_channels_first(
            images.into_dispatch(),
            false,
        ));
    }
    planes(images)
}

/// The logistic function 1 / (1 + exp(−x)) of `[images, height, width, channels]`, as `[images, channels, height, width]`.
pub fn sigmoid_channels_first(images: Tensor<4>) -> Tensor<4> {
    if on_cpu(&images) {
        return Tensor::from_dispatch(<Dispatch as Blocks>::squashed_channels_first(
            images.into_dispatch(),
            true,
        ));
    }
    planes(sigmoid(images))
}

/// Channels-last to planes, as a view.
fn planes(images: Tensor<4>) -> Tensor<4> {
    images.permute([0, 3, 1, 2])
}

/// Planes to channels-last, as a view.
fn pixels(images: Tensor<4>) -> Tensor<4> {
    images.permute([0, 2, 3, 1])
}

/// Whether the own kernels run here; elsewhere a block is made of Burn's primitives.
pub(crate) fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().inner();
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The tensor that stands where an operation has none.
fn nothing(like: &Tensor<4>) -> Tensor<4> {
    Tensor::zeros([1, 1, 1, 1], &like.device())
}

type Inputs = Vec<(Tensor<4>, Sampling)>;

/// Tensors of an operation in its order, and what it does.
fn operands(
    inputs: Inputs,
    residual: Option<Tensor<4>>,
    finish: Finish,
    epsilon: f64,
) -> ([Tensor<4>; 3], Spec) {
    let mut inputs = inputs.into_iter();
    let (input, first) = inputs.next().expect("a block has an input");
    let second = inputs.next();
    let spec = Spec {
        first,
        second: second.as_ref().map(|(_, sampling)| *sampling),
        residual: residual.is_some(),
        finish,
        epsilon,
    };
    let nothing = nothing(&input);
    let second = second.map_or_else(|| nothing.clone(), |(input, _)| input);
    ([input, second, residual.unwrap_or(nothing)], spec)
}

fn biased(
    inputs: Inputs,
    residual: Option<Tensor<4>>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    finish: Finish,
) -> Tensor<4> {
    if !on_cpu(&weight) {
        return primitive::biased(inputs, residual, weight, bias, finish);
    }
    let ([first, second, residual], spec) = operands(inputs, residual, finish, 0.0);
    Tensor::from_dispatch(<Dispatch as Blocks>::biased_block(
        first.into_dispatch(),
        second.into_dispatch(),
        residual.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        spec,
    ))
}

/// A block's output in training, with the batch's mean and biased variance.
struct Normed {
    output: Tensor<4>,
    mean: Tensor<1>,
    variance: Tensor<1>,
}

fn normed(
    inputs: Inputs,
    residual: Option<Tensor<4>>,
    weight: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    finish: Finish,
) -> Normed {
    if !on_cpu(&weight) {
        return primitive::normed(inputs, residual, weight, gamma, beta, epsilon, finish);
    }
    let ([first, second, residual], spec) = operands(inputs, residual, finish, epsilon);
    let (output, mean, variance) = <Dispatch as Blocks>::normed_block(
        first.into_dispatch(),
        second.into_dispatch(),
        residual.into_dispatch(),
        weight.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        spec,
    );
    Normed {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

/// The same in Burn's own operations, for devices that the kernels do not run on.
mod primitive {
    use super::*;

    fn convolution(inputs: Inputs, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let [_, _, kernel, _] = weight.dims();
        let mut step = 1;
        let inputs: Vec<Tensor<4>> = inputs
            .into_iter()
            .map(|(input, sampling)| {
                let input = planes(input);
                match sampling {
                    Sampling::Kernel { stride, .. } => {
                        step = stride;
                        input
                    }
                    Sampling::Upsampled => {
                        let [_, _, height, width] = input.dims();
                        let options = InterpolateOptions::new(InterpolateMode::Nearest);
                        interpolate(input, options.with_output_size([2 * height, 2 * width]))
                    }
                }
            })
            .collect();
        let pad = kernel / 2;
        conv2d(Tensor::cat(inputs, 1), weight, bias, ConvOptions::new([step, step], [pad, pad], [1, 1], 1))
    }

    fn finished(output: Tensor<4>, residual: Option<Tensor<4>>, finish: Finish) -> Tensor<4> {
        let output = match residual {
            Some(residual) => output + planes(residual),
            None => output,
        };
        let output = if finish.relu { relu(output) } else { output };
        let output = if finish.pool { max_pool2d(output, MaxPoolOptions::new([2, 2])) } else { output };
        pixels(output)
    }

    pub(super) fn biased(
        inputs: Inputs,
        residual: Option<Tensor<4>>,
        weight: Tensor<4>,
        bias: Tensor<1>,
        finish: Finish,
    ) -> Tensor<4> {
        finished(convolution(inputs, weight, Some(bias)), residual, finish)
    }

    pub(super) fn normed(
        inputs: Inputs,
        residual: Option<Tensor<4>>,
        weight: Tensor<4>,
        gamma: Tensor<1>,
        beta: Tensor<1>,
        epsilon: f64,
        finish: Finish,
    ) -> Normed {
        let result = batch_norm_train(convolution(inputs, weight, None), gamma, beta, epsilon);
        Normed {
            output: finished(result.output, residual, finish),
            mean: result.mean,
            variance: result.variance,
        }
    }
}

#[cfg(test)]
mod tests;
