//! The frozen detector on held-out images: attacks crafted on a network that the defender never saw, and honest damage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{auroc, recall_at_false_positive_rate};
use super::results::{HeldOutAttack, HeldOutDamage, HeldOutDetection, Rate};
use crate::attack::{AttackConfig, AttackKind, Evasive, Guard, GuardScore, Norm};
use crate::craft::{CraftedImage, craft_images, craft_towards};
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{DetectionHead, Model, ReconstructionError, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::purify::{CalibrationScores, Rule, ScoreKind, Scorer, Threshold};
use crate::rng::Seed;

/// What the frozen detector is frozen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldOutConfig {
    /// Test images that are used, drawn by the seed; 0 = all.
    pub images: usize,
    /// Attacks, each crafted on the attacker's own network with the label kept, stored in 8 bits.
    pub attacks: Vec<AttackConfig>,
    /// Attacks of one who holds the detector's weights and keeps quiet what it decides by: detection head, reconstruction error and label model where the mixture
    /// decides, one of them where that does; there is none against another score. `i-fgsm` in an L-infinity ball, from whose result it starts.
    #[serde(default)]
    pub knowing: Vec<AttackConfig>,
    /// Images that these attack, for they cost much, spread evenly over those that are used; 0 = all.
    #[serde(default)]
    pub knowing_images: usize,
    /// Honest damage, which is not to be flagged.
    pub honest: Vec<HonestDamage>,
}

impl Default for HeldOutConfig {
    /// FGSM and I-FGSM (10 steps of a quarter of eps) at 1, 2, 4 and 8 grey levels; Square of 500 queries at 4; attacks that no detector is trained with at 4 grey levels or an L2 norm of 0.5; damage of each kind, two of which no detector is trained with. Whoever knows the detector has 4 and 8 grey levels and 200 steps from half of eps down on 256 images.
    fn default() -> Self {
        use HonestDamage::{Blur, Brightness, Contrast, Gamma, Jpeg, Noise, Resample};
        let attack =
            |kind, eps: f64| AttackConfig { step: eps / 4.0, steps: 10, ..AttackConfig::linf(kind, eps) };
        // Levels of 8 bits, rounded up to four digits.
        let eps = [0.004, 0.0079, 0.0157, 0.0314];
        let carlini_wagner = AttackConfig {
            steps: 50,
            search_steps: 3,
            step: 0.05,
            ..AttackConfig::l2(AttackKind::CarliniWagner, 0.5)
        };
        let unlike_training = [
            AttackConfig::linf(AttackKind::Pgd, 0.0157),
            AttackConfig::linf(AttackKind::MiFgsm, 0.0157),
            AttackConfig::linf(AttackKind::Universal, 0.0157),
            AttackConfig::l2(AttackKind::Pgd, 0.5),
            // A sixtieth of the published steps: its perturbations are a little longer than need be, within the ball.
            carlini_wagner,
            // One that is not as short as can be, for one that also fools other networks (Carlini & Wagner 2017, section VIII-D).
            AttackConfig { confidence: 10.0, search_steps: 5, ..carlini_wagner },
        ];
        Self {
            images: 1000,
            attacks: [AttackKind::Fgsm, AttackKind::IFgsm]
                .into_iter()
                .flat_map(|kind| eps.map(|eps| attack(kind, eps)))
                .chain([AttackConfig { queries: 500, ..AttackConfig::linf(AttackKind::Square, 0.0157) }])
                .chain(unlike_training)
                .collect(),
            knowing: [0.0157, 0.0314]
                .map(|eps| AttackConfig {
                    step: eps / 2.0,
                    steps: 200,
                    ..AttackConfig::linf(AttackKind::IFgsm, eps)
                })
                .to_vec(),
            knowing_images: 256,
            honest: vec![
                Jpeg { quality: 95 },
                Jpeg { quality: 75 },
                Jpeg { quality: 50 },
                Noise { sigma: 0.005 },
                Noise { sigma: 0.01 },
                Noise { sigma: 0.02 },
                Blur { sigma: 0.7 },
                Brightness { factor: 0.8 },
                Brightness { factor: 1.2 },
                Contrast { factor: 0.8 },
                Contrast { factor: 1.2 },
                Gamma { exponent: 0.8 },
                Resample { scale: 0.75 },
            ],
        }
    }
}

impl HeldOutConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        for (index, attack) in self.attacks.iter().enumerate() {
            attack.check(&format!("{key}.attacks[{index}]"))?;
        }
        for (index, attack) in self.knowing.iter().enumerate() {
            let key = format!("{key}.knowing[{index}]");
            attack.check(&key)?;
            if (attack.kind, attack.norm) != (AttackKind::IFgsm, Norm::Linf) {
                let expected = "i-fgsm in an L-infinity ball: no other attack minds a detector";
                return Err(Error::config(key, attack.label(), expected));
            }
        }
        for (index, damage) in self.honest.iter().enumerate() {
            let (strength, most) = match *damage {
                HonestDamage::Jpeg { quality } => (f64::from(quality), 100.0),
                HonestDamage::Noise { sigma } => (sigma, 1.0),
                HonestDamage::Blur { sigma } => (sigma, 100.0),
                HonestDamage::Brightness { factor } | HonestDamage::Contrast { factor } => (factor, 10.0),
                HonestDamage::Gamma { exponent } => (exponent, 10.0),
                HonestDamage::Resample { scale } => (scale, 1.0),
            };
            if !(strength > 0.0 && strength <= most) {
                let key = format!("{key}.honest[{index}]");
                return Err(Error::config(key, strength, format!("a strength in (0, {most}]")));
            }
        }
        Ok(())
    }
}

/// The frozen detector, and what it makes of the clean images.
struct Frozen<'a> {
    clean: Vec<Vec<f64>>,
    scorer: &'a Scorer<'a>,
    decisive: ScoreKind,
    threshold: &'a Threshold,
}

impl Frozen<'_> {
    fn flags(&self, columns: &[Vec<f64>]) -> Vec<bool> {
        columns[self.decisive.position()].iter().map(|score| self.threshold.flags(*score)).collect()
    }

    /// Of the images that are flagged, those that are said to be crafted.
    fn accuses(&self, columns: &[Vec<f64>]) -> Rate {
        let both = self.flags(columns).into_iter().zip(self.scorer.called_crafted(columns));
        Rate::of(both.map(|(flagged, crafted)| flagged && crafted))
    }

    fn tried(&self, images: &Dataset, crafted: Vec<CraftedImage>, progress: &dyn Progress) -> Result<Tried> {
        let pixels = crafted.iter().map(|image| image.pixels.clone()).enumerate();
        let columns = self.scorer.score(&images.with_pixels(pixels)?, progress)?;
        let wins = crafted.iter().zip(images.samples()).zip(self.flags(&columns));
        let wins = wins.map(|((image, sample), flagged)| image.answer != sample.label && !flagged).collect();
        Ok(Tried { crafted, wins })
    }

    /// Scores attacked `images`, one for each.
    fn attacked(
        &self,
        images: &Dataset,
        attack: String,
        knows_detector: bool,
        crafted: Vec<CraftedImage>,
        progress: &dyn Progress,
    ) -> Result<HeldOutAttack> {
        let fooled: Vec<bool> = crafted
            .iter()
            .zip(images.samples())
            .map(|(image, sample)| image.answer != sample.label)
            .collect();
        let pixels = crafted.into_iter().map(|image| image.pixels).enumerate();
        let attacked = images.with_pixels(pixels)?;
        let columns = self.scorer.score(&attacked, progress)?;
        let (flagged, position) = (self.flags(&columns), self.decisive.position());
        let (clean, scores) = (&self.clean[position], &columns[position]);
        Ok(HeldOutAttack {
            attack,
            knows_detector,
            mean_length: mean_length(images, &attacked)?,
            auroc: self
                .clean
                .iter()
                .zip(&columns)
                .map(|(clean, found)| auroc(clean, found))
                .collect::<Result<_>>()?,
            recall_at_1_percent: recall_at_false_positive_rate(clean, scores, 0.01)?,
            evaded: Rate::of(fooled.iter().zip(&flagged).map(|(fooled, flagged)| *fooled && !flagged)),
            flagged: Rate::of(flagged),
            called_crafted: self.accuses(&columns),
            fooled: Rate::of(fooled),
        })
    }
}

/// What an attacker who knows the detector has tried so far.
struct Tried {
    crafted: Vec<CraftedImage>,
    /// Whether an image fools the attacker's network and is not flagged.
    wins: Vec<bool>,
}

impl Tried {
    /// Of each image the other try, where that one wins and this one does not.
    fn or(mut self, other: Self) -> Self {
        for (index, (image, wins)) in other.crafted.into_iter().zip(other.wins).enumerate() {
            if wins && !self.wins[index] {
                (self.crafted[index], self.wins[index]) = (image, true);
            }
        }
        self
    }
}

/// How quiet an attacker who knows the detector keeps it: the percentiles of the trusted images' scores that an image may reach, each tried. He can ask the
/// detector which of his images it flags, and keeps one that it does not.
const QUIET: [f64; 2] = [80.0, 95.0];

/// Scores held-out images clean, attacked on `unseen`, and honestly damaged; `None` for fewer than two images.
///
/// Attacks that the attacker's network has too few classes for are left out. Nothing is fitted here: `thresholds`, in the order of the table of scores, come frozen. Whoever knows the detector crafts on all networks at once, keeps
/// what it decides by where that of trusted images is, and keeps what is not flagged.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn held_out(
    test: &Dataset,
    config: &HeldOutConfig,
    unseen: &TrainedClassifier,
    detector: &TrainedAutoencoder,
    scorer: &Scorer<'_>,
    decisive: ScoreKind,
    thresholds: &[Threshold],
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<HeldOutDetection>> {
    if test.len() < 2 {
        return Ok(None);
    }
    let test = &super::attack_set(test, config.images, seed);
    progress.task("scoring held-out images", "images");
    let clean = scorer.score(test, progress)?;
    let threshold = &thresholds[decisive.position()];
    let frozen = Frozen { clean, scorer, decisive, threshold };
    let (indices, device): (Vec<usize>, _) = ((0..test.len()).collect(), unseen.device());
    let mut attacks = Vec::new();
    let classes = unseen.spec().classes.len();
    for attack in config.attacks.iter().filter(|attack| attack.least_classes() <= classes) {
        progress.task(&format!("{} on held-out images", attack.label()), "images");
        let crafted = craft_images(test, &indices, attack, unseen, &device, progress)?;
        attacks.push(frozen.attacked(test, attack.label(), false, crafted, progress)?);
    }
    let (head, error) = (DetectionHead(detector), ReconstructionError(detector));
    let few = super::robustness::evenly_spaced(test, config.knowing_images);
    let (guarded, some) = (Guarded::of(decisive, &head, &error, scorer), &indices[..few.len()]);
    // No attack here minds another score.
    let knowing = if guarded.is_empty() { &[][..] } else { &config.knowing[..] };
    for attack in knowing {
        let label = format!("{}, knowing the detector", attack.label());
        progress.task(&format!("{label}, on held-out images"), "images");
        let (step, steps) = attack.walk();
        let mut best: Option<Tried> = None;
        for percentile in QUIET {
            let guards = guarded.iter().map(|part| part.quieted(percentile)).collect::<Result<_>>()?;
            let evasive = Evasive::fooling(guards, step, steps);
            let (labels, threat) = (few.labels(some), attack.threat());
            let crafted = craft_towards(&few, some, &labels, &evasive, threat, unseen, &device, progress)?;
            let tried = frozen.tried(&few, crafted, progress)?;
            best = Some(match best {
                None => tried,
                Some(best) => best.or(tried),
            });
        }
        if let Some(Tried { crafted, .. }) = best {
            attacks.push(frozen.attacked(&few, label, true, crafted, progress)?);
        }
    }
    let mut honest = Vec::new();
    for damage in &config.honest {
        let columns = scorer.score(&damage.on(test, seed)?, progress)?;
        let (flagged, called_crafted) = (Rate::of(frozen.flags(&columns)), frozen.accuses(&columns));
        honest.push(HeldOutDamage { damage: damage.label(), flagged, called_crafted });
    }
    let right = super::accuracy(unseen, test, progress)?;
    Ok(Some(HeldOutDetection {
        scores: ScoreKind::names(),
        decides: decisive.name().to_owned(),
        clean: Rate::of(frozen.flags(&frozen.clean)),
        fooled_by_clean: Rate { successes: right.trials - right.successes, trials: right.trials },
        attacks,
        honest,
    }))
}

/// Mean L2 norm of the difference between images of two sets, in pixel units.
fn mean_length(before: &Dataset, after: &Dataset) -> Result<f64> {
    let lengths = (0..before.len()).map(|index| {
        let (before, after) = (before.batch_f32(&[index])?, after.batch_f32(&[index])?);
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        Ok(before.iter().zip(&after).map(square).sum::<f64>().sqrt())
    });
    Ok(lengths.sum::<Result<f64>>()? / before.len() as f64)
}

/// What a score that decides is made of, as far as an attack can mind it.
struct Guarded<'a> {
    model: &'a dyn Model,
    score: GuardScore,
    /// What the trusted images have.
    trusted: Vec<f64>,
}

impl<'a> Guarded<'a> {
    /// The parts of the score that decides; none of one that is not made of detection head, reconstruction error and label model.
    fn of(
        decisive: ScoreKind,
        head: &'a DetectionHead<'a>,
        error: &'a ReconstructionError<'a>,
        scorer: &'a Scorer<'_>,
    ) -> Vec<Self> {
        let trusted = |kind| scorer.trusted(kind).to_vec();
        let logit = |model, trusted| Self { model, score: GuardScore::Logit, trusted };
        let head = || logit(head as &dyn Model, trusted(ScoreKind::Head));
        let error = || logit(error, ReconstructionError::logarithms(scorer.trusted(ScoreKind::Mse)));
        let label = scorer.label_model().map(|model| Self {
            model,
            score: GuardScore::WrongLabel,
            trusted: trusted(ScoreKind::Label),
        });
        match decisive {
            ScoreKind::Mixture => [head(), error()].into_iter().chain(label).collect(),
            ScoreKind::Head => vec![head()],
            ScoreKind::Mse => vec![error()],
            ScoreKind::Label => label.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// A guard that is to find an image no more suspicious than this percentile of the trusted ones.
    fn quieted(&self, percentile: f64) -> Result<Guard<'a>> {
        let rule = Rule::Percentile { percentile, margin: 0.0 };
        let limit = Threshold::infer(&CalibrationScores::new(self.trusted.clone())?, rule)?.value();
        Ok(Guard { model: self.model, score: self.score, limit })
    }
}
