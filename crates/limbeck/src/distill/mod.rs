//! Defensive distillation: a teacher at a raised softmax temperature, its soft labels, a student trained on them at the same
//! temperature and deployed at T = 1 (Papernot 2016), and the null output.

mod abstention;
mod soft_labels;

pub(crate) use abstention::answer_set;
pub use abstention::{AbstentionConfig, Answer, NullRule, predict};
pub use soft_labels::SoftLabels;
