//! Views: copies of an image, each moved by a pixel, over which a finished classifier takes the mean of its logits.
//!
//! A max pool answers a shift of one pixel with other features (Zhang 2019, "Making convolutional networks shift-invariant again", ICML); the mean over shifts does so less, and a perturbation
//! has to lead away from the class in all of them. It is a part of the network: gradients flow through every view, so that an attack on it is an attack on the mean.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which copies of an image a classifier looks at; answers cost as many times one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Views {
    /// The image alone.
    #[default]
    One,
    /// Two: the image, and moved by a pixel down and right: each pixel falls into both phases of the first pooling, in both directions.
    Diagonal,
    /// Five: the image, and moved by a pixel up, down, left and right.
    Cross,
    /// Nine: the image, and moved by a pixel in all eight directions.
    Square,
}

impl Views {
    /// Rows and columns by which each view is moved down and right.
    fn shifts(self) -> &'static [[isize; 2]] {
        const SHIFTS: [[isize; 2]; 9] =
            [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [-1, 1], [1, -1], [1, 1]];
        match self {
            Self::One => &SHIFTS[..1],
            Self::Diagonal => &[[0, 0], [1, 1]],
            Self::Cross => &SHIFTS[..5],
            Self::Square => &SHIFTS,
        }
    }

    /// How many they are.
    pub fn count(self) -> usize {
        self.shifts().len()
    }

    pub(crate) fn is_one(&self) -> bool {
        *self == Self::One
    }

    /// The mean of what `of` makes of each view of images `[batch, channels, height, width]`.
    pub(super) fn mean(self, images: Tensor<4>, of: impl Fn(Tensor<4>) -> Tensor<2>) -> Tensor<2> {
        self.means(images, |view| vec![of(view)]).pop().expect("a mean of each tensor")
    }

    /// The same where `of` makes several tensors of each view.
    pub(super) fn means(self, images: Tensor<4>, of: impl Fn(Tensor<4>) -> Vec<Tensor<2>>) -> Vec<Tensor<2>> {
        if self.is_one() {
            return of(images);
        }
        let views = self.shifts().iter().map(|&shift| of(moved(images.clone(), shift)));
        let sums = views
            .reduce(|sums, view| sums.into_iter().zip(view).map(|(a, b)| a + b).collect())
            .expect("there is a view");
        sums.into_iter().map(|sum| sum.div_scalar(self.count() as f64)).collect()
    }
}

/// Images moved down and right by so many pixels; what comes in repeats the edge.
fn moved(images: Tensor<4>, [down, right]: [isize; 2]) -> Tensor<4> {
    along(along(images, 2, down), 3, right)
}

fn along(images: Tensor<4>, axis: usize, by: isize) -> Tensor<4> {
    if by == 0 {
        return images;
    }
    let (side, pixels) = (images.dims()[axis], by.unsigned_abs());
    let (edge, kept) = if by > 0 { (0, 0) } else { (side - 1, pixels) };
    let kept = images.clone().narrow(axis, kept, side - pixels);
    let edge = vec![images.narrow(axis, edge, 1); pixels];
    let parts = if by > 0 { [edge, vec![kept]].concat() } else { [vec![kept], edge].concat() };
    Tensor::cat(parts, axis)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::tensors::values;

    #[test]
    fn a_moved_image_repeats_its_edge() {
        let image =
            Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &Device::flex()).reshape([1, 1, 2, 3]);
        let moved = |shift| values(moved(image.clone(), shift)).expect("values");
        assert_eq!(moved([0, 0]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(moved([1, 0]), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        assert_eq!(moved([-1, 0]), [4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
        assert_eq!(moved([0, 1]), [1.0, 1.0, 2.0, 4.0, 4.0, 5.0]);
        assert_eq!(moved([0, -1]), [2.0, 3.0, 3.0, 5.0, 6.0, 6.0]);
        assert_eq!(moved([1, -1]), [2.0, 3.0, 3.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn shifts_begin_with_the_image_itself_and_differ() {
        for (views, count) in [(Views::One, 1), (Views::Diagonal, 2), (Views::Cross, 5), (Views::Square, 9)] {
            let shifts = views.shifts();
            assert_eq!((views.count(), shifts[0]), (count, [0, 0]));
            assert!((0..count).all(|index| !shifts[..index].contains(&shifts[index])));
        }
    }
}
