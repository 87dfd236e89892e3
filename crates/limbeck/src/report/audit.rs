//! The findings of an audit as one self-contained HTML page: what is suspicious, where, and how much of it chance explains.

use minijinja::context;
use serde::Serialize;

use super::axis::Axis;
use super::figures::{Figure, KeyEntry};
use super::filters::{count, fixed, number};
use super::panel::{Mark, Panel, Shape};
use super::{environment, is_base64};
use crate::error::{Error, Result};
use crate::evaluate::results::{ClassRow, Rate};
use crate::evaluate::{AuditFindings, Exhibit};

const OPERATION: &str = "report::render_audit";

/// Bins of a histogram, at least and at most.
const BINS: [usize; 2] = [10, 40];

/// Points of a curve.
const POINTS: usize = 200;

/// Classes that the table shows at once; the others are a click away.
const FIRST_CLASSES: usize = 12;

/// More classes than this are summed up in the last row of the table.
const MOST_CLASSES: usize = 200;

/// Renders the findings of an audit as one self-contained HTML page, in the same style and under the same rules as [`super::render`].
///
/// Its size is bounded, however large the set: four pictures of at most 96 pixels a side for each image that is shown, figures of a few
/// hundred points, 200 classes.
///
/// # Errors
/// [`Error::Input`] when a picture is not standard base64 or the template cannot show the findings.
pub fn render_audit(findings: &AuditFindings) -> Result<String> {
    let shown = [&findings.most_suspicious, &findings.just_above, &findings.just_below];
    shown.into_iter().flatten().try_for_each(check_pictures)?;
    let page = context! {
        audit => findings,
        summary => Summary::of(findings),
        figure_of_scores => distribution(findings),
    };
    environment().and_then(|environment| environment.get_template("audit.html")?.render(page)).map_err(
        |error| Error::input(OPERATION, format!("{error:#}"), "findings that the page template can show"),
    )
}

fn check_pictures(exhibit: &Exhibit) -> Result<()> {
    let Exhibit { image_png, reconstruction_png, anomaly_png, saliency_png, .. } = exhibit;
    for picture in [image_png, reconstruction_png, anomaly_png, saliency_png] {
        if !is_base64(picture) {
            let found = format!("a picture of {:?} that is not base64", exhibit.path);
            return Err(Error::input(OPERATION, found, "padded base64 in the standard alphabet"));
        }
    }
    Ok(())
}

/// What is derived from the findings for the page.
#[derive(Serialize)]
struct Summary<'a> {
    flagged: Rate,
    /// `more`, `fewer` or `as-many` images above the threshold as chance alone explains.
    against_chance: &'static str,
    classes: Vec<Class<'a>>,
    /// Classes that the table leaves out, and their images.
    further: Option<Further>,
    /// Rows of the table that are shown at once.
    first_classes: usize,
    calibration_images: u64,
    is_gtsrb: bool,
}

#[derive(Serialize)]
struct Class<'a> {
    row: &'a ClassRow,
    name: &'a str,
    flagged: Rate,
}

#[derive(Serialize)]
struct Further {
    classes: u64,
    images: u64,
    flagged: Rate,
    discarded: u64,
}

impl<'a> Summary<'a> {
    fn of(findings: &'a AuditFindings) -> Self {
        let verdicts = findings.verdicts;
        let flagged = Rate { successes: verdicts.reconstruct + verdicts.discard, trials: findings.audited };
        let [low, high] = findings.chance.range;
        let against_chance = match findings.above_threshold {
            found if found > high => "more",
            found if found < low => "fewer",
            _ => "as-many",
        };
        let mut classes: Vec<_> =
            findings.by_class.iter().map(|row| Class::of(row, &findings.classes)).collect();
        // The share first, so that a small class that is all suspicious does not go under.
        classes.sort_by(|a, b| {
            let share = |class: &Class<'_>| class.flagged.share().unwrap_or(-1.0);
            share(b).total_cmp(&share(a)).then(b.flagged.successes.cmp(&a.flagged.successes))
        });
        let rest = classes.split_off(classes.len().min(MOST_CLASSES));
        Self {
            flagged,
            against_chance,
            further: (!rest.is_empty()).then(|| Further::of(&rest)),
            classes,
            first_classes: FIRST_CLASSES,
            calibration_images: findings.calibration_scores.len() as u64,
            is_gtsrb: findings.origin.name.to_ascii_lowercase().contains("gtsrb"),
        }
    }
}

impl<'a> Class<'a> {
    fn of(row: &'a ClassRow, names: &'a [String]) -> Self {
        Self {
            row,
            name: names.get(row.class as usize).map_or("unnamed", String::as_str),
            flagged: Rate { successes: row.verdicts.reconstruct + row.verdicts.discard, trials: row.images },
        }
    }
}

impl Further {
    fn of(classes: &[Class<'_>]) -> Self {
        let sum = |of: fn(&Class<'_>) -> u64| classes.iter().map(of).sum();
        let images = sum(|class| class.row.images);
        Self {
            classes: classes.len() as u64,
            images,
            flagged: Rate { successes: sum(|class| class.flagged.successes), trials: images },
            discarded: sum(|class| class.row.verdicts.discard),
        }
    }
}

/// Audited against trusted images by the deciding score: how they are spread, and how many lie above each score.
fn distribution(findings: &AuditFindings) -> Option<Figure> {
    let (audited, calibration) =
        (ascending(&findings.audited_scores), ascending(&findings.calibration_scores));
    if audited.is_empty() || calibration.is_empty() {
        return None;
    }
    let threshold = findings.threshold;
    let x = Axis::around(&findings.score, audited.iter().chain(&calibration).copied().chain([threshold]));
    let series = [("calibration", &calibration), ("audited", &audited)];
    let panel = |description: &str, y: Axis, curves: Vec<(&str, Vec<[f64; 2]>)>| {
        let curve = |(class, points)| Mark::new(class, Shape::Line, points);
        let mut marks: Vec<Mark> = curves.into_iter().map(curve).collect();
        let [bottom, top] = y.range();
        marks.push(Mark::new("threshold", Shape::Line, vec![[threshold, bottom], [threshold, top]]));
        let description =
            format!("{description} by {}, with the threshold {}", findings.score, number(threshold));
        Panel { description, x: x.clone(), y, marks }
    };
    // The rule of Rice for the smaller set: more bins would show its noise.
    let bins = (2.0 * (audited.len().min(calibration.len()) as f64).cbrt()).round() as usize;
    let bins = bins.clamp(BINS[0], BINS[1]);
    let bars = series.map(|(class, scores)| (class, histogram(&x, scores, bins)));
    let heights = bars.iter().flat_map(|(_, points)| points).map(|point| point[1]);
    let shares = Axis::linear_around("Share of images (%)", heights.chain([0.0]));
    let above = series.map(|(class, scores)| (class, survival(scores)));
    let levels = above.iter().flat_map(|(_, points)| points).map(|point| point[1]);
    let levels = Axis::around("Images at least as suspicious (%)", levels);
    let panels = vec![
        ("How the images are spread".to_owned(), panel("Audited and trusted images", shares, bars.into())),
        (
            "How many lie above each score".to_owned(),
            panel("Share of images at least as suspicious", levels, above.into()),
        ),
    ];
    let images = |images: usize| count(images as u64);
    let key = vec![
        KeyEntry::new("line", "audited", format!("audited images ({})", images(audited.len()))),
        KeyEntry::new("line", "calibration", format!("trusted images ({})", images(calibration.len()))),
        KeyEntry::new("line", "threshold", format!("threshold {}", fixed(threshold, 2))),
    ];
    Some(Figure::only(panels, key))
}

/// The scores that can be drawn, in rising order.
fn ascending(scores: &[f64]) -> Vec<f64> {
    let mut scores: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
    scores.sort_unstable_by(f64::total_cmp);
    scores
}

/// Outline of a histogram over `bins` that are equally wide on the axis: the share of all scores in each, in percent.
fn histogram(x: &Axis, scores: &[f64], bins: usize) -> Vec<[f64; 2]> {
    let mut counts = vec![0_u64; bins];
    for place in scores.iter().filter_map(|&score| x.place(score)) {
        counts[((place * bins as f64) as usize).min(bins - 1)] += 1;
    }
    let share = |images: u64| 100.0 * images as f64 / scores.len() as f64;
    let edge = |bin: usize| x.at(bin as f64 / bins as f64);
    let tops = counts.into_iter().enumerate();
    let outline = tops.flat_map(|(bin, images)| [[edge(bin), share(images)], [edge(bin + 1), share(images)]]);
    [[edge(0), 0.0]].into_iter().chain(outline).chain([[edge(bins), 0.0]]).collect()
}

/// The share of rising scores at or above each of at most [`POINTS`] of them, in percent; the largest are all there.
fn survival(ascending: &[f64]) -> Vec<[f64; 2]> {
    let images = ascending.len();
    let point = |above: usize| [ascending[images - above], 100.0 * above as f64 / images as f64];
    // Even steps of the logarithm: as many points among the last hundred images as among all the others.
    let steps = (0..POINTS).map(|step| (images as f64).powf(1.0 - step as f64 / (POINTS - 1) as f64).round());
    let mut counts: Vec<usize> = steps.map(|above| (above as usize).clamp(1, images)).collect();
    counts.dedup();
    counts.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests;
