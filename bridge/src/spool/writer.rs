//! The writer thread: takes what waits, stores it with one fdatasync, tells everybody, begins anew.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::commit::Commit;
use super::error::{Hold, SpoolError};
use super::log::{Fault, Log};
use super::mutex::lock;
use super::queue::{Job, Taken};
use super::shared::Shared;

/// How often a held writer tries again by itself; freed segments wake it sooner.
const HELD_RETRY: Duration = Duration::from_millis(250);
/// After this long without an append the end of the log is put on record, so that a restart can tell damage of an
/// acknowledged entry from a write that never finished.
const IDLE: Duration = Duration::from_millis(100);

/// What became of the appends that were handed to [`Writer::store`].
#[derive(Debug)]
pub(super) enum Outcome {
    Stored,
    /// They are all still there, to be tried again.
    Held(Hold),
    /// They were answered with the fault; nothing will be stored any more.
    Stopped,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Log,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let log = Log::new(shared.clone(), shared.recovery.next_sequence);
        Self { shared, log }
    }

    /// Runs until the queue is closed and empty, or the disk has failed.
    pub(super) fn run(&mut self) {
        let mut jobs = Vec::new();
        loop {
            let idle = self.log.is_unproven().then_some(IDLE);
            let commit_max_bytes = self.shared.config.commit_max_bytes;
            match self
                .shared
                .queue
                .take(self.log.remaining_bytes(), commit_max_bytes, idle, &mut jobs)
            {
                Taken::Jobs => {}
                Taken::Idle => {
                    self.log.prove();
                    continue;
                }
                Taken::End => break,
            }
            if !self.store_or_wait(&mut jobs) {
                break;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn remaining_bytes(&self) -> u64 {
        self.log.remaining_bytes()
    }

    #[cfg(test)]
    pub(super) fn prove(&mut self) {
        self.log.prove();
    }

    /// What is left is answered with the reason, and the log sealed.
    pub(super) fn end(&mut self) {
        let reason = lock(&self.shared.fault).clone().unwrap_or(SpoolError::Closed);
        answer_failed(self.shared.queue.stop(), &reason);
        self.log.close();
    }

    /// False when nothing can be stored any more.
    fn store_or_wait(&mut self, jobs: &mut Vec<Job>) -> bool {
        loop {
            match self.store(jobs) {
                Outcome::Stored => return true,
                Outcome::Stopped => return false,
                Outcome::Held(hold) => {
                    if !self.shared.queue.wait_for_space(HELD_RETRY) {
                        self.shared.queue.release(jobs);
                        answer_failed(std::mem::take(jobs), &SpoolError::Held(hold));
                        return true;
                    }
                }
            }
        }
    }

    /// Makes the appends durable in one commit and answers them.
    pub(super) fn store(&mut self, jobs: &mut Vec<Job>) -> Outcome {
        let began = Instant::now();
        if jobs.iter().all(|job| job.entries.is_empty()) {
            self.shared.queue.release(jobs);
            answer(jobs, self.shared.durable.borrow().end_sequence);
            return Outcome::Stored;
        }
        let entries = jobs.iter().flat_map(|job| job.entries.iter());
        match self.log.store(entries, self.shared.delivered()) {
            Ok(commit) => {
                let first_sequence = commit.sequences().start;
                self.publish(commit, began.elapsed());
                self.shared.queue.release(jobs);
                answer(jobs, first_sequence);
                Outcome::Stored
            }
            Err(Fault::Held(hold)) => {
                if self.shared.queue.held() != Some(hold) {
                    warn!(reason = hold.kind(), "spool holds appends back: {hold}");
                }
                self.shared.queue.hold(Some(hold));
                Outcome::Held(hold)
            }
            Err(Fault::Broken(fault)) => {
                error!(error = ?fault, "spool stopped: no segment can be written; nothing is acknowledged any more");
                *lock(&self.shared.fault) = Some(fault.clone());
                self.shared.queue.release(jobs);
                answer_failed(std::mem::take(jobs), &fault);
                Outcome::Stopped
            }
        }
    }

    /// Readers first find the entries, then hear of them.
    fn publish(&self, commit: Commit, took: Duration) {
        let shared = &self.shared;
        if shared.queue.held().is_some() {
            info!("spool takes appends again");
            shared.queue.hold(None);
        }
        let sequences = commit.sequences();
        let counters = &shared.counters;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters
            .entries
            .fetch_add(sequences.end - sequences.start, Ordering::Relaxed);
        counters
            .bytes
            .fetch_add(commit.encoded_bytes(), Ordering::Relaxed);
        counters
            .store_us
            .fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        let delivered = shared.delivered();
        lock(&shared.catalog).extend(sequences.end);
        lock(&shared.hot).push(commit, delivered);
        shared
            .durable
            .send_modify(|durable| durable.end_sequence = sequences.end);
    }
}

/// Gives each append its sequences, in the order in which they were stored.
fn answer(jobs: &mut Vec<Job>, mut sequence: u64) {
    for job in jobs.drain(..) {
        let end = sequence + job.entries.len() as u64;
        // The read buffers of the connections go before the devices send more.
        drop(job.entries);
        call(|| (job.done)(Ok(sequence..end)));
        sequence = end;
    }
}

fn answer_failed(jobs: Vec<Job>, reason: &SpoolError) {
    for job in jobs {
        call(|| (job.done)(Err(reason.clone())));
    }
}

/// A fault of one who appended must not take the writer away from the others.
fn call(done: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(done)).is_err() {
        error!("the answer to an append panicked");
    }
}
