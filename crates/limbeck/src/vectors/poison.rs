//! A simulated attacker: some audited rows are poisoned before the audit, and the truth is kept apart.
//!
//! `adversarial` perturbs features by I-FGSM on a surrogate of another seed and shape and keeps the target; `label-flip` gives a row another class, or the target of another
//! row. The audit sees the poisoned table alone.

use std::collections::BTreeSet;
use std::path::Path;

use rand::Rng as _;
use rand::seq::{IndexedRandom, SliceRandom};

use super::config::{VectorPoison, VectorPoisonKind};
use super::denoise::perturbed;
use super::learn::{Lesson, School, train_mlp};
use super::ledger::write_records;
use super::network::MlpSpec;
use super::set::VectorSet;
use super::table::{RowEdit, Table};
use crate::error::{Error, Result};
use crate::rng::Seed;

/// What the attacker did.
#[derive(Clone, Debug)]
pub(super) struct Poisoned {
    /// The table as the audit gets it.
    pub(super) table: Table,
    /// For each audited row whether it is poisoned.
    pub(super) truth: Vec<bool>,
}

/// What the attacker knows: the clean rows, and a network's shape that is not the defender's.
pub(super) struct Surrogate<'a> {
    /// What it learns from.
    pub(super) rows: &'a VectorSet,
    /// The defender's spec; its hidden layers are replaced.
    pub(super) spec: &'a MlpSpec,
    pub(super) school: School<'a>,
}

/// Poisons audited rows of a table; `None` where there is no attacker.
pub(super) fn poisoned(
    table: &Table,
    audited: &[usize],
    config: &VectorPoison,
    surrogate: &Surrogate<'_>,
    seed: Seed,
) -> Result<Option<Poisoned>> {
    let count = (config.fraction * audited.len() as f64).round() as usize;
    if config.kind == VectorPoisonKind::None || count == 0 {
        return Ok(None);
    }
    // Places among the audited rows.
    let mut chosen: Vec<usize> = (0..audited.len()).collect();
    chosen.shuffle(&mut seed.rng("rows"));
    chosen.truncate(count);
    let mut edits = vec![RowEdit::Keep; table.rows()];
    let made = match config.kind {
        VectorPoisonKind::Adversarial => adversarial(&chosen, config, surrogate, seed)?,
        _ => flipped(table, audited, &chosen, surrogate.spec, seed)?,
    };
    let mut truth = vec![false; audited.len()];
    for (place, edit) in chosen.into_iter().zip(made) {
        edits[audited[place]] = edit;
        truth[place] = true;
    }
    Ok(Some(Poisoned { table: table.edited(&edits, false)?, truth }))
}

/// The surrogate's first rows are the audited ones.
fn adversarial(
    chosen: &[usize],
    config: &VectorPoison,
    surrogate: &Surrogate<'_>,
    seed: Seed,
) -> Result<Vec<RowEdit>> {
    let Surrogate { rows, spec, school } = *surrogate;
    let inputs = &spec.inputs;
    let spec = MlpSpec { hidden: config.hidden.clone(), ..spec.clone() };
    let lesson = Lesson::plain(rows);
    let model = train_mlp(spec, lesson, school, seed.child("surrogate"), "training the attacker's network")?;
    let set = perturbed(&rows.subset(chosen), &model, config.eps)?;
    Ok((0..chosen.len()).map(|row| RowEdit::Features(inputs.unscaled(set.row(row)))).collect())
}

/// Another class at random, or the targets of another row that differ.
fn flipped(
    table: &Table,
    audited: &[usize],
    chosen: &[usize],
    spec: &MlpSpec,
    seed: Seed,
) -> Result<Vec<RowEdit>> {
    let mut rng = seed.rng("targets");
    let targets =
        |row: usize| (0..table.targets().len()).map(|place| table.target(row, place)).collect::<Vec<_>>();
    let classes: BTreeSet<String> = match spec.answers.classes() {
        Some(_) => audited.iter().map(|&row| table.target(row, 0)).collect(),
        None => BTreeSet::new(),
    };
    let flip = |&place: &usize| {
        let own = targets(audited[place]);
        let others: Vec<&String> = classes.iter().filter(|class| **class != own[0]).collect();
        if let Some(other) = others.choose(&mut rng) {
            return Ok(RowEdit::Targets(vec![(*other).clone()]));
        }
        // Any row will do; that none differs, a target that varies excludes but for bad luck.
        for _ in 0..10_000 {
            let other = targets(audited[rng.random_range(0..audited.len())]);
            if other != own {
                return Ok(RowEdit::Targets(other));
            }
        }
        Err(Error::input("flipping targets", "audited rows of one target", "targets that vary"))
    };
    chosen.iter().map(flip).collect()
}

/// Writes the truth about the audited rows: `row`, `poisoned` (0 or 1), and each target before.
pub(super) fn write_truth(path: &Path, before: &Table, audited: &[usize], poisoned: &Poisoned) -> Result<()> {
    let mut header = vec!["row".to_owned(), "poisoned".to_owned()];
    header.extend(before.targets().iter().map(|name| format!("original_{name}")));
    write_records(
        path,
        &header,
        audited.iter().zip(&poisoned.truth).map(|(&row, &is_poisoned)| {
            let mut fields = vec![(row + 1).to_string(), u8::from(is_poisoned).to_string()];
            fields.extend((0..before.targets().len()).map(|place| before.target(row, place)));
            fields
        }),
    )
}
