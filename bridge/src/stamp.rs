//! Adds `isDeleted` and `lastUpdate` to a checked JSON object without reading it again.

use crate::contract::timestamp::write_last_update;

/// Bytes that stamping adds at most.
pub const MAX_STAMP_BYTES: usize = r#","isDeleted":false,"lastUpdate":"2023-12-10 00:00:00.0000000""#.len();

/// The fields to add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp {
    pub is_deleted: bool,
    pub last_update: bool,
}

impl Stamp {
    pub fn is_empty(self) -> bool {
        !self.is_deleted && !self.last_update
    }
}

/// Appends `object` with the wanted fields before its closing brace; `object` is one JSON object, spaces around it
/// allowed. `lastUpdate` is `received_ms`, to the second.
pub fn stamp(object: &[u8], wanted: Stamp, received_ms: i64, out: &mut Vec<u8>) {
    let object = object.trim_ascii_end();
    let Some(open) = object.strip_suffix(b"}") else {
        // Not an object: the check lets none pass, and unchanged is the least harm.
        out.extend_from_slice(object);
        return;
    };
    let mut comma = !open.trim_ascii_end().ends_with(b"{");
    let mut field = |out: &mut Vec<u8>, text: &[u8]| {
        if comma {
            out.push(b',');
        }
        comma = true;
        out.extend_from_slice(text);
    };
    out.extend_from_slice(open);
    if wanted.is_deleted {
        field(out, br#""isDeleted":false"#);
    }
    if wanted.last_update {
        field(out, br#""lastUpdate":""#);
        write_last_update(received_ms, out);
        out.push(b'"');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Stamp = Stamp {
        is_deleted: true,
        last_update: true,
    };

    fn stamped(object: &str, wanted: Stamp) -> String {
        let mut out = Vec::new();
        stamp(object.as_bytes(), wanted, 1_702_166_400_000, &mut out);
        assert!(out.len() <= object.len() + MAX_STAMP_BYTES);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_fields_stand_before_the_closing_brace() {
        assert_eq!(
            stamped(r#"{"a":{}}"#, BOTH),
            r#"{"a":{},"isDeleted":false,"lastUpdate":"2023-12-10 00:00:00.0000000"}"#
        );
        assert_eq!(
            stamped(
                "{\"a\":1 } \n",
                Stamp {
                    is_deleted: true,
                    ..Stamp::default()
                }
            ),
            r#"{"a":1 ,"isDeleted":false}"#
        );
    }

    #[test]
    fn an_empty_object_gets_no_leading_comma() {
        assert_eq!(
            stamped(
                "{ }",
                Stamp {
                    is_deleted: true,
                    ..Stamp::default()
                }
            ),
            r#"{ "isDeleted":false}"#
        );
    }
}
