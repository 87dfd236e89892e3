//! What the page says first, and the rows that join several results: derived counts and names, no new measurement.

use serde::Serialize;

use super::filters::{count, share, tally};
use crate::attack::ThreatModel;
use crate::evaluate::results::{
    AbstentionRow, AttackedRate, ClassRow, Evaluation, ModelRow, Rate, ScoreDetection, WorstCase,
    defence_effectiveness,
};
use crate::evaluate::threat_label;

/// Above this share of its clean images flagged, a class is marked.
const MARKED_ABOVE: f64 = 0.05;

/// The deployed model and the one it is held against, as named in [`ModelRow::model`].
const STUDENT: &str = "student";
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
    /// The deployed model.
    student: Option<&'a ModelRow>,
    /// Null answers on clean test images.
    null_rate: Option<Rate>,
    /// Names of the attacks of all models, in the order of their first appearance.
    attacks: Vec<&'a str>,
    models: Vec<Model<'a>>,
    classes: Vec<Class<'a>>,
    /// Defence effectiveness rating of each control, in percent; `NaN` without a backdoor.
    effectiveness: Vec<f64>,
    /// Names of the marked classes.
    marked: Vec<&'a str>,
    /// Worst cases, each with its threat model in words and the attack that alone does most harm.
    worst_cases: Vec<Worst<'a>>,
    /// Whether one of them is of a model that can answer null.
    worst_case_with_null: bool,
    abstention: Vec<Abstention<'a>>,
    /// The same of honestly damaged images.
    damaged: Vec<Abstention<'a>>,
    /// Whether the set is GTSRB, whose authors are then cited.
    is_gtsrb: bool,
}

/// A model with its accuracy under each of [`Summary::attacks`], which were crafted on it or on another.
#[derive(Serialize)]
struct Model<'a> {
    row: &'a ModelRow,
    crafted_on: Option<&'a str>,
    attacked: Vec<Option<&'a AttackedRate>>,
}

/// A worst case with what is derived from it.
#[derive(Serialize)]
struct Worst<'a> {
    row: &'a WorstCase,
    threat: String,
    strongest: Option<&'a AttackedRate>,
}

/// A class with its name.
#[derive(Serialize)]
struct Class<'a> {
    row: &'a ClassRow,
    name: &'a str,
    marked: bool,
}

/// Outcomes of one input kind as rates.
#[derive(Serialize)]
struct Abstention<'a> {
    inputs: &'a str,
    right: Rate,
    wrong: Rate,
    null: Rate,
    /// Null, and looking perturbed to the detector.
    perturbed: Rate,
    /// Answered at all.
    coverage: Rate,
    /// Right among the answered.
    answered: Rate,
    /// Accuracy with null as a non-error: right or null.
    not_wrong: Rate,
}

impl<'a> Summary<'a> {
    /// Derives the summary of `run`.
    pub(super) fn of(run: &'a Evaluation) -> Self {
        let flagged = run.verdicts.reconstruct.saturating_add(run.verdicts.discard);
        let audited = run.verdicts.keep.saturating_add(flagged);
        let deciding = run.detection.iter().find(|score| score.decides);
        let model = |name: &str| run.models.iter().find(|row| row.model == name);
        let abstention: Vec<_> = run.abstention.outcomes.iter().map(Abstention::of).collect();
        let classes: Vec<_> = run.by_class.iter().map(|row| Class::of(row, &run.dataset.classes)).collect();
        let attacks = attacks(&run.models);
        let mut summary = Self {
            headline: String::new(),
            audited,
            flagged: Rate { successes: flagged, trials: audited },
            deciding,
            poison_left: deciding.map(|score| score.recall.trials.saturating_sub(score.recall.successes)),
            undefended: model(UNDEFENDED),
            student: model(STUDENT),
            null_rate: abstention.iter().find(|row| row.inputs == "clean").map(|row| row.null),
            effectiveness: run
                .controls
                .iter()
                .map(|row| defence_effectiveness(&run.controls[0], row).unwrap_or(f64::NAN))
                .collect(),
            models: run.models.iter().flat_map(|row| Model::rows(row, &attacks)).collect(),
            attacks,
            marked: classes.iter().filter(|class| class.marked).map(|class| class.name).collect(),
            classes,
            worst_cases: run.robustness.worst_cases.iter().map(Worst::of).collect(),
            worst_case_with_null: run.robustness.worst_cases.iter().any(|case| case.with_null.is_some()),
            abstention,
            damaged: run.abstention.damaged.iter().map(Abstention::of).collect(),
            is_gtsrb: run.dataset.name.to_ascii_lowercase().contains("gtsrb"),
        };
        summary.headline = summary.headline();
        summary
    }

    fn headline(&self) -> String {
        let mut clauses = vec![self.detection_clause()];
        clauses.extend(self.accuracy_clause());
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

    fn accuracy_clause(&self) -> Option<String> {
        let student = self.student?;
        let mut clause =
            format!("the student classifies {} of clean test images correctly", share(student.clean));
        if let Some(undefended) = self.undefended {
            clause.push_str(&format!(" (undefended model: {})", share(undefended.clean)));
        }
        let share_of = |worst: &&Worst<'_>| worst.row.accuracy.share().unwrap_or(f64::INFINITY);
        let own = self.worst_cases.iter().filter(|worst| worst.row.model == STUDENT);
        if let Some(worst) = own.min_by(|a, b| share_of(a).total_cmp(&share_of(b))) {
            let (accuracy, threat) = (share(worst.row.accuracy), unbroken(&worst.threat));
            clause.push_str(&format!(" and {accuracy} in the worst case over all attacks ({threat})"));
        }
        Some(clause)
    }
}

fn attacks(models: &[ModelRow]) -> Vec<&str> {
    let mut names = Vec::new();
    for row in models.iter().flat_map(|model| &model.attacked) {
        if !names.contains(&row.attack.as_str()) {
            names.push(&row.attack);
        }
    }
    names
}

/// `name` without line breaks at its spaces and hyphens.
fn unbroken(name: &str) -> String {
    name.replace(' ', "\u{a0}").replace('-', "\u{2011}")
}

impl<'a> Model<'a> {
    /// A row for attacks on itself, and one for each other model that it was shown the attacked images of.
    fn rows(row: &'a ModelRow, attacks: &[&str]) -> Vec<Self> {
        let of = |crafted_on, attacked: &'a [AttackedRate]| {
            let accuracy = |name: &&str| attacked.iter().find(|row| row.attack == **name);
            Self { row, crafted_on, attacked: attacks.iter().map(accuracy).collect() }
        };
        let others = row.transferred.iter().map(|other| of(Some(&*other.crafted_on), &other.attacked));
        std::iter::once(of(None, &row.attacked)).chain(others).collect()
    }
}

impl<'a> Worst<'a> {
    fn of(row: &'a WorstCase) -> Self {
        let share = |attack: &&AttackedRate| attack.accuracy.share().unwrap_or(f64::INFINITY);
        Self {
            row,
            threat: threat_label(ThreatModel { norm: row.norm, eps: row.eps }),
            strongest: row.attacks.iter().min_by(|a, b| share(a).total_cmp(&share(b))),
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

impl<'a> Abstention<'a> {
    fn of(row: &'a AbstentionRow) -> Self {
        let answered = row.right.saturating_add(row.wrong);
        let of_all = |successes| Rate { successes, trials: answered.saturating_add(row.null) };
        Self {
            inputs: &row.inputs,
            right: of_all(row.right),
            wrong: of_all(row.wrong),
            null: of_all(row.null),
            perturbed: of_all(row.perturbed),
            coverage: of_all(answered),
            answered: Rate { successes: row.right, trials: answered },
            not_wrong: of_all(row.right.saturating_add(row.null)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_headline_counts_found_missed_and_wrongly_flagged() {
        let mut run = sample::evaluation();
        let score = run.detection.iter_mut().find(|score| score.decides).expect("one score decides");
        score.recall = Rate { successes: 57, trials: 171 };
        score.false_positives = Rate { successes: 12, trials: 1_534 };
        let headline = Summary::of(&run).headline;
        let expected = "57 of 171 poisoned images were found and 114 went undetected; \
                        12 of 1,534 clean images were flagged wrongly; ";
        assert!(headline.starts_with(expected), "{headline}");
    }

    #[test]
    fn the_headline_ends_with_the_student_s_worst_case() {
        let run = sample::evaluation();
        let headline = Summary::of(&run).headline;
        let expected =
            "2.4\u{202f}% in the worst case over all attacks (L\u{2011}infinity\u{a0}eps\u{a0}0.03).";
        assert!(headline.ends_with(expected), "{headline}");
    }

    #[test]
    fn without_the_truth_the_headline_claims_nothing() {
        let headline = Summary::of(&sample::without_truth()).headline;
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

    #[test]
    fn an_attack_that_a_model_was_spared_has_no_rate() {
        let mut run = sample::evaluation();
        run.models[0].attacked.remove(1);
        let summary = Summary::of(&run);
        assert_eq!(summary.attacks, ["fgsm eps 0.01", "i-fgsm eps 0.03", "i-fgsm eps 0.01"]);
        assert_eq!(summary.models[0].attacked[2], None);
        assert_eq!(summary.models[1].attacked[2], Some(&run.models[1].attacked[1]));
    }

    #[test]
    fn a_model_has_a_row_more_for_what_was_crafted_on_another() {
        let run = sample::evaluation();
        let summary = Summary::of(&run);
        let rows: Vec<_> = summary.models.iter().map(|model| (&*model.row.model, model.crafted_on)).collect();
        let own = ["clean-trained", "undefended", "teacher", "student"].map(|name| (name, None));
        assert_eq!(rows[..4], own);
        assert_eq!(rows[4..], [("student", Some("undefended"))]);
        let transferred = &run.models[3].transferred[0].attacked;
        assert_eq!(summary.models[4].attacked, [Some(&transferred[0]), None, None]);
    }

    #[test]
    fn a_worst_case_names_the_attack_that_alone_does_most_harm() {
        let run = sample::evaluation();
        let summary = Summary::of(&run);
        let student = summary.worst_cases.iter().find(|worst| worst.row.model == "student").expect("a row");
        assert_eq!(student.threat, "L-infinity eps 0.03");
        assert_eq!(student.strongest.map(|row| row.attack.as_str()), Some("i-fgsm eps 0.03"));
        let spared = WorstCase { attacks: Vec::new(), ..run.robustness.worst_cases[0].clone() };
        assert!(Worst::of(&spared).strongest.is_none());
    }

    #[test]
    fn null_counts_as_an_error_or_not() {
        let rates =
            AbstentionRow { inputs: "clean".to_owned(), right: 70, wrong: 10, null: 20, perturbed: 5 };
        let rates = Abstention::of(&rates);
        assert_eq!(rates.right.share(), Some(0.7));
        assert_eq!(rates.not_wrong.share(), Some(0.9));
        assert_eq!(rates.answered.share(), Some(0.875));
        assert_eq!(rates.coverage.share(), Some(0.8));
    }
}
