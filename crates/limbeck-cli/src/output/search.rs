//! What a hyper-parameter search found.

use std::path::Path;

use limbeck::tune::results::SearchResults;

use super::table::Table;
use crate::arguments::shell_word;

/// How the trials ended, the values of the best one, and where the files are.
pub(crate) fn search(results: &SearchResults, out: &Path) -> String {
    let (count, trials) = (|state| results.count(state), results.trials.len());
    let trials = format!(
        "{trials} trials: {} complete, {} pruned, {} failed; {} epochs trained\n",
        count("complete"),
        count("pruned"),
        count("failed"),
        results.epochs_trained()
    );
    let page = format!("page: {}\n", out.join("tune.html").display());
    let (Some(best), Some(value)) = (results.best(), results.best().and_then(|best| best.value)) else {
        return trials + &page;
    };
    let mut table = Table::new([&format!("trial {}", best.number), "value"]).right(1);
    table.row([results.objective.clone(), figure(value)]);
    for (searched, value) in results.space.iter().zip(&best.parameters) {
        table.row([searched.key.clone(), value.as_ref().map_or("–".to_owned(), ToString::to_string)]);
    }
    let settings = out.join("best.toml");
    let word = shell_word(&settings.to_string_lossy());
    let settings = settings.display();
    format!("{trials}\n{table}\nsettings: {settings}\nuse them: limbeck run --config {word}\n{page}")
}

/// With enough digits to tell good trials apart.
fn figure(value: f64) -> String {
    if (0.01..1e6).contains(&value.abs()) { format!("{value:.6}") } else { format!("{value:.5e}") }
}

#[cfg(test)]
mod tests {
    use limbeck::tune::results::{SearchedKey, TrialRow};
    use limbeck::tune::{Direction, Distribution, Scalar};

    use super::*;

    #[test]
    fn the_best_trial_is_shown_with_its_values() {
        let trial = |number, state: &str, value| TrialRow {
            number,
            state: state.to_owned(),
            value,
            epochs: 3,
            seconds: None,
            parameters: vec![Some(Scalar::Int(12))],
            curve: Vec::new(),
            error: None,
        };
        let mut results = SearchResults {
            limbeck_version: String::new(),
            data: String::new(),
            objective: "detection".to_owned(),
            measures: String::new(),
            direction: Direction::Maximize,
            sampler: "tpe".to_owned(),
            seed: 1,
            epochs: 3,
            space: vec![SearchedKey {
                key: "dae.width".to_owned(),
                distribution: Distribution::parse("dae.width", "int:8..24").expect("a range"),
            }],
            trials: vec![trial(0, "failed", None), trial(1, "complete", Some(0.9875))],
            best: Some(1),
            best_config: None,
        };
        let expected = "\
2 trials: 1 complete, 0 pruned, 1 failed; 6 epochs trained

trial 1       value
detection  0.987500
dae.width        12

settings: out/best.toml
use them: limbeck run --config out/best.toml
page: out/tune.html
";
        let shown = |results: &SearchResults| {
            anstream::adapter::strip_str(&search(results, Path::new("out"))).to_string()
        };
        assert_eq!(shown(&results), expected);
        results.trials[1].value = Some(6.894_479_994e-5);
        assert!(shown(&results).contains("detection  6.89448e-5\n"), "{}", shown(&results));
        results.best = None;
        assert!(!shown(&results).contains("best.toml"));
    }
}
