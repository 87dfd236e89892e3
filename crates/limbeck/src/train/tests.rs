//! The loop learns, repeats itself, resumes to the same bytes, and refuses what cannot be trained.

use burn::tensor::Device;

use super::*;
use crate::error::Error;
use crate::network::{Architecture, ClassifierSpec, TrainedClassifier};
use crate::progress::Silent;
use crate::testing::{blocks, tiny_spec};

fn config(epochs: usize) -> TrainConfig {
    TrainConfig {
        epochs,
        batch: 8,
        optimiser: OptimiserConfig::Adam { weight_decay: 0.0 },
        learning_rate: 0.01,
        schedule: Schedule::OneCycle { warmup: 0.25 },
        patience: 0,
        label_smoothing: 0.0,
        averaging: 0.0,
        augmentation: Augmentation {
            shift: 0.5,
            rotation: 5.0,
            scale: 0.05,
            brightness: 0.1,
            ..Augmentation::default()
        },
    }
}

fn train(
    config: &TrainConfig,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> crate::Result<(TrainedClassifier, Vec<Epoch>)> {
    train_classifier(
        ClassifierSpec { width: 8, hidden: 16, ..tiny_spec(Architecture::Vgg, 4, 5.0) },
        &blocks(64, 4, 1),
        &Targets::Labels,
        &blocks(32, 4, 2),
        config,
        &Device::flex(),
        Seed::new(7),
        checkpoints,
        progress,
    )
}

fn bytes(model: &TrainedClassifier) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    model.save(&path).expect("it is written");
    std::fs::read(path).expect("it is there")
}

#[test]
fn a_small_network_learns_four_plain_classes_and_repeats_itself_to_the_byte() {
    let (model, epochs) = train(&config(15), &Checkpoints::none(), &Silent).expect("it trains");
    let best = epochs.iter().map(|epoch| epoch.validation.metric).fold(0.0, f64::max);
    assert!(best > 0.9, "accuracy {best}, chance is 0.25: {epochs:?}");
    let (again, _) = train(&config(15), &Checkpoints::none(), &Silent).expect("it trains");
    assert!(bytes(&model) == bytes(&again), "same seed, other weights");
}

/// Asks to stop after some batches, as Ctrl-C does.
struct StopsAfter(std::sync::atomic::AtomicI64);

impl Progress for StopsAfter {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0
    }
}

#[test]
fn a_stopped_training_goes_on_from_its_checkpoint_to_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = Checkpoints::at(folder.path().join("run.checkpoint"));
    for sgd in [false, true] {
        let mut config = config(3);
        if sgd {
            config.optimiser = OptimiserConfig::Sgd { momentum: 0.9, weight_decay: 1e-4 };
        }
        let (straight, curve) = train(&config, &Checkpoints::none(), &Silent).expect("it trains");
        // 8 batches an epoch: stopped in the third epoch, two checkpoints behind it.
        let stopped = train(&config, &checkpoints, &StopsAfter(20.into()));
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
        let (resumed, resumed_curve) = train(&config, &checkpoints, &Silent).expect("it goes on");
        assert_eq!(curve, resumed_curve);
        assert!(bytes(&straight) == bytes(&resumed), "sgd {sgd}: resumed to other weights");
        checkpoints.clear().expect("it is removed");
        assert!(!folder.path().join("run.checkpoint").exists());
    }
}

#[test]
fn a_torn_checkpoint_is_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.checkpoint");
    let stopped = train(&config(3), &Checkpoints::at(&path), &StopsAfter(10.into()));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    let whole = std::fs::read(&path).expect("one epoch is kept");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("it is cut");
    let (model, _) = train(&config(1), &Checkpoints::at(&path), &Silent).expect("it starts over");
    let (fresh, _) = train(&config(1), &Checkpoints::none(), &Silent).expect("it trains");
    assert!(bytes(&model) == bytes(&fresh));
}

#[test]
fn early_stopping_keeps_the_best_epoch() {
    let mut config = config(40);
    config.patience = 2;
    let (_, epochs) = train(&config, &Checkpoints::none(), &Silent).expect("it trains");
    let best = epochs
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.validation.loss.total_cmp(&b.1.validation.loss))
        .expect("epochs")
        .0;
    assert!(epochs.len() < 40, "never stopped");
    assert_eq!(epochs.len() - 1 - best, 2, "stopped {} epochs after the best", epochs.len() - 1 - best);
}

#[test]
fn a_loss_that_leaves_the_finite_numbers_is_reported_with_its_place() {
    let mut config = config(2);
    config.optimiser = OptimiserConfig::Sgd { momentum: 0.9, weight_decay: 0.0 };
    config.learning_rate = 1e30;
    let error = train(&config, &Checkpoints::none(), &Silent).expect_err("it diverges").to_string();
    assert!(error.contains("epoch") && error.contains("learning rate"), "{error}");
}

#[test]
fn weights_survive_the_disk_and_another_kind_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let (model, _) = train(&config(1), &Checkpoints::none(), &Silent).expect("it trains");
    model.save(&path).expect("it is written");
    let read = TrainedClassifier::load(&path, &Device::flex()).expect("it is read");
    let images = crate::testing::uniform([5, 3, 8, 8], 0.0, 1.0, 3);
    use crate::network::Model;
    let logits =
        |model: &TrainedClassifier| crate::tensors::values(model.logits(images.clone())).expect("values");
    assert_eq!(logits(&model), logits(&read));
    let error = crate::network::TrainedAutoencoder::load(&path, &Device::flex())
        .expect_err("a classifier")
        .to_string();
    assert!(
        error.contains("model.safetensors") && error.contains("classifier") && error.contains("autoencoder"),
        "{error}"
    );
}

#[test]
fn soft_cross_entropy_at_a_temperature_has_its_closed_form() {
    // z = (ln 4, 0) at T = 2: softmax(z/2) = (2/3, 1/3); with p = (1, 0) the loss is ln(3/2).
    let logits = burn::tensor::Tensor::<2>::from_floats([[4f32.ln(), 0.0]], &Device::flex());
    let targets = burn::tensor::Tensor::<2>::from_floats([[1.0, 0.0]], &Device::flex());
    let loss = soft_cross_entropy(logits, targets, 2.0).into_scalar::<f32>();
    assert!((loss - 1.5f32.ln()).abs() < 1e-6, "{loss}");
}

#[test]
fn the_scaled_divergence_and_its_gradient_are_those_of_pytorch() {
    // T² · F.kl_div(log_softmax(z/T), softmax(t/T), reduction="batchmean") in double precision, PyTorch 2.
    let cases: [(f64, f64, [f64; 3]); 3] = [
        (1.0, 0.778_374_109_744_676, [-0.295_571_052_957, 0.000_648_334_405, 0.294_922_718_553]),
        (5.0, 2.617_888_560_595_965, [-0.450_605_541_528, -0.137_849_892_416, 0.588_455_433_944]),
        (30.0, 3.065_989_470_030_905, [-0.426_719_458_714, -0.230_286_976_258, 0.657_006_434_971]),
    ];
    let device = Device::flex().autodiff();
    for (temperature, expected, slope) in cases {
        let logits = burn::tensor::Tensor::<2>::from_floats([[1.5, -0.5, 2.0], [0.2, 0.1, -3.0]], &device);
        let logits = logits.require_grad();
        let teacher = burn::tensor::Tensor::<2>::from_floats([[4.0, 1.0, -2.0], [-1.0, 3.0, 0.5]], &device);
        let targets = burn::tensor::activation::softmax(teacher.div_scalar(temperature), 1);
        let loss = scaled_divergence(logits.clone(), targets, temperature);
        let gradient = logits.grad(&loss.backward()).expect("the logits decide it");
        let found = f64::from(loss.into_scalar::<f32>());
        // At T = 30 the divergence is 0.003 before it is scaled: 32 bits leave four digits of it.
        assert!((found - expected).abs() < 2e-3, "{found} at T = {temperature}, expected {expected}");
        let gradient = crate::tensors::values(gradient).expect("values");
        for (found, expected) in gradient.iter().zip(slope) {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "{gradient:?} at T = {temperature}");
        }
    }
}

#[test]
fn soft_labels_of_a_low_temperature_meet_a_student_at_1() {
    // F.cross_entropy(z, softmax(t/5)) of PyTorch 2, for the logits above: low-temperature distillation.
    let device = Device::flex();
    let logits = burn::tensor::Tensor::<2>::from_floats([[1.5, -0.5, 2.0], [0.2, 0.1, -3.0]], &device);
    let teacher = burn::tensor::Tensor::<2>::from_floats([[4.0, 1.0, -2.0], [-1.0, 3.0, 0.5]], &device);
    let targets = burn::tensor::activation::softmax(teacher.div_scalar(5.0), 1);
    let loss = soft_cross_entropy(logits, targets, 1.0).into_scalar::<f32>();
    assert!((loss - 1.597_053).abs() < 1e-5, "{loss}");
}

#[test]
fn the_most_robust_epoch_is_kept_and_of_equals_the_one_of_smaller_loss() {
    let figures = |loss, robust| Validation { loss, metric: 0.0, robust };
    assert!(figures(2.0, Some(0.5)).is_better_than(&figures(1.0, Some(0.4))));
    assert!(!figures(1.0, Some(0.4)).is_better_than(&figures(2.0, Some(0.5))));
    assert!(figures(1.0, Some(0.5)).is_better_than(&figures(2.0, Some(0.5))));
    assert!(figures(1.0, None).is_better_than(&figures(2.0, None)));
    assert!(!figures(1.0, None).is_better_than(&figures(1.0, None)));
    assert!(
        figures(1.0, None).is_better_than(&figures(f64::NAN, None)),
        "an epoch that overflowed is not kept"
    );
    assert!(!figures(f64::NAN, None).is_better_than(&figures(1.0, None)));
}

#[test]
fn averaged_weights_are_another_network_than_the_last_and_repeat_themselves() {
    let config = |averaging| TrainConfig { averaging, ..config(2) };
    let run = |averaging| train(&config(averaging), &Checkpoints::none(), &Silent).expect("it trains");
    let ((averaged, curve), (again, _), (plain, plain_curve)) = (run(0.9), run(0.9), run(0.0));
    assert!(bytes(&averaged) == bytes(&again), "same seed, other weights");
    assert!(bytes(&averaged) != bytes(&plain));
    // The mean is only looked at: the training itself goes the same way.
    let losses = |curve: &[Epoch]| curve.iter().map(|epoch| epoch.train_loss).collect::<Vec<_>>();
    assert_eq!(losses(&curve), losses(&plain_curve));
}
