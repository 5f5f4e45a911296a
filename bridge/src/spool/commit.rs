//! One commit: the encoded records of one write, which stay in memory for the readers that keep up.

use std::io::IoSlice;
use std::ops::Range;

use bytes::{Buf, Bytes};

use super::format::{RECORD_HEADER_BYTES, RecordHeader};
use super::{Entry, Stored};

/// Payloads from this size on are written from where they are; smaller ones are copied behind their header.
///
/// Measured on two busy cores, 100 callers: with 150 B payloads copying stores 1.4 times as many as handing the kernel
/// three slices a record (it pays for each); at 4 KiB there is no difference; at 16 KiB the slices win by a quarter.
/// The copy is also what frees the connection's read buffer: what stays in memory afterwards is a buffer of the
/// spool's own, whose size it knows.
pub(super) const DIRECT_MIN_BYTES: usize = 16 * 1024;

/// Records with consecutive sequences as they stand in a segment.
#[derive(Debug)]
pub(super) struct Commit {
    sequences: Range<u64>,
    /// Headers, metas and small payloads, one behind the other.
    arena: Bytes,
    /// Large payloads, in order, and the place in `arena` that each one follows.
    direct: Vec<(usize, Bytes)>,
    encoded_bytes: u64,
    pinned_bytes: u64,
}

/// A place within a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk {
    sequence: u64,
    arena_at: usize,
    direct_at: usize,
}

pub(super) fn encoded_bytes(entry: &Entry) -> u64 {
    RECORD_HEADER_BYTES + entry.meta.len() as u64 + entry.payload.len() as u64
}

impl Commit {
    /// Encodes into `arena`, whose content is dropped and whose capacity is reused. The caller has seen to it
    /// that all entries together are shorter than 1 GiB.
    pub(super) fn encode<'a>(
        entries: impl Iterator<Item = &'a Entry>,
        first_sequence: u64,
        salt: u32,
        commit: u32,
        mut arena: Vec<u8>,
    ) -> Self {
        arena.clear();
        let mut direct = Vec::new();
        let mut sequence = first_sequence;
        for entry in entries {
            let mut header = RecordHeader {
                crc: 0,
                payload_len: entry.payload.len() as u32,
                meta_len: entry.meta.len() as u32,
                commit,
                sequence,
            };
            let at = arena.len();
            arena.extend_from_slice(&header.encode());
            arena.extend_from_slice(&entry.meta);
            if entry.payload.len() < DIRECT_MIN_BYTES {
                arena.extend_from_slice(&entry.payload);
                header.crc = crc32c::crc32c_append(salt, arena.get(at + 4..).unwrap_or_default());
            } else {
                let crc = crc32c::crc32c_append(salt, arena.get(at + 4..).unwrap_or_default());
                header.crc = crc32c::crc32c_append(crc, &entry.payload);
                direct.push((arena.len(), entry.payload.clone()));
            }
            if let Some(place) = arena.get_mut(at..at + 4) {
                place.copy_from_slice(&header.crc.to_le_bytes());
            }
            sequence += 1;
        }
        let direct_bytes: u64 = direct.iter().map(|(_, payload)| payload.len() as u64).sum();
        Self {
            sequences: first_sequence..sequence,
            encoded_bytes: arena.len() as u64 + direct_bytes,
            // A slice keeps its whole buffer alive, and does not tell how large that is. Front and spool agree on
            // buffers that are at most about as large as the large payload in them.
            pinned_bytes: arena.capacity() as u64 + 2 * direct_bytes,
            arena: Bytes::from(arena),
            direct,
        }
    }

    pub(super) fn sequences(&self) -> Range<u64> {
        self.sequences.clone()
    }

    /// Bytes on disk.
    pub(super) fn encoded_bytes(&self) -> u64 {
        self.encoded_bytes
    }

    /// Bytes of memory that it keeps alive, counted high.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// What goes to disk, in order.
    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.direct.len() + 1);
        let mut from = 0;
        for (until, payload) in &self.direct {
            slices.push(IoSlice::new(self.arena.get(from..*until).unwrap_or_default()));
            slices.push(IoSlice::new(payload));
            from = *until;
        }
        slices.push(IoSlice::new(self.arena.get(from..).unwrap_or_default()));
        slices
    }

    pub(super) fn walk(&self) -> Walk {
        Walk {
            sequence: self.sequences.start,
            arena_at: 0,
            direct_at: 0,
        }
    }

    /// The record at `walk`, which moves behind it; `None` at the end.
    pub(super) fn next(&self, walk: &mut Walk) -> Option<Stored> {
        let header = RecordHeader::parse(self.arena.get(walk.arena_at..)?)?;
        let meta_at = walk.arena_at + RecordHeader::BYTES;
        let payload_at = meta_at + header.meta_len as usize;
        let payload_len = header.payload_len as usize;
        let meta = self.arena.slice(meta_at..payload_at);
        walk.sequence += 1;
        walk.arena_at = payload_at;
        let payload = if payload_len < DIRECT_MIN_BYTES {
            walk.arena_at += payload_len;
            self.arena.slice(payload_at..walk.arena_at)
        } else {
            walk.direct_at += 1;
            self.direct.get(walk.direct_at - 1)?.1.clone()
        };
        Some(Stored {
            sequence: header.sequence,
            meta,
            payload,
        })
    }

    /// Moves `walk` to `sequence`, which must be one of the commit's.
    pub(super) fn seek(&self, walk: &mut Walk, sequence: u64) {
        while walk.sequence < sequence && self.next(walk).is_some() {}
    }

    /// The arena for a next commit, where nobody holds a slice of it any more.
    pub(super) fn into_arena(self) -> Option<Vec<u8>> {
        let mut arena = self.arena;
        if !arena.is_unique() {
            return None;
        }
        // Past its content, so that nothing of it is copied on the way back.
        arena.advance(arena.len());
        Some(arena.into())
    }
}

impl Walk {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(meta: &str, payload: Vec<u8>) -> Entry {
        Entry {
            meta: Bytes::copy_from_slice(meta.as_bytes()),
            payload: payload.into(),
        }
    }

    #[test]
    fn small_and_large_payloads_come_back_from_memory_and_from_the_written_bytes_alike() {
        let entries = [
            entry("a", vec![1; 10]),
            entry("", vec![2; DIRECT_MIN_BYTES]),
            entry("c", vec![]),
            entry("dd", vec![4; DIRECT_MIN_BYTES * 2]),
            entry("e", vec![5; DIRECT_MIN_BYTES - 1]),
        ];
        let commit = Commit::encode(entries.iter(), 40, 7, 3, Vec::new());
        assert_eq!(commit.sequences(), 40..45);

        let mut walk = commit.walk();
        for (entry, sequence) in entries.iter().zip(40..) {
            let stored = commit.next(&mut walk).unwrap();
            assert_eq!(
                (stored.sequence, &stored.meta, &stored.payload),
                (sequence, &entry.meta, &entry.payload)
            );
        }
        assert!(commit.next(&mut walk).is_none());

        let written: Vec<u8> = commit.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(written.len() as u64, commit.encoded_bytes());
        assert_eq!(
            commit.encoded_bytes(),
            entries.iter().map(encoded_bytes).sum::<u64>()
        );
        let written = Bytes::from(written);
        let mut at = 0;
        for (entry, sequence) in entries.iter().zip(40..) {
            let found = super::super::format::record_at(&written[at..], 7, &(sequence..sequence + 1));
            let super::super::format::Found::Record { header, bytes } = found else {
                panic!("{found:?}")
            };
            assert_eq!(header.commit, 3);
            let stored = super::super::format::stored_at(&written, at, &header);
            assert_eq!((&stored.meta, &stored.payload), (&entry.meta, &entry.payload));
            at += bytes;
        }
    }

    #[test]
    fn an_arena_comes_back_only_when_no_reader_holds_a_slice_of_it() {
        let entries = [entry("meta", vec![1; 100])];
        let commit = Commit::encode(entries.iter(), 1, 7, 0, Vec::with_capacity(4096));
        let arena = commit.into_arena().unwrap();
        assert!(arena.capacity() >= 4096 && arena.is_empty());

        let commit = Commit::encode(entries.iter(), 2, 7, 1, arena);
        let held = commit.next(&mut commit.walk()).unwrap();
        assert!(commit.into_arena().is_none());
        assert_eq!(held.payload, vec![1; 100]);
    }
}
