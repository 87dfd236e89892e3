//! Residual trunk (He 2016) with basic blocks, for 8 to 18 layers.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::layers::ConvBlock;
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
    stem: ConvBlock,
    blocks: Vec<BasicBlock>,
}

impl ResNet {
    pub(super) fn new(stages: &[usize], width: usize, device: &Device, rng: &mut Rng) -> Self {
        let stem = ConvBlock::new([3, width], 1, device, rng);
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

    /// `[batch, 3, h, w]` to `[batch, features]`.
    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x));
        x.mean_dims(&[2, 3]).flatten(1, 3)
    }
}

#[derive(Module, Debug)]
struct BasicBlock {
    first: ConvBlock,
    second: ConvBlock,
    projection: Option<ConvBlock>,
}

impl BasicBlock {
    fn new(channels: [usize; 2], stride: usize, device: &Device, rng: &mut Rng) -> Self {
        let [inputs, outputs] = channels;
        Self {
            first: ConvBlock::new(channels, stride, device, rng),
            second: ConvBlock::new([outputs, outputs], 1, device, rng),
            projection: (inputs != outputs || stride != 1)
                .then(|| ConvBlock::with_kernel(channels, 1, stride, device, rng)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.projection {
            Some(projection) => projection.forward_linear(x.clone()),
            None => x.clone(),
        };
        relu(self.second.forward_linear(self.first.forward(x)) + shortcut)
    }
}
