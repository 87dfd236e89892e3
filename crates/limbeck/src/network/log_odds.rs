//! One number from features: a detection head on an autoencoder's trunk, or a small network of its own.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use limbeck_kernels::Dense;
use serde::{Deserialize, Serialize};

use super::layers::dense;
use super::weights;
use crate::error::{Error, Result};
use crate::rng::{Rng, Seed};
use crate::tensors::values;

/// Log-odds from features by one hidden layer: a detection head.
#[derive(Module, Debug)]
pub(crate) struct LogOdds {
    hidden: Dense,
    output: Dense,
}

/// Units of the hidden layer.
const HIDDEN: usize = 32;

impl LogOdds {
    /// With fresh weights.
    pub(crate) fn new(features: usize, device: &Device, rng: &mut Rng) -> Self {
        Self { hidden: dense(features, HIDDEN, device, rng).relu(), output: dense(HIDDEN, 1, device, rng) }
    }

    /// `[batch, features]` to `[batch]`.
    pub(crate) fn forward(&self, features: Tensor<2>) -> Tensor<1> {
        self.output.forward(self.hidden.forward(features)).flatten(0, 1)
    }
}

/// What features are standardised with: of each, its mean and the reciprocal of its standard deviation (0 where it never varies).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Standard(Vec<[f32; 2]>);

impl Standard {
    /// No further from the mean than this many standard deviations is an input: what was never seen is not to shout.
    const FURTHEST: f32 = 5.0;

    /// Of rows of so many features each.
    pub(crate) fn of(rows: &[f32], features: usize) -> Self {
        let count = (rows.len() / features) as f32;
        let of = |feature: usize| {
            let column = || rows.iter().skip(feature).step_by(features);
            let mean = column().sum::<f32>() / count;
            let variance = column().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
            [mean, if variance > 0.0 { variance.sqrt().recip() } else { 0.0 }]
        };
        Self((0..features).map(of).collect())
    }

    /// Features in a row.
    pub(crate) fn features(&self) -> usize {
        self.0.len()
    }

    /// Standardises rows in place.
    pub(crate) fn apply(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.features()) {
            for (value, [mean, scale]) in row.iter_mut().zip(&self.0) {
                *value = ((*value - mean) * scale).clamp(-Self::FURTHEST, Self::FURTHEST);
            }
        }
    }
}

/// A finished network of its own, with what its features are standardised with.
#[derive(Clone, Debug)]
pub(crate) struct TrainedLogOdds {
    network: LogOdds,
    standard: Standard,
    device: Device,
}

impl TrainedLogOdds {
    const KIND: &str = "log-odds";

    /// Freezes a network that finished training on features that were standardised so.
    pub(crate) fn freeze(network: &LogOdds, standard: Standard, device: &Device) -> Self {
        Self { network: network.valid(), standard, device: device.clone().without_autodiff() }
    }

    /// Of rows of features as they are, one after the other.
    pub(crate) fn log_odds(&self, mut rows: Vec<f32>) -> Result<Vec<f64>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        self.standard.apply(&mut rows);
        let features = self.standard.features();
        let inputs = Tensor::<1>::from_floats(&rows[..], &self.device);
        let found = self.network.forward(inputs.reshape([rows.len() / features, features]));
        Ok(values(found)?.into_iter().map(f64::from).collect())
    }

    /// Writes weights and standardisation as safetensors, atomically; same weights, same bytes.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        weights::save(path, &self.network, Self::KIND, &self.standard)
    }

    /// Reads what [`save`](Self::save) wrote, of rows of so many features.
    pub(crate) fn load(path: &Path, features: usize, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let file = weights::WeightFile::open(path)?;
        let standard: Standard = file.spec(Self::KIND)?;
        if standard.features() != features {
            let found = format!("a network of {} features", standard.features());
            return Err(Error::artefact(path, found, format!("{features} features")));
        }
        let network = file.apply(LogOdds::new(features, &device, &mut Seed::new(0).rng("shape only")))?;
        Ok(Self { network: network.valid(), standard, device })
    }
}
