//! JSON text to a value, with V8's texts for what is no JSON: the original's clients see them.

use std::collections::HashMap;

use super::Js;

/// Deepest nesting of lists and maps; the reader recurses.
const MAX_DEPTH: usize = 128;

/// Reads a request body: a list or a map, as the original's body reader asks for.
pub(crate) fn parse_body(text: &str) -> Result<Js, String> {
    let reader = Reader {
        text,
        at: text.len() - text.trim_start_matches(SPACE).len(),
    };
    match reader.peek() {
        Some('{' | '[') => parse(text),
        // The original names any other first character, whatever it would begin.
        Some(first) => Err(format!(
            "Unexpected token {first} in JSON at position {}",
            reader.position()
        )),
        None => Err(UNEXPECTED_END.into()),
    }
}

/// Reads one JSON text.
fn parse(text: &str) -> Result<Js, String> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.unexpected()),
    }
}

const SPACE: [char; 4] = [' ', '\t', '\n', '\r'];
const UNEXPECTED_END: &str = "Unexpected end of JSON input";

struct Reader<'a> {
    text: &'a str,
    /// Byte offset of the next character.
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(SPACE).len();
    }

    /// In UTF-16 units, as JavaScript counts.
    fn position(&self) -> usize {
        self.text
            .get(..self.at)
            .unwrap_or_default()
            .encode_utf16()
            .count()
    }

    fn unexpected(&self) -> String {
        let position = self.position();
        match self.peek() {
            None => UNEXPECTED_END.into(),
            Some('0'..='9' | '-') => format!("Unexpected number in JSON at position {position}"),
            Some('"') => format!("Unexpected string in JSON at position {position}"),
            Some(c) => format!("Unexpected token {c} in JSON at position {position}"),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Js, String> {
        if depth > MAX_DEPTH {
            return Err(format!("JSON is nested deeper than {MAX_DEPTH} levels"));
        }
        self.skip_space();
        match self.peek() {
            Some('{') => self.map(depth),
            Some('[') => self.list(depth),
            Some('"') => self.string().map(Js::Text),
            Some('t') => self.literal("true", Js::Bool(true)),
            Some('f') => self.literal("false", Js::Bool(false)),
            Some('n') => self.literal("null", Js::Null),
            Some('-' | '0'..='9') => self.number(),
            _ => Err(self.unexpected()),
        }
    }

    fn literal(&mut self, word: &str, value: Js) -> Result<Js, String> {
        for c in word.chars() {
            if self.peek() != Some(c) {
                return Err(self.unexpected());
            }
            self.skip(c);
        }
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Js, String> {
        self.skip('[');
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(']') {
            self.skip(']');
            return Ok(Js::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(',') => self.skip(','),
                Some(']') => {
                    self.skip(']');
                    return Ok(Js::List(items));
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Js, String> {
        self.skip('{');
        let mut fields = Fields::default();
        self.skip_space();
        if self.peek() == Some('}') {
            self.skip('}');
            return Ok(fields.into_map());
        }
        loop {
            self.skip_space();
            if self.peek() != Some('"') {
                return Err(self.unexpected());
            }
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(':') {
                return Err(self.unexpected());
            }
            self.skip(':');
            fields.set(key, self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(',') => self.skip(','),
                Some('}') => {
                    self.skip('}');
                    return Ok(fields.into_map());
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn digits(&mut self) -> Result<(), String> {
        if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
            return Err(self.unexpected());
        }
        self.at += self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
        Ok(())
    }

    fn number(&mut self) -> Result<Js, String> {
        let start = self.at;
        if self.peek() == Some('-') {
            self.skip('-');
        }
        if self.peek() == Some('0') {
            self.skip('0');
            if self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return Err(self.unexpected());
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some('.') {
            self.skip('.');
            self.digits()?;
        }
        if let Some(e @ ('e' | 'E')) = self.peek() {
            self.skip(e);
            if let Some(sign @ ('+' | '-')) = self.peek() {
                self.skip(sign);
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Js::Number(text.parse().unwrap_or(f64::NAN)))
    }

    fn string(&mut self) -> Result<String, String> {
        self.skip('"');
        let mut units = String::new();
        loop {
            let plain = self.rest().len() - self.rest().trim_start_matches(is_plain).len();
            units.push_str(self.rest().get(..plain).unwrap_or_default());
            self.at += plain;
            match self.peek() {
                Some('"') => {
                    self.skip('"');
                    return Ok(units);
                }
                Some('\\') => {
                    self.skip('\\');
                    units.push(self.escape()?);
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.peek().ok_or(UNEXPECTED_END)?;
        let meant = match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                self.skip('u');
                return self.unicode();
            }
            _ => return Err(self.unexpected()),
        };
        self.skip(c);
        Ok(meant)
    }

    /// After `\u`. Half a surrogate pair becomes U+FFFD, which is what the original's database driver made of it.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hex4()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self.rest().starts_with("\\u") {
            self.at += 2;
            let second = self.hex4()?;
            if (0xDC00..0xE000).contains(&second) {
                let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for _ in 0..4 {
            let c = self.peek().ok_or(UNEXPECTED_END)?;
            let digit = c.to_digit(16).ok_or_else(|| self.unexpected())?;
            value = value * 16 + digit;
            self.skip(c);
        }
        Ok(value)
    }
}

fn is_plain(c: char) -> bool {
    c >= ' ' && c != '"' && c != '\\'
}

/// The fields of one map under JavaScript's rules: the last value of a repeated key stays in the first's place,
/// and keys that are array indexes come first, in order.
#[derive(Default)]
pub(super) struct Fields {
    fields: Vec<(String, Js)>,
    places: HashMap<String, usize>,
}

impl Fields {
    pub(super) fn set(&mut self, key: String, value: Js) {
        match self
            .places
            .get(&key)
            .and_then(|place| self.fields.get_mut(*place))
        {
            Some(field) => field.1 = value,
            None => {
                self.places.insert(key.clone(), self.fields.len());
                self.fields.push((key, value));
            }
        }
    }

    pub(super) fn into_map(self) -> Js {
        let mut fields = self.fields;
        fields.sort_by_key(|(key, _)| array_index(key).map_or(u64::MAX, u64::from));
        Js::Map(fields)
    }
}

pub(super) fn array_index(key: &str) -> Option<u32> {
    let canonical = key == "0" || !key.starts_with(['0', '+']);
    canonical
        .then(|| key.parse().ok())
        .flatten()
        .filter(|index| *index < u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fault(text: &str) -> String {
        parse_body(text).unwrap_err()
    }

    #[test]
    fn what_is_no_json_is_named_as_v8_names_it() {
        for (text, message) in [
            ("{\"name\":", "Unexpected end of JSON input"),
            ("{name:1}", "Unexpected token n in JSON at position 1"),
            ("{\"name\":\"x\",}", "Unexpected token } in JSON at position 12"),
            ("\"abc\"", "Unexpected token \" in JSON at position 0"),
            ("  5", "Unexpected token 5 in JSON at position 2"),
            ("   ", "Unexpected end of JSON input"),
            ("{1:2}", "Unexpected number in JSON at position 1"),
            ("[1 2]", "Unexpected number in JSON at position 3"),
            ("{\"a\" \"b\"}", "Unexpected string in JSON at position 5"),
            ("[01]", "Unexpected number in JSON at position 2"),
            ("[tru]", "Unexpected token ] in JSON at position 4"),
            ("[\"\u{1F600}\" x]", "Unexpected token x in JSON at position 6"),
            ("{}x", "Unexpected token x in JSON at position 2"),
            ("[\"a\nb\"]", "Unexpected token \n in JSON at position 3"),
            ("[\"\\x\"]", "Unexpected token x in JSON at position 3"),
        ] {
            assert_eq!(fault(text), message, "{text:?}");
        }
    }

    #[test]
    fn a_repeated_key_keeps_its_place_and_its_last_value_and_indexes_come_first() {
        let value = parse_body(r#"{"b":1,"a":2,"10":3,"2":4,"b":5}"#).unwrap();
        let Js::Map(fields) = value else { panic!("a map") };
        let keys: Vec<_> = fields.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["2", "10", "b", "a"]);
        assert_eq!(fields[2].1, Js::Number(5.0));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(fault(&"[".repeat(100_000)).contains("deeper"));
    }

    proptest! {
        #[test]
        fn it_accepts_exactly_what_serde_json_accepts(text in r#"[\[{]?([\[\]{}:, ]|"[a\\u0-9\n]{0,6}"|-?[0-9.eE+]{1,4}|true|nul){0,12}[\]}]?"#) {
            let ours = parse(&text);
            match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(_) => prop_assert!(ours.is_ok(), "{text:?}: {ours:?}"),
                // Half surrogates and numbers beyond f64 are JSON in JavaScript.
                Err(error) if error.to_string().contains("surrogate") || error.to_string().contains("hex escape")
                    || error.to_string().contains("range") => {}
                Err(error) => prop_assert!(ours.is_err(), "{text:?}: {error}"),
            }
        }
    }
}
