//! An urlencoded body to a value, with nested names: `materials[0][name]=zinc`.

use super::Js;
use super::json::{Fields, array_index};

/// Most parameters in one body.
const MAX_PARAMETERS: usize = 1000;
/// Deepest nesting of a name.
const MAX_DEPTH: usize = 32;
/// Above it, an index is a key of a map instead of a place in a list.
const MAX_INDEX: u32 = 1000;

/// More parameters than one body may have.
#[derive(Debug, PartialEq)]
pub(crate) struct TooManyParameters;

/// Reads `text`. Every leaf is text; a repeated name is a list.
pub(crate) fn parse(text: &str) -> Result<Js, TooManyParameters> {
    let parameters: Vec<&str> = text
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .collect();
    if parameters.len() > MAX_PARAMETERS {
        return Err(TooManyParameters);
    }
    let mut root = Node::Map(Vec::new());
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (name, value) = (decode(name), decode(value));
        if !name.is_empty() {
            root.put(&path(&name), value);
        }
    }
    Ok(root.into_js())
}

/// `a[b][]` to `a`, `b` and the empty name.
fn path(name: &str) -> Vec<&str> {
    let Some(open) = name.find('[').filter(|open| *open > 0) else {
        return vec![name];
    };
    let (first, mut rest) = name.split_at(open);
    let mut names = vec![first];
    while let Some((inner, after)) = rest.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        if names.len() == MAX_DEPTH {
            break;
        }
        names.push(inner);
        rest = after;
    }
    names
}

/// Text with `+` and `%41` decoded; a broken escape stays as it is.
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let bytes = spaced.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or(spaced)
}

enum Node {
    Leaf(String),
    /// Fields in the order of their first appearance; a list is a map whose keys are all indexes.
    Map(Vec<(String, Node)>),
}

impl Node {
    fn put(&mut self, path: &[&str], value: String) {
        let Some((name, rest)) = path.split_first() else {
            self.add(value);
            return;
        };
        if let Self::Leaf(text) = self {
            let text = std::mem::take(text);
            *self = Self::Map(vec![("0".into(), Self::Leaf(text))]);
        }
        let Self::Map(fields) = self else { return };
        let key = if name.is_empty() {
            fields.len().to_string()
        } else {
            (*name).to_owned()
        };
        let place = fields
            .iter()
            .position(|(field, _)| *field == key)
            .unwrap_or(fields.len());
        if place == fields.len() {
            let fresh = if rest.is_empty() {
                Self::Leaf(value)
            } else {
                Self::of(rest, value)
            };
            fields.push((key, fresh));
        } else if let Some((_, node)) = fields.get_mut(place) {
            node.put(rest, value);
        }
    }

    fn of(path: &[&str], value: String) -> Self {
        let mut node = Self::Map(Vec::new());
        node.put(path, value);
        node
    }

    /// A second value of the same name makes a list.
    fn add(&mut self, value: String) {
        match self {
            Self::Leaf(text) => {
                let first = Self::Leaf(std::mem::take(text));
                *self = Self::Map(vec![("0".into(), first), ("1".into(), Self::Leaf(value))]);
            }
            Self::Map(fields) => fields.push((fields.len().to_string(), Self::Leaf(value))),
        }
    }

    fn into_js(self) -> Js {
        self.convert(true)
    }

    fn convert(self, root: bool) -> Js {
        match self {
            Self::Leaf(text) => Js::Text(text),
            Self::Map(fields) => {
                let index = |key: &str| array_index(key).filter(|index| *index <= MAX_INDEX);
                if !root && !fields.is_empty() && fields.iter().all(|(key, _)| index(key).is_some()) {
                    let mut items: Vec<_> = fields
                        .into_iter()
                        .map(|(key, node)| (index(&key), node))
                        .collect();
                    items.sort_by_key(|(place, _)| *place);
                    return Js::List(items.into_iter().map(|(_, node)| node.convert(false)).collect());
                }
                let mut out = Fields::default();
                for (key, node) in fields {
                    out.set(key, node.convert(false));
                }
                out.into_map()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> Js {
        Js::Text(value.into())
    }

    #[test]
    fn names_with_brackets_become_lists_and_maps() {
        let value = parse("materials[0][name]=z+n&materials[1][name]=%C3%A9&flat=1&flat=2&many[]=a&many[]=b")
            .unwrap();
        let named = |name: &str| Js::Map(vec![("name".into(), text(name))]);
        assert_eq!(
            value.get("materials"),
            Some(&Js::List(vec![named("z n"), named("é")]))
        );
        assert_eq!(value.get("flat"), Some(&Js::List(vec![text("1"), text("2")])));
        assert_eq!(value.get("many"), Some(&Js::List(vec![text("a"), text("b")])));
    }

    #[test]
    fn more_than_a_thousand_parameters_are_refused() {
        assert_eq!(parse(&"a=1&".repeat(1001)), Err(TooManyParameters));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r"[a-c\[\]=&%0-9+é]{0,60}") {
            let _outcome = parse(&text);
        }
    }
}
