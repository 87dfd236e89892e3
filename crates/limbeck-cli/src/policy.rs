//! How many flagged images a caller puts up with: `--fail-on 5`, `--fail-on 2%`.

use std::str::FromStr;

/// The most images that may be flagged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FailOn {
    /// So many images.
    Count(u64),
    /// This share of all images, in percent.
    Percent(f64),
}

impl FailOn {
    /// Whether `flagged` of `images` is more than is allowed.
    pub(crate) fn is_exceeded(self, flagged: u64, images: u64) -> bool {
        match self {
            Self::Count(most) => flagged > most,
            Self::Percent(most) => 100.0 * flagged as f64 > most * images as f64,
        }
    }
}

impl FromStr for FailOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused =
            || format!("found `{text}`, expected a number of images like 5, or a share from 0% to 100%");
        match text.strip_suffix('%') {
            Some(number) => match number.trim_end().parse() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
                _ => Err(refused()),
            },
            None => text.parse().map(Self::Count).map_err(|_| refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_shares_are_read() {
        assert_eq!("0".parse(), Ok(FailOn::Count(0)));
        assert_eq!("12".parse(), Ok(FailOn::Count(12)));
        assert_eq!("2%".parse(), Ok(FailOn::Percent(2.0)));
        assert_eq!("0.5 %".parse(), Ok(FailOn::Percent(0.5)));
    }

    #[test]
    fn everything_else_is_refused_with_what_was_found() {
        for text in ["", "%", "-1", "1.5", "101%", "-1%", "nan%", "inf%", "2 images"] {
            let error = text.parse::<FailOn>().expect_err(text);
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        assert!(!FailOn::Count(5).is_exceeded(5, 10));
        assert!(FailOn::Count(5).is_exceeded(6, 10));
        assert!(!FailOn::Percent(2.0).is_exceeded(2, 100));
        assert!(FailOn::Percent(2.0).is_exceeded(3, 100));
        assert!(!FailOn::Percent(0.0).is_exceeded(0, 0));
    }
}
