//! The kernels as operations of Burn's CPU backend, with their gradients.

mod blocks;
mod dense;

use burn::backend::flex::FlexTensor;
use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};

pub(crate) use blocks::{Blocks, Spec};
pub(crate) use dense::DenseLayers;

use crate::cpu::Buffer;

pub(crate) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous float tensor")
}

pub(crate) fn shape<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let sides: Vec<usize> = tensor.layout().shape().iter().copied().collect();
    sides.try_into().expect("a tensor of the operation's rank")
}

pub(crate) fn tensor(values: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// A tensor whose memory goes back to the pool with its last clone.
pub(crate) fn buffer(values: Buffer, shape: Vec<usize>) -> FlexTensor {
    let bytes = Bytes::from_shared(bytes::Bytes::from_owner(values), AllocationProperty::Native);
    FlexTensor::from_data(TensorData::from_bytes(bytes, shape, DType::F32))
}
