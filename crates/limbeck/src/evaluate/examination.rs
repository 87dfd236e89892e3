//! One model under everything that an evaluation has: clean images, each attack, transferred attacks, radii, checks.
//!
//! A run examines each of its models, and `limbeck evaluate` a model of its own, by the same functions.

use super::attack_checkpoint::AttackCheckpoints;
use super::attacked_examples::{ExampleDraw, KeptImages};
use super::attacked_set::AttackedSet;
use super::calibration::calibration;
use super::checklist::{
    Checked, ChecklistConfig, checks_of_attempts, checks_of_sweep, needs_more_classes, probes,
};
use super::eps_curve::{CurveConfig, sweep};
use super::mcnemar::compare;
use super::results::{
    AttackedExample, AttackedRate, Calibration, Check, Comparison, EpsCurve, ModelRow, Outcome, Rate,
    Robustness, Transferred, WorstCase,
};
use super::robustness::{Reading, outcome_under, read};
use super::worst_case::{Attempt, Origin, Outcomes, right_in_worst_case, threat_label, threats, worst_case};
use crate::attack::{AttackConfig, ThreatModel};
use crate::dataset::Dataset;
use crate::distill::{Abstaining, AtTemperature};
use crate::error::Result;
use crate::network::{AmongClasses, Model, Tempered, TrainedClassifier};
use crate::progress::Progress;

/// What every model of an evaluation is put to.
#[derive(Clone, Copy)]
pub struct Trials<'a> {
    /// Images for clean accuracy and calibration.
    pub test: &'a Dataset,
    /// Images that are attacked.
    pub attacked: &'a Dataset,
    /// Attacks, each crafted on the very model that it counts for.
    pub attacks: &'a [AttackConfig],
    /// Radii of the curve.
    pub curve: &'a CurveConfig,
    /// Attacks for checks of the deployed model.
    pub checklist: &'a ChecklistConfig,
    /// What an evaluation that was stopped has attacked already.
    pub checkpoints: &'a AttackCheckpoints,
}

/// Images attacked on one model, to be shown to it and to another.
pub struct Source {
    name: String,
    sets: Vec<(AttackConfig, AttackedSet)>,
}

impl Source {
    /// Attacks the images on `classifier`; attacks that it has too few classes for are left out.
    pub fn craft(
        name: &str,
        classifier: &TrainedClassifier,
        trials: Trials<'_>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let classes = classifier.spec().classes.len();
        Self::craft_on(name, &Tempered(classifier), classes, trials, progress)
    }

    fn craft_on(
        name: &str,
        attacked: &dyn Model,
        classes: usize,
        trials: Trials<'_>,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let possible: Vec<&AttackConfig> =
            trials.attacks.iter().filter(|attack| attack.least_classes() <= classes).collect();
        let craft = |(index, attack): (usize, &&AttackConfig)| {
            let (label, number, count) = (attack.label(), index + 1, possible.len());
            progress.task(&format!("attack {number} of {count} on {name}, {label}"), "images");
            let checkpoint = trials.checkpoints.of(attacked, attack, trials.attacked)?;
            let set = AttackedSet::craft_from(&checkpoint, attacked, attack, trials.attacked, progress)?;
            Ok((**attack, set))
        };
        let sets = possible.iter().enumerate().map(craft).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), sets })
    }

    /// The images as an attack that `is_meant` left them.
    pub fn find(&self, is_meant: impl Fn(&AttackConfig) -> bool) -> Option<&AttackedSet> {
        self.sets.iter().find(|(attack, _)| is_meant(attack)).map(|(_, set)| set)
    }
}

/// A model to be examined.
pub struct Subject<'a> {
    /// Its name in reports.
    pub name: &'a str,
    /// One sentence: what it was trained on.
    pub trained_on: &'a str,
    /// The model.
    pub classifier: &'a TrainedClassifier,
    /// The same with its null rule, if it has one.
    pub abstaining: Option<Abstaining<'a>>,
    /// Another model whose attacked images it is shown too.
    pub transfer: Option<&'a Source>,
    /// Whether attacks are made for checks alone.
    pub probed: bool,
    /// Attacked images that are kept to be looked at; none of a model without a null rule.
    pub examples: Option<ExampleDraw>,
}

/// What came of it.
pub struct Examined {
    /// Accuracy, clean and under each attack on the model itself.
    pub row: ModelRow,
    /// Every attack on the attacked images, transferred ones among them.
    pub attempts: Vec<Attempt>,
    /// Signs that these figures are not what they seem.
    pub checks: Vec<Check>,
    /// A few attacked images.
    pub examples: Vec<AttackedExample>,
    pub(crate) clean_test: Reading,
    clean_attacked: Outcomes,
    threats: Vec<ThreatModel>,
    worst_cases: Vec<WorstCase>,
    curve: Option<EpsCurve>,
    /// At temperature 1, and at that of the rule.
    calibration: Vec<Calibration>,
}

/// Examines a model; what was attacked on it comes beside, for others.
pub fn examine(
    subject: &Subject<'_>,
    trials: Trials<'_>,
    progress: &dyn Progress,
) -> Result<(Examined, Source)> {
    let Subject { name, classifier, abstaining, .. } = *subject;
    progress.task(&format!("accuracy of {name}"), "images");
    let clean_test = read(classifier, trials.test, progress)?;
    let answers = |student: Abstaining<'_>| student.answer_set(trials.attacked, progress);
    let clean_attacked = Outcomes {
        right: read(classifier, trials.attacked, progress)?.right,
        answers: abstaining.map(answers).transpose()?,
    };
    let drawn = subject.examples.zip(clean_attacked.answers.as_ref());
    let mut kept = drawn.map(|(draw, answers)| KeptImages::draw(trials.attacked, answers, draw));
    let own = Source::craft(name, classifier, trials, progress)?;
    // An attack on every output stops where the outlier class wins, which is a null answer: who wants a wrong one looks among the classes.
    let among_classes = (abstaining.is_some() && classifier.spec().outlier).then(|| {
        let (name, classes) = (format!("{name} without its outlier class"), classifier.spec().classes.len());
        Source::craft_on(&name, &AmongClasses(classifier), classes, trials, progress)
    });
    let among_classes = among_classes.transpose()?;
    let mut attempts = Vec::new();
    let its_classes = among_classes.iter().map(|source| (Origin::ItsClasses(source.name.clone()), source));
    let other = subject.transfer.iter().map(|source| (Origin::Other(source.name.clone()), *source));
    for (origin, source) in std::iter::once((Origin::Itself, &own)).chain(its_classes).chain(other) {
        for (attack, set) in &source.sets {
            let (right, reached) = outcome_under(classifier, set)?;
            let outcomes = Outcomes { right, answers: None };
            let mut attempt = Attempt { attack: *attack, origin: origin.clone(), outcomes, reached };
            if let Some(student) = abstaining {
                let stored = set.stored(trials.attacked, attack.threat())?;
                attempt.outcomes.answers = Some(student.answer_set(&stored, progress)?);
                kept.iter_mut().try_for_each(|kept| kept.keep(&attempt, &stored))?;
            }
            attempts.push(attempt);
        }
    }
    let attacked = Tempered(classifier);
    let sweep = sweep((name, &attacked), trials.attacked, trials.curve, progress)?;
    let mut checks = checks_of_attempts(name, &attempts);
    checks.extend(sweep.iter().flat_map(|sweep| checks_of_sweep(name, sweep)));
    if subject.probed {
        let checked = Checked { name, model: classifier, attacked: &attacked };
        checks.extend(probes(checked, trials.attacked, trials.checklist, progress)?);
    }
    let classes = classifier.spec().classes.len();
    let impossible = trials.attacks.iter().filter(|attack| attack.least_classes() > classes);
    checks.extend(impossible.map(|attack| needs_more_classes(name, attack, classes)));
    let labels: Vec<u32> = trials.attacked.samples().iter().map(|sample| sample.label).collect();
    let threats = threats(attempts.iter().map(|attempt| &attempt.attack));
    let mut calibrations = vec![calibration(name, &clean_test.confidence, &clean_test.right)?];
    if let Some(Abstaining { rule, .. }) = abstaining {
        let calibrated = AtTemperature { model: classifier, temperature: rule.temperature };
        let Reading { right, confidence } = read(&calibrated, trials.test, progress)?;
        let name = format!("{name}, calibrated to T = {}", crate::text::number(rule.temperature));
        calibrations.push(calibration(&name, &confidence, &right)?);
    }
    let examples = kept.map(|kept| kept.rows()).transpose()?.unwrap_or_default();
    let examined = Examined {
        row: ModelRow {
            model: name.to_owned(),
            trained_on: subject.trained_on.to_owned(),
            clean: Rate::of(clean_test.right.iter().copied()),
            attacked: rates_of(&attempts, None),
            transferred: [among_classes.as_ref(), subject.transfer]
                .into_iter()
                .flatten()
                .map(|Source { name, .. }| Transferred {
                    crafted_on: name.clone(),
                    attacked: rates_of(&attempts, Some(name)),
                })
                .collect(),
            backdoor: None,
        },
        worst_cases: threats
            .iter()
            .map(|threat| worst_case(name, *threat, &labels, &clean_attacked, &attempts))
            .collect(),
        curve: sweep.map(|sweep| sweep.curve(name)),
        calibration: calibrations,
        attempts,
        checks,
        examples,
        clean_test,
        clean_attacked,
        threats,
    };
    Ok((examined, own))
}

/// Accuracy under those of the attempts that were crafted on what has this name, or on the model as it is.
fn rates_of(attempts: &[Attempt], crafted_on: Option<&str>) -> Vec<AttackedRate> {
    let of = attempts.iter().filter(|attempt| attempt.origin.name() == crafted_on);
    of.map(|attempt| AttackedRate {
        attack: attempt.attack.label(),
        accuracy: Rate::of(attempt.outcomes.right.iter().copied()),
        reached: attempt.reached,
    })
    .collect()
}

/// The figures of all models together; the last is the deployed one, which each other is held against.
///
/// # Errors
/// Refuses models that were shown different images.
pub fn robustness(examined: &[Examined]) -> Result<Robustness> {
    let failed = |model: &Examined| model.checks.iter().any(|check| check.outcome == Outcome::Fail);
    let mut worst_cases: Vec<WorstCase> = Vec::new();
    for threat in shared_threats(examined) {
        let of_threat = |model: &Examined| {
            model.threats.iter().position(|own| *own == threat).map(|at| model.worst_cases[at].clone())
        };
        worst_cases.extend(examined.iter().filter_map(of_threat));
    }
    Ok(Robustness {
        masking_suspected: examined.iter().any(failed),
        worst_cases,
        curves: examined.iter().filter_map(|model| model.curve.clone()).collect(),
        comparisons: comparisons(examined)?,
        calibration: examined.iter().flat_map(|model| model.calibration.clone()).collect(),
    })
}

fn shared_threats(examined: &[Examined]) -> Vec<ThreatModel> {
    threats(examined.iter().flat_map(|model| &model.attempts).map(|attempt| &attempt.attack))
}

fn comparisons(examined: &[Examined]) -> Result<Vec<Comparison>> {
    let Some((deployed, others)) = examined.split_last() else { return Ok(Vec::new()) };
    let pairs = |inputs: &str, right: &dyn Fn(&Examined) -> Vec<bool>| -> Result<Vec<Comparison>> {
        let ours = right(deployed);
        let against = |other: &Examined| {
            compare(inputs, (&deployed.row.model, &ours), (&other.row.model, &right(other)))
        };
        others.iter().map(against).collect()
    };
    let mut comparisons = pairs("clean", &|model| model.clean_test.right.clone())?;
    for threat in shared_threats(examined) {
        let inputs = format!("worst case on its own weights, {}", threat_label(threat));
        // Images that were crafted on others are shown to some models alone: compared is what all had to withstand.
        let right = |model: &Examined| {
            let own = model.attempts.iter().filter(|attempt| attempt.origin == Origin::Itself);
            right_in_worst_case(threat, &model.clean_attacked, own)
        };
        comparisons.extend(pairs(&inputs, &right)?);
    }
    Ok(comparisons)
}

#[cfg(test)]
mod tests {

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::attack::AttackKind;
    use crate::dataset::{Location, decode_image};
    use crate::distill::{AbstentionConfig, NullRule, SoftLabels};
    use crate::network::Architecture;
    use crate::progress::Silent;
    use crate::rng::Seed;
    use crate::testing::{blocks, tiny_spec, untrained};

    fn classifier(classes: usize, seed: u64) -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, classes, 5.0);
        untrained(spec, seed)
    }

    const CURVE: CurveConfig = CurveConfig { eps: Vec::new(), images: 0, steps: 2 };

    fn checklist() -> ChecklistConfig {
        ChecklistConfig {
            images: 4,
            steps: 1,
            restarts: 0,
            queries: 0,
            draws: 0,
            ..ChecklistConfig::default()
        }
    }

    fn subject<'a>(
        name: &'a str,
        classifier: &'a TrainedClassifier,
        source: Option<&'a Source>,
    ) -> Subject<'a> {
        Subject {
            name,
            trained_on: "nothing",
            classifier,
            abstaining: None,
            transfer: source,
            probed: false,
            examples: None,
        }
    }

    #[test]
    fn the_deployed_model_is_shown_what_another_was_attacked_with_and_held_against_it() {
        let (test, attacked) = (blocks(24, 4, 1), blocks(12, 4, 2));
        let attacks = [AttackConfig::linf(AttackKind::Fgsm, 0.05), AttackConfig::l2(AttackKind::Fgsm, 0.5)];
        let checklist = checklist();
        let trials = Trials {
            test: &test,
            attacked: &attacked,
            attacks: &attacks,
            curve: &CURVE,
            checklist: &checklist,
            checkpoints: &AttackCheckpoints::none(),
        };
        let (undefended, student) = (classifier(4, 1), classifier(4, 2));
        let (first, source) =
            examine(&subject("undefended", &undefended, None), trials, &Silent).expect("examined");
        let (second, _) =
            examine(&subject("student", &student, Some(&source)), trials, &Silent).expect("examined");
        assert!(source.find(|attack| attack.threat() == ThreatModel::l2(0.5)).is_some());
        assert_eq!((first.attempts.len(), second.attempts.len()), (2, 4));
        assert_eq!(second.row.attacked.len(), 2, "the attacks on the model itself");
        assert!(first.row.transferred.is_empty());
        let [shown] = &second.row.transferred[..] else { panic!("one other model") };
        let names = |rates: &[AttackedRate]| rates.iter().map(|rate| rate.attack.clone()).collect::<Vec<_>>();
        assert_eq!((&*shown.crafted_on, names(&shown.attacked)), ("undefended", names(&first.row.attacked)));
        let found = robustness(&[first, second]).expect("the same images");
        let cases: Vec<_> =
            found.worst_cases.iter().map(|case| (case.model.as_str(), case.attacks.len())).collect();
        assert_eq!(cases, [("undefended", 1), ("student", 2), ("undefended", 1), ("student", 2)]);
        for case in &found.worst_cases {
            let best = case.attacks.iter().map(|attack| attack.accuracy.successes).min();
            assert!(Some(case.accuracy.successes) <= best, "{case:?}");
            assert_eq!(case.accuracy.trials, 12);
        }
        let inputs: Vec<_> = found.comparisons.iter().map(|row| (row.inputs.as_str(), row.images)).collect();
        let worst = [
            ("worst case on its own weights, L-infinity eps 0.05", 12),
            ("worst case on its own weights, L2 eps 0.5", 12),
        ];
        assert_eq!(inputs, [("clean", 24), worst[0], worst[1]]);
        assert_eq!(found.calibration.len(), 2);
    }

    #[test]
    fn the_examples_are_what_the_student_was_shown_within_the_ball_and_what_it_answered() {
        let set = blocks(12, 4, 2);
        let attacks = [AttackConfig::linf(AttackKind::Fgsm, 0.05), AttackConfig::l2(AttackKind::Fgsm, 0.5)];
        let checklist = checklist();
        let trials = Trials {
            test: &set,
            attacked: &set,
            attacks: &attacks,
            curve: &CURVE,
            checklist: &checklist,
            checkpoints: &AttackCheckpoints::none(),
        };
        let student = classifier(4, 2);
        let labels = SoftLabels::compute(&student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 4, null_rate: 0.3, ..AbstentionConfig::default() };
        let rule = NullRule::calibrate(&student, &labels, &blocks(60, 4, 1), &config, 1, &Silent);
        let rule = rule.expect("calibrated");
        let asked = Abstaining { student: &student, rule: &rule, autoencoder: None };
        let examples = |abstaining, count| {
            let examples = Some(ExampleDraw { count, seed: Seed::new(1) });
            let subject = Subject { abstaining, examples, ..subject("student", &student, None) };
            examine(&subject, trials, &Silent).expect("examined").0.examples
        };
        let rows = examples(Some(asked), 6);
        assert_eq!(rows.len(), 6);
        assert_eq!(rows, examples(Some(asked), 6), "the same draw, the same bytes");
        assert!(examples(Some(asked), 0).is_empty() && examples(None, 6).is_empty());
        let pixels = |png: &str| {
            let png = STANDARD.decode(png).expect("base64");
            decode_image(&png, None, set.size(), &Location::file("a row")).expect("a picture")
        };
        for (row, attack) in rows.iter().zip(attacks.iter().cycle()) {
            assert_eq!(row.attack, attack.label());
            let image = set.samples().iter().position(|sample| sample.path == row.path).expect("of the set");
            assert_eq!(row.label, set.samples()[image].label);
            let (clean, shown) = (pixels(&row.clean_png), pixels(&row.attacked_png));
            assert_eq!(clean, set.pixels(image).expect("pixels"));
            let changes: Vec<i32> =
                shown.iter().zip(&clean).map(|(a, b)| i32::from(*a) - i32::from(*b)).collect();
            let largest = changes.iter().map(|change| change.abs()).max();
            assert_eq!(largest, Some(i32::from(row.largest_change)));
            if attack.threat() == ThreatModel::linf(0.05) {
                // 0.05 * 255 = 12.75 levels, a full step of which is stored as 12.
                assert_eq!(row.largest_change, 12);
            } else {
                let length = f64::from(changes.iter().map(|change| change.pow(2)).sum::<i32>()).sqrt();
                assert!(length > 0.0 && length <= 0.5 * 255.0 + 1e-3, "{length}");
            }
            let expected = changes.iter().map(|change| (128 + change * i32::from(row.difference_gain)) as u8);
            assert_eq!(pixels(&row.difference_png), expected.collect::<Vec<_>>());
            for (given, pixels) in [(row.clean, clean), (row.attacked, shown)] {
                let alone = set.with_pixels([(image, pixels)]).expect("it fits").subset(&[image]);
                let answer = asked.answer_set(&alone, &Silent).expect("answered")[0];
                assert_eq!((given.class, given.null), (answer.class, answer.null));
                let probability = given.probability.expect("a number");
                assert!((probability - answer.probability).abs() < 1e-5, "{given:?}, {answer:?}");
            }
        }
    }

    #[test]
    fn an_attack_that_needs_more_classes_is_named_as_not_run() {
        let set = blocks(6, 2, 1);
        let attacks =
            [AttackConfig::linf(AttackKind::Fgsm, 0.05), AttackConfig::linf(AttackKind::AutoAttack, 0.05)];
        let checklist = checklist();
        let trials = Trials {
            test: &set,
            attacked: &set,
            attacks: &attacks,
            curve: &CURVE,
            checklist: &checklist,
            checkpoints: &AttackCheckpoints::none(),
        };
        let (found, _) =
            examine(&subject("model", &classifier(2, 1), None), trials, &Silent).expect("examined");
        let row = found.checks.last().expect("a row");
        assert_eq!(row.outcome, Outcome::Unknown);
        assert!(row.claim.contains("auto-attack") && row.detail.contains("4 classes"), "{row:?}");
        assert_eq!(found.row.attacked.len(), 1);
    }

    #[test]
    fn without_images_or_attacks_every_figure_is_empty() {
        let none = blocks(4, 4, 1).subset(&[]);
        let checklist = checklist();
        let trials = Trials {
            test: &none,
            attacked: &none,
            attacks: &[],
            curve: &CURVE,
            checklist: &checklist,
            checkpoints: &AttackCheckpoints::none(),
        };
        let (found, _) =
            examine(&subject("model", &classifier(4, 1), None), trials, &Silent).expect("examined");
        let found = robustness(&[found]).expect("nothing to refuse");
        assert!(found.worst_cases.is_empty() && found.comparisons.is_empty() && !found.masking_suspected);
        assert_eq!(found.calibration[0].error, None);
        assert_eq!(robustness(&[]).expect("nothing"), Robustness::default());
    }
}
