//! Purification: a denoising autoencoder is trained, images are scored with it, a threshold is fitted on trusted
//! images, and each image of the audited set is kept, reconstructed or discarded. This room never sees the truth manifest.

mod clustering;
mod dae;
mod decisions;
mod discovery;
mod fitted;
mod intent;
mod judge;
mod knowledge;
mod label_model;
mod ledger;
mod mixture;
mod noise;
mod principal;
mod scores;
mod spectral;
mod stand_ins;
mod statistics;
mod suspicious;
mod threshold;
mod trusted_scores;
mod verdict;

pub(crate) use dae::{GREY_LEVELS, trimmed, weighted_loss};
pub use dae::{Twins, Watch, craft_twins, train_autoencoder, train_watched_autoencoder};
pub use decisions::{Decision, DecisionFile, Decisions, offer};
pub use fitted::{Activations, FITTED, Fit, FittedScore};
pub use intent::IntentModel;
pub use judge::{FlaggedPolicy, Judgement, PurifyConfig, Scorer, TrustedScores, judge, purified_set};
pub use knowledge::{Knowledge, KnowledgeConfig};
pub use label_model::{LabelModel, LabelModelConfig, train_label_model};
pub use ledger::{Ledger, LedgerRow};
pub(crate) use mixture::Surprise;
pub use noise::NoiseConfig;
pub(crate) use scores::label_margins;
pub use scores::{Defence, Reading, Score, ScoreKind, Shown, TABLE};
pub use stand_ins::{FoldNetworks, stand_ins};
pub use suspicious::{flagged_by_rank, write_suspicious_csv, write_suspicious_json};
pub use threshold::{CalibrationScores, Rule, Threshold};
pub use verdict::Verdict;

#[cfg(test)]
mod tests;
