//! The page of a hyper-parameter search: the objective by trial, learning curves, and the objective against each searched key.
//!
//! Stopped trials are triangles or dashed lines, so that colour is never the only sign.

use minijinja::context;
use serde::Serialize;

use super::axis::Axis;
use super::filters::{NONE, fixed, number};
use super::panel::{Mark, Panel, Shape};
use super::{OPERATION, environment};
use crate::error::{Error, Result};
use crate::tune::results::{SearchResults, SearchedKey, TrialRow};
use crate::tune::{Direction, Distribution, Scalar};

/// Renders a search as one self-contained HTML page: a pure function of its results.
///
/// # Errors
/// [`Error::Input`] when the template cannot show the results.
pub fn render_search(search: &SearchResults) -> Result<String> {
    let trials: Vec<ShownTrial<'_>> = search.trials.iter().map(ShownTrial::of).collect();
    let counts: Vec<String> = ["complete", "pruned", "failed", "running", "waiting"]
        .into_iter()
        .filter_map(|state| match search.count(state) {
            0 => None,
            count => Some(format!("{count} {state}")),
        })
        .collect();
    let page = context! {
        search,
        trials,
        counts => counts.join(", "),
        space => search.space.iter().map(|key| (&key.key, key.distribution.to_string())).collect::<Vec<_>>(),
        best => search.best().map(ShownTrial::of),
        epochs => search.epochs_trained(),
        figures => Figures::of(search),
    };
    environment().and_then(|environment| environment.get_template("search.html")?.render(page)).map_err(
        |error| Error::input(OPERATION, format!("{error:#}"), "results that the page template can show"),
    )
}

/// A trial with its values as text.
#[derive(Serialize)]
struct ShownTrial<'a> {
    row: &'a TrialRow,
    figure: String,
    values: Vec<String>,
}

impl<'a> ShownTrial<'a> {
    fn of(row: &'a TrialRow) -> Self {
        let values = row.parameters.iter().map(|value| value.as_ref().map_or(NONE.to_owned(), shown));
        Self { row, figure: row.value.map_or(NONE.to_owned(), figure), values: values.collect() }
    }
}

/// With enough digits to tell good trials apart.
fn figure(value: f64) -> String {
    if (0.01..1e6).contains(&value.abs()) { fixed(value, 4) } else { number(value) }
}

fn shown(value: &Scalar) -> String {
    match value {
        Scalar::Float(value) => number(*value),
        other => other.to_string(),
    }
}

/// The panels of the page as SVG; a panel without anything to draw is left out.
#[derive(Serialize)]
struct Figures {
    trials: Option<String>,
    curves: Option<String>,
    /// With the key as title.
    slices: Vec<(String, String)>,
}

impl Figures {
    fn of(search: &SearchResults) -> Self {
        Self {
            trials: by_trial(search),
            curves: curves(search),
            slices: search
                .space
                .iter()
                .enumerate()
                .filter_map(|(index, key)| slice(search, index, key))
                .collect(),
        }
    }
}

/// Values of the trials that ended like this, at the place that `x` gives them.
fn points(search: &SearchResults, state: &str, x: impl Fn(&TrialRow) -> Option<f64>) -> Vec<[f64; 2]> {
    let trials = search.trials.iter().filter(|trial| trial.state == state);
    trials.filter_map(|trial| Some([x(trial)?, trial.value?])).collect()
}

fn marks(search: &SearchResults, x: impl Fn(&TrialRow) -> Option<f64>) -> Vec<Mark> {
    vec![
        Mark::new("complete", Shape::Dots, points(search, "complete", &x)),
        Mark::new("pruned", Shape::Triangles, points(search, "pruned", &x)),
    ]
}

fn values(marks: &[Mark]) -> Vec<f64> {
    marks.iter().flat_map(|mark| &mark.points).map(|point| point[1]).collect()
}

fn by_trial(search: &SearchResults) -> Option<String> {
    let mut marks = marks(search, |trial| Some(trial.number as f64));
    let y = Axis::around(&search.objective, values(&marks));
    let last = search.trials.last()?.number as f64;
    let mut best_so_far: Vec<[f64; 2]> = Vec::new();
    for &[trial, value] in &marks[0].points {
        match best_so_far.last() {
            Some(&[_, best]) if !better(search, value, best) => {}
            // A step, not a slope.
            Some(&[_, best]) => best_so_far.extend([[trial, best], [trial, value]]),
            None => best_so_far.push([trial, value]),
        }
    }
    let [_, best] = *best_so_far.last()?;
    best_so_far.push([last, best]);
    marks.insert(0, Mark::new("best", Shape::Line, best_so_far));
    let description = format!("{} by trial, and the best so far", search.objective);
    Some(Panel { description, x: Axis::whole("Trial", [0.0, last]), y, marks }.svg())
}

fn better(search: &SearchResults, value: f64, other: f64) -> bool {
    match search.direction {
        Direction::Minimize => value < other,
        Direction::Maximize => value > other,
    }
}

fn curves(search: &SearchResults) -> Option<String> {
    let line = |trial: &TrialRow, class: &str| {
        let points = trial.curve.iter().map(|(epoch, value)| [*epoch as f64, *value]).collect();
        Mark::new(class, Shape::Line, points)
    };
    let others = search.trials.iter().filter(|trial| Some(trial.number) != search.best);
    let mut marks: Vec<Mark> = others
        .map(|trial| line(trial, if trial.state == "pruned" { "pruned thin" } else { "complete thin" }))
        .collect();
    marks.extend(search.best().map(|trial| line(trial, "best")));
    let epochs: Vec<f64> = marks.iter().flat_map(|mark| &mark.points).map(|point| point[0]).collect();
    if epochs.is_empty() {
        return None;
    }
    let y = Axis::around(&search.objective, values(&marks));
    let description = format!("{} of {} trials by epoch", search.objective, marks.len());
    Some(Panel { description, x: Axis::whole("Epoch", epochs), y, marks }.svg())
}

fn slice(search: &SearchResults, index: usize, searched: &SearchedKey) -> Option<(String, String)> {
    let place = |trial: &TrialRow| match (trial.parameters.get(index)?.as_ref()?, &searched.distribution) {
        (value, Distribution::Choice { choices }) => {
            choices.iter().position(|choice| choice == value).map(|at| at as f64)
        }
        (Scalar::Int(value), _) => Some(*value as f64),
        (Scalar::Float(value), _) => Some(*value),
        _ => None,
    };
    let marks = marks(search, place);
    let values = values(&marks);
    if values.is_empty() {
        return None;
    }
    let key = searched.key.as_str();
    let x = match &searched.distribution {
        Distribution::Float { low, high, log: true, .. } => Axis::log(key, *low, *high),
        Distribution::Int { low, high, log: true, .. } => Axis::log(key, *low as f64, *high as f64),
        Distribution::Float { low, high, .. } => Axis::fixed(key, *low, *high),
        Distribution::Int { low, high, .. } => Axis::whole(key, [*low as f64, *high as f64]),
        Distribution::Choice { choices } => {
            let named: Vec<String> =
                choices.iter().enumerate().map(|(at, choice)| format!("{at} = {choice}")).collect();
            Axis::whole(named.join(", "), [-0.5, choices.len() as f64 - 0.5])
        }
    };
    let description = format!("{} against {key}", search.objective);
    Some((key.to_owned(), Panel { description, x, y: Axis::around(&search.objective, values), marks }.svg()))
}

#[cfg(test)]
mod tests {
    use super::super::sound::assert_sound;
    use super::*;

    fn trial(number: usize, state: &str, curve: &[f64]) -> TrialRow {
        TrialRow {
            number,
            state: state.to_owned(),
            value: curve.last().copied().filter(|_| state != "failed"),
            epochs: curve.len() as u64,
            seconds: Some(1.5),
            parameters: vec![Some(Scalar::Float(0.001)), Some(Scalar::Text("unet".to_owned()))],
            curve: (1..).zip(curve.iter().copied()).collect(),
            error: (state == "failed").then(|| "a loss that is no number".to_owned()),
        }
    }

    fn results() -> SearchResults {
        let key = |key: &str, distribution: &str| SearchedKey {
            key: key.to_owned(),
            distribution: Distribution::parse(key, distribution).expect("well formed"),
        };
        SearchResults {
            limbeck_version: "0".to_owned(),
            data: "signs".to_owned(),
            objective: "detection".to_owned(),
            measures: "AUROC".to_owned(),
            direction: Direction::Maximize,
            sampler: "tpe".to_owned(),
            seed: 1,
            epochs: 2,
            space: vec![key("dae.head_weight", "log:0.3..30"), key("dae.kind", "choice:unet,bottleneck")],
            trials: vec![
                trial(0, "complete", &[0.5, 0.7]),
                trial(1, "pruned", &[0.4]),
                trial(2, "failed", &[]),
            ],
            best: Some(0),
            best_config: Some("seed = 1\n".to_owned()),
        }
    }

    #[test]
    fn every_edge_is_a_sound_page() {
        let nothing = SearchResults { trials: Vec::new(), best: None, best_config: None, ..results() };
        let failed = SearchResults {
            trials: vec![trial(0, "failed", &[])],
            best: None,
            best_config: None,
            ..results()
        };
        let infinite = SearchResults { trials: vec![trial(0, "complete", &[f64::INFINITY])], ..results() };
        for search in [results(), nothing, failed, infinite] {
            let page = render_search(&search).expect("it renders");
            assert_sound("search", &page);
            assert!(!page.contains("src="), "a page without pictures");
        }
    }

    #[test]
    fn text_is_escaped_and_failures_are_named() {
        let attack = "<script>{{ search.seed }}</script>";
        let mut search = results();
        search.data = attack.to_owned();
        search.trials[2].error = Some(attack.to_owned());
        search.trials[0].parameters[1] = Some(Scalar::Text(attack.to_owned()));
        let page = render_search(&search).expect("it renders");
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;{{ search.seed }}"), "{page}");
        assert!(page.contains("1 complete, 1 pruned, 1 failed"));
    }

    #[test]
    fn the_best_so_far_never_gets_worse_and_reaches_the_last_trial() {
        let mut search = results();
        search.trials = [0.5, 0.4, 0.9, 0.6]
            .iter()
            .enumerate()
            .map(|(n, value)| trial(n, "complete", &[*value]))
            .collect();
        let svg = by_trial(&search).expect("something to draw");
        let line = svg
            .split(r#"class="line best" d=""#)
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a line");
        let heights: Vec<f64> = line
            .split(['M', 'L'])
            .skip(1)
            .map(|point| point.split(' ').nth(1).and_then(|y| y.parse().ok()).expect("a height"))
            .collect();
        // SVG counts downwards: 0.5 until trial 2, then 0.9 until trial 3.
        let [first, before, after, last] = heights[..] else { panic!("{heights:?}") };
        assert!(first == before && before > after && after == last, "{heights:?}");
    }
}
