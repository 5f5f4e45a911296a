//! JavaScript's values and conversions.
//!
//! The original converted every body field implicitly, and its clients hold the outcome: `"7"` is taken for a
//! number, `{}` for the text `[object Object]`. This folder is that rule, away from the domain:
//!
//! - [`json`]: text to a value, with V8's texts for what is no JSON.
//! - [`form`]: an urlencoded body to a value.
//! - [`date`]: `new Date(value)` and `toISOString()`.

pub(crate) mod date;
pub(crate) mod form;
pub(crate) mod json;

/// A value as JSON can say it. A map keeps JavaScript's key order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Js {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Js>),
    Map(Vec<(String, Js)>),
}

impl Js {
    /// The value of `name`; `None` is JavaScript's `undefined`.
    pub(crate) fn get(&self, name: &str) -> Option<&Js> {
        match self {
            Self::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// `String(value)`.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => number_to_text(*value),
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let texts: Vec<String> = items
                    .iter()
                    .map(|item| {
                        if *item == Self::Null {
                            String::new()
                        } else {
                            item.to_text()
                        }
                    })
                    .collect();
                texts.join(",")
            }
            Self::Map(_) => "[object Object]".into(),
        }
    }

    /// `Number(value)`.
    pub(crate) fn to_number(&self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::Text(text) => text_to_number(text),
            Self::List(_) => text_to_number(&self.to_text()),
            Self::Map(_) => f64::NAN,
        }
    }

    /// `Boolean(value)`.
    pub(crate) fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(value) => *value != 0.0 && !value.is_nan(),
            Self::Text(text) => !text.is_empty(),
            Self::List(_) | Self::Map(_) => true,
        }
    }
}

/// What `trim()` and `Number()` take for white space.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') || (c.is_whitespace() && c != '\u{85}')
}

/// `Number(text)`: decimal, `0x`, `0o`, `0b` and `Infinity`, spaces around it ignored, empty is 0.
pub(crate) fn text_to_number(text: &str) -> f64 {
    let text = text.trim_matches(is_space);
    if text.is_empty() {
        return 0.0;
    }
    for (prefixes, radix) in [(["0x", "0X"], 16), (["0o", "0O"], 8), (["0b", "0B"], 2)] {
        if let Some(digits) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return radix_number(digits, radix);
        }
    }
    match text {
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // Rust also reads "inf" and "nan", which JavaScript does not.
        _ if text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
        {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

fn radix_number(digits: &str, radix: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    digits
        .chars()
        .fold(0.0, |value, digit| match digit.to_digit(radix) {
            Some(digit) => value * f64::from(radix) + f64::from(digit),
            None => f64::NAN,
        })
}

/// `String(number)`.
pub(crate) fn number_to_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    if value == 0.0 {
        return "0".into();
    }
    if (1e-6..1e21).contains(&value.abs()) {
        return value.to_string();
    }
    // Rust writes 1e21 where JavaScript writes 1e+21.
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (value, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (-0.0, "0"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
        ] {
            assert_eq!(number_to_text(value), text);
        }
    }

    #[test]
    fn texts_are_read_as_javascript_reads_numbers() {
        for (text, value) in [
            ("", 0.0),
            (" 7 ", 7.0),
            ("0x10", 16.0),
            ("1e3", 1000.0),
            ("+1", 1.0),
            ("1.", 1.0),
        ] {
            assert_eq!(text_to_number(text), value, "{text:?}");
        }
        for text in ["abc", "1 2", "inf", "nan", "0x", "1_0", "--1", "0x1g", "1n"] {
            assert!(text_to_number(text).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn lists_and_maps_become_text_as_in_javascript() {
        let list = Js::List(vec![
            Js::Number(1.0),
            Js::Null,
            Js::Text("a".into()),
            Js::Map(vec![]),
        ]);
        assert_eq!(list.to_text(), "1,,a,[object Object]");
        assert_eq!(Js::List(vec![Js::Number(2.0)]).to_number(), 2.0);
        assert!(
            Js::List(vec![Js::Number(1.0), Js::Number(2.0)])
                .to_number()
                .is_nan()
        );
    }
}
