//! The thread that commits.

use std::time::Duration;

use super::change::Change;
use super::queue::{Clock, Shared};
use super::tables::Database;
use crate::metrics;

/// Changes of one transaction.
const MAX_CHANGES: usize = 10_000;
/// Without changes, the clock is saved so often: what a crash makes of the time since then goes by the wall clock.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// Pause after a commit that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Dropped last, also where the thread crashes: those who wait see that nothing comes.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.ended = true;
        queue.changes.clear();
        queue.waiting.clear();
    }
}

pub(super) fn run(shared: &Shared, database: Database, clock: Clock) {
    let _ended = Ended(shared);
    // Moved, so that the file is free when the end is seen.
    let mut database = database;
    while let Some(changes) = take(shared) {
        while let Err(error) = database.commit(&changes, clock.age_ms()) {
            metrics::persistence_failed();
            let error =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let known = shared.lock().trouble.replace(error.clone()).is_some();
            if !known {
                tracing::error!(
                    error,
                    "sessions and retained messages cannot be written; what relies on them waits, and all is tried again"
                );
            }
            if !pause(shared) {
                tracing::error!(
                    changes = changes.len(),
                    "stopped before these changes of sessions were written"
                );
                return;
            }
            // An error leaves the database unusable by design: nothing is known of what it had in memory.
            database.reopen();
        }
        let count = changes.len();
        let retained_bytes: usize = changes.iter().map(Change::retained_bytes).sum();
        // First, so that who waits for them finds their room free.
        drop(changes);
        committed(shared, count, retained_bytes);
    }
}

/// The next changes, empty for a heartbeat; `None` at the end.
fn take(shared: &Shared) -> Option<Vec<Change>> {
    let queue = shared.lock();
    let (mut queue, _timeout) = shared
        .changed
        .wait_timeout_while(queue, HEARTBEAT, |queue| {
            queue.changes.is_empty() && !queue.closing
        })
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if queue.changes.is_empty() && queue.closing {
        return None;
    }
    let count = queue.changes.len().min(MAX_CHANGES);
    Some(queue.changes.drain(..count).collect())
}

/// False where there is no time for another try.
fn pause(shared: &Shared) -> bool {
    let (queue, _timeout) = shared
        .changed
        .wait_timeout_while(shared.lock(), RETRY, |queue| !queue.closing)
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    !queue.closing
}

fn committed(shared: &Shared, count: usize, retained_bytes: usize) {
    let mut queue = shared.lock();
    queue.retained_bytes -= retained_bytes;
    if queue.trouble.take().is_some() {
        tracing::info!("sessions and retained messages are written again");
    }
    queue.durable += count as u64;
    let durable = queue.durable;
    let ready = queue.waiting.partition_point(|(ticket, _)| *ticket <= durable);
    let ready = queue.waiting.drain(..ready).collect::<Vec<_>>();
    drop(queue);
    for (_, waiter) in ready {
        // One that has gone is no error.
        let _gone = waiter.send(());
    }
}
