//! What is searched: config keys and the values that each may take.
//!
//! A distribution has the meaning and the JSON form of Optuna's distribution of that name, and a value is written as its internal
//! representation there: the number itself, or the position of a choice.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pipeline::{RunConfig, parse_value};

/// How a distribution is written.
const SYNTAX: &str = "`log:LOW..HIGH`, `float:LOW..HIGH`, `int:LOW..HIGH`, `int:LOW..HIGH/STEP`, `log-int:LOW..HIGH` or `choice:A,B`";

/// The default space: what the autoencoder's training depends on most, around the values of the presets.
const DEFAULT: [&str; 4] = [
    "dae.train.learning_rate=log:5e-4..1e-2",
    "dae.head_weight=log:0.3..30",
    "dae.width=int:4..16/4",
    "dae.train.batch=choice:16,32,64",
];

/// The values that a key may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "attributes")]
pub enum Distribution {
    /// Numbers from `low` to `high`.
    #[serde(rename = "FloatDistribution")]
    Float {
        /// Distance of neighbouring values; `None` = any number.
        step: Option<f64>,
        /// Least value.
        low: f64,
        /// Largest value.
        high: f64,
        /// Whether equal ratios are equally likely, instead of equal distances.
        log: bool,
    },
    /// Whole numbers from `low` to `high`.
    #[serde(rename = "IntDistribution")]
    Int {
        /// As for numbers.
        log: bool,
        /// Distance of neighbouring values.
        step: i64,
        /// Least value.
        low: i64,
        /// Largest value.
        high: i64,
    },
    /// One of these.
    #[serde(rename = "CategoricalDistribution")]
    Choice {
        /// In the order of their positions.
        choices: Vec<Scalar>,
    },
}

/// A value of a choice, or of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A word.
    Text(String),
}

impl Scalar {
    fn of(value: toml::Value) -> Option<Self> {
        match value {
            toml::Value::Boolean(value) => Some(Self::Bool(value)),
            toml::Value::Integer(value) => Some(Self::Int(value)),
            toml::Value::Float(value) => Some(Self::Float(value)),
            toml::Value::String(value) => Some(Self::Text(value)),
            _ => None,
        }
    }

    /// As a config file has it.
    pub(super) fn toml(self) -> toml::Value {
        match self {
            Self::Bool(value) => value.into(),
            Self::Int(value) => value.into(),
            Self::Float(value) => value.into(),
            Self::Text(value) => value.into(),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            // The shortest text that reads back as the same number, with an exponent where that is shorter.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

impl Distribution {
    /// Reads a distribution of `key`: `log:0.3..30`, `float:0..1`, `int:8..24/4`, `log-int:8..64`, `choice:unet,bottleneck`.
    ///
    /// # Errors
    /// [`Error::Config`] names the key and what is wrong with its range.
    pub fn parse(key: &str, text: &str) -> Result<Self> {
        let refused = |expected: &str| Error::config(key, text, expected);
        let (kind, rest) = text.split_once(':').ok_or_else(|| refused(SYNTAX))?;
        match kind.trim() {
            "choice" => Self::choice(key, rest.split(',').map(|choice| parse_value(choice.trim())).collect()),
            "log" | "float" => {
                let log = kind.trim() == "log";
                let [low, high] = ends(rest).ok_or_else(|| refused("two numbers, LOW..HIGH"))?;
                match low < high && (!log || low > 0.0) {
                    true => Ok(Self::Float { step: None, low, high, log }),
                    false if low < high => Err(refused("LOW above 0 on a logarithmic scale")),
                    false => Err(refused("LOW below HIGH")),
                }
            }
            "int" | "log-int" => {
                let log = kind.trim() == "log-int";
                let (range, step) = match rest.split_once('/') {
                    Some((range, step)) if !log => {
                        (range, step.trim().parse().map_err(|_| refused("a whole number as STEP"))?)
                    }
                    Some(_) => return Err(refused("no STEP on a logarithmic scale")),
                    None => (rest, 1_i64),
                };
                let [low, high]: [i64; 2] =
                    ends(range).ok_or_else(|| refused("two whole numbers, LOW..HIGH"))?;
                if low >= high {
                    return Err(refused("LOW below HIGH"));
                }
                if log && low < 1 {
                    return Err(refused("LOW above 0 on a logarithmic scale"));
                }
                match high.checked_sub(low) {
                    Some(span) if step > 0 && span % step == 0 => Ok(Self::Int { log, step, low, high }),
                    Some(_) => Err(refused("a STEP above 0 that divides HIGH - LOW")),
                    None => Err(refused("a range that fits into 64 bits")),
                }
            }
            _ => Err(refused(SYNTAX)),
        }
    }

    fn choice(key: &str, values: Vec<toml::Value>) -> Result<Self> {
        let shown = toml::Value::Array(values.clone()).to_string();
        let choices: Option<Vec<Scalar>> = values.into_iter().map(Scalar::of).collect();
        let choices = choices.ok_or_else(|| Error::config(key, &shown, "words, numbers, true or false"))?;
        let twice = choices.iter().enumerate().any(|(index, choice)| choices[..index].contains(choice));
        match choices.len() {
            0 | 1 => Err(Error::config(key, shown, "two choices or more")),
            _ if twice => Err(Error::config(key, shown, "each choice once")),
            _ => Ok(Self::Choice { choices }),
        }
    }

    /// The value whose internal representation this is; `None` outside of the distribution.
    pub fn value(&self, internal: f64) -> Option<Scalar> {
        match self {
            Self::Float { low, high, .. } => {
                (*low..=*high).contains(&internal).then_some(Scalar::Float(internal))
            }
            Self::Int { low, high, .. } => {
                let inside = internal.fract() == 0.0 && (*low as f64..=*high as f64).contains(&internal);
                inside.then_some(Scalar::Int(internal as i64))
            }
            Self::Choice { choices } => {
                let whole = internal.fract() == 0.0 && internal >= 0.0;
                whole.then(|| choices.get(internal as usize).cloned())?
            }
        }
    }

    /// Internal representations of the values that a config must take for it to take all: both ends, or each choice.
    fn extremes(&self) -> Vec<f64> {
        match self {
            Self::Float { low, high, .. } => vec![*low, *high],
            Self::Int { low, high, .. } => vec![*low as f64, *high as f64],
            Self::Choice { choices } => (0..choices.len()).map(|index| index as f64).collect(),
        }
    }
}

/// As [`Distribution::parse`] reads it.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float { low, high, log, .. } => {
                write!(f, "{}:{low:?}..{high:?}", if *log { "log" } else { "float" })
            }
            Self::Int { low, high, log: true, .. } => write!(f, "log-int:{low}..{high}"),
            Self::Int { low, high, step: 1, .. } => write!(f, "int:{low}..{high}"),
            Self::Int { low, high, step, .. } => write!(f, "int:{low}..{high}/{step}"),
            Self::Choice { choices } => {
                let choices: Vec<String> = choices.iter().map(Scalar::to_string).collect();
                write!(f, "choice:{}", choices.join(","))
            }
        }
    }
}

fn ends<T: std::str::FromStr>(text: &str) -> Option<[T; 2]> {
    let (low, high) = text.split_once("..")?;
    Some([low.trim().parse().ok()?, high.trim().parse().ok()?])
}

/// Keys of a [`RunConfig`], each with a distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Space(BTreeMap<String, Distribution>);

impl Default for Space {
    /// Learning rate, weight of the detection head, width and batch of the autoencoder.
    fn default() -> Self {
        Self::parse(&DEFAULT.map(str::to_owned)).expect("the default space is well formed")
    }
}

impl Space {
    /// Reads `key=distribution` texts and TOML files (`*.toml`), in which a string is a distribution, an array a choice, and a table a part of a key.
    ///
    /// # Errors
    /// [`Error::Config`] names a key that is malformed or given twice; [`Error::Io`] and [`Error::Artefact`] name the file.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut space = Self(BTreeMap::new());
        for text in texts {
            match text.split_once('=') {
                Some((key, distribution)) => {
                    let key = key.trim();
                    space.add(key.to_owned(), Distribution::parse(key, distribution.trim())?)?;
                }
                None if text.ends_with(".toml") => space.add_file(Path::new(text))?,
                None => {
                    let expected = format!("KEY=DISTRIBUTION or a .toml file; a distribution is {SYNTAX}");
                    return Err(Error::config(text.as_str(), "no `=`", expected));
                }
            }
        }
        Ok(space)
    }

    fn add(&mut self, key: String, distribution: Distribution) -> Result<()> {
        if let Some(first) = self.0.get(&key) {
            return Err(Error::config(key, format!("{first} and {distribution}"), "one distribution"));
        }
        self.0.insert(key, distribution);
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let table: toml::Table = toml::from_str(&text).map_err(|error| {
            Error::artefact(path, error.to_string().trim().replace('\n', " "), "a TOML table of keys")
        })?;
        self.add_table(table, "")
    }

    fn add_table(&mut self, table: toml::Table, above: &str) -> Result<()> {
        for (key, value) in table {
            let key = format!("{above}{key}");
            match value {
                toml::Value::Table(below) => self.add_table(below, &format!("{key}."))?,
                toml::Value::String(text) => {
                    let distribution = Distribution::parse(&key, &text)?;
                    self.add(key, distribution)?;
                }
                toml::Value::Array(choices) => {
                    let distribution = Distribution::choice(&key, choices)?;
                    self.add(key, distribution)?;
                }
                other => return Err(Error::config(key, other, format!("a string: {SYNTAX}"))),
            }
        }
        Ok(())
    }

    /// Keys and distributions, by key.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Distribution)> {
        self.0.iter().map(|(key, distribution)| (key.as_str(), distribution))
    }

    /// Refuses an empty space, a key that `base` does not know, and one whose ends it, or `also`, does not take.
    ///
    /// Ends are tried one key at a time. Values that are refused only together make a trial fail.
    pub(super) fn check(&self, base: &RunConfig, also: impl Fn(&RunConfig) -> Result<()>) -> Result<()> {
        if self.0.is_empty() {
            return Err(Error::config("space", "no key", "at least one"));
        }
        for (key, distribution) in self.parameters() {
            for internal in distribution.extremes() {
                also(&apply_one(base, key, distribution, internal)?)?;
            }
        }
        Ok(())
    }

    /// `base` with these values, by key, in their internal representation.
    ///
    /// # Errors
    /// [`Error::Config`] for values that the config does not take together.
    pub(super) fn apply(&self, base: &RunConfig, values: &BTreeMap<String, f64>) -> Result<RunConfig> {
        let mut config = base.clone();
        for (key, distribution) in self.parameters() {
            let internal = values.get(key).copied().unwrap_or(f64::NAN);
            config = apply_one(&config, key, distribution, internal)?;
        }
        Ok(config)
    }
}

fn apply_one(config: &RunConfig, key: &str, distribution: &Distribution, internal: f64) -> Result<RunConfig> {
    let value = distribution
        .value(internal)
        .ok_or_else(|| Error::config(key, internal, format!("a value of {distribution}")))?;
    config.with(key, value.toml())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::AutoencoderKind;
    use crate::pipeline::Preset;

    fn space(texts: &[&str]) -> Result<Space> {
        Space::parse(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    }

    fn refusal(text: &str) -> String {
        let base = RunConfig::preset(Preset::Sample);
        space(&[text]).and_then(|space| space.check(&base, |_| Ok(()))).expect_err(text).to_string()
    }

    #[test]
    fn a_distribution_reads_back_what_it_is_shown_as() {
        for text in [
            "log:0.0001..0.01",
            "float:-1.0..1.5",
            "int:8..24",
            "int:8..24/4",
            "log-int:1..64",
            "choice:unet,bottleneck",
            "choice:16,true,0.5",
        ] {
            assert_eq!(Distribution::parse("key", text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn the_json_of_a_distribution_is_optunas() {
        // What optuna.distributions.distribution_to_json of Optuna 5.0 makes of these, but for the blanks.
        for (text, json) in [
            (
                "log:1e-4..1e-2",
                r#"{"name":"FloatDistribution","attributes":{"step":null,"low":0.0001,"high":0.01,"log":true}}"#,
            ),
            (
                "int:8..24/4",
                r#"{"name":"IntDistribution","attributes":{"log":false,"step":4,"low":8,"high":24}}"#,
            ),
            (
                "choice:unet,bottleneck",
                r#"{"name":"CategoricalDistribution","attributes":{"choices":["unet","bottleneck"]}}"#,
            ),
            (
                "choice:true,false",
                r#"{"name":"CategoricalDistribution","attributes":{"choices":[true,false]}}"#,
            ),
        ] {
            let distribution = Distribution::parse("key", text).expect(text);
            assert_eq!(serde_json::to_string(&distribution).expect("plain data"), json);
            assert_eq!(serde_json::from_str::<Distribution>(json).expect("its own JSON"), distribution);
        }
    }

    #[test]
    fn what_makes_no_range_is_refused_by_its_key() {
        for (text, words) in [
            ("dae.width=int:24..8", "expected LOW below HIGH"),
            ("dae.width=int:8..24/5", "expected a STEP above 0 that divides"),
            ("dae.width=int:8..24/0", "expected a STEP above 0"),
            ("dae.width=int:-9223372036854775808..9223372036854775807", "fits into 64 bits"),
            ("dae.width=int:8", "expected two whole numbers"),
            ("dae.head_weight=log:0..1", "above 0 on a logarithmic scale"),
            ("dae.head_weight=log:nan..1", "LOW below HIGH"),
            ("dae.head_weight=0.1", "expected `log:LOW..HIGH`"),
            ("dae.head_weight=normal:0..1", "expected `log:LOW..HIGH`"),
            ("dae.kind=choice:unet", "expected two choices or more"),
            ("dae.kind=choice:unet,unet", "expected each choice once"),
        ] {
            let (key, found) = text.split_once('=').expect("a key");
            let refused = refusal(text);
            assert!(refused.contains(&format!("`{key}`")) && refused.contains(words), "{refused}");
            assert!(
                refused.contains(
                    found.split_once(':').map_or(found, |(_, range)| range).split(',').next().expect("one")
                ),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_the_config_does_not_take_is_refused_by_its_key() {
        for (text, words) in [
            ("dae.lerning_rate=log:0.3..30", "unknown key"),
            ("dae.kind=choice:unet,vae", "vae"),
            ("dae.width=log:8..24", "8.0"),
            ("dae.width=int:0..8", "found 0, expected 1 or more"),
            ("dae.train.label_smoothing=float:0..1", "found 1, expected a share in [0, 1)"),
        ] {
            let refused = refusal(text);
            assert!(
                refused.contains(text.split('=').next().expect("a key")) && refused.contains(words),
                "{refused}"
            );
        }
        assert!(space(&["dae.width"]).expect_err("no `=`").to_string().contains("`dae.width`"));
        assert!(
            space(&["a=int:1..2", "a=int:1..3"]).expect_err("twice").to_string().contains("one distribution")
        );
        assert!(space(&[]).expect("empty").check(&RunConfig::preset(Preset::Sample), |_| Ok(())).is_err());
    }

    #[test]
    fn the_default_space_fits_every_preset() {
        for preset in Preset::ALL {
            let checked = Space::default().check(&RunConfig::preset(preset), |_| Ok(()));
            assert!(checked.is_ok(), "{}: {checked:?}", preset.name());
        }
    }

    #[test]
    fn a_file_has_nested_keys_and_arrays_as_choices() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("space.toml");
        let text = "\"dae.head_weight\" = \"log:0.3..30\"\n[dae]\nkind = [\"unet\", \"bottleneck\"]\ntrain.batch = \"log-int:8..64\"\n";
        std::fs::write(&file, text).expect("writable");
        let from_file = Space::parse(&[file.display().to_string()]).expect("a space");
        let words = space(&[
            "dae.kind=choice:unet,bottleneck",
            "dae.head_weight=log:0.3..30",
            "dae.train.batch=log-int:8..64",
        ]);
        assert_eq!(from_file, words.expect("the same space"));
    }

    #[test]
    fn values_reach_their_keys() {
        let base = RunConfig::preset(Preset::Sample);
        let space = space(&["dae.kind=choice:unet,bottleneck", "dae.width=int:4..16/4"]).expect("a space");
        let values = BTreeMap::from([("dae.kind".to_owned(), 1.0), ("dae.width".to_owned(), 12.0)]);
        let config = space.apply(&base, &values).expect("it fits");
        assert_eq!((config.dae.kind, config.dae.width), (AutoencoderKind::Bottleneck, 12));
        let outside = BTreeMap::from([("dae.kind".to_owned(), 2.0), ("dae.width".to_owned(), 12.0)]);
        assert!(space.apply(&base, &outside).expect_err("two choices").to_string().contains("dae.kind"));
    }
}
