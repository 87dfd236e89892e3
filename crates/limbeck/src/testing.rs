//! Small sets and models for the tests of several rooms.

use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng as _;

use crate::dataset::{Dataset, ImageSize, Sample};
use crate::network::{
    Architecture, AutoencoderSpec, ClassifierSpec, Model, Normalisation, TrainedAutoencoder,
    TrainedClassifier, Views,
};
use crate::rng::Seed;

/// Images of `classes` classes that a small network tells apart: each class has its own bright corner block, under noise.
pub(crate) fn blocks(images: usize, classes: usize, seed: u64) -> Dataset {
    let mut rng = Seed::new(seed).rng("blocks");
    let size = ImageSize { width: 8, height: 8 };
    let mut pixels = Vec::new();
    let mut samples = Vec::new();
    for image in 0..images {
        let class = image % classes;
        let start = pixels.len();
        for channel in 0..3 {
            for y in 0..8usize {
                for x in 0..8usize {
                    let bright = (y / 4) * 2 + x / 4 == class % 4 && (class / 4 == 0 || channel == class % 3);
                    let base: i32 = if bright { 170 } else { 70 };
                    pixels.push((base + rng.random_range(-40..40)) as u8);
                }
            }
        }
        samples.push(Sample::new(format!("image-{image}"), class as u32, None, &pixels[start..]));
    }
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    Dataset::from_images(samples, names, size, pixels).expect("the parts fit")
}

/// A spec that trains in a moment on [`blocks`].
pub(crate) fn tiny_spec(architecture: Architecture, classes: usize, temperature: f64) -> ClassifierSpec {
    ClassifierSpec {
        architecture,
        width: 4,
        hidden: 8,
        dropout: 0.2,
        classes: (0..classes).map(|class| format!("class {class}")).collect(),
        image_size: [8, 8],
        normalisation: Normalisation::default(),
        temperature,
        outlier: false,
        views: Views::One,
    }
}

/// A classifier with its first random weights.
pub(crate) fn untrained(spec: ClassifierSpec, seed: u64) -> TrainedClassifier {
    let network = spec.init(&Device::flex(), &mut Seed::new(seed).rng("weights")).expect("the spec fits");
    TrainedClassifier::freeze(&network, spec, &Device::flex())
}

/// An autoencoder with its first random weights.
pub(crate) fn untrained_autoencoder(spec: AutoencoderSpec, seed: u64) -> TrainedAutoencoder {
    let network = spec.init(&Device::flex(), &mut Seed::new(seed).rng("weights")).expect("the spec fits");
    TrainedAutoencoder::freeze(&network, spec, &Device::flex())
}

/// Random values in `[low, high)` as a tensor.
pub(crate) fn uniform<const D: usize>(shape: [usize; D], low: f32, high: f32, seed: u64) -> Tensor<D> {
    let mut rng = Seed::new(seed).rng("uniform");
    let values = (0..shape.iter().product()).map(|_| rng.random_range(low..high)).collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Two classes, logits (0, w · x): its loss gradient has a closed form.
pub(crate) struct LinearModel(pub(crate) Tensor<4>);

impl Model for LinearModel {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let second = (images * self.0.clone()).flatten::<2>(1, 3).sum_dim(1);
        Tensor::cat(vec![second.zeros_like(), second], 1)
    }

    fn device(&self) -> Device {
        Device::flex()
    }
}

/// Four classes, each logit a multiple of the mean of its corner: right on [`blocks`] of four classes, with a gradient in closed form.
pub(crate) struct Corners {
    gain: f32,
    rounded: bool,
}

impl Corners {
    /// A model without any defence.
    pub(crate) const PLAIN: Self = Self { gain: 10.0, rounded: false };

    /// The same behind logits cut to whole numbers, which have no gradient: masked, and no more robust.
    pub(crate) const MASKED: Self = Self { gain: 20.0, rounded: true };
}

impl Model for Corners {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        let rows = images.mean_dim(1).reshape([batch, 2, 4, 2, 4]);
        let means = rows.mean_dim(4).mean_dim(2).reshape([batch, 4]);
        let logits = means.mul_scalar(self.gain);
        if self.rounded { logits.round() } else { logits }
    }

    fn device(&self) -> Device {
        Device::flex()
    }
}
