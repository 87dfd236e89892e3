//! Figures of several runs in one table.

use limbeck::evaluate::{Scale, SeedFigure, SeedSummary};

use super::table::Table;

/// Mean, interval and each run's value of every figure.
pub(crate) fn seeds(summary: &SeedSummary) -> String {
    let seeds = summary.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let each = format!("seeds {seeds}");
    let mut table = Table::new(["part", "figure", "mean", "95 % interval", &each]).right(2).right(3).right(4);
    for figure in &summary.figures {
        let cell = |value: f64| cell(figure, value);
        let values = figure.values.iter().map(|value| cell(*value)).collect::<Vec<_>>().join(", ");
        let interval = format!("{} to {}", cell(figure.interval[0]), cell(figure.interval[1]));
        table.row([figure.group.clone(), figure.name.clone(), cell(figure.mean), interval, values]);
    }
    table.to_string()
}

fn cell(figure: &SeedFigure, value: f64) -> String {
    match figure.scale {
        Scale::Share => format!("{:.1} %", 100.0 * value),
        Scale::Unit | Scale::Open => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent_and_numbers_are_not() {
        let figure = |name: &str, scale, values: Vec<f64>| SeedFigure {
            group: "model".to_owned(),
            name: name.to_owned(),
            scale,
            mean: values[0],
            interval: [values[0], values[1]],
            values,
        };
        let figures = vec![
            figure("clean", Scale::Share, vec![0.9, 0.95]),
            figure("AURC", Scale::Unit, vec![0.25, 0.5]),
        ];
        let text = seeds(&SeedSummary { seeds: vec![4, 7], figures });
        assert!(text.contains("seeds 4, 7") && text.contains("90.0 % to 95.0 %"), "{text}");
        assert!(text.contains("0.2500, 0.5000"), "{text}");
    }
}
