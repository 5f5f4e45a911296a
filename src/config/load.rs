//! From TOML text and environment variables to a typed value, or to every problem with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// Variables that start so are settings: `SHOPFLOOR_MQTT__LISTEN` is `mqtt.listen`.
pub const ENV_PREFIX: &str = "SHOPFLOOR_";

/// A file can hold more mistakes than anyone reads at once.
const MAX_PROBLEMS: usize = 50;

/// Settings whose paths hold one of these words are not shown in messages.
const SECRETS: [&str; 6] = ["password", "token", "secret", "url", "auth.users", "properties"];

/// One problem, where it stands and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// `shopfloor.toml:12:3`, the variable's name, or the setting's path where it is written nowhere.
    pub place: String,
    pub text: String,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// The settings as written, before they are typed.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    table: toml::Table,
    /// Path of every setting that a variable gives, with the variable's name and text.
    from_env: BTreeMap<String, (String, String)>,
}

impl Source {
    /// Reads `file` (none: all defaults) and lays `environment` over it.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or a variable has no valid name.
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Located>> {
        let (name, text) = match file {
            None => ("(defaults)".to_owned(), String::new()),
            Some(path) => {
                let name = path.display().to_string();
                match std::fs::read_to_string(path) {
                    Ok(text) => (name, text),
                    Err(error) => {
                        let text = format!("cannot be read: {error}; name an existing file with --config");
                        return Err(vec![Located { place: name, text }]);
                    }
                }
            }
        };
        Self::parse(name, text, environment)
    }

    fn parse(
        name: String,
        text: String,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Located>> {
        let table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let place = position(&name, &text, at);
                return Err(vec![Located {
                    place,
                    text: format!("no valid TOML: {}", error.message()),
                }]);
            }
        };
        let mut source = Self {
            name,
            text,
            table,
            from_env: BTreeMap::new(),
        };
        let mut problems = Vec::new();
        for (variable, value) in environment.filter(|(name, _)| name.starts_with(ENV_PREFIX)) {
            if let Err(problem) = source.overlay(&variable, value) {
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            Ok(source)
        } else {
            Err(problems)
        }
    }

    fn overlay(&mut self, variable: &str, text: String) -> Result<(), Located> {
        let suffix = variable
            .strip_prefix(ENV_PREFIX)
            .unwrap_or(variable)
            .to_lowercase();
        let keys: Vec<&str> = suffix.split("__").collect();
        let wrong = |text: &str| Located {
            place: variable.to_owned(),
            text: text.to_owned(),
        };
        let (Some((last, parents)), true) = (keys.split_last(), keys.iter().all(|key| !key.is_empty()))
        else {
            return Err(wrong("names no setting; join the keys with two underscores"));
        };
        if keys.iter().any(|key| key.parse::<usize>().is_ok()) {
            return Err(wrong(
                "counts into a list; write the list whole, for example '[{ listen = \"127.0.0.1:1883\" }]'",
            ));
        }
        let mut table = &mut self.table;
        for key in parents {
            let inner = table
                .entry(*key)
                .or_insert_with(|| Value::Table(toml::Table::new()));
            let Value::Table(inner) = inner else {
                return Err(wrong("goes through a setting that is no table"));
            };
            table = inner;
        }
        table.insert((*last).to_owned(), env_value(&text));
        self.from_env.insert(keys.join("."), (variable.to_owned(), text));
        Ok(())
    }

    /// Types the settings. On a value that does not fit, notes the problem, leaves the value out and goes on, so
    /// that one run shows every problem.
    ///
    /// # Errors
    /// Every unknown key and every value of the wrong type, in the order in which they are met.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, Vec<Located>> {
        let mut table = Value::Table(self.table.clone());
        let mut problems: Vec<Located> = Vec::new();
        let mut left_out: Vec<String> = Vec::new();
        let mut as_text = Vec::new();
        loop {
            let error = match serde_path_to_error::deserialize::<_, T>(table.clone()) {
                Ok(value) if problems.is_empty() => return Ok(value),
                Ok(_) => return Err(problems),
                Err(error) => error,
            };
            let path = error.path().to_string();
            // A variable's `42` may stand for a number or for a name: the type decides.
            if let Some((_, text)) = self.from_env.get(&path)
                && !as_text.contains(&path)
            {
                set(&mut table, &path, Some(Value::String(text.clone())));
                as_text.push(path);
                continue;
            }
            let text = error
                .inner()
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            // Where the value was left out a moment ago, the next complaint is that it is missing.
            let follows = text.starts_with("missing field")
                && left_out
                    .iter()
                    .any(|out| below(&path, out).is_some_and(|rest| text.contains(rest)));
            if !follows {
                problems.push(Located {
                    place: self.place(&path),
                    text: format!("{path}: {}", without_secret(&path, &text)),
                });
            }
            left_out.push(path.clone());
            if problems.len() == MAX_PROBLEMS || !set(&mut table, &path, None) {
                return Err(problems);
            }
        }
    }

    /// Whether a section or setting of the top level is written, in the file or by a variable.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a setting is written: the variable, the line and column, or its path alone.
    pub fn place(&self, path: &str) -> String {
        let given = self
            .from_env
            .iter()
            .find(|(given, _)| below(given, path).is_some());
        if let Some((_, (variable, _))) = given {
            return variable.clone();
        }
        let start = DeTable::parse(&self.text)
            .ok()
            .and_then(|table| offset(table.get_ref(), path));
        match start {
            Some(start) => position(&self.name, &self.text, start),
            None => self.name.clone(),
        }
    }
}

fn env_value(text: &str) -> Value {
    let parsed: Result<toml::Table, _> = toml::from_str(&format!("value = {text}"));
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The key of a table with which `path` goes on, and the rest. Keys may hold dots themselves, as librdkafka's do.
fn next_key<'k, 'p>(keys: impl Iterator<Item = &'k str>, path: &'p str) -> Option<(&'k str, &'p str)> {
    keys.filter_map(|key| Some((key, below(key, path)?)))
        .max_by_key(|(key, _)| key.len())
}

/// What `path` says after `parent`, where it lies there.
fn below<'p>(parent: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(parent)
        .filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        .map(|rest| rest.trim_start_matches('.'))
}

/// The index of `[2].c`, and the rest.
fn next_index(path: &str) -> Option<(usize, &str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest.trim_start_matches('.')))
}

/// Byte offset of the deepest part of `path` that is written.
fn offset(table: &DeTable<'_>, path: &str) -> Option<usize> {
    let (name, rest) = next_key(table.keys().map(|key| key.get_ref().as_ref()), path)?;
    let (key, value) = table.get_key_value(name)?;
    Some(offset_within(value.get_ref(), rest).unwrap_or(key.span().start))
}

fn offset_within(value: &DeValue<'_>, path: &str) -> Option<usize> {
    match value {
        DeValue::Table(inner) => offset(inner, path),
        DeValue::Array(items) => {
            let (index, rest) = next_index(path)?;
            let item = items.get(index)?;
            Some(offset_within(item.get_ref(), rest).unwrap_or(item.span().start))
        }
        _ => None,
    }
}

/// serde's words on a value of the wrong type, without the value where it may be a secret.
fn without_secret(path: &str, text: &str) -> String {
    let may_be_secret = SECRETS.iter().any(|word| path.contains(word));
    if !may_be_secret || !text.starts_with("invalid ") {
        return text.to_owned();
    }
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("wrong value (not shown: it may be a secret), expected {expected}"),
        None => "wrong value (not shown: it may be a secret)".to_owned(),
    }
}

fn position(name: &str, text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("{name}:{line}:{column}")
}

/// Sets or removes the value at `path`; false where there is none.
fn set(here: &mut Value, path: &str, new: Option<Value>) -> bool {
    match here {
        Value::Table(inner) => {
            let Some((key, rest)) = next_key(inner.keys().map(String::as_str), path) else {
                return false;
            };
            let key = key.to_owned();
            match new {
                new if !rest.is_empty() => inner.get_mut(&key).is_some_and(|value| set(value, rest, new)),
                Some(new) => inner.insert(key, new).is_some(),
                None => inner.remove(&key).is_some(),
            }
        }
        Value::Array(items) => match (next_index(path), new) {
            (Some((index, rest)), new) if !rest.is_empty() => {
                items.get_mut(index).is_some_and(|value| set(value, rest, new))
            }
            (Some((index, _)), None) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        name: String,
        port: u16,
        inner: Inner,
        item: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        size: u8,
    }

    fn source(text: &str, environment: &[(&str, &str)]) -> Result<Source, Vec<Located>> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Source::parse("f.toml".into(), text.into(), environment)
    }

    #[test]
    fn every_problem_of_a_file_is_shown_with_its_line_and_column() {
        let text = "port = 70000\nnonsense = 1\n[inner]\nsize = 'x'\n[[item]]\nsize = 1\n[[item]]\nsize = 2\nmore = 3\n";
        let problems = source(text, &[]).unwrap().typed::<Outer>().unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        for place in ["f.toml:1:1", "f.toml:2:1", "f.toml:4:1", "f.toml:9:1"] {
            assert!(places.contains(&place), "{place} is missing in {problems:#?}");
        }
        assert_eq!(problems.len(), 4, "{problems:#?}");
    }

    #[test]
    fn a_variable_overrides_the_file_and_is_named_in_its_problem() {
        let good = source(
            "port = 1\n[inner]\nsize = 1",
            &[("SHOPFLOOR_INNER__SIZE", "7"), ("OTHER", "x")],
        );
        assert_eq!(good.unwrap().typed::<Outer>().unwrap().inner.size, 7);
        let bad = source("", &[("SHOPFLOOR_INNER__SIZE", "700")])
            .unwrap()
            .typed::<Outer>()
            .unwrap_err();
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].place, "SHOPFLOOR_INNER__SIZE");
    }

    #[test]
    fn a_variable_that_looks_like_a_number_can_be_a_name() {
        let typed = source("", &[("SHOPFLOOR_NAME", "42")])
            .unwrap()
            .typed::<Outer>()
            .unwrap();
        assert_eq!(typed.name, "42");
    }

    #[test]
    fn problems_of_keys_with_dots_and_of_lists_in_variables_have_their_place_and_hide_no_other() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            #[allow(dead_code)]
            properties: BTreeMap<String, String>,
            #[allow(dead_code)]
            item: Vec<Needed>,
        }
        #[derive(Debug, Deserialize)]
        struct Needed {
            #[allow(dead_code)]
            size: u8,
        }
        let text = "unknown = 1\n[properties]\n'sasl.password' = 4711\n";
        let problems = source(text, &[("SHOPFLOOR_ITEM", "[{ size = 'x' }]")])
            .unwrap()
            .typed::<Settings>()
            .unwrap_err();
        let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
        assert_eq!(
            places,
            ["SHOPFLOOR_ITEM", "f.toml:3:1", "f.toml:1:1"],
            "{problems:#?}"
        );
        assert!(
            !format!("{problems:?}").contains("4711"),
            "a secret is shown: {problems:#?}"
        );
    }

    #[test]
    fn broken_toml_names_the_place() {
        let problems = source("a = 1\nb =\n", &[]).unwrap_err();
        assert!(problems[0].place.starts_with("f.toml:2:"), "{problems:?}");
    }
}
