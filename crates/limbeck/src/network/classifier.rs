//! The classifier: a convolutional trunk and a head with dropout.
//!
//! Trunk and head are apart because dropout lives in the head alone: Monte Carlo dropout passes share one
//! run of the deterministic trunk.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use limbeck_kernels::{Dense, Thinned};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::{Dropout, Normalisation, dense};
use super::resnet::{ResNet, stages};
use super::vgg::Vgg;
use super::views::Views;
use super::{Model, weights};
use crate::error::{Error, Result};
use crate::rng::{Rng, Seed};

/// Shape of the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Architecture {
    /// Six 3x3 convolutions in three stages, each with batch norm and a max pool at its end.
    Vgg,
    /// ResNet of 8 layers.
    ResNet8,
    /// ResNet of 10 layers.
    ResNet10,
    /// ResNet of 14 layers.
    ResNet14,
    /// ResNet of 18 layers.
    ResNet18,
}

impl Architecture {
    /// All architectures by name.
    pub const TABLE: &[(Self, &str)] = &[
        (Self::Vgg, "vgg"),
        (Self::ResNet8, "resnet8"),
        (Self::ResNet10, "resnet10"),
        (Self::ResNet14, "resnet14"),
        (Self::ResNet18, "resnet18"),
    ];

    /// Blocks in each stage of a residual trunk.
    pub(crate) fn stages(self) -> Option<&'static [usize]> {
        match self {
            Self::Vgg => None,
            Self::ResNet8 => stages(8),
            Self::ResNet10 => stages(10),
            Self::ResNet14 => stages(14),
            Self::ResNet18 => stages(18),
        }
    }
}

/// Everything that fixes a classifier's shape; stored with its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierSpec {
    /// Shape of the trunk.
    pub architecture: Architecture,
    /// Channels of the first stage; later stages double it.
    pub width: usize,
    /// Units of the hidden dense layer.
    pub hidden: usize,
    /// Dropout probability before each dense layer.
    pub dropout: f64,
    /// Class names by class index.
    pub classes: Vec<String>,
    /// Height and width of the images, in pixels.
    pub image_size: [usize; 2],
    /// Input normalisation.
    pub normalisation: Normalisation,
    /// Softmax temperature it was trained at (1 = plain).
    pub temperature: f64,
    /// Whether it has an output behind those of the classes, for images of which it is unsure (Papernot & McDaniel 2017).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outlier: bool,
    /// The copies of an image over which it takes the mean of its logits, once it is trained.
    #[serde(default, skip_serializing_if = "Views::is_one")]
    pub views: Views,
}

impl ClassifierSpec {
    /// Logits of an image: one for each class, and one for outliers if it has that.
    pub fn outputs(&self) -> usize {
        self.classes.len() + usize::from(self.outlier)
    }

    /// Trunk and head in words: "vgg of width 24 with 128 hidden units".
    pub(crate) fn shape(&self) -> String {
        let (_, name) = Architecture::TABLE
            .iter()
            .find(|(architecture, _)| *architecture == self.architecture)
            .expect("every architecture is in the table");
        format!("{name} of width {} with {} hidden units", self.width, self.hidden)
    }

    /// A network with fresh He-normal weights on `device`.
    pub fn init(&self, device: &Device, rng: &mut Rng) -> Result<Classifier> {
        self.check()?;
        let (trunk, features) = match self.architecture.stages() {
            None => {
                (Trunk::Vgg(Vgg::new(self.width, device, rng)), Vgg::features(self.width, self.image_size))
            }
            Some(stages) => (
                Trunk::ResNet(ResNet::new(stages, self.width, device, rng)),
                ResNet::features(stages, self.width),
            ),
        };
        Ok(Classifier {
            trunk,
            hidden: dense(features, self.hidden, device, rng).relu(),
            output: dense(self.hidden, self.outputs(), device, rng),
            dropout: self.dropout,
            mean: self.normalisation.mean,
            std: self.normalisation.std,
        })
    }

    fn check(&self) -> Result<()> {
        let size = self.image_size;
        if size.iter().any(|&side| side < 8 || side % 8 != 0) {
            return Err(Error::input(
                "classifier",
                format!("images of {}x{} pixels", size[1], size[0]),
                "sides that are multiples of 8 pixels, 8 or more",
            ));
        }
        if self.width == 0 || self.hidden == 0 {
            let found = format!("a width of {} and {} hidden units", self.width, self.hidden);
            return Err(Error::input("classifier", found, "1 or more of each"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let found = format!("dropout with a probability of {}", self.dropout);
            return Err(Error::input("classifier", found, "a probability in [0, 1)"));
        }
        if !(self.temperature.is_finite() && self.temperature >= 1.0) {
            return Err(Error::input(
                "classifier",
                format!("a temperature of {}", self.temperature),
                "a finite number, 1 or more",
            ));
        }
        let Normalisation { mean, std } = self.normalisation;
        if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_normal() && *std > 0.0) {
            return Err(Error::input(
                "classifier",
                format!("a normalisation by mean {mean:?} and std {std:?}"),
                "finite numbers, std above 0",
            ));
        }
        if self.classes.len() < 2 {
            return Err(Error::input(
                "classifier",
                format!("{} classes", self.classes.len()),
                "at least two",
            ));
        }
        Ok(())
    }
}

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one trunk a network: nothing is gained by a box")]
enum Trunk {
    Vgg(Vgg),
    ResNet(ResNet),
}

/// A classifier in training; see [`ClassifierSpec::init`].
#[derive(Module, Debug)]
pub struct Classifier {
    trunk: Trunk,
    hidden: Dense,
    output: Dense,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    mean: [f32; 3],
    #[module(skip)]
    std: [f32; 3],
}

impl Classifier {
    /// Features `[batch, features]` of images `[batch, 3, height, width]`: the deterministic part.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let images = Normalisation { mean: self.mean, std: self.std }.forward(images);
        match &self.trunk {
            Trunk::Vgg(trunk) => trunk.forward(images),
            Trunk::ResNet(trunk) => trunk.forward(images),
        }
    }

    /// Logits `[batch, classes]` of features, with each dropout layer as `drop` says.
    fn head(&self, features: Tensor<2>, mut drop: impl FnMut(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let hidden = self.hidden.forward(drop(features));
        self.output.forward(drop(hidden))
    }

    /// Logits `[batch, classes]` of each of the thinned heads, whose kept features and hidden units are given.
    fn thinned_heads(&self, features: Tensor<2>, kept: &[[Vec<u32>; 2]]) -> Vec<Tensor<2>> {
        let factor = Dropout { probability: self.dropout }.factor();
        let of_layer = |layer: usize| kept.iter().map(|kept| kept[layer].clone()).collect::<Vec<_>>();
        let [hidden, output]: [Thinned; 2] = [&self.hidden, &self.output].map(|layer| layer.thinned(factor));
        hidden
            .forward(features, &of_layer(0))
            .into_par_iter()
            .zip(of_layer(1))
            .map(|(hidden, kept)| output.forward(hidden, &[kept]).remove(0))
            .collect()
    }

    /// Logits in training: batch statistics and dropout.
    pub fn train_logits(&self, images: Tensor<4>, rng: &mut Rng) -> Tensor<2> {
        let dropout = Dropout { probability: self.dropout };
        self.head(self.features(images), |features| dropout.each(features, rng))
    }

    /// Logits in inference (on a module that [`Module::valid`] returned).
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head(self.features(images), |features| features)
    }
}

/// Multiplies every weight of a network in inference mode.
struct Scale(f64);

impl ModuleMapper for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|weights| weights.mul_scalar(self.0))
    }
}

/// A finished classifier: weights that no longer change, and the spec that shaped them.
#[derive(Clone, Debug)]
pub struct TrainedClassifier {
    network: Classifier,
    spec: ClassifierSpec,
    device: Device,
}

impl TrainedClassifier {
    /// Freezes a network that finished training.
    pub fn freeze(network: &Classifier, spec: ClassifierSpec, device: &Device) -> Self {
        Self { network: network.valid(), spec, device: device.clone().without_autodiff() }
    }

    /// What it was built from.
    pub fn spec(&self) -> &ClassifierSpec {
        &self.spec
    }

    /// Features `[batch, features]` in front of the head, of the images as they are.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.network.features(images)
    }

    /// Activations `[batch, hidden]` of the last hidden layer, behind its ReLU, for features `[batch, features]`.
    pub fn hidden(&self, features: Tensor<2>) -> Tensor<2> {
        self.network.hidden.forward(features)
    }

    /// Features `[batch, features]` of the images as they are, and logits `[batch, classes]`; of a network of one view in one run.
    pub fn features_and_logits(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let features = self.network.features(images.clone());
        let logits = match self.spec.views {
            Views::One => self.network.head(features.clone(), |features| features),
            _ => self.logits(images),
        };
        (features, logits)
    }

    /// Logits `[batch, classes]` of `passes` Monte Carlo dropout passes (Gal & Ghahramani 2016) over one run of the trunk a view.
    ///
    /// Each pass is one thinned network, drawn from `seed` and the same for every image: an answer depends on its image alone,
    /// not on its neighbours in the batch.
    pub fn dropout_passes(&self, images: Tensor<4>, passes: usize, seed: Seed) -> Vec<Tensor<2>> {
        self.spec.views.means(images, |view| self.thinned(self.network.features(view), passes, seed))
    }

    /// Logits `[batch, classes]` without dropout, and those of the same [`dropout_passes`](Self::dropout_passes), all over one run of the trunk a view.
    pub fn logits_and_passes(
        &self,
        images: Tensor<4>,
        passes: usize,
        seed: Seed,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let mut passes = self.spec.views.means(images, |view| {
            let features = self.network.features(view);
            let logits = self.network.head(features.clone(), |features| features);
            self.thinned(features, passes, seed).into_iter().chain([logits]).collect()
        });
        let logits = passes.pop().expect("the logits without dropout");
        (logits, passes)
    }

    /// Logits of thinned networks for features `[batch, features]`.
    fn thinned(&self, features: Tensor<2>, passes: usize, seed: Seed) -> Vec<Tensor<2>> {
        let kept: Vec<_> = (0..passes).map(|pass| self.kept(pass, features.dims()[1], seed)).collect();
        self.network.thinned_heads(features, &kept)
    }

    /// The features and hidden units that the thinned network of a pass has.
    fn kept(&self, pass: usize, features: usize, seed: Seed) -> [Vec<u32>; 2] {
        let mut rng = seed.step(pass).rng("dropout");
        let dropout = Dropout { probability: self.network.dropout };
        [features, self.spec.hidden].map(|length| dropout.kept(length, &mut rng))
    }

    /// Logits `[batch, classes]` without dropout, and those of the same [`dropout_passes`](Self::dropout_passes), all with gradients.
    ///
    /// Slower than these: every pass multiplies by what it has dropped, too.
    pub fn differentiable_passes(
        &self,
        images: Tensor<4>,
        passes: usize,
        seed: Seed,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let dropout = Dropout { probability: self.network.dropout };
        let of_view = |view: Tensor<4>| {
            let features = self.network.features(view);
            let logits = self.network.head(features.clone(), |features| features);
            let thinned = |pass: usize| {
                let mut kept = self.kept(pass, features.dims()[1], seed).into_iter();
                let kept = |values: Tensor<2>| match kept.next() {
                    Some(kept) => dropout.keep(values, &kept),
                    None => values,
                };
                self.network.head(features.clone(), kept)
            };
            (0..passes).map(thinned).chain([logits]).collect()
        };
        let mut passes = self.spec.views.means(images, of_view);
        let logits = passes.pop().expect("the logits without dropout");
        (logits, passes)
    }

    /// The same weights, asked about more or fewer copies of an image.
    pub(crate) fn with_views(self, views: Views) -> Self {
        Self { spec: ClassifierSpec { views, ..self.spec }, ..self }
    }

    /// The same weights, asked at another temperature: logits stay, softmax(z/T) changes.
    pub(crate) fn at_temperature(self, temperature: f64) -> Self {
        Self { spec: ClassifierSpec { temperature, ..self.spec }, ..self }
    }

    /// Whether a network of `spec` can begin with these weights; names of classes may be written differently, and are compared where a file is read.
    pub(crate) fn is_of_shape(&self, spec: &ClassifierSpec) -> bool {
        let Self { spec: own, .. } = self;
        let alike = ClassifierSpec {
            temperature: own.temperature,
            dropout: own.dropout,
            views: own.views,
            classes: own.classes.clone(),
            ..spec.clone()
        };
        alike == *own && spec.classes.len() == own.classes.len()
    }

    /// A network in training of the shape of `spec` with these weights in the place of the fresh ones.
    ///
    /// Its logits are this one's times the ratio of the temperatures, so that softmax(z/T) is the same for both, each at its own T.
    ///
    /// # Errors
    /// [`Error::Input`] if `spec` has another shape, another number of classes or another normalisation.
    pub(crate) fn begin(&self, fresh: Classifier, spec: &ClassifierSpec) -> Result<Classifier> {
        if !self.is_of_shape(spec) {
            return Err(Error::input(
                "beginning with a classifier's weights",
                format!("a classifier of another shape, {}", self.spec.shape()),
                format!("{}, with the same outputs, image size and normalisation", spec.shape()),
            ));
        }
        let mut begun = self.network.clone();
        begun.output = begun.output.map(&mut Scale(spec.temperature / self.spec.temperature));
        fresh.try_load_record(begun.into_record()).map_err(|error| {
            Error::input("beginning with a classifier's weights", error.to_string(), "weights of this shape")
        })
    }

    /// Writes weights and spec as safetensors, atomically; same weights, same bytes.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::save(path, &self.network, "classifier", &self.spec)
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let file = weights::WeightFile::open(path)?;
        let spec: ClassifierSpec = file.spec("classifier")?;
        let shape = spec
            .init(&device, &mut Seed::new(0).rng("shape only"))
            .map_err(|error| Error::data(path, error.to_string(), "the spec of a classifier"))?;
        let network = file.apply(shape)?;
        Ok(Self { network: network.valid(), spec, device })
    }
}

impl Model for TrainedClassifier {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.spec.views.mean(images, |view| self.network.logits(view))
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tiny_spec, uniform, untrained};

    #[test]
    fn a_network_of_several_views_answers_with_their_mean_in_every_way_it_is_asked() {
        let spec = ClassifierSpec { dropout: 0.3, ..tiny_spec(Architecture::Vgg, 4, 1.0) };
        let one = untrained(spec, 6);
        let images = uniform([3, 3, 8, 8], 0.0, 1.0, 7);
        let views = [Views::Cross, Views::Square].map(|views| one.clone().with_views(views));
        let value = |tensor: Tensor<2>| crate::tensors::values(tensor).expect("values");
        let near = |found: Vec<f32>, expected: Vec<f32>| {
            found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4) && found.len() == expected.len()
        };
        for network in &views {
            let logits = value(network.logits(images.clone()));
            assert!(!near(logits.clone(), value(one.logits(images.clone()))), "moved copies count");
            let by_hand = network.spec.views.mean(images.clone(), |view| one.logits(view));
            assert!(near(logits.clone(), value(by_hand)));
            assert!(near(value(network.features_and_logits(images.clone()).1), logits.clone()));
            let (plain, differentiable) = network.differentiable_passes(images.clone(), 2, Seed::new(8));
            assert!(near(value(plain), logits));
            let (plain, passes) = network.logits_and_passes(images.clone(), 2, Seed::new(8));
            assert!(near(value(plain), value(network.logits(images.clone()))));
            let again = network.dropout_passes(images.clone(), 2, Seed::new(8));
            assert!(
                passes.iter().zip(again).all(|(a, b)| value(a.clone()) == value(b)),
                "one way or the other"
            );
            for (index, (found, expected)) in passes.into_iter().zip(differentiable).enumerate() {
                let of_views = |view| one.dropout_passes(view, 2, Seed::new(8)).swap_remove(index);
                let by_hand = value(network.spec.views.mean(images.clone(), of_views));
                let found = value(found);
                assert!(near(found.clone(), value(expected)) && near(found, by_hand), "pass {index}");
            }
        }
        // An image of one colour is all its views.
        let grey = Tensor::full([1, 3, 8, 8], 0.4, &Device::flex());
        assert!(near(value(views[1].logits(grey.clone())), value(one.logits(grey))));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("views.safetensors");
        views[0].save(&path).expect("written");
        let again = TrainedClassifier::load(&path, &Device::flex()).expect("read");
        assert_eq!(again.spec().views, Views::Cross);
    }

    #[test]
    fn a_spec_that_would_turn_an_attack_around_is_refused() {
        let refusal = |spec: ClassifierSpec| {
            let fresh = spec.init(&Device::flex(), &mut Seed::new(1).rng("weights"));
            fresh.expect_err("refused").to_string()
        };
        let spec = || tiny_spec(Architecture::Vgg, 4, 1.0);
        for temperature in [-1.0, 0.0, 0.5, f64::NAN, f64::INFINITY] {
            let error = refusal(ClassifierSpec { temperature, ..spec() });
            assert!(error.contains(&format!("a temperature of {temperature}")), "{error}");
        }
        let network = spec().init(&Device::flex(), &mut Seed::new(1).rng("weights")).expect("the spec fits");
        let turned = TrainedClassifier::freeze(
            &network,
            ClassifierSpec { temperature: -1.0, ..spec() },
            &Device::flex(),
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("turned.safetensors");
        turned.save(&path).expect("it is written");
        let error = TrainedClassifier::load(&path, &Device::flex()).expect_err("refused").to_string();
        assert!(error.contains("turned.safetensors") && error.contains("a temperature of -1"), "{error}");
        for std in [0.0, -0.25, f32::NAN] {
            let normalisation = Normalisation { std: [0.25, std, 0.25], ..Normalisation::default() };
            let error = refusal(ClassifierSpec { normalisation, ..spec() });
            assert!(error.contains("std above 0"), "{error}");
        }
    }
}
