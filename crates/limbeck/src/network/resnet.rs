//! Residual trunk (He 2016) with basic blocks, for 8 to 18 layers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::Block;

use super::layers::conv_norm;
use crate::rng::Rng;

/// Blocks in each stage by depth: a block has two convolutions, stem and head add one layer each.
pub(super) fn stages(depth: usize) -> Option<&'static [usize]> {
    match depth {
        8 => Some(&[1, 1, 1]),
        10 => Some(&[1, 1, 1, 1]),
        14 => Some(&[2, 2, 2]),
        18 => Some(&[2, 2, 2, 2]),
        _ => None,
    }
}

/// Stem, then stages of width w, 2w, 4w(, 8w), each but the first halving the image; global average pool.
#[derive(Module, Debug)]
pub(super) struct ResNet {
    stem: Block,
    blocks: Vec<BasicBlock>,
}

impl ResNet {
    pub(super) fn new(stages: &[usize], width: usize, device: &Device, rng: &mut Rng) -> Self {
        let stem = conv_norm([3, width], 3, device, rng).relu();
        let mut channels = width;
        let mut blocks = Vec::new();
        for (stage, &count) in stages.iter().enumerate() {
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let out = width << stage;
                blocks.push(BasicBlock::new([channels, out], stride, device, rng));
                channels = out;
            }
        }
        Self { stem, blocks }
    }

    /// Length of the feature vector.
    pub(super) fn features(stages: &[usize], width: usize) -> usize {
        width << (stages.len() - 1)
    }

    /// `[batch, h, w, 3]` to `[batch, features]`.
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x));
        x.mean_dims(&[1, 2]).flatten(1, 3)
    }
}

#[derive(Module, Debug)]
struct BasicBlock {
    first: Block,
    second: Block,
    projection: Option<Block>,
}

impl BasicBlock {
    fn new(channels: [usize; 2], stride: usize, device: &Device, rng: &mut Rng) -> Self {
        let [inputs, outputs] = channels;
        Self {
            first: conv_norm(channels, 3, device, rng).stride(stride).relu(),
            second: conv_norm([outputs, outputs], 3, device, rng).relu(),
            projection: (inputs != outputs || stride != 1)
                .then(|| conv_norm(channels, 1, device, rng).stride(stride)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.projection {
            Some(projection) => projection.forward(x.clone()),
            None => x.clone(),
        };
        self.second.forward_add(self.first.forward(x), shortcut)
    }
}
