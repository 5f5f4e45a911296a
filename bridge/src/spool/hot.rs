//! The newest durable commits, kept in memory for readers that keep up. Bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commit::Commit;

/// Arenas kept for reuse: one being filled, the others on their way through the readers.
const ARENAS_MAX: usize = 8;
/// An arena that one unusual commit made larger than this is not kept.
const ARENA_MAX_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Hot {
    commits: VecDeque<Arc<Commit>>,
    bytes: u64,
    max_bytes: u64,
    arenas: Vec<Vec<u8>>,
}

impl Hot {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            commits: VecDeque::new(),
            bytes: 0,
            max_bytes,
            arenas: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the newest commit; drops what every cursor has passed, and the oldest until the rest fits.
    pub(super) fn push(&mut self, commit: Commit, delivered: u64) {
        self.bytes += commit.pinned_bytes();
        self.commits.push_back(Arc::new(commit));
        while let Some(oldest) = self.commits.front() {
            if self.bytes <= self.max_bytes && oldest.sequences().end > delivered {
                break;
            }
            self.bytes -= oldest.pinned_bytes();
            if let Some(commit) = self.commits.pop_front().and_then(Arc::into_inner) {
                self.keep_arena(commit.into_arena());
            }
        }
    }

    pub(super) fn keep_arena(&mut self, arena: Option<Vec<u8>>) {
        if let Some(arena) = arena.filter(|arena| arena.capacity() <= ARENA_MAX_BYTES)
            && self.arenas.len() < ARENAS_MAX
        {
            self.arenas.push(arena);
        }
    }

    pub(super) fn take_arena(&mut self) -> Vec<u8> {
        self.arenas.pop().unwrap_or_default()
    }

    /// The commit that holds `sequence`.
    pub(super) fn get(&self, sequence: u64) -> Option<Arc<Commit>> {
        let index = self
            .commits
            .partition_point(|commit| commit.sequences().end <= sequence);
        self.commits
            .get(index)
            .filter(|commit| commit.sequences().contains(&sequence))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Entry;
    use super::*;

    fn commit(first_sequence: u64) -> Commit {
        let entry = Entry {
            meta: Bytes::new(),
            payload: Bytes::from_static(&[0; 76]),
        };
        Commit::encode(
            [&entry, &entry].into_iter(),
            first_sequence,
            1,
            0,
            Vec::with_capacity(200),
        )
    }

    #[test]
    fn the_oldest_commits_go_when_the_window_is_full() {
        let mut hot = Hot::new(600);
        for first_sequence in [1, 3, 5, 7] {
            hot.push(commit(first_sequence), 0);
        }
        assert_eq!(hot.bytes(), 600);
        assert!(hot.get(2).is_none());
        assert_eq!(hot.get(3).unwrap().sequences(), 3..5);
        assert_eq!(hot.get(8).unwrap().sequences(), 7..9);
        assert!(hot.get(9).is_none());
    }

    #[test]
    fn what_every_cursor_has_passed_goes_at_once_and_its_buffer_is_reused() {
        let mut hot = Hot::new(1 << 20);
        hot.push(commit(1), 0);
        hot.push(commit(3), 3);
        assert!(hot.get(2).is_none());
        assert!(hot.get(3).is_some());
        assert_eq!(hot.take_arena().capacity(), 200);
    }

    #[test]
    fn a_window_of_nothing_keeps_nothing() {
        let mut hot = Hot::new(0);
        hot.push(commit(1), 0);
        assert_eq!(hot.bytes(), 0);
        assert!(hot.get(1).is_none());
    }
}
