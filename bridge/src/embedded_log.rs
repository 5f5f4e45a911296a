//! How much the embedded Kafka holds.
//!
//! librdkafka's in-process cluster keeps 5 MiB a partition and then drops the oldest records without a word. So
//! bytes are counted here, a record at a time and as if each were a batch of its own (the most that it can take), and
//! no record is handed over that might not fit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a partition keeps.
const MAX_PARTITION_BYTES: u64 = 5 * 1024 * 1024;
/// Batch header and record framing, at most, of a record that has a batch to itself.
const RECORD_OVERHEAD_BYTES: u64 = 61 + 32;

/// Bytes of every partition, over all producers of the process.
#[derive(Debug, Default)]
pub(crate) struct EmbeddedLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Reserved, not yet confirmed: they may all go to one partition.
    in_flight_bytes: u64,
    fullest_bytes: u64,
    partitions: HashMap<String, HashMap<i32, u64>>,
}

impl EmbeddedLog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a record; false where it might push another out.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let bytes = bytes as u64 + RECORD_OVERHEAD_BYTES;
        let fits = state.fullest_bytes + state.in_flight_bytes + bytes <= MAX_PARTITION_BYTES;
        if fits {
            state.in_flight_bytes += bytes;
        }
        fits
    }

    /// A reserved record stands in a partition.
    pub(crate) fn stored(&self, topic: &str, partition: i32, bytes: usize) {
        self.release(bytes);
        let mut state = self.state();
        if !state.partitions.contains_key(topic) {
            state.partitions.insert(topic.to_owned(), HashMap::new());
        }
        let Some(partitions) = state.partitions.get_mut(topic) else {
            return;
        };
        let held = partitions.entry(partition).or_default();
        *held += bytes as u64 + RECORD_OVERHEAD_BYTES;
        let held = *held;
        state.fullest_bytes = state.fullest_bytes.max(held);
    }

    /// A reserved record went nowhere.
    pub(crate) fn release(&self, bytes: usize) {
        let mut state = self.state();
        state.in_flight_bytes = state
            .in_flight_bytes
            .saturating_sub(bytes as u64 + RECORD_OVERHEAD_BYTES);
    }

    /// Nothing is on its way that could make room.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().in_flight_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_partition_decides() {
        let log = EmbeddedLog::default();
        let megabyte = 1024 * 1024;
        for _ in 0..4 {
            assert!(log.reserve(megabyte));
            log.stored("a", 1, megabyte);
        }
        assert!(log.reserve(900 * 1024));
        assert!(
            !log.reserve(900 * 1024),
            "what is in flight may go to the same partition"
        );
        log.stored("a", 0, 900 * 1024);
        assert!(log.reserve(900 * 1024), "it went to another one");
        log.release(900 * 1024);
        assert!(!log.reserve(megabyte));
        assert!(log.is_idle());
    }
}
