//! Convolution blocks, pooling and layouts.
//!
//! Tensors are channels-last. An operation has a fixed number of tensors, so an input, residual or factor that a call has no use
//! for is a [`nothing`](crate::block::nothing) of one element: a constant that [`Spec`] says to ignore.

use std::sync::Arc;

use super::{buffer, floats, shape, tensor};
use crate::cpu::{self, Buffer, Finish, Gradients, Isa, Plan, Precision, Sampling, Tail, Wanted, Winner};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients as Graph;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, backend_extension};

/// What a block does, beside its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// How the first input is read.
    pub(crate) first: Sampling,
    /// How the second input is read, when there is one.
    pub(crate) second: Option<Sampling>,
    /// Whether the residual is added.
    pub(crate) residual: bool,
    /// ReLU and pool.
    pub(crate) finish: Finish,
    /// Added to the variance of batch norm.
    pub(crate) epsilon: f64,
}

/// Fused operations on channels-last images.
///
/// `weight` is `[outputs, inputs, k, k]`, inputs and residual are `[images, height, width, channels]`.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait Blocks: Backend {
    /// `finish(convolution + bias + residual)`.
    fn biased_block(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: Spec,
    ) -> FloatTensor<Self>;

    /// `finish(batch norm(convolution) + residual)`, with mean and biased variance of the batch, both without gradient.
    fn normed_block(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// 2x2 maxima.
    fn max_pool_2x2(input: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `scale · value + shift` of each channel, from planes to channels-last.
    fn scaled_channels_last(images: FloatTensor<Self>, scale: Vec<f32>, shift: Vec<f32>)
    -> FloatTensor<Self>;

    /// From channels-last to planes, through the logistic function if `squash` is set.
    fn squashed_channels_first(images: FloatTensor<Self>, squash: bool) -> FloatTensor<Self>;
}

/// Inputs of a block, contiguous, and what the kernels need to know of them.
#[derive(Clone, Debug)]
struct Operands {
    inputs: [FlexTensor; 2],
    residual: FlexTensor,
    weight: FlexTensor,
    spec: Spec,
}

impl Operands {
    fn new(
        first: FlexTensor,
        second: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        spec: Spec,
    ) -> Self {
        let inputs = [first, second].map(|tensor| tensor.to_contiguous());
        Self { inputs, residual: residual.to_contiguous(), weight: weight.to_contiguous(), spec }
    }

    fn samplings(&self) -> impl Iterator<Item = (Sampling, &FlexTensor)> {
        [Some(self.spec.first), self.spec.second]
            .into_iter()
            .zip(&self.inputs)
            .filter_map(|(sampling, input)| Some((sampling?, input)))
    }

    fn plan(&self) -> Plan {
        let inputs: Vec<_> = self
            .samplings()
            .map(|(sampling, input)| {
                let [_, height, width, channels] = shape(input);
                (sampling, [height, width], channels)
            })
            .collect();
        let [outputs, _, _, _] = shape(&self.weight);
        Plan::new(&inputs, outputs, Precision::Fast)
    }

    fn images(&self) -> Vec<&[f32]> {
        self.samplings().map(|(_, input)| floats(input)).collect()
    }

    fn residual(&self) -> &[f32] {
        if self.spec.residual { floats(&self.residual) } else { &[] }
    }

    /// Shape of the block's output.
    fn output(&self, plan: &Plan) -> Vec<usize> {
        let [images, _, _, _] = shape(&self.inputs[0]);
        let [height, width] = plan.size;
        let step = if self.spec.finish.pool { 2 } else { 1 };
        vec![images, height / step, width / step, plan.outputs]
    }

    fn biased(&self, bias: &FlexTensor) -> (FlexTensor, Vec<Winner>) {
        let plan = self.plan();
        let bias = bias.to_contiguous();
        let result = cpu::forward_biased(
            Isa::best(),
            &plan,
            &self.images(),
            floats(&self.weight),
            floats(&bias),
            self.residual(),
            self.spec.finish,
        );
        (buffer(result.output, self.output(&plan)), result.winners)
    }

    fn normed(&self, gamma: &FlexTensor, beta: &FlexTensor) -> (FlexTensor, Statistics, Vec<Winner>) {
        let plan = self.plan();
        let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
        let result = cpu::forward_normed(
            Isa::best(),
            &plan,
            &self.images(),
            floats(&self.weight),
            [floats(&gamma), floats(&beta)],
            self.spec.epsilon,
            self.residual(),
            self.spec.finish,
        );
        let statistics =
            Statistics { convolved: result.convolved, mean: result.mean, variance: result.variance };
        (buffer(result.output, self.output(&plan)), statistics, result.winners)
    }
}

/// What batch norm's gradient needs beside its inputs.
#[derive(Debug)]
struct Statistics {
    convolved: Buffer,
    mean: Vec<f32>,
    variance: Vec<f32>,
}

/// What the backward pass of a block remembers.
#[derive(Clone, Debug)]
struct Memory {
    operands: Operands,
    output: FlexTensor,
    winners: Arc<Vec<Winner>>,
    /// Gamma and the batch's statistics, with batch norm.
    norm: Option<(FlexTensor, Arc<Statistics>)>,
}

impl Memory {
    fn gradients(&self, gradient: &FlexTensor, wanted: Wanted) -> Gradients {
        let (operands, plan) = (&self.operands, self.operands.plan());
        let Finish { relu, pool } = operands.spec.finish;
        let tail = match (relu, pool) {
            (_, true) => Tail::Pool(&self.winners),
            (true, false) => Tail::Relu(floats(&self.output)),
            (false, false) => Tail::Linear,
        };
        let (inputs, weight, isa) = (operands.images(), floats(&operands.weight), Isa::best());
        match &self.norm {
            None => cpu::backward_biased(isa, &plan, &inputs, weight, floats(gradient), tail, wanted),
            Some((gamma, statistics)) => cpu::backward_normed(
                isa,
                &plan,
                &inputs,
                weight,
                floats(gamma),
                operands.spec.epsilon,
                &statistics.convolved,
                [&statistics.mean, &statistics.variance],
                floats(gradient),
                tail,
                wanted,
            ),
        }
    }
}

/// Backward pass of a block whose parents are first input, second input, residual, weight, then bias or gamma and beta.
fn backward<const N: usize>(ops: Ops<Memory, N>, graph: &mut Graph) {
    let gradient = graph.consume::<Flex>(&ops.node).to_contiguous();
    let memory = ops.state;
    let asked: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
    let spec = memory.operands.spec;
    let wanted = Wanted {
        inputs: [asked[0], asked[1] && spec.second.is_some()],
        residual: asked[2] && spec.residual,
        weights: asked[3..].contains(&true),
    };
    let Gradients { inputs: [first, second], residual, weight, shift, scale } =
        memory.gradients(&gradient, wanted);
    let operands = memory.operands;
    let like = |tensor: &FlexTensor| tensor.layout().shape().iter().copied().collect::<Vec<_>>();
    let images = [first, second, residual]
        .into_iter()
        .zip([&operands.inputs[0], &operands.inputs[1], &operands.residual])
        .map(|(values, tensor)| (!values.is_empty()).then(|| buffer(values, like(tensor))));
    let factors = if memory.norm.is_some() { vec![scale, shift] } else { vec![shift] };
    let weights = std::iter::once((weight, like(&operands.weight)))
        .chain(factors.into_iter().map(|factor| {
            let length = vec![factor.len()];
            (factor, length)
        }))
        .map(|(values, shape)| (!values.is_empty()).then(|| tensor(values, shape)));
    for (parent, gradient) in ops.parents.into_iter().zip(images.chain(weights)) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            graph.register::<Flex>(parent.id, gradient);
        }
    }
}

impl Blocks for Flex {
    fn biased_block(
        first: FlexTensor,
        second: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        spec: Spec,
    ) -> FlexTensor {
        Operands::new(first, second, residual, weight, spec).biased(&bias).0
    }

    fn normed_block(
        first: FlexTensor,
        second: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        spec: Spec,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (output, statistics, _) =
            Operands::new(first, second, residual, weight, spec).normed(&gamma, &beta);
        let channels = vec![statistics.mean.len()];
        (output, tensor(statistics.mean, channels.clone()), tensor(statistics.variance, channels))
    }

    fn max_pool_2x2(input: FlexTensor) -> FlexTensor {
        pooled(&input).0
    }

    fn scaled_channels_last(images: FlexTensor, scale: Vec<f32>, shift: Vec<f32>) -> FlexTensor {
        let images = images.to_contiguous();
        let [count, channels, height, width] = shape(&images);
        let map = |channel: usize, _: usize, value: f32| scale[channel] * value + shift[channel];
        let result = cpu::channels_last(floats(&images), channels, height * width, map);
        buffer(result, vec![count, height, width, channels])
    }

    fn squashed_channels_first(images: FlexTensor, squash: bool) -> FlexTensor {
        let images = images.to_contiguous();
        let [count, height, width, channels] = shape(&images);
        let (values, pixels) = (floats(&images), height * width);
        let result = if squash {
            cpu::logistic_channels_first(Isa::best(), values, channels, pixels)
        } else {
            cpu::channels_first(values, channels, pixels, |_, value| value)
        };
        buffer(result, vec![count, channels, height, width])
    }
}

impl<C: CheckpointStrategy> Blocks for Autodiff<Flex, C> {
    fn biased_block(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: Spec,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Biased;
        impl Backward<Flex, 5> for Biased {
            type State = Memory;
            fn backward(self, ops: Ops<Memory, 5>, graph: &mut Graph, _: &mut Checkpointer) {
                backward(ops, graph);
            }
        }
        let nodes = [first.node(), second.node(), residual.node(), weight.node(), bias.node()];
        let preparation = Biased.prepare::<C>(nodes).compute_bound().stateful();
        let operands = Operands::new(
            first.into_primitive(),
            second.into_primitive(),
            residual.into_primitive(),
            weight.into_primitive(),
            spec,
        );
        let (output, winners) = operands.biased(&bias.into_primitive());
        match preparation {
            OpsKind::Tracked(preparation) => {
                let memory =
                    Memory { operands, output: output.clone(), winners: Arc::new(winners), norm: None };
                preparation.finish(memory, output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }

    fn normed_block(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct Normed;
        impl Backward<Flex, 6> for Normed {
            type State = Memory;
            fn backward(self, ops: Ops<Memory, 6>, graph: &mut Graph, _: &mut Checkpointer) {
                backward(ops, graph);
            }
        }
        let nodes = [first.node(), second.node(), residual.node(), weight.node(), gamma.node(), beta.node()];
        let preparation = Normed.prepare::<C>(nodes).compute_bound().stateful();
        let operands = Operands::new(
            first.into_primitive(),
            second.into_primitive(),
            residual.into_primitive(),
            weight.into_primitive(),
            spec,
        );
        let gamma = gamma.into_primitive().to_contiguous();
        let (output, statistics, winners) = operands.normed(&gamma, &beta.into_primitive());
        let channels = vec![statistics.mean.len()];
        let constant =
            |values: &[f32]| <Self as AutodiffBackend>::from_inner(tensor(values.to_vec(), channels.clone()));
        let (mean, variance) = (constant(&statistics.mean), constant(&statistics.variance));
        let output = match preparation {
            OpsKind::Tracked(preparation) => {
                let norm = Some((gamma, Arc::new(statistics)));
                let memory = Memory { operands, output: output.clone(), winners: Arc::new(winners), norm };
                preparation.finish(memory, output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        };
        (output, mean, variance)
    }

    fn max_pool_2x2(input: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct MaxPool;
        impl Backward<Flex, 1> for MaxPool {
            type State = (Vec<usize>, Arc<Vec<Winner>>);
            fn backward(self, ops: Ops<Self::State, 1>, graph: &mut Graph, _: &mut Checkpointer) {
                let gradient = graph.consume::<Flex>(&ops.node).to_contiguous();
                let (shape, winners) = ops.state;
                let [parent] = ops.parents;
                if let Some(parent) = parent {
                    let [height, width, channels] = [shape[1], shape[2], shape[3]];
                    let gradient = floats(&gradient);
                    let result =
                        cpu::max_pool_backward(Isa::best(), gradient, &winners, [height, width], channels);
                    graph.register::<Flex>(parent.id, buffer(result, shape));
                }
            }
        }
        let preparation = MaxPool.prepare::<C>([input.node()]).compute_bound().stateful();
        let input = input.into_primitive();
        let (output, winners) = pooled(&input);
        match preparation {
            OpsKind::Tracked(preparation) => {
                preparation.finish((shape::<4>(&input).to_vec(), Arc::new(winners)), output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }

    fn scaled_channels_last(
        images: FloatTensor<Self>,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ChannelsLast;
        impl Backward<Flex, 1> for ChannelsLast {
            type State = Vec<f32>;
            fn backward(self, ops: Ops<Self::State, 1>, graph: &mut Graph, _: &mut Checkpointer) {
                let gradient = graph.consume::<Flex>(&ops.node).to_contiguous();
                let (scale, [parent]) = (ops.state, ops.parents);
                if let Some(parent) = parent {
                    let [count, height, width, channels] = shape(&gradient);
                    let map = |channel: usize, value: f32| scale[channel] * value;
                    let result = cpu::channels_first(floats(&gradient), channels, height * width, map);
                    graph.register::<Flex>(parent.id, buffer(result, vec![count, channels, height, width]));
                }
            }
        }
        let preparation = ChannelsLast.prepare::<C>([images.node()]).compute_bound().stateful();
        let output = Flex::scaled_channels_last(images.into_primitive(), scale.clone(), shift);
        match preparation {
            OpsKind::Tracked(preparation) => preparation.finish(scale, output),
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }

    fn squashed_channels_first(images: FloatTensor<Self>, squash: bool) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ChannelsFirst;
        impl Backward<Flex, 1> for ChannelsFirst {
            type State = (FlexTensor, bool);
            fn backward(self, ops: Ops<Self::State, 1>, graph: &mut Graph, _: &mut Checkpointer) {
                let gradient = graph.consume::<Flex>(&ops.node).to_contiguous();
                let ((output, squash), [parent]) = (ops.state, ops.parents);
                if let Some(parent) = parent {
                    let [count, channels, height, width] = shape(&gradient);
                    let output = floats(&output);
                    let slope =
                        |index: usize| if squash { output[index] * (1.0 - output[index]) } else { 1.0 };
                    let map = |_: usize, index: usize, value: f32| slope(index) * value;
                    let result = cpu::channels_last(floats(&gradient), channels, height * width, map);
                    graph.register::<Flex>(parent.id, buffer(result, vec![count, height, width, channels]));
                }
            }
        }
        let preparation = ChannelsFirst.prepare::<C>([images.node()]).compute_bound().stateful();
        let output = Flex::squashed_channels_first(images.into_primitive(), squash);
        match preparation {
            OpsKind::Tracked(preparation) => preparation.finish((output.clone(), squash), output),
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

fn pooled(input: &FlexTensor) -> (FlexTensor, Vec<Winner>) {
    let input = input.to_contiguous();
    let [images, height, width, channels] = shape(&input);
    let (output, winners) = cpu::max_pool(Isa::best(), floats(&input), [height, width], channels);
    (buffer(output, vec![images, height / 2, width / 2, channels]), winners)
}
