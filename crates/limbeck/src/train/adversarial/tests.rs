//! Examples stay within their ball and mislead; a network that learns from them withstands more; a teacher is left as it is.

use burn::tensor::Device;

use super::*;
use crate::dataset::Dataset;
use crate::network::{Architecture, ClassifierSpec, Model, Tempered, TrainedClassifier};
use crate::progress::{Progress, Silent};
use crate::testing::{blocks, tiny_spec, untrained};
use crate::train::{
    Augmentation, Checkpoints, Ensemble, Epoch, Lesson, OptimiserConfig, RobustDistillation, Schedule,
    Targets, TrainConfig, teach_classifier, train_classifier,
};

/// Between the classes of [`blocks`] lie 0.39 in pixel units, so this much can be withstood but is not by chance.
const EPS: f64 = 0.12;

fn crafting() -> CraftingConfig {
    CraftingConfig { eps: EPS, ..CraftingConfig::default() }
}

fn spec(temperature: f64) -> ClassifierSpec {
    ClassifierSpec { width: 8, hidden: 16, ..tiny_spec(Architecture::Vgg, 4, temperature) }
}

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
        augmentation: Augmentation::default(),
    }
}

fn lesson(targets: &Targets) -> Lesson<'_> {
    Lesson { targets, adversarial: None, ensemble: None, robust_distillation: None, start: None }
}

fn teach(
    lesson: &Lesson<'_>,
    config: &TrainConfig,
    checkpoints: &Checkpoints,
    progress: &dyn Progress,
) -> Result<(TrainedClassifier, Vec<Epoch>)> {
    let (train, calibration) = (blocks(64, 4, 1), blocks(32, 4, 2));
    let (device, seed) = (Device::flex(), Seed::new(7));
    teach_classifier(spec(1.0), &train, lesson, &calibration, config, &device, seed, checkpoints, progress)
}

fn taught(lesson: &Lesson<'_>, config: &TrainConfig) -> (TrainedClassifier, Vec<Epoch>) {
    teach(lesson, config, &Checkpoints::none(), &Silent).expect("it trains")
}

fn bytes(model: &TrainedClassifier) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    model.save(&path).expect("it is written");
    std::fs::read(path).expect("it is there")
}

fn all(set: &Dataset) -> (Tensor<4>, Vec<u32>) {
    let indices: Vec<usize> = (0..set.len()).collect();
    (set.batch(&indices, &Device::flex()).expect("images"), set.labels(&indices))
}

fn largest(difference: Tensor<4>) -> f64 {
    f64::from(difference.abs().max().into_scalar::<f32>())
}

/// Share of fresh images that a network reads right under PGD of 20 steps and two restarts, which nothing was trained on.
fn under_attack(network: &TrainedClassifier) -> f64 {
    let (images, labels) = all(&blocks(64, 4, 3));
    let pgd = Pgd { step: EPS / 8.0, steps: 20, restarts: 2, seed: Seed::new(5) };
    let attacked = craft(&pgd, network, ThreatModel::linf(EPS), images, &labels).expect("attacked");
    let answers = crate::tensors::argmax(network.logits(attacked)).expect("answers");
    answers.iter().zip(&labels).filter(|(a, b)| a == b).count() as f64 / labels.len() as f64
}

#[test]
fn examples_grow_with_the_ramp_stay_in_the_ball_and_the_box_and_raise_the_loss() {
    let (network, _) = taught(&lesson(&Targets::Labels), &config(4));
    let (images, labels) = all(&blocks(16, 4, 3));
    for random_start in [false, true] {
        let crafting = CraftingConfig { ramp: 0.5, random_start, ..crafting() };
        let at = |place: f64| {
            let mut rng = Seed::new(1).rng("starts");
            crafting.examples(&Tempered(&network), images.clone(), &labels, place, &mut rng).expect("crafted")
        };
        assert_eq!(largest(at(0.0) - images.clone()), 0.0);
        for (place, radius) in [(0.25, EPS / 2.0), (0.5, EPS), (0.9, EPS)] {
            let examples = at(place);
            let reached = largest(examples.clone() - images.clone());
            assert!(reached <= radius + 1e-6 && reached > 0.9 * radius, "{reached} of {radius} at {place}");
            let pixels = crate::tensors::values(examples).expect("pixels");
            assert!(pixels.iter().all(|pixel| (0.0..=1.0).contains(pixel)));
        }
        let loss = |images: Tensor<4>| -> f64 {
            let logits = crate::tensors::values(network.logits(images)).expect("logits");
            let rows = logits.chunks_exact(4).zip(&labels);
            rows.map(|(row, &label)| crate::attack::cross_entropy(row, label as usize, &mut [0.0; 4])).sum()
        };
        assert!(loss(at(1.0)) > loss(images.clone()), "random start {random_start}");
    }
}

#[test]
fn the_step_is_that_of_madry_for_ten_steps_and_that_of_wong_for_one() {
    let step = |steps, step| CraftingConfig { eps: 8.0 / 255.0, steps, step, ..crafting() }.step_size();
    assert!((step(10, 0.0) - 2.0 / 255.0).abs() < 1e-12);
    assert!((step(1, 0.0) - 10.0 / 255.0).abs() < 1e-12);
    assert_eq!(step(10, 0.5), 0.5);
}

#[test]
fn a_network_taught_on_adversarial_examples_withstands_more_and_is_chosen_by_what_it_withstands() {
    let (plain, plain_epochs) = taught(&lesson(&Targets::Labels), &config(12));
    let adversarial = Lesson { adversarial: Some(crafting()), ..lesson(&Targets::Labels) };
    let (robust, epochs) = taught(&adversarial, &config(12));
    let [plain, robust] = [plain, robust].map(|network| under_attack(&network));
    assert!(robust > plain + 0.2, "{robust} with, {plain} without adversarial training");
    assert!(plain_epochs.iter().all(|epoch| epoch.validation.robust.is_none()));
    assert!(epochs.iter().all(|epoch| epoch.validation.robust.is_some()));
}

#[test]
fn a_robust_teacher_s_student_withstands_more_than_a_plain_student() {
    let (plain, _) = taught(&lesson(&Targets::Labels), &config(12));
    let adversarial = Lesson { adversarial: Some(crafting()), ..lesson(&Targets::Labels) };
    let (teacher, _) = taught(&adversarial, &config(12));
    let before = bytes(&teacher);
    let distillation = RobustDistillation { teacher: &teacher, temperature: 30.0, weight: 1.0 };
    let (student, _) =
        taught(&Lesson { robust_distillation: Some(distillation), ..adversarial }, &config(12));
    let [plain, student] = [plain, student].map(|network| under_attack(&network));
    assert!(student > plain + 0.2, "{student} with, {plain} without robust distillation");
    assert!(before == bytes(&teacher), "the teacher has moved");
}

#[test]
fn a_student_that_begins_as_its_teacher_answers_alike_at_its_own_temperature_and_learns_on() {
    let (teacher, _) = taught(&lesson(&Targets::Labels), &config(6));
    let other = spec(10.0);
    let fresh =
        other.init(&Device::flex().autodiff(), &mut Seed::new(9).rng("weights")).expect("the spec fits");
    let begun = teacher.begin(fresh, &other).expect("the same shape");
    let begun = TrainedClassifier::freeze(&begun, other, &Device::flex());
    let (images, _) = all(&blocks(16, 4, 3));
    let logits = |model: &dyn Model| crate::tensors::values(model.logits(images.clone())).expect("values");
    for (found, expected) in logits(&Tempered(&begun)).iter().zip(logits(&teacher)) {
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found}, expected {expected}");
    }
    let first_loss = |lesson: &Lesson<'_>| taught(lesson, &config(1)).1[0].train_loss;
    let with = first_loss(&Lesson { start: Some(&teacher), ..lesson(&Targets::Labels) });
    let without = first_loss(&lesson(&Targets::Labels));
    assert!(with < without / 2.0, "a loss of {with} from the teacher's weights, {without} from random ones");
}

#[test]
fn a_start_of_another_shape_is_refused() {
    let wider = ClassifierSpec { width: 16, ..spec(1.0) };
    let start = untrained(wider, 5);
    let begun = Lesson { start: Some(&start), ..lesson(&Targets::Labels) };
    let error = teach(&begun, &config(1), &Checkpoints::none(), &Silent).expect_err("refused").to_string();
    assert!(error.contains("another shape"), "{error}");
}

#[test]
fn robust_distillation_of_weight_0_is_plain_training() {
    let (teacher, _) = taught(&lesson(&Targets::Labels), &config(1));
    let distillation = RobustDistillation { teacher: &teacher, temperature: 30.0, weight: 0.0 };
    let nothing_of_it = Lesson {
        adversarial: Some(crafting()),
        robust_distillation: Some(distillation),
        ..lesson(&Targets::Labels)
    };
    let (found, epochs) = taught(&nothing_of_it, &config(1));
    let (expected, plain_epochs) = taught(&lesson(&Targets::Labels), &config(1));
    assert_eq!(epochs[0].train_loss, plain_epochs[0].train_loss);
    assert!(bytes(&found) == bytes(&expected), "other weights");
}

/// Asks to stop after some batches, as Ctrl-C does.
struct StopsAfter(std::sync::atomic::AtomicI64);

impl Progress for StopsAfter {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 0
    }
}

#[test]
fn a_stopped_robust_training_goes_on_to_the_same_bytes() {
    let (teacher, _) = taught(&lesson(&Targets::Labels), &config(1));
    let config = TrainConfig { averaging: 0.9, ..config(3) };
    for ensemble in [None, Some(Ensemble { networks: &[&teacher], share: 0.5 })] {
        let everything = Lesson {
            adversarial: Some(CraftingConfig { steps: 2, ramp: 0.5, ..crafting() }),
            ensemble,
            robust_distillation: Some(RobustDistillation {
                teacher: &teacher,
                temperature: 5.0,
                weight: 0.5,
            }),
            start: Some(&teacher),
            ..lesson(&Targets::Labels)
        };
        let (straight, curve) = taught(&everything, &config);
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = Checkpoints::at(folder.path().join("run.checkpoint"));
        // 8 batches an epoch: stopped in the third epoch, two checkpoints behind it.
        let stopped = teach(&everything, &config, &checkpoints, &StopsAfter(20.into()));
        assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
        let (resumed, resumed_curve) =
            teach(&everything, &config, &checkpoints, &Silent).expect("it goes on");
        assert_eq!(curve, resumed_curve);
        assert!(bytes(&straight) == bytes(&resumed), "resumed to other weights");
    }
}

/// A plain network of another seed, which nothing else is like.
fn stranger(seed: u64) -> TrainedClassifier {
    let (train, calibration, targets) = (blocks(64, 4, 1), blocks(32, 4, 2), Targets::Labels);
    let (device, none) = (Device::flex(), Checkpoints::none());
    let (spec, config, seed) = (spec(1.0), config(12), Seed::new(seed));
    let trained =
        train_classifier(spec, &train, &targets, &calibration, &config, &device, seed, &none, &Silent);
    trained.expect("it trains").0
}

#[test]
fn a_network_that_begins_as_another_and_learns_from_its_examples_withstands_them_and_leaves_it_alone() {
    let teacher = stranger(20);
    let before = bytes(&teacher);
    let (images, labels) = all(&blocks(64, 4, 3));
    let pgd = Pgd { step: EPS / 4.0, steps: 10, restarts: 1, seed: Seed::new(5) };
    let attacked = craft(&pgd, &teacher, ThreatModel::linf(EPS), images, &labels).expect("attacked");
    let right = |network: &TrainedClassifier| {
        let answers = crate::tensors::argmax(network.logits(attacked.clone())).expect("answers");
        answers.iter().zip(&labels).filter(|(a, b)| a == b).count()
    };
    let begun = Lesson { start: Some(&teacher), ..lesson(&Targets::Labels) };
    let ensemble = Some(Ensemble { networks: &[&teacher], share: 0.5 });
    let (plain, _) = taught(&begun, &config(2));
    let (student, epochs) = taught(&Lesson { adversarial: Some(crafting()), ensemble, ..begun }, &config(2));
    assert!(epochs.iter().all(|epoch| epoch.validation.robust.is_some()));
    assert!(before == bytes(&teacher), "the teacher has moved");
    let [teacher, plain, student] = [&teacher, &plain, &student].map(right);
    assert!(teacher < 8, "an attack that leaves {teacher} of 64 right shows nothing");
    assert!(student > plain + 20, "{student} of 64 right with, {plain} without the teacher's examples");
}

#[test]
fn an_ensemble_perturbs_its_share_of_a_batch_within_the_ball_and_leaves_the_rest() {
    let (near, far) = (stranger(20), stranger(21));
    let (images, labels) = all(&blocks(16, 4, 3));
    let mut rng = Seed::new(1).rng("draws");
    let mut batch = |share, networks: &[&TrainedClassifier]| {
        let ensemble = Ensemble { networks, share };
        let made = ensemble.batch(&crafting(), images.clone(), &labels, 1.0, &mut rng).expect("crafted");
        let moved = crate::tensors::values((made - images.clone()).abs()).expect("values");
        let largest = |image: &[f32]| image.iter().copied().fold(0.0, f32::max);
        (
            moved.chunks(moved.len() / labels.len()).filter(|image| largest(image) > 0.0).count(),
            largest(&moved),
        )
    };
    let radii: Vec<f64> = (0..8)
        .map(|_| {
            let (perturbed, radius) = batch(0.25, &[&near, &far]);
            assert_eq!(perturbed, 4);
            f64::from(radius)
        })
        .collect();
    assert!(radii.iter().all(|radius| (0.29 * EPS..EPS + 1e-6).contains(radius)), "{radii:?}");
    assert!(radii.iter().any(|radius| (radius - radii[0]).abs() > 0.05 * EPS), "{radii:?}");
    assert_eq!(batch(1.0, &[&near]).0, 16);
    assert_eq!(batch(0.01, &[&near]).0, 1, "a share of a small batch is an image at least");
}

#[test]
fn an_ensemble_of_nobody_of_more_classes_and_a_share_out_of_range_are_refused() {
    let refusal = |networks: &[&TrainedClassifier], share| {
        let ensemble = Some(Ensemble { networks, share });
        let lesson = Lesson { adversarial: Some(crafting()), ensemble, ..lesson(&Targets::Labels) };
        teach(&lesson, &config(1), &Checkpoints::none(), &Silent).expect_err("refused").to_string()
    };
    let [fits, other] = [4, 5].map(|classes| untrained(tiny_spec(Architecture::Vgg, classes, 1.0), 5));
    assert!(refusal(&[], 0.5).contains("no networks"));
    assert!(refusal(&[&fits, &other], 0.5).contains("5 classes"));
    assert!(refusal(&[&fits], 1.5).contains("share of 1.5"));
}

#[test]
fn a_teacher_of_other_classes_and_a_weight_that_is_no_share_are_refused() {
    let network = |classes| {
        let spec = tiny_spec(Architecture::Vgg, classes, 1.0);
        untrained(spec, 5)
    };
    let refusal = |classes, weight| {
        let teacher = network(classes);
        let distillation = RobustDistillation { teacher: &teacher, temperature: 30.0, weight };
        let lesson = Lesson { robust_distillation: Some(distillation), ..lesson(&Targets::Labels) };
        teach(&lesson, &config(1), &Checkpoints::none(), &Silent).expect_err("refused").to_string()
    };
    assert!(refusal(3, 1.0).contains("a teacher of 3 outputs"));
    assert!(refusal(4, 1.5).contains("a weight of 1.5"));
}

#[test]
fn adversarial_training_at_a_temperature_still_meets_gradients() {
    // At T = 20 the softmax at T = 1 saturates: examples crafted on z instead of z/T would leave the image where it is.
    let (train, calibration) = (blocks(64, 4, 1), blocks(32, 4, 2));
    let (device, seed, none) = (Device::flex(), Seed::new(7), Checkpoints::none());
    let train = train_classifier(
        spec(20.0),
        &train,
        &Targets::Labels,
        &calibration,
        &config(12),
        &device,
        seed,
        &none,
        &Silent,
    );
    let network = train.expect("it trains").0;
    let (images, labels) = all(&blocks(16, 4, 3));
    let crafting = CraftingConfig { random_start: false, ..crafting() };
    let mut rng = Seed::new(1).rng("starts");
    let examples =
        crafting.examples(&Tempered(&network), images.clone(), &labels, 1.0, &mut rng).expect("crafted");
    let moved = (examples - images).abs().mean().into_scalar::<f32>();
    assert!(f64::from(moved) > 0.5 * EPS, "moved by {moved} on average");
}
