//! What it is worth to let a classifier look at the reconstruction instead of the image, against attackers who know ever more of that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attacked_set::AttackedSet;
use super::results::{Rate, ShieldRow, ShieldSummary};
use super::robustness::{accuracy, attack_set, right_under};
use crate::attack::AttackConfig;
use crate::dataset::Dataset;
use crate::distill::AtTemperature;
use crate::error::Result;
use crate::network::{Defended, Model, StraightThrough, Tempered, TrainedAutoencoder, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::Seed;

/// Attacks on the student behind the autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShieldConfig {
    /// Each is made three times: on the student alone, with the autoencoder's gradient taken for the identity's, and with its own gradient; none = no such figures.
    pub attacks: Vec<AttackConfig>,
    /// Test images that are attacked, drawn by the seed; 0 = all.
    pub images: usize,
}

impl ShieldConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        let check =
            |(index, attack): (usize, &AttackConfig)| attack.check(&format!("{key}.attacks[{index}]"));
        self.attacks.iter().enumerate().try_for_each(check)
    }
}

/// Accuracy of a classifier behind the autoencoder on test images, clean and under each attack; `None` without attacks or images.
///
/// Attacks that the classifier has too few classes for are left out.
pub fn shield(
    classifier: &TrainedClassifier,
    autoencoder: &TrainedAutoencoder,
    test: &Dataset,
    config: &ShieldConfig,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<ShieldSummary>> {
    let set = attack_set(test, config.images, seed);
    let classes = classifier.spec().classes.len();
    let possible = || config.attacks.iter().filter(|attack| attack.least_classes() <= classes);
    if set.is_empty() || possible().next().is_none() {
        return Ok(None);
    }
    let temperature = classifier.spec().temperature;
    let (defended, straight) =
        (Defended { autoencoder, classifier }, StraightThrough { autoencoder, classifier });
    let row = |attack: &AttackConfig| {
        let under = |words: &str, model: &dyn Model| -> Result<Vec<bool>> {
            progress.task(
                &format!("{} on the student behind the autoencoder, {words}", attack.label()),
                "images",
            );
            right_under(&defended, &AttackedSet::craft(model, attack, &set, progress)?)
        };
        let unaware = under("unknown", &Tempered(classifier))?;
        let straight = under("taken for the identity", &AtTemperature { model: &straight, temperature })?;
        let exact = under("known", &AtTemperature { model: &defended, temperature })?;
        let each = unaware.iter().zip(&straight).zip(&exact);
        let worst = Rate::of(each.map(|((unaware, straight), exact)| *unaware && *straight && *exact));
        let [unaware, straight_through, exact] = [unaware, straight, exact].map(Rate::of);
        Ok(ShieldRow { attack: attack.label(), unaware, straight_through, exact, worst })
    };
    Ok(Some(ShieldSummary {
        clean_without: accuracy(classifier, &set, progress)?,
        clean: accuracy(&defended, &set, progress)?,
        rows: possible().map(row).collect::<Result<_>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::attack::{AttackKind, input_gradient};
    use crate::network::{Architecture, AutoencoderKind, AutoencoderSpec};
    use crate::progress::Silent;
    use crate::tensors::values;
    use crate::testing::{blocks, tiny_spec, untrained, untrained_autoencoder};

    fn networks() -> (TrainedClassifier, TrainedAutoencoder) {
        let spec = tiny_spec(Architecture::Vgg, 4, 5.0);
        let classifier = untrained(spec, 5);
        let spec =
            AutoencoderSpec { kind: AutoencoderKind::Bottleneck, width: 4, latent: 8, image_size: [8, 8] };
        (classifier, untrained_autoencoder(spec, 4))
    }

    #[test]
    fn the_straight_way_answers_as_the_defence_does_with_the_classifier_s_gradient_at_the_reconstruction() {
        let ((classifier, autoencoder), set) = (networks(), blocks(6, 4, 2));
        let (classifier, autoencoder) = (&classifier, &autoencoder);
        let images = set.batch(&(0..6).collect::<Vec<_>>(), &Device::flex()).expect("a batch");
        let labels = set.labels(&(0..6).collect::<Vec<_>>());
        let (defended, straight) =
            (Defended { autoencoder, classifier }, StraightThrough { autoencoder, classifier });
        let close = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5);
        let [a, b] = [&defended as &dyn Model, &straight]
            .map(|model| values(model.logits(images.clone())).expect("logits"));
        assert!(close(a, b), "another answer");
        let restored = autoencoder.reconstruct(images.clone());
        let expected = input_gradient(classifier, restored, &labels).expect("a gradient");
        let found = input_gradient(&straight, images.clone(), &labels).expect("a gradient");
        let own = input_gradient(&defended, images, &labels).expect("a gradient");
        let [expected, found, own] = [expected, found, own].map(|gradient| values(gradient).expect("values"));
        assert!(close(expected.clone(), found), "not the classifier's");
        assert!(!close(expected, own), "the autoencoder has no gradient of its own");
    }

    #[test]
    fn every_attack_is_made_three_times_and_the_worst_is_no_better_than_any() {
        let ((classifier, autoencoder), test) = (networks(), blocks(24, 4, 2));
        let attacks = vec![
            AttackConfig { steps: 3, ..AttackConfig::linf(AttackKind::IFgsm, 0.1) },
            AttackConfig::l2(AttackKind::Fgsm, 0.5),
        ];
        let config = ShieldConfig { attacks, images: 12 };
        let found = shield(&classifier, &autoencoder, &test, &config, Seed::new(1), &Silent);
        let found = found.expect("measured").expect("attacks and images");
        assert_eq!((found.clean.trials, found.rows.len()), (12, 2));
        for row in &found.rows {
            let least = [row.unaware, row.straight_through, row.exact].map(|rate| rate.successes);
            assert!(least.iter().all(|successes| row.worst.successes <= *successes), "{row:?}");
            assert_eq!(row.worst.trials, 12);
        }
        let none = ShieldConfig { attacks: Vec::new(), ..config };
        assert!(
            shield(&classifier, &autoencoder, &test, &none, Seed::new(1), &Silent)
                .expect("nothing")
                .is_none()
        );
    }
}
