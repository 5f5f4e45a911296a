//! The path as the client sent it, and the id in it.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use http::Uri;
use http::request::Parts;
use uuid::{Uuid, Version};

use crate::error::Error;
use crate::js::{number_to_text, text_to_number};

/// The URI as the client sent it. A request extension.
#[derive(Debug, Clone)]
pub(crate) struct SentUri(pub(crate) Uri);

/// The path with its id written in one way: `/materials/02` and `/materials/2` are one address.
pub(crate) fn canonical(request: &Request) -> String {
    let path = request.uri().path();
    let Some(route) = request.extensions().get::<MatchedPath>() else {
        return path.to_owned();
    };
    let segments = route.as_str().split('/').zip(path.split('/'));
    let segments = segments.map(|(known, sent)| {
        let id = known.starts_with('{').then(|| decode(sent)).flatten();
        id.and_then(|id| Param(id).written())
            .unwrap_or_else(|| sent.to_owned())
    });
    segments.collect::<Vec<_>>().join("/")
}

/// The one parameter of the path, decoded.
#[derive(Debug)]
pub(crate) struct Param(String);

impl<S: Sync> FromRequestParts<S> for Param {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let route = parts
            .extensions
            .get::<MatchedPath>()
            .map_or("", MatchedPath::as_str);
        // A fixed path that borrows the handler of the one with an id has its last word for the id.
        let place = route
            .split('/')
            .position(|segment| segment.starts_with('{'))
            .unwrap_or_else(|| route.split('/').count() - 1);
        // Nesting cuts the URI that handlers see; this one has the table's segments, and the client's writing.
        let sent = parts.extensions.get::<SentUri>().map_or("", |sent| sent.0.path());
        let raw = sent.split('/').nth(place).unwrap_or_default();
        let decoded =
            decode(raw).ok_or_else(|| Error::Malformed(format!("Failed to decode param '{raw}'")))?;
        Ok(Self(decoded))
    }
}

/// `None` where an escape is broken or the bytes are no UTF-8.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

impl Param {
    /// As this service writes it.
    fn written(&self) -> Option<String> {
        let number = self.id().map(|id| id.to_string()).ok();
        number.or_else(|| self.unit_id().map(|(id, _)| id.to_string()).ok())
    }

    /// A row's id. Decimal forms of a whole number are taken (`01`, `+1`, `1.0`).
    pub(crate) fn id(&self) -> Result<i32, Error> {
        let is_decimal = self
            .0
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.') || crate::js::is_space(c));
        let value = if is_decimal {
            text_to_number(&self.0)
        } else {
            f64::NAN
        };
        // From 1e21 on JavaScript writes an exponent, which the original did not take for an id.
        let is_whole = number_to_text(value)
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-');
        if !is_whole {
            return Err(Error::Malformed(
                "Validation failed (numeric string is expected)".into(),
            ));
        }
        if value > f64::from(i32::MAX) {
            return Err(Error::Fields(vec![format!(
                "id must not be greater than {}",
                i32::MAX
            )]));
        }
        if value < f64::from(i32::MIN) {
            return Err(Error::Fields(vec![format!(
                "id must not be less than {}",
                i32::MIN
            )]));
        }
        Ok(value as i32)
    }

    /// A unit's id, version 4 or 7, and its text as sent.
    pub(crate) fn unit_id(&self) -> Result<(Uuid, &str), Error> {
        let refused = || Error::Malformed("Validation failed (uuid v 4 is expected)".into());
        if self.0.len() != 36 {
            return Err(refused());
        }
        let id: Uuid = self.0.parse().map_err(|_| refused())?;
        match id.get_version() {
            Some(Version::Random | Version::SortRand) if id.get_variant() == uuid::Variant::RFC4122 => {
                Ok((id, &self.0))
            }
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<i32, String> {
        Param(decode(text).unwrap())
            .id()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn decimal_forms_of_a_whole_number_are_ids() {
        for (text, value) in [
            ("1", 1),
            ("01", 1),
            ("+1", 1),
            ("1.0", 1),
            ("%201", 1),
            ("-1", -1),
            ("2147483647", i32::MAX),
        ] {
            assert_eq!(id(text), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn javascripts_other_number_forms_are_no_ids() {
        for text in [
            "0x1",
            "1e0",
            "0b1",
            "abc",
            "1abc",
            "1.5",
            "NaN",
            "Infinity",
            "1000000000000000000000",
            "--1",
        ] {
            assert!(id(text).unwrap_err().contains("numeric string"), "{text:?}");
        }
        assert!(id("2147483648").unwrap_err().contains("id must not be greater"));
    }

    #[test]
    fn a_broken_escape_is_no_parameter() {
        assert_eq!(decode("%zz"), None);
        assert_eq!(decode("%"), None);
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("a%20b").as_deref(), Some("a b"));
    }
}
