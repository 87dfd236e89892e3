//! What people and programs read on stdout: every result is text or JSON, made whole and then printed once.

mod audit;
mod evaluation;
mod robustness;
mod search;
mod seeds;
mod speed;
mod table;
mod vectors;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use limbeck::evaluate::results::{ModelRow, Outcome, Rate, Transferred};
use limbeck::pipeline::Prediction;
use serde::Serialize;

pub(crate) use audit::AuditSummary;
pub(crate) use evaluation::{brief_json, summary};
pub(crate) use robustness::{model_evaluation, student_evaluation};
pub(crate) use search::search;
pub(crate) use seeds::seeds;
pub(crate) use speed::{SpeedRow, speed_lines, speed_table};
use table::Table;
pub(crate) use vectors::{row_answers, vectors};

/// Colours; [`print`] leaves them out where they are not wanted (`NO_COLOR`, `CLICOLOR`, no terminal).
pub(crate) mod style {
    use anstyle::{AnsiColor, Style};

    pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
    pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
    pub(crate) const OPEN: Style = AnsiColor::Yellow.on_default().bold();
    pub(crate) const FAINT: Style = Style::new().dimmed();
    pub(crate) const HEAD: Style = Style::new().bold();
}

/// Writes a result to stdout. A reader that has gone away has seen enough: that is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write the result as JSON")? + "\n")
}

/// Answers as a table.
pub(crate) fn predictions(predictions: &[Prediction]) -> String {
    let mut table = Table::new(["path", "answer", "probability", "uncertainty"]).right(2).right(3);
    for prediction in predictions {
        table.row([
            prediction.path.display().to_string(),
            answer(prediction),
            format!("{:.3}", prediction.answer.probability),
            format!("{:.4}", prediction.answer.uncertainty),
        ]);
    }
    table.to_string()
}

fn answer(prediction: &Prediction) -> String {
    match &prediction.class {
        Some(class) => class.clone(),
        None if prediction.answer.perturbed => "null: looks perturbed".to_owned(),
        None => "null: unsure".to_owned(),
    }
}

/// Values as JSON, one object a line.
pub(crate) fn json_lines(values: &[impl Serialize]) -> anyhow::Result<String> {
    values.iter().try_fold(String::new(), |lines, value| {
        let line = serde_json::to_string(value).context("cannot write an answer as JSON")?;
        Ok(lines + &line + "\n")
    })
}

/// One model's accuracy, clean and under each attack.
pub(crate) fn model(row: &ModelRow) -> String {
    let mut table =
        Table::new([row.model.as_str(), "accuracy", "95 % interval", "images"]).right(1).right(2).right(3);
    let attacked = row.attacked.iter().flat_map(|attack| {
        let reached = attack.reached.map(|reached| (format!("{}: answered with it", attack.attack), reached));
        [(attack.attack.clone(), attack.accuracy)].into_iter().chain(reached)
    });
    let transferred = row.transferred.iter().flat_map(Transferred::labelled);
    for (inputs, rate) in [("clean".to_owned(), row.clean)].into_iter().chain(attacked).chain(transferred) {
        table.row([inputs, share(rate), interval(rate), rate.trials.to_string()]);
    }
    table.to_string()
}

/// `65.3 s`, `12 min 5 s`, `3 h 2 min`.
pub(crate) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// An outcome in words and colour, as wide as the widest.
fn outcome(outcome: Outcome) -> String {
    let (style, word) = match outcome {
        Outcome::Pass => (style::GOOD, "PASS"),
        Outcome::Fail => (style::BAD, "FAIL"),
        Outcome::Unknown => (style::OPEN, "UNKNOWN"),
    };
    format!("{style}{word:<8}{style:#}")
}

/// A share as a percentage; `–` where nothing was tried.
fn share(rate: Rate) -> String {
    rate.share().map_or("–".to_owned(), percent)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Wilson's 95 % interval of a rate, in percent.
fn interval(rate: Rate) -> String {
    rate.wilson().map_or("–".to_owned(), |[low, high]| format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high))
}

/// `1 image`, `2 images`.
fn images(count: u64) -> String {
    format!("{count} image{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use limbeck::distill::Answer;
    use limbeck::evaluate::results::AttackedRate;
    use limbeck::vectors::{Quantity, RowAnswer, RowContent};

    use super::*;

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn an_answer_names_its_class_or_says_why_it_is_null() {
        let predicted = |class: Option<&str>, perturbed| Prediction {
            path: PathBuf::from("a.png"),
            label: class.map(|_| 0),
            class: class.map(str::to_owned),
            answer: Answer {
                class: 0,
                probability: 0.75,
                uncertainty: 0.5,
                null: class.is_none(),
                perturbed,
            },
        };
        let rows = [predicted(Some("stop"), false), predicted(None, false), predicted(None, true)];
        let expected = "\
path   answer                 probability  uncertainty
a.png  stop                         0.750       0.5000
a.png  null: unsure                 0.750       0.5000
a.png  null: looks perturbed        0.750       0.5000
";
        assert_eq!(stripped(&predictions(&rows)), expected);
    }

    #[test]
    fn the_answer_to_a_row_is_a_class_or_quantities_with_their_intervals_or_null() {
        let quantity =
            |interval| RowContent::Quantities(vec![Quantity { name: "y".into(), value: 1.5, interval }]);
        let answered = |row, answer, null| RowAnswer {
            path: PathBuf::from("t.csv"),
            row,
            null,
            answer,
            uncertainty: 0.25,
            outside: 0,
        };
        let rows = [
            answered(9, RowContent::Class("left".into()), false),
            answered(10, RowContent::Class("left".into()), true),
            answered(11, quantity(None), false),
            answered(12, quantity(Some([1.0, 2.0])), false),
        ];
        let expected = "\
path   row  answer                       uncertainty
t.csv    9  left                              0.2500
t.csv   10  null                              0.2500
t.csv   11  y 1.5000                          0.2500
t.csv   12  y 1.5000 (1.0000 to 2.0000)       0.2500
";
        assert_eq!(stripped(&row_answers(&rows)), expected);
    }

    #[test]
    fn durations_are_in_the_units_that_people_use() {
        assert_eq!(duration(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(59)), "59.0 s");
        assert_eq!(duration(Duration::from_secs(725)), "12 min 5 s");
        assert_eq!(duration(Duration::from_secs(10_920)), "3 h 2 min");
    }

    #[test]
    fn a_model_is_shown_with_every_attack_and_its_intervals() {
        let row = ModelRow {
            model: "model.safetensors".to_owned(),
            trained_on: String::new(),
            clean: Rate { successes: 81, trials: 100 },
            attacked: vec![
                AttackedRate {
                    attack: "fgsm eps 0.01".to_owned(),
                    accuracy: Rate { successes: 0, trials: 10 },
                    reached: None,
                },
                AttackedRate {
                    attack: "fgsm, to class 3".to_owned(),
                    accuracy: Rate { successes: 10, trials: 10 },
                    reached: Some(Rate { successes: 0, trials: 10 }),
                },
            ],
            transferred: vec![Transferred {
                crafted_on: "other.safetensors".to_owned(),
                attacked: vec![AttackedRate {
                    attack: "fgsm eps 0.01".to_owned(),
                    accuracy: Rate { successes: 10, trials: 10 },
                    reached: None,
                }],
            }],
            backdoor: None,
        };
        // Wilson 1927 for 81 of 100: 0.7222 to 0.8749 (R, prop.test without correction).
        let expected = "\
model.safetensors                      accuracy  95 % interval  images
clean                                    81.0 %   72.2 to 87.5     100
fgsm eps 0.01                             0.0 %    0.0 to 27.8      10
fgsm, to class 3                        100.0 %  72.2 to 100.0      10
fgsm, to class 3: answered with it        0.0 %    0.0 to 27.8      10
fgsm eps 0.01, from other.safetensors   100.0 %  72.2 to 100.0      10
";
        assert_eq!(stripped(&model(&row)), expected);
    }
}
