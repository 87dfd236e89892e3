//! The table of attacks, and the settings that a config gives one.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::noise::Distribution;
use super::{
    Apgd, ApgdLoss, Attack, AutoAttack, CarliniWagner, Fab, Fgsm, IFgsm, MiFgsm, Noise, Norm, Pgd, Rest,
    Square, SquareSchedule, Target, Targeted, ThreatModel, Universal,
};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::rng::Seed;

/// Which attack, with which settings: one row of the table of attacks.
///
/// A setting that a family has no use for is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttackConfig {
    /// The family.
    pub kind: AttackKind,
    /// Radius in pixel units, in the norm; the paper's public code uses 0.01.
    pub eps: f64,
    /// How perturbations are measured.
    #[serde(default)]
    pub norm: Norm,
    /// Step size in pixel units, for `carlini-wagner` the learning rate; 0 = the family's published value.
    #[serde(default)]
    pub step: f64,
    /// Gradient steps, for each restart or search step; 0 = the family's published value.
    #[serde(default)]
    pub steps: usize,
    /// Random starts or draws, of which each image keeps its worst (`pgd`, `apgd-*`, `fab-t`, `square`, noise; AutoAttack: 1).
    #[serde(default = "default_restarts")]
    pub restarts: usize,
    /// Decay factor of the momentum (`mi-fgsm`; Dong 2018: 1).
    #[serde(default = "default_decay")]
    pub decay: f64,
    /// Lead in logits that the wrong class must have (`carlini-wagner`; Carlini & Wagner 2017: 0 for the shortest perturbation).
    #[serde(default)]
    pub confidence: f64,
    /// Values that are tried for the weight c (`carlini-wagner`; the authors' code: 9).
    #[serde(default = "default_search_steps")]
    pub search_steps: usize,
    /// Most likely wrong classes that are aimed at, one by one (`apgd-t`, `fab-t`, `auto-attack`; Croce & Hein 2020: 9).
    #[serde(default = "default_targets")]
    pub targets: usize,
    /// Questions to the model for each image (`square`, `auto-attack`; Croce & Hein 2020: 5000).
    #[serde(default = "default_queries")]
    pub queries: usize,
    /// Which wrong answer is sought: `any`, `least-likely`, `random`, or one class, `{ class = 14 }`.
    #[serde(default)]
    pub target: Target,
    /// Root of the attack's random draws.
    #[serde(default)]
    pub seed: u64,
}

fn default_restarts() -> usize {
    1
}

fn default_decay() -> f64 {
    1.0
}

fn default_search_steps() -> usize {
    9
}

fn default_targets() -> usize {
    9
}

fn default_queries() -> usize {
    5000
}

impl Default for AttackConfig {
    /// I-FGSM at eps 0.01 with its published settings, which are those of the authors' public code: step 0.01, 10 steps.
    fn default() -> Self {
        Self {
            kind: AttackKind::IFgsm,
            eps: 0.01,
            norm: Norm::Linf,
            step: 0.0,
            steps: 0,
            restarts: default_restarts(),
            decay: default_decay(),
            confidence: 0.0,
            search_steps: default_search_steps(),
            targets: default_targets(),
            queries: default_queries(),
            target: Target::Any,
            seed: 0,
        }
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
    /// Projected gradient descent: I-FGSM from random starts (Madry 2018).
    Pgd,
    /// Momentum iterative FGSM (Dong 2018).
    MiFgsm,
    /// Auto-PGD on cross-entropy (Croce & Hein 2020).
    ApgdCe,
    /// Auto-PGD on the difference of logits ratio (Croce & Hein 2020).
    ApgdDlr,
    /// Auto-PGD towards the most likely wrong classes (Croce & Hein 2020).
    ApgdT,
    /// The shortest perturbation, in L2 (Carlini & Wagner 2017).
    CarliniWagner,
    /// The fast adaptive boundary attack towards the most likely wrong classes (Croce & Hein 2020).
    FabT,
    /// Random search that needs no gradient (Andriushchenko 2020).
    Square,
    /// AutoAttack in its standard version: `apgd-ce`, `apgd-t`, `fab-t` and `square` (Croce & Hein 2020).
    AutoAttack,
    /// One perturbation for all images (Moosavi-Dezfooli 2017; Shafahi 2020), learnt from the images that it is used on.
    Universal,
    /// Normally distributed noise.
    GaussianNoise,
    /// Noise from everywhere in the ball.
    UniformNoise,
}

/// One family of attacks: all that is particular to it beside the attack itself.
pub struct Family {
    /// Its name in code and schema.
    pub kind: AttackKind,
    /// Its name in configs and reports: `"i-fgsm"`.
    pub name: &'static str,
    /// The norms that it is made for.
    pub norms: &'static [Norm],
    /// The fewest classes that a model must have for it: a ratio of logits needs three, a targeted one four.
    pub least_classes: usize,
    /// How it sees the other classes where it is led towards one; `None` for what cannot be led, or chooses classes itself.
    pub rest: Option<Rest>,
    /// Number of steps where a config gives none.
    steps: usize,
    /// Size of each of so many steps in a ball where a config gives none.
    step: fn(ThreatModel, usize) -> f64,
    /// The attack with settings of which none is left open.
    build: fn(&AttackConfig) -> Box<dyn Attack>,
}

const BOTH: &[Norm] = &[Norm::Linf, Norm::L2];

/// All attacks: a row here tests one and offers it in configs.
pub const TABLE: &[Family] = &[
    Family {
        kind: AttackKind::Fgsm,
        name: "fgsm",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::LogSumExp),
        steps: 1,
        step: to_the_edge,
        build: |_| Box::new(Fgsm),
    },
    Family {
        kind: AttackKind::IFgsm,
        name: "i-fgsm",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::LogSumExp),
        steps: 10,
        step: as_the_authors,
        build: |config| Box::new(IFgsm { step: config.step, steps: config.steps }),
    },
    Family {
        kind: AttackKind::Pgd,
        name: "pgd",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::LogSumExp),
        steps: 10,
        step: a_quarter,
        build: |config| {
            let AttackConfig { step, steps, restarts, .. } = *config;
            Box::new(Pgd { step, steps, restarts, seed: config.root() })
        },
    },
    Family {
        kind: AttackKind::MiFgsm,
        name: "mi-fgsm",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::LogSumExp),
        steps: 10,
        // Dong 2018, section 4.1.
        step: |ball, steps| ball.eps / steps as f64,
        build: |&AttackConfig { step, steps, decay, .. }| Box::new(MiFgsm { step, steps, decay }),
    },
    Family {
        kind: AttackKind::ApgdCe,
        name: "apgd-ce",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::LogSumExp),
        steps: 100,
        step: twice_the_radius,
        build: |config| apgd(config, ApgdLoss::CrossEntropy),
    },
    Family {
        kind: AttackKind::ApgdDlr,
        name: "apgd-dlr",
        norms: BOTH,
        least_classes: 3,
        rest: None,
        steps: 100,
        step: twice_the_radius,
        build: |config| apgd(config, ApgdLoss::Dlr),
    },
    Family {
        kind: AttackKind::ApgdT,
        name: "apgd-t",
        norms: BOTH,
        least_classes: 4,
        rest: None,
        steps: 100,
        step: twice_the_radius,
        build: |config| apgd(config, ApgdLoss::TargetedDlr { targets: config.targets }),
    },
    Family {
        kind: AttackKind::CarliniWagner,
        name: "carlini-wagner",
        norms: &[Norm::L2],
        least_classes: 2,
        rest: Some(Rest::Max),
        // Iterations as in CleverHans; their own 10,000 are days on a CPU.
        steps: 1000,
        // Their code: a rate of Adam.
        step: |_, _| 0.01,
        build: |&AttackConfig { step: learning_rate, steps, confidence, search_steps, .. }| {
            Box::new(CarliniWagner { confidence, search_steps, steps, learning_rate })
        },
    },
    Family {
        kind: AttackKind::FabT,
        name: "fab-t",
        norms: BOTH,
        least_classes: 2,
        rest: None,
        steps: 100,
        step: twice_the_radius,
        build: |config| {
            let AttackConfig { steps, targets, restarts, .. } = *config;
            Box::new(Fab { steps, targets, restarts, seed: config.root() })
        },
    },
    Family {
        kind: AttackKind::Square,
        name: "square",
        norms: BOTH,
        least_classes: 2,
        rest: Some(Rest::Max),
        steps: 1,
        step: to_the_edge,
        build: |config| {
            let AttackConfig { queries, restarts, .. } = *config;
            Box::new(Square { queries, restarts, schedule: SquareSchedule::OfSearch, seed: config.root() })
        },
    },
    Family {
        kind: AttackKind::AutoAttack,
        name: "auto-attack",
        norms: BOTH,
        least_classes: 4,
        rest: None,
        steps: 100,
        step: twice_the_radius,
        build: |config| {
            let AttackConfig { steps, targets, queries, restarts, .. } = *config;
            Box::new(AutoAttack { steps, targets, queries, restarts, seed: config.root() }.ensemble())
        },
    },
    Family {
        kind: AttackKind::Universal,
        name: "universal",
        norms: BOTH,
        least_classes: 2,
        rest: None,
        steps: 10,
        // Shafahi 2020 give no step in units of eps: a quarter of it reaches the edge in a pass or two.
        step: a_quarter,
        build: |&AttackConfig { step, steps: passes, .. }| Box::new(Universal { step, passes }),
    },
    Family {
        kind: AttackKind::GaussianNoise,
        name: "gaussian-noise",
        norms: BOTH,
        least_classes: 2,
        rest: None,
        steps: 1,
        step: to_the_edge,
        build: |config| noise(config, Distribution::Gaussian),
    },
    Family {
        kind: AttackKind::UniformNoise,
        name: "uniform-noise",
        norms: BOTH,
        least_classes: 2,
        rest: None,
        steps: 1,
        step: to_the_edge,
        build: |config| noise(config, Distribution::Uniform),
    },
];

fn to_the_edge(ball: ThreatModel, _steps: usize) -> f64 {
    ball.eps
}

/// Croce & Hein 2020, section 4: the first step, in any case.
fn twice_the_radius(ball: ThreatModel, _steps: usize) -> f64 {
    2.0 * ball.eps
}

/// Madry 2018, section 5.1: 2/255 at 8/255; their robustness library for L2: 2.5 eps / steps, here of ten or fewer. One step: 1.25 eps (Wong 2020).
fn a_quarter(ball: ThreatModel, steps: usize) -> f64 {
    ball.eps * (2.5 / steps as f64).clamp(0.25, 1.25)
}

/// The authors' public code of the paper, in whose L-infinity ball one step reaches the edge; in a larger one as many as there are.
fn as_the_authors(ball: ThreatModel, steps: usize) -> f64 {
    match ball.norm {
        Norm::Linf => (ball.eps / steps as f64).max(0.01),
        Norm::L2 => a_quarter(ball, steps),
    }
}

fn apgd(config: &AttackConfig, loss: ApgdLoss) -> Box<dyn Attack> {
    let AttackConfig { steps, restarts, .. } = *config;
    Box::new(Apgd { loss, steps, restarts, seed: config.root() })
}

fn noise(config: &AttackConfig, distribution: Distribution) -> Box<dyn Attack> {
    Box::new(Noise { distribution, restarts: config.restarts, seed: config.root() })
}

impl AttackKind {
    /// Its row of the table.
    fn family(self) -> &'static Family {
        TABLE.iter().find(|family| family.kind == self).expect("every kind is in the table")
    }

    /// Name in configs and reports: `"i-fgsm"`.
    pub fn name(self) -> &'static str {
        self.family().name
    }

    /// The norms that it is made for.
    pub fn norms(self) -> &'static [Norm] {
        self.family().norms
    }
}

impl AttackConfig {
    /// An attack on the L-infinity ball with its published settings.
    pub fn linf(kind: AttackKind, eps: f64) -> Self {
        Self { kind, eps, norm: Norm::Linf, ..Self::default() }
    }

    /// An attack on the L2 ball with its published settings.
    pub fn l2(kind: AttackKind, eps: f64) -> Self {
        Self { kind, eps, norm: Norm::L2, ..Self::default() }
    }

    /// Name in reports: `"i-fgsm"`.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Name with its radius: `"i-fgsm eps 0.01"`, `"pgd L2 eps 0.5"`, `"pgd eps 0.0314, to the least likely class"`.
    pub fn label(&self) -> String {
        let norm = match self.norm {
            Norm::Linf => "",
            Norm::L2 => "L2 ",
        };
        let number = crate::text::number;
        let confidence = match (self.kind, self.confidence) {
            (AttackKind::CarliniWagner, confidence) if confidence > 0.0 => {
                format!(", confidence {}", number(confidence))
            }
            _ => String::new(),
        };
        let target = match self.target {
            Target::Any => String::new(),
            Target::LeastLikely => ", to the least likely class".to_owned(),
            Target::Random => ", to a random class".to_owned(),
            Target::Class(class) => format!(", to class {class}"),
        };
        format!("{} {norm}eps {}{confidence}{target}", self.name(), number(self.eps))
    }

    /// The radius as a threat model.
    pub fn threat(&self) -> ThreatModel {
        ThreatModel { norm: self.norm, eps: self.eps }
    }

    /// Step size and number of steps, the published ones where none are set.
    pub fn walk(&self) -> (f64, usize) {
        let family = self.kind.family();
        let steps = if self.steps == 0 { family.steps } else { self.steps };
        let step = if self.step == 0.0 { (family.step)(self.threat(), steps) } else { self.step };
        (step, steps)
    }

    /// The attack itself.
    pub fn build(&self) -> Box<dyn Attack> {
        let ((step, steps), family) = (self.walk(), self.kind.family());
        let attack = (family.build)(&Self { step, steps, ..*self });
        match (self.target, family.rest) {
            (Target::Any, _) | (_, None) => attack,
            (target, Some(rest)) => Box::new(Targeted { attack, target, rest, seed: self.root() }),
        }
    }

    /// The class that it seeks for each image, the image's label where none is to be had; `None` if it is untargeted.
    ///
    /// # Errors
    /// Those of [`Target::classes`].
    pub fn target_classes(
        &self,
        model: &dyn Model,
        images: &Tensor<4>,
        labels: &[u32],
    ) -> Result<Option<Vec<u32>>> {
        match self.target {
            Target::Any => Ok(None),
            target => target.classes(model, images, labels, self.root()).map(Some),
        }
    }

    /// The fewest classes that a model must have for it.
    pub fn least_classes(&self) -> usize {
        let target = match self.target {
            Target::Class(class) => class as usize + 1,
            _ => 0,
        };
        self.kind.family().least_classes.max(target)
    }

    /// Where its random draws come from.
    fn root(&self) -> Seed {
        Seed::new(self.seed).child("attack")
    }

    /// Refuses settings that are not finite or out of range; `key` names the table in the config.
    pub fn check(&self, key: &str) -> Result<()> {
        if !self.kind.norms().contains(&self.norm) {
            let found = format!("{:?} for {}", self.norm, self.name());
            return Err(Error::config(
                format!("{key}.norm"),
                found,
                format!("one of {:?}", self.kind.norms()),
            ));
        }
        // The L2 norm of the whole pixel box is √pixels: 1000 is that of an image of 577x577.
        let (most, radius) = match self.norm {
            Norm::Linf => (1.0, "a radius in [0, 1] pixel units (8/255 = 0.0314)"),
            Norm::L2 => (1000.0, "an L2 radius in [0, 1000] pixel units (0.5 is usual for images of 32x32)"),
        };
        if !(0.0..=most).contains(&self.eps) {
            return Err(Error::config(format!("{key}.eps"), self.eps, radius));
        }
        if !(0.0..=most).contains(&self.step) {
            let expected = format!("a step size in (0, {most}], or 0 for the published one");
            return Err(Error::config(format!("{key}.step"), self.step, expected));
        }
        if self.target != Target::Any && self.kind.family().rest.is_none() {
            let led: Vec<&str> = TABLE.iter().filter(|row| row.rest.is_some()).map(|row| row.name).collect();
            let found = format!("a target for {}", self.name());
            return Err(Error::config(
                format!("{key}.target"),
                found,
                format!("any, or one of the attacks {}", led.join(", ")),
            ));
        }
        if self.steps > 100_000 {
            let expected = "1 to 100000 steps, or 0 for the published number";
            return Err(Error::config(format!("{key}.steps"), self.steps, expected));
        }
        if !(1..=1000).contains(&self.restarts) {
            return Err(Error::config(format!("{key}.restarts"), self.restarts, "1 to 1000 restarts"));
        }
        if !(0.0..=1000.0).contains(&self.decay) {
            return Err(Error::config(format!("{key}.decay"), self.decay, "a factor in [0, 1000]"));
        }
        if !(0.0..=1e6).contains(&self.confidence) {
            let expected = "a lead in logits in [0, 1000000]";
            return Err(Error::config(format!("{key}.confidence"), self.confidence, expected));
        }
        if !(1..=100).contains(&self.search_steps) {
            let expected = "1 to 100 search steps";
            return Err(Error::config(format!("{key}.search_steps"), self.search_steps, expected));
        }
        if !(1..=10_000).contains(&self.targets) {
            return Err(Error::config(format!("{key}.targets"), self.targets, "1 to 10000 classes"));
        }
        if !(1..=1_000_000).contains(&self.queries) {
            return Err(Error::config(format!("{key}.queries"), self.queries, "1 to 1000000 questions"));
        }
        Ok(())
    }
}
