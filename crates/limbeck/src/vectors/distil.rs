//! Distillation: a teacher on the purified rows, and a student that learns its answers.
//!
//! The losses and temperatures are those of images ([`Method`](crate::distill::Method)). Of classes, `defensive` trains the teacher at temperature T, and its soft labels softmax(z/T) are
//! learnt at the same T (Papernot 2016); `ltd` learns them at 1 from rows that are perturbed against the student (Chen & Lee 2021); `ard` asks the student on perturbed rows for what the
//! teacher answers to them as they are (Goldblum 2020). Of quantities, the student learns the teacher's outputs. Either, or both, may be trained on rows that are perturbed against
//! them. Everybody answers at T = 1.

use burn::tensor::activation::softmax;

use super::config::VectorDistill;
use super::learn::{Lesson, School, outputs_of, train_mlp};
use super::network::{MlpSpec, TrainedMlp};
use super::set::{VectorSet, matrix};
use crate::distill::StudentLesson;
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::RobustLoss;

/// What distillation leaves.
pub(super) struct Distilled {
    /// `None` for a student that learns from the table itself.
    pub(super) teacher: Option<TrainedMlp>,
    pub(super) student: TrainedMlp,
    /// The probabilities that the student's doubts are measured against, one row a purified row; empty of a regression.
    pub(super) references: Vec<f32>,
}

/// Trains teacher and student on purified rows.
///
/// # Errors
/// Refuses `ard` and `ltd` of a regression, fewer than two rows, and everything that training refuses.
pub(super) fn distil(
    purified: &VectorSet,
    spec: &MlpSpec,
    config: &VectorDistill,
    school: School<'_>,
    seed: Seed,
) -> Result<Distilled> {
    config.check_for(spec.answers.classes())?;
    let is_classification = spec.answers.classes().is_some();
    let config = config.as_of_images();
    let lesson = config.method.row().lesson;
    let at = |temperature: f64| MlpSpec {
        temperature: if is_classification { temperature } else { 1.0 },
        ..spec.clone()
    };
    let taught_rows = Lesson::plain(purified);
    let (teacher, answers) = match lesson {
        StudentLesson::Labels => (None, None),
        _ => {
            let of_teacher = Lesson { adversarial: config.teacher_crafting(), ..taught_rows };
            let (spec, seed) = (at(config.teacher_temperature()), seed.child("teacher"));
            let teacher = train_mlp(spec, of_teacher, school, seed, "training the teacher")?;
            let answers = answers_of(&teacher, purified)?;
            (Some(teacher), Some(answers))
        }
    };
    let loss = RobustLoss { temperature: config.temperature(), weight: config.weight };
    let is_imitated = lesson == StudentLesson::RobustDistillation;
    let of_student = Lesson {
        taught: answers.as_deref().filter(|_| !is_imitated),
        adversarial: config.student_crafting(),
        imitated: teacher.as_ref().filter(|_| is_imitated).map(|teacher| (teacher, loss)),
        ..taught_rows
    };
    let spec = at(config.student_temperature());
    let student = train_mlp(spec, of_student, school, seed.child("student"), "training the student")?;
    let references = match (is_classification, answers) {
        (false, _) => Vec::new(),
        (true, Some(answers)) => answers,
        (true, None) => answers_of(&student, purified)?,
    };
    Ok(Distilled { teacher, student, references })
}

/// softmax(z/T) at the temperature of a classifier's training, or the values of a regression, row by row.
fn answers_of(model: &TrainedMlp, set: &VectorSet) -> Result<Vec<f32>> {
    let outputs = outputs_of(model, set)?;
    if model.spec().answers.classes().is_none() {
        return Ok(outputs);
    }
    let logits = matrix(outputs, set.outputs(), &model.device());
    values(softmax(logits.div_scalar(model.spec().temperature), 1))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::Rng as _;

    use super::super::config::{VectorConfig, VectorMethod};
    use super::super::network::tests::classes;
    use super::super::scale::{AnswerScale, Answers, InputScale};
    use super::*;
    use crate::attack::{Pgd, ThreatModel, craft};
    use crate::distill::AdversarialNetworks;
    use crate::progress::Silent;
    use crate::tensors::argmax;
    use crate::train::{CraftingConfig, TrainConfig};

    const FEATURES: usize = 10;

    /// Two features tell the class from 0.4 apart, the other eight from 0.06 apart and together better: a network that leans on these is easily misled.
    const EPS: f64 = 0.08;

    fn set(rows: usize, seed: u64) -> VectorSet {
        let mut rng = Seed::new(seed).rng("rows");
        let labels: Vec<u32> = (0..rows).map(|row| (row % 2) as u32).collect();
        let mut feature = |label: u32, place: usize| {
            let (gap, noise) = if place < 2 { (0.2, 0.22) } else { (0.03, 0.03) };
            let centre = 0.5 + if label == 0 { -gap } else { gap };
            (centre + rng.random_range(-noise..noise)) as f32
        };
        let values = labels
            .iter()
            .flat_map(|&label| (0..FEATURES).map(move |place| (label, place)))
            .map(|(label, place)| feature(label, place))
            .collect();
        VectorSet::new(FEATURES, values, Answers::Classes(labels, 2))
    }

    fn spec(answers: AnswerScale) -> MlpSpec {
        let inputs = InputScale {
            names: (0..FEATURES).map(|place| format!("x[{place}]")).collect(),
            low: vec![0.0; FEATURES],
            high: vec![1.0; FEATURES],
            centre: (0..FEATURES).map(|place| [0.5, if place < 2 { 4.0 } else { 25.0 }]).collect(),
        };
        MlpSpec { inputs, answers, hidden: vec![16], dropout: 0.1, temperature: 1.0 }
    }

    fn settings(method: VectorMethod, adversarial: AdversarialNetworks) -> VectorDistill {
        let crafting = CraftingConfig { eps: EPS, ..CraftingConfig::default() };
        VectorDistill { method, adversarial, crafting, ..VectorConfig::default().distill }
    }

    fn distilled(config: VectorDistill, epochs: usize) -> Distilled {
        let (device, train) = (Device::flex(), TrainConfig::one_cycle(epochs, 32, 0.01));
        let school = School { train: &train, device: &device, progress: &Silent };
        distil(&set(400, 1), &spec(classes(2)), &config, school, Seed::new(7)).expect("it trains")
    }

    /// Answers to fresh rows; equal answers of two networks are those of equal weights.
    fn outputs(model: &TrainedMlp) -> Vec<f32> {
        outputs_of(model, &set(20, 3)).expect("outputs")
    }

    /// Share of fresh rows that a network reads right under PGD of 20 steps, at its own temperature.
    fn under_attack(model: &TrainedMlp) -> f64 {
        let rows = set(200, 2);
        let all: Vec<usize> = (0..rows.len()).collect();
        let pgd = Pgd { step: EPS / 8.0, steps: 20, restarts: 1, seed: Seed::new(5) };
        let attacked = super::super::squared_error::against(model, &rows, &all, |model, labels| {
            craft(&pgd, model, ThreatModel::linf(EPS), rows.batch(&all, &Device::flex()), labels)
        });
        let answers = argmax(model.outputs(attacked.expect("attacked"))).expect("answers");
        answers.iter().zip(rows.labels(&all)).filter(|(found, label)| **found == *label).count() as f64
            / all.len() as f64
    }

    #[test]
    fn students_of_robust_methods_withstand_more_than_a_plainly_distilled_one() {
        use AdversarialNetworks::{Both, None, Teacher};
        let of = |method, adversarial| distilled(settings(method, adversarial), 8);
        let plain = of(VectorMethod::Defensive, None);
        let [ltd, ard] = [of(VectorMethod::Ltd, None), of(VectorMethod::Ard, Teacher)];
        let adversarial = of(VectorMethod::Defensive, Both);
        let temperatures = |distilled: &Distilled| {
            let teacher = distilled.teacher.as_ref().expect("a teacher");
            [teacher, &distilled.student].map(|model| model.spec().temperature)
        };
        assert_eq!([&plain, &ltd, &ard].map(temperatures), [[20.0, 20.0], [5.0, 1.0], [1.0, 1.0]]);
        let kept = [&plain, &ltd, &ard, &adversarial].map(|distilled| under_attack(&distilled.student));
        assert!(kept[1..].iter().all(|kept_of| *kept_of > kept[0] + 0.1), "{kept:?}");
    }

    #[test]
    fn perturbed_are_the_rows_of_the_networks_that_are_named() {
        use AdversarialNetworks::{Both, None, Student, Teacher};
        let of = |method, adversarial| {
            let Distilled { teacher, student, .. } = distilled(settings(method, adversarial), 1);
            [outputs(&teacher.expect("a teacher")), outputs(&student)]
        };
        let [none, teacher, student, both] =
            [None, Teacher, Student, Both].map(|networks| of(VectorMethod::Defensive, networks));
        assert!(teacher[0] != none[0] && student[0] == none[0] && both[0] == teacher[0]);
        assert!(student[1] != none[1] && both[1] != teacher[1]);
        assert!(of(VectorMethod::Adversarial, None) == both, "`adversarial` is `defensive` with both");
    }

    #[test]
    fn robust_distillation_of_weight_0_is_plain_training_and_its_weight_counts() {
        let ard = |weight| VectorDistill { weight, ..settings(VectorMethod::Ard, AdversarialNetworks::None) };
        let student = |config| distilled(config, 1).student;
        let plain = student(settings(VectorMethod::None, AdversarialNetworks::None));
        assert!(outputs(&student(ard(0.0))) == outputs(&plain), "other weights");
        let [half, all] = [0.5, 1.0].map(|weight| outputs(&student(ard(weight))));
        assert!(half != outputs(&plain) && all != half);
    }

    #[test]
    fn quantities_are_learnt_from_perturbed_rows_by_whoever_is_named_and_have_no_softmax() {
        let values = set(60, 1).batch(&(0..60).collect::<Vec<_>>(), &Device::flex());
        let targets = crate::tensors::values(values.clone()).expect("values");
        let targets = targets.chunks(FEATURES).map(|row| 4.0 * (row[0] - 0.5)).collect();
        let rows = VectorSet::new(
            FEATURES,
            crate::tensors::values(values).expect("values"),
            Answers::Values(targets, 1),
        );
        let scale = AnswerScale::Values { names: vec!["y".into()], mean: vec![0.0], deviation: vec![1.0] };
        let (device, train) = (Device::flex(), TrainConfig::one_cycle(1, 32, 0.01));
        let school = School { train: &train, device: &device, progress: &Silent };
        let of = |method, adversarial| {
            let config = settings(method, adversarial);
            distil(&rows, &spec(scale.clone()), &config, school, Seed::new(7))
        };
        let found = |adversarial| of(VectorMethod::Defensive, adversarial).expect("it trains");
        let [plain, student] = [AdversarialNetworks::None, AdversarialNetworks::Student].map(found);
        assert!(outputs(&plain.student) != outputs(&student.student));
        assert_eq!(student.student.spec().temperature, 1.0);
        let error = of(VectorMethod::Ltd, AdversarialNetworks::None).err().expect("refused").to_string();
        assert!(error.contains("ltd for a regression"), "{error}");
    }
}
