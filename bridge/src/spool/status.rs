//! A look at the spool from outside: for the admin page, the metrics and `shopfloor spool status`.

use std::sync::atomic::Ordering;

use super::error::Hold;
use super::mutex::lock;
use super::shared::Shared;

/// One moment; the parts are read one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Of all files.
    pub bytes: u64,
    pub max_bytes: u64,
    pub segments: usize,
    /// Recycled files that wait to become segments.
    pub spares: usize,
    /// The oldest entry that is still there.
    pub first_sequence: u64,
    /// The next that will be durable.
    pub next_sequence: u64,
    pub cursors: Vec<CursorStatus>,
    /// `None` where the file system would not say.
    pub free_disk_bytes: Option<u64>,
    /// Why appends are held back, if they are.
    pub held: Option<Hold>,
    /// Accepted and not yet durable.
    pub queue_bytes: u64,
    /// In memory for readers.
    pub hot_bytes: u64,
    /// Since the spool was opened, as all that follow.
    pub commits: u64,
    pub entries: u64,
    pub stored_bytes: u64,
    /// Segments given up after a failed write or fdatasync.
    pub failures: u64,
    /// Spent in writing and syncing commits.
    pub store_us: u64,
}

/// How far one sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorStatus {
    pub name: String,
    pub position: u64,
    /// What a crash now would come back with.
    pub saved_position: u64,
    /// Entries that it has not confirmed.
    pub lag: u64,
}

pub(super) fn status(shared: &Shared) -> Status {
    let cursors = lock(&shared.cursors).clone();
    let next_sequence = shared.durable.borrow().end_sequence;
    let cursors = cursors.iter().map(|cursor| {
        let position = cursor.position.load(Ordering::Acquire);
        CursorStatus {
            name: cursor.name.clone(),
            position,
            saved_position: cursor.saved.load(Ordering::Acquire),
            lag: next_sequence.saturating_sub(position),
        }
    });
    let cursors = cursors.collect();
    let (bytes, segments, spares) = {
        let catalog = lock(&shared.catalog);
        (catalog.bytes(), catalog.len(), catalog.spares())
    };
    let counters = &shared.counters;
    Status {
        bytes,
        max_bytes: shared.config.max_bytes,
        segments,
        spares,
        first_sequence: shared.first_sequence(),
        next_sequence,
        cursors,
        free_disk_bytes: shared.fs.free_bytes(&shared.dir).ok(),
        held: shared.queue.held(),
        queue_bytes: shared.queue.bytes(),
        hot_bytes: lock(&shared.hot).bytes(),
        commits: counters.commits.load(Ordering::Relaxed),
        entries: counters.entries.load(Ordering::Relaxed),
        stored_bytes: counters.bytes.load(Ordering::Relaxed),
        failures: counters.failures.load(Ordering::Relaxed),
        store_us: counters.store_us.load(Ordering::Relaxed),
    }
}
