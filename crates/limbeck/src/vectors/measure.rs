//! How good a predictor's answers are: clean, under each attack, and in the worst case of each row.
//!
//! Attacks are white box, on the very network that they are counted for. A row's worst case under a threat model is its worst answer as it is and under every attack within.

use rand::Rng as _;

use super::doubt::VectorNull;
use super::learn::outputs_of;
use super::network::TrainedMlp;
use super::results::{Case, CaseKind, ErrorFigures, ModelFigures, Quality, WithNull};
use super::scale::{AnswerScale, Answers};
use super::set::VectorSet;
use super::squared_error::against;
use crate::attack::{AttackConfig, craft};
use crate::error::Result;
use crate::evaluate::results::Rate;
use crate::evaluate::{threat_label, threats};
use crate::network::Model;
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// How everything is measured.
#[derive(Clone, Copy)]
pub(super) struct Measure<'a> {
    pub(super) test: &'a VectorSet,
    pub(super) attacks: &'a [AttackConfig],
    /// Of a bootstrap.
    pub(super) resamples: usize,
    pub(super) seed: Seed,
    pub(super) progress: &'a dyn Progress,
}

/// A model's answers to every test row in one case.
struct Answered {
    attack: Option<AttackConfig>,
    /// Standardised values or logits, row by row.
    outputs: Vec<f32>,
    nulls: Option<Vec<bool>>,
}

impl Measure<'_> {
    /// All cases of one model; `rule` is the null rule of a student.
    pub(super) fn model(
        &self,
        name: &str,
        trained_on: &str,
        model: &TrainedMlp,
        rule: Option<&VectorNull>,
    ) -> Result<ModelFigures> {
        self.progress.task(&format!("attacking the {name}"), "attacks");
        let answer = |attack: Option<&AttackConfig>| -> Result<Answered> {
            let set = match attack {
                Some(attack) => attacked(self.test, attack, model)?,
                None => self.test.clone(),
            };
            let nulls = rule.map(|rule| rule.nulls(model, &set)).transpose()?;
            Ok(Answered { attack: attack.copied(), outputs: outputs_of(model, &set)?, nulls })
        };
        let mut answered = vec![answer(None)?];
        for (done, attack) in self.attacks.iter().enumerate() {
            self.progress.check()?;
            answered.push(answer(Some(attack))?);
            self.progress.advance(done as u64 + 1, self.attacks.len() as u64);
        }
        let scale = &model.spec().answers;
        let mut cases: Vec<Case> = answered.iter().map(|answered| self.case(answered, scale)).collect();
        cases.extend(self.worst_cases(&answered, scale));
        Ok(ModelFigures { model: name.to_owned(), trained_on: trained_on.to_owned(), cases })
    }

    /// How good a model is on clean test rows.
    pub(super) fn clean(&self, model: &TrainedMlp) -> Result<Quality> {
        Ok(self.quality(&outputs_of(model, self.test)?, &self.all(), &model.spec().answers))
    }

    fn all(&self) -> Vec<usize> {
        (0..self.test.len()).collect()
    }

    fn case(&self, answered: &Answered, scale: &AnswerScale) -> Case {
        let right = |row: &usize| self.is_right(&answered.outputs, *row);
        let with_null = answered.nulls.as_ref().map(|nulls| {
            let given: Vec<usize> = self.all().into_iter().filter(|&row| !nulls[row]).collect();
            let is_classification = scale.classes().is_some();
            let rate = |holds: &dyn Fn(usize) -> bool| {
                is_classification.then(|| Rate::of(self.all().into_iter().map(holds)))
            };
            WithNull {
                null: Rate::of(nulls.iter().copied()),
                answered: (!given.is_empty()).then(|| self.quality(&answered.outputs, &given, scale)),
                as_error: rate(&|row| !nulls[row] && right(&row)),
                as_no_error: rate(&|row| nulls[row] || right(&row)),
            }
        });
        let (inputs, kind) = match &answered.attack {
            Some(attack) => (attack.label(), CaseKind::Attack),
            None => ("clean".to_owned(), CaseKind::Clean),
        };
        Case { inputs, kind, quality: self.quality(&answered.outputs, &self.all(), scale), with_null }
    }

    /// One case a threat model of the attacks.
    fn worst_cases(&self, answered: &[Answered], scale: &AnswerScale) -> Vec<Case> {
        let worst = |threat: crate::attack::ThreatModel| {
            let counts = |answered: &&Answered| {
                answered.attack.is_none_or(|attack| {
                    let own = attack.threat();
                    own.norm == threat.norm && own.eps <= threat.eps
                })
            };
            let within: Vec<&Answered> = answered.iter().filter(counts).collect();
            Case {
                inputs: format!("worst case, {}", threat_label(threat)),
                kind: CaseKind::Worst,
                quality: self.quality(&self.worst(&within, |_, _| true), &self.all(), scale),
                with_null: within[0].nulls.is_some().then(|| self.worst_with_null(&within, scale)),
            }
        };
        threats(self.attacks).into_iter().map(worst).collect()
    }

    fn worst_with_null(&self, within: &[&Answered], scale: &AnswerScale) -> WithNull {
        let is_null =
            |answered: &Answered, row: usize| answered.nulls.as_ref().is_some_and(|nulls| nulls[row]);
        let is_classification = scale.classes().is_some();
        let always = |holds: &dyn Fn(&Answered, usize) -> bool| {
            let holds = |row: usize| within.iter().all(|answered| holds(answered, row));
            is_classification.then(|| Rate::of(self.all().into_iter().map(holds)))
        };
        let given = |answered: &Answered, row: usize| !is_null(answered, row);
        let some: Vec<usize> = self
            .all()
            .into_iter()
            .filter(|&row| within.iter().any(|answered| given(answered, row)))
            .collect();
        let sometimes_null = |row: usize| within.iter().any(|answered| is_null(answered, row));
        WithNull {
            null: Rate::of(self.all().into_iter().map(sometimes_null)),
            answered: (!some.is_empty()).then(|| self.quality(&self.worst(within, given), &some, scale)),
            as_error: always(&|answered, row| given(answered, row) && self.is_right(&answered.outputs, row)),
            as_no_error: always(&|answered, row| {
                is_null(answered, row) || self.is_right(&answered.outputs, row)
            }),
        }
    }

    /// For each row the answers that are worst for it, among those that count.
    fn worst(&self, within: &[&Answered], counts: impl Fn(&Answered, usize) -> bool) -> Vec<f32> {
        let width = self.test.outputs();
        let mut outputs = within[0].outputs.clone();
        for row in self.all() {
            let candidates = within.iter().filter(|answered| counts(answered, row));
            let harm = |answered: &&&Answered| self.harm(&answered.outputs, row);
            if let Some(worst) = candidates.max_by(|a, b| harm(a).total_cmp(&harm(b))) {
                outputs[row * width..][..width].copy_from_slice(&worst.outputs[row * width..][..width]);
            }
        }
        outputs
    }

    /// How bad an answer is: by how much another class leads, or the squared error in standard deviations.
    fn harm(&self, outputs: &[f32], row: usize) -> f64 {
        let width = self.test.outputs();
        let own = &outputs[row * width..][..width];
        match self.test.answers() {
            Answers::Classes(labels, _) => {
                let label = labels[row] as usize;
                let others =
                    own.iter().enumerate().filter(|(class, _)| *class != label).map(|(_, logit)| *logit);
                f64::from(others.fold(f32::NEG_INFINITY, f32::max) - own[label])
            }
            Answers::Values(targets, _) => {
                let targets = &targets[row * width..][..width];
                own.iter().zip(targets).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            }
        }
    }

    /// Whether the label is the class that is answered; the first of equals is. Never of a regression.
    fn is_right(&self, outputs: &[f32], row: usize) -> bool {
        let width = self.test.outputs();
        let own = &outputs[row * width..][..width];
        match self.test.answers() {
            Answers::Classes(labels, _) => {
                let best =
                    (0..width).fold(0, |best, class| if own[class] > own[best] { class } else { best });
                best == labels[row] as usize
            }
            Answers::Values(..) => false,
        }
    }

    fn quality(&self, outputs: &[f32], rows: &[usize], scale: &AnswerScale) -> Quality {
        match scale {
            AnswerScale::Classes { .. } => {
                Quality::Accuracy(Rate::of(rows.iter().map(|&row| self.is_right(outputs, row))))
            }
            AnswerScale::Values { deviation, .. } => {
                let width = deviation.len();
                let own = |flat: &[f32], row: usize| -> Vec<f64> {
                    let row = &flat[row * width..][..width];
                    row.iter()
                        .zip(deviation)
                        .map(|(value, deviation)| f64::from(*value) * deviation)
                        .collect()
                };
                let targets = self.test.targets(&self.all());
                let pairs: Vec<(Vec<f64>, Vec<f64>)> =
                    rows.iter().map(|&row| (own(outputs, row), own(&targets, row))).collect();
                Quality::Error(errors(&pairs, self.resamples, self.seed))
            }
        }
    }
}

/// The set as an attack on a model leaves it.
fn attacked(set: &VectorSet, config: &AttackConfig, model: &TrainedMlp) -> Result<VectorSet> {
    let attack = config.build();
    let mut found = Vec::new();
    for chunk in (0..set.len()).collect::<Vec<_>>().chunks(INFERENCE_BATCH) {
        let rows = set.batch(chunk, &model.device());
        let crafted = against(model, set, chunk, |model, labels| {
            craft(&*attack, model, config.threat(), rows, labels)
        })?;
        found.extend(values(crafted)?);
    }
    Ok(set.with_values(found))
}

/// Figures of pairs of answers and targets, of as many outputs each and at least one pair, in their own units.
fn errors(pairs: &[(Vec<f64>, Vec<f64>)], resamples: usize, seed: Seed) -> ErrorFigures {
    let width = pairs[0].0.len();
    let cells = (pairs.len() * width) as f64;
    let squares: Vec<f64> =
        pairs.iter().map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()).collect();
    let absolute: f64 = pairs.iter().flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (a - b).abs()).sum();
    let r2 = |output: usize| {
        let mean = pairs.iter().map(|(_, b)| b[output]).sum::<f64>() / pairs.len() as f64;
        let spread: f64 = pairs.iter().map(|(_, b)| (b[output] - mean).powi(2)).sum();
        let error: f64 = pairs.iter().map(|(a, b)| (a[output] - b[output]).powi(2)).sum();
        // As scikit-learn has it for a target that does not vary.
        if spread > 0.0 { 1.0 - error / spread } else { f64::from(u8::from(error == 0.0)) }
    };
    ErrorFigures {
        rmse: (squares.iter().sum::<f64>() / cells).sqrt(),
        rmse_interval: bootstrap(&squares, width, resamples, seed),
        mae: absolute / cells,
        r2: (0..width).map(r2).sum::<f64>() / width as f64,
    }
}

/// 95 % percentile interval of the root of the mean, over rows drawn with replacement.
fn bootstrap(squares: &[f64], width: usize, resamples: usize, seed: Seed) -> [f64; 2] {
    let mut rng = seed.rng("bootstrap");
    let mut found: Vec<f64> = (0..resamples)
        .map(|_| {
            let sum: f64 = squares.iter().map(|_| squares[rng.random_range(0..squares.len())]).sum();
            (sum / (squares.len() * width) as f64).sqrt()
        })
        .collect();
    found.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| found[((share * resamples as f64).round() as usize).min(resamples - 1)];
    [at(0.025), at(0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{AttackKind, Family, TABLE};
    use crate::progress::Silent;
    use crate::tensors::argmax;
    use crate::testing::uniform;
    use crate::vectors::network::tests::{classes, small};

    #[test]
    fn errors_are_scikit_learns() {
        // scikit-learn 1.9.1's documentation of r2_score: y = [3, -0.5, 2, 7], f = [2.5, 0.0, 2, 8] has R² 0.948…, MSE 0.375, MAE 0.5.
        let pairs: Vec<(Vec<f64>, Vec<f64>)> =
            [(2.5, 3.0), (0.0, -0.5), (2.0, 2.0), (8.0, 7.0)].map(|(a, b)| (vec![a], vec![b])).to_vec();
        let found = errors(&pairs, 200, Seed::new(1));
        assert!((found.rmse - 0.375_f64.sqrt()).abs() < 1e-12 && (found.mae - 0.5).abs() < 1e-12);
        assert!((found.r2 - 0.9486081370449679).abs() < 1e-12, "{}", found.r2);
        // Two outputs: mean_squared_error([[0.5, 1], [-1, 1], [7, -6]], [[0, 2], [-1, 2], [8, -5]]) = 0.708…, r2_score 0.938….
        let pairs = [([0.0, 2.0], [0.5, 1.0]), ([-1.0, 2.0], [-1.0, 1.0]), ([8.0, -5.0], [7.0, -6.0])];
        let pairs: Vec<(Vec<f64>, Vec<f64>)> = pairs.map(|(a, b)| (a.to_vec(), b.to_vec())).to_vec();
        let found = errors(&pairs, 200, Seed::new(1));
        assert!((found.rmse.powi(2) - 0.7083333333333334).abs() < 1e-12 && (found.mae - 0.75).abs() < 1e-12);
        assert!((found.r2 - 0.9368005266622779).abs() < 1e-12, "{}", found.r2);
    }

    #[test]
    fn the_bootstrap_interval_of_many_rows_is_that_of_the_normal_distribution() {
        // Squares 0 and 2 in equal parts: the mean of n has mean 1 and deviation 1/√n; its root to first order half of that.
        let squares: Vec<f64> = (0..10_000).map(|row| f64::from(row % 2) * 2.0).collect();
        let [low, high] = bootstrap(&squares, 1, 1000, Seed::new(3));
        for (found, expected) in [(low, 1.0 - 0.5 * 0.0196), (high, 1.0 + 0.5 * 0.0196)] {
            assert!((found - expected).abs() < 1.5e-3, "{found}, expected {expected}");
        }
    }

    /// Rows that a network reads rightly, so that there is something to attack.
    fn rightly_read(model: &TrainedMlp, count: usize) -> VectorSet {
        let rows = uniform([24, 1, 1, 3], 0.2, 0.8, 4);
        let labels = argmax(model.outputs(rows.clone())).expect("answers");
        VectorSet::new(3, values(rows).expect("values"), Answers::Classes(labels, count))
    }

    #[test]
    fn every_attack_that_is_not_of_images_stays_in_the_ball_and_never_does_good() {
        let model = small(&[8, 8], classes(5));
        let set = rightly_read(&model, 5);
        for Family { kind, name, .. } in TABLE {
            use AttackKind::{AutoAttack, Square, Universal};
            if matches!(kind, Square | AutoAttack | Universal) {
                continue;
            }
            let mut config = AttackConfig::linf(*kind, 0.15);
            config.norm = kind.norms()[0];
            (config.steps, config.search_steps) = (12, 3);
            let found = attacked(&set, &config, &model).expect(name);
            let values =
                |set: &VectorSet| (0..set.len()).flat_map(|row| set.row(row).to_vec()).collect::<Vec<f32>>();
            let furthest =
                values(&found).iter().zip(values(&set)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest <= 0.15 + 1e-5, "{name}: {furthest}");
            let outputs = outputs_of(&model, &found).expect("outputs");
            let measure =
                Measure { test: &set, attacks: &[], resamples: 100, seed: Seed::new(1), progress: &Silent };
            let right = (0..24).filter(|&row| measure.is_right(&outputs, row)).count();
            let sure = matches!(
                kind,
                AttackKind::Fgsm
                    | AttackKind::IFgsm
                    | AttackKind::Pgd
                    | AttackKind::MiFgsm
                    | AttackKind::ApgdCe
            );
            assert!(!sure || right < 24, "{name} changed no answer");
        }
    }

    #[test]
    fn the_worst_case_is_row_by_row_and_null_is_an_error_or_none() {
        let set = VectorSet::new(1, vec![0.5; 3], Answers::Classes(vec![0; 3], 2));
        let attacks = [AttackConfig::linf(AttackKind::Fgsm, 0.1), AttackConfig::linf(AttackKind::Pgd, 0.1)];
        let measure =
            Measure { test: &set, attacks: &attacks, resamples: 100, seed: Seed::new(1), progress: &Silent };
        // Right where the first of two logits leads.
        let case = |attack: Option<usize>, leads: [f32; 3], nulls: [bool; 3]| Answered {
            attack: attack.map(|at| attacks[at]),
            outputs: leads.iter().flat_map(|lead| [*lead, 0.0]).collect(),
            nulls: Some(nulls.to_vec()),
        };
        let answered = [
            case(None, [1.0, 1.0, 1.0], [false; 3]),
            case(Some(0), [1.0, -1.0, 1.0], [false, true, false]),
            case(Some(1), [1.0, 1.0, -1.0], [false; 3]),
        ];
        let worst = &measure.worst_cases(&answered, &classes(2))[0];
        assert_eq!(worst.quality, Quality::Accuracy(Rate { successes: 1, trials: 3 }));
        let with_null = worst.with_null.expect("a student");
        assert_eq!(with_null.as_error, Some(Rate { successes: 1, trials: 3 }));
        assert_eq!(
            with_null.as_no_error,
            Some(Rate { successes: 2, trials: 3 }),
            "row 2 was null when it was wrong"
        );
        assert_eq!(with_null.null, Rate { successes: 1, trials: 3 });
    }
}
