//! Durable entries in order: from memory for a reader that keeps up, from disk for one that does not.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

use super::Stored;
use super::catalog::{self, Segment, segment_name};
use super::cold;
use super::commit::{Commit, Walk};
use super::error::{Cause, ReadError};
use super::mutex::lock;
use super::shared::{Durable, Shared};

/// Reads on from where it stands; one task uses it.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    durable: watch::Receiver<Durable>,
    /// The next sequence to give out.
    position: u64,
    /// Read from disk and not given out yet.
    ahead: VecDeque<Stored>,
    /// Found behind `ahead`.
    lost: Option<(Range<u64>, Cause)>,
    /// Where in which segment the disk is to be read next.
    cold: Option<cold::Place>,
    /// Where in which commit memory is to be read next.
    hot: Option<(Arc<Commit>, Walk)>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, position: u64) -> Self {
        let durable = shared.durable.subscribe();
        Self {
            shared,
            durable,
            position,
            ahead: VecDeque::new(),
            lost: None,
            cold: None,
            hot: None,
        }
    }

    /// The sequence of the next entry.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The first sequence that is not durable yet.
    pub fn end_sequence(&self) -> u64 {
        self.durable.borrow().end_sequence
    }

    /// Goes to another place; a sequence that is not durable yet is waited for.
    pub fn seek(&mut self, sequence: u64) {
        *self = Self::new(self.shared.clone(), sequence);
    }

    /// At least one entry, at most `max_records`, of at most `max_bytes` of metas and payloads unless the first
    /// alone has more. Waits where there is none. Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Stored>, ReadError> {
        let mut batch = Batch {
            records: Vec::new(),
            max_records: max_records.max(1),
            max_bytes,
            bytes: 0,
        };
        loop {
            self.take_ahead(&mut batch);
            if !batch.records.is_empty() {
                return Ok(batch.records);
            }
            if let Some((sequences, cause)) = self.lost.take() {
                self.position = sequences.end;
                return Err(ReadError::Lost { sequences, cause });
            }
            let durable = *self.durable.borrow_and_update();
            if self.position < durable.end_sequence {
                if self.take_hot(&mut batch, durable.end_sequence) {
                    return Ok(batch.records);
                }
                self.read_cold(durable.end_sequence).await?;
            } else if !durable.open || self.durable.changed().await.is_err() {
                return Err(ReadError::Closed);
            }
        }
    }

    fn take_ahead(&mut self, batch: &mut Batch) {
        while let Some(stored) = self.ahead.front() {
            if !batch.takes(stored) {
                break;
            }
            self.position = stored.sequence + 1;
            batch.records.extend(self.ahead.pop_front());
        }
    }

    /// False where memory does not hold the next entry.
    fn take_hot(&mut self, batch: &mut Batch, end_sequence: u64) -> bool {
        while self.position < end_sequence {
            let at_hand = self
                .hot
                .take()
                .filter(|(_, walk)| walk.sequence() == self.position);
            let found = at_hand.or_else(|| {
                let commit = lock(&self.shared.hot).get(self.position)?;
                let mut walk = commit.walk();
                commit.seek(&mut walk, self.position);
                Some((commit, walk))
            });
            let Some((commit, mut walk)) = found else { break };
            let full = loop {
                let before = walk;
                let Some(stored) = commit.next(&mut walk) else {
                    break false;
                };
                if !batch.takes(&stored) {
                    walk = before;
                    break true;
                }
                self.position = stored.sequence + 1;
                batch.records.push(stored);
            };
            if full {
                self.hot = Some((commit, walk));
                break;
            }
        }
        if !batch.records.is_empty() {
            self.cold = None;
        }
        !batch.records.is_empty()
    }

    /// Reads a piece of a segment, or finds out that there is none.
    async fn read_cold(&mut self, end_sequence: u64) -> Result<(), ReadError> {
        let segment = match lock(&self.shared.catalog).locate(self.position, end_sequence) {
            catalog::Place::Segment(segment) => segment,
            catalog::Place::Lost(sequences) => {
                self.lost = Some((sequences, Cause::Removed));
                return Ok(());
            }
        };
        let limit = segment.sequences.end.min(end_sequence);
        let Some(salt) = segment.salt else {
            self.lost = Some((self.position..limit, Cause::Corrupt));
            return Ok(());
        };
        let place = self.cold.clone().filter(|place| {
            place.salt == salt
                && segment.sequences.contains(&place.sequence)
                && place.sequence <= self.position
        });
        let from = self.position;
        let len_bytes = segment.len_bytes;
        let fs = self.shared.fs.clone();
        let path = self.shared.dir.join(segment_name(segment.sequences.start));
        let first_sequence = segment.sequences.start;
        let read = tokio::task::spawn_blocking(move || {
            let mut place = match place {
                Some(place) => place,
                None => cold::Place::first(fs.open(&path)?, salt, first_sequence),
            };
            let piece = place.read(from, limit, len_bytes)?;
            io::Result::Ok((place, piece))
        });
        // A blocking task ends early only with its runtime.
        let read = read.await.map_err(io::Error::other).flatten();
        match read {
            Ok((place, piece)) => {
                self.cold = Some(place);
                self.take_piece(piece, &segment);
                Ok(())
            }
            // It was removed while it was read: the next round finds what came after it.
            Err(_) if self.is_gone(&segment) => Ok(()),
            Err(source) => {
                let path = self.shared.dir.join(segment_name(segment.sequences.start));
                Err(ReadError::io("read", &path, source))
            }
        }
    }

    fn take_piece(&mut self, piece: cold::Piece, segment: &Segment) {
        if piece.damaged.is_some() && self.is_gone(segment) {
            // Its file leads another life.
            self.cold = None;
            return;
        }
        self.ahead = piece.records;
        let damaged = piece
            .damaged
            .map(|damaged| damaged.start.max(self.position)..damaged.end);
        self.lost = damaged.filter(|damaged| !damaged.is_empty()).map(|damaged| {
            let doubtful = damaged.start >= segment.proven_sequence;
            (
                damaged,
                if doubtful {
                    Cause::CorruptOrTorn
                } else {
                    Cause::Corrupt
                },
            )
        });
    }

    fn is_gone(&self, segment: &Segment) -> bool {
        match lock(&self.shared.catalog).locate(self.position, u64::MAX) {
            catalog::Place::Segment(now) => now.salt != segment.salt,
            catalog::Place::Lost(_) => true,
        }
    }
}

struct Batch {
    records: Vec<Stored>,
    max_records: usize,
    max_bytes: usize,
    bytes: usize,
}

impl Batch {
    /// Counts it in if it fits.
    fn takes(&mut self, stored: &Stored) -> bool {
        let bytes = stored.meta.len() + stored.payload.len();
        let fits =
            self.records.len() < self.max_records && self.bytes.saturating_add(bytes) <= self.max_bytes;
        if !fits && !self.records.is_empty() {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }
}
