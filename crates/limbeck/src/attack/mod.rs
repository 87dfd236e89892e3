//! Evasion attacks on a [`Model`]: they need its logits and an input gradient, nothing else.
//!
//! An attack proposes images; [`craft`] projects every proposal to the threat model's ball and to the pixel box, so no
//! attack can cheat. Images are `[batch, 3, height, width]` in `[0, 1]`, eps is in the same units. An attack never changes the
//! model; gradients are those of the logits at temperature 1 on z/T.

mod fgsm;
mod gradient;
mod i_fgsm;

use burn::tensor::{Int, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fgsm::Fgsm;
pub use gradient::{cross_entropy, input_gradient};
pub use i_fgsm::{IFgsm, TargetedIFgsm};

use crate::error::{Error, Result};
use crate::network::Model;

/// The perturbations that are allowed: an L-infinity ball of radius `eps` around the image, within `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreatModel {
    /// Radius, in pixel units.
    pub eps: f64,
}

impl ThreatModel {
    /// The nearest allowed image to `proposal`: projection twice is projection once.
    pub fn project(self, images: &Tensor<4>, proposal: Tensor<4>) -> Tensor<4> {
        let low = images.clone().sub_scalar(self.eps);
        let high = images.clone().add_scalar(self.eps);
        proposal.max_pair(low).min_pair(high).clamp(0.0, 1.0)
    }
}

/// An untargeted evasion attack: a value that borrows a model for one call.
pub trait Attack {
    /// Proposes images that the model should answer wrongly; `labels` are the true classes `[batch]`.
    ///
    /// Proposals are detached from any autodiff graph.
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: Tensor<1, Int>,
    ) -> Result<Tensor<4>>;
}

/// Runs an attack and keeps it within the rules.
///
/// # Errors
/// Refuses labels and images of different number; reports a gradient that is not finite.
pub fn craft(
    attack: &dyn Attack,
    model: &dyn Model,
    threat: ThreatModel,
    images: Tensor<4>,
    labels: Tensor<1, Int>,
) -> Result<Tensor<4>> {
    let ([batch, ..], [count]) = (images.dims(), labels.dims());
    if batch != count {
        return Err(Error::input(
            "attack",
            format!("{batch} images and {count} labels"),
            "one label for each image",
        ));
    }
    let proposal = attack.propose(model, threat, images.clone(), labels)?;
    Ok(threat.project(&images, proposal))
}

/// Which attack, with which settings: one row of the table of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttackConfig {
    /// The family.
    pub kind: AttackKind,
    /// Radius in pixel units; the paper's public code uses 0.01.
    pub eps: f64,
    /// Step size in pixel units (iterative attacks); the paper's public code uses 0.01.
    #[serde(default = "default_step")]
    pub step: f64,
    /// Gradient steps (iterative attacks); the paper's public code uses 10.
    #[serde(default = "default_steps")]
    pub steps: usize,
}

fn default_step() -> f64 {
    0.01
}

fn default_steps() -> usize {
    10
}

impl Default for AttackConfig {
    /// I-FGSM as in the authors' public code: eps 0.01, step 0.01, 10 steps.
    fn default() -> Self {
        Self { kind: AttackKind::IFgsm, eps: 0.01, step: default_step(), steps: default_steps() }
    }
}

/// The families of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AttackKind {
    /// Fast gradient sign method (Goodfellow 2014).
    Fgsm,
    /// Iterative FGSM, also called BIM (Kurakin 2016).
    IFgsm,
}

/// All attacks: listing one here tests it and offers it in configs.
pub const TABLE: &[(AttackKind, &str)] = &[(AttackKind::Fgsm, "fgsm"), (AttackKind::IFgsm, "i-fgsm")];

impl AttackConfig {
    /// Name in reports: `"i-fgsm"`.
    pub fn name(&self) -> &'static str {
        TABLE
            .iter()
            .find(|(kind, _)| *kind == self.kind)
            .map(|(_, name)| *name)
            .expect("every kind is in the table")
    }

    /// Name with its radius: `"i-fgsm eps 0.01"`.
    pub fn label(&self) -> String {
        format!("{} eps {}", self.name(), crate::text::number(self.eps))
    }

    /// The radius as a threat model.
    pub fn threat(&self) -> ThreatModel {
        ThreatModel { eps: self.eps }
    }

    /// The attack itself.
    pub fn build(&self) -> Box<dyn Attack> {
        match self.kind {
            AttackKind::Fgsm => Box::new(Fgsm),
            AttackKind::IFgsm => Box::new(IFgsm { step: self.step, steps: self.steps }),
        }
    }

    /// Refuses settings that are not finite or out of range; `key` names the table in the config.
    pub fn check(&self, key: &str) -> Result<()> {
        if !(self.eps.is_finite() && (0.0..=1.0).contains(&self.eps)) {
            return Err(Error::config(
                format!("{key}.eps"),
                self.eps,
                "a radius in [0, 1] pixel units (8/255 = 0.0314)",
            ));
        }
        if !(self.step.is_finite() && self.step > 0.0 && self.step <= 1.0) {
            return Err(Error::config(format!("{key}.step"), self.step, "a step size in (0, 1]"));
        }
        if self.steps == 0 || self.steps > 10_000 {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 10000 steps"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
