//! Small bridges between tensors and plain numbers.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// A float tensor's values in row-major order.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .into_data()
        .try_into_vec::<f32>()
        .map_err(|error| Error::Numeric { operation: "reading a tensor", found: format!("{error:?}") })
}

/// Index of the largest value of each row of `[batch, classes]`; the first of equals.
pub(crate) fn argmax(logits: Tensor<2>) -> Result<Vec<u32>> {
    let [_, classes] = logits.dims();
    Ok(values(logits)?
        .chunks_exact(classes)
        .map(|row| {
            let best = row
                .iter()
                .enumerate()
                .fold(0, |best, (index, value)| if *value > row[best] { index } else { best });
            best as u32
        })
        .collect())
}

/// Pixels in `[0, 1]` as images of this shape.
pub(crate) fn images(pixels: Vec<f32>, shape: [usize; 4], device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(pixels, shape), device)
}

/// Class labels as a tensor `[batch]`.
pub(crate) fn labels(labels: &[u32], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
    let count = labels.len();
    Tensor::from_data(TensorData::new(labels, [count]), device)
}

impl Dataset {
    /// Images at `indices` as `[indices, 3, height, width]` in `[0, 1]`.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Tensor<4>> {
        Ok(self.tensor(self.batch_f32(indices)?, indices.len(), device))
    }

    /// Pixels of `images` images of this set's size as a tensor.
    pub(crate) fn tensor(&self, pixels: Vec<f32>, images: usize, device: &Device) -> Tensor<4> {
        let shape = [images, 3, self.size().height as usize, self.size().width as usize];
        crate::tensors::images(pixels, shape, device)
    }

    /// Labels at `indices`.
    pub fn labels(&self, indices: &[usize]) -> Vec<u32> {
        indices.iter().map(|&index| self.samples()[index].label).collect()
    }
}
