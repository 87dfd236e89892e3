//! Robust accuracy: per image the worst of all attacks that one threat model allows.
//!
//! An attacker needs one attack that works, and may choose it for each image (Carlini 2019: the mean over images of the minimum over attacks, not the other way round). The mean over attacks, or the
//! best single one, says more for a model than is true. What lies within a smaller ball lies within a larger one of the same norm, so the attacks of
//! smaller radii count too, and so does the image as it is.

use super::results::{AttackedRate, Rate, WorstCase, WorstCaseWithNull, label_from};
use crate::attack::{AttackConfig, ThreatModel};
use crate::distill::Answer;

/// What a model made of each image of a set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    /// Whether its largest logit is that of the label; it is not where an outlier class wins.
    pub right: Vec<bool>,
    /// What it answered to the image in 8 bits, null among it; `None` for a model that always answers.
    pub answers: Option<Vec<Answer>>,
}

/// What an attack was crafted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The attacked model itself.
    Itself,
    /// The attacked model without its outlier class, by this name: white box as well.
    ItsClasses(String),
    /// Another model, by this name.
    Other(String),
}

impl Origin {
    /// Whether the attack had the gradient of the attacked model.
    pub fn is_white_box(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Its name, unless it is the attacked model as it is.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Itself => None,
            Self::ItsClasses(name) | Self::Other(name) => Some(name),
        }
    }
}

/// One attack on every image of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The attack.
    pub attack: AttackConfig,
    /// What it was crafted on.
    pub origin: Origin,
    /// What became of the images.
    pub outcomes: Outcomes,
    /// How many are answered with the class that was sought, of those that were led to one; `None` for an untargeted attack.
    pub reached: Option<Rate>,
}

impl Attempt {
    /// `"pgd eps 0.0314"`, `"pgd eps 0.0314, from undefended"`.
    pub fn label(&self) -> String {
        match self.origin.name() {
            None => self.attack.label(),
            Some(name) => label_from(&self.attack.label(), name),
        }
    }

    fn counts_under(&self, threat: ThreatModel) -> bool {
        let own = self.attack.threat();
        own.norm == threat.norm && own.eps <= threat.eps
    }
}

/// Name of a threat model in reports: `"L-infinity eps 0.0314"`.
pub fn threat_label(threat: ThreatModel) -> String {
    let norm = match threat.norm {
        crate::attack::Norm::Linf => "L-infinity",
        crate::attack::Norm::L2 => "L2",
    };
    format!("{norm} eps {}", crate::text::number(threat.eps))
}

/// The threat models of some attacks, each once, in the order of their first appearance.
pub fn threats<'a>(attacks: impl IntoIterator<Item = &'a AttackConfig>) -> Vec<ThreatModel> {
    let mut threats = Vec::new();
    for attack in attacks {
        if !threats.contains(&attack.threat()) {
            threats.push(attack.threat());
        }
    }
    threats
}

/// Images that are right as they are and under every attempt within `threat`.
pub fn right_in_worst_case<'a>(
    threat: ThreatModel,
    clean: &Outcomes,
    attempts: impl IntoIterator<Item = &'a Attempt>,
) -> Vec<bool> {
    in_every_case(threat, clean, attempts, |outcomes, image| outcomes.right[image])
}

/// The recorded worst case of one model; all outcomes are those of the images with these labels.
pub fn worst_case(
    model: &str,
    threat: ThreatModel,
    labels: &[u32],
    clean: &Outcomes,
    attempts: &[Attempt],
) -> WorstCase {
    let safe = |is_safe: fn(&Answer, u32) -> bool| {
        Rate::of(in_every_case(threat, clean, attempts, |outcomes, image| {
            outcomes.answers.as_ref().is_some_and(|answers| is_safe(&answers[image], labels[image]))
        }))
    };
    WorstCase {
        model: model.to_owned(),
        norm: threat.norm,
        eps: threat.eps,
        accuracy: Rate::of(right_in_worst_case(threat, clean, attempts)),
        with_null: clean.answers.is_some().then(|| WorstCaseWithNull {
            as_error: safe(|answer, label| !answer.null && answer.class == label),
            as_no_error: safe(|answer, label| answer.null || answer.class == label),
        }),
        attacks: attempts
            .iter()
            .filter(|attempt| attempt.counts_under(threat))
            .map(|attempt| AttackedRate {
                attack: attempt.label(),
                accuracy: Rate::of(attempt.outcomes.right.iter().copied()),
                reached: attempt.reached,
            })
            .collect(),
    }
}

/// For each image whether a claim holds as it is and under every attempt within `threat`.
fn in_every_case<'a>(
    threat: ThreatModel,
    clean: &Outcomes,
    attempts: impl IntoIterator<Item = &'a Attempt>,
    holds: impl Fn(&Outcomes, usize) -> bool,
) -> Vec<bool> {
    let within: Vec<_> = attempts.into_iter().filter(|attempt| attempt.counts_under(threat)).collect();
    (0..clean.right.len())
        .map(|image| holds(clean, image) && within.iter().all(|attempt| holds(&attempt.outcomes, image)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackKind;

    const SMALL: f64 = 0.01;
    const LARGE: f64 = 0.03;

    fn answer(class: u32, null: bool) -> Answer {
        Answer { class, probability: 1.0, uncertainty: 0.0, null, perturbed: false }
    }

    /// Outcomes of images labelled 0: `r`ight, `w`rong, null with the right class (`R`) and with a wrong one (`W`).
    fn outcomes(images: &str) -> Outcomes {
        let answers: Vec<Answer> = images
            .chars()
            .map(|image| answer(u32::from(image.eq_ignore_ascii_case(&'w')), image.is_ascii_uppercase()))
            .collect();
        Outcomes { right: answers.iter().map(|answer| answer.class == 0).collect(), answers: Some(answers) }
    }

    fn attempt(attack: AttackConfig, images: &str) -> Attempt {
        Attempt { attack, origin: Origin::Itself, outcomes: outcomes(images), reached: None }
    }

    fn attempts() -> Vec<Attempt> {
        vec![
            attempt(AttackConfig::linf(AttackKind::Fgsm, SMALL), "rwrRrr"),
            attempt(AttackConfig::linf(AttackKind::Pgd, LARGE), "rrwRWr"),
            attempt(AttackConfig::l2(AttackKind::Pgd, SMALL), "wwwwww"),
        ]
    }

    fn case(threat: ThreatModel) -> WorstCase {
        worst_case("student", threat, &[0; 6], &outcomes("rrrrrw"), &attempts())
    }

    #[test]
    fn an_image_counts_by_the_attack_that_does_most_harm_to_it() {
        // Image 2 falls to the smaller ball, 3 and 5 to the larger one, 6 is wrong as it is.
        assert_eq!(case(ThreatModel::linf(LARGE)).accuracy, Rate { successes: 2, trials: 6 });
        assert_eq!(case(ThreatModel::linf(SMALL)).accuracy, Rate { successes: 4, trials: 6 });
        assert_eq!(case(ThreatModel::l2(SMALL)).accuracy, Rate { successes: 0, trials: 6 });
        let smaller = ThreatModel::linf(SMALL / 2.0);
        assert_eq!(case(smaller).accuracy, Rate { successes: 5, trials: 6 }, "no attack is so small");
    }

    #[test]
    fn null_is_an_error_or_none() {
        let with_null = case(ThreatModel::linf(LARGE)).with_null.expect("the model can answer null");
        // Only image 1 is answered and right throughout; 4 and 5 are silent at worst.
        assert_eq!(with_null.as_error, Rate { successes: 1, trials: 6 });
        assert_eq!(with_null.as_no_error, Rate { successes: 3, trials: 6 });
    }

    #[test]
    fn a_model_that_is_always_silent_is_never_right_and_never_wrong() {
        let silent = outcomes("RRWW");
        let attempts = [attempt(AttackConfig::linf(AttackKind::Pgd, LARGE), "WWWW")];
        let case = worst_case("", ThreatModel::linf(LARGE), &[0; 4], &silent, &attempts);
        let with_null = case.with_null.expect("it can answer null");
        assert_eq!((with_null.as_error.successes, with_null.as_no_error.successes), (0, 4));
    }

    #[test]
    fn the_attacks_that_count_are_named_with_where_they_come_from() {
        let mut attempts = attempts();
        attempts[1].origin = Origin::Other("undefended".to_owned());
        let clean = Outcomes { answers: None, ..outcomes("rrrrrw") };
        let case = worst_case("student", ThreatModel::linf(LARGE), &[0; 6], &clean, &attempts);
        let names: Vec<&str> = case.attacks.iter().map(|row| row.attack.as_str()).collect();
        assert_eq!(names, ["fgsm eps 0.01", "pgd eps 0.03, from undefended"]);
        assert_eq!(case.with_null, None, "this model always answers");
    }

    #[test]
    fn without_images_there_is_nothing_to_share() {
        let case = worst_case("", ThreatModel::linf(LARGE), &[], &outcomes(""), &[]);
        assert_eq!((case.accuracy.share(), case.accuracy.wilson()), (None, None));
    }
}
