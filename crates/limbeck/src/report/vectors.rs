//! The page of a run on feature vectors: findings in sentences, then tables.

use minijinja::context;
use serde::Serialize;

use super::filters::{NONE, count, fixed, interval, number, share};
use super::{OPERATION, environment};
use crate::error::{Error, Result};
use crate::vectors::results::{Case, CaseKind, FilterFigures, ModelFigures, Quality, VectorResults};
use crate::vectors::vector_findings;

/// Renders a run on vectors as one self-contained HTML page: a pure function of its results.
///
/// # Errors
/// [`Error::Input`] when the template cannot show the results.
pub fn render_vectors(results: &VectorResults) -> Result<String> {
    let findings = vector_findings(results);
    let page = context! {
        results,
        headline => findings.first(),
        findings => findings.iter().skip(1).collect::<Vec<_>>(),
        is_regression => results.classes.is_empty(),
        figure => if results.classes.is_empty() { "RMSE" } else { "Accuracy" },
        task => task(results),
        comparison => comparison(&results.models),
        errors => results.models.iter().flat_map(errors).collect::<Vec<_>>(),
        nulls => results.models.iter().flat_map(nulls).collect::<Vec<_>>(),
        filters => results.poison.iter().flat_map(|poison| poison.filters.iter().map(ShownFilter::of)).collect::<Vec<_>>(),
    };
    environment().and_then(|environment| environment.get_template("vectors.html")?.render(page)).map_err(
        |error| Error::input(OPERATION, format!("{error:#}"), "results that the page template can show"),
    )
}

fn task(results: &VectorResults) -> String {
    match (results.classes.len(), results.target.len()) {
        (0, 1) => "regression".to_owned(),
        (0, outputs) => format!("regression, {outputs} outputs"),
        (classes, _) => format!("classification, {classes} classes"),
    }
}

/// A figure and its 95 % interval as text.
#[derive(Serialize)]
struct Figure {
    value: String,
    interval: String,
}

impl Figure {
    fn of(quality: &Quality) -> Self {
        match quality {
            Quality::Accuracy(rate) => Self { value: share(*rate), interval: interval(*rate) },
            Quality::Error(figures) => {
                let [low, high] = figures.rmse_interval.map(number);
                Self { value: number(figures.rmse), interval: format!("{low}–{high}") }
            }
        }
    }
}

/// A case with the figure of each model.
#[derive(Serialize)]
struct Compared {
    inputs: String,
    is_worst: bool,
    figures: Vec<Figure>,
}

/// One row a case; every model has been asked the same.
fn comparison(models: &[ModelFigures]) -> Vec<Compared> {
    let Some(first) = models.first() else { return Vec::new() };
    let compared = |(at, case): (usize, &Case)| Compared {
        inputs: case.inputs.clone(),
        is_worst: case.kind == CaseKind::Worst,
        figures: models
            .iter()
            .filter_map(|model| model.cases.get(at))
            .map(|case| Figure::of(&case.quality))
            .collect(),
    };
    first.cases.iter().enumerate().map(compared).collect()
}

/// RMSE, MAE and R² of a model, clean and in the worst case.
#[derive(Serialize)]
struct ShownErrors {
    model: String,
    inputs: String,
    rmse: String,
    mae: String,
    r2: String,
}

fn errors(model: &ModelFigures) -> Vec<ShownErrors> {
    let shown = |case: &Case| match &case.quality {
        Quality::Accuracy(_) => None,
        Quality::Error(figures) => Some(ShownErrors {
            model: model.model.clone(),
            inputs: case.inputs.clone(),
            rmse: number(figures.rmse),
            mae: number(figures.mae),
            r2: fixed(figures.r2, 3),
        }),
    };
    model.cases.iter().filter(|case| case.kind != CaseKind::Attack).filter_map(shown).collect()
}

/// The student's answers with null counted.
#[derive(Serialize)]
struct ShownNull {
    inputs: String,
    null: String,
    answered: String,
    as_error: String,
    as_no_error: String,
}

fn nulls(model: &ModelFigures) -> Vec<ShownNull> {
    let shown = |case: &Case| {
        let with_null = case.with_null.as_ref()?;
        Some(ShownNull {
            inputs: case.inputs.clone(),
            null: share(with_null.null),
            answered: with_null.answered.map_or(NONE.to_owned(), |quality| Figure::of(&quality).value),
            as_error: with_null.as_error.map_or(NONE.to_owned(), share),
            as_no_error: with_null.as_no_error.map_or(NONE.to_owned(), share),
        })
    };
    model.cases.iter().filter_map(shown).collect()
}

/// One network behind a filter.
#[derive(Serialize)]
struct ShownFilter {
    filter: String,
    left_out: String,
    poisoned_left: String,
    figure: Figure,
}

impl ShownFilter {
    fn of(row: &FilterFigures) -> Self {
        Self {
            filter: row.filter.clone(),
            left_out: count(row.left_out),
            poisoned_left: count(row.poisoned_left),
            figure: Figure::of(&row.quality),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sound::assert_sound;
    use super::*;
    use crate::evaluate::results::{Rate, VerdictCounts};
    use crate::vectors::results::*;
    use crate::vectors::{VectorConfig, VectorNull};

    fn results(classes: &[&str], quality: Quality) -> VectorResults {
        let rate = Rate { successes: 3, trials: 4 };
        let with_null =
            WithNull { null: rate, answered: Some(quality), as_error: None, as_no_error: Some(rate) };
        let case = |inputs: &str, kind| Case {
            inputs: inputs.to_owned(),
            kind,
            quality,
            with_null: Some(with_null),
        };
        let filter = FilterFigures { filter: "none".into(), left_out: 0, poisoned_left: 2, quality };
        VectorResults {
            limbeck_version: "0".into(),
            data: "<b>.csv".into(),
            seed: 1,
            target: vec!["y".into()],
            classes: classes.iter().map(|class| (*class).to_owned()).collect(),
            features: 2,
            rows: RowCounts {
                table: 1234,
                known: 0,
                audited: 4,
                trusted: 4,
                calibration: 4,
                test: 4,
                purified: 7,
            },
            audit: AuditFigures {
                flagged: rate,
                trusted_flagged: Rate::default(),
                threshold: 3.0,
                verdicts: VerdictCounts { keep: 1, reconstruct: 1, discard: 2 },
            },
            models: vec![ModelFigures {
                model: "student".into(),
                trained_on: "rows".into(),
                cases: vec![
                    case("clean", CaseKind::Clean),
                    case("worst case, L-infinity eps 0.1", CaseKind::Worst),
                ],
            }],
            null: VectorNull {
                measured: "KL".into(),
                config: VectorConfig::default().abstention,
                seed: 1,
                threshold: Some(0.5),
                calibration_rows: 4,
                references: Vec::new(),
            },
            intervals: classes.is_empty().then(|| {
                vec![IntervalFigures { output: "y".into(), half_width: 1.5, miss: 0.1, coverage: rate }]
            }),
            poison: Some(PoisonFigures {
                kind: "flipped targets".into(),
                poisoned: rate,
                detection: vec![ScoreFigures { score: "head".into(), auroc: 0.9, interval: None }],
                found: rate,
                clean_flagged: rate,
                filters: vec![filter],
            }),
        }
    }

    #[test]
    fn both_tasks_are_sound_pages_with_text_escaped() {
        let error = ErrorFigures { rmse: 53.1, rmse_interval: [50.0, 56.0], mae: 43.0, r2: 0.45 };
        let accuracy = Quality::Accuracy(Rate { successes: 3, trials: 4 });
        let without = VectorResults { poison: None, intervals: None, ..results(&[], Quality::Error(error)) };
        for run in [results(&["a", "b"], accuracy), results(&[], Quality::Error(error)), without] {
            let page = render_vectors(&run).expect("it renders");
            assert_sound("vectors", &page);
            assert!(!page.contains("src="), "no picture");
            assert!(page.contains("&lt;b&gt;") && !page.contains("<b>"), "escaped");
        }
    }
}
