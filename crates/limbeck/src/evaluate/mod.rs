//! Honest evaluation: accuracy, robustness, detection quality, restoration, abstention. The only room that joins truth and scores.
//!
//! Nothing is fitted here: thresholds, weights and the null rule come in finished. Attacks are white box, on the very model
//! that they are counted for, with gradients at z/T for a model that was trained at temperature T.

mod anomaly_map;
mod attack_checkpoint;
mod attacked_examples;
mod attacked_set;
mod calibration;
mod chance;
mod checklist;
mod detection;
mod eps_curve;
mod examination;
mod examples;
mod findings;
mod held_out;
pub mod image_quality;
mod knowing_rule;
mod localisation;
pub mod mcnemar;
pub mod metrics;
mod restoration;
pub mod results;
pub mod risk_coverage;
mod robustness;
mod seeds;
mod shield;
mod statements;
mod worst_case;

pub use attack_checkpoint::AttackCheckpoints;
pub use attacked_examples::ExampleDraw;
pub use attacked_set::AttackedSet;
pub use calibration::calibration;
pub use chance::Chance;
pub use checklist::{Checked, ChecklistConfig, checks_of_attempts, checks_of_sweep, probes};
pub use detection::{Truth, class_rows, detection, suspicion_points, verdict_counts};
pub use eps_curve::{CurveConfig, Sweep, sweep};
pub use examination::{Examined, Source, Subject, Trials, examine, robustness};
pub use examples::triptychs;
pub use findings::{AuditFindings, AuditOrigin, AuditPageConfig, Exhibit, Lenses, audit_findings};
pub use held_out::{HeldOutConfig, held_out};
pub use knowing_rule::{KnowingRuleConfig, knowing_rule};
pub use localisation::{Mapped, localisation, random_overlap};
pub use mcnemar::compare;
pub use restoration::restoration;
pub use robustness::{Reading, abstention, accuracy, attack_set, backdoor_success, read, right_under};
pub use seeds::{Scale, SeedFigure, SeedRun, SeedSummary, over_seeds};
pub use shield::{ShieldConfig, shield};
pub use statements::statements;
pub use worst_case::{Attempt, Origin, Outcomes, right_in_worst_case, threat_label, threats, worst_case};
