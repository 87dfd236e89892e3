//! Attacks towards a class: any attack that raises a loss or lowers a lead, on a view of the model that has two answers, the target and the rest.
//!
//! The rest is the label of every image, so that to leave it is to reach the target. As logits the view has z_t and, for attacks on cross-entropy,
//! ln Σ_{j≠t} exp z_j: the gradient of its cross-entropy is that of −log softmax(z)_t, but for a positive factor that no steepest step minds
//! (Kurakin 2016, equation 3). For attacks on a lead it has max_{j≠t} z_j: the target must be ahead of every other class (Carlini & Wagner 2017, section IV).

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::gradient::Logits;
use super::rows::{replace, select};
use super::{Attack, ThreatModel};
use crate::error::{Error, Result};
use crate::network::Model;
use crate::rng::Seed;

/// Which wrong answer an attack seeks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Target {
    /// Any: the attack is untargeted.
    #[default]
    Any,
    /// The class that the model holds for least likely on the image as it is (Kurakin 2016, section 2.3).
    LeastLikely,
    /// Another class than the label, drawn for each image.
    Random,
    /// The class of this number, counted from 0 in the order of the set's classes; images of that class are left as they are.
    Class(u32),
}

impl Target {
    /// The class that is sought for each image; an image's own label where nothing is.
    ///
    /// # Errors
    /// Refuses a class that the model has no logit for, and labels likewise.
    pub fn classes(
        self,
        model: &dyn Model,
        images: &Tensor<4>,
        labels: &[u32],
        seed: Seed,
    ) -> Result<Vec<u32>> {
        let logits = Logits::of(model, images.clone(), labels)?;
        let classes = logits.classes();
        Ok(match self {
            Self::Any => labels.to_vec(),
            Self::LeastLikely => {
                labels.iter().enumerate().map(|(row, &label)| least_likely(logits.row(row), label)).collect()
            }
            Self::Random => {
                let generators = Draws::new(seed, "target", images)?.into_generators();
                let other = |(mut rng, &label): (crate::rng::Rng, &u32)| {
                    let drawn = rng.random_range(0..classes as u32 - 1);
                    drawn + u32::from(drawn >= label)
                };
                generators.into_iter().zip(labels).map(other).collect()
            }
            Self::Class(class) if class as usize >= classes => {
                let found = format!("target class {class} for a model of {classes} classes");
                return Err(Error::input("attack", found, format!("a class below {classes}")));
            }
            Self::Class(class) => vec![class; labels.len()],
        })
    }
}

/// The class with the smallest logit but for the label, the first of equals.
fn least_likely(logits: &[f32], label: u32) -> u32 {
    let others = logits.iter().enumerate().filter(|(class, _)| *class != label as usize);
    others.min_by(|a, b| a.1.total_cmp(b.1)).map_or(label, |(class, _)| class as u32)
}

/// What the rest of the classes are together, in logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// ln Σ exp z_j, for attacks on cross-entropy. Such an attack takes its target for reached at a probability of a half.
    LogSumExp,
    /// max z_j, for attacks on the lead of a class.
    Max,
}

/// An untargeted attack, led towards a class.
pub struct Targeted {
    /// The attack.
    pub attack: Box<dyn Attack>,
    /// Where to.
    pub target: Target,
    /// How it sees the other classes.
    pub rest: Rest,
    /// What random targets are drawn from.
    pub seed: Seed,
}

impl Attack for Targeted {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let targets = self.target.classes(model, &images, labels, self.seed)?;
        let mut rows_of = BTreeMap::<u32, Vec<usize>>::new();
        for (row, (&target, &label)) in targets.iter().zip(labels).enumerate() {
            if target != label {
                rows_of.entry(target).or_default().push(row);
            }
        }
        rows_of.into_iter().try_fold(images.clone(), |result, (target, rows)| {
            let view = Towards { model, target: target as usize, rest: self.rest };
            let own = select(&images, &rows);
            let proposal = self.attack.propose(&view, threat, own, &vec![THE_REST; rows.len()])?;
            Ok(replace(result, &rows, proposal))
        })
    }
}

/// The label of every image in the view.
const THE_REST: u32 = 0;

/// A model's logits as `[batch, 2]`: the rest, and the target.
struct Towards<'a> {
    model: &'a dyn Model,
    target: usize,
    rest: Rest,
}

impl Model for Towards<'_> {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let logits = self.model.logits(images);
        let [_, classes] = logits.dims();
        let target = logits.clone().narrow(1, self.target, 1);
        let sides = [(0, self.target), (self.target + 1, classes - self.target - 1)];
        let others = sides.into_iter().filter(|(_, width)| *width > 0);
        let others =
            Tensor::cat(others.map(|(from, width)| logits.clone().narrow(1, from, width)).collect(), 1);
        let largest = others.clone().max_dim(1);
        let rest = match self.rest {
            Rest::Max => largest,
            Rest::LogSumExp => (others - largest.clone()).exp().sum_dim(1).log() + largest,
        };
        Tensor::cat(vec![rest, target], 1)
    }

    fn device(&self) -> Device {
        self.model.device()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{AttackConfig, AttackKind, Fgsm, Norm, TABLE, TargetedIFgsm, craft};
    use crate::network::Architecture;
    use crate::tensors::{argmax, values};
    use crate::testing::{LinearModel, tiny_spec, uniform, untrained};

    const CLASSES: usize = 5;

    fn to(target: Target, config: AttackConfig) -> AttackConfig {
        AttackConfig { target, ..config }
    }

    #[test]
    fn every_family_that_can_be_led_nears_its_target_within_the_ball_and_repeats_itself() {
        let model = untrained(tiny_spec(Architecture::Vgg, CLASSES, 1.0), 3);
        let images = uniform([5, 3, 8, 8], 0.0, 1.0, 1);
        let labels = argmax(model.logits(images.clone())).expect("answers");
        for family in TABLE.iter().filter(|family| family.rest.is_some()) {
            for (&norm, target) in family.norms.iter().flat_map(|norm| {
                [Target::LeastLikely, Target::Random, Target::Class(2)].map(|target| (norm, target))
            }) {
                let eps = if norm == Norm::Linf { 0.03 } else { 0.4 };
                let config =
                    AttackConfig { kind: family.kind, eps, norm, queries: 300, ..AttackConfig::default() };
                let config = match family.kind {
                    AttackKind::CarliniWagner => AttackConfig { steps: 100, ..config },
                    _ => AttackConfig { steps: 20, ..config },
                };
                let config = to(target, config);
                config.check("attack").expect("within range");
                let run = || {
                    craft(&*config.build(), &model, config.threat(), images.clone(), &labels)
                        .expect("it runs")
                };
                let (attacked, name) = (run(), config.label());
                let targets =
                    config.target_classes(&model, &images, &labels).expect("targets").expect("targeted");
                let lead = |images: &Tensor<4>| -> Vec<f64> {
                    Logits::of(&model, images.clone(), &targets).expect("logits").margins(&targets)
                };
                let (before, after) = (lead(&images), lead(&attacked));
                let distance =
                    values((attacked.clone() - images.clone()).abs().flatten::<2>(1, 3).max_dim(1));
                for (row, distance) in distance.expect("values").into_iter().enumerate() {
                    assert!(
                        targets[row] != labels[row] || distance == 0.0,
                        "{name}: an image of the target class is left as it is"
                    );
                }
                // A single step so long may miss on one image; what Carlini and Wagner's cannot bring to its target it leaves alone.
                let gained: f64 = after.iter().zip(&before).map(|(after, before)| after - before).sum();
                let is_nearer = gained > 0.0 || (gained == 0.0 && family.kind == AttackKind::CarliniWagner);
                assert!(is_nearer, "{name}: {before:?} to {after:?}");
                assert_eq!(values(run()).expect("values"), values(attacked).expect("values"), "{name}");
            }
        }
    }

    /// Of two classes, to leave one is to reach the other.
    #[test]
    fn between_two_classes_every_family_does_what_it_does_without_a_target() {
        let model = LinearModel(uniform([1, 3, 8, 8], -1.0, 1.0, 5));
        let images = uniform([1, 3, 8, 8], 0.3, 0.7, 6);
        let label = argmax(model.logits(images.clone())).expect("an answer")[0];
        for family in TABLE.iter().filter(|family| family.rest.is_some()) {
            for &norm in family.norms {
                let eps = if norm == Norm::Linf { 0.05 } else { 2.0 };
                let plain = AttackConfig {
                    kind: family.kind,
                    eps,
                    norm,
                    steps: 20,
                    queries: 100,
                    ..AttackConfig::default()
                };
                let [plain, led] = [plain, to(Target::Class(1 - label), plain)].map(|config| {
                    let images = images.clone();
                    let attacked = craft(&*config.build(), &model, config.threat(), images, &[label]);
                    values(attacked.expect("it runs")).expect("values")
                });
                assert!(plain == led, "{}", family.name);
                assert!(plain != values(images.clone()).expect("values"), "{} does nothing", family.name);
            }
        }
    }

    /// Kurakin 2016, equation 3, written the other way: steps down the cross-entropy of the target.
    #[test]
    fn led_i_fgsm_is_the_targeted_i_fgsm() {
        let model = untrained(tiny_spec(Architecture::Vgg, CLASSES, 1.0), 3);
        let images = uniform([4, 3, 8, 8], 0.2, 0.8, 2);
        let config = to(
            Target::Class(3),
            AttackConfig { step: 0.004, steps: 5, ..AttackConfig::linf(AttackKind::IFgsm, 0.02) },
        );
        let found =
            craft(&*config.build(), &model, config.threat(), images.clone(), &[0, 1, 2, 4]).expect("it runs");
        let plain = TargetedIFgsm { step: 0.004, steps: 5 };
        let expected = craft(&plain, &model, config.threat(), images, &[3; 4]).expect("it runs");
        let [found, expected] = [found, expected].map(|images| values(images).expect("values"));
        let apart = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
        // A gradient near zero may change its sign with the order of a sum.
        assert!(apart * 100 <= found.len(), "{apart} of {} pixels differ", found.len());
    }

    #[test]
    fn targets_are_never_the_label_but_where_it_is_the_class_that_is_sought() {
        let model = untrained(tiny_spec(Architecture::Vgg, CLASSES, 1.0), 3);
        let images = uniform([40, 3, 8, 8], 0.0, 1.0, 5);
        let labels: Vec<u32> = (0..40).map(|image| image % CLASSES as u32).collect();
        let of = |target: Target| target.classes(&model, &images, &labels, Seed::new(1)).expect("targets");
        for target in [Target::LeastLikely, Target::Random] {
            assert!(of(target).iter().zip(&labels).all(|(target, label)| target != label && *target < 5));
        }
        let drawn = of(Target::Random);
        assert!((0..5).all(|class| drawn.contains(&class)), "{drawn:?}");
        assert_eq!(of(Target::Class(4)), vec![4; 40]);
        assert_eq!(of(Target::Any), labels);
        assert_eq!(least_likely(&[1.0, -3.0, -2.0], 1), 2);
        let refused =
            Target::Class(5).classes(&model, &images, &labels, Seed::new(1)).expect_err("no such class");
        assert!(refused.to_string().contains("target class 5 for a model of 5 classes"), "{refused}");
    }

    #[test]
    fn the_view_has_the_published_logits() {
        struct Constant([f32; 3]);
        impl Model for Constant {
            fn logits(&self, images: Tensor<4>) -> Tensor<2> {
                let batch = images.dims()[0];
                Tensor::<1>::from_floats(self.0, &images.device()).unsqueeze::<2>().expand([batch, 3])
            }

            fn device(&self) -> Device {
                Device::default()
            }
        }
        let model = Constant([2.0, 5.0, 1.0]);
        let view = |target, rest| {
            let images = uniform([1, 3, 8, 8], 0.0, 1.0, 1);
            values(Towards { model: &model, target, rest }.logits(images)).expect("values")
        };
        assert_eq!(view(0, Rest::Max), [5.0, 2.0]);
        assert_eq!(view(1, Rest::Max), [2.0, 5.0]);
        let found = view(2, Rest::LogSumExp);
        assert!((found[0] - (2f32.exp() + 5f32.exp()).ln()).abs() < 1e-5 && found[1] == 1.0, "{found:?}");
        let two = Targeted {
            attack: Box::new(Fgsm),
            target: Target::Class(0),
            rest: Rest::Max,
            seed: Seed::new(0),
        };
        let images = uniform([1, 3, 8, 8], 0.2, 0.8, 1);
        let still = two.propose(&model, ThreatModel::linf(0.1), images.clone(), &[0]).expect("nothing to do");
        assert_eq!(values(still).expect("values"), values(images).expect("values"));
    }
}
