//! Every kernel, shape and instruction set against a naive reference in double precision; gradients against its finite differences.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rows::NONE;
use super::tile::Start;
use super::winograd::{Kernel, Variant};
use super::*;

/// A block: inputs, what is done to them, and how many channels come out.
struct Case {
    images: usize,
    inputs: Vec<(Sampling, [usize; 2], usize)>,
    outputs: usize,
    residual: bool,
    finish: Finish,
}

const PLAIN: Sampling = Sampling::Kernel { size: 3, stride: 1 };
const STRIDED: Sampling = Sampling::Kernel { size: 3, stride: 2 };
const POINT: Sampling = Sampling::Kernel { size: 1, stride: 1 };
const PROJECTION: Sampling = Sampling::Kernel { size: 1, stride: 2 };

fn cases() -> Vec<Case> {
    let case = |inputs: &[(Sampling, [usize; 2], usize)], outputs, residual, relu, pool| Case {
        images: 3,
        inputs: inputs.to_vec(),
        outputs,
        residual,
        finish: Finish { relu, pool },
    };
    let mut cases = vec![
        case(&[(PLAIN, [8, 8], 3)], 32, false, true, false),
        case(&[(PLAIN, [8, 8], 16)], 16, false, true, true),
        case(&[(PLAIN, [7, 5], 5)], 19, false, true, true),
        case(&[(PLAIN, [7, 5], 5)], 19, true, true, false),
        case(&[(PLAIN, [1, 1], 2)], 3, false, false, false),
        case(&[(PLAIN, [4, 6], 40)], 8, false, false, true),
        case(&[(PLAIN, [10, 10], 50)], 20, false, true, false),
        case(&[(STRIDED, [8, 8], 4)], 17, false, true, false),
        case(&[(STRIDED, [7, 9], 6)], 5, true, true, false),
        case(&[(STRIDED, [1, 2], 3)], 4, false, true, false),
        case(&[(POINT, [5, 4], 7)], 33, false, true, true),
        case(&[(PROJECTION, [8, 6], 4)], 18, false, false, false),
        case(&[(PROJECTION, [7, 5], 4)], 6, true, true, false),
        case(&[(Sampling::Upsampled, [4, 4], 8)], 16, false, true, false),
        case(&[(Sampling::Upsampled, [3, 5], 6)], 3, false, false, false),
        case(&[(Sampling::Upsampled, [3, 2], 9), (PLAIN, [6, 4], 5)], 7, false, true, false),
        case(&[(Sampling::Upsampled, [2, 3], 4), (PLAIN, [4, 6], 16)], 21, true, true, false),
        // Few outputs, or few inputs to take the gradient to.
        case(&[(PLAIN, [5, 7], 16)], 3, false, true, false),
        case(&[(STRIDED, [7, 6], 8)], 4, true, true, false),
        case(&[(POINT, [3, 5], 24)], 1, false, false, false),
        case(&[(Sampling::Upsampled, [3, 5], 40)], 2, false, true, true),
        case(&[(Sampling::Upsampled, [3, 2], 8), (PLAIN, [6, 4], 5)], 3, true, true, false),
        case(&[(PLAIN, [5, 4], 2)], 32, false, true, false),
        case(&[(Sampling::Upsampled, [3, 3], 4)], 8, false, true, false),
    ];
    if cfg!(miri) {
        cases.retain(|case| case.inputs[0].2 < 10);
    }
    // More images than groups of weight gradients.
    cases.push(Case { images: 35, ..case(&[(PLAIN, [2, 3], 3)], 4, false, true, false) });
    cases
}

/// Values of a block as doubles, for the reference.
#[derive(Clone)]
struct Values {
    inputs: Vec<Vec<f64>>,
    weight: Vec<f64>,
    /// Bias, or gamma and beta.
    factors: Vec<Vec<f64>>,
    residual: Vec<f64>,
}

const EPSILON: f64 = 1e-5;

impl Case {
    fn plan(&self, precision: Precision) -> Plan {
        Plan::new(&self.inputs, self.outputs, precision)
    }

    fn size(&self) -> [usize; 2] {
        self.inputs[0].1.map(|side| self.inputs[0].0.output(side))
    }

    fn values(&self, normed: bool, rng: &mut ChaCha8Rng) -> Values {
        // Rounded to single precision, so that both sides start from the same numbers.
        let mut draw = |count: usize| -> Vec<f64> {
            (0..count).map(|_| f64::from(rng.random_range(-1.0_f32..1.0))).collect()
        };
        let channels: usize = self.inputs.iter().map(|input| input.2).sum();
        let kernel = self.inputs[0].0.kernel();
        let pixels: usize = self.size().iter().product();
        Values {
            inputs: self.inputs.iter().map(|(_, [h, w], c)| draw(self.images * h * w * c)).collect(),
            weight: draw(self.outputs * channels * kernel * kernel),
            factors: (0..if normed { 2 } else { 1 }).map(|_| draw(self.outputs)).collect(),
            residual: draw(if self.residual { self.images * pixels * self.outputs } else { 0 }),
        }
    }

    /// The whole block, straight from its definition.
    fn reference(&self, values: &Values) -> Vec<f64> {
        let [height, width] = self.size();
        let channels: usize = self.inputs.iter().map(|input| input.2).sum();
        let kernel = self.inputs[0].0.kernel();
        let outputs = self.outputs;
        let mut y = vec![0.0; self.images * height * width * outputs];
        for image in 0..self.images {
            for (row, column, output) in indices(height, width, outputs) {
                let mut sum = 0.0;
                let mut first = 0;
                for (&(sampling, [h, w], c), input) in self.inputs.iter().zip(&values.inputs) {
                    let (stride, scale) = match sampling {
                        Sampling::Kernel { stride, .. } => (stride, 1),
                        Sampling::Upsampled => (1, 2),
                    };
                    for (kr, kc) in (0..kernel).flat_map(|r| (0..kernel).map(move |c| (r, c))) {
                        let pad = kernel / 2;
                        let (Some(r), Some(q)) =
                            ((row * stride + kr).checked_sub(pad), (column * stride + kc).checked_sub(pad))
                        else {
                            continue;
                        };
                        if r >= h * scale || q >= w * scale {
                            continue;
                        }
                        for k in 0..c {
                            let weight =
                                values.weight[((output * channels + first + k) * kernel + kr) * kernel + kc];
                            sum += weight * input[((image * h + r / scale) * w + q / scale) * c + k];
                        }
                    }
                    first += c;
                }
                y[((image * height + row) * width + column) * outputs + output] = sum;
            }
        }
        self.finish(values, y)
    }

    fn finish(&self, values: &Values, mut y: Vec<f64>) -> Vec<f64> {
        let [height, width] = self.size();
        let outputs = self.outputs;
        for channel in 0..outputs {
            let (scale, shift) = match &values.factors[..] {
                [bias] => (1.0, bias[channel]),
                [gamma, beta] => {
                    let column = || y.iter().skip(channel).step_by(outputs);
                    let count = column().count() as f64;
                    let mean = column().sum::<f64>() / count;
                    let variance = column().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
                    let scale = gamma[channel] / (variance + EPSILON).sqrt();
                    (scale, beta[channel] - mean * scale)
                }
                _ => unreachable!("one or two factors"),
            };
            y.iter_mut().skip(channel).step_by(outputs).for_each(|value| *value = scale * *value + shift);
        }
        if self.residual {
            y.iter_mut().zip(&values.residual).for_each(|(value, residual)| *value += residual);
        }
        if self.finish.relu {
            y.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        if !self.finish.pool {
            return y;
        }
        let mut pooled = Vec::new();
        for image in 0..self.images {
            for (row, column, output) in indices(height / 2, width / 2, outputs) {
                let at = |r: usize, c: usize| {
                    y[((image * height + 2 * row + r) * width + 2 * column + c) * outputs + output]
                };
                pooled.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
            }
        }
        pooled
    }
}

fn indices(height: usize, width: usize, channels: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..height).flat_map(move |r| (0..width).flat_map(move |c| (0..channels).map(move |k| (r, c, k))))
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Output and gradients for the output gradient `upstream`, by the kernels.
fn kernels(
    isa: Isa,
    case: &Case,
    values: &Values,
    upstream: &[f64],
    wanted: Wanted,
    precision: Precision,
) -> (Vec<f32>, Gradients) {
    let plan = case.plan(precision);
    let inputs: Vec<Vec<f32>> = values.inputs.iter().map(|input| single(input)).collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let (weight, residual, upstream) = (single(&values.weight), single(&values.residual), single(upstream));
    let factors: Vec<Vec<f32>> = values.factors.iter().map(|factor| single(factor)).collect();
    let tail = |output, winners| {
        if case.finish.pool {
            Tail::Pool(winners)
        } else if case.finish.relu {
            Tail::Relu(output)
        } else {
            Tail::Linear
        }
    };
    if let [bias] = &factors[..] {
        let Biased { output, winners } =
            forward_biased(isa, &plan, &inputs, &weight, bias, &residual, case.finish);
        assert!(winners.iter().all(|&winner| winner <= NONE));
        let tail = tail(&output, &winners);
        let gradients = backward_biased(isa, &plan, &inputs, &weight, &upstream, tail, wanted);
        return (output.to_vec(), gradients);
    }
    let normed = forward_normed(
        isa,
        &plan,
        &inputs,
        &weight,
        [&factors[0], &factors[1]],
        EPSILON,
        &residual,
        case.finish,
    );
    let gradients = backward_normed(
        isa,
        &plan,
        &inputs,
        &weight,
        &factors[0],
        EPSILON,
        &normed.convolved,
        [&normed.mean, &normed.variance],
        &upstream,
        tail(&normed.output, &normed.winners),
        wanted,
    );
    (normed.output.to_vec(), gradients)
}

const ALL: Wanted = Wanted { inputs: [true; 2], residual: true, weights: true };

#[test]
fn outputs_agree_with_the_definition() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (number, case) in cases().iter().enumerate() {
        for normed in [false, true] {
            let values = case.values(normed, &mut rng);
            let expected = case.reference(&values);
            for isa in Isa::available() {
                let upstream = vec![0.0; expected.len()];
                let (output, _) = kernels(isa, case, &values, &upstream, ALL, Precision::Direct);
                assert_eq!(output.len(), expected.len(), "case {number}");
                let worst = output
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| (f64::from(*a) - b).abs() / (1.0 + b.abs()))
                    .fold(0.0, f64::max);
                assert!(worst < 2e-5, "case {number}, batch norm {normed}, {isa:?}: off by {worst}");
            }
        }
    }
}

/// Largest error relative to one plus the size of the value.
fn worst(values: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(values.len(), expected.len());
    let off = values.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / (1.0 + b.abs()));
    off.fold(0.0, f64::max)
}

#[test]
fn fewer_products_agree_with_the_definition() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut cases = cases();
    cases.retain(|case| case.inputs.len() == 1 && case.inputs[0].0 == PLAIN);
    // More tiles than a block, sides of every remainder, channels beside whole panels.
    for (size, inputs, outputs) in [([13, 18], 17, 33), ([16, 16], 32, 24), ([2, 11], 8, 16), ([3, 1], 20, 5)]
    {
        let inputs = vec![(PLAIN, size, inputs)];
        let finish = Finish { relu: outputs % 2 == 1, pool: false };
        cases.push(Case { images: 2, inputs, outputs, residual: false, finish });
    }
    for (number, case) in cases.iter_mut().enumerate() {
        case.finish.pool = false;
        let values = case.values(false, &mut rng);
        let expected = case.reference(&values);
        let (_, size, channels) = case.inputs[0];
        let (input, weight) = (single(&values.inputs[0]), single(&values.weight));
        let mut bias = single(&values.factors[0]);
        bias.resize(case.outputs.next_multiple_of(16), 0.0);
        for (isa, variant) in
            Isa::available().into_iter().flat_map(|isa| [Variant::Two, Variant::Four].map(|v| (isa, v)))
        {
            let kernel = Kernel::new(isa, variant, [channels, case.outputs], |output, input, tap| {
                weight[(output * channels + input) * 9 + tap]
            });
            // Added to what a residual, or a first input of several, has left there; else the old values are of no account.
            let (start, mut output) = match case.residual {
                true => {
                    let residual = single(&values.residual);
                    let sums = residual.chunks_exact(case.outputs).flat_map(|pixel| pixel.iter().zip(&bias));
                    (Start::Target, sums.map(|(value, bias)| value + bias).collect())
                }
                false => (Start::Bias, vec![f32::NAN; expected.len()]),
            };
            let (mut padded, mut tiles) = (vec![f32::NAN; 10], vec![f32::NAN; 10]);
            let buffers = [&mut padded, &mut tiles];
            let relu = case.finish.relu;
            winograd::convolve(isa, &kernel, &input, size, &bias, start, relu, buffers, &mut output);
            let worst = worst(&output, &expected);
            assert!(worst < 5e-5, "case {number}, {variant:?}, {isa:?}: off by {worst}");
        }
    }
}

#[test]
fn fast_blocks_agree_with_the_definition_and_their_gradients_with_direct_ones() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let block = |inputs: &[(Sampling, [usize; 2], usize)], outputs, residual, pool| Case {
        images: if cfg!(miri) { 2 } else { 37 },
        inputs: inputs.to_vec(),
        outputs,
        residual,
        finish: Finish { relu: true, pool },
    };
    let cases = [
        block(&[(PLAIN, [8, 8], 16)], 32, false, false),
        block(&[(PLAIN, [9, 11], 18)], 17, false, true),
        block(&[(PLAIN, [6, 6], 16)], 16, true, false),
        block(&[(Sampling::Upsampled, [4, 4], 9), (PLAIN, [8, 8], 16)], 24, false, false),
        block(&[(PLAIN, [8, 8], 16), (PLAIN, [8, 8], 5)], 24, true, false),
        block(&[(STRIDED, [8, 8], 16)], 24, false, false),
    ];
    for (number, case) in cases.iter().enumerate() {
        for (isa, normed) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
            let values = case.values(normed, &mut rng);
            let expected = case.reference(&values);
            let upstream: Vec<f64> = expected.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
            for wanted in [ALL, Wanted { inputs: [true; 2], ..Wanted::default() }] {
                let what = format!("case {number}, batch norm {normed}, {isa:?}");
                let (direct, exact) = kernels(isa, case, &values, &upstream, wanted, Precision::Direct);
                let (output, gradients) = kernels(isa, case, &values, &upstream, wanted, Precision::Fast);
                let off = worst(&output, &expected);
                assert!(off < 5e-5, "{what}: off by {off}");
                let plain = case.inputs.iter().any(|input| input.0 == PLAIN);
                assert_eq!(output != direct, plain && !cfg!(miri), "{what}: the other way to sum");
                // A value beside a kink of the ReLU or of a maximum may fall to its other side.
                for (fast, exact) in gradients.inputs.iter().zip(&exact.inputs) {
                    let far = fast.iter().zip(exact.iter()).filter(|(a, b)| (**a - **b).abs() > 2e-4);
                    assert!(far.count() * 100 <= exact.len(), "{what}: gradients differ");
                }
            }
        }
    }
}

#[test]
fn few_channels_and_few_tiles_are_left_to_the_direct_sum() {
    assert_eq!(winograd::worthwhile(3, 32, [32, 32]), None);
    assert_eq!(winograd::worthwhile(64, 64, [1, 1]), None);
    assert_eq!(winograd::worthwhile(64, 64, [2, 2]), Some(Variant::Two));
    assert_eq!(winograd::worthwhile(64, 64, [16, 16]), Some(Variant::Four));
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (number, case) in cases().iter().enumerate() {
        for normed in [false, true] {
            let values = case.values(normed, &mut rng);
            let upstream: Vec<f64> =
                case.reference(&values).iter().map(|_| f64::from(rng.random_range(-1.0_f32..1.0))).collect();
            let loss = |values: &Values| -> f64 {
                case.reference(values).iter().zip(&upstream).map(|(y, g)| y * g).sum()
            };
            for isa in Isa::available() {
                let (_, gradients) = kernels(isa, case, &values, &upstream, ALL, Precision::Direct);
                let mut parts: Vec<(&str, &[f32], Part)> = vec![
                    ("weight", &gradients.weight, |values| &mut values.weight),
                    ("input", &gradients.inputs[0], |values| &mut values.inputs[0]),
                    ("shift", &gradients.shift, |values| values.factors.last_mut().expect("a shift")),
                ];
                if case.inputs.len() == 2 {
                    parts.push(("second input", &gradients.inputs[1], |values| &mut values.inputs[1]));
                }
                if case.residual {
                    parts.push(("residual", &gradients.residual, |values| &mut values.residual));
                }
                if normed {
                    parts.push(("scale", &gradients.scale, |values| &mut values.factors[0]));
                }
                for (name, gradient, part) in parts {
                    agrees_along_lines(
                        &format!("case {number}, batch norm {normed}, {isa:?}: {name}"),
                        &values,
                        gradient,
                        part,
                        loss,
                        &mut rng,
                    );
                }
            }
        }
    }
}

type Part = fn(&mut Values) -> &mut Vec<f64>;

/// Slopes of the loss along a few random lines, and along a few coordinates, against the gradient.
fn agrees_along_lines(
    what: &str,
    values: &Values,
    gradient: &[f32],
    part: Part,
    loss: impl Fn(&Values) -> f64,
    rng: &mut ChaCha8Rng,
) {
    let mut values = values.clone();
    let at = part(&mut values).clone();
    assert_eq!(gradient.len(), at.len(), "{what}");
    let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    for line in 0..if cfg!(miri) { 2 } else { 5 } {
        let mut direction: Vec<f64> = if line < 2 {
            at.iter().map(|_| rng.random_range(-1.0..1.0)).collect()
        } else {
            let only = rng.random_range(0..at.len());
            (0..at.len()).map(|index| if index == only { 1.0 } else { 0.0 }).collect()
        };
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        direction.iter_mut().for_each(|d| *d /= length);
        let mut slope = |step: f64| {
            let mut moved = |sign: f64| {
                *part(&mut values) = at.iter().zip(&direction).map(|(a, d)| a + sign * step * d).collect();
                loss(&values)
            };
            (moved(1.0) - moved(-1.0)) / (2.0 * step)
        };
        let expected: f64 = gradient.iter().zip(&direction).map(|(&g, d)| f64::from(g) * d).sum();
        // A kink of a ReLU or a maximum may lie within one step, not within all.
        let worst = [1e-4, 1e-5, 1e-6]
            .into_iter()
            .map(|step| (slope(step) - expected).abs() / (1.0 + norm))
            .fold(f64::INFINITY, f64::min);
        assert!(worst < 1e-5, "{what}: slope off by {worst} of {norm}");
    }
}

#[test]
fn gradients_that_nobody_asks_for_are_not_computed() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let case = &cases()[1];
    for normed in [false, true] {
        let values = case.values(normed, &mut rng);
        let upstream = vec![1.0; case.reference(&values).len()];
        let (_, gradients) =
            kernels(Isa::best(), case, &values, &upstream, Wanted::default(), Precision::Direct);
        assert!(gradients.inputs.iter().all(|gradient| gradient.is_empty()));
        assert!(gradients.weight.is_empty() && gradients.shift.is_empty() && gradients.scale.is_empty());
    }
}

#[test]
fn results_are_the_same_bytes_for_any_number_of_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let case = Case { images: 37, ..cases().swap_remove(1) };
    let values = case.values(true, &mut rng);
    let upstream: Vec<f64> = case.reference(&values).iter().map(|_| rng.random_range(-1.0..1.0)).collect();
    for precision in [Precision::Direct, Precision::Fast] {
        let values = if precision == Precision::Fast {
            Values { factors: values.factors[..1].to_vec(), ..values.clone() }
        } else {
            values.clone()
        };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| kernels(Isa::best(), &case, &values, &upstream, ALL, precision))
        };
        let (output, gradients) = run(1);
        for threads in [2, 3, 8] {
            let (other, others) = run(threads);
            assert_eq!(output, other);
            assert_eq!(gradients.weight, others.weight);
            assert_eq!(gradients.inputs[0][..], others.inputs[0][..]);
            assert_eq!((&gradients.scale, &gradients.shift), (&others.scale, &others.shift));
        }
    }
}

#[test]
fn nan_is_not_hidden_by_the_relu() {
    let case = &cases()[0];
    let mut values = case.values(false, &mut ChaCha8Rng::seed_from_u64(5));
    values.inputs[0][0] = f64::NAN;
    let upstream = vec![0.0; case.reference(&values).len()];
    for isa in Isa::available() {
        let (output, _) = kernels(isa, case, &values, &upstream, ALL, Precision::Direct);
        assert!(output[0].is_nan(), "{isa:?}");
    }
}

#[test]
fn maxima_and_their_gradients_leave_out_an_odd_edge() {
    for isa in Isa::available() {
        let input: Vec<f32> = (0..15).map(|value| value as f32).collect();
        let (output, winners) = max_pool(isa, &input, [3, 5], 1);
        assert_eq!((&output[..], &winners[..]), (&[6.0, 8.0][..], &[3, 3][..]));
        let gradient = max_pool_backward(isa, &[1.0, 2.0], &winners, [3, 5], 1);
        let mut expected = [0.0; 15];
        (expected[6], expected[8]) = (1.0, 2.0);
        assert_eq!(gradient[..], expected[..]);
    }
}

#[test]
fn dense_layers_agree_with_the_definition_and_their_gradients_too() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let sizes = [[1, 1, 1], [5, 3, 7], [24, 130, 16], [29, 257, 43], [3, 128, 24]];
    for [rows, inputs, outputs] in sizes.into_iter().filter(|size| !cfg!(miri) || size[1] < 10) {
        let mut draw =
            |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (x, w, b, g) = (draw(rows * inputs), draw(inputs * outputs), draw(outputs), draw(rows * outputs));
        let all: Vec<u32> = (0..inputs as u32).collect();
        let product = |kept: &[u32], relu: bool| -> Vec<f64> {
            indices(rows, outputs, 1)
                .map(|(row, output, _)| {
                    let at = |input: u32| {
                        let input = input as usize;
                        f64::from(x[row * inputs + input]) * f64::from(w[input * outputs + output])
                    };
                    let sum = f64::from(b[output]) + kept.iter().map(|&input| at(input)).sum::<f64>();
                    if relu { sum.max(0.0) } else { sum }
                })
                .collect()
        };
        for (isa, relu) in Isa::available().into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
            let what = format!("{rows} rows, {inputs} to {outputs}, relu {relu}, {isa:?}");
            let matrix = Matrix::new(&w, inputs, outputs, 1.0);
            let output = dense(isa, &x, &matrix, &b, relu);
            assert!(worst(&output, &product(&all, relu)) < 1e-5, "{what}");
            // One group of networks and a part of another.
            let networks: Vec<Vec<u32>> = (0..6)
                .map(|network| all.iter().copied().filter(|input| (input + network) % 3 != 1).collect())
                .collect();
            let found = thinned(isa, &x, &matrix, &networks, &b, relu);
            assert_eq!(found.len(), networks.len());
            for (network, (found, kept)) in found.iter().zip(&networks).enumerate() {
                assert!(worst(found, &product(kept, relu)) < 1e-5, "{what}, thinned network {network}");
            }
            let found =
                dense_backward(isa, &x, &w, [inputs, outputs], relu.then_some(&output[..]), &g, true, true);
            let slope = |row: usize, output_at: usize| {
                let index = row * outputs + output_at;
                if relu && output[index] <= 0.0 { 0.0 } else { f64::from(g[index]) }
            };
            let bias: Vec<f64> =
                (0..outputs).map(|output| (0..rows).map(|row| slope(row, output)).sum()).collect();
            assert!(worst(&found.bias, &bias) < 1e-5, "{what}: bias");
            let weight: Vec<f64> = indices(inputs, outputs, 1)
                .map(|(input, output, _)| {
                    (0..rows).map(|row| f64::from(x[row * inputs + input]) * slope(row, output)).sum()
                })
                .collect();
            assert!(worst(&found.weight, &weight) < 1e-5, "{what}: weight");
            let values: Vec<f64> = indices(rows, inputs, 1)
                .map(|(row, input, _)| {
                    (0..outputs)
                        .map(|output| f64::from(w[input * outputs + output]) * slope(row, output))
                        .sum()
                })
                .collect();
            assert!(worst(&found.values, &values) < 1e-5, "{what}: values");
        }
    }
}

#[test]
fn dense_layers_are_the_same_bytes_for_any_number_of_threads() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (x, w, b, g) = (draw(61 * 300), draw(300 * 50), draw(50), draw(61 * 50));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let output = dense(Isa::best(), &x, &Matrix::new(&w, 300, 50, 1.0), &b, true);
            let found = dense_backward(Isa::best(), &x, &w, [300, 50], Some(&output[..]), &g, true, true);
            (output.to_vec(), found.values.to_vec(), found.weight.to_vec(), found.bias)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn the_logistic_function_is_exact_to_single_precision() {
    let values: Vec<f32> = (-2000..=2000).map(|step| step as f32 * 0.05).collect();
    let mut found = vec![0.0; values.len()];
    for isa in Isa::available() {
        elementwise::logistic(isa, &values, &mut found);
        for (value, found) in values.iter().zip(&found) {
            let expected = 1.0 / (1.0 + (-f64::from(*value)).exp());
            // Below -87 the true value is under 1e-37, and the cut-off argument's is 1.6e-38.
            let off = (f64::from(*found) - expected).abs();
            assert!(off <= 3e-7 * expected + 2e-38, "{value}: {found} and {expected}, {isa:?}");
        }
        let mut nan = [0.0];
        elementwise::logistic(isa, &[f32::NAN], &mut nan);
        assert!(nan[0].is_nan());
    }
}

#[test]
fn losses_agree_with_their_definition() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let (a, b) = (draw(20_001), draw(20_001));
    let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    for isa in Isa::available() {
        assert!((squared_error(isa, &a, &b) - expected).abs() < 1e-5 * expected);
        let difference = scaled_difference(isa, &a, &b, 2.0);
        assert!(difference.iter().zip(a.iter().zip(&b)).all(|(d, (a, b))| (d - 2.0 * (a - b)).abs() < 1e-6));
    }
    // Two classes, z = (ln 4, 0) at T = 2: softmax = (2/3, 1/3); p = (1, 0) costs ln(3/2) and has the gradient (−1/3, 1/3)/2.
    let (loss, gradient) = soft_cross_entropy(&[4f32.ln(), 0.0], &[1.0, 0.0], 2, 2.0);
    assert!((loss - 1.5f64.ln()).abs() < 1e-7);
    assert!((gradient[0] + 1.0 / 6.0).abs() < 1e-6 && (gradient[1] - 1.0 / 6.0).abs() < 1e-6);
}
