//! What of the front survives a restart: sessions, their subscriptions and queued messages, retained messages, wills.
//!
//! Layout, in the order in which a change passes:
//!
//! - [`Change`], [`Persistence::submit`]: whoever changes something says so, without waiting, and gets a [`Ticket`].
//! - `writer`: one thread commits all that waits in one transaction; while it syncs, the next one gathers.
//! - `tables`: the tables of the database, and what a start finds in them.
//! - `records`: the values in them.
//!
//! The database is redb: one file, copy on write, checksums. A commit is there whole after a crash or not at all, and
//! changes are committed in the order in which they were submitted, so what a start finds is what once was.
//!
//! Promise: an answer that relies on a change waits for its ticket ([`Persistence::wait`]). A disk that takes nothing
//! delays those answers; it makes none of them untrue, and telemetry goes its own way through the spool.
//!
//! Memory holds everything; the database is read at the start only.

mod records;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::config::PersistenceConfig;
use crate::message::{Delivery, Message};
use crate::session::{Inflight, PendingWill, Subscribed};
use tables::Database;

/// Something that a restart must find.
#[derive(Debug)]
pub(crate) enum Change {
    /// A session begins, is resumed or left: its row as it is from now on.
    Session(Box<KeptSession>),
    /// A session is over, with all that it had.
    End {
        session: u64,
    },
    Subscribe {
        session: u64,
        filter: String,
        subscribed: Subscribed,
    },
    Unsubscribe {
        session: u64,
        filter: String,
    },
    /// The message is its topic's retained one; without a payload the topic has none any more.
    Retain(Arc<Message>),
    /// A QoS 1 or 2 message waits for a subscriber.
    Queue {
        session: u64,
        delivery: Delivery,
    },
    /// It goes out under this packet identifier.
    Sent {
        session: u64,
        position: u64,
        packet_id: u16,
    },
    /// The subscriber has it (PUBREC); only its PUBCOMP is missing.
    Received {
        session: u64,
        position: u64,
        packet_id: u16,
    },
    /// Nothing of it is left to do.
    Done {
        session: u64,
        position: u64,
    },
}

/// A session's own row.
#[derive(Debug, Clone)]
pub(crate) struct KeptSession {
    pub(crate) key: u64,
    pub(crate) client_id: String,
    pub(crate) expiry_s: u32,
    /// When its connection left it, on the clock of [`Persistence::age_ms`]; `None` while it is connected.
    pub(crate) left_ms: Option<u64>,
    pub(crate) will: Option<PendingWill>,
}

/// A session as a start finds it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) session: KeptSession,
    pub(crate) filters: BTreeMap<String, Subscribed>,
    /// Sent and not done, in the order in which they went.
    pub(crate) inflight: VecDeque<Inflight>,
    /// Not sent yet.
    pub(crate) queue: VecDeque<Delivery>,
}

/// Everything that a start finds.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) sessions: Vec<Found>,
    pub(crate) retained: Vec<Message>,
    /// The last moment at which the process before this one is known to have lived.
    pub(crate) last_ms: u64,
}

/// The number of a change; all changes up to it are committed before or with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Why the store of sessions cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PersistenceError {
    #[error("cannot create {}", .dir.display())]
    Create { dir: PathBuf, source: std::io::Error },
    #[error("{}: another process uses these sessions; stop it or give this gateway a directory of its own", .path.display())]
    Locked { path: PathBuf },
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: sessions and retained messages cannot be read; restore the file, or move it away to begin without them \
         (messages in the spool do not depend on it)",
        .path.display()
    )]
    Unreadable { path: PathBuf, source: Box<redb::Error> },
    #[error("{}: format version {found} is not known here (this build knows {known}); use the newer build", .path.display())]
    Version { path: PathBuf, found: u64, known: u64 },
    #[error("no thread for writing sessions")]
    Thread(#[source] std::io::Error),
}

/// The change was not committed before the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of sessions ended before the change was durable")]
pub(crate) struct NotDurable;

/// Resolves when a change is durable.
#[derive(Debug)]
pub(crate) struct Wait(oneshot::Receiver<()>);

impl Future for Wait {
    type Output = Result<(), NotDurable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotDurable)
    }
}

/// The handle. Dropped, it ends the writer once what was submitted is committed, or has failed once more.
#[derive(Debug)]
pub(crate) struct Persistence {
    shared: Arc<Shared>,
    clock: Clock,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// How old the store is: it counts while a process has it and, by the wall clock, between two processes. A step of
/// the wall clock while a process runs changes nothing.
#[derive(Debug, Clone, Copy)]
struct Clock {
    base_ms: u64,
    since: Instant,
}

impl Clock {
    fn age_ms(self) -> u64 {
        self.base_ms + u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the front and the writer thread share.
#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Change>,
    submitted: u64,
    durable: u64,
    /// By ticket, since tickets only grow.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    closing: bool,
    /// Nothing is committed any more.
    ended: bool,
    /// What keeps the writer from writing, in words for an operator.
    trouble: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every critical section leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Persistence {
    /// Opens or creates the database in `dir` and reads it. Blocks.
    pub(crate) fn open(dir: &Path, config: &PersistenceConfig) -> Result<(Self, Restored), PersistenceError> {
        let (database, restored, base_ms) = Database::open(dir, config)?;
        Ok((Self::start(database, base_ms)?, restored))
    }

    fn start(database: Database, base_ms: u64) -> Result<Self, PersistenceError> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
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
