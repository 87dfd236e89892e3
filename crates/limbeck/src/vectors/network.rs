//! The predictor: a multi-layer perceptron whose input is a row `[batch, 1, 1, features]` in `[0, 1]`.
//!
//! Features are centred inside the network, so that eps stays a share of a feature's range. Dropout is before the last layer alone: Monte Carlo passes share all
//! layers below it.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use limbeck_kernels::Dense;
use serde::{Deserialize, Serialize};

use super::scale::{AnswerScale, InputScale};
use crate::error::{Error, Result};
use crate::network::layers::dense;
use crate::network::weights::{WeightFile, save};
use crate::network::{Dropout, Model};
use crate::rng::{Rng, Seed};

/// Everything that fixes a predictor; stored with its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSpec {
    /// How features are scaled before, and centred inside.
    pub inputs: InputScale,
    /// What its outputs mean.
    pub answers: AnswerScale,
    /// Units of each hidden layer; none = a linear model.
    pub hidden: Vec<usize>,
    /// Dropout probability before the last layer.
    pub dropout: f64,
    /// Softmax temperature of its training (Papernot 2016); 1 for plain training and for every regression.
    pub temperature: f64,
}

impl MlpSpec {
    /// A network with fresh He-normal weights on `device`.
    pub fn init(&self, device: &Device, rng: &mut Rng) -> Mlp {
        let mut width = self.inputs.names.len();
        let mut trunk = Vec::with_capacity(self.hidden.len());
        for &units in &self.hidden {
            trunk.push(dense(width, units, device, rng).relu());
            width = units;
        }
        let output = dense(width, self.answers.outputs(), device, rng);
        Mlp { trunk, output, dropout: self.dropout, centre: self.inputs.centre.clone() }
    }
}

/// A predictor in training; see [`MlpSpec::init`].
#[derive(Module, Debug)]
pub struct Mlp {
    trunk: Vec<Dense>,
    output: Dense,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    centre: Vec<[f32; 2]>,
}

impl Mlp {
    /// Units `[batch, units]` below the last layer: the deterministic part.
    fn hidden(&self, rows: Tensor<4>) -> Tensor<2> {
        self.trunk.iter().fold(centred(rows, &self.centre), |x, layer| layer.forward(x))
    }

    /// Outputs `[batch, outputs]` in training, with dropout.
    pub fn train_outputs(&self, rows: Tensor<4>, rng: &mut Rng) -> Tensor<2> {
        self.output.forward(Dropout { probability: self.dropout }.each(self.hidden(rows), rng))
    }

    /// Outputs in inference (on a module that [`Module::valid`] returned).
    pub fn outputs(&self, rows: Tensor<4>) -> Tensor<2> {
        self.output.forward(self.hidden(rows))
    }
}

/// (x − mean) / deviation of rows `[batch, 1, 1, features]`, as `[batch, features]`.
pub(super) fn centred(rows: Tensor<4>, centre: &[[f32; 2]]) -> Tensor<2> {
    let [batch, ..] = rows.dims();
    let features = centre.len();
    let column = |part: usize| {
        let values: Vec<f32> = centre.iter().map(|centre| centre[part]).collect();
        Tensor::<2>::from_data(TensorData::new(values, [1, features]), &rows.device())
    };
    let [mean, scale] = [0, 1].map(column);
    (rows.reshape([batch, features]) - mean) * scale
}

/// A finished predictor: weights that no longer change, and the spec that shaped them.
#[derive(Clone, Debug)]
pub struct TrainedMlp {
    network: Mlp,
    spec: MlpSpec,
    device: Device,
}

impl TrainedMlp {
    const KIND: &str = "mlp";

    /// Freezes a network that finished training, or is in it.
    pub fn freeze(network: &Mlp, spec: MlpSpec, device: &Device) -> Self {
        Self { network: network.valid(), spec, device: device.clone().without_autodiff() }
    }

    /// What it was built from.
    pub fn spec(&self) -> &MlpSpec {
        &self.spec
    }

    /// Outputs `[batch, outputs]`: logits, or standardised values.
    pub fn outputs(&self, rows: Tensor<4>) -> Tensor<2> {
        self.network.outputs(rows)
    }

    /// Outputs of `passes` Monte Carlo dropout passes (Gal & Ghahramani 2016) over one run of the layers below.
    ///
    /// Each pass is one thinned network, drawn from `seed` and the same for every row.
    pub fn dropout_passes(&self, rows: Tensor<4>, passes: usize, seed: Seed) -> Vec<Tensor<2>> {
        let hidden = self.network.hidden(rows);
        let dropout = Dropout { probability: self.network.dropout };
        let [_, units] = hidden.dims();
        let kept: Vec<Vec<u32>> =
            (0..passes).map(|pass| dropout.kept(units, &mut seed.step(pass).rng("dropout"))).collect();
        self.network.output.thinned(dropout.factor()).forward(hidden, &kept)
    }

    /// Writes weights and spec as safetensors, atomically; same weights, same bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        save(path, &self.network, Self::KIND, &self.spec)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let file = WeightFile::open(path)?;
        let spec: MlpSpec = file.spec(Self::KIND)?;
        if !(spec.temperature.is_finite() && spec.temperature >= 1.0) {
            let found = format!("a temperature of {}", spec.temperature);
            return Err(Error::artefact(path, found, "a finite number, 1 or more"));
        }
        let network = file.apply(spec.init(&device, &mut Seed::new(0).rng("shape only")))?;
        Ok(Self { network: network.valid(), spec, device })
    }
}

impl Model for TrainedMlp {
    fn logits(&self, rows: Tensor<4>) -> Tensor<2> {
        self.outputs(rows)
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tensors::values;
    use crate::testing::uniform;

    /// A network of random weights over three features and two classes or one value.
    pub(in crate::vectors) fn small(hidden: &[usize], answers: AnswerScale) -> TrainedMlp {
        let inputs = InputScale {
            names: ["a", "b", "c"].map(str::to_owned).to_vec(),
            low: vec![0.0; 3],
            high: vec![1.0; 3],
            centre: vec![[0.5, 4.0], [0.25, 2.0], [0.0, 1.0]],
        };
        let spec = MlpSpec { inputs, answers, hidden: hidden.to_vec(), dropout: 0.5, temperature: 1.0 };
        let network = spec.init(&Device::flex(), &mut Seed::new(3).rng("weights"));
        TrainedMlp::freeze(&network, spec, &Device::flex())
    }

    pub(in crate::vectors) fn classes(count: usize) -> AnswerScale {
        AnswerScale::Classes { names: (0..count).map(|class| class.to_string()).collect() }
    }

    #[test]
    fn it_survives_the_disk_with_its_spec_and_another_kind_is_refused() {
        let model = small(&[4, 5], classes(2));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.safetensors");
        model.save(&path).expect("written");
        let again = TrainedMlp::load(&path, &Device::flex()).expect("read");
        assert_eq!(again.spec(), model.spec());
        let rows = uniform([6, 1, 1, 3], 0.0, 1.0, 1);
        let [before, after] =
            [&model, &again].map(|model| values(model.outputs(rows.clone())).expect("values"));
        assert_eq!(before, after);
        assert!(crate::network::TrainedClassifier::load(&path, &Device::flex()).is_err());
    }

    #[test]
    fn a_temperature_that_would_turn_an_attack_around_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("turned.safetensors");
        let mut model = small(&[4], classes(2));
        model.spec.temperature = -1.0;
        model.save(&path).expect("written");
        let error = TrainedMlp::load(&path, &Device::flex()).expect_err("refused").to_string();
        assert!(error.contains("turned.safetensors") && error.contains("a temperature of -1"), "{error}");
    }

    #[test]
    fn rows_are_centred_inside() {
        let rows = uniform([1, 1, 1, 3], 0.75, 0.7500001, 1);
        let found = values(centred(rows, &[[0.5, 4.0], [0.25, 2.0], [0.0, 1.0]])).expect("values");
        // (3/4 − 1/2) · 4, (3/4 − 1/4) · 2, 3/4.
        assert!(found.iter().zip([1.0, 1.0, 0.75]).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }

    #[test]
    fn the_mean_over_many_dropout_passes_is_the_network_without_dropout() {
        // The layer behind the dropout is linear, and kept units are made up for the dropped: the mean of the passes is the network's own answer.
        let model = small(&[16], classes(2));
        let rows = uniform([4, 1, 1, 3], 0.0, 1.0, 2);
        let passes = model.dropout_passes(rows.clone(), 4000, Seed::new(1));
        let mean = Tensor::stack::<3>(passes, 0).mean_dim(0).reshape([4, 2]);
        let gap = values((mean - model.outputs(rows)).abs().max()).expect("a value")[0];
        assert!(gap < 0.15, "{gap}");
    }
}
