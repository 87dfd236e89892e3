//! A small VGG-like trunk (Simonyan & Zisserman 2015): three stages of two 3x3 blocks and a max pool.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::{Block, channels_first};

use super::layers::conv_norm;
use crate::rng::Rng;

/// Blocks of widths w, 2w, 4w; `[batch, h, w, 3]` to `[batch, 4w · h/8 · w/8]`.
#[derive(Module, Debug)]
pub(super) struct Vgg {
    blocks: Vec<Block>,
}

impl Vgg {
    pub(super) fn new(width: usize, device: &Device, rng: &mut Rng) -> Self {
        let widths = [width, 2 * width, 4 * width];
        let mut channels = 3;
        let blocks = widths
            .into_iter()
            .flat_map(|width| [(width, false), (width, true)])
            .map(|(width, ends_stage)| {
                let block = conv_norm([channels, width], 3, device, rng).relu();
                channels = width;
                if ends_stage { block.pool() } else { block }
            })
            .collect();
        Self { blocks }
    }

    /// Length of the feature vector for images of this size.
    pub(super) fn features(width: usize, [image_height, image_width]: [usize; 2]) -> usize {
        4 * width * (image_height / 8) * (image_width / 8)
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let last = self.blocks.iter().fold(images, |x, block| block.forward(x));
        channels_first(last).flatten(1, 3)
    }
}
