//! How a number is set on the page.
//!
//! Thousands are grouped with commas, a percent sign follows a narrow no-break space, a minus is a minus sign, and
//! what is missing or not finite is an en dash. A share that is not quite all or nothing never rounds to it.

use minijinja::value::{Value, ViaDeserialize};
use minijinja::{Environment, HtmlEscape};

use crate::evaluate::results::Rate;

/// Stands for every number that was not measured or is not finite.
pub(super) const NONE: &str = "–";

/// Narrow no-break space, between a number and its unit.
const THIN: char = '\u{202f}';

/// Registers the filters that `page.html` uses.
pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("count", |n: Option<u64>| n.map_or(NONE.to_owned(), count));
    environment.add_filter("number", |x: Option<f64>| x.map_or(NONE.to_owned(), number));
    environment
        .add_filter("fixed", |x: Option<f64>, digits: usize| x.map_or(NONE.to_owned(), |x| fixed(x, digits)));
    environment.add_filter("percent", |x: Option<f64>| x.map_or(NONE.to_owned(), percent));
    environment.add_filter("share", |rate: ViaDeserialize<Option<Rate>>| rate.map_or(NONE.to_owned(), share));
    environment
        .add_filter("interval", |rate: ViaDeserialize<Option<Rate>>| rate.map_or(NONE.to_owned(), interval));
    environment.add_filter("tally", |rate: ViaDeserialize<Option<Rate>>| rate.map_or(NONE.to_owned(), tally));
    environment.add_filter("plural", |n: u64, one: String, many: String| {
        format!("{} {}", count(n), if n == 1 { one } else { many })
    });
    environment.add_filter("breakable", |text: String| Value::from_safe_string(breakable(&text)));
    environment.add_filter("data_uri", |png: String| {
        Value::from_safe_string(format!("data:image/png;base64,{png}"))
    });
}

/// `34799` as `34,799`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits: `0.00819`, `1.25`, `20`, `8.2 × 10⁻⁵`.
pub(super) fn number(x: f64) -> String {
    if !x.is_finite() {
        return NONE.to_owned();
    }
    // The exponent after rounding to three digits, so that 9.999 counts as 10.0.
    let scientific = format!("{x:.2e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if x != 0.0 && !(-4..6).contains(&exponent) {
        return with_minus(&format!("{}{THIN}×{THIN}10{}", without_zeros(mantissa), superscript(exponent)));
    }
    let decimals = usize::try_from(2 - exponent).unwrap_or(0);
    with_minus(without_zeros(&format!("{x:.decimals$}")))
}

/// `digits` decimals, as in `0.950`.
pub(super) fn fixed(x: f64, digits: usize) -> String {
    if x.is_finite() { with_minus(&format!("{x:.digits$}")) } else { NONE.to_owned() }
}

/// A share of `[0, 1]` as percent with one decimal.
pub(super) fn percent(x: f64) -> String {
    let rounded = format!("{:.1}", 100.0 * x);
    match rounded.as_str() {
        _ if !x.is_finite() => NONE.to_owned(),
        "0.0" if x > 0.0 => format!("<0.1{THIN}%"),
        "100.0" if x < 1.0 => format!(">99.9{THIN}%"),
        "0.0" | "-0.0" => format!("0{THIN}%"),
        "100.0" => format!("100{THIN}%"),
        _ => format!("{}{THIN}%", with_minus(&rounded)),
    }
}

/// The share of successes in percent.
pub(super) fn share(rate: Rate) -> String {
    rate.share().map_or(NONE.to_owned(), percent)
}

/// Wilson's 95 % interval in percent, as in `86.9–89.2`.
pub(super) fn interval(rate: Rate) -> String {
    let possible = rate.successes <= rate.trials;
    possible
        .then(|| rate.wilson())
        .flatten()
        .map_or(NONE.to_owned(), |[low, high]| format!("{:.1}–{:.1}", 100.0 * low, 100.0 * high))
}

/// `57 of 171`.
pub(super) fn tally(rate: Rate) -> String {
    format!("{} of {}", count(rate.successes), count(rate.trials))
}

/// `text` escaped, with break opportunities after the separators of paths and names.
fn breakable(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for piece in text.split_inclusive(['/', '\\', '_', '-', '.']) {
        html.push_str(&HtmlEscape(piece).to_string());
        html.push_str("<wbr/>");
    }
    html
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

fn with_minus(digits: &str) -> String {
    digits.replacen('-', "−", 1)
}

fn superscript(exponent: i32) -> String {
    let raise = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        _ => c.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(c),
    };
    exponent.to_string().chars().map(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let expected =
            [(0, "0"), (999, "999"), (1_000, "1,000"), (34_799, "34,799"), (1_234_567, "1,234,567")];
        for (n, text) in expected {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let expected = [
            (0.0, "0"),
            (0.00819, "0.00819"),
            (0.95, "0.95"),
            (9.999, "10"),
            (1234.0, "1234"),
            (-1.5, "−1.5"),
            (8.2e-5, "8.2\u{202f}×\u{202f}10⁻⁵"),
            (-3.0e12, "−3\u{202f}×\u{202f}10¹²"),
            (f64::NAN, "–"),
            (f64::NEG_INFINITY, "–"),
        ];
        for (x, text) in expected {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn a_share_short_of_all_or_nothing_never_rounds_to_it() {
        let of = |successes, trials| share(Rate { successes, trials });
        assert_eq!(of(0, 9_999), "0\u{202f}%");
        assert_eq!(of(1, 9_999), "<0.1\u{202f}%");
        assert_eq!(of(9_998, 9_999), ">99.9\u{202f}%");
        assert_eq!(of(9_999, 9_999), "100\u{202f}%");
        assert_eq!(of(0, 0), "–");
    }

    #[test]
    fn the_interval_is_wilsons() {
        // R 4.3: prop.test(8, 10, correct = FALSE)$conf.int gives 0.4901625 0.9433178.
        assert_eq!(interval(Rate { successes: 8, trials: 10 }), "49.0–94.3");
        assert_eq!(interval(Rate::default()), "–");
        let impossible = Rate { successes: 100, trials: 10 };
        assert_eq!(interval(impossible), "–", "more successes than trials have no interval");
    }

    #[test]
    fn a_path_breaks_at_its_separators_and_is_escaped() {
        assert_eq!(breakable("a/<b>"), "a&#x2f;<wbr/>&lt;b&gt;<wbr/>");
    }
}
