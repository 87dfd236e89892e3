//! What the page of an audit says first, and its rows that join several results: derived counts and names, no new measurement.

use serde::Serialize;

use super::filters::{count, tally};
use super::measured::Measured;
use crate::evaluate::results::{ClassRow, Evaluation, ModelRow, Rate, ScoreDetection, defence_effectiveness};

/// Above this share of its clean images flagged, a class is marked.
const MARKED_ABOVE: f64 = 0.05;

/// The model that the deployed one is held against, as named in [`ModelRow::model`].
const UNDEFENDED: &str = "undefended";

/// What is derived from the results for the page.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    /// The outcome in one sentence.
    headline: String,
    /// All images that got a verdict.
    audited: u64,
    /// Those not simply kept, of all.
    flagged: Rate,
    /// The score that the verdicts were taken on, where the truth is known.
    deciding: Option<&'a ScoreDetection>,
    /// Poisoned images that were not flagged.
    poison_left: Option<u64>,
    /// The model trained on the set as it came.
    undefended: Option<&'a ModelRow>,
    classes: Vec<Class<'a>>,
    /// Defence effectiveness rating of each control, in percent; `NaN` without a backdoor.
    effectiveness: Vec<f64>,
    /// Names of the marked classes.
    marked: Vec<&'a str>,
}

/// A class with its name.
#[derive(Serialize)]
struct Class<'a> {
    row: &'a ClassRow,
    name: &'a str,
    marked: bool,
}

impl<'a> Summary<'a> {
    /// Derives the summary of `run`.
    pub(super) fn of(run: &'a Evaluation, measured: &Measured<'_>) -> Self {
        let flagged = run.verdicts.reconstruct.saturating_add(run.verdicts.discard);
        let audited = run.verdicts.keep.saturating_add(flagged);
        let deciding = run.detection.iter().find(|score| score.decides);
        let classes: Vec<_> = run.by_class.iter().map(|row| Class::of(row, &run.dataset.classes)).collect();
        let mut summary = Self {
            headline: String::new(),
            audited,
            flagged: Rate { successes: flagged, trials: audited },
            deciding,
            poison_left: deciding.map(|score| score.recall.trials.saturating_sub(score.recall.successes)),
            undefended: run.models.iter().find(|row| row.model == UNDEFENDED),
            effectiveness: run
                .controls
                .iter()
                .map(|row| defence_effectiveness(&run.controls[0], row).unwrap_or(f64::NAN))
                .collect(),
            marked: classes.iter().filter(|class| class.marked).map(|class| class.name).collect(),
            classes,
        };
        summary.headline = summary.headline(measured);
        summary
    }

    fn headline(&self, measured: &Measured<'_>) -> String {
        let mut clauses = vec![self.detection_clause()];
        let undefended = self.undefended.map(|row| ("undefended model", row));
        clauses.extend(measured.accuracy_clause(undefended));
        let mut sentence = clauses.join("; ");
        sentence.push('.');
        sentence
    }

    fn detection_clause(&self) -> String {
        match self.deciding {
            Some(score) if score.recall.trials > 0 => format!(
                "{} poisoned images were found and {} went undetected; {} clean images were flagged wrongly",
                tally(score.recall),
                count(self.poison_left.unwrap_or_default()),
                tally(score.false_positives),
            ),
            Some(score) => {
                format!(
                    "no image was poisoned; {} clean images were flagged wrongly",
                    tally(score.false_positives)
                )
            }
            None => format!(
                "{} images were flagged; whether rightly cannot be said, because the truth about this set is unknown",
                tally(self.flagged)
            ),
        }
    }
}

impl<'a> Class<'a> {
    fn of(row: &'a ClassRow, names: &'a [String]) -> Self {
        let name = usize::try_from(row.class).ok().and_then(|class| names.get(class));
        Self {
            row,
            name: name.map_or("unnamed", String::as_str),
            marked: row.false_positives.and_then(Rate::share).is_some_and(|share| share > MARKED_ABOVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn headline(run: &Evaluation) -> String {
        Summary::of(run, &Measured::of(&run.models, &run.robustness, &run.abstention)).headline
    }

    #[test]
    fn the_headline_counts_found_missed_and_wrongly_flagged() {
        let mut run = sample::evaluation();
        let score = run.detection.iter_mut().find(|score| score.decides).expect("one score decides");
        score.recall = Rate { successes: 57, trials: 171 };
        score.false_positives = Rate { successes: 12, trials: 1_534 };
        let headline = headline(&run);
        let expected = "57 of 171 poisoned images were found and 114 went undetected; \
                        12 of 1,534 clean images were flagged wrongly; ";
        assert!(headline.starts_with(expected), "{headline}");
    }

    #[test]
    fn the_headline_ends_with_the_student_s_worst_case() {
        let run = sample::evaluation();
        let headline = headline(&run);
        let expected =
            "2.4\u{202f}% in the worst case over all attacks (L\u{2011}infinity\u{a0}eps\u{a0}0.03).";
        assert!(headline.ends_with(expected), "{headline}");
    }

    #[test]
    fn without_the_truth_the_headline_claims_nothing() {
        let headline = headline(&sample::without_truth());
        assert!(
            headline.contains("the truth about this set is unknown") && !headline.contains("found"),
            "{headline}"
        );
    }

    #[test]
    fn a_class_is_marked_above_five_percent_and_not_at_it() {
        let row = |successes| ClassRow {
            class: 0,
            images: 100,
            verdicts: Default::default(),
            false_positives: Some(Rate { successes, trials: 100 }),
            false_negatives: None,
        };
        assert!(!Class::of(&row(5), &[]).marked);
        assert!(Class::of(&row(6), &[]).marked);
    }
}
