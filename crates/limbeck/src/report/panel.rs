//! One coordinate system with its marks, as inline SVG.
//!
//! A panel is 400 units wide with text of 12 units, which a phone shows at about 11 px and a desktop at about 14 px.
//! Colours and dashes are CSS classes, so that a figure follows the light or dark setting of its page; a series is a
//! single path, so that thousands of points stay small.

use std::fmt::Write;

use minijinja::HtmlEscape;

use super::axis::{Axis, drawable};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 264.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 388.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 222.0;

/// Longer labels of an axis are cut, so that they stay inside the picture.
const LONGEST_LABEL: usize = 44;

/// Lines of at most this many points show each point too.
const FEW: usize = 12;

/// A coordinate system and what is drawn in it.
pub(super) struct Panel {
    /// What the panel shows, for readers who cannot see it.
    pub(super) description: String,
    /// Horizontal axis.
    pub(super) x: Axis,
    /// Vertical axis.
    pub(super) y: Axis,
    /// Drawn in this order, later ones on top.
    pub(super) marks: Vec<Mark>,
}

/// Something drawn in a panel; `class` is its CSS class.
pub(super) struct Mark {
    /// CSS classes: colour and dash.
    pub(super) class: String,
    /// Form of the mark.
    pub(super) shape: Shape,
    /// As (x, y) in the units of the axes; what falls outside is left out.
    pub(super) points: Vec<[f64; 2]>,
}

/// Form of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Points joined in order.
    Line,
    /// A filled circle at each point.
    Dots,
    /// A triangle at each point.
    Triangles,
}

impl Mark {
    /// A mark of `shape` with CSS class `class`.
    pub(super) fn new(class: impl Into<String>, shape: Shape, points: Vec<[f64; 2]>) -> Self {
        Self { class: class.into(), shape, points }
    }
}

impl Panel {
    /// The panel as an `<svg>` element.
    pub(super) fn svg(&self) -> String {
        let mut svg = format!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            HtmlEscape(&self.description)
        );
        self.draw_axes(&mut svg);
        for mark in &self.marks {
            self.draw(&mut svg, mark.shape, shape_class(mark.shape), mark);
            if mark.shape == Shape::Line && mark.points.len() <= FEW {
                self.draw(&mut svg, Shape::Dots, "nodes", mark);
            }
        }
        svg.push_str("</svg>");
        svg
    }

    fn draw_axes(&self, svg: &mut String) {
        for (value, label) in self.y.ticks() {
            let Some(at) = self.y.place(value).map(down) else { continue };
            push(svg, format_args!(r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#));
            let (x, y) = (LEFT - 6.0, at + 4.0);
            push(
                svg,
                format_args!(r#"<text class="tick" x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#),
            );
        }
        for (value, label) in self.x.ticks() {
            let Some(at) = self.x.place(value).map(across) else { continue };
            push(svg, format_args!(r#"<path class="axis" d="M{at:.1} {BOTTOM}v4"/>"#));
            let y = BOTTOM + 17.0;
            push(
                svg,
                format_args!(r#"<text class="tick" x="{at:.1}" y="{y}" text-anchor="middle">{label}</text>"#),
            );
        }
        push(svg, format_args!(r#"<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>"#));
        let (x, y) = (shortened(&self.x.label), shortened(&self.y.label));
        let (x, y) = (HtmlEscape(&x), HtmlEscape(&y));
        let middle = (LEFT + RIGHT) / 2.0;
        push(
            svg,
            format_args!(r#"<text x="{middle}" y="{}" text-anchor="middle">{x}</text>"#, BOTTOM + 36.0),
        );
        push(svg, format_args!(r#"<text x="2" y="14">{y}</text>"#));
    }

    /// Draws the points of `mark` in the form `shape` with class `form`; nothing when none of them can be drawn.
    fn draw(&self, svg: &mut String, shape: Shape, form: &str, mark: &Mark) {
        let mut path = String::new();
        let mut joined = false;
        for &point in &mark.points {
            let Some([x, y]) = self.place(point) else {
                joined = false;
                continue;
            };
            match shape {
                // A stroke of no length with round caps is a dot.
                Shape::Dots => push(&mut path, format_args!("M{x:.1} {y:.1}h0")),
                Shape::Triangles => push(&mut path, format_args!("M{x:.1} {:.1}l3.2 5.6h-6.4z", y - 3.6)),
                Shape::Line => {
                    push(&mut path, format_args!("{}{x:.1} {y:.1}", if joined { 'L' } else { 'M' }));
                    joined = true;
                }
            }
        }
        if !path.is_empty() {
            push(svg, format_args!(r#"<path class="{form} {}" d="{path}"/>"#, mark.class));
        }
    }

    fn place(&self, [x, y]: [f64; 2]) -> Option<[f64; 2]> {
        let inside = drawable(x) && drawable(y);
        inside.then(|| Some([across(self.x.place(x)?), down(self.y.place(y)?)]))?
    }
}

fn across(share: f64) -> f64 {
    LEFT + share * (RIGHT - LEFT)
}

fn down(share: f64) -> f64 {
    BOTTOM - share * (BOTTOM - TOP)
}

fn shortened(label: &str) -> String {
    match label.char_indices().nth(LONGEST_LABEL) {
        Some((end, _)) => format!("{}…", &label[..end]),
        None => label.to_owned(),
    }
}

fn shape_class(shape: Shape) -> &'static str {
    match shape {
        Shape::Line => "line",
        Shape::Dots => "dots",
        Shape::Triangles => "triangles",
    }
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_panel(shape: Shape, points: Vec<[f64; 2]>) -> String {
        let unit = || Axis::fixed("<unit>", 0.0, 1.0);
        let marks = vec![Mark::new("clean", shape, points)];
        Panel { description: "\"quoted\"".to_owned(), x: unit(), y: unit(), marks }.svg()
    }

    #[test]
    fn the_corners_of_the_ranges_are_the_corners_of_the_frame() {
        let svg = unit_panel(Shape::Dots, vec![[0.0, 0.0], [1.0, 1.0]]);
        assert!(svg.contains(r#"<path class="dots clean" d="M68.0 222.0h0M388.0 30.0h0"/>"#), "{svg}");
    }

    #[test]
    fn a_line_is_broken_where_a_value_is_missing() {
        let svg = unit_panel(Shape::Line, vec![[0.0, 0.0], [0.5, f64::NAN], [1.0, 0.0]]);
        assert!(svg.contains("M68.0 222.0M388.0 222.0") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_mark_without_drawable_points_is_left_out() {
        assert!(!unit_panel(Shape::Triangles, vec![[2.0, 0.5], [f64::NAN, 0.5]]).contains("triangles"));
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(45)), format!("{}…", "é".repeat(44)));
        assert_eq!(shortened("short"), "short");
    }

    #[test]
    fn labels_are_escaped() {
        let svg = unit_panel(Shape::Dots, Vec::new());
        assert!(svg.contains("&lt;unit&gt;") && svg.contains("&quot;quoted&quot;"), "{svg}");
    }
}
