//! Dense layers and losses.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients as Graph;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use super::{buffer, floats, shape, tensor};
use crate::cpu::{self, Isa, Matrix};

/// Fused operations on rows of values, and means over them.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait DenseLayers: Backend {
    /// `relu?(values · weight + bias)`: `[rows, inputs]`, `[inputs, outputs]`, `[outputs]` to `[rows, outputs]`.
    fn dense(
        values: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// Mean over rows of CE(p, softmax(z/T)) of targets p and logits z `[rows, classes]`, of one element; no gradient to the targets.
    fn soft_cross_entropy(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        temperature: f64,
    ) -> FloatTensor<Self>;

    /// Mean of squared differences, of one element; no gradient to the targets.
    fn squared_error(values: FloatTensor<Self>, targets: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl DenseLayers for Flex {
    fn dense(values: FlexTensor, weight: FlexTensor, bias: FlexTensor, relu: bool) -> FlexTensor {
        let [values, weight, bias] = [values, weight, bias].map(|tensor| tensor.to_contiguous());
        let [rows, inputs] = shape(&values);
        let [of, outputs] = shape(&weight);
        assert_eq!(inputs, of, "rows of {inputs} values for a layer of {of} inputs");
        let matrix = Matrix::new(floats(&weight), inputs, outputs, 1.0);
        let result = cpu::dense(Isa::best(), floats(&values), &matrix, floats(&bias), relu);
        buffer(result, vec![rows, outputs])
    }

    fn soft_cross_entropy(logits: FlexTensor, targets: FlexTensor, temperature: f64) -> FlexTensor {
        cross_entropy(logits, targets, temperature).0
    }

    fn squared_error(values: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let [values, targets] = [values, targets].map(|tensor| tensor.to_contiguous());
        let sum = cpu::squared_error(Isa::best(), floats(&values), floats(&targets));
        scalar(sum / floats(&values).len() as f64)
    }
}

/// The loss and its gradient to the logits.
fn cross_entropy(logits: FlexTensor, targets: FlexTensor, temperature: f64) -> (FlexTensor, FlexTensor) {
    let [logits, targets] = [logits, targets].map(|tensor| tensor.to_contiguous());
    let [rows, classes] = shape(&logits);
    let (sum, mut gradient) =
        cpu::soft_cross_entropy(floats(&logits), floats(&targets), classes, temperature);
    gradient.iter_mut().for_each(|slope| *slope /= rows as f32);
    (scalar(sum / rows as f64), tensor(gradient, vec![rows, classes]))
}

fn scalar(value: f64) -> FlexTensor {
    tensor(vec![value as f32], vec![1])
}

impl<C: CheckpointStrategy> DenseLayers for Autodiff<Flex, C> {
    fn dense(
        values: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Dense;
        impl Backward<Flex, 3> for Dense {
            /// Values, weight, and the output of a ReLU.
            type State = (FlexTensor, FlexTensor, Option<FlexTensor>);
            fn backward(self, ops: Ops<Self::State, 3>, graph: &mut Graph, _: &mut Checkpointer) {
                let gradient = graph.consume::<Flex>(&ops.node).to_contiguous();
                let (values, weight, output) = ops.state;
                let [to_values, to_weight, to_bias] = ops.parents;
                let [inputs, outputs] = shape(&weight);
                let found = cpu::dense_backward(
                    Isa::best(),
                    floats(&values),
                    floats(&weight),
                    [inputs, outputs],
                    output.as_ref().map(floats),
                    floats(&gradient),
                    to_values.is_some(),
                    to_weight.is_some() || to_bias.is_some(),
                );
                if let Some(parent) = to_values {
                    graph.register::<Flex>(parent.id, buffer(found.values, shape::<2>(&values).to_vec()));
                }
                if let Some(parent) = to_weight {
                    graph.register::<Flex>(parent.id, buffer(found.weight, vec![inputs, outputs]));
                }
                if let Some(parent) = to_bias {
                    graph.register::<Flex>(parent.id, tensor(found.bias, vec![outputs]));
                }
            }
        }
        let nodes = [values.node(), weight.node(), bias.node()];
        let preparation = Dense.prepare::<C>(nodes).compute_bound().stateful();
        let [values, weight] = [values, weight].map(|tensor| tensor.into_primitive().to_contiguous());
        let output = Flex::dense(values.clone(), weight.clone(), bias.into_primitive(), relu);
        match preparation {
            OpsKind::Tracked(preparation) => {
                preparation.finish((values, weight, relu.then(|| output.clone())), output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }

    fn soft_cross_entropy(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        temperature: f64,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SoftCrossEntropy;
        impl Backward<Flex, 1> for SoftCrossEntropy {
            type State = FlexTensor;
            fn backward(self, ops: Ops<FlexTensor, 1>, graph: &mut Graph, _: &mut Checkpointer) {
                let upstream = floats(&graph.consume::<Flex>(&ops.node).to_contiguous())[0];
                let [parent] = ops.parents;
                if let Some(parent) = parent {
                    let sides = shape::<2>(&ops.state).to_vec();
                    let scaled = floats(&ops.state).iter().map(|slope| upstream * slope).collect();
                    graph.register::<Flex>(parent.id, tensor(scaled, sides));
                }
            }
        }
        let preparation = SoftCrossEntropy.prepare::<C>([logits.node()]).compute_bound().stateful();
        let (loss, gradient) = cross_entropy(logits.into_primitive(), targets.into_primitive(), temperature);
        match preparation {
            OpsKind::Tracked(preparation) => preparation.finish(gradient, loss),
            OpsKind::UnTracked(preparation) => preparation.finish(loss),
        }
    }

    fn squared_error(values: FloatTensor<Self>, targets: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SquaredError;
        impl Backward<Flex, 1> for SquaredError {
            type State = (FlexTensor, FlexTensor);
            fn backward(self, ops: Ops<Self::State, 1>, graph: &mut Graph, _: &mut Checkpointer) {
                let upstream = floats(&graph.consume::<Flex>(&ops.node).to_contiguous())[0];
                let ((values, targets), [parent]) = (ops.state, ops.parents);
                if let Some(parent) = parent {
                    let sides: Vec<usize> = values.layout().shape().iter().copied().collect();
                    let (values, targets) = (floats(&values), floats(&targets));
                    let scale = 2.0 * upstream / values.len() as f32;
                    let gradient = cpu::scaled_difference(Isa::best(), values, targets, scale);
                    graph.register::<Flex>(parent.id, buffer(gradient, sides));
                }
            }
        }
        let preparation = SquaredError.prepare::<C>([values.node()]).compute_bound().stateful();
        let [values, targets] = [values, targets].map(|tensor| tensor.into_primitive().to_contiguous());
        let loss = Flex::squared_error(values.clone(), targets.clone());
        match preparation {
            OpsKind::Tracked(preparation) => preparation.finish((values, targets), loss),
            OpsKind::UnTracked(preparation) => preparation.finish(loss),
        }
    }
}
