//! How far a sink is: its durable cursor, and whoever waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::metrics;
use crate::spool::Cursor;

/// A sink's cursor, watched.
#[derive(Debug)]
pub(crate) struct Progress {
    sink: &'static str,
    cursor: Cursor,
    moved: watch::Sender<u64>,
    /// What holds the sink up, in words for an operator; `None` while it flows.
    trouble: Mutex<Option<String>>,
    halted: AtomicBool,
}

impl Progress {
    pub(crate) fn new(sink: &'static str, cursor: Cursor) -> Self {
        let moved = watch::Sender::new(cursor.position());
        Self {
            sink,
            cursor,
            moved,
            trouble: Mutex::default(),
            halted: AtomicBool::new(false),
        }
    }

    pub(crate) fn sink(&self) -> &'static str {
        self.sink
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Everything before `to` is confirmed.
    pub(crate) fn advance(&self, to: u64) {
        let before = *self.moved.borrow();
        if to > before {
            self.cursor.advance(to);
            self.moved.send_replace(to);
            metrics::delivered(self.sink, to - before);
        }
    }

    /// Resolves when everything before `to` is confirmed.
    pub(crate) async fn reached(&self, to: u64) {
        let mut moved = self.moved.subscribe();
        // The sender lives as long as `self`.
        let _closed = moved.wait_for(|position| *position >= to).await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what holds the sink up, and logs it when it is news.
    pub(crate) fn stuck(&self, why: String) {
        let mut trouble = self.lock();
        if trouble.as_ref() != Some(&why) {
            tracing::error!(sink = self.sink, "{why}");
            *trouble = Some(why);
        }
    }

    /// The sink has given up until a restart.
    pub(crate) fn halt(&self, why: String) {
        self.stuck(why);
        self.halted.store(true, Ordering::Release);
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    pub(crate) fn flows(&self) {
        if self.lock().take().is_some() {
            tracing::info!(sink = self.sink, "the sink goes on");
        }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().clone()
    }
}
