//! Self-checks of an evaluation under attack: signs that accuracy is as high as it is because the attacks fail.
//!
//! The checklist of Carlini 2019 ("On Evaluating Adversarial Robustness"), as far as a program can run it, with the signs of masked gradients of
//! Athalye 2018 (section 3.1). Each row is a claim that holds for a model whose attacks work, with the figures behind it. Attacks are compared
//! image by image: a difference counts when McNemar's exact test tells it from chance. A row that fails is no proof of masking, and a list that passes none of
//! robustness.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attacked_set::AttackedSet;
use super::eps_curve::Sweep;
use super::mcnemar::{disagreements, mcnemar};
use super::results::{Check, Outcome, Rate};
use super::robustness::{evenly_spaced, right_under};
use super::worst_case::{Attempt, Origin, threat_label, threats};
use crate::attack::{AttackConfig, AttackKind, Target, ThreatModel, input_gradient, margin_gradient};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::Model;
use crate::progress::Progress;
use crate::tensors::values;
use crate::text::{number, percent};
use crate::train::INFERENCE_BATCH;

/// A difference between two attacks counts below this p-value.
const SIGNIFICANT: f64 = 0.05;

/// What more restarts or steps may still gain, as a share of the images (ours: the sources give no number).
const MOST_GAIN: f64 = 0.05;

/// Share of images that may have no gradient (ours: a rectifier network has flat spots).
const MOST_ZERO: f64 = 0.05;

/// A gradient that is smaller everywhere is no direction in 32 bits.
const ZERO: f64 = 1e-8;

/// Half of the pixel box: every image can become plain grey, which has no class.
const WHOLE_BOX: f64 = 0.5;

/// Attacks that are made for checks alone, on the deployed model, in the L-infinity norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChecklistConfig {
    /// Whether they are made; what costs nothing is checked in any case.
    pub enabled: bool,
    /// Radius in pixel units (Madry 2018: 8/255 = 0.0314).
    pub eps: f64,
    /// Of the attacked images this many, evenly spaced; 0 = all.
    pub images: usize,
    /// Steps of PGD, which are doubled once (Madry 2018: 10).
    pub steps: usize,
    /// Random starts of PGD that are held against one; 0 or 1 = not run.
    pub restarts: usize,
    /// Questions of Square for each image (Andriushchenko 2020: 5000); 0 = not run.
    pub queries: usize,
    /// Draws of uniform noise, of which the worst counts (Carlini 2019: 10,000 and more); 0 = not run.
    pub draws: usize,
}

impl Default for ChecklistConfig {
    /// A small part of the published numbers, to find what is plainly wrong: 5 starts, 200 questions, 10 draws on 256 images.
    fn default() -> Self {
        Self { enabled: true, eps: 0.0314, images: 256, steps: 10, restarts: 5, queries: 200, draws: 10 }
    }
}

impl ChecklistConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if !(self.eps > 0.0 && self.eps <= 1.0) {
            let expected = "a radius in (0, 1] pixel units (8/255 = 0.0314)";
            return Err(Error::config(format!("{key}.eps"), self.eps, expected));
        }
        if self.steps == 0 || self.steps > 50_000 {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 50000 steps"));
        }
        let counts = [
            ("restarts", self.restarts, 10_000),
            ("queries", self.queries, 10_000_000),
            ("draws", self.draws, 10_000_000),
        ];
        match counts.into_iter().find(|(_, value, most)| value > most) {
            Some((name, value, most)) => {
                Err(Error::config(format!("{key}.{name}"), value, format!("at most {most}")))
            }
            None => Ok(()),
        }
    }

    fn attack(&self, kind: AttackKind) -> AttackConfig {
        AttackConfig { steps: self.steps, ..AttackConfig::linf(kind, self.eps) }
    }
}

/// A model to be checked, as it answers and as attacks see it: a distilled one at z and at z/T.
#[derive(Clone, Copy)]
pub struct Checked<'a> {
    /// Its name in reports.
    pub name: &'a str,
    /// At temperature 1.
    pub model: &'a dyn Model,
    /// At the temperature of its training.
    pub attacked: &'a dyn Model,
}

/// One check as a row.
fn row(model: &str, claim: &str, outcome: Outcome, detail: String) -> Check {
    Check { claim: format!("{model}: {claim}"), outcome, detail }
}

fn not_run(model: &str, claim: &str, why: &str) -> Check {
    row(model, claim, Outcome::Unknown, why.to_owned())
}

fn passes_if(holds: bool) -> Outcome {
    if holds { Outcome::Pass } else { Outcome::Fail }
}

/// An attack, as it is called and what it left right.
struct Left {
    name: String,
    right: Vec<bool>,
}

impl Left {
    fn share(&self) -> f64 {
        Rate::of(self.right.iter().copied()).share().unwrap_or(0.0)
    }

    fn words(&self) -> String {
        format!("{} leaves {} right", self.name, percent(self.share()))
    }

    /// What several attacks leave right together.
    fn by_all<'a>(name: &str, attacks: impl IntoIterator<Item = &'a [bool]>) -> Option<Self> {
        let both = |a: Vec<bool>, b: &[bool]| a.iter().zip(b).map(|(a, b)| *a && *b).collect();
        let mut attacks = attacks.into_iter();
        let first = attacks.next()?.to_vec();
        Some(Self { name: name.to_owned(), right: attacks.fold(first, both) })
    }
}

/// Whether an attack that ought to be weaker fools more images than one that ought to be stronger, beyond chance; and the figures.
fn beats(weaker: &Left, stronger: &Left) -> (bool, String) {
    let [only_weaker, only_stronger] = disagreements(&weaker.right, &stronger.right);
    let p = mcnemar(only_weaker, only_stronger);
    let detail = format!(
        "{}, {}; {only_stronger} of {} images fall to the first alone (p {})",
        weaker.words(),
        stronger.words(),
        weaker.right.len(),
        if p < 0.001 { "< 0.001".to_owned() } else { format!("= {p:.3}") }
    );
    (only_stronger > only_weaker && p < SIGNIFICANT, detail)
}

/// One row for pairs of an attack that ought to be weaker and one that ought to be stronger.
fn weaker_than(model: &str, claim: &str, pairs: &[(Left, Left)], otherwise: &str) -> Check {
    if pairs.is_empty() {
        return not_run(model, claim, otherwise);
    }
    let found: Vec<(bool, String)> = pairs.iter().map(|(weaker, stronger)| beats(weaker, stronger)).collect();
    let details: Vec<&str> = found.iter().map(|(_, detail)| detail.as_str()).collect();
    row(model, claim, passes_if(!found.iter().any(|(beaten, _)| *beaten)), details.join("; "))
}

/// What the attacks of an evaluation say of themselves: nothing more is attacked for it.
pub fn checks_of_attempts(model: &str, attempts: &[Attempt]) -> Vec<Check> {
    let threats = threats(attempts.iter().map(|attempt| &attempt.attack));
    let pairs = |weaker: &dyn Fn(&Attempt) -> bool, stronger: &dyn Fn(&Attempt) -> bool| {
        let left = |threat: ThreatModel, is_meant: &dyn Fn(&Attempt) -> bool| {
            let is_there = |attempt: &&Attempt| attempt.attack.threat() == threat && is_meant(attempt);
            let meant: Vec<&Attempt> = attempts.iter().filter(is_there).collect();
            let mut kinds: Vec<&str> = meant.iter().map(|attempt| attempt.attack.name()).collect();
            let mut seen = HashSet::new();
            kinds.retain(|&kind| seen.insert(kind));
            let name = match meant.first().map(|attempt| &attempt.origin) {
                Some(Origin::Other(other)) => format!("{} from {other}", kinds.join(" + ")),
                _ => kinds.join(" + "),
            };
            Left::by_all(&name, meant.iter().map(|attempt| attempt.outcomes.right.as_slice()))
        };
        let pair = |&threat: &ThreatModel| {
            let (mut weaker, stronger) = (left(threat, weaker)?, left(threat, stronger)?);
            weaker.name = format!("{}: {}", threat_label(threat), weaker.name);
            Some((weaker, stronger))
        };
        threats.iter().filter_map(pair).collect::<Vec<_>>()
    };
    // Who seeks one class forgoes the others: such an attack may be weaker than any.
    let seeks_any = |attempt: &Attempt| attempt.attack.target == Target::Any;
    let white = |attempt: &Attempt| attempt.origin.is_white_box() && seeks_any(attempt);
    let one_step = |attempt: &Attempt| white(attempt) && attempt.attack.kind == AttackKind::Fgsm;
    let many_steps = |attempt: &Attempt| white(attempt) && is_iterated(attempt.attack.kind);
    let transferred = |attempt: &Attempt| !attempt.origin.is_white_box() && seeks_any(attempt);
    let gradient = |attempt: &Attempt| one_step(attempt) || many_steps(attempt);
    let mut checks = vec![weaker_than(
        model,
        "many steps are at least as strong as one",
        &pairs(&one_step, &many_steps),
        "no radius was attacked with both",
    )];
    if attempts.iter().any(transferred) {
        checks.push(weaker_than(
            model,
            "attacks on the model itself are at least as strong as those from another",
            &pairs(&transferred, &gradient),
            "no radius was attacked with both",
        ));
    }
    checks
}

/// Whether an attack follows gradients step by step.
fn is_iterated(kind: AttackKind) -> bool {
    use AttackKind::{ApgdCe, ApgdDlr, ApgdT, AutoAttack, CarliniWagner, FabT, IFgsm, MiFgsm, Pgd};
    matches!(kind, IFgsm | Pgd | MiFgsm | ApgdCe | ApgdDlr | ApgdT | CarliniWagner | FabT | AutoAttack)
}

/// Whether a curve falls, and to chance in the end.
pub fn checks_of_sweep(model: &str, sweep: &Sweep) -> Vec<Check> {
    vec![never_rises(model, sweep), falls_to_chance(model, sweep)]
}

fn never_rises(model: &str, sweep: &Sweep) -> Check {
    const CLAIM: &str = "a larger radius never leaves more images right";
    let left = |(eps, right): &(f64, Vec<bool>)| Left {
        name: format!("eps {}", number(*eps)),
        right: right.clone(),
    };
    let rises: Vec<String> = sweep
        .points
        .windows(2)
        .map(|pair| beats(&left(&pair[0]), &left(&pair[1])))
        .filter_map(|(rises, detail)| rises.then_some(detail))
        .collect();
    if sweep.points.len() < 2 {
        return not_run(model, CLAIM, "the curve has fewer than two radii");
    }
    let detail = if rises.is_empty() {
        format!("{} radii, each at least as strong as the one before", sweep.points.len())
    } else {
        rises.join("; ")
    };
    row(model, CLAIM, passes_if(rises.is_empty()), detail)
}

/// Where every pixel is free to move, no model may keep more than one who always gives the same answer.
fn falls_to_chance(model: &str, sweep: &Sweep) -> Check {
    const CLAIM: &str = "accuracy falls to chance where the radius lets an image become any other";
    let largest = sweep.points.last().filter(|(eps, _)| *eps >= WHOLE_BOX);
    let Some((eps, right)) = largest else {
        return not_run(model, CLAIM, "the curve ends below eps 0.5");
    };
    let Some(chance) = sweep.chance else {
        return not_run(model, CLAIM, "the images are of one class, which a constant answer gets right");
    };
    let left = Rate::of(right.iter().copied());
    let above = left.wilson().is_some_and(|[lower, _]| lower > chance);
    let detail = format!(
        "{} of {} images still right at eps {}, chance is {}",
        left.successes,
        left.trials,
        number(*eps),
        percent(chance)
    );
    row(model, CLAIM, passes_if(!above), detail)
}

/// Attacks and gradients that are made for checks alone.
pub fn probes(
    checked: Checked<'_>,
    set: &Dataset,
    config: &ChecklistConfig,
    progress: &dyn Progress,
) -> Result<Vec<Check>> {
    if !config.enabled {
        return Ok(Vec::new());
    }
    let few = evenly_spaced(set, config.images);
    if few.is_empty() {
        return Ok(vec![not_run(checked.name, "attacks find a gradient", "no image was attacked")]);
    }
    let left = |attack: AttackConfig, name: String| -> Result<Left> {
        progress.task(&format!("check of {}: {name}", checked.name), "images");
        let attacked = AttackedSet::craft(checked.attacked, &attack, &few, progress)?;
        Ok(Left { name, right: right_under(checked.attacked, &attacked)? })
    };
    let Checked { name, .. } = checked;
    let pgd = config.attack(AttackKind::Pgd);
    let once = left(pgd, format!("pgd of {} steps", config.steps))?;
    let doubled = AttackConfig { steps: 2 * config.steps, ..pgd };
    let doubled = left(doubled, format!("pgd of {} steps", 2 * config.steps))?;
    let restarted = (config.restarts > 1)
        .then(|| {
            let restarts = config.restarts;
            left(AttackConfig { restarts, ..pgd }, format!("pgd from {restarts} starts"))
        })
        .transpose()?;
    let white = [Some(&once), Some(&doubled), restarted.as_ref()].into_iter().flatten();
    let white = Left::by_all("pgd", white.map(|attack| attack.right.as_slice()));
    let against_white = |count: usize, attack: AttackConfig, name: String| -> Result<Vec<(Left, Left)>> {
        let Some(white) = white.as_ref().filter(|_| count > 0) else { return Ok(Vec::new()) };
        let stronger = Left { name: white.name.clone(), right: white.right.clone() };
        Ok(vec![(left(attack, name)?, stronger)])
    };
    let (queries, draws) = (config.queries, config.draws);
    let square = AttackConfig { queries, ..config.attack(AttackKind::Square) };
    let square = against_white(queries, square, format!("square of {queries} queries"))?;
    let noise = AttackConfig { restarts: draws, ..config.attack(AttackKind::UniformNoise) };
    let noise = against_white(draws, noise, format!("the worst of {draws} draws of noise"))?;
    Ok(vec![
        gradients_exist(checked, &few, Loss::Margin, progress)?,
        gradients_exist(checked, &few, Loss::CrossEntropy, progress)?,
        weaker_than(
            name,
            "gradients are at least as strong as random search",
            &square,
            "no query was asked for",
        ),
        weaker_than(
            name,
            "gradients are at least as strong as random noise",
            &noise,
            "no draw was asked for",
        ),
        match restarted {
            Some(restarted) => changes_little(name, "more random starts change little", &once, &restarted),
            None => not_run(name, "more random starts change little", "no restart was asked for"),
        },
        changes_little(name, "twice the steps change little", &once, &doubled),
    ])
}

/// More of the same attack must not gain much: else it had not converged, and neither may what it grew to.
fn changes_little(model: &str, claim: &str, base: &Left, more: &Left) -> Check {
    let gain = base.share() - more.share();
    let (weaker, _) = beats(base, more);
    let holds = gain <= MOST_GAIN && !weaker;
    let detail =
        format!("{}, {}; up to {} of the images may change", base.words(), more.words(), percent(MOST_GAIN));
    row(model, claim, passes_if(holds), detail)
}

/// What a gradient is of.
#[derive(Clone, Copy)]
enum Loss {
    /// The lead of the label: flat only where the network is.
    Margin,
    /// Cross-entropy at temperature 1: flat too where a softmax has saturated.
    CrossEntropy,
}

/// An image whose gradient is zero cannot be attacked by it: that is masking, not robustness.
fn gradients_exist(
    checked: Checked<'_>,
    set: &Dataset,
    loss: Loss,
    progress: &dyn Progress,
) -> Result<Check> {
    let indices: Vec<usize> = (0..set.len()).collect();
    let mut zero = Vec::with_capacity(set.len());
    for chunk in indices.chunks(INFERENCE_BATCH) {
        progress.check()?;
        let (images, labels) = (set.batch(chunk, &checked.model.device())?, set.labels(chunk));
        let gradient = match loss {
            Loss::Margin => margin_gradient(checked.attacked, images, &labels)?,
            Loss::CrossEntropy => input_gradient(checked.model, images, &labels)?,
        };
        let largest = values(gradient.abs().flatten::<2>(1, 3).max_dim(1))?;
        zero.extend(largest.into_iter().map(|largest| f64::from(largest) < ZERO));
    }
    let zero = Rate::of(zero);
    let claim = match loss {
        Loss::Margin => "the margin has a gradient",
        Loss::CrossEntropy => "cross-entropy at temperature 1 has a gradient",
    };
    let detail = format!("{} of {} images have one below 1e-8 everywhere", zero.successes, zero.trials);
    Ok(row(checked.name, claim, passes_if(zero.share().is_none_or(|share| share <= MOST_ZERO)), detail))
}

/// The row for an attack that a set has too few classes for.
pub(super) fn needs_more_classes(model: &str, attack: &AttackConfig, classes: usize) -> Check {
    let why = format!("it needs {} classes, the model has {classes}", attack.least_classes());
    not_run(model, &format!("it withstands {} in {}", attack.name(), threat_label(attack.threat())), &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::eps_curve::{CurveConfig, sweep};
    use crate::evaluate::worst_case::Outcomes;
    use crate::progress::Silent;
    use crate::testing::{Corners, blocks};

    /// Half as much again as it takes to fool [`Corners`] on [`blocks`].
    const CONFIG: ChecklistConfig = ChecklistConfig {
        enabled: true,
        eps: 0.3,
        images: 24,
        steps: 10,
        restarts: 3,
        queries: 300,
        draws: 5,
    };

    fn every_check(model: &Corners) -> Vec<Check> {
        let set = blocks(32, 4, 3);
        let checked = Checked { name: "model", model, attacked: model };
        let config = CurveConfig { eps: vec![0.0, 0.15, 0.3, 1.0], images: 24, steps: 10 };
        let attempts: Vec<Attempt> = [AttackKind::Fgsm, AttackKind::Pgd]
            .into_iter()
            .map(|kind| {
                let attack = AttackConfig::linf(kind, 0.3);
                let attacked = AttackedSet::craft(model, &attack, &set, &Silent).expect("attacked");
                let right = right_under(model, &attacked).expect("answers");
                Attempt {
                    attack,
                    origin: Origin::Itself,
                    outcomes: Outcomes { right, answers: None },
                    reached: None,
                }
            })
            .collect();
        let sweep = sweep(("model", model), &set, &config, &Silent).expect("attacked").expect("radii");
        let mut checks = checks_of_attempts("model", &attempts);
        checks.extend(checks_of_sweep("model", &sweep));
        checks.extend(probes(checked, &set, &CONFIG, &Silent).expect("probed"));
        checks
    }

    fn failed(checks: &[Check]) -> Vec<&str> {
        let failed = checks.iter().filter(|check| check.outcome == Outcome::Fail);
        failed.map(|check| check.claim.as_str()).collect()
    }

    #[test]
    fn a_plain_model_passes_every_check() {
        let checks = every_check(&Corners::PLAIN);
        assert_eq!(checks.len(), 9);
        let outcomes: Vec<_> = checks.iter().filter(|check| check.outcome != Outcome::Pass).collect();
        assert!(outcomes.is_empty(), "{outcomes:#?}");
    }

    #[test]
    fn a_masked_model_is_found_out_by_its_gradients_by_random_search_and_by_its_curve() {
        let checks = every_check(&Corners::MASKED);
        assert_eq!(
            failed(&checks),
            [
                "model: accuracy falls to chance where the radius lets an image become any other",
                "model: the margin has a gradient",
                "model: cross-entropy at temperature 1 has a gradient",
                "model: gradients are at least as strong as random search",
            ],
            "{checks:#?}"
        );
    }

    fn attempt(kind: AttackKind, origin: Origin, right: usize) -> Attempt {
        let outcomes = Outcomes { right: (0..40).map(|image| image < right).collect(), answers: None };
        Attempt { attack: AttackConfig::linf(kind, 0.1), origin, outcomes, reached: None }
    }

    #[test]
    fn a_single_step_that_beats_many_is_a_failure_only_beyond_chance() {
        let outcome = |one, many| {
            let attempts = [
                attempt(AttackKind::Fgsm, Origin::Itself, one),
                attempt(AttackKind::Pgd, Origin::Itself, many),
            ];
            checks_of_attempts("model", &attempts)[0].outcome
        };
        // Five images against none have p = 0.0625, six have 0.03125.
        assert_eq!(
            (outcome(15, 20), outcome(14, 20), outcome(20, 14)),
            (Outcome::Pass, Outcome::Fail, Outcome::Pass)
        );
    }

    #[test]
    fn attacks_from_another_model_that_are_stronger_are_a_failure() {
        let from = |right| attempt(AttackKind::Pgd, Origin::Other("undefended".to_owned()), right);
        let outcome = |transferred| {
            let attempts = [attempt(AttackKind::Pgd, Origin::Itself, 20), transferred];
            let checks = checks_of_attempts("model", &attempts);
            assert_eq!((checks.len(), checks[0].outcome), (2, Outcome::Unknown), "one step was not tried");
            checks[1].outcome
        };
        assert_eq!((outcome(from(10)), outcome(from(30))), (Outcome::Fail, Outcome::Pass));
    }

    /// It has the model's own gradient: that it fools more images than the attack on all outputs is no sign of masking.
    #[test]
    fn an_attack_among_the_classes_alone_is_white_box() {
        let among = |right| attempt(AttackKind::Pgd, Origin::ItsClasses("student".to_owned()), right);
        let itself = attempt(AttackKind::Pgd, Origin::Itself, 30);
        assert_eq!(checks_of_attempts("model", &[itself.clone(), among(10)]).len(), 1, "none from another");
        let other = attempt(AttackKind::Pgd, Origin::Other("undefended".to_owned()), 20);
        let checks = checks_of_attempts("model", &[itself, among(10), other]);
        assert_eq!(checks[1].outcome, Outcome::Pass, "{}", checks[1].detail);
        assert!(checks[1].detail.contains("pgd from undefended leaves 50"), "{}", checks[1].detail);
    }

    fn curve(points: &[(f64, usize)], chance: Option<f64>) -> Vec<Outcome> {
        let points = points.iter().map(|&(eps, right)| (eps, (0..40).map(|image| image < right).collect()));
        let checks = checks_of_sweep("model", &Sweep::of(points.collect(), chance));
        checks.into_iter().map(|check| check.outcome).collect()
    }

    #[test]
    fn a_curve_must_fall_and_reach_chance_where_the_ball_is_the_box() {
        use Outcome::{Fail, Pass, Unknown};
        assert_eq!(curve(&[(0.0, 40), (0.1, 20), (1.0, 0)], Some(0.25)), [Pass, Pass]);
        assert_eq!(curve(&[(0.0, 40), (0.1, 10), (1.0, 20)], Some(0.25)), [Fail, Fail]);
        assert_eq!(curve(&[(0.0, 40), (0.1, 20)], Some(0.25)), [Pass, Unknown]);
        assert_eq!(curve(&[(1.0, 40)], Some(0.25)), [Unknown, Fail]);
        assert_eq!(curve(&[(0.0, 40), (1.0, 40)], None), [Pass, Unknown], "a set of one class");
        assert_eq!(curve(&[], None), [Unknown, Unknown]);
    }

    #[test]
    fn without_images_or_when_switched_off_nothing_is_probed() {
        let set = blocks(4, 4, 3);
        let checked = Checked { name: "model", model: &Corners::PLAIN, attacked: &Corners::PLAIN };
        let off = ChecklistConfig { enabled: false, ..CONFIG };
        assert_eq!(probes(checked, &set, &off, &Silent).expect("nothing to do"), []);
        let none = probes(checked, &set.subset(&[]), &CONFIG, &Silent).expect("nothing to do");
        assert_eq!(none.iter().map(|check| check.outcome).collect::<Vec<_>>(), [Outcome::Unknown]);
    }

    #[test]
    fn what_was_not_asked_for_is_not_run() {
        let config = ChecklistConfig { restarts: 0, queries: 0, draws: 0, ..CONFIG };
        let checked = Checked { name: "model", model: &Corners::PLAIN, attacked: &Corners::PLAIN };
        let checks = probes(checked, &blocks(8, 4, 3), &config, &Silent).expect("probed");
        let not_run = checks.iter().filter(|check| check.outcome == Outcome::Unknown).count();
        assert_eq!((checks.len(), not_run), (6, 3));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_their_key() {
        let refused = [
            ("eps", ChecklistConfig { eps: 0.0, ..CONFIG }),
            ("eps", ChecklistConfig { eps: f64::NAN, ..CONFIG }),
            ("steps", ChecklistConfig { steps: 0, ..CONFIG }),
            ("restarts", ChecklistConfig { restarts: 10_001, ..CONFIG }),
        ];
        for (key, config) in refused {
            let error = config.check("evaluate.checklist").expect_err(key).to_string();
            assert!(error.contains(&format!("`evaluate.checklist.{key}`")), "{error}");
        }
        ChecklistConfig::default().check("evaluate.checklist").expect("the default is in range");
    }
}
