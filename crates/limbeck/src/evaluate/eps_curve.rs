//! Accuracy by the radius of an attack, from the images as they are to every pixel at the attacker's choice.
//!
//! One radius shows one point of a curve that has to fall: to chance at the latest where the ball holds every image, and never rising on
//! the way. A curve that levels off above chance shows an attack that fails, not a model that holds (Carlini 2019, "basic sanity tests" of its checklist).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attacked_set::AttackedSet;
use super::results::{EpsCurve, EpsPoint, Rate};
use super::robustness::{evenly_spaced, read, right_under};
use crate::attack::{AttackConfig, AttackKind};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::Model;
use crate::progress::Progress;

/// At which radii the curve is taken, by PGD in the L-infinity norm (Madry 2018: 10 steps of a quarter of eps, one random start).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurveConfig {
    /// Radii in pixel units, in rising order, in `[0, 1]`; 0 = the images as they are, none = no curve.
    pub eps: Vec<f64>,
    /// Of the attacked images this many, evenly spaced; 0 = all.
    pub images: usize,
    /// Steps at each radius (Madry 2018: 10).
    pub steps: usize,
}

impl Default for CurveConfig {
    /// 1 to 32 grey levels, then to where any image may become any other (Carlini 2019: the axis extends until attacks always succeed), on 256 images.
    fn default() -> Self {
        let levels =
            [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0].map(|level: f64| (level / 255.0 * 1e4).round() / 1e4);
        Self { eps: levels.into_iter().chain([0.25, 0.5, 1.0]).collect(), images: 256, steps: 10 }
    }
}

impl CurveConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        let rising = self.eps.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || self.eps.iter().any(|eps| !(0.0..=1.0).contains(eps)) {
            let expected = "radii in [0, 1] pixel units in rising order, or none for no curve";
            return Err(Error::config(format!("{key}.eps"), format!("{:?}", self.eps), expected));
        }
        if self.steps == 0 || self.steps > 100_000 {
            return Err(Error::config(format!("{key}.steps"), self.steps, "1 to 100000 steps"));
        }
        Ok(())
    }

    fn attack(&self, eps: f64) -> AttackConfig {
        AttackConfig { steps: self.steps, ..AttackConfig::linf(AttackKind::Pgd, eps) }
    }
}

/// Which images a model still has right at each radius.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Radius and outcomes, the radius rising.
    pub points: Vec<(f64, Vec<bool>)>,
    /// Accuracy of one who always gives the most frequent answer; `None` when that is the only one.
    pub chance: Option<f64>,
    steps: usize,
}

impl Sweep {
    /// A sweep by attacks that no test asks for.
    #[cfg(test)]
    pub(super) fn of(points: Vec<(f64, Vec<bool>)>, chance: Option<f64>) -> Self {
        Self { points, chance, steps: 1 }
    }

    /// The recorded curve.
    pub fn curve(&self, model: &str) -> EpsCurve {
        let accuracy = |right: &[bool]| Rate::of(right.iter().copied());
        EpsCurve {
            model: model.to_owned(),
            attack: format!("pgd, {} steps", self.steps),
            points: self
                .points
                .iter()
                .map(|(eps, right)| EpsPoint { eps: *eps, accuracy: accuracy(right) })
                .collect(),
        }
    }
}

/// Attacks images of `set` at each radius; the radii know nothing of each other, so that a curve can rise if an attack fails.
///
/// `attacked` is what attacks see of a model that answers as itself: a distilled one at z/T.
pub fn sweep(
    (name, attacked): (&str, &dyn Model),
    set: &Dataset,
    config: &CurveConfig,
    progress: &dyn Progress,
) -> Result<Option<Sweep>> {
    if config.eps.is_empty() {
        return Ok(None);
    }
    let few = evenly_spaced(set, config.images);
    let mut points = Vec::with_capacity(config.eps.len());
    for &eps in &config.eps {
        let attack = config.attack(eps);
        let right = if eps == 0.0 {
            read(attacked, &few, progress)?.right
        } else {
            progress.task(&format!("{} on {name}", attack.label()), "images");
            right_under(attacked, &AttackedSet::craft(attacked, &attack, &few, progress)?)?
        };
        points.push((eps, right));
    }
    Ok(Some(Sweep { points, chance: chance(&few), steps: config.steps }))
}

/// Share of the most frequent class of a set; `None` for a set of one class or none, where any constant answer is right.
pub(super) fn chance(set: &Dataset) -> Option<f64> {
    let mut counts = vec![0u64; set.classes().len()];
    set.samples().iter().for_each(|sample| counts[sample.label as usize] += 1);
    let most = counts.iter().copied().max().filter(|&most| most < set.len() as u64)?;
    Some(most as f64 / set.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::testing::{Corners, blocks};

    #[test]
    fn a_plain_model_falls_from_its_clean_accuracy_to_nothing() {
        let set = blocks(24, 4, 2);
        let config = CurveConfig { eps: vec![0.0, 0.15, 0.25, 1.0], images: 16, steps: 10 };
        let sweep = sweep(("plain", &Corners::PLAIN), &set, &config, &Silent).expect("attacked");
        let sweep = sweep.expect("there are radii");
        let curve = sweep.curve("plain");
        // The bright corner leads by 100 of 255 levels on average, of which an attacker of eps takes 2 eps.
        let right: Vec<u64> = curve.points.iter().map(|point| point.accuracy.successes).collect();
        assert_eq!(right, [16, 16, 0, 0]);
        assert!(curve.points.iter().all(|point| point.accuracy.trials == 16));
        assert_eq!((sweep.chance, curve.attack.as_str()), (Some(0.25), "pgd, 10 steps"));
    }

    #[test]
    fn without_radii_there_is_no_curve() {
        let config = CurveConfig { eps: Vec::new(), ..CurveConfig::default() };
        let found = sweep(("", &Corners::PLAIN), &blocks(4, 4, 2), &config, &Silent).expect("nothing to do");
        assert_eq!(found, None);
    }

    #[test]
    fn a_set_of_one_class_has_no_chance() {
        let set = blocks(12, 4, 1);
        assert_eq!(chance(&set), Some(0.25));
        assert_eq!(chance(&set.subset(&[0, 4, 8])), None);
        assert_eq!(chance(&set.subset(&[])), None);
    }

    #[test]
    fn the_default_radii_are_grey_levels_and_the_whole_box() {
        let expected = [0.0, 0.0039, 0.0078, 0.0157, 0.0314, 0.0627, 0.1255, 0.25, 0.5, 1.0];
        assert_eq!(CurveConfig::default().eps, expected);
    }

    #[test]
    fn radii_that_do_not_rise_and_no_steps_are_refused_by_their_key() {
        for eps in [vec![0.1, 0.1], vec![0.2, 0.1], vec![-0.1], vec![1.1], vec![f64::NAN]] {
            let config = CurveConfig { eps, ..CurveConfig::default() };
            let error = config.check("evaluate.curve").expect_err("out of order").to_string();
            assert!(error.contains("`evaluate.curve.eps`"), "{error}");
        }
        let error = CurveConfig { steps: 0, ..CurveConfig::default() }.check("evaluate.curve");
        assert!(error.expect_err("no step").to_string().contains("`evaluate.curve.steps`"));
        CurveConfig::default().check("evaluate.curve").expect("the default is in range");
    }
}
