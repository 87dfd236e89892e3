//! The classifiers behind other filters that every comparison needs.

use rand::seq::SliceRandom;

use super::audit::{Audit, Networks, Purified};
use super::config::ClassifierSection;
use super::evaluation::Finished;
use super::run::Run;
use super::sets::Sets;
use super::stages::{Made, Poison};
use crate::dataset::Dataset;
use crate::error::Result;
use crate::evaluate::results::{Comparison, ControlRow, Rate};
use crate::evaluate::{Examined, Truth, compare, read};
use crate::network::TrainedClassifier;
use crate::purify::{Verdict, purified_set};
use crate::train::{Epoch, Targets};

/// A classifier trained behind another filter.
pub(super) struct Control {
    pub(super) filter: &'static str,
    removed: u64,
    reconstructed: u64,
    poison_left: Option<u64>,
    pub(super) classifier: TrainedClassifier,
    pub(super) epochs: Vec<Epoch>,
}

impl Run<'_> {
    /// The same classifier at T = 1 behind other filters, and on clean data: what the filter is worth, and what the poison costs.
    pub(super) fn controls(
        &mut self,
        sets: &Sets,
        audited: &Dataset,
        poison: &Poison,
        networks: &Networks,
        audit: &Audit,
        purified: &Purified,
    ) -> Result<Made<Vec<Control>>> {
        let mut controls = Vec::new();
        let mut keys = vec![audit.key.clone()];
        if self.config.evaluate.controls || self.config.evaluate.ablation {
            let truth = match &poison.truth {
                Some(manifest) => Truth::join(manifest, &audit.ledger)?,
                None => Truth::unknown(),
            };
            let verdicts: Vec<Verdict> = audit.ledger.rows.iter().map(|row| row.verdict).collect();
            let mut shuffled = verdicts.clone();
            shuffled.shuffle(&mut self.seed("random filter").rng("verdicts"));
            let always = |flagged: Verdict| {
                let overruled =
                    |verdict: &Verdict| if *verdict == Verdict::Keep { Verdict::Keep } else { flagged };
                verdicts.iter().map(overruled).collect::<Vec<_>>()
            };
            let mut plans = Vec::new();
            if self.config.evaluate.ablation {
                plans.push(("discard all", always(Verdict::Discard)));
                plans.push(("reconstruct all", always(Verdict::Reconstruct)));
            }
            plans.extend([("limbeck", verdicts), ("random", shuffled)]);
            if let Some(truth) = truth.known() {
                let verdict = |poisoned: &bool| if *poisoned { Verdict::Discard } else { Verdict::Keep };
                plans.push(("perfect", truth.iter().map(verdict).collect()));
                plans.push(("clean", vec![Verdict::Keep; audited.len()]));
            }
            let ClassifierSection { network, train } = self.config.classifier.clone();
            for (filter, verdicts) in plans {
                let kept = |set: &Dataset| {
                    let is_kept = |index: &&usize| verdicts[**index] == Verdict::Keep;
                    let kept: Vec<usize> = sets.fitted.iter().filter(is_kept).copied().collect();
                    sets.with_trusted(&set.subset(&kept))
                };
                let set = match filter {
                    "limbeck" => purified.train.clone(),
                    "clean" => kept(&sets.train)?,
                    "reconstruct all" => {
                        let mut ledger = audit.ledger.clone();
                        ledger
                            .rows
                            .iter_mut()
                            .zip(&verdicts)
                            .for_each(|(row, verdict)| row.verdict = *verdict);
                        let (set, _) = purified_set(audited, &ledger, &self.defence(networks))?;
                        sets.with_trusted(&set.subset(&sets.fitted))?
                    }
                    // A random filter discards what it flags: it has no reason to reconstruct.
                    _ => kept(audited)?,
                };
                let made = self.classifier(
                    &format!("control-{}", filter.replace(' ', "-")),
                    (network, &train),
                    1.0,
                    &set,
                    || Ok(Targets::Labels),
                    &purified.validation,
                    &[&purified.key],
                )?;
                let count = |verdict: Verdict| verdicts.iter().filter(|v| **v == verdict).count() as u64;
                let reconstructs = matches!(filter, "limbeck" | "reconstruct all");
                let reconstructed = if reconstructs { count(Verdict::Reconstruct) } else { 0 };
                controls.push(Control {
                    filter,
                    removed: verdicts.len() as u64 - count(Verdict::Keep) - reconstructed,
                    reconstructed,
                    poison_left: truth.known().map(|truth| {
                        let left = |(poisoned, verdict): &(&bool, &Verdict)| {
                            **poisoned && **verdict == Verdict::Keep
                        };
                        truth.iter().zip(&verdicts).filter(left).count() as u64
                    }),
                    classifier: made.value.network,
                    epochs: made.value.epochs,
                });
                keys.push(made.key);
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        Ok(Made { key: self.key("controls", &(), &keys), value: controls })
    }

    /// A row for each filter, and what limbeck's is against the others.
    pub(super) fn control_rows(
        &self,
        finished: &Finished<'_>,
        examined: &[Examined],
        backdoor: &impl Fn(&TrainedClassifier) -> Result<Option<Rate>>,
    ) -> Result<(Vec<ControlRow>, Vec<Comparison>)> {
        let (mut rows, mut right) = (Vec::new(), Vec::new());
        let poisoned = finished.poison.poisoned.as_ref().map(|set| set.images.len() as u64);
        if let Some(undefended) = examined.iter().find(|model| model.row.model == "undefended") {
            rows.push(ControlRow {
                filter: "none".to_owned(),
                removed: 0,
                reconstructed: 0,
                poison_left: poisoned,
                clean: undefended.row.clean,
                backdoor: undefended.row.backdoor,
            });
            right.push(("none", undefended.clean_test.right.clone()));
        }
        for control in &finished.controls.value {
            let reading = read(&control.classifier, &finished.sets.test, self.progress)?;
            if control.filter != "clean" {
                rows.push(ControlRow {
                    filter: control.filter.to_owned(),
                    removed: control.removed,
                    reconstructed: control.reconstructed,
                    poison_left: control.poison_left,
                    clean: Rate::of(reading.right.iter().copied()),
                    backdoor: backdoor(&control.classifier)?,
                });
            }
            right.push((control.filter, reading.right));
        }
        let of = |filter: &str| right.iter().find(|(name, _)| *name == filter);
        let pairs = [("limbeck", "none"), ("limbeck", "random"), ("limbeck", "perfect"), ("clean", "none")];
        let compared = pairs.into_iter().filter_map(|(first, second)| Some((of(first)?, of(second)?))).map(
            |((first, of_first), (second, of_second))| {
                compare("clean", (first, of_first), (second, of_second))
            },
        );
        Ok((rows, compared.collect::<Result<_>>()?))
    }
}
