//! The denoising autoencoder of rows: `[batch, 1, 1, features]` in `[0, 1]` to the same, without the perturbation.
//!
//! x → hidden → latent → hidden → residual r; D(x) = clip(x − r). It predicts the residual (Tripathi 2021), so that what is not noise need not pass the latent. A detection head
//! on the hidden units, and on the size of the residual, tells which rows were perturbed on purpose.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::Dense;
use serde::{Deserialize, Serialize};

use super::network::centred;
use super::scale::InputScale;
use crate::error::Result;
use crate::network::layers::{dense, dense_of_gain};
use crate::network::weights::{WeightFile, save};
use crate::network::{Denoised, LogOdds};
use crate::rng::{Rng, Seed};

/// Everything that fixes an autoencoder's shape; stored with its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorAutoencoderSpec {
    /// How features are scaled before, and centred inside.
    pub inputs: InputScale,
    /// Units of the hidden layers.
    pub hidden: usize,
    /// Length of the latent vector.
    pub latent: usize,
}

impl VectorAutoencoderSpec {
    /// A network with fresh He-normal weights on `device`.
    pub fn init(&self, device: &Device, rng: &mut Rng) -> VectorAutoencoder {
        let features = self.inputs.names.len();
        let widths = [features, self.hidden, self.latent, self.hidden];
        let layers = widths.windows(2).map(|pair| dense(pair[0], pair[1], device, rng).relu()).collect();
        // It starts near the identity; at zero weights no gradient would come through to the other layers.
        let residual = dense_of_gain([self.hidden, features], FIRST_RESIDUAL, device, rng);
        let head = LogOdds::new(2 * self.hidden + self.latent + SIZES, device, rng);
        VectorAutoencoder { layers, residual, head, centre: self.inputs.centre.clone() }
    }
}

/// The residual in units of the last layer's output: that of the autoencoder of images.
const RESIDUAL_SCALE: f64 = 0.2;

/// Gain of the last layer's first weights.
const FIRST_RESIDUAL: f64 = 0.1;

/// Numbers that say how large a residual is: its mean and its largest absolute value.
const SIZES: usize = 2;

/// An autoencoder in training; see [`VectorAutoencoderSpec::init`].
#[derive(Module, Debug)]
pub struct VectorAutoencoder {
    /// To hidden, to latent, to hidden.
    layers: Vec<Dense>,
    residual: Dense,
    head: LogOdds,
    #[module(skip)]
    centre: Vec<[f32; 2]>,
}

impl VectorAutoencoder {
    /// Reconstructions before they are clipped to `[0, 1]`, as the loss sees them, and the detection head's log-odds.
    pub fn forward(&self, rows: Tensor<4>) -> Denoised {
        let shape = rows.dims();
        let mut seen = Vec::with_capacity(self.layers.len() + 1);
        let mut units = centred(rows.clone(), &self.centre);
        for layer in &self.layers {
            units = layer.forward(units);
            seen.push(units.clone());
        }
        let residual = self.residual.forward(units);
        let size = residual.clone().abs();
        seen.extend([size.clone().mean_dim(1), size.max_dim(1)]);
        let logits = self.head.forward(Tensor::cat(seen, 1));
        let residual = residual.mul_scalar(RESIDUAL_SCALE).reshape(shape);
        Denoised { reconstructions: rows - residual, logits }
    }
}

/// A finished autoencoder.
#[derive(Clone, Debug)]
pub struct TrainedVectorAutoencoder {
    network: VectorAutoencoder,
    spec: VectorAutoencoderSpec,
    device: Device,
}

impl TrainedVectorAutoencoder {
    const KIND: &str = "vector-autoencoder";

    /// Freezes a network that finished training.
    pub fn freeze(network: &VectorAutoencoder, spec: VectorAutoencoderSpec, device: &Device) -> Self {
        Self { network: network.valid(), spec, device: device.clone().without_autodiff() }
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// D(x) of `[batch, 1, 1, features]`, clipped to `[0, 1]`, and the detection head's log-odds.
    pub fn denoise(&self, rows: Tensor<4>) -> Denoised {
        let Denoised { reconstructions, logits } = self.network.forward(rows);
        Denoised { reconstructions: reconstructions.clamp(0.0, 1.0), logits }
    }

    /// Writes weights and spec as safetensors, atomically; same weights, same bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        save(path, &self.network, Self::KIND, &self.spec)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let file = WeightFile::open(path)?;
        let spec: VectorAutoencoderSpec = file.spec(Self::KIND)?;
        let network = file.apply(spec.init(&device, &mut Seed::new(0).rng("shape only")))?;
        Ok(Self { network: network.valid(), spec, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::values;
    use crate::testing::uniform;

    #[test]
    fn reconstructions_stay_in_the_box_and_survive_the_disk() {
        let names: Vec<String> = (0..5).map(|feature| feature.to_string()).collect();
        let centre = vec![[0.5, 4.0]; 5];
        let inputs = InputScale { names, low: vec![0.0; 5], high: vec![1.0; 5], centre };
        let spec = VectorAutoencoderSpec { inputs, hidden: 8, latent: 3 };
        let network = spec.init(&Device::flex(), &mut Seed::new(2).rng("weights"));
        let model = TrainedVectorAutoencoder::freeze(&network, spec, &Device::flex());
        let rows = uniform([7, 1, 1, 5], 0.0, 1.0, 1);
        let found = model.denoise(rows.clone());
        assert_eq!((found.reconstructions.dims(), found.logits.dims()), ([7, 1, 1, 5], [7]));
        let before = values(found.reconstructions).expect("values");
        assert!(before.iter().all(|value| (0.0..=1.0).contains(value)), "{before:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dae.safetensors");
        model.save(&path).expect("written");
        let again = TrainedVectorAutoencoder::load(&path, &Device::flex()).expect("read");
        assert_eq!(values(again.denoise(rows).reconstructions).expect("values"), before);
    }
}
