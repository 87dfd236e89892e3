//! Evasion attacks on a [`Model`]: they need its logits and an input gradient, nothing else.
//!
//! An attack proposes images; [`craft`] projects every proposal to the threat model's ball and to the pixel box, so no
//! attack can cheat. Images are `[batch, 3, height, width]` in `[0, 1]`, eps is in the same units. An attack never changes the
//! model; gradients are those of the logits at temperature 1 on z/T. An attack that draws random numbers has a seed; what it draws for
//! an image depends on that image alone.
//!
//! ```
//! use burn::tensor::Tensor;
//! use limbeck::attack::{AttackConfig, AttackKind, craft};
//! use limbeck::network::Model;
//!
//! /// The attacked images, each within 8/255 of its original.
//! fn attacked(model: &dyn Model, images: Tensor<4>, labels: &[u32]) -> limbeck::Result<Tensor<4>> {
//!     let pgd = AttackConfig { restarts: 5, ..AttackConfig::linf(AttackKind::Pgd, 8.0 / 255.0) };
//!     pgd.check("attack")?;
//!     craft(&*pgd.build(), model, pgd.threat(), images, labels)
//! }
//! ```

mod apgd;
mod carlini_wagner;
mod config;
mod draws;
mod ensemble;
mod evasive;
mod fab;
mod fgsm;
mod gradient;
mod i_fgsm;
mod loss;
mod mi_fgsm;
mod noise;
mod pgd;
mod rows;
mod square;
mod targeted;
mod threat;
mod universal;

use burn::tensor::Tensor;

pub use apgd::{Apgd, ApgdLoss};
pub use carlini_wagner::CarliniWagner;
pub use config::{AttackConfig, AttackKind, Family, TABLE};
pub use ensemble::{AutoAttack, Ensemble};
pub use evasive::{Aim, Evasive, Guard, GuardScore, Payload};
pub use fab::Fab;
pub use fgsm::Fgsm;
pub use gradient::{input_gradient, margin_gradient};
pub use i_fgsm::{IFgsm, TargetedIFgsm};
pub use loss::cross_entropy;
pub use mi_fgsm::MiFgsm;
pub use noise::{Distribution, Noise};
pub use pgd::Pgd;
pub(crate) use rows::{replace, select};
pub use square::{Square, SquareSchedule};
pub use targeted::{Rest, Target, Targeted};
pub use threat::{Norm, ThreatModel};
pub use universal::{Universal, UniversalPerturbation};

use crate::error::{Error, Result};
use crate::network::Model;

/// An evasion attack: a value that borrows a model for one call.
pub trait Attack {
    /// Proposes images that the model should answer wrongly; `labels` are the true classes, one for each image.
    ///
    /// Proposals are detached from any autodiff graph.
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>>;

    /// For an attack that learns one thing from many images: an attack that has learnt it, on whatever images it is used.
    ///
    /// `None` for attacks that look at each image by itself.
    fn fit(
        &self,
        _model: &dyn Model,
        _threat: ThreatModel,
        _batches: &Batches<'_>,
    ) -> Result<Option<Box<dyn Attack>>> {
        Ok(None)
    }
}

/// A set of images in batches, for an attack that learns from all of them.
pub struct Batches<'a> {
    /// Number of batches.
    pub count: usize,
    /// Reads one: images `[batch, 3, height, width]` in `[0, 1]` and their classes.
    pub read: &'a dyn Fn(usize) -> Result<(Tensor<4>, Vec<u32>)>,
}

/// Runs an attack and keeps it within the rules.
///
/// # Errors
/// Refuses labels and images of different number, and labels that the model has no logit for; reports logits that are not finite.
pub fn craft(
    attack: &dyn Attack,
    model: &dyn Model,
    threat: ThreatModel,
    images: Tensor<4>,
    labels: &[u32],
) -> Result<Tensor<4>> {
    let [batch, ..] = images.dims();
    if batch != labels.len() {
        return Err(Error::input(
            "attack",
            format!("{batch} images and {} labels", labels.len()),
            "one label for each image",
        ));
    }
    if labels.is_empty() {
        return Ok(images);
    }
    let proposal = attack.propose(model, threat, images.clone(), labels)?;
    Ok(threat.project(&images, proposal))
}

#[cfg(test)]
mod tests;
