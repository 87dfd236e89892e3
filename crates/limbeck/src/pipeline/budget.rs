//! Budgets of an evaluation: which attacks a defence is put to, and on how many images.
//!
//! A budget is a named set of `evaluate` settings, as a preset is one of all settings; what is set by hand still wins over it.

use serde::Serialize;

use super::presets::EPS_8;
use crate::attack::{AttackConfig, AttackKind};
use crate::error::{Error, Result};
use crate::evaluate::{ChecklistConfig, CurveConfig, KnowingRuleConfig};

/// How much an evaluation may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// FGSM and PGD on few images: what is plainly broken shows in moments.
    Quick,
    /// APGD, L2, and Square with few queries beside them, the whole curve and every check: minutes.
    Standard,
    /// AutoAttack with its published numbers, Carlini & Wagner and FAB in L2: the figures to publish, hours on two cores.
    Full,
}

/// The keys of a config that a budget sets.
#[derive(Serialize)]
struct Settings {
    evaluate: Evaluate,
}

#[derive(Serialize)]
struct Evaluate {
    attacks: Vec<AttackConfig>,
    attacked_images: usize,
    curve: CurveConfig,
    checklist: ChecklistConfig,
    knowing_rule: KnowingRuleConfig,
}

/// An L2 radius that is usual for images of 32 x 32 (RobustBench: 0.5).
const EPS_L2: f64 = 0.5;

impl Budget {
    /// All budgets, the cheapest first, by name.
    pub const TABLE: &[(Self, &str)] =
        &[(Self::Quick, "quick"), (Self::Standard, "standard"), (Self::Full, "full")];

    /// The budget of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its settings as a part of a config.
    pub(super) fn table(self) -> Result<toml::Table> {
        let settings = Settings { evaluate: self.evaluate() };
        toml::Table::try_from(settings)
            .map_err(|error| Error::config("budget", format!("{self:?}"), format!("a table ({error})")))
    }

    fn evaluate(self) -> Evaluate {
        let linf = |kind| AttackConfig::linf(kind, EPS_8);
        let l2 = |kind| AttackConfig::l2(kind, EPS_L2);
        let (fgsm, pgd) = (linf(AttackKind::Fgsm), linf(AttackKind::Pgd));
        let curve = CurveConfig::default();
        let checklist = ChecklistConfig { eps: EPS_8, ..ChecklistConfig::default() };
        let knowing_rule = KnowingRuleConfig::default();
        match self {
            Self::Quick => Evaluate {
                attacks: vec![fgsm, pgd],
                attacked_images: 128,
                curve: CurveConfig { eps: vec![0.0, EPS_8, 1.0], images: 64, ..curve },
                checklist: ChecklistConfig { images: 64, restarts: 0, queries: 0, ..checklist },
                knowing_rule: KnowingRuleConfig { eps: vec![0.0157], images: 32, steps: 30 },
            },
            Self::Standard => Evaluate {
                attacks: vec![
                    fgsm,
                    AttackConfig { steps: 20, ..pgd },
                    linf(AttackKind::ApgdCe),
                    AttackConfig { queries: 500, ..linf(AttackKind::Square) },
                    l2(AttackKind::Pgd),
                ],
                attacked_images: 512,
                curve: CurveConfig { steps: 20, ..curve },
                checklist: ChecklistConfig { steps: 20, queries: 500, ..checklist },
                knowing_rule,
            },
            Self::Full => Evaluate {
                attacks: vec![
                    fgsm,
                    AttackConfig { steps: 50, restarts: 5, ..pgd },
                    linf(AttackKind::AutoAttack),
                    l2(AttackKind::Pgd),
                    l2(AttackKind::CarliniWagner),
                    l2(AttackKind::FabT),
                ],
                attacked_images: 1000,
                curve: CurveConfig { images: 500, steps: 50, ..curve },
                checklist: ChecklistConfig {
                    images: 500,
                    steps: 50,
                    restarts: 10,
                    queries: 5000,
                    draws: 1000,
                    ..checklist
                },
                knowing_rule: KnowingRuleConfig { images: 500, steps: 200, ..knowing_rule },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Preset, RunConfig};

    fn within(budget: Budget, set: &[&str]) -> RunConfig {
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        RunConfig::resolve_within(Preset::Sample, None, Some(budget), &set).expect("within range")
    }

    #[test]
    fn every_budget_is_within_range_and_changes_the_evaluation_alone() {
        let mut before = RunConfig::preset(Preset::Sample);
        for &(budget, name) in Budget::TABLE {
            let after = within(budget, &[]);
            assert_ne!(after.evaluate, before.evaluate, "{name}");
            assert_eq!(after.evaluate.held_out, before.evaluate.held_out, "{name}");
            before.evaluate = after.evaluate.clone();
            assert_eq!(after, before, "{name}");
            assert_eq!(Budget::named(name), Some(budget));
        }
        assert_eq!(Budget::named("endless"), None);
    }

    #[test]
    fn what_is_set_by_hand_wins_over_a_budget() {
        let config = within(Budget::Quick, &["evaluate.attacked_images=7", "evaluate.checklist.draws=3"]);
        assert_eq!((config.evaluate.attacked_images, config.evaluate.checklist.draws), (7, 3));
        assert_eq!(config.evaluate.checklist.images, 64, "the rest is the budget's");
    }

    #[test]
    fn a_full_budget_has_autoattack_with_its_published_numbers() {
        let evaluate = within(Budget::Full, &[]).evaluate;
        let attack = evaluate.attacks.iter().find(|attack| attack.kind == AttackKind::AutoAttack);
        let attack = attack.expect("it is among them");
        // Croce & Hein 2020, section 4: 100 steps, 9 targets, 5000 queries, one run.
        assert_eq!((attack.walk().1, attack.targets, attack.queries, attack.restarts), (100, 9, 5000, 1));
    }
}
