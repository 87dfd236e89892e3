//! A config file with every key explained: the TOML of a config, and above each key what the schema says of it.
//!
//! The words are the library's own documentation of its settings, so they cannot drift from it.

use std::collections::{HashMap, HashSet};

use limbeck::pipeline::RunConfig;
use serde_json::Value;

/// Longest comment line, in characters.
const WIDTH: usize = 100;

/// The config as TOML in which each key carries its explanation where it first appears.
pub(crate) fn commented_toml(config: &RunConfig) -> anyhow::Result<String> {
    let (schema, settings) = (RunConfig::schema(), serde_json::to_value(config)?);
    let (mut table, mut explained) = (Vec::new(), HashSet::new());
    // Which item of an array of tables the lines belong to: each may be another variant.
    let (mut items, mut item) = (HashMap::<&str, usize>::new(), 0);
    let config_text = config.to_toml();
    let mut text = String::new();
    for line in config_text.lines() {
        let header = line.trim_matches(['[', ']']);
        let path: Vec<&str> = if header.len() < line.len() && line.starts_with('[') {
            let seen = items.entry(header).or_default();
            (item, *seen) = (*seen, *seen + 1);
            table = header.split('.').collect();
            table.clone()
        } else {
            let key = line.split_once(" = ").map(|(key, _)| key);
            table.iter().copied().chain(key).collect()
        };
        if !line.is_empty() && explained.insert(path.join(".")) {
            for comment in
                explanation(&schema, &settings, &path, item).iter().flat_map(|words| wrapped(words))
            {
                text += &format!("# {comment}\n");
            }
        }
        text += line;
        text.push('\n');
    }
    Ok(text)
}

/// What the schema says of the key at this path, and which words it takes.
fn explanation<'a>(schema: &'a Value, settings: &Value, path: &[&str], item: usize) -> Option<String> {
    let (mut node, mut value, mut tags) = (schema, settings, Vec::new());
    for key in path {
        let variants = variants(schema, node);
        let in_use = variants.iter().find(|variant| is_shape_of(variant, value))?;
        tags = variants.iter().filter_map(|variant| variant["properties"][*key]["const"].as_str()).collect();
        (node, value) = (&in_use["properties"][*key], item_of(&value[*key], item));
    }
    // A tag names the variants of its table; any other key may list the words that it takes itself.
    let listed =
        |variant: &&'a Value| words(&variant["enum"]).chain(variant["const"].as_str()).collect::<Vec<_>>();
    let choices =
        if tags.is_empty() { variants(schema, node).iter().flat_map(listed).collect() } else { tags };
    let one_of = (choices.len() > 1).then(|| format!("One of: {}.", choices.join(", ")));
    let description = [node, resolved(schema, node)].iter().find_map(|node| node["description"].as_str());
    let sentences: Vec<String> = description.map(str::to_owned).into_iter().chain(one_of).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// A node behind its reference; of an array, its items.
fn resolved<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(reference) = node["$ref"].as_str() {
        return schema
            .pointer(reference.trim_start_matches('#'))
            .map_or(node, |target| resolved(schema, target));
    }
    if node["items"].is_object() { resolved(schema, &node["items"]) } else { node }
}

/// The shapes that a node may take: itself, or what it lists.
fn variants<'a>(schema: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    let node = resolved(schema, node);
    match node["oneOf"].as_array().or(node["anyOf"].as_array()) {
        Some(variants) => variants.iter().map(|variant| resolved(schema, variant)).collect(),
        None => vec![node],
    }
}

/// Whether the words that a variant fixes are those of the value.
fn is_shape_of(variant: &Value, value: &Value) -> bool {
    let mut properties = variant["properties"].as_object().into_iter().flatten();
    properties.all(|(key, property)| property["const"].is_null() || property["const"] == value[key])
}

/// The item of an array that a line belongs to, its first where the array is another one.
fn item_of(value: &Value, item: usize) -> &Value {
    value.as_array().and_then(|items| items.get(item).or(items.first())).unwrap_or(value)
}

fn words(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The text in lines of at most [`WIDTH`] characters, broken between words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use limbeck::pipeline::Preset;

    use super::*;

    fn commented(preset: Preset) -> String {
        commented_toml(&RunConfig::preset(preset)).expect("a preset is plain data")
    }

    #[test]
    fn without_its_comments_it_is_the_config() {
        for preset in Preset::ALL {
            let bare: Vec<String> =
                commented(preset).lines().filter(|line| !line.starts_with("# ")).map(str::to_owned).collect();
            assert_eq!(bare.join("\n") + "\n", RunConfig::preset(preset).to_toml(), "{}", preset.name());
        }
    }

    #[test]
    fn every_key_is_explained_once() {
        for preset in Preset::ALL {
            let text = commented(preset);
            let (mut before, mut table, mut seen) = ("", "", HashSet::new());
            for line in text.lines() {
                table = if line.starts_with('[') { line } else { table };
                let key = line.split(" = ").next().unwrap_or(line);
                // A list goes on over several lines.
                let continues = line.starts_with([' ', ']']);
                if !line.is_empty() && !continues && !line.starts_with("# ") && seen.insert((table, key)) {
                    assert!(before.starts_with("# "), "{}: {table} {line}", preset.name());
                }
                before = line;
            }
        }
    }

    #[test]
    fn an_explanation_is_that_of_the_variant_in_use() {
        let text = commented(Preset::Sample);
        assert!(text.contains("# One of: sgd, adam, adamw.\nkind = \"adam\""), "{text}");
        assert!(text.contains("# One of: percentile, fpr.\nrule = \"percentile\""), "{text}");
        assert!(text.contains("# Root of every random draw.\nseed = 1"), "{text}");
    }

    #[test]
    fn lines_break_between_words_within_the_width() {
        let lines = wrapped(&"word ".repeat(50));
        assert!(lines.len() == 3 && lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" "), "word ".repeat(50).trim_end());
    }
}
