//! Text from machines for a person's terminal: nothing in it can move the cursor, ring, recolour or reorder.

use std::fmt::Write as _;

/// At most this much of a text is shown where it stands in a line with others.
pub(crate) const MAX_FIELD_CHARS: usize = 60;

/// `text` in one line, at most `max_chars` of it; what a terminal would act on is written as `\u{1b}`.
pub(crate) fn plain(text: &str, max_chars: usize) -> String {
    plain_bytes(text.as_bytes(), max_chars)
}

/// The same for bytes; those that are not UTF-8 are written as `\xff`.
pub(crate) fn plain_bytes(bytes: &[u8], max_chars: usize) -> String {
    let mut out = String::new();
    let mut shown = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if shown == max_chars {
                return ended(out, bytes.len());
            }
            push(c, &mut out);
            shown += 1;
        }
        for byte in chunk.invalid() {
            if shown == max_chars {
                return ended(out, bytes.len());
            }
            // Writing to a String cannot fail.
            let _written = write!(out, "\\x{byte:02x}");
            shown += 1;
        }
    }
    out
}

fn ended(mut out: String, bytes: usize) -> String {
    let _written = write!(out, "... ({bytes} bytes)");
    out
}

fn push(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if acts(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    }
}

/// Controls, what changes the direction of text, what is not seen.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(
            u32::from(c),
            0xad | 0x61c | 0x180e | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f | 0xfeff
                | 0xfff9..=0xfffb | 0xe0000..=0xe0fff
        )
}

/// JSON in one line, by the same rule. Such characters stand in a document's strings alone, where JSON has its own
/// way to write them.
pub(crate) fn plain_json(value: &serde_json::Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _written = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_drives_a_terminal_is_written_out() {
        assert_eq!(plain("a\u{1b}[2Jb\r\n\u{7}", 99), r"a\u{1b}[2Jb\r\n\u{7}");
        assert_eq!(
            plain("\u{9b}31m\u{202e}x\u{200b}", 99),
            r"\u{9b}31m\u{202e}x\u{200b}"
        );
        assert_eq!(plain_bytes(b"ok \xff\xc3", 99), r"ok \xff\xc3");
        assert_eq!(
            plain("C:\\n", 99),
            "C:\\\\n",
            "what is written out cannot be faked"
        );
        assert_eq!(plain("Werk Süd 東京", 99), "Werk Süd 東京");
    }

    #[test]
    fn a_long_text_says_how_long_it_is() {
        assert_eq!(plain(&"x".repeat(100), 5), "xxxxx... (100 bytes)");
        assert_eq!(plain("xxxxx", 5), "xxxxx");
    }

    proptest! {
        #[test]
        fn no_bytes_reach_the_terminal_as_controls(bytes in prop::collection::vec(any::<u8>(), 0..200), max in 0_usize..300) {
            prop_assert!(!plain_bytes(&bytes, max).chars().any(acts));
        }

        #[test]
        fn json_stays_the_same_document(text in any::<String>()) {
            let value = serde_json::json!({ text.clone(): [text] });
            let shown = plain_json(&value);
            prop_assert!(!shown.chars().any(acts));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
