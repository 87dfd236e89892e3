//! Laws that hold for every attack of the table, closed forms, and finite differences for every operation that an attack
//! differentiates through.

use burn::tensor::activation::{log_softmax, relu, sigmoid, softmax};
use burn::tensor::module::{conv2d, interpolate, linear, max_pool2d};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};
use proptest::prelude::*;

use super::*;
use crate::network::{
    Architecture, AutoencoderKind, AutoencoderSpec, Defended, TrainedAutoencoder, TrainedClassifier,
};
use crate::rng::Seed;
use crate::tensors::{labels, values};
use crate::testing::{LinearModel, tiny_spec, uniform};

fn every_attack(eps: f64) -> Vec<AttackConfig> {
    TABLE
        .iter()
        .map(|(kind, _)| AttackConfig { kind: *kind, eps, step: eps.max(0.001) / 4.0, steps: 10 })
        .collect()
}

fn run(config: &AttackConfig, model: &dyn Model, images: &Tensor<4>, classes: &[u32]) -> Tensor<4> {
    let labels = labels(classes, &Device::flex());
    craft(config.build().as_ref(), model, config.threat(), images.clone(), labels).expect("the attack runs")
}

fn classifier(architecture: Architecture) -> TrainedClassifier {
    let spec = tiny_spec(architecture, 3, 1.0);
    let network = spec.init(&Device::flex(), &mut Seed::new(3).rng("weights")).expect("the spec fits");
    TrainedClassifier::freeze(&network, spec, &Device::flex())
}

#[test]
fn every_attack_stays_in_the_ball_and_the_box_repeats_itself_and_raises_the_loss() {
    let (images, classes) = (uniform([6, 3, 8, 8], 0.0, 1.0, 1), [0, 1, 2, 0, 1, 2]);
    let model = classifier(Architecture::Vgg);
    for config in every_attack(0.03) {
        let attacked = run(&config, &model, &images, &classes);
        let moved = values((attacked.clone() - images.clone()).abs()).expect("values");
        assert!(moved.iter().all(|distance| *distance <= 0.03 + 1e-6), "{} leaves the ball", config.name());
        let pixels = values(attacked.clone()).expect("values");
        assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)), "{} leaves the box", config.name());
        let again = values(run(&config, &model, &images, &classes)).expect("values");
        assert_eq!(pixels, again, "{} is not deterministic", config.name());
        let loss = |images| {
            cross_entropy(model.logits(images), labels(&classes, &Device::flex())).into_scalar::<f32>()
        };
        assert!(loss(attacked) > loss(images.clone()), "{} does not raise the loss", config.name());
    }
}

#[test]
fn an_attack_with_eps_0_changes_nothing() {
    let images = uniform([2, 3, 8, 8], 0.0, 1.0, 2);
    for config in every_attack(0.0) {
        let attacked = run(&config, &classifier(Architecture::Vgg), &images, &[0, 1]);
        assert_eq!(
            values(attacked).expect("values"),
            values(images.clone()).expect("values"),
            "{}",
            config.name()
        );
    }
}

#[test]
fn an_attack_s_result_for_an_image_does_not_depend_on_its_neighbours() {
    let images = uniform([4, 3, 8, 8], 0.0, 1.0, 4);
    let model = classifier(Architecture::Vgg);
    for config in every_attack(0.02) {
        let together = values(run(&config, &model, &images, &[0, 1, 2, 0])).expect("values");
        let alone = values(run(&config, &model, &images.clone().narrow(0, 1, 1), &[1])).expect("values");
        let same = alone.iter().zip(&together[192..384]).filter(|(a, b)| (*a - *b).abs() < 1e-6).count();
        // A gradient near zero may change its sign with the order of a sum.
        assert!(same >= 190, "{}: only {same} of 192 pixels agree", config.name());
    }
}

/// For logits (0, w·x) and label 0 the loss rises with w·x: the optimum is the corner x + eps sign(w), sign(0) = 0.
#[test]
fn every_attack_finds_the_closed_form_optimum_of_a_linear_model() {
    let weights = uniform([1, 3, 8, 8], -1.0, 1.0, 5);
    let weights = weights.clone() * weights.clone().abs().greater_elem(0.2).float();
    let images = uniform([2, 3, 8, 8], 0.2, 0.8, 6);
    let model = LinearModel(weights.clone());
    for config in every_attack(0.05) {
        let attacked = run(&config, &model, &images, &[0, 0]);
        let corner = images.clone() + weights.clone().sign().mul_scalar(0.05);
        let distance = values((attacked - corner).abs().max()).expect("values")[0];
        assert!(distance < 1e-6, "{} is {distance} from the corner", config.name());
    }
}

#[test]
fn labels_and_images_of_different_number_are_refused() {
    let images = uniform([2, 3, 8, 8], 0.0, 1.0, 7);
    let result = craft(
        &Fgsm,
        &classifier(Architecture::Vgg),
        ThreatModel { eps: 0.1 },
        images,
        labels(&[0, 1, 2], &Device::flex()),
    );
    let message = result.expect_err("three labels for two images").to_string();
    assert!(message.contains("2 images and 3 labels"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn projection_twice_is_projection_once(seed in 0u64..1000, eps in 0.0f64..0.5) {
        let (images, proposal) = (uniform([1, 3, 4, 4], 0.0, 1.0, seed), uniform([1, 3, 4, 4], -1.0, 2.0, seed + 1));
        let threat = ThreatModel { eps };
        let once = threat.project(&images, proposal);
        let twice = threat.project(&images, once.clone());
        prop_assert_eq!(values(once).expect("values"), values(twice).expect("values"));
    }
}

/// An operation with what its input may be, so that no kink lies within a finite difference.
type Operation = (&'static str, Box<dyn Fn(Tensor<4>) -> Tensor<2>>);

fn operations() -> Vec<Operation> {
    let flat = |x: Tensor<4>| x.flatten::<2>(1, 3);
    let kernel = |outputs: usize, size: usize| uniform([outputs, 3, size, size], -0.5, 0.5, 11);
    let conv = move |stride: usize, size: usize| -> Box<dyn Fn(Tensor<4>) -> Tensor<2>> {
        let pad = size / 2;
        let options = ConvOptions::new([stride, stride], [pad, pad], [1, 1], 1);
        Box::new(move |x| {
            flat(conv2d(x, kernel(4, size), Some(uniform([4], -0.5, 0.5, 12)), options.clone()))
        })
    };
    vec![
        ("convolution 3x3", conv(1, 3)),
        ("convolution 3x3, stride 2", conv(2, 3)),
        ("convolution 1x1, stride 2", conv(2, 1)),
        ("relu", Box::new(move |x| flat(relu(x - 0.5)))),
        ("sigmoid", Box::new(move |x| flat(sigmoid(x)))),
        ("max pool", Box::new(move |x| flat(max_pool2d(x, MaxPoolOptions::new([2, 2]))))),
        (
            "nearest upsampling",
            Box::new(move |x| {
                flat(interpolate(
                    x,
                    InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([16, 16]),
                ))
            }),
        ),
        ("global average", Box::new(|x| x.mean_dims(&[2, 3]).flatten::<2>(1, 3))),
        (
            "batch norm in inference",
            Box::new(move |x| {
                let statistic = |low, seed| uniform([3], low, 1.0, seed);
                let parts = [statistic(0.2, 13), statistic(-1.0, 14), statistic(0.0, 15), statistic(0.3, 16)];
                let [gamma, beta, mean, variance] = parts;
                flat(burn::tensor::module::batch_norm(x, gamma, beta, mean, variance, 1e-5))
            }),
        ),
        ("concatenation", Box::new(move |x| flat(Tensor::cat(vec![x.clone(), x.mul_scalar(2.0)], 1)))),
        ("clamp", Box::new(move |x| flat(x.clamp(0.25, 0.75)))),
        ("dense", Box::new(move |x| linear(flat(x), uniform([192, 5], -0.5, 0.5, 17), None))),
        ("softmax", Box::new(move |x| softmax(flat(x).narrow(1, 0, 12), 1))),
        ("log softmax", Box::new(move |x| log_softmax(flat(x).narrow(1, 0, 12), 1))),
        ("square", Box::new(move |x| flat(x.square()))),
    ]
}

/// Pixels on a grid of distinct values that keeps every pair, and 0.25, 0.5 and 0.75, further apart than a difference reaches.
fn separated() -> Vec<f32> {
    let mut values: Vec<f32> = (0..192).map(|index| (index as f32 + 0.5) / 192.0).collect();
    use rand::seq::SliceRandom;
    values.shuffle(&mut Seed::new(9).rng("pixels"));
    values
}

#[test]
fn every_operation_that_an_attack_differentiates_through_agrees_with_finite_differences() {
    let device = Device::flex();
    let image = |pixels: &[f32]| crate::tensors::images(pixels.to_vec(), [1, 3, 8, 8], &device);
    let pixels = separated();
    for (name, operation) in operations() {
        let outputs = operation(image(&pixels)).dims()[1];
        let weights = uniform([1, outputs], -1.0, 1.0, 18);
        let value = |pixels: &[f32]| -> f64 {
            let outputs = values(operation(image(pixels)) * weights.clone()).expect("values");
            outputs.into_iter().map(f64::from).sum()
        };
        let leaf = image(&pixels).autodiff().require_grad();
        let mut gradients = (operation(leaf.clone()) * weights.clone()).sum().backward();
        let analytic = values(leaf.grad_remove(&mut gradients).expect("a gradient")).expect("values");
        let step = 1e-3f32; // below half the distance of two pixels, 1/384
        for pixel in (0..192).step_by(7) {
            let mut moved = pixels.clone();
            moved[pixel] += step;
            let above = value(&moved);
            moved[pixel] -= 2.0 * step;
            let numeric = (above - value(&moved)) / (2.0 * f64::from(step));
            let difference = (numeric - f64::from(analytic[pixel])).abs();
            assert!(
                difference < 2e-3 + 1e-2 * numeric.abs(),
                "{name}, pixel {pixel}: {numeric} and {}",
                analytic[pixel]
            );
        }
    }
}

/// The whole chain: the directional derivative of the loss along its own gradient is the gradient's squared norm.
#[test]
fn input_gradients_of_every_network_agree_with_a_directional_difference() {
    let device = Device::flex();
    let autoencoder = |kind| {
        let spec = AutoencoderSpec { kind, width: 4, latent: 8, image_size: [8, 8] };
        let network = spec.init(&device, &mut Seed::new(4).rng("weights")).expect("the spec fits");
        TrainedAutoencoder::freeze(&network, spec, &device)
    };
    let (vgg, resnet) = (classifier(Architecture::Vgg), classifier(Architecture::ResNet8));
    let (unet, bottleneck) = (autoencoder(AutoencoderKind::Unet), autoencoder(AutoencoderKind::Bottleneck));
    let models: [(&str, &dyn Model); 4] = [
        ("vgg", &vgg),
        ("resnet", &resnet),
        ("unet before vgg", &Defended { autoencoder: &unet, classifier: &vgg }),
        ("bottleneck before resnet", &Defended { autoencoder: &bottleneck, classifier: &resnet }),
    ];
    let (images, classes) = (uniform([1, 3, 8, 8], 0.3, 0.7, 8), [1]);
    for (name, model) in models {
        let gradient = input_gradient(model, images.clone(), labels(&classes, &device)).expect("a gradient");
        let norm = values(gradient.clone().square().sum()).expect("values")[0].sqrt();
        assert!(norm > 1e-6, "{name}: no gradient");
        let direction = gradient.div_scalar(norm);
        let loss = |step: f32| {
            let moved = images.clone() + direction.clone().mul_scalar(step);
            f64::from(cross_entropy(model.logits(moved), labels(&classes, &device)).into_scalar::<f32>())
        };
        // Small enough that few of the network's kinks lie within it, large enough for 32-bit losses.
        let step = 1e-4;
        let numeric = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
        let relative = (numeric - f64::from(norm)).abs() / f64::from(norm);
        assert!(relative < 0.03, "{name}: {numeric} by differences, {norm} by autodiff");
    }
}
