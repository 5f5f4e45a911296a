//! Where appends wait for the writer thread. Bounded in bytes; never blocks who appends.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::Entry;
use super::commit::encoded_bytes;
use super::error::{Done, Hold, Refused};
use super::mutex::lock;

/// One append.
pub(super) struct Job {
    pub entries: Vec<Entry>,
    pub done: Done,
    /// On disk.
    pub encoded_bytes: u64,
}

impl Job {
    /// In the queue: an entry without bytes costs memory too.
    fn queued_bytes(&self) -> u64 {
        self.encoded_bytes + (size_of::<Self>() + self.entries.len() * size_of::<Entry>()) as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is queued is still stored.
    Closing,
    /// Nobody stores anything any more.
    Stopped,
}

/// What the writer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Jobs,
    /// Nothing came for the time given.
    Idle,
    /// Closed, and nothing is left.
    End,
}

pub(super) struct Queue {
    state: Mutex<State>,
    for_writer: Condvar,
    room: Notify,
    max_bytes: u64,
    job_max_bytes: u64,
}

struct State {
    jobs: VecDeque<Job>,
    /// Queued, and taken but not yet durable.
    bytes: u64,
    phase: Phase,
    held: Option<Hold>,
    writer_waits: bool,
    /// Set when disk space may have become free.
    space: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl State {
    fn accepts(&self, bytes: u64, max_bytes: u64) -> bool {
        // An empty queue takes one append of any permitted size.
        self.held.is_none() && (self.bytes == 0 || self.bytes.saturating_add(bytes) <= max_bytes)
    }
}

impl Queue {
    pub(super) fn new(max_bytes: u64, job_max_bytes: u64) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            bytes: 0,
            phase: Phase::Open,
            held: None,
            writer_waits: false,
            space: false,
        };
        Self {
            state: Mutex::new(state),
            for_writer: Condvar::new(),
            room: Notify::new(),
            max_bytes,
            job_max_bytes,
        }
    }

    pub(super) fn push(&self, entries: Vec<Entry>, done: Done) -> Result<(), Refused> {
        let encoded_bytes = entries.iter().map(encoded_bytes).sum();
        if encoded_bytes > self.job_max_bytes {
            return Err(Refused::TooLarge(entries, done));
        }
        let job = Job {
            entries,
            done,
            encoded_bytes,
        };
        let bytes = job.queued_bytes();
        let mut state = lock(&self.state);
        if state.phase != Phase::Open {
            return Err(Refused::Closed(job.entries, job.done));
        }
        if !state.accepts(bytes, self.max_bytes) {
            return Err(Refused::Busy(job.entries, job.done));
        }
        state.bytes += bytes;
        state.jobs.push_back(job);
        if std::mem::take(&mut state.writer_waits) {
            drop(state);
            self.for_writer.notify_one();
        }
        Ok(())
    }

    /// Resolves when an append may be taken, or will never be again.
    pub(super) async fn room(&self) {
        loop {
            let mut changed = std::pin::pin!(self.room.notified());
            changed.as_mut().enable();
            {
                let state = lock(&self.state);
                // Half of the queue, so that those who wait do not fight for every freed byte.
                if state.phase != Phase::Open || state.accepts(self.max_bytes / 2, self.max_bytes) {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Moves the next appends, as many as fit `room_bytes`, into `jobs`; one that does not fit comes with what
    /// fits `commit_max_bytes`. Waits for the first of them, at most `idle` where one is given.
    pub(super) fn take(
        &self,
        room_bytes: u64,
        commit_max_bytes: u64,
        idle: Option<Duration>,
        jobs: &mut Vec<Job>,
    ) -> Taken {
        let mut state = lock(&self.state);
        let mut waited = false;
        while state.jobs.is_empty() {
            if state.phase != Phase::Open {
                return Taken::End;
            }
            if waited {
                return Taken::Idle;
            }
            state.writer_waits = true;
            state = match idle {
                None => self
                    .for_writer
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(idle) => {
                    let (state, timeout) = self
                        .for_writer
                        .wait_timeout(state, idle)
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    waited = timeout.timed_out();
                    state
                }
            };
            state.writer_waits = false;
        }
        let first_bytes = state.jobs.front().map_or(0, |job| job.encoded_bytes);
        let limit = if first_bytes <= room_bytes {
            room_bytes.min(commit_max_bytes)
        } else {
            commit_max_bytes
        };
        let mut bytes = 0;
        while let Some(job) = state.jobs.front() {
            if bytes > 0 && bytes + job.encoded_bytes > limit {
                break;
            }
            bytes += job.encoded_bytes;
            jobs.extend(state.jobs.pop_front());
        }
        Taken::Jobs
    }

    /// These jobs are durable or failed: their bytes are free.
    pub(super) fn release(&self, jobs: &[Job]) {
        let bytes: u64 = jobs.iter().map(Job::queued_bytes).sum();
        let mut state = lock(&self.state);
        state.bytes = state.bytes.saturating_sub(bytes);
        let full = !state.accepts(self.max_bytes / 2, self.max_bytes);
        drop(state);
        if !full {
            self.room.notify_waiters();
        }
    }

    /// From now on, or no longer, everything is refused as busy.
    pub(super) fn hold(&self, held: Option<Hold>) {
        let mut state = lock(&self.state);
        let changed = state.held != held;
        state.held = held;
        drop(state);
        if changed && held.is_none() {
            self.room.notify_waiters();
        }
    }

    pub(super) fn held(&self) -> Option<Hold> {
        lock(&self.state).held
    }

    pub(super) fn bytes(&self) -> u64 {
        lock(&self.state).bytes
    }

    /// The writer waits here while it is held: until space may be free, or for `timeout`. False once closing.
    pub(super) fn wait_for_space(&self, timeout: Duration) -> bool {
        let state = lock(&self.state);
        let waiting = |state: &mut State| !state.space && state.phase == Phase::Open;
        let (mut state, _) = self
            .for_writer
            .wait_timeout_while(state, timeout, waiting)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        state.space = false;
        state.phase == Phase::Open
    }

    pub(super) fn space(&self) {
        lock(&self.state).space = true;
        self.for_writer.notify_one();
    }

    /// Takes nothing more; what is queued is still stored.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.for_writer.notify_one();
        self.room.notify_waiters();
    }

    /// Nothing is stored any more; hands back what never was.
    pub(super) fn stop(&self) -> Vec<Job> {
        let mut state = lock(&self.state);
        state.phase = Phase::Stopped;
        state.bytes = 0;
        let left = state.jobs.drain(..).collect();
        drop(state);
        self.room.notify_waiters();
        left
    }
}
