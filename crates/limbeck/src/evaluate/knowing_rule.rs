//! Attacks of one who knows the null rule: to be answered wrongly all the same, or to have right answers withheld.

use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attacked_set::ATTACK_BATCH;
use super::results::AbstentionRow;
use super::robustness::{attack_set, outcome_row};
use crate::attack::{
    Aim, Attack, AttackConfig, AttackKind, Evasive, Guard, GuardScore, Payload, TargetedIFgsm, ThreatModel,
    replace, select,
};
use crate::dataset::Dataset;
use crate::distill::{Abstaining, Answer, DetectorLimits, NullScore};
use crate::error::{Error, Result};
use crate::network::{
    AmongClasses, DetectionHead, Model, OutlierLead, ReconstructionError, TrainedClassifier,
};
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::{argmax, values};

/// What whoever knows the null rule spends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnowingRuleConfig {
    /// L-infinity radii in pixel units, 1/255 or more, smallest first; none = no such attack. Images have 8 bits: what counts are the whole grey levels in a radius.
    pub eps: Vec<f64>,
    /// Test images that are attacked, drawn by the seed; 0 = all.
    pub images: usize,
    /// Steps of each try, from half of eps down. There are two tries to avoid null, and one for each condition of an answer to seek it; each image keeps one that succeeds.
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
        let is_radius = |eps: f64| eps <= 1.0 && ThreatModel::linf(eps).levels() > 0;
        if let Some(eps) = self.eps.iter().find(|eps| !is_radius(**eps)) {
            let expected = "radii in pixel units from a grey level, 1/255 = 0.0039216, to 1";
            return Err(Error::config(format!("{key}.eps"), eps, expected));
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
    /// The rule's uncertainty, as far as it is known.
    score: NullScore<'a>,
    /// What must not win, of a student with an outlier class.
    outlier: Option<OutlierLead<'a>>,
    /// What the rule asks beside it, if that is known.
    detector: Option<Detector<'a>>,
    wish: Wish,
    steps: usize,
}

/// The detector that a rule asks, as two models of one logit each with its limit.
#[derive(Clone, Copy)]
struct Detector<'a> {
    limits: &'a DetectorLimits,
    head: DetectionHead<'a>,
    error: ReconstructionError<'a>,
}

impl<'a> Detector<'a> {
    fn of(abstaining: Abstaining<'a>) -> Option<Self> {
        let (limits, autoencoder) = abstaining.rule.detector.as_ref().zip(abstaining.autoencoder)?;
        Some(Self { limits, head: DetectionHead(autoencoder), error: ReconstructionError(autoencoder) })
    }

    /// What no image may be above.
    fn parts(&self) -> impl Iterator<Item = (&dyn Model, f64)> {
        let parts = [(&self.head as &dyn Model, self.limits.log_odds), (&self.error, self.limits.log_error)];
        parts.into_iter().filter_map(|(model, limit)| Some((model, limit?)))
    }
}

/// How far from a limit is safe, in logarithms of the uncertainty and in nats of the detector: the passes of an attack are not rounded as those of an answer are.
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

/// What an image is not to be above.
fn guarded(conditions: Vec<(&dyn Model, f64)>) -> Vec<Guard<'_>> {
    let guard = |(model, limit)| Guard { model, score: GuardScore::Logit, limit };
    conditions.into_iter().map(guard).collect()
}

impl Attacker<'_> {
    /// Images `[batch, 3, height, width]` of 8 bits within `eps` of these.
    fn craft(&self, eps: f64, images: &Tensor<4>, labels: &[u32]) -> Result<Tensor<4>> {
        let (step, steps, ball) = (eps / 2.0, self.steps, ThreatModel::linf(eps).in_whole_levels());
        let classes = AmongClasses(self.student);
        let past = |guards: Vec<(&dyn Model, f64)>, start, payload: &dyn Fn(usize) -> Payload| {
            let aim = |row: usize| Aim { label: labels[row], payload: payload(row) };
            let aims: Vec<Aim> = (0..labels.len()).map(aim).collect();
            let evasive = Evasive::fooling(guarded(guards), step, steps);
            evasive.steps_from(start, &classes, &aims, |moved| ball.project(images, moved))
        };
        if let Wish::Seek = self.wish {
            // One condition that fails is enough.
            let mut found = images.clone();
            for (model, limit) in self.conditions() {
                let negated = Negated(model);
                let moved = past(vec![(&negated, -limit - MARGIN)], images.clone(), &|_| Payload::None)?;
                let scores = values(model.logits(moved.clone()))?;
                let rows: Vec<usize> =
                    (0..labels.len()).filter(|&row| f64::from(scores[row]) > limit).collect();
                if !rows.is_empty() {
                    found = replace(found, &rows, select(&moved, &rows));
                }
            }
            return Ok(found);
        }
        let inside = || self.conditions().into_iter().map(|(model, limit)| (model, limit - MARGIN)).collect();
        let evasive = Evasive::fooling(guarded(inside()), step, steps);
        // The start is an image that is answered wrongly: from one that is not, the way to one that is and passes is seldom found.
        let away = evasive.propose(&classes, ball, images.clone(), labels)?;
        let rivals = self.rivals(images, labels)?;
        let start = TargetedIFgsm { step, steps }.propose(&classes, ball, images.clone(), &rivals)?;
        let towards = past(inside(), start, &|row| Payload::Towards(rivals[row]))?;
        let [won, won_too] = [self.wins(&away, labels)?, self.wins(&towards, labels)?];
        let rows: Vec<usize> = (0..labels.len()).filter(|&row| won_too[row] && !won[row]).collect();
        Ok(replace(away, &rows, select(&towards, &rows)))
    }

    /// All that must not be exceeded for an answer to be given, as far as it is known.
    fn conditions(&self) -> Vec<(&dyn Model, f64)> {
        let uncertainty = self.score.limit().map(|limit| (&self.score as &dyn Model, limit));
        let outlier = self.outlier.as_ref().map(|lead| (lead as &dyn Model, 0.0));
        let detector = self.detector.iter().flat_map(Detector::parts);
        uncertainty.into_iter().chain(outlier).chain(detector).collect()
    }

    /// The likeliest wrong class of each image.
    fn rivals(&self, images: &Tensor<4>, labels: &[u32]) -> Result<Vec<u32>> {
        let logits = AmongClasses(self.student).logits(images.clone());
        let [_, classes] = logits.dims();
        let own = crate::tensors::labels(labels, &logits.device()).one_hot::<2>(classes).float();
        argmax(logits - own.mul_scalar(1e9))
    }

    /// Whether each image would, as far as the attacker knows, be answered wrongly.
    fn wins(&self, images: &Tensor<4>, labels: &[u32]) -> Result<Vec<bool>> {
        let answers = argmax(AmongClasses(self.student).logits(images.clone()))?;
        let mut wins: Vec<bool> =
            answers.into_iter().zip(labels).map(|(answer, label)| answer != *label).collect();
        for (model, limit) in self.conditions() {
            let scores = values(model.logits(images.clone()))?;
            wins.iter_mut().zip(scores).for_each(|(wins, score)| *wins &= f64::from(score) <= limit);
        }
        Ok(wins)
    }
}

/// Outcomes of a student on test images that were crafted with knowledge of its null rule: to avoid null with its very dropout passes in mind, with others
/// (expectation over dropout; Athalye 2018), with the detector unknown where the rule asks one, and to be answered null.
pub fn knowing_rule(
    abstaining: Abstaining<'_>,
    test: &Dataset,
    config: &KnowingRuleConfig,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<AbstentionRow>> {
    let Abstaining { student, rule, .. } = abstaining;
    let set = attack_set(test, config.images, seed);
    let (indices, steps): (Vec<usize>, _) = ((0..set.len()).collect(), config.steps);
    let (own, detector) = (|| NullScore::of_rule(student, rule), Detector::of(abstaining));
    let avoiding = |score, detector| Attacker {
        student,
        score,
        outlier: student.spec().outlier.then_some(OutlierLead(student)),
        detector,
        wish: Wish::Avoid,
        steps,
    };
    let others = NullScore::by_other_draws(student, rule, rule.passes, seed.child("passes"));
    let mut attackers = vec![
        ("avoiding null", avoiding(own(), detector)),
        ("avoiding null, dropout passes unknown", avoiding(others, detector)),
    ];
    if detector.is_some() {
        attackers.push(("avoiding null, detector unknown", avoiding(own(), None)));
    }
    attackers.push(("seeking null", Attacker { wish: Wish::Seek, ..avoiding(own(), detector) }));
    let mut rows = Vec::new();
    for &eps in &config.eps {
        let attack = AttackConfig::linf(AttackKind::IFgsm, eps);
        // Its images have 8 bits, so the radius that it has is one of whole grey levels.
        let walk = format!("{} ({}/255)", attack.label(), attack.threat().levels());
        for (words, attacker) in &attackers {
            let inputs = format!("{walk}, {words}");
            progress.task(&inputs, "images");
            let mut answers: Vec<Answer> = Vec::with_capacity(set.len());
            for chunk in indices.chunks(ATTACK_BATCH) {
                progress.check()?;
                let images = set.batch(chunk, &student.device())?;
                let moved = attacker.craft(eps, &images, &set.labels(chunk))?;
                answers.extend(abstaining.answers(moved)?);
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
    use crate::distill::{AbstentionConfig, NullRule, SoftLabels, UNCERTAINTIES};
    use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec, ClassifierSpec, Tempered};
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec, untrained, untrained_autoencoder};

    fn student() -> TrainedClassifier {
        let spec: ClassifierSpec = tiny_spec(Architecture::Vgg, 4, 5.0);
        untrained(spec, 5)
    }

    fn rule(student: &TrainedClassifier, null_rate: f64) -> NullRule {
        let set = blocks(100, 4, 1);
        let labels = SoftLabels::compute(student, &set, &Silent).expect("computed");
        let config = AbstentionConfig { passes: 8, null_rate, ..AbstentionConfig::default() };
        NullRule::calibrate(student, &labels, &set, &config, 1, &Silent).expect("calibrated")
    }

    fn asked<'a>(student: &'a TrainedClassifier, rule: &'a NullRule) -> Abstaining<'a> {
        Abstaining { student, rule, autoencoder: None }
    }

    #[test]
    fn a_radius_below_a_grey_level_is_refused() {
        let check = |eps| KnowingRuleConfig { eps: vec![eps], ..KnowingRuleConfig::default() }.check("rule");
        // Written as people write it: 1/255 with four digits that count.
        assert!([1.0 / 255.0, 0.0039, 1.0].into_iter().all(|eps| check(eps).is_ok()));
        for eps in [0.0, 0.0038, 1.01, f64::NAN] {
            let error = check(eps).expect_err("refused").to_string();
            assert!(error.contains("rule.eps") && error.contains("1/255"), "{error}");
        }
    }

    #[test]
    fn whoever_knows_the_rule_is_answered_as_he_likes_and_more_often_than_one_who_does_not() {
        let (student, set) = (student(), blocks(24, 4, 2));
        // Most images are answered null, so that an attack that does not mind it gains little.
        let rule = rule(&student, 0.8);
        let config = KnowingRuleConfig { eps: vec![0.1], images: 0, steps: 20 };
        let rows =
            knowing_rule(asked(&student, &rule), &set, &config, Seed::new(1), &Silent).expect("attacked");
        let found: Vec<_> = rows.iter().map(|row| row.inputs.as_str()).collect();
        let expected = ["avoiding null", "avoiding null, dropout passes unknown", "seeking null"];
        assert_eq!(found, expected.map(|words| format!("i-fgsm eps 0.1 (25/255), {words}")));
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
            &asked(&student, &rule).answers(moved.expect("moved")).expect("answered"),
            &labels,
        );
        let clean = outcome_row("clean", &asked(&student, &rule).answers(images).expect("answered"), &labels);
        let [avoiding, unknown, seeking] = &rows[..] else { panic!("{rows:?}") };
        assert!(avoiding.wrong > blind.wrong, "{avoiding:?}, {blind:?}");
        assert!(avoiding.wrong >= unknown.wrong, "{avoiding:?}, {unknown:?}");
        assert!(seeking.null > clean.null, "{seeking:?}, {clean:?}");
    }

    #[test]
    fn whoever_knows_the_detector_keeps_it_quiet_and_one_who_does_not_is_silenced_by_it() {
        let (student, set) = (student(), blocks(24, 4, 2));
        let spec = AutoencoderSpec { kind: AutoencoderKind::Unet, width: 4, latent: 8, image_size: [8, 8] };
        let autoencoder = untrained_autoencoder(spec, 4);
        let images = set.batch(&(0..24).collect::<Vec<_>>(), &student.device()).expect("a batch");
        let score = |model: &dyn Model| values(model.logits(images.clone())).expect("values");
        let largest = |scores: Vec<f32>| Some(f64::from(scores.into_iter().fold(f32::MIN, f32::max)) + 1e-3);
        // No clean image is above either limit.
        let limits = DetectorLimits {
            log_odds: largest(score(&DetectionHead(&autoencoder))),
            log_error: largest(score(&ReconstructionError(&autoencoder))),
            target_null_rate: 0.1,
            trusted_images: 24,
            autoencoder: String::new(),
        };
        let rule = NullRule { detector: Some(limits), ..rule(&student, 0.1) };
        let asked = Abstaining { student: &student, rule: &rule, autoencoder: Some(&autoencoder) };
        let config = KnowingRuleConfig { eps: vec![0.1], images: 0, steps: 20 };
        let rows = knowing_rule(asked, &set, &config, Seed::new(1), &Silent).expect("attacked");
        let row = |words: &str| rows.iter().find(|row| row.inputs.ends_with(words)).expect(words);
        let (knowing, ignorant) = (row(", avoiding null"), row("detector unknown"));
        assert!(ignorant.perturbed > 0, "nothing to know: {ignorant:?}");
        assert!(knowing.perturbed < ignorant.perturbed, "{knowing:?}, {ignorant:?}");
        assert!(knowing.wrong >= ignorant.wrong, "{knowing:?}, {ignorant:?}");
        // To be silenced, one condition is enough: whoever knows of more of them has it more often.
        let alone = NullRule { detector: None, ..rule.clone() };
        let unaware = Abstaining { student: &student, rule: &alone, autoencoder: None };
        let unaware = knowing_rule(unaware, &set, &config, Seed::new(1), &Silent).expect("attacked");
        let (seeking, by_doubt) = (row(", seeking null"), unaware.last().expect("rows"));
        assert!(by_doubt.inputs.ends_with(", seeking null"));
        assert!(seeking.null >= by_doubt.null && seeking.perturbed > 0, "{seeking:?}, {by_doubt:?}");
    }

    #[test]
    fn whoever_knows_of_the_outlier_class_keeps_it_below_the_others_or_lifts_it_above() {
        let set = blocks(24, 4, 2);
        let spec = ClassifierSpec { outlier: true, ..tiny_spec(Architecture::Vgg, 4, 1.0) };
        let student = untrained(spec, 5);
        let rule = NullRule {
            threshold: None,
            references: vec![vec![0.2; 5]; 5],
            ..rule(&super::tests::student(), 0.1)
        };
        let config = KnowingRuleConfig { eps: vec![0.2], images: 0, steps: 20 };
        let rows =
            knowing_rule(asked(&student, &rule), &set, &config, Seed::new(1), &Silent).expect("attacked");
        let clean = asked(&student, &rule).answer_set(&set, &Silent).expect("answered");
        let clean = clean.iter().filter(|answer| answer.null).count() as u64;
        let (avoiding, seeking) = (&rows[0], rows.last().expect("rows"));
        assert!(avoiding.null <= clean && clean <= seeking.null, "{avoiding:?}, {clean}, {seeking:?}");
        assert!(avoiding.null < seeking.null, "{avoiding:?}, {seeking:?}");
    }

    #[test]
    fn the_score_is_the_logarithm_of_what_the_rule_measures() {
        let (student, set) = (student(), blocks(9, 4, 2));
        let images = set.batch(&(0..9).collect::<Vec<_>>(), &student.device()).expect("a batch");
        for (uncertainty, ..) in UNCERTAINTIES.iter().filter(|(kind, ..)| kind.is_of(student.spec())) {
            let rule = NullRule { uncertainty: *uncertainty, ..rule(&student, 0.1) };
            let expected = asked(&student, &rule).answers(images.clone()).expect("answered");
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
