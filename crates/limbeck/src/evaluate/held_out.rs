//! The frozen detector on held-out images: attacks crafted on a network that the defender never saw, and honest damage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metrics::{auroc, recall_at_false_positive_rate};
use super::results::{HeldOutAttack, HeldOutDamage, HeldOutDetection, Rate};
use crate::attack::{AttackConfig, AttackKind};
use crate::craft::craft_images;
use crate::damage::HonestDamage;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::{Model, TrainedClassifier};
use crate::progress::Progress;
use crate::purify::{ScoreKind, Scorer, Threshold};
use crate::rng::Seed;

/// What the frozen detector is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldOutConfig {
    /// Test images that are used, drawn by the seed; 0 = all.
    pub images: usize,
    /// Attacks, each crafted on the attacker's own network with the label kept, stored in 8 bits.
    pub attacks: Vec<AttackConfig>,
    /// Honest damage, which is not to be flagged.
    pub honest: Vec<HonestDamage>,
}

impl Default for HeldOutConfig {
    /// FGSM and I-FGSM (10 steps of a quarter of eps) at 1, 2, 4 and 8 grey levels; attacks that no detector is trained with at 4 grey levels or an L2 norm of 0.5; damage of each kind, two of which no detector is trained with.
    fn default() -> Self {
        use HonestDamage::{Blur, Brightness, Contrast, Gamma, Jpeg, Noise, Resample};
        let attack =
            |kind, eps: f64| AttackConfig { step: eps / 4.0, steps: 10, ..AttackConfig::linf(kind, eps) };
        // Levels of 8 bits, rounded up to four digits.
        let eps = [0.004, 0.0079, 0.0157, 0.0314];
        let unlike_training = [
            AttackConfig::linf(AttackKind::Pgd, 0.0157),
            AttackConfig::linf(AttackKind::MiFgsm, 0.0157),
            AttackConfig::linf(AttackKind::Universal, 0.0157),
            AttackConfig::l2(AttackKind::Pgd, 0.5),
            // A sixtieth of the published steps: its perturbations are a little longer than need be, within the ball.
            AttackConfig {
                steps: 50,
                search_steps: 3,
                step: 0.05,
                ..AttackConfig::l2(AttackKind::CarliniWagner, 0.5)
            },
        ];
        Self {
            images: 1000,
            attacks: [AttackKind::Fgsm, AttackKind::IFgsm]
                .into_iter()
                .flat_map(|kind| eps.map(|eps| attack(kind, eps)))
                .chain(unlike_training)
                .collect(),
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

/// Scores held-out images clean, attacked on `unseen`, and honestly damaged; `None` without an attacker's network.
///
/// Nothing is fitted here: `thresholds`, in the order of the table of scores, come frozen.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different kind of thing; a bundle would only rename them"
)]
pub fn held_out(
    test: &Dataset,
    config: &HeldOutConfig,
    unseen: Option<&TrainedClassifier>,
    scorer: &Scorer<'_>,
    decisive: ScoreKind,
    thresholds: &[Threshold],
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<HeldOutDetection>> {
    let Some(unseen) = unseen.filter(|_| test.len() > 1) else { return Ok(None) };
    let test = super::attack_set(test, config.images, seed);
    let scores = |set: &Dataset| scorer.score(set, progress);
    let position = decisive.position();
    let threshold = &thresholds[position];
    let flagged =
        |columns: &[Vec<f64>]| Rate::of(columns[position].iter().map(|score| threshold.flags(*score)));
    progress.task("scoring held-out images", "images");
    let clean = scores(&test)?;
    let indices: Vec<usize> = (0..test.len()).collect();
    let mut attacks = Vec::new();
    for attack in &config.attacks {
        progress.task(&format!("{} on held-out images", attack.label()), "images");
        let crafted = craft_images(&test, &indices, attack, unseen, &unseen.device(), progress)?;
        let pixels = crafted.into_iter().map(|image| image.pixels);
        let attacked = scores(&test.with_pixels(indices.iter().copied().zip(pixels))?)?;
        attacks.push(HeldOutAttack {
            attack: attack.label(),
            auroc: clean
                .iter()
                .zip(&attacked)
                .map(|(clean, attacked)| auroc(clean, attacked))
                .collect::<Result<_>>()?,
            flagged: flagged(&attacked),
            recall_at_1_percent: recall_at_false_positive_rate(&clean[position], &attacked[position], 0.01)?,
        });
    }
    let mut honest = Vec::new();
    for damage in &config.honest {
        let mut rng = seed.child("honest damage").rng(&damage.label());
        let pixels = indices
            .iter()
            .map(|&index| Ok((index, damage.apply(&test.pixels(index)?, test.size(), &mut rng)?)))
            .collect::<Result<Vec<_>>>()?;
        honest.push(HeldOutDamage {
            damage: damage.label(),
            flagged: flagged(&scores(&test.with_pixels(pixels)?)?),
        });
    }
    Ok(Some(HeldOutDetection {
        scores: ScoreKind::names(),
        decides: decisive.name().to_owned(),
        clean: flagged(&clean),
        attacks,
        honest,
    }))
}
