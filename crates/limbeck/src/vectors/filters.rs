//! The simulated attack judged by the truth: how well scores find it, and what networks are worth behind filters.
//!
//! The only place that joins truth and scores. All networks are trained as the undefended one is, from one seed, so that they differ in their rows alone.

use rand::seq::SliceRandom;

use super::audit::Judgement;
use super::learn::{Lesson, School, train_mlp};
use super::measure::Measure;
use super::network::MlpSpec;
use super::results::{FilterFigures, PoisonFigures, Quality, ScoreFigures};
use super::set::VectorSet;
use super::verdict::VECTOR_SCORES;
use crate::error::Result;
use crate::evaluate::metrics::{auroc, auroc_interval};
use crate::evaluate::results::Rate;
use crate::purify::Verdict;
use crate::rng::Seed;

/// What networks behind filters learn from, and how.
pub(super) struct Bench<'a> {
    /// As the audit got them.
    pub(super) audited: &'a VectorSet,
    pub(super) trusted: &'a VectorSet,
    /// Audited rows as limbeck leaves them, and trusted ones.
    pub(super) purified: &'a VectorSet,
    pub(super) spec: &'a MlpSpec,
    pub(super) school: School<'a>,
    pub(super) measure: &'a Measure<'a>,
    /// The seed of the undefended network.
    pub(super) seed: Seed,
}

/// Judges an audit by the truth about each audited row.
pub(super) fn judged_by_truth(
    kind: String,
    truth: &[bool],
    found: &Judgement,
    undefended: Quality,
    bench: &Bench<'_>,
) -> Result<PoisonFigures> {
    let flagged = |poisoned: bool| {
        let rows = found.rows.iter().zip(truth).filter(move |(_, is)| **is == poisoned);
        Rate::of(rows.map(|(row, _)| row.is_flagged()))
    };
    Ok(PoisonFigures {
        kind,
        poisoned: Rate::of(truth.iter().copied()),
        detection: detection(truth, found)?,
        found: flagged(true),
        clean_flagged: flagged(false),
        filters: filters(truth, found, undefended, bench)?,
    })
}

fn detection(truth: &[bool], found: &Judgement) -> Result<Vec<ScoreFigures>> {
    let mut columns: Vec<(&str, Vec<f64>)> = VECTOR_SCORES
        .iter()
        .map(|(kind, _, words)| (*words, found.rows.iter().map(|row| row.score(*kind)).collect()))
        .collect();
    columns.push(("mixture (decides)", found.rows.iter().map(|row| row.suspicion).collect()));
    let figures = |(words, column): (&str, Vec<f64>)| {
        let side = |poisoned: bool| -> Vec<f64> {
            column.iter().zip(truth).filter(|(_, is)| **is == poisoned).map(|(score, _)| *score).collect()
        };
        let (clean, poisoned) = (side(false), side(true));
        Ok(ScoreFigures {
            score: words.to_owned(),
            auroc: auroc(&clean, &poisoned)?,
            interval: auroc_interval(&clean, &poisoned).ok(),
        })
    };
    columns.into_iter().map(figures).collect()
}

fn filters(
    truth: &[bool],
    found: &Judgement,
    undefended: Quality,
    bench: &Bench<'_>,
) -> Result<Vec<FilterFigures>> {
    let rows = truth.len();
    let discarded: Vec<bool> = found.rows.iter().map(|row| row.verdict == Verdict::Discard).collect();
    let left_out = discarded.iter().filter(|is| **is).count();
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut bench.seed.rng("random filter"));
    let random: Vec<bool> = (0..rows).map(|row| order[..left_out].contains(&row)).collect();
    let trained = |filter: &str, rows: &VectorSet| {
        let lesson = Lesson::plain(rows);
        let task = format!("training behind the filter `{filter}`");
        bench.measure.clean(&train_mlp(bench.spec.clone(), lesson, bench.school, bench.seed, &task)?)
    };
    let behind = |filter: &str, dropped: &[bool]| {
        let kept: Vec<usize> = (0..rows).filter(|&row| !dropped[row]).collect();
        trained(filter, &bench.audited.subset(&kept).joined(bench.trusted))
    };
    let figures = |filter: &str, dropped: &[bool], quality: Quality| FilterFigures {
        filter: filter.to_owned(),
        left_out: dropped.iter().filter(|is| **is).count() as u64,
        poisoned_left: truth.iter().zip(dropped).filter(|(is, dropped)| **is && !**dropped).count() as u64,
        quality,
    };
    Ok(vec![
        figures("none", &vec![false; rows], undefended),
        figures("limbeck", &discarded, trained("limbeck", bench.purified)?),
        figures("random", &random, behind("random", &random)?),
        figures("perfect", truth, behind("perfect", truth)?),
    ])
}
