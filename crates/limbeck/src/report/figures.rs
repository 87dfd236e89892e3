//! The figures of the page: which results are drawn, on which axes, in which class of mark.
//!
//! Poisoned images are triangles and clean ones dots, so that colour is never the only sign. A figure without
//! anything to draw is left out.

use serde::Serialize;

use super::axis::Axis;
use super::filters::{fixed, number};
use super::panel::{Mark, Panel, Shape};
use crate::evaluate::results::{
    AbstentionSummary, Calibration, ClassifierCurve, ClassifierEpoch, DaeEpoch, EpsCurve, Evaluation,
    ScoreDetection, StudentEvaluation, SuspicionPoint,
};

/// More points than this are thinned out.
const MOST_POINTS: usize = 3_000;

/// Colours and dashes that the style sheet tells apart.
const STYLES: usize = 6;

/// Share of false positives where the close-up of the ROC curve ends.
const ROC_CLOSE_UP: f64 = 0.1;

/// Radius where the close-up of a curve over eps ends: 16 grey levels, twice the usual radius.
const EPS_CLOSE_UP: f64 = 16.0 / 255.0 + 1e-4;

/// Name of the paper's own score in the table of scores.
const PAPER_SCORE: &str = "mse";

/// All figures; `None` where there is nothing to draw.
#[derive(Serialize)]
pub(super) struct Figures {
    suspicion: Option<Figure>,
    /// The same for the paper's own score, where another one decides.
    paper_suspicion: Option<Figure>,
    roc: Option<Figure>,
    dae: Option<Figure>,
    eps_curve: Option<Figure>,
    reliability: Option<Figure>,
    risk_coverage: Option<Figure>,
    learning: Option<Figure>,
}

/// Panels that share a caption and a key.
#[derive(Serialize)]
pub(super) struct Figure {
    /// Position on the page, from 1.
    number: usize,
    panels: Vec<TitledPanel>,
    key: Vec<KeyEntry>,
    /// Whether an axis is logarithmic, for the caption.
    log: bool,
    /// Every how many-th image is drawn, for the caption; 1 when all are.
    stride: usize,
}

#[derive(Serialize)]
struct TitledPanel {
    title: String,
    svg: String,
}

/// A line of the key: the mark as drawn, and what it stands for.
#[derive(Serialize)]
pub(super) struct KeyEntry {
    shape: &'static str,
    class: String,
    label: String,
}

impl Figures {
    /// Draws the figures of `run`.
    pub(super) fn of(run: &Evaluation) -> Self {
        let score = &run.suspicion_score;
        let paper = run.detection.iter().find(|row| row.score == PAPER_SCORE && row.score != *score);
        let mut figures = Self {
            suspicion: suspicion(&run.suspicion_points, score, run.suspicion_threshold, |point| point.score),
            paper_suspicion: paper.and_then(|row| {
                suspicion(&run.suspicion_points, "Reconstruction error (MSE)", row.threshold, |point| {
                    point.mse
                })
            }),
            roc: roc(&run.detection),
            dae: dae(&run.dae.epochs),
            eps_curve: eps_curve(&run.robustness.curves),
            reliability: reliability(&run.robustness.calibration),
            risk_coverage: risk_coverage(&run.abstention),
            learning: learning(&run.classifier_curves),
        };
        figures.number();
        figures
    }

    /// Numbers what is there in the order of the page.
    fn number(&mut self) {
        let Self { suspicion, paper_suspicion, roc, dae, eps_curve, reliability, risk_coverage, learning } =
            self;
        number_in_order([
            suspicion,
            paper_suspicion,
            roc,
            dae,
            eps_curve,
            reliability,
            risk_coverage,
            learning,
        ]);
    }
}

/// Figures of a run without an audit; `None` where there is nothing to draw.
#[derive(Serialize)]
pub(super) struct StudentFigures {
    eps_curve: Option<Figure>,
    reliability: Option<Figure>,
    risk_coverage: Option<Figure>,
    learning: Option<Figure>,
}

impl StudentFigures {
    /// Draws the figures of `run`.
    pub(super) fn of(run: &StudentEvaluation) -> Self {
        let mut figures = Self {
            eps_curve: eps_curve(&run.robustness.curves),
            reliability: reliability(&run.robustness.calibration),
            risk_coverage: risk_coverage(&run.abstention),
            learning: learning(&run.classifier_curves),
        };
        let Self { eps_curve, reliability, risk_coverage, learning } = &mut figures;
        number_in_order([eps_curve, reliability, risk_coverage, learning]);
        figures
    }
}

/// Numbers what is there from 1.
fn number_in_order<'a>(figures: impl IntoIterator<Item = &'a mut Option<Figure>>) {
    figures.into_iter().flatten().zip(1..).for_each(|(figure, number)| figure.number = number);
}

impl Figure {
    fn new(panels: Vec<(String, Panel)>, key: Vec<KeyEntry>) -> Self {
        let log = panels.iter().any(|(_, panel)| panel.y.is_log() || panel.x.is_log());
        let panels =
            panels.into_iter().map(|(title, panel)| TitledPanel { title, svg: panel.svg() }).collect();
        Self { number: 0, panels, key, log, stride: 1 }
    }

    /// The only figure of a page; its caption itself says what is logarithmic.
    pub(super) fn only(panels: Vec<(String, Panel)>, key: Vec<KeyEntry>) -> Self {
        Self { number: 1, log: false, ..Self::new(panels, key) }
    }
}

impl KeyEntry {
    pub(super) fn new(shape: &'static str, class: impl Into<String>, label: impl Into<String>) -> Self {
        Self { shape, class: class.into(), label: label.into() }
    }
}

/// The paper's Figures 1 and 2: the score of each image and the threshold, poisoned images alone and all images.
fn suspicion(
    points: &[SuspicionPoint],
    score: &str,
    threshold: f64,
    value: impl Fn(&SuspicionPoint) -> f64,
) -> Option<Figure> {
    let poisoned: Vec<_> = points.iter().filter(|point| point.poisoned == Some(true)).collect();
    let (poisoned, poisoned_stride) = thinned(&poisoned);
    let all: Vec<_> = points.iter().collect();
    let (all, stride) = thinned(&all);
    let last = all.last()?.index;

    let xy = |point: &&SuspicionPoint| [point.index as f64, value(point)];
    let of_truth =
        |truth| all.iter().copied().filter(|point| point.poisoned == truth).map(|point| xy(&point)).collect();
    let threshold_line =
        || Mark::new("threshold", Shape::Line, vec![[0.0, threshold], [last as f64, threshold]]);
    let x = Axis::whole("Image, by position in the audited set", [0.0, last as f64]);
    let y = Axis::around(score, all.iter().chain(&poisoned).map(|point| value(point)).chain([threshold]));
    let panel = |description: &str, mut marks: Vec<Mark>| {
        marks.push(threshold_line());
        let description = format!("{description} by {score}, against the threshold {}", number(threshold));
        Panel { description, x: x.clone(), y: y.clone(), marks }
    };

    let mut panels = Vec::new();
    if !poisoned.is_empty() {
        let marks = vec![Mark::new("poison", Shape::Triangles, poisoned.iter().map(xy).collect())];
        panels.push(("Poisoned images only".to_owned(), panel("Poisoned images", marks)));
    }
    let marks = vec![
        Mark::new("unknown", Shape::Dots, of_truth(None)),
        Mark::new("clean", Shape::Dots, of_truth(Some(false))),
        Mark::new("poison", Shape::Triangles, of_truth(Some(true))),
    ];
    panels.push(("All audited images".to_owned(), panel("All audited images", marks)));

    let key = [
        (Some(true), KeyEntry::new("triangles", "poison", "poisoned")),
        (Some(false), KeyEntry::new("dots", "clean", "clean")),
        (None, KeyEntry::new("dots", "unknown", "truth unknown")),
    ];
    let mut key: Vec<_> =
        key.into_iter().filter(|(truth, _)| points.iter().any(|p| p.poisoned == *truth)).collect();
    key.push((None, KeyEntry::new("line", "threshold", format!("threshold {}", number(threshold)))));
    let key = key.into_iter().map(|(_, entry)| entry).collect();
    Some(Figure { stride: stride.max(poisoned_stride), ..Figure::new(panels, key) })
}

/// Every `stride`-th item, with the least stride that leaves at most [`MOST_POINTS`].
fn thinned<T: Copy>(items: &[T]) -> (Vec<T>, usize) {
    let stride = items.len().div_ceil(MOST_POINTS).max(1);
    (items.iter().copied().step_by(stride).collect(), stride)
}

/// ROC curves of all scores: the whole square, and the part where few clean images are flagged.
fn roc(detection: &[ScoreDetection]) -> Option<Figure> {
    let scores: Vec<_> = detection.iter().filter(|score| !score.roc.is_empty()).collect();
    if scores.is_empty() {
        return None;
    }
    let class = |i: usize| format!("{}{}", style(i), if scores[i].decides { " decides" } else { "" });
    let panel = |to: f64| {
        let mut marks = vec![Mark::new("chance", Shape::Line, vec![[0.0, 0.0], [to, to]])];
        marks
            .extend((0..scores.len()).map(|i| Mark::new(class(i), Shape::Line, clipped(&scores[i].roc, to))));
        Panel {
            description: format!("ROC curves of {} scores up to a false positive rate of {to}", scores.len()),
            x: Axis::fixed("False positive rate", 0.0, to),
            y: Axis::fixed("True positive rate (recall)", 0.0, 1.0),
            marks,
        }
    };
    let mut key: Vec<_> = scores
        .iter()
        .enumerate()
        .map(|(i, score)| {
            let decides = if score.decides { ", decides" } else { "" };
            KeyEntry::new(
                "line",
                class(i),
                format!("{} (AUROC {}{decides})", score.score, fixed(score.auroc, 3)),
            )
        })
        .collect();
    key.push(KeyEntry::new("line", "chance", "chance"));
    let panels = vec![
        ("Whole curve".to_owned(), panel(1.0)),
        ("Close-up: at most 10\u{202f}% of clean images flagged".to_owned(), panel(ROC_CLOSE_UP)),
    ];
    Some(Figure::new(panels, key))
}

/// The part of `curve` up to `x = to`, with the crossing interpolated.
fn clipped(curve: &[[f64; 2]], to: f64) -> Vec<[f64; 2]> {
    let inside = curve.iter().take_while(|[x, _]| *x <= to).count();
    let mut part = curve[..inside].to_vec();
    if let (Some(&[x0, y0]), Some(&[x1, y1])) = (part.last(), curve.get(inside)) {
        part.push([to, y0 + (y1 - y0) * (to - x0) / (x1 - x0)]);
    }
    part
}

/// The paper's Figure 3: losses and reconstruction error of the autoencoder by epoch.
fn dae(epochs: &[DaeEpoch]) -> Option<Figure> {
    if epochs.is_empty() {
        return None;
    }
    let curve = |value: fn(&DaeEpoch) -> f64| -> Vec<[f64; 2]> {
        epochs.iter().map(|epoch| [f64::from(epoch.epoch), value(epoch)]).collect()
    };
    let panel = |label: &str, curves: Vec<(String, Vec<[f64; 2]>)>| Panel {
        description: format!("{label} by epoch, {} epochs", epochs.len()),
        x: epoch_axis(epochs.iter().map(|epoch| epoch.epoch)),
        y: Axis::around(label, curves.iter().flat_map(|(_, points)| points).map(|point| point[1])),
        marks: curves.into_iter().map(|(class, points)| Mark::new(class, Shape::Line, points)).collect(),
    };
    let error = vec![(solid(2), curve(|epoch| epoch.reconstruction_error))];
    let losses =
        vec![(style(1), curve(|epoch| epoch.train_loss)), (style(0), curve(|epoch| epoch.validation_loss))];
    let panels = vec![
        ("Reconstruction error on clean images".to_owned(), panel("Mean squared error", error)),
        ("Loss in training and validation".to_owned(), panel("Loss", losses)),
    ];
    let key = vec![
        KeyEntry::new("line", solid(2), "reconstruction error"),
        KeyEntry::new("line", style(0), "validation loss"),
        KeyEntry::new("line", style(1), "training loss"),
    ];
    Some(Figure::new(panels, key))
}

/// Accuracy of each model by the radius of an attack: the small radii, and all of them.
fn eps_curve(curves: &[EpsCurve]) -> Option<Figure> {
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.points.is_empty()).collect();
    let largest = curves.iter().flat_map(|curve| &curve.points).map(|point| point.eps).fold(0.0, f64::max);
    if curves.is_empty() {
        return None;
    }
    let points = |curve: &EpsCurve| -> Vec<[f64; 2]> {
        let share = |rate: crate::evaluate::results::Rate| 100.0 * rate.share().unwrap_or(f64::NAN);
        curve.points.iter().map(|point| [point.eps, share(point.accuracy)]).collect()
    };
    let panel = |to: f64| Panel {
        description: format!("Accuracy of {} models by eps up to {}", curves.len(), number(to)),
        x: Axis::fixed("eps (L-infinity, pixel units)", 0.0, to),
        y: Axis::fixed("Accuracy (%)", 0.0, 100.0),
        marks: curves
            .iter()
            .enumerate()
            .map(|(i, curve)| Mark::new(style(i), Shape::Line, clipped(&points(curve), to)))
            .collect(),
    };
    let mut panels = Vec::new();
    if largest > EPS_CLOSE_UP {
        panels.push(("Close-up: at most 16 of 255 grey levels".to_owned(), panel(EPS_CLOSE_UP)));
    }
    panels.push(("All radii".to_owned(), panel(if largest > 0.0 { largest } else { 1.0 })));
    let key = curves
        .iter()
        .enumerate()
        .map(|(i, curve)| KeyEntry::new("line", style(i), format!("{} ({})", curve.model, curve.attack)))
        .collect();
    Some(Figure::new(panels, key))
}

/// Accuracy of each model by its mean confidence in each bin.
fn reliability(models: &[Calibration]) -> Option<Figure> {
    let models: Vec<_> = models.iter().filter(|model| !model.bins.is_empty()).collect();
    let points = |model: &Calibration| -> Vec<[f64; 2]> {
        let bins = model.bins.iter().filter_map(|bin| Some([bin.confidence, bin.accuracy.share()?]));
        bins.collect()
    };
    let mut marks = vec![Mark::new("chance", Shape::Line, vec![[0.0, 0.0], [1.0, 1.0]])];
    let lines = models.iter().enumerate().map(|(i, model)| Mark::new(style(i), Shape::Line, points(model)));
    marks.extend(lines);
    let panel = Panel {
        description: format!("Accuracy of {} models by confidence", models.len()),
        x: Axis::fixed("Mean confidence of the bin", 0.0, 1.0),
        y: Axis::fixed("Accuracy in the bin", 0.0, 1.0),
        marks,
    };
    let label = |model: &Calibration| match model.error {
        Some(error) => format!("{} (ECE {})", model.model, fixed(error, 3)),
        None => model.model.clone(),
    };
    let mut key: Vec<_> =
        models.iter().enumerate().map(|(i, model)| KeyEntry::new("line", style(i), label(model))).collect();
    key.push(KeyEntry::new("line", "chance", "as often right as it says"));
    (!models.is_empty()).then(|| Figure::new(vec![("Reliability".to_owned(), panel)], key))
}

/// Error among the answered by coverage, and where the chosen threshold lies.
fn risk_coverage(abstention: &AbstentionSummary) -> Option<Figure> {
    if abstention.risk_coverage.is_empty() {
        return None;
    }
    let clean = abstention.outcomes.iter().find(|row| row.inputs == "clean");
    let chosen = clean.map(|row| {
        let answered = row.right as f64 + row.wrong as f64;
        [answered / (answered + row.null as f64), row.wrong as f64 / answered]
    });
    let chosen = chosen.filter(|[_, risk]| risk.is_finite());
    let risks = abstention.risk_coverage.iter().copied().chain(chosen).map(|point| point[1]);
    let mut marks = vec![Mark::new(style(0), Shape::Line, abstention.risk_coverage.clone())];
    marks.extend(chosen.map(|point| Mark::new("chosen", Shape::Triangles, vec![point])));
    let mut key = vec![KeyEntry::new("line", style(0), "student on clean test images")];
    // What the detector silences is not on the curve, which is of the uncertainty alone.
    let rule = match abstention.detector {
        None => "at the chosen threshold",
        Some(_) => "at the chosen threshold, detector asked",
    };
    key.extend(chosen.map(|_| KeyEntry::new("triangles", "chosen", rule)));
    let panel = Panel {
        description: "Share of errors among answered clean test images by coverage".to_owned(),
        x: Axis::fixed("Coverage: share of images answered", 0.0, 1.0),
        y: Axis::around("Risk: share of errors among answers", risks.chain([0.0])),
        marks,
    };
    Some(Figure::new(vec![("Risk by coverage".to_owned(), panel)], key))
}

/// Validation accuracy of each classifier by epoch.
fn learning(curves: &[ClassifierCurve]) -> Option<Figure> {
    let curves: Vec<_> = curves.iter().filter(|curve| !curve.epochs.is_empty()).collect();
    let panel = |title: &str, accuracy: fn(&ClassifierEpoch) -> Option<f64>| {
        let point = |epoch: &ClassifierEpoch| Some([f64::from(epoch.epoch), 100.0 * accuracy(epoch)?]);
        let points = |curve: &ClassifierCurve| curve.epochs.iter().filter_map(point).collect::<Vec<_>>();
        let lines: Vec<_> = curves
            .iter()
            .map(|curve| points(curve))
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let accuracies = lines.iter().flat_map(|(_, line)| line).map(|point| point[1]);
        let epochs = curves.iter().flat_map(|curve| &curve.epochs).map(|epoch| epoch.epoch);
        let panel = Panel {
            description: format!("{title} of {} classifiers by epoch", lines.len()),
            x: epoch_axis(epochs),
            y: Axis::linear_around(format!("{title} (%)"), accuracies),
            marks: lines.iter().map(|(i, line)| Mark::new(style(*i), Shape::Line, line.clone())).collect(),
        };
        (!lines.is_empty()).then(|| (title.to_owned(), panel))
    };
    let panels = [
        panel("Validation accuracy", |epoch| Some(epoch.validation_accuracy)),
        panel("Validation accuracy under attack", |epoch| epoch.robust_accuracy),
    ];
    let key =
        curves.iter().enumerate().map(|(i, curve)| KeyEntry::new("line", style(i), &curve.model)).collect();
    let panels: Vec<_> = panels.into_iter().flatten().collect();
    (!panels.is_empty()).then(|| Figure::new(panels, key))
}

fn epoch_axis(epochs: impl Iterator<Item = u32>) -> Axis {
    Axis::whole("Epoch", epochs.map(f64::from))
}

/// CSS class of the `i`-th line of a figure.
fn style(i: usize) -> String {
    format!("style-{}", i % STYLES)
}

/// The same colour, for a line that is alone in its panel.
fn solid(i: usize) -> String {
    format!("{} solid", style(i))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn thinning_keeps_every_nth_and_at_most_the_limit() {
        let items: Vec<_> = (0..7_000).collect();
        let (kept, stride) = thinned(&items);
        assert_eq!((stride, kept.len()), (3, 2_334));
        assert_eq!(kept[..3], [0, 3, 6]);
        assert_eq!(thinned(&items[..3_000]).1, 1);
    }

    #[test]
    fn without_the_truth_there_is_one_panel_and_no_roc() {
        let figures = Figures::of(&sample::without_truth());
        assert_eq!(figures.suspicion.map(|figure| figure.panels.len()), Some(1));
        assert!(figures.roc.is_none() && figures.paper_suspicion.is_none());
        assert_eq!(
            figures.dae.map(|figure| figure.number),
            Some(2),
            "figures that are left out take no number"
        );
    }

    #[test]
    fn with_the_truth_poisoned_images_have_a_panel_of_their_own() {
        let figure = Figures::of(&sample::evaluation()).suspicion.expect("the sample has points");
        assert_eq!(figure.panels.len(), 2);
        assert!(
            figure.panels[0].svg.contains("triangles poison") && !figure.panels[0].svg.contains("dots clean")
        );
        assert!(
            figure.panels[1].svg.contains("triangles poison") && figure.panels[1].svg.contains("dots clean")
        );
    }

    #[test]
    fn a_curve_over_eps_has_a_close_up_of_the_radii_that_people_hardly_see() {
        let curves = sample::evaluation().robustness.curves;
        let figure = eps_curve(&curves).expect("the sample has curves");
        assert_eq!((figure.panels.len(), figure.key.len()), (2, curves.len()));
        let mut small = curves[..1].to_vec();
        small[0].points.retain(|point| point.eps < 0.05);
        assert_eq!(eps_curve(&small).map(|figure| figure.panels.len()), Some(1));
        small[0].points.clear();
        assert!(eps_curve(&small).is_none());
    }

    #[test]
    fn a_model_without_bins_is_left_out_of_the_reliability_diagram() {
        let mut models = sample::evaluation().robustness.calibration;
        models[0].bins.clear();
        let figure = reliability(&models).expect("the others have bins");
        assert_eq!(figure.key.len(), models.len(), "one model less, and the diagonal");
        assert!(reliability(&[]).is_none());
    }

    #[test]
    fn a_clipped_curve_ends_on_the_edge() {
        let curve = [[0.0, 0.0], [0.05, 0.5], [0.15, 0.7], [1.0, 1.0]];
        let part = clipped(&curve, 0.1);
        assert_eq!(part.len(), 3);
        assert!((part[2][1] - 0.6).abs() < 1e-12, "{part:?}");
        assert_eq!(clipped(&curve, 1.0), curve);
    }
}
