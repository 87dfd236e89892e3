//! Some images of a batch: an attack goes on with those that still withstand it.

use burn::tensor::{Int, Tensor, TensorData};

use super::gradient::Logits;
use crate::error::Result;
use crate::network::Model;

/// The images at `rows`, in that order.
pub(crate) fn select<const D: usize>(images: &Tensor<D>, rows: &[usize]) -> Tensor<D> {
    let indices: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let indices = TensorData::new(indices, [rows.len()]);
    images.clone().select(0, Tensor::<1, Int>::from_data(indices, &images.device()))
}

/// `images` with those at `rows` replaced by `others`, in that order.
pub(crate) fn replace(images: Tensor<4>, rows: &[usize], others: Tensor<4>) -> Tensor<4> {
    let [batch, ..] = images.dims();
    if rows.is_empty() {
        return images;
    }
    let mut sources: Vec<usize> = (0..batch).collect();
    for (position, &row) in rows.iter().enumerate() {
        sources[row] = batch + position;
    }
    select(&Tensor::cat(vec![images, others], 0), &sources)
}

/// The elements at `rows`.
pub(super) fn pick<T: Copy>(items: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|&row| items[row]).collect()
}

/// Up to `restarts` attempts, each on the images that withstood all before; for each image the one that fools the model, else the one
/// that left its label the smallest lead.
///
/// `attempt` gets its number, the images and their labels, and proposes images that are already within the ball.
pub(super) fn restarted(
    restarts: usize,
    model: &dyn Model,
    images: &Tensor<4>,
    labels: &[u32],
    mut attempt: impl FnMut(usize, &Tensor<4>, &[u32]) -> Result<Tensor<4>>,
) -> Result<Tensor<4>> {
    let mut best = attempt(0, images, labels)?;
    if restarts < 2 {
        return Ok(best);
    }
    let mut margins = Logits::of(model, best.clone(), labels)?.margins(labels);
    for number in 1..restarts {
        let left: Vec<usize> = (0..labels.len()).filter(|&row| margins[row] >= 0.0).collect();
        if left.is_empty() {
            break;
        }
        let classes = pick(labels, &left);
        let proposal = attempt(number, &select(images, &left), &classes)?;
        let found = Logits::of(model, proposal.clone(), &classes)?.margins(&classes);
        let better: Vec<usize> = (0..left.len()).filter(|&at| found[at] < margins[left[at]]).collect();
        better.iter().for_each(|&at| margins[left[at]] = found[at]);
        best = replace(best, &pick(&left, &better), select(&proposal, &better));
    }
    Ok(best)
}
