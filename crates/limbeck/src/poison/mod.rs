//! Poisoning: what an attacker puts into a training set, with the truth kept apart.
//!
//! [`poison`] draws the images and lets the kind that the config names change them; the truth goes to a manifest that only evaluation
//! reads. Changed images are stored in 8 bits, as a real attacker must. A kind is one file and one line of [`TABLE`].

mod adversarial;
mod backdoor;
mod evade;
mod label_consistent;
mod label_flip;
mod manifest;
mod tap;

pub use evade::{Copies, Evasion, passing};
pub use manifest::{PoisonedImage, PoisonedSet, TruthManifest, TruthRow};

use burn::tensor::Device;
use rand::seq::index::sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attack::{AttackConfig, Norm, Payload, ThreatModel};
use crate::dataset::{Dataset, ImageSize};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::progress::Progress;
use crate::rng::{Rng, Seed};

/// What the attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoisonConfig {
    /// What is done to an image.
    #[serde(default)]
    pub kind: PoisonKind,
    /// Share of the whole training set, 0 to 1; 0 = no attacker.
    pub fraction: f64,
    /// Whether the label is left alone (`adversarial` only).
    pub label: LabelPolicy,
    /// How the images are perturbed (`adversarial`, `tap` and `label-consistent`; Turner 2019: PGD at 8/255 to 32/255).
    pub attack: AttackConfig,
    /// The class that a trigger stands for (`bad-nets`, `blended` and `label-consistent`).
    #[serde(default)]
    pub target: u32,
    /// Weight of the key that is blended in (`blended`; Chen 2017 and BackdoorBench: 0.2).
    #[serde(default = "default_blend")]
    pub blend: f64,
    /// How much lighter or darker the trigger makes a training image, as a share of the way from black to white (`label-consistent`; Turner 2019: 16, 32 and
    /// 64 of 255). In tests it has full strength.
    #[serde(default = "default_amplitude")]
    pub amplitude: f64,
    /// What the attacker does about a defence that it knows; works with every kind.
    #[serde(default)]
    pub evade: Evasion,
}

fn default_blend() -> f64 {
    0.2
}

fn default_amplitude() -> f64 {
    0.25
}

impl Default for PoisonConfig {
    /// The paper's poison: a tenth of the set, I-FGSM with the label kept.
    fn default() -> Self {
        Self {
            kind: PoisonKind::default(),
            fraction: 0.1,
            label: LabelPolicy::Kept,
            attack: AttackConfig::default(),
            target: 0,
            blend: default_blend(),
            amplitude: default_amplitude(),
            evade: Evasion::default(),
        }
    }
}

/// The kinds of poison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PoisonKind {
    /// Images attacked on the attacker's own network, with the label kept (the paper's) or changed to the answer (dirty label).
    #[default]
    Adversarial,
    /// Targeted adversarial poison: images attacked towards the class after their own, with the label kept (Fowl 2021).
    Tap,
    /// Wrong labels, each other class as likely.
    LabelFlip,
    /// Wrong labels, always the class after the image's own.
    PairedFlip,
    /// A small white patch in a corner, relabelled to one class (Gu 2017).
    BadNets,
    /// A faint key over the whole image, relabelled to one class (Chen 2017).
    Blended,
    /// A faint pattern in the corners of images of one class, made hard to learn, with their right label (Turner 2019).
    LabelConsistent,
}

/// All kinds: listing one here offers it in configs and tests it.
pub const TABLE: &[(PoisonKind, &str, &dyn Poison)] = &[
    (PoisonKind::Adversarial, "adversarial", &adversarial::Adversarial),
    (PoisonKind::Tap, "tap", &tap::Tap),
    (PoisonKind::LabelFlip, "label-flip", &label_flip::Random),
    (PoisonKind::PairedFlip, "paired-flip", &label_flip::Paired),
    (PoisonKind::BadNets, "bad-nets", &backdoor::BadNets),
    (PoisonKind::Blended, "blended", &backdoor::Blended),
    (PoisonKind::LabelConsistent, "label-consistent", &label_consistent::LabelConsistent),
];

/// The images that are to be poisoned, and what an attacker has at hand.
pub struct Task<'a> {
    set: &'a Dataset,
    indices: &'a [usize],
    config: &'a PoisonConfig,
    /// The attacker's own network, for those that need one.
    surrogate: Option<&'a dyn Model>,
    device: &'a Device,
    progress: &'a dyn Progress,
}

impl Task<'_> {
    fn surrogate(&self) -> Result<&dyn Model> {
        let missing = || Error::input("poison", "no surrogate classifier", "one to craft on");
        self.surrogate.ok_or_else(missing)
    }
}

/// One kind of poison.
///
/// Only [`craft`](Self::craft) is required; the rest says what is special about a kind.
pub trait Poison: Sync {
    /// Images that may be poisoned; a backdoor has no use for those of its target.
    fn is_candidate(&self, _label: u32, _config: &PoisonConfig) -> bool {
        true
    }

    /// The images of the task as they are put into the set, in the order of its indices.
    fn craft(&self, task: &Task<'_>, rng: &mut Rng) -> Result<Vec<PoisonedImage>>;

    /// A test image, RGB8 `[3, height, width]`, with the trigger; `None` for a kind without one.
    fn triggered(&self, _pixels: &[u8], _size: ImageSize, _config: &PoisonConfig) -> Option<Vec<u8>> {
        None
    }

    /// What a perturbed image does to a network, beside any trigger, from its original label: an attacker who evades a defence is not to lose it.
    fn payload(&self, _label: u32, _classes: u32) -> Payload {
        Payload::None
    }

    /// Whether an attacker who knows the defence picks its images by how well their new labels pass: where all are alike to it but for that.
    fn picks_images(&self) -> bool {
        false
    }
}

/// The label of a poisoned image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LabelPolicy {
    /// The image keeps its label: the paper's poison.
    Kept,
    /// The image gets the label that the surrogate now answers (dirty label).
    Changed,
}

impl PoisonConfig {
    /// Refuses settings that are not finite or out of range.
    pub fn check(&self, key: &str) -> Result<()> {
        if !(0.0..=1.0).contains(&self.fraction) {
            return Err(Error::config(format!("{key}.fraction"), self.fraction, "a share in [0, 1]"));
        }
        if !(self.blend > 0.0 && self.blend <= 1.0) {
            return Err(Error::config(format!("{key}.blend"), self.blend, "a weight in (0, 1]"));
        }
        if !(self.amplitude > 0.0 && self.amplitude <= 1.0) {
            return Err(Error::config(format!("{key}.amplitude"), self.amplitude, "a share in (0, 1]"));
        }
        self.evade.check(&format!("{key}.evade"))?;
        if self.evade.is_on() && self.ball().is_some_and(|ball| ball.norm != Norm::Linf) {
            let expected = "linf, or `evade.eps` = 0: only L-infinity balls can be kept while evading";
            return Err(Error::config(format!("{key}.attack.norm"), "l2", expected));
        }
        self.attack.check(&format!("{key}.attack"))?;
        let is_empty = |ball: ThreatModel| ball.norm == Norm::Linf && ball.eps > 0.0 && ball.levels() == 0;
        if self.fraction > 0.0 && self.ball().is_some_and(is_empty) {
            let expected =
                "0.0039 or more: a poisoned image is stored in 8 bits, of which this is less than a level";
            return Err(Error::config(format!("{key}.attack.eps"), self.attack.eps, expected));
        }
        Ok(())
    }

    /// Refuses a target class that the set has not.
    pub(crate) fn check_target(&self, set: &Dataset) -> Result<()> {
        let classes = set.classes().len();
        if self.target as usize >= classes {
            return Err(Error::config("poison.plan.target", self.target, format!("a class below {classes}")));
        }
        Ok(())
    }

    /// Whether it takes a network of the attacker's own.
    pub(crate) fn needs_surrogate(&self) -> bool {
        self.is_gradient_attack() || self.evade.is_on()
    }

    fn row(&self) -> (&'static str, &'static dyn Poison) {
        let row = TABLE.iter().find(|(kind, ..)| *kind == self.kind).expect("every kind is in the table");
        (row.1, row.2)
    }

    /// Whether a trigger stands for one class.
    pub fn has_target(&self) -> bool {
        matches!(self.kind, PoisonKind::BadNets | PoisonKind::Blended | PoisonKind::LabelConsistent)
    }

    /// Whether [`LabelPolicy`] decides the label of a poisoned image.
    pub fn has_label_policy(&self) -> bool {
        self.kind == PoisonKind::Adversarial
    }

    /// Whether images are perturbed by a gradient attack.
    pub fn is_gradient_attack(&self) -> bool {
        matches!(self.kind, PoisonKind::Adversarial | PoisonKind::Tap | PoisonKind::LabelConsistent)
    }

    /// The ball around the original in which a poisoned image stays, but for its trigger.
    fn ball(&self) -> Option<ThreatModel> {
        self.is_gradient_attack().then(|| self.attack.threat())
    }

    /// The pixels that the trigger sets whatever the image was, `[height, width]`; `None` for a poison without such a patch.
    pub fn patch(&self, size: ImageSize) -> Option<Vec<bool>> {
        let area = size.bytes() / 3;
        let [dark, light] =
            [0, 255].map(|level| self.row().1.triggered(&vec![level; size.bytes()], size, self));
        let (dark, light) = (dark?, light?);
        let is_set =
            |pixel| (0..3).all(|channel| dark[channel * area + pixel] == light[channel * area + pixel]);
        let patch: Vec<bool> = (0..area).map(is_set).collect();
        patch.contains(&true).then_some(patch)
    }

    /// Name in manifests and reports: `"i-fgsm eps 0.01"`, `"bad-nets to class 3"`.
    pub fn label(&self) -> String {
        let kind = match self.kind {
            PoisonKind::Adversarial => self.attack.label(),
            PoisonKind::Tap => format!("tap, {}", self.attack.label()),
            PoisonKind::BadNets | PoisonKind::Blended => format!("{} to class {}", self.row().0, self.target),
            PoisonKind::LabelConsistent => {
                format!("{} to class {}, {}", self.row().0, self.target, self.attack.label())
            }
            PoisonKind::LabelFlip | PoisonKind::PairedFlip => self.row().0.to_owned(),
        };
        match self.evade.is_on() {
            true => format!("{kind}, evading within {}", crate::text::number(self.evade.eps)),
            false => kind,
        }
    }

    /// The images of `set` that are not of the target class, with the trigger; `None` for a poison without one.
    pub fn triggered(&self, set: &Dataset) -> Result<Option<Dataset>> {
        let others: Vec<usize> =
            (0..set.len()).filter(|&index| set.samples()[index].label != self.target).collect();
        let others = set.subset(&others);
        let mut images = Vec::with_capacity(others.len());
        for index in 0..others.len() {
            match self.row().1.triggered(&others.pixels(index)?, others.size(), self) {
                Some(pixels) => images.push((index, pixels)),
                None => return Ok(None),
            }
        }
        others.with_pixels(images).map(Some)
    }
}

/// Draws the images, changes them, and returns them with their new pixels and labels, in the set's order.
///
/// An attacker who evades needs `copies` of the defence; no other has a use for them.
///
/// # Errors
/// Refuses a target class that the set has not, evasion without copies of the defence, and attacks without a surrogate; reports whatever reading the set or the attack reports.
pub fn poison(
    set: &Dataset,
    config: &PoisonConfig,
    surrogate: Option<&dyn Model>,
    copies: Option<&Copies<'_>>,
    device: &Device,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<PoisonedSet> {
    config.check_target(set)?;
    let classes = set.classes().len();
    let kind = config.row().1;
    let candidates: Vec<usize> =
        (0..set.len()).filter(|&index| kind.is_candidate(set.samples()[index].label, config)).collect();
    let count = ((config.fraction * set.len() as f64).round() as usize).min(candidates.len());
    let copies = match (config.evade.is_on(), copies) {
        (false, _) => None,
        (true, Some(copies)) => Some(copies),
        (true, None) => {
            return Err(Error::input("poison", "evasion without copies of the defence", "copies to evade"));
        }
    };
    let picks = copies.filter(|copies| kind.picks_images() && copies.mind_labels());
    let indices = match picks {
        Some(_) => candidates,
        None => drawn(&candidates, count, seed),
    };
    progress.task("crafting poison", "images");
    let task = Task { set, indices: &indices, config, surrogate, device, progress };
    let mut images = kind.craft(&task, &mut seed.rng("poison"))?;
    if let Some(copies) = picks {
        images = evade::least_odd(&task, images, copies, count)?;
    }
    if let Some(copies) = copies {
        images = evade::evade(&task, images, copies, |label| kind.payload(label, classes as u32))?;
    }
    Ok(PoisonedSet { images })
}

/// `count` of the candidates, in rising order.
fn drawn(candidates: &[usize], count: usize, seed: Seed) -> Vec<usize> {
    let mut indices: Vec<usize> = sample(&mut seed.rng("poisoned images"), candidates.len(), count)
        .into_iter()
        .map(|position| candidates[position])
        .collect();
    indices.sort_unstable();
    indices
}

#[cfg(test)]
mod tests;
