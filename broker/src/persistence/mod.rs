//! What of the front survives a restart: sessions, their subscriptions and queued messages, retained messages, wills.
//!
//! Layout, in the order in which a change passes:
//!
//! - `change`: what a restart must find, and what it finds.
//! - [`Persistence::submit`]: whoever changes something says so, without waiting, and gets a [`Ticket`]; `queue`: where
//!   changes and those who wait for them are until then.
//! - `writer`: one thread commits all that waits in one transaction; while it syncs, the next one gathers.
//! - `tables`: the tables of the database, and what a start finds in them; `error`: why it cannot.
//! - `records`: the values in them.
//!
//! The database is redb: one file, copy on write, checksums. A commit is there whole after a crash or not at all, and
//! changes are committed in the order in which they were submitted, so what a start finds is what once was.
//!
//! Promise: an answer that relies on a change waits for its ticket ([`Persistence::wait`]). A disk that takes nothing
//! delays those answers; it makes none of them untrue, and telemetry goes its own way through the spool.
//!
//! Memory holds everything; the database is read at the start only.

mod change;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod queue;
mod records;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::PersistenceConfig;
pub(crate) use change::{Change, Found, KeptSession, Restored};
pub use error::PersistenceError;
use queue::{Clock, Shared};
pub(crate) use queue::{NotDurable, Ticket, Wait};
use tables::Database;

/// The handle. Dropped, it ends the writer once what was submitted is committed, or has failed once more.
#[derive(Debug)]
pub(crate) struct Persistence {
    shared: Arc<Shared>,
    clock: Clock,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Persistence {
    /// Opens or creates the database in `dir` and reads it. Blocks.
    pub(crate) fn open(dir: &Path, config: &PersistenceConfig) -> Result<(Self, Restored), PersistenceError> {
        let (database, restored, base_ms) = Database::open(dir, config)?;
        Ok((Self::start(database, base_ms)?, restored))
    }

    fn start(database: Database, base_ms: u64) -> Result<Self, PersistenceError> {
        let shared = Arc::new(Shared::default());
        let clock = Clock {
            base_ms,
            since: Instant::now(),
        };
        let writing = shared.clone();
        let writer = std::thread::Builder::new()
            .name("mqtt-sessions".to_owned())
            .spawn(move || writer::run(&writing, database, clock))
            .map_err(PersistenceError::Thread)?;
        Ok(Self {
            shared,
            clock,
            writer: Some(writer),
        })
    }

    /// Hands a change over, behind all earlier ones. Never waits.
    pub(crate) fn submit(&self, change: Change) -> Ticket {
        let mut queue = self.shared.lock();
        queue.submitted += 1;
        let ticket = Ticket(queue.submitted);
        if !queue.ended {
            queue.retained_bytes += change.retained_bytes();
            queue.changes.push_back(change);
        }
        drop(queue);
        self.shared.changed.notify_one();
        ticket
    }

    pub(crate) fn wait(&self, ticket: Ticket) -> Wait {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.shared.lock();
        if queue.durable >= ticket.0 {
            // The receiver is there: it is in hand.
            let _received = sender.send(());
        } else if !queue.ended {
            let behind = queue.waiting.partition_point(|(other, _)| *other <= ticket.0);
            queue.waiting.insert(behind, (ticket.0, sender));
        }
        Wait(receiver)
    }

    /// Bytes of retained messages that wait for the disk.
    pub(crate) fn retained_bytes(&self) -> usize {
        self.shared.lock().retained_bytes
    }

    /// Milliseconds that the store has existed.
    pub(crate) fn age_ms(&self) -> u64 {
        self.clock.age_ms()
    }

    /// What keeps changes from being written, if something does.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.lock().trouble.clone()
    }

    /// Takes nothing more; resolves when what was submitted is committed, or cannot be, and the file is free.
    pub(crate) async fn close(&self) {
        let ticket = {
            let mut queue = self.shared.lock();
            queue.closing = true;
            // No change has it: its waiter goes when the writer has ended.
            Ticket(u64::MAX)
        };
        self.shared.changed.notify_one();
        let _ended = self.wait(ticket).await;
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            let _crashed = writer.join();
        }
    }
}
