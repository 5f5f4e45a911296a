//! Where a page of a list ended, as text for the client to send back.
//!
//! A cursor names the list and the filters that it was made for, and carries a checksum: one that was cut short,
//! typed by hand or taken from another list is told, instead of answering with the wrong rows.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use uuid::Uuid;

const VERSION: u8 = 1;
/// Longer text is no cursor.
const MAX_BYTES: usize = 64;

/// A row's place in the order of its list.
pub(crate) trait Key: Copy {
    fn write(self, out: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Lists in the order of their ids.
impl Key for i32 {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

/// Units, in the order of their production.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnitKey {
    pub(crate) time_s: i64,
    pub(crate) id: Uuid,
}

impl Key for UnitKey {
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time_s.to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (time, id) = bytes.split_at_checked(size_of::<i64>())?;
        Some(Self {
            time_s: i64::from_be_bytes(time.try_into().ok()?),
            id: Uuid::from_slice(id).ok()?,
        })
    }
}

/// `list` stands for the list and its filters.
pub(crate) fn write<K: Key>(list: u32, key: K) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&list.to_be_bytes());
    key.write(&mut bytes);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    BASE64.encode(bytes)
}

/// `None` where `text` is no cursor of that list.
pub(crate) fn read<K: Key>(list: u32, text: &str) -> Option<K> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let bytes = BASE64.decode(text).ok()?;
    let (signed, checksum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(signed) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let rest = signed.strip_prefix(&[VERSION])?;
    let (of, key) = rest.split_first_chunk()?;
    if u32::from_be_bytes(*of) != list {
        return None;
    }
    K::read(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_by_the_same_list_alone(list: u32, time_s: i64, id: u128, row: i32) {
            let key = UnitKey { time_s, id: Uuid::from_u128(id) };
            let text = write(list, key);
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert_eq!(read(list, &text), Some(key));
            prop_assert_eq!(read::<UnitKey>(list.wrapping_add(1), &text), None);
            prop_assert_eq!(read::<i32>(list, &text), None);
            prop_assert_eq!(read(list, &write(list, row)), Some(row));
        }

        #[test]
        fn a_cursor_with_another_letter_is_none(place in 0..40_usize, letter in "[A-Za-z0-9_-]") {
            let text = write(7, UnitKey { time_s: 1_700_000_000, id: Uuid::from_u128(9) });
            let mut changed = text.clone();
            changed.replace_range(place..=place, &letter);
            prop_assume!(changed != text);
            prop_assert_eq!(read::<UnitKey>(7, &changed), None);
        }

        #[test]
        fn any_text_is_a_cursor_or_none(text in "\\PC{0,80}") {
            let _ = read::<i32>(1, &text);
        }
    }
}
