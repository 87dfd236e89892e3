//! The page of a run without an audit: what its student is worth.

use minijinja::context;

use super::figures::StudentFigures;
use super::measured::Measured;
use super::{OPERATION, check_base64, environment, is_gtsrb};
use crate::error::{Error, Result};
use crate::evaluate::results::StudentEvaluation;

/// Name of the model that the student learnt from.
const TEACHER: &str = "teacher";

/// Renders a run without an audit as one self-contained HTML page: a pure function of its results.
///
/// # Errors
/// [`Error::Input`] when a picture is not standard base64 or the template cannot show the results.
pub fn render_student(evaluation: &StudentEvaluation) -> Result<String> {
    for row in &evaluation.attacked_examples {
        check_base64(&row.path, [&row.clean_png, &row.attacked_png, &row.difference_png])?;
    }
    let measured = Measured::of(&evaluation.models, &evaluation.robustness, &evaluation.abstention);
    let teacher = evaluation.models.iter().find(|row| row.model == TEACHER);
    let page = context! {
        run => evaluation,
        headline => headline(&measured, teacher.map(|row| (TEACHER, row))),
        teacher,
        worst_of_student => measured.of_student().collect::<Vec<_>>(),
        figures => StudentFigures::of(evaluation),
        has_audit => false,
        is_gtsrb => is_gtsrb(&evaluation.dataset.name),
        measured,
    };
    environment().and_then(|environment| environment.get_template("student.html")?.render(page)).map_err(
        |error| Error::input(OPERATION, format!("{error:#}"), "results that the page template can show"),
    )
}

fn headline(measured: &Measured<'_>, teacher: Option<(&str, &crate::evaluate::results::ModelRow)>) -> String {
    let clause = measured.accuracy_clause(teacher);
    let mut sentence = clause.unwrap_or_else(|| "no student was measured".to_owned());
    sentence.push('.');
    sentence
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::sound::assert_sound;
    use super::*;
    use crate::evaluate::results::{Rate, Robustness, TaughtSet};

    fn page(run: &StudentEvaluation) -> String {
        render_student(run).expect("the sample renders")
    }

    #[test]
    fn every_edge_is_a_sound_page() {
        let edge = |change: fn(&mut StudentEvaluation)| {
            let mut run = sample::student_evaluation();
            change(&mut run);
            run
        };
        let edges = [
            ("as it is", edge(|_| {})),
            (
                "nothing",
                edge(|run| {
                    run.models.clear();
                    run.robustness = Robustness::default();
                    run.abstention.outcomes.clear();
                    run.abstention.risk_coverage.clear();
                    run.classifier_curves.clear();
                    run.attacked_examples.clear();
                    run.checks.clear();
                }),
            ),
            ("no trials", edge(|run| run.models.iter_mut().for_each(|row| row.clean = Rate::default()))),
            (
                "not finite",
                edge(|run| {
                    run.abstention.aurc = f64::NAN;
                    run.attacked_examples[0].clean.probability = None;
                    run.robustness.calibration[0].error = Some(f64::NAN);
                }),
            ),
        ];
        for (name, run) in edges {
            assert_sound(name, &page(&run));
        }
    }

    #[test]
    fn the_page_says_what_the_student_is_worth_and_claims_no_audit() {
        let run = sample::student_evaluation();
        let page = page(&run);
        let [teacher, student] = ["teacher", "student"].map(|name| {
            let row = run.models.iter().find(|row| row.model == name).expect("the sample has both");
            super::super::filters::share(row.clean)
        });
        // 24 of 1,000 images are right under every attack in the sample.
        let headline = format!(
            "the student classifies {student} of clean test images correctly (teacher: {teacher}) and 2.4\u{202f}% in the worst case \
             over all attacks (L\u{2011}infinity\u{a0}eps\u{a0}0.03)."
        );
        assert_eq!(headline_of(&page), headline);
        let figure =
            page.split("Student in the worst case, L-infinity eps 0.03").nth(1).expect("a key figure");
        assert!(
            figure.split("</div>").next().is_some_and(|figure| figure.contains("24 of 1,000")),
            "{figure}"
        );
        let TaughtSet { train_images, held_out_images, test_images, .. } = run.dataset;
        let of = |part: &str, images: u64| {
            let words = format!("{part}{}", super::super::filters::count(images));
            assert!(page.contains(&words), "{words}");
        };
        of("Teacher and student learnt from ", train_images);
        of("and nothing taken out. ", held_out_images);
        of(
            " others were held out: a third of them, by whole groups, chose epochs, and the rest calibrated the null rule. ",
            test_images,
        );
        for section in ["models", "robustness", "calibration", "abstention", "learning", "checks", "config"] {
            assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
        }
        assert!(page.contains("<h3>Attacked test images</h3>") && page.contains("class=\"stamp\""));
        assert!(page.contains("nothing was audited") && !page.contains("that the audit kept"));
        assert!(page.contains(&run.dataset.content_hash) && page.contains(&run.config_hash));
    }

    #[test]
    fn networks_that_were_there_already_are_named_beside_what_they_may_have_seen() {
        let mut run = sample::student_evaluation();
        let words = "whether that had learnt from held-out or test images is not known";
        assert!(!page(&run).contains(words));
        run.given_networks = true;
        let page = page(&run);
        assert!(page.contains(words) && page.contains("<p>The student learnt from"));
    }

    #[test]
    fn figures_are_numbered_from_1_in_the_order_of_the_page() {
        let page = page(&sample::student_evaluation());
        let numbers: Vec<&str> =
            page.split("<b>Figure ").skip(1).filter_map(|rest| rest.split('.').next()).collect();
        assert_eq!(numbers, ["1", "2", "3", "4"]);
    }

    #[test]
    fn text_from_the_set_is_escaped_and_a_picture_that_is_not_base64_is_refused() {
        let mut run = sample::student_evaluation();
        run.dataset.name = "<script>".to_owned();
        assert!(!page(&run).contains("<script"));
        run.attacked_examples[1].clean_png = "\" onerror=\"x".to_owned();
        let error = render_student(&run).expect_err("no picture").to_string();
        assert!(error.contains("base64") && error.contains(&run.attacked_examples[1].path), "{error}");
    }

    fn headline_of(page: &str) -> &str {
        page.split("class=\"headline\">").nth(1).and_then(|rest| rest.split('<').next()).unwrap_or("none")
    }
}
