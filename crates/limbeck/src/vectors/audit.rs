//! The audit: every audited row is scored, held against trusted rows, and judged. It never sees the truth about poison.

use super::autoencoder::TrainedVectorAutoencoder;
use super::config::VectorAudit;
use super::folds::Folds;
use super::learn::School;
use super::network::MlpSpec;
use super::scale::Answers;
use super::set::VectorSet;
use super::verdict::{LargestSurprise, RowScores, VectorScore, judged};
use crate::error::{Error, Result};
use crate::purify::{CalibrationScores, Rule, Threshold, Verdict};
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::INFERENCE_BATCH;

/// What was found of one audited row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowJudgement {
    pub(super) scores: RowScores,
    /// The mixture of the scores.
    pub(super) suspicion: f64,
    /// Conformal p-value of the suspicion among trusted rows.
    pub(super) p_value: f64,
    pub(super) verdict: Verdict,
    /// Why, in words.
    pub(super) reason: &'static str,
}

/// What was found of all of them.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    /// In the order of the audited rows.
    pub(super) rows: Vec<RowJudgement>,
    pub(super) threshold: Threshold,
    /// Trusted rows above the threshold.
    pub(super) trusted_flagged: usize,
    /// D(x) of each audited row, scaled, one after the other.
    pub(super) reconstructions: Vec<f32>,
}

/// Audits rows by trusted ones.
///
/// # Errors
/// Refuses a rule that so few trusted rows cannot keep; everything that training refuses.
pub(super) fn audit(
    audited: &VectorSet,
    trusted: &VectorSet,
    autoencoder: &TrainedVectorAutoencoder,
    spec: &MlpSpec,
    config: &VectorAudit,
    school: School<'_>,
    seed: Seed,
) -> Result<Judgement> {
    check_rule(config.rule, trusted.len())?;
    let all = audited.joined(trusted);
    let mut folds = Folds::train(&all, |_| true, config.folds, spec, school, seed)?;
    let mut labels = folds.scores(&all)?;
    for round in 1..config.rounds {
        let limit = usual_limit(&labels[audited.len()..], config.rule)?;
        let teaches = |row: usize| row >= audited.len() || labels[row] <= limit;
        folds = Folds::train(&all, teaches, config.folds, spec, school, seed.step(round))?;
        labels = folds.scores(&all)?;
    }
    let shown = show(autoencoder, &all)?;
    let read_in_reconstruction = folds.scores(&all.with_values(shown.reconstructions.clone()))?;
    let scores: Vec<RowScores> =
        (0..all.len()).map(|row| [shown.errors[row], shown.log_odds[row], labels[row]]).collect();
    let (scores, of_trusted) = scores.split_at(audited.len());
    let mixture = LargestSurprise::fit(of_trusted)?;
    let calibration = CalibrationScores::new(LargestSurprise::of_trusted(of_trusted)?)?;
    let threshold = Threshold::infer(&calibration, config.rule)?;
    let reading = reading_limit(&labels[audited.len()..], all.answers(), config.rule)?;
    let judge = |(row, scores): (usize, &RowScores)| {
        let (suspicion, culprit) = mixture.of(scores);
        let is_read = read_in_reconstruction[row] <= reading;
        let (verdict, reason) = judged(threshold.flags(suspicion), culprit, is_read);
        RowJudgement { scores: *scores, suspicion, p_value: calibration.p_value(suspicion), verdict, reason }
    };
    let rows: Vec<RowJudgement> = scores.iter().enumerate().map(judge).collect();
    let width = shown.reconstructions.len() / all.len();
    Ok(Judgement {
        rows,
        threshold,
        trusted_flagged: calibration.flagged(&threshold),
        reconstructions: shown.reconstructions[..audited.len() * width].to_vec(),
    })
}

/// The label score up to which a label counts as read: of a class, no other is ahead; of a quantity, what is usual of trusted rows.
fn reading_limit(of_trusted: &[f64], answers: &Answers, rule: Rule) -> Result<f64> {
    match answers {
        Answers::Classes(..) => Ok(0.0),
        Answers::Values(..) => usual_limit(of_trusted, rule),
    }
}

/// The label score that is still usual of trusted rows.
fn usual_limit(of_trusted: &[f64], rule: Rule) -> Result<f64> {
    Ok(Threshold::infer(&CalibrationScores::new(of_trusted.to_vec())?, rule)?.value())
}

fn check_rule(rule: Rule, trusted: usize) -> Result<()> {
    match rule {
        Rule::Fpr { fpr } if fpr * (trusted + 1) as f64 + 1e-9 < 1.0 => {
            let found = format!("{fpr} with {trusted} trusted rows that teach");
            let expected = format!("at least {:.4}, or more trusted rows", 1.0 / (trusted + 1) as f64);
            Err(Error::config("audit.rule.fpr", found, expected))
        }
        _ => Ok(()),
    }
}

/// What the autoencoder makes of rows.
struct Shown {
    reconstructions: Vec<f32>,
    /// Mean over features of (x − D(x))².
    errors: Vec<f64>,
    log_odds: Vec<f64>,
}

fn show(autoencoder: &TrainedVectorAutoencoder, set: &VectorSet) -> Result<Shown> {
    let mut shown = Shown { reconstructions: Vec::new(), errors: Vec::new(), log_odds: Vec::new() };
    for chunk in (0..set.len()).collect::<Vec<_>>().chunks(INFERENCE_BATCH) {
        let rows = set.batch(chunk, autoencoder.device());
        let found = autoencoder.denoise(rows.clone());
        let errors = (rows - found.reconstructions.clone()).square().flatten::<2>(1, 3).mean_dim(1);
        shown.reconstructions.extend(values(found.reconstructions)?);
        shown.errors.extend(values(errors)?.into_iter().map(f64::from));
        shown.log_odds.extend(values(found.logits)?.into_iter().map(f64::from));
    }
    Ok(shown)
}

impl RowJudgement {
    /// Whether it is above the threshold.
    pub(super) fn is_flagged(&self) -> bool {
        self.verdict != Verdict::Keep
    }

    /// One of its scores.
    pub(super) fn score(&self, kind: VectorScore) -> f64 {
        let place = super::verdict::VECTOR_SCORES.iter().position(|row| row.0 == kind);
        self.scores[place.expect("every score is in the table")]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::evaluate::metrics::auroc;
    use crate::progress::Silent;
    use crate::tensors::values;
    use crate::testing::uniform;
    use crate::vectors::VectorConfig;
    use crate::vectors::autoencoder::VectorAutoencoderSpec;
    use crate::vectors::scale::{AnswerScale, InputScale};

    const FEATURES: usize = 12;

    /// Rows of two classes, told apart by the sum of half of their features.
    fn rows(count: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
        let features = values(uniform([count, FEATURES], -1.0, 1.0, seed)).expect("values");
        let sums = features.chunks(FEATURES).map(|row| row[..FEATURES / 2].iter().sum::<f32>());
        let labels = sums.map(|sum| u32::from(sum > 0.0)).collect();
        (features, labels)
    }

    #[test]
    fn later_rounds_tell_wrong_labels_that_the_folds_of_the_first_had_learnt() {
        let ((values, labels), (trusted, of_trusted)) = (rows(240, 1), rows(60, 2));
        let is_wrong = |row: usize| row.is_multiple_of(4);
        let given = labels.iter().enumerate().map(|(row, label)| label ^ u32::from(is_wrong(row))).collect();
        let set = |values, labels| VectorSet::new(FEATURES, values, Answers::Classes(labels, 2));
        let (audited, trusted) = (set(values, given), set(trusted, of_trusted));
        let names: Vec<String> = (0..FEATURES).map(|feature| feature.to_string()).collect();
        let ends = [[-1.0; FEATURES], [1.0; FEATURES]];
        let inputs = InputScale::fit(names, std::iter::empty(), ends.iter().map(|row| &row[..]));
        let autoencoder = VectorAutoencoderSpec { inputs: inputs.clone(), hidden: 4, latent: 2 };
        let network = autoencoder.init(&Device::flex(), &mut Seed::new(1).rng("weights"));
        let autoencoder = TrainedVectorAutoencoder::freeze(&network, autoencoder, &Device::flex());
        let answers = AnswerScale::Classes { names: vec!["no".into(), "yes".into()] };
        let spec = MlpSpec { inputs, answers, hidden: vec![32], dropout: 0.0, temperature: 1.0 };
        let mut train = VectorConfig::default().network.train;
        (train.epochs, train.batch) = (60, 16);
        let school = School { train: &train, device: &Device::flex(), progress: &Silent };
        let found = |rounds| {
            let config = VectorAudit { folds: 4, rounds, ..VectorConfig::default().audit };
            let judged = audit(&audited, &trusted, &autoencoder, &spec, &config, school, Seed::new(1));
            let scores = judged.expect("judged").rows.into_iter().map(|row| row.score(VectorScore::Label));
            let (wrong, right): (Vec<_>, Vec<_>) = scores.enumerate().partition(|(row, _)| is_wrong(*row));
            let of = |rows: Vec<(usize, f64)>| rows.into_iter().map(|(_, score)| score).collect::<Vec<_>>();
            auroc(&of(right), &of(wrong)).expect("scores of both")
        };
        let [first, third] = [1, 3].map(found);
        assert!(third > first + 0.02, "AUROC {first} after one round, {third} after three");
    }

    #[test]
    fn a_rule_that_so_few_trusted_rows_cannot_keep_is_refused_by_its_key() {
        // 1 / (n + 1) <= 0.05 first holds at n = 19.
        assert!(check_rule(Rule::Fpr { fpr: 0.05 }, 19).is_ok());
        let message = check_rule(Rule::Fpr { fpr: 0.05 }, 18).expect_err("1/19 > 0.05").to_string();
        assert!(message.contains("audit.rule.fpr") && message.contains("18 trusted rows"), "{message}");
        assert!(check_rule(Rule::default(), 4).is_ok());
    }

    #[test]
    fn a_class_is_read_where_no_other_is_ahead_and_a_quantity_where_trusted_ones_are_as_far() {
        let trusted: Vec<f64> = (0..=100).map(f64::from).collect();
        let rule = Rule::Percentile { percentile: 95.0, margin: 0.0 };
        let limit = |answers| reading_limit(&trusted, &answers, rule).expect("finite");
        assert_eq!(limit(Answers::Classes(Vec::new(), 2)), 0.0);
        assert_eq!(limit(Answers::Values(Vec::new(), 1)), 95.0);
    }
}
