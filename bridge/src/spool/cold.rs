//! Reading a segment from disk: in large pieces, every record checked, damage named and stepped over.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Stored;
use super::filesystem::{LogFile, read_full_at};
use super::format::{Found, SEGMENT_HEADER_BYTES, record_at, resync, stored_at};

/// One read. The slices of a piece share it: this much is kept alive by any of them.
const PIECE_BYTES: u64 = 1024 * 1024;

/// A place in a segment.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub file: Arc<dyn LogFile>,
    pub salt: u32,
    /// The segment's.
    pub first_sequence: u64,
    pub offset: u64,
    /// Of the record that should stand there.
    pub sequence: u64,
}

/// What stands there.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub records: VecDeque<Stored>,
    /// These fail their checksum, and the place is behind them. Only where there are no records.
    pub damaged: Option<Range<u64>>,
}

impl Place {
    pub(super) fn first(file: Arc<dyn LogFile>, salt: u32, first_sequence: u64) -> Self {
        Self {
            file,
            salt,
            first_sequence,
            offset: SEGMENT_HEADER_BYTES,
            sequence: first_sequence,
        }
    }

    /// Reads on and moves; gives the records from `from` on. The segment holds every sequence before
    /// `end_sequence`, all of them durable, and is `len_bytes` long: whatever is missing is damaged.
    pub(super) fn read(&mut self, from: u64, end_sequence: u64, len_bytes: u64) -> io::Result<Piece> {
        let mut piece = Piece::default();
        let mut size = PIECE_BYTES;
        while self.sequence < end_sequence && piece.records.is_empty() {
            let left = len_bytes.saturating_sub(self.offset);
            let asked = size.min(left);
            let bytes = self.bytes(asked)?;
            let (moved, stopped) = self.records(&bytes, from, end_sequence, &mut piece.records);
            self.offset += moved as u64;
            if moved > 0 {
                continue;
            }
            size = match stopped {
                // Longer than what was read, or (with a damaged length) what looks like it.
                Found::Short { needed_bytes }
                    if bytes.len() as u64 == asked && (asked + 1..=left).contains(&needed_bytes) =>
                {
                    needed_bytes
                }
                _ => {
                    piece.damaged = Some(self.step_over(end_sequence, len_bytes)?);
                    break;
                }
            };
        }
        Ok(piece)
    }

    /// Takes whole records, from `from` on, and moves behind them. Judges nothing: what is not whole may still be
    /// written.
    pub(super) fn available(&mut self, from: u64, len_bytes: u64) -> io::Result<VecDeque<Stored>> {
        let mut records = VecDeque::new();
        let mut size = PIECE_BYTES;
        while records.is_empty() {
            let left = len_bytes.saturating_sub(self.offset);
            let asked = size.min(left);
            let bytes = self.bytes(asked)?;
            let (moved, stopped) = self.records(&bytes, from, u64::MAX, &mut records);
            self.offset += moved as u64;
            match stopped {
                _ if moved > 0 => size = PIECE_BYTES,
                Found::Short { needed_bytes }
                    if bytes.len() as u64 == asked && (asked + 1..=left).contains(&needed_bytes) =>
                {
                    size = needed_bytes;
                }
                _ => break,
            }
        }
        Ok(records)
    }

    /// Takes the whole records from the start of `bytes`; returns how far they go and what stopped them.
    fn records(
        &mut self,
        bytes: &Bytes,
        from: u64,
        end_sequence: u64,
        records: &mut VecDeque<Stored>,
    ) -> (usize, Found) {
        let mut at = 0;
        while self.sequence < end_sequence {
            let rest = bytes.get(at..).unwrap_or_default();
            match record_at(rest, self.salt, &(self.sequence..self.sequence + 1)) {
                Found::Record {
                    header,
                    bytes: record_bytes,
                } => {
                    if self.sequence >= from {
                        records.push_back(stored_at(bytes, at, &header));
                    }
                    at += record_bytes;
                    self.sequence += 1;
                }
                stopped => return (at, stopped),
            }
        }
        (at, Found::Nothing)
    }

    /// Goes to the next whole record of the segment, or to its end; returns the sequences in between.
    fn step_over(&mut self, end_sequence: u64, len_bytes: u64) -> io::Result<Range<u64>> {
        let rest = self.bytes(len_bytes.saturating_sub(self.offset))?;
        let first = self.sequence;
        match resync(&rest, 1, self.salt, &(first + 1..end_sequence)) {
            Some((at, header)) => {
                self.offset += at as u64;
                self.sequence = header.sequence;
            }
            None => {
                self.offset = len_bytes;
                self.sequence = end_sequence;
            }
        }
        Ok(first..self.sequence)
    }

    fn bytes(&self, size: u64) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(usize::try_from(size).unwrap_or_default());
        let filled = read_full_at(&*self.file, &mut bytes, self.offset)?;
        bytes.truncate(filled);
        Ok(bytes.freeze())
    }
}
