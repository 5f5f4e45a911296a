//! MQTT topic filters with named levels.

/// Most levels of a filter.
const MAX_LEVELS: usize = 64;
/// MQTT's limit, in bytes.
const MAX_FILTER_BYTES: usize = 65_535;

/// What is wrong, and what to write instead.
pub(super) type Fault = (String, String);

/// A parsed filter, as in `factory/{site}/+/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    levels: Vec<Level>,
    rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Exact(String),
    One,
    Capture(String),
}

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Err((
                "the filter is empty".into(),
                "write for example \"supply-chain\"".into(),
            ));
        }
        if text.len() > MAX_FILTER_BYTES || text.contains('\0') {
            return Err((
                "MQTT does not take this as a filter".into(),
                format!("use at most {MAX_FILTER_BYTES} bytes and no U+0000"),
            ));
        }
        let mut levels: Vec<Level> = Vec::new();
        let mut parts = text.split('/');
        let mut rest = false;
        for part in parts.by_ref() {
            if part == "#" {
                rest = true;
                break;
            }
            levels.push(Level::parse(part)?);
        }
        if parts.next().is_some() {
            return Err((
                "'#' is not the last level".into(),
                "put '#' at the end, or use '+'".into(),
            ));
        }
        if levels.len() > MAX_LEVELS {
            return Err((
                format!("{} levels", levels.len()),
                format!("use at most {MAX_LEVELS}"),
            ));
        }
        let filter = Self { levels, rest };
        match filter.repeated_capture() {
            Some(name) => Err((
                format!("{{{name}}} stands in it twice"),
                "give each level a name of its own".into(),
            )),
            None => Ok(filter),
        }
    }

    fn repeated_capture(&self) -> Option<&str> {
        let names: Vec<&str> = self.levels.iter().filter_map(Level::capture).collect();
        names
            .iter()
            .enumerate()
            .find(|(n, name)| names.iter().take(*n).any(|other| other == *name))
            .map(|(_, name)| *name)
    }

    /// The exact text of each level, `None` where any text goes.
    pub(super) fn levels(&self) -> impl Iterator<Item = Option<&str>> {
        self.levels.iter().map(|level| match level {
            Level::Exact(text) => Some(text.as_str()),
            Level::One | Level::Capture(_) => None,
        })
    }

    /// It ends in `#`.
    pub(super) fn takes_rest(&self) -> bool {
        self.rest
    }

    /// The level that `{name}` stands for.
    pub(super) fn capture(&self, name: &str) -> Option<usize> {
        self.levels.iter().position(|level| level.capture() == Some(name))
    }

    /// The names of the captures, as an error shows them.
    pub(super) fn captures(&self) -> Vec<String> {
        self.levels
            .iter()
            .filter_map(Level::capture)
            .map(|name| format!("{{{name}}}"))
            .collect()
    }

    /// The same filter with one more exact level; `None` behind `#`.
    pub(super) fn with_level(&self, level: &str) -> Option<Self> {
        let mut longer = self.clone();
        longer.levels.push(Level::Exact(level.into()));
        (!self.rest).then_some(longer)
    }
}

impl Level {
    fn parse(part: &str) -> Result<Self, Fault> {
        if part == "+" {
            return Ok(Self::One);
        }
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            return if is_name(name) {
                Ok(Self::Capture(name.into()))
            } else {
                Err((
                    format!("{name:?} is no capture name"),
                    "use small letters, digits and '_'".into(),
                ))
            };
        }
        match part.chars().find(|c| matches!(c, '+' | '#' | '{' | '}')) {
            Some(found) => Err((
                format!("{found:?} shares the level {part:?} with other text"),
                "a wildcard or a capture takes a whole level".into(),
            )),
            None => Ok(Self::Exact(part.into())),
        }
    }

    fn capture(&self) -> Option<&str> {
        match self {
            Self::Capture(name) => Some(name),
            _ => None,
        }
    }
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_says_what_is_wrong_with_it() {
        for (filter, says) in [
            ("", "empty"),
            ("a/#/b", "last level"),
            ("a/b+", "whole level"),
            ("a/#b", "whole level"),
            ("{a}/{a}", "twice"),
            ("{}/x", "capture name"),
            ("{A b}", "capture name"),
            ("x{a}", "whole level"),
            ("a\0", "U+0000"),
        ] {
            let (problem, remedy) = Filter::parse(filter).unwrap_err();
            assert!(
                format!("{problem}; {remedy}").contains(says),
                "{filter:?}: {problem}; {remedy}"
            );
        }
    }

    #[test]
    fn empty_levels_are_levels() {
        assert_eq!(
            Filter::parse("/a/").unwrap().levels().collect::<Vec<_>>(),
            [Some(""), Some("a"), Some("")]
        );
    }
}
