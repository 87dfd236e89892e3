//! What any page says of models: rows that join several results, and the sentence that sums them up. No new measurement.

use serde::Serialize;

use super::filters::share;
use crate::attack::ThreatModel;
use crate::evaluate::results::{
    AbstentionRow, AbstentionSummary, AttackedRate, ModelRow, Rate, Robustness, WorstCase,
};
use crate::evaluate::threat_label;

/// The deployed model, as named in [`ModelRow::model`].
const STUDENT: &str = "student";

/// What is derived from the results of models.
#[derive(Serialize)]
pub(super) struct Measured<'a> {
    /// The deployed model.
    student: Option<&'a ModelRow>,
    /// Null answers on clean test images.
    null_rate: Option<Rate>,
    /// Names of the attacks of all models, in the order of their first appearance.
    attacks: Vec<&'a str>,
    models: Vec<Model<'a>>,
    /// Worst cases, each with its threat model in words and the attack that alone does most harm.
    worst_cases: Vec<Worst<'a>>,
    /// Whether one of them is of a model that can answer null.
    worst_case_with_null: bool,
    abstention: Vec<Abstention<'a>>,
    /// The same of honestly damaged images.
    damaged: Vec<Abstention<'a>>,
}

/// A model with its accuracy under each of [`Measured::attacks`], which were crafted on it or on another.
#[derive(Serialize)]
struct Model<'a> {
    row: &'a ModelRow,
    crafted_on: Option<&'a str>,
    attacked: Vec<Option<&'a AttackedRate>>,
}

/// A worst case with what is derived from it.
#[derive(Serialize)]
pub(super) struct Worst<'a> {
    row: &'a WorstCase,
    threat: String,
    strongest: Option<&'a AttackedRate>,
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

impl<'a> Measured<'a> {
    /// Derives it from these results.
    pub(super) fn of(
        models: &'a [ModelRow],
        robustness: &'a Robustness,
        abstention: &'a AbstentionSummary,
    ) -> Self {
        let outcomes: Vec<_> = abstention.outcomes.iter().map(Abstention::of).collect();
        let attacks = attacks(models);
        Self {
            student: models.iter().find(|row| row.model == STUDENT),
            null_rate: outcomes.iter().find(|row| row.inputs == "clean").map(|row| row.null),
            models: models.iter().flat_map(|row| Model::rows(row, &attacks)).collect(),
            attacks,
            worst_cases: robustness.worst_cases.iter().map(Worst::of).collect(),
            worst_case_with_null: robustness.worst_cases.iter().any(|case| case.with_null.is_some()),
            abstention: outcomes,
            damaged: abstention.damaged.iter().map(Abstention::of).collect(),
        }
    }

    /// How often the student is right, clean and in its worst case, and how often a model of another `(kind, row)` is.
    pub(super) fn accuracy_clause(&self, other: Option<(&str, &ModelRow)>) -> Option<String> {
        let student = self.student?;
        let mut clause =
            format!("the student classifies {} of clean test images correctly", share(student.clean));
        if let Some((kind, other)) = other {
            clause.push_str(&format!(" ({kind}: {})", share(other.clean)));
        }
        let share_of = |worst: &&Worst<'_>| worst.row.accuracy.share().unwrap_or(f64::INFINITY);
        if let Some(worst) = self.of_student().min_by(|a, b| share_of(a).total_cmp(&share_of(b))) {
            let (accuracy, threat) = (share(worst.row.accuracy), unbroken(&worst.threat));
            clause.push_str(&format!(" and {accuracy} in the worst case over all attacks ({threat})"));
        }
        Some(clause)
    }

    /// The student's worst case under each threat model.
    pub(super) fn of_student(&self) -> impl Iterator<Item = &Worst<'a>> {
        self.worst_cases.iter().filter(|worst| worst.row.model == STUDENT)
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
    use crate::evaluate::results::Evaluation;

    fn of(run: &Evaluation) -> Measured<'_> {
        Measured::of(&run.models, &run.robustness, &run.abstention)
    }

    #[test]
    fn an_attack_that_a_model_was_spared_has_no_rate() {
        let mut run = sample::evaluation();
        run.models[0].attacked.remove(1);
        let measured = of(&run);
        assert_eq!(measured.attacks, ["fgsm eps 0.01", "i-fgsm eps 0.03", "i-fgsm eps 0.01"]);
        assert_eq!(measured.models[0].attacked[2], None);
        assert_eq!(measured.models[1].attacked[2], Some(&run.models[1].attacked[1]));
    }

    #[test]
    fn a_model_has_a_row_more_for_what_was_crafted_on_another() {
        let run = sample::evaluation();
        let measured = of(&run);
        let rows: Vec<_> =
            measured.models.iter().map(|model| (&*model.row.model, model.crafted_on)).collect();
        let own = ["clean-trained", "undefended", "teacher", "student"].map(|name| (name, None));
        assert_eq!(rows[..4], own);
        assert_eq!(rows[4..], [("student", Some("undefended"))]);
        let transferred = &run.models[3].transferred[0].attacked;
        assert_eq!(measured.models[4].attacked, [Some(&transferred[0]), None, None]);
    }

    #[test]
    fn a_worst_case_names_the_attack_that_alone_does_most_harm() {
        let run = sample::evaluation();
        let measured = of(&run);
        let student = measured.worst_cases.iter().find(|worst| worst.row.model == "student").expect("a row");
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
