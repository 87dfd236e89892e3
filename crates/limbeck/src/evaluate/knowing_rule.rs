//! Attacks of one who knows the null rule: to be answered wrongly all the same, or to have right answers withheld.

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::results::AbstentionRow;
use super::robustness::{ATTACK_BATCH, attack_set, outcome_row};
use crate::attack::{
    Aim, Attack, AttackConfig, AttackKind, Evasive, Guard, GuardScore, Payload, TargetedIFgsm, ThreatModel,
    replace, select,
};
use crate::dataset::Dataset;
use crate::distill::{Answer, NullRule, NullScore, predict};
use crate::error::{Error, Result};
use crate::network::{Model, Tempered, TrainedClassifier};
use crate::poison::Evasion;
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::{argmax, values};

/// What whoever knows the null rule spends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnowingRuleConfig {
    /// L-infinity radii in pixel units, smallest first; none = no such attack.
    pub eps: Vec<f64>,
    /// Test images that are attacked, drawn by the seed; 0 = all.
    pub images: usize,
    /// Steps of each try, from half of eps down. There are two tries to avoid null, of which each image keeps the one that succeeds.
    pub steps: usize,
}

impl Default for KnowingRuleConfig {
    /// 2.6 and 4 grey levels: the largest radii at which the rule is asked to stop attacks that do not know it.
    fn default() -> Self {
        Self { eps: vec![0.01, 0.0157], images: 256, steps: 100 }
    }
}

impl KnowingRuleConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if let Some(eps) = self.eps.iter().find(|eps| !(**eps > 0.0 && **eps <= 1.0)) {
            return Err(Error::config(format!("{key}.eps"), eps, "radii in (0, 1] pixel units"));
        }
        if !(1..=100_000).contains(&self.steps) {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 100000 steps"));
        }
        Ok(())
    }
}

/// What is wanted of the null rule.
#[derive(Clone, Copy)]
enum Wish {
    /// A wrong answer that is given.
    Avoid,
    /// No answer.
    Seek,
}

/// Who attacks, and why.
struct Attacker<'a> {
    student: &'a TrainedClassifier,
    /// The rule, as far as it is known.
    score: NullScore<'a>,
    wish: Wish,
    steps: usize,
}

/// How far, in logarithms of the uncertainty, from the threshold is safe: the passes of an attack are not rounded as those of an answer are.
const MARGIN: f64 = 1e-3;

/// A model whose one logit is the negative of another's.
struct Negated<'a>(&'a dyn Model);

impl Model for Negated<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.0.logits(images).neg()
    }

    fn device(&self) -> Device {
        self.0.device()
    }
}

impl Attacker<'_> {
    /// Images `[batch, 3, height, width]` of 8 bits within `eps` of these.
    fn craft(&self, eps: f64, images: &Tensor<4>, labels: &[u32]) -> Result<Tensor<4>> {
        let (step, steps, ball) = (eps / 2.0, self.steps, ThreatModel::linf(eps).in_whole_levels());
        let tempered = Tempered(self.student);
        let (negated, limit) = (Negated(&self.score), self.score.limit());
        let (model, limit): (&dyn Model, f64) = match self.wish {
            Wish::Avoid => (&self.score, limit - MARGIN),
            Wish::Seek => (&negated, -limit - MARGIN),
        };
        let guards = vec![Guard { model, score: GuardScore::Logit, limit }];
        let evasive = Evasive { guards, step, steps, weight: Evasion::default().weight };
        let from = |start, payload: &dyn Fn(usize) -> Payload| {
            let aim = |row: usize| Aim { label: labels[row], payload: payload(row) };
            let aims: Vec<Aim> = (0..labels.len()).map(aim).collect();
            evasive.steps_from(start, &tempered, &aims, |moved| ball.project(images, moved))
        };
        if let Wish::Seek = self.wish {
            return from(images.clone(), &|_| Payload::None);
        }
        // The start is an image that is answered wrongly: from one that is not, the way to one that is and passes is seldom found.
        let away = evasive.propose(&tempered, ball, images.clone(), labels)?;
        let rivals = self.rivals(images, labels)?;
        let start = TargetedIFgsm { step, steps }.propose(&tempered, ball, images.clone(), &rivals)?;
        let towards = from(start, &|row| Payload::Towards(rivals[row]))?;
        let [won, won_too] = [self.wins(&away, labels)?, self.wins(&towards, labels)?];
        let rows: Vec<usize> = (0..labels.len()).filter(|&row| won_too[row] && !won[row]).collect();
        Ok(replace(away, &rows, select(&towards, &rows)))
    }

    /// The likeliest wrong class of each image.
    fn rivals(&self, images: &Tensor<4>, labels: &[u32]) -> Result<Vec<u32>> {
        let logits = self.student.logits(images.clone());
        // The outlier class is no answer.
        let classes = self.student.spec().classes.len();
        let logits = logits.narrow(1, 0, classes);
        let own = crate::tensors::labels(labels, &logits.device()).one_hot::<2>(classes).float();
        argmax(logits - own.mul_scalar(1e9))
    }

    /// Whether each image would, as far as the attacker knows, be answered wrongly.
    fn wins(&self, images: &Tensor<4>, labels: &[u32]) -> Result<Vec<bool>> {
        let answers = argmax(self.student.logits(images.clone()))?;
        let classes = self.student.spec().classes.len() as u32;
        let scores = values(self.score.logits(images.clone()))?;
        let of = |((answer, label), score): ((u32, &u32), f32)| {
            answer != *label && answer < classes && f64::from(score) <= self.score.limit()
        };
        Ok(answers.into_iter().zip(labels).zip(scores).map(of).collect())
    }
}

/// Outcomes of a student on test images that were crafted with knowledge of its null rule: to avoid null with its very dropout passes in mind, with others
/// (expectation over dropout; Athalye 2018), and to be answered null.
pub fn knowing_rule(
    student: &TrainedClassifier,
    rule: &NullRule,
    test: &Dataset,
    config: &KnowingRuleConfig,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<AbstentionRow>> {
    let set = attack_set(test, config.images, seed);
    let (indices, steps): (Vec<usize>, _) = ((0..set.len()).collect(), config.steps);
    let others = || NullScore::by_other_draws(student, rule, rule.passes, seed.child("passes"));
    let attackers = [
        (
            "avoiding null",
            Attacker { student, score: NullScore::of_rule(student, rule), wish: Wish::Avoid, steps },
        ),
        (
            "avoiding null, dropout passes unknown",
            Attacker { student, score: others(), wish: Wish::Avoid, steps },
        ),
        (
            "seeking null",
            Attacker { student, score: NullScore::of_rule(student, rule), wish: Wish::Seek, steps },
        ),
    ];
    let mut rows = Vec::new();
    for &eps in &config.eps {
        let walk = AttackConfig::linf(AttackKind::IFgsm, eps).label();
        for (words, attacker) in &attackers {
            let inputs = format!("{walk}, {words}");
            progress.task(&inputs, "images");
            let mut answers: Vec<Answer> = Vec::with_capacity(set.len());
            for chunk in indices.chunks(ATTACK_BATCH) {
                progress.check()?;
                let images = set.batch(chunk, &student.device())?;
                let moved = attacker.craft(eps, &images, &set.labels(chunk))?;
                answers.extend(predict(student, rule, moved)?);
                progress.advance(answers.len() as u64, set.len() as u64);
            }
            rows.push(outcome_row(&inputs, &answers, &set.labels(&indices)));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::{AbstentionConfig, SoftLabels, UNCERTAINTIES};
    use crate::network::{Architecture, ClassifierSpec};
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec};

    fn student() -> TrainedClassifier {
        let spec: ClassifierSpec = tiny_spec(Architecture::Vgg, 4, 5.0);
        let network = spec.init(&Device::flex(), &mut Seed::new(5).rng("weights")).expect("the spec fits");
        TrainedClassifier::freeze(&network, spec, &Device::flex())
    }

    fn rule(student: &TrainedClassifier, null_rate: f64) -> NullRule {
        let set = blocks(100, 4, 1);
        let labels = SoftLabels::compute(student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 8, null_rate, ..AbstentionConfig::default() };
        NullRule::calibrate(student, &labels, &set, &config, 1, &Silent).expect("calibrated")
    }

    #[test]
    fn whoever_knows_the_rule_is_answered_as_he_likes_and_more_often_than_one_who_does_not() {
        let (student, set) = (student(), blocks(24, 4, 2));
        // Most images are answered null, so that an attack that does not mind it gains little.
        let rule = rule(&student, 0.8);
        let config = KnowingRuleConfig { eps: vec![0.1], images: 0, steps: 20 };
        let rows = knowing_rule(&student, &rule, &set, &config, Seed::new(1), &Silent).expect("attacked");
        let found: Vec<_> = rows.iter().map(|row| row.inputs.as_str()).collect();
        let expected = ["avoiding null", "avoiding null, dropout passes unknown", "seeking null"];
        assert_eq!(found, expected.map(|words| format!("i-fgsm eps 0.1, {words}")));
        let labels = set.labels(&(0..24).collect::<Vec<_>>());
        let images = set.batch(&(0..24).collect::<Vec<_>>(), &student.device()).expect("a batch");
        let plain = AttackConfig { steps: 20, ..AttackConfig::linf(AttackKind::IFgsm, 0.1) };
        let moved = crate::attack::craft(
            &*plain.build(),
            &Tempered(&student),
            plain.threat(),
            images.clone(),
            &labels,
        );
        let blind = outcome_row(
            "blind",
            &predict(&student, &rule, moved.expect("moved")).expect("answered"),
            &labels,
        );
        let clean = outcome_row("clean", &predict(&student, &rule, images).expect("answered"), &labels);
        let [avoiding, unknown, seeking] = &rows[..] else { panic!("{rows:?}") };
        assert!(avoiding.wrong > blind.wrong, "{avoiding:?}, {blind:?}");
        assert!(avoiding.wrong >= unknown.wrong, "{avoiding:?}, {unknown:?}");
        assert!(seeking.null > clean.null, "{seeking:?}, {clean:?}");
    }

    #[test]
    fn the_score_is_the_logarithm_of_what_the_rule_measures() {
        let (student, set) = (student(), blocks(9, 4, 2));
        let images = set.batch(&(0..9).collect::<Vec<_>>(), &student.device()).expect("a batch");
        for (uncertainty, ..) in UNCERTAINTIES.iter().filter(|(kind, ..)| kind.is_of(student.spec())) {
            let rule = NullRule { uncertainty: *uncertainty, ..rule(&student, 0.1) };
            let expected = predict(&student, &rule, images.clone()).expect("answered");
            let found = values(NullScore::of_rule(&student, &rule).logits(images.clone())).expect("values");
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.uncertainty;
                assert!(
                    (f64::from(*found).exp() - expected).abs() < 1e-4 * expected + 1e-6,
                    "{uncertainty:?}: {found}, {expected}"
                );
            }
        }
    }

    #[test]
    fn radii_and_steps_out_of_range_are_refused() {
        let config = |eps: f64, steps| KnowingRuleConfig { eps: vec![eps], images: 0, steps };
        assert!(config(0.1, 1).check("evaluate.knowing_rule").is_ok());
        for (config, key) in [
            (config(0.0, 1), "knowing_rule.eps"),
            (config(f64::NAN, 1), "knowing_rule.eps"),
            (config(0.1, 0), "knowing_rule.steps"),
        ] {
            let error = config.check("evaluate.knowing_rule").expect_err("out of range").to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
