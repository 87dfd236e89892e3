//! A block by the kernels against the same block made of Burn's own operations.

use burn::nn::BatchNormConfig;
use burn::tensor::{Device, Distribution, TensorData, Tolerance};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// What a case joins: plain, upsampled or both.
#[derive(Clone, Copy, Debug)]
enum Read {
    Plain,
    Upsampled,
    Joined,
}

struct Run {
    output: Tensor<4>,
    gradients: Vec<(&'static str, Vec<f32>)>,
    statistics: Vec<Vec<f32>>,
}

/// Output and every gradient of a block, by the kernels or by Burn's operations.
fn run(kernels: bool, read: Read, normed: bool, residual: bool, block: &[usize; 3], finish: Finish) -> Run {
    // Burn's generator belongs to the device, which other tests draw from at the same time.
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let [kernel, stride, outputs] = *block;
    let mut random = |shape: [usize; 4]| uniform(shape, 0.0, &mut rng);
    let (input, coarse) = (random([3, 6, 8, 5]), random([3, 3, 4, 4]));
    let sampling = Sampling::Kernel { size: kernel, stride };
    let inputs: Inputs = match read {
        Read::Plain => vec![(input.clone(), sampling)],
        Read::Upsampled => vec![(coarse.clone(), Sampling::Upsampled)],
        Read::Joined => vec![(coarse.clone(), Sampling::Upsampled), (input.clone(), sampling)],
    };
    let channels: usize = inputs.iter().map(|(input, _)| input.dims()[3]).sum();
    let weight = random([outputs, channels, kernel, kernel]);
    let added = random([3, 6 / stride, 8 / stride, outputs]);
    let [gamma, beta] = [2.0, 0.0].map(|middle| uniform([outputs], middle, &mut rng));
    let added_to = residual.then(|| added.clone());
    let (output, statistics) = match (normed, kernels) {
        (true, _) => {
            let run = if kernels { super::normed } else { primitive::normed };
            let result = run(inputs, added_to, weight.clone(), gamma.clone(), beta.clone(), 1e-5, finish);
            (result.output, vec![result.mean, result.variance])
        }
        (false, _) => {
            let run = if kernels { super::biased } else { primitive::biased };
            (run(inputs, added_to, weight.clone(), beta.clone(), finish), vec![])
        }
    };
    let upstream = uniform(output.dims(), 0.0, &mut rng).detach();
    let mut found = (output.clone() * upstream).sum().backward();
    let mut gradients = Vec::new();
    for (name, tensor) in [("input", input), ("coarse", coarse), ("weight", weight), ("residual", added)] {
        if let Some(gradient) = tensor.grad_remove(&mut found) {
            gradients.push((name, values(gradient)));
        }
    }
    for (name, tensor) in [("gamma", gamma), ("beta", beta)] {
        if let Some(gradient) = tensor.grad_remove(&mut found) {
            gradients.push((name, values(gradient)));
        }
    }
    Run { output, gradients, statistics: statistics.into_iter().map(values).collect() }
}

/// A leaf with values within 1 of `middle`.
fn uniform<const D: usize>(shape: [usize; D], middle: f32, rng: &mut ChaCha8Rng) -> Tensor<D> {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| middle + rng.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("floats")
}

fn close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let scale = theirs.iter().fold(1.0_f32, |scale, value| scale.max(value.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5 * scale, "{what}: off by {worst}, largest {scale}");
}

#[test]
fn a_block_is_the_same_by_kernels_and_by_burns_operations() {
    let finishes = [(false, false), (true, false), (true, true), (false, true)];
    for read in [Read::Plain, Read::Upsampled, Read::Joined] {
        let shapes: &[[usize; 3]] = match read {
            Read::Plain => &[[3, 1, 7], [3, 2, 16], [1, 1, 20], [1, 2, 3]],
            _ => &[[3, 1, 18]],
        };
        for shape in shapes {
            for (relu, pool) in finishes {
                for (normed, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                    if residual && pool {
                        continue;
                    }
                    let finish = Finish { relu, pool };
                    let [ours, theirs] =
                        [true, false].map(|kernels| run(kernels, read, normed, residual, shape, finish));
                    let what = format!(
                        "{read:?} {shape:?} relu {relu} pool {pool} norm {normed} residual {residual}"
                    );
                    close(&what, &values(ours.output), &values(theirs.output));
                    for (ours, theirs) in ours.statistics.iter().zip(&theirs.statistics) {
                        close(&what, ours, theirs);
                    }
                    let names = |run: &[(&'static str, Vec<f32>)]| {
                        run.iter().map(|(name, _)| *name).collect::<Vec<_>>()
                    };
                    assert_eq!(names(&ours.gradients), names(&theirs.gradients), "{what}");
                    for ((name, ours), (_, theirs)) in ours.gradients.iter().zip(&theirs.gradients) {
                        close(&format!("{what}: {name}"), ours, theirs);
                    }
                }
            }
        }
    }
}

#[test]
fn maxima_are_the_same_by_kernels_and_by_burns_operations() {
    let device = Device::flex().autodiff();
    let input = Tensor::<4>::random([2, 7, 6, 5], Distribution::Default, &device).require_grad();
    let ours = max_pool_2x2(input.clone());
    let theirs = pixels(max_pool2d(planes(input.clone()), MaxPoolOptions::new([2, 2])));
    let gradient = |output: &Tensor<4>| {
        let mut found = output.clone().powi_scalar(2).sum().backward();
        input.grad_remove(&mut found).expect("a gradient")
    };
    gradient(&ours).into_data().assert_approx_eq::<f32>(&gradient(&theirs).into_data(), Tolerance::default());
    ours.into_data().assert_approx_eq::<f32>(&theirs.into_data(), Tolerance::default());
}

#[test]
fn layouts_and_their_maps_are_the_same_by_kernels_and_by_burns_operations() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let images = uniform([2, 3, 4, 5], 0.0, &mut rng);
    let upstream = uniform([2, 3, 4, 5], 0.0, &mut rng).detach();
    let (scale, shift) = ([2.0, 3.0, 4.0], [-1.0, 0.5, 0.25]);
    let run = |kernels: bool| {
        let output = if kernels {
            channels_first(channels_last(images.clone(), &scale, &shift))
                + sigmoid_channels_first(channels_last(images.clone(), &scale, &shift))
        } else {
            let row =
                |values: [f32; 3]| Tensor::<1>::from_floats(values, &images.device()).reshape([1, 3, 1, 1]);
            let moved = images.clone() * row(scale) + row(shift);
            moved.clone() + sigmoid(moved)
        };
        let mut found = (output.clone() * upstream.clone()).sum().backward();
        (values(output), values(images.grad_remove(&mut found).expect("a gradient")))
    };
    let (ours, theirs) = (run(true), run(false));
    close("values", &ours.0, &theirs.0);
    close("gradients", &ours.1, &theirs.1);
}

#[test]
fn batch_norm_is_folded_once_training_is_over() {
    let device = Device::flex().autodiff();
    let random = |low| Tensor::<4>::random([6, 3, 3, 3], Distribution::Uniform(low, 1.0), &device);
    let block = Block::with_norm(Param::from_tensor(random(-1.0)), BatchNormConfig::new(6).init(&device))
        .relu()
        .pool();
    let images = Tensor::<4>::random([8, 6, 6, 3], Distribution::Default, &device);
    for _ in 0..5 {
        let _ = block.forward(images.clone());
    }
    let trained = block.valid();
    let images = images.inner();
    let norm = trained.norm.as_ref().expect("batch norm");
    let expected = conv2d(
        planes(images.clone()),
        trained.weight.val(),
        None,
        ConvOptions::new([1, 1], [1, 1], [1, 1], 1),
    );
    let expected = max_pool2d(relu(norm.forward(expected)), MaxPoolOptions::new([2, 2]));
    close("folded", &values(trained.forward(images)), &values(pixels(expected)));
}
