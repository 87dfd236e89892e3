//! Distillation: a teacher, its soft labels, a student that learns from them, and the null output.
//!
//! Plain defensive distillation has teacher and student at one raised softmax temperature (Papernot 2016); robust kinds ask the student on images
//! that are perturbed against it. [`TABLE`] lists the methods. Every student is deployed at T = 1.

mod abstention;
mod config;
mod detector;
mod null_score;
mod soft_labels;
mod temperature;
mod uncertainty;

pub(crate) use abstention::is_above;
pub use abstention::{Abstaining, AbstentionConfig, Answer, NullCalibration, NullRule};
pub use config::{
    AdversarialNetworks, DistillConfig, EnsembleConfig, Method, OutlierConfig, Row, StudentStart, TABLE,
};
pub(crate) use config::{StudentLesson, perturbed};
pub use detector::DetectorLimits;
pub use null_score::NullScore;
pub use soft_labels::SoftLabels;
pub(crate) use soft_labels::class_references;
pub(crate) use temperature::AtTemperature;
pub use temperature::calibrated_temperature;
pub use uncertainty::{Measure, Seen, UNCERTAINTIES, Uncertainty};
