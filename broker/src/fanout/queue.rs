//! Messages on their way to the router, and out of it to their readers: what its threads share with the front.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::table::Table;
use crate::config::FanoutConfig;
use crate::message::{Delivery, Message};
use crate::metrics;

/// Topics that the router may come to know; it never forgets one.
pub(super) const MAX_TOPICS: usize = 50_000;
/// The feeder waits no longer for the reader than this; then it takes what is missing for lost.
pub(super) const STUCK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: FanoutConfig,
    pub(super) table: RwLock<Table>,
    pub(super) queue: Mutex<Queue>,
    pub(super) changed: Condvar,
    pub(super) available: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    pub(super) messages: usize,
    /// Given to the router and not yet come out of it.
    pub(super) underway_bytes: usize,
    pub(super) stop: bool,
}

#[derive(Debug)]
pub(super) enum Job {
    Subscribe(usize, String),
    Publish(Arc<Message>),
    /// The reader of this router saw it die.
    Died(usize),
}

impl Shared {
    pub(super) fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Job) {
        self.lock_queue().jobs.push_back(job);
        self.changed.notify_all();
    }

    /// False for a topic over the bound.
    pub(super) fn knows_topic(&self, topic: &str) -> bool {
        let hash = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let hash = table.hasher.hash_one(topic);
            if table.topics.contains(&hash) {
                return true;
            }
            hash
        };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.topics.len() >= MAX_TOPICS {
            return false;
        }
        table.topics.insert(hash);
        true
    }

    /// The next jobs, once there is room in the router for a message; `None` at the end.
    pub(super) fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut queue = self.lock_queue();
        loop {
            if queue.stop {
                return None;
            }
            // Half of a filter's log: the reader is never overtaken by what it has not read.
            let full = queue.underway_bytes >= self.config.log_bytes_per_filter / 2;
            let ready = match queue.jobs.front() {
                None => false,
                Some(Job::Publish(_)) => !full,
                Some(_) => true,
            };
            if ready {
                return Some(queue.take(self.config.log_bytes_per_filter / 4));
            }
            if !full {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self
                .changed
                .wait_timeout(queue, STUCK)
                .unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            if waited.1.timed_out() {
                tracing::warn!(
                    bytes = queue.underway_bytes,
                    "the fan-out router has swallowed messages"
                );
                metrics::dropped("router_lost");
                queue.underway_bytes = 0;
            }
        }
    }

    /// Gives a message that came out of the router, by way of the filter `slot`, to the filter's readers.
    pub(super) fn came_out(&self, slot: Option<usize>, message: Message) {
        let mut queue = self.lock_queue();
        queue.underway_bytes = queue.underway_bytes.saturating_sub(message.bytes());
        drop(queue);
        self.changed.notify_all();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let Some((number, slot)) = slot.and_then(|number| Some((number, table.slots.get(number)?))) else {
            return;
        };
        let message = Arc::new(message);
        for reader in &slot.readers {
            if let Some(subscription_ids) = reader.ids_through(number, message.topic.as_str()) {
                let message = Arc::clone(&message);
                let _never_kept = reader.session.mailbox.push(Delivery {
                    message,
                    qos: 0,
                    retain: false,
                    subscription_ids,
                    initial: false,
                    position: 0,
                    share: None,
                });
            }
        }
    }
}

impl Queue {
    fn take(&mut self, max_bytes: usize) -> Vec<Job> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(job) = self.jobs.pop_front()
        {
            if let Job::Publish(message) = &job {
                self.messages -= 1;
                bytes += message.bytes();
            }
            taken.push(job);
        }
        taken
    }
}
