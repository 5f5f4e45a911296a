//! Changes on their way to the writer thread, and those who wait for them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;

use super::change::Change;

/// The number of a change; all changes up to it are committed before or with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(super) u64);

/// The change was not committed before the store ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of sessions ended before the change was durable")]
pub(crate) struct NotDurable;

/// Resolves when a change is durable.
#[derive(Debug)]
pub(crate) struct Wait(pub(super) oneshot::Receiver<()>);

impl Future for Wait {
    type Output = Result<(), NotDurable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotDurable)
    }
}

/// What the front and the writer thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) changes: VecDeque<Change>,
    /// Of the retained messages that are not committed.
    pub(super) retained_bytes: usize,
    pub(super) submitted: u64,
    pub(super) durable: u64,
    /// By ticket, since tickets only grow.
    pub(super) waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    pub(super) closing: bool,
    /// Nothing is committed any more.
    pub(super) ended: bool,
    /// What keeps the writer from writing, in words for an operator.
    pub(super) trouble: Option<String>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every critical section leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How old the store is: it counts while a process has it and, by the wall clock, between two processes. A step of
/// the wall clock while a process runs changes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) base_ms: u64,
    pub(super) since: Instant,
}

impl Clock {
    pub(super) fn age_ms(self) -> u64 {
        self.base_ms + u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
