//! Label scores out of fold: each row is scored by a predictor that did not learn from it.
//!
//! Audited and trusted rows are dealt into K folds together, and predictor k learns from all folds but k. So a trusted row is scored as a clean audited row is, and a
//! threshold that is fitted on the one holds for the other. The score of a class is how many nats the best other class is ahead of it; of a quantity, ‖f(x) − y‖ in standard
//! deviations.

use burn::tensor::Tensor;
use rand::seq::SliceRandom;

use super::learn::{Lesson, School, train_mlp};
use super::network::{MlpSpec, TrainedMlp};
use super::scale::Answers;
use super::set::{VectorSet, matrix};
use crate::error::Result;
use crate::network::Model;
use crate::purify::label_margins;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// The predictors of all folds, and whose fold each row is in.
pub(super) struct Folds {
    models: Vec<TrainedMlp>,
    fold_of: Vec<usize>,
}

impl Folds {
    /// Trains a predictor for each of `count` folds of `rows`, of which those that do not `teach` are only dealt; no more folds than rows.
    pub(super) fn train(
        rows: &VectorSet,
        teaches: impl Fn(usize) -> bool,
        count: usize,
        spec: &MlpSpec,
        school: School<'_>,
        seed: Seed,
    ) -> Result<Self> {
        let fold_of = dealt(rows.len(), count.min(rows.len()), seed);
        let models = (0..count.min(rows.len()))
            .map(|fold| {
                let others = (0..rows.len()).filter(|&row| fold_of[row] != fold);
                let teachers = rows.subset(&others.filter(|&row| teaches(row)).collect::<Vec<_>>());
                let lesson = Lesson::plain(&teachers);
                let task = format!("training on all folds but {} of {count}", fold + 1);
                train_mlp(spec.clone(), lesson, school, seed.step(fold), &task)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { models, fold_of })
    }

    /// The label score of each row of the set that the folds were dealt from, with these features or others in their place.
    pub(super) fn scores(&self, rows: &VectorSet) -> Result<Vec<f64>> {
        let mut scores = vec![0.0; rows.len()];
        for (fold, model) in self.models.iter().enumerate() {
            let own: Vec<usize> = (0..rows.len()).filter(|&row| self.fold_of[row] == fold).collect();
            for chunk in own.chunks(INFERENCE_BATCH) {
                let found = label_scores(model, rows, chunk)?;
                chunk.iter().zip(found).for_each(|(&row, score)| scores[row] = score);
            }
        }
        Ok(scores)
    }
}

/// The fold of each row, as even as can be, drawn by the seed.
fn dealt(rows: usize, count: usize, seed: Seed) -> Vec<usize> {
    let mut fold_of: Vec<usize> = (0..rows).map(|row| row % count).collect();
    fold_of.shuffle(&mut seed.rng("folds"));
    fold_of
}

fn label_scores(model: &TrainedMlp, set: &VectorSet, rows: &[usize]) -> Result<Vec<f64>> {
    let outputs = model.outputs(set.batch(rows, &model.device()));
    let scores: Tensor<1> = match set.answers() {
        Answers::Classes(..) => label_margins(outputs, &set.labels(rows)),
        Answers::Values(_, width) => {
            let targets = matrix(set.targets(rows), *width, &model.device());
            (outputs - targets).square().sum_dim(1).sqrt().flatten(0, 1)
        }
    };
    Ok(values(scores)?.into_iter().map(f64::from).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::progress::Silent;
    use crate::vectors::VectorConfig;
    use crate::vectors::scale::{AnswerScale, InputScale};

    #[test]
    fn folds_are_even_and_hold_every_row_once() {
        let fold_of = dealt(23, 5, Seed::new(1));
        let sizes: Vec<usize> = (0..5).map(|fold| fold_of.iter().filter(|&&of| of == fold).count()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 23);
        assert!(sizes.iter().all(|&size| size == 4 || size == 5), "{sizes:?}");
        assert_ne!(fold_of, dealt(23, 5, Seed::new(2)));
    }

    /// A quantity that no feature tells: whoever learnt a row knows its target, whoever did not cannot.
    #[test]
    fn no_row_is_scored_by_a_network_that_learnt_from_it() {
        let mut values: Vec<f32> = (0..40).map(|row| row as f32 / 39.0).collect();
        values.rotate_left(7);
        // Zeros but for one row: a network that learnt it would answer 6 there, the others about 0.
        let mut answers = vec![0.0; 40];
        answers[11] = 6.0;
        let set = VectorSet::new(1, values, Answers::Values(answers, 1));
        let rows: Vec<f64> = (0..40).map(|row| f64::from(row) / 39.0).collect();
        let inputs = InputScale::fit(vec!["x".into()], std::iter::empty(), rows.chunks(1));
        let names = vec!["y".to_owned()];
        let answers = AnswerScale::Values { names, mean: vec![0.0], deviation: vec![1.0] };
        let spec = MlpSpec { inputs, answers, hidden: vec![32], dropout: 0.0, temperature: 1.0 };
        let mut train = VectorConfig::default().network.train;
        (train.epochs, train.batch) = (200, 8);
        let school = School { train: &train, device: &Device::flex(), progress: &Silent };
        let folds = Folds::train(&set, |_| true, 4, &spec, school, Seed::new(1)).expect("trained");
        let score = folds.scores(&set).expect("scored")[11];
        assert!(score > 3.0, "it was learnt from: off by {score} of 6 alone");
    }
}
