//! Honest evaluation: accuracy, robustness, detection quality, restoration, abstention. The only room that joins truth and scores.
//!
//! Nothing is fitted here: thresholds, weights and the null rule come in finished. Attacks are white box, on the very model
//! that they are counted for, with gradients at z/T for a model that was trained at temperature T.

mod anomaly_map;
mod chance;
mod checks;
mod detection;
mod examples;
mod findings;
mod held_out;
pub mod image_quality;
mod localisation;
pub mod metrics;
mod restoration;
pub mod results;
mod robustness;
mod statements;

pub use chance::Chance;
pub use checks::self_checks;
pub use detection::{Truth, class_rows, detection, suspicion_points, verdict_counts};
pub use examples::triptychs;
pub use findings::{AuditFindings, AuditOrigin, AuditPageConfig, Exhibit, audit_findings};
pub use held_out::{HeldOutConfig, held_out};
pub use localisation::{Mapped, localisation, random_overlap};
pub use restoration::restoration;
pub use robustness::{AttackedSet, abstention, accuracy, attack_set, attacked_accuracy, backdoor_success};
pub use statements::statements;
