//! The recorded results of a run as one self-contained HTML page.
//!
//! [`render`] is a pure function of the [`Evaluation`]: same results, same bytes. The page needs no script, no
//! network and no other file; figures are inline SVG whose colours follow the reader's light or dark setting, and
//! pictures are data URIs. What was not measured, or left the finite numbers, is printed as an en dash. Text from the
//! audited set (class names, paths) is escaped; pictures that are not base64 are refused.
//!
//! [`render_search`] does the same with the trials of a search and [`render_audit`] with the findings of an audit alone, which need
//! no model behind it and no truth; [`render_student`] with a student that was distilled without an audit; [`render_vectors`] with a run on feature vectors.
//!
//! `page.html`, `audit.html`, `student.html`, `search.html` and `vectors.html` hold the words and their order, those in `model` the sections that two pages share,
//! `summary`, `measured` and `figures` what is derived from the results,
//! `filters` how a number is set, `panel` and `axis` how a figure is drawn.

mod audit;
mod axis;
mod figures;
mod filters;
mod measured;
mod panel;
#[cfg(test)]
pub(crate) mod sample;
mod search;
#[cfg(test)]
mod sound;
mod student;
mod summary;
#[cfg(test)]
mod tests;
mod vectors;

pub use audit::render_audit;
pub use search::render_search;
pub use student::render_student;
pub use vectors::render_vectors;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use crate::error::{Error, Result};
use crate::evaluate::results::Evaluation;

const OPERATION: &str = "report::render";

/// The sections that are of models alone, for the page of an audit and for that of a student without one.
const MODEL_TEMPLATES: [(&str, &str); 10] = [
    ("model/stamp.html", include_str!("model/stamp.html")),
    ("model/accuracy.html", include_str!("model/accuracy.html")),
    ("model/worst_case.html", include_str!("model/worst_case.html")),
    ("model/calibration.html", include_str!("model/calibration.html")),
    ("model/abstention.html", include_str!("model/abstention.html")),
    ("model/learning.html", include_str!("model/learning.html")),
    ("model/checks.html", include_str!("model/checks.html")),
    ("model/limits.html", include_str!("model/limits.html")),
    ("model/sources.html", include_str!("model/sources.html")),
    ("model/provenance.html", include_str!("model/provenance.html")),
];

/// Renders `evaluation` as one self-contained HTML page.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorded = std::fs::read_to_string("run/evaluation.json")?;
/// let page = limbeck::report::render(&serde_json::from_str(&recorded)?)?;
/// std::fs::write("run/report.html", page)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Input`] when a picture is not standard base64 or the template cannot show the results.
pub fn render(evaluation: &Evaluation) -> Result<String> {
    check_pictures(evaluation)?;
    let measured = measured::Measured::of(&evaluation.models, &evaluation.robustness, &evaluation.abstention);
    let page = context! {
        run => evaluation,
        summary => summary::Summary::of(evaluation, &measured),
        figures => figures::Figures::of(evaluation),
        has_audit => true,
        is_gtsrb => is_gtsrb(&evaluation.dataset.name),
        measured,
    };
    environment().and_then(|environment| environment.get_template("page.html")?.render(page)).map_err(
        |error| Error::input(OPERATION, format!("{error:#}"), "results that the page template can show"),
    )
}

/// Whether the set is GTSRB, whose authors are then cited.
fn is_gtsrb(name: &str) -> bool {
    name.to_ascii_lowercase().contains("gtsrb")
}

/// The templates and filters; an undefined name is an error, so that a renamed result cannot leave a gap.
fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.css", include_str!("page.css"))?;
    environment.add_template("head.html", include_str!("head.html"))?;
    environment.add_template("macros.html", include_str!("macros.html"))?;
    environment.add_template("audit.css", include_str!("audit.css"))?;
    environment.add_template("audit.html", include_str!("audit.html"))?;
    environment.add_template("page.html", include_str!("page.html"))?;
    for (name, text) in MODEL_TEMPLATES {
        environment.add_template(name, text)?;
    }
    environment.add_template("student.html", include_str!("student.html"))?;
    environment.add_template("search.html", include_str!("search.html"))?;
    environment.add_template("vectors.html", include_str!("vectors.html"))?;
    filters::add_to(&mut environment);
    Ok(environment)
}

/// Refuses pictures that are not standard base64: they go into `src` attributes.
fn check_pictures(evaluation: &Evaluation) -> Result<()> {
    for row in &evaluation.triptychs {
        let pictures = [&row.suspicious_png, &row.reconstructed_png, &row.residual_png];
        check_base64(&row.path, pictures.into_iter().chain(&row.original_png))?;
    }
    evaluation
        .attacked_examples
        .iter()
        .try_for_each(|row| check_base64(&row.path, [&row.clean_png, &row.attacked_png, &row.difference_png]))
}

fn check_base64<'a>(path: &str, pictures: impl IntoIterator<Item = &'a String>) -> Result<()> {
    if pictures.into_iter().all(|picture| is_base64(picture)) {
        return Ok(());
    }
    let found = format!("a picture of {path:?} that is not base64");
    Err(Error::input(OPERATION, found, "padded base64 in the standard alphabet"))
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - digits.len() <= 2
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
