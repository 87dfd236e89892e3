//! A small VGG-like trunk (Simonyan & Zisserman 2015): three stages of two 3x3 blocks and a max pool.

use burn::module::Module;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};

use super::layers::ConvBlock;
use crate::rng::Rng;

/// Blocks of widths w, 2w, 4w; `[batch, 3, h, w]` to `[batch, 4w · h/8 · w/8]`.
#[derive(Module, Debug)]
pub(super) struct Vgg {
    blocks: Vec<ConvBlock>,
}

impl Vgg {
    pub(super) fn new(width: usize, device: &Device, rng: &mut Rng) -> Self {
        let widths = [width, 2 * width, 4 * width];
        let mut channels = 3;
        let blocks = widths
            .into_iter()
            .flat_map(|width| [width, width])
            .map(|width| {
                let block = ConvBlock::new([channels, width], 1, device, rng);
                channels = width;
                block
            })
            .collect();
        Self { blocks }
    }

    /// Length of the feature vector for images of this size.
    pub(super) fn features(width: usize, [image_height, image_width]: [usize; 2]) -> usize {
        4 * width * (image_height / 8) * (image_width / 8)
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.blocks
            .chunks(2)
            .fold(images, |x, stage| {
                let x = stage.iter().fold(x, |x, block| block.forward(x));
                max_pool2d(x, MaxPoolOptions::new([2, 2]))
            })
            .flatten(1, 3)
    }
}
