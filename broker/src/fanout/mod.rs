//! rumqttd's router as the engine for live monitoring: QoS 0 messages to wildcard subscriptions.
//!
//! - `table`: who gets what comes out of the router.
//! - `queue`: messages on their way to it, and out of it to their readers.
//! - [`router`]: the only file that names rumqttd.
//!
//! What the router does here is what it does well: one writer, a
//! bounded log for each filter, readers that pull in bulk, all of it off the publishers' tasks, where losing the
//! oldest under overload is the contract anyway. Everything else is delivered by the front itself, because the
//! router (0.20.0) was seen to
//! - drop QoS 1 and 2 messages of a slow reader from its log without a word (`segments/mod.rs`), acknowledge out of
//!   order as an error (`router/iobufs.rs`), and raise QoS 0 to the subscription's QoS (`forward_device_data`);
//! - share by group name alone, whatever the filter, and die with the group's last member (`routing.rs:512`);
//! - delete a retained message on any empty publish and ignore retain handling (`append_to_commitlog`);
//! - refuse filters that start with `$`, never find topics that do, and die on a topic that starts with a
//!   non-ASCII character (`topic[..1]`, `protocol/mod.rs`);
//! - die when a subscriber disconnects under load (`router/scheduler.rs:63`);
//! - keep a log for every filter and an entry for every topic that it has ever seen, for ever.
//!
//! So: one link for the whole front, clean-session, that never disconnects and never unsubscribes; a bounded
//! number of wildcard filters, kept for the front's life; topics that it survives; a bounded number of distinct
//! topics. The router is watched: when its thread dies, the next one is built and gets the same filters, and no
//! device connection notices. Its thread cannot be ended from outside (it holds a sender to itself), which
//! matters to nobody but tests that start many fronts.

mod queue;
mod router;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use crate::config::FanoutConfig;
use crate::message::Message;
use crate::metrics;
use crate::session::Session;
use crate::session_parts::Subscribed;
use queue::{Job, Shared};
use table::Carried;

/// QoS 0 fan-out through the router. Nothing runs until the first subscription that it carries.
#[derive(Debug)]
pub(crate) struct Fanout {
    shared: Arc<Shared>,
    feeder: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Fanout {
    pub(crate) fn new(config: FanoutConfig) -> Self {
        let shared = Shared {
            available: AtomicBool::new(config.max_filters > 0),
            config,
            table: RwLock::default(),
            queue: Mutex::default(),
            changed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            feeder: Mutex::new(None),
        }
    }

    /// Decides whether the router carries a session, after its subscriptions changed. From then on
    /// [`Session::carried`] says who delivers QoS 0 messages to it.
    pub(crate) fn update(&self, session: &Arc<Session>, subscribed: &BTreeMap<String, Subscribed>) {
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        if session.carried.swap(false, Ordering::AcqRel) {
            for slot in &mut table.slots {
                slot.readers.retain(|reader| reader.session.key != session.key);
            }
        }
        let suits = |(filter, subscribed): (&String, &Subscribed)| {
            filter.contains(['+', '#']) && !filter.starts_with('$') && !subscribed.options.no_local
        };
        if subscribed.is_empty()
            || !self.shared.available.load(Ordering::Acquire)
            || !subscribed.iter().all(suits)
            || !table.has_room(subscribed.keys(), self.shared.config.max_filters)
        {
            return;
        }
        let mut filters = Vec::with_capacity(subscribed.len());
        for (filter, subscribed) in subscribed {
            let known = table.by_filter.get(filter).copied();
            let slot = known.unwrap_or_else(|| {
                let slot = table.add(filter);
                self.shared.push(Job::Subscribe(slot, filter.clone()));
                slot
            });
            filters.push((slot, filter.clone(), subscribed.id));
        }
        let carried = Arc::new(Carried {
            session: Arc::clone(session),
            filters,
        });
        for (slot, _, _) in &carried.filters {
            if let Some(slot) = table.slots.get_mut(*slot) {
                slot.readers.push(Arc::clone(&carried));
            }
        }
        session.carried.store(true, Ordering::Release);
        drop(table);
        self.start();
    }

    fn start(&self) {
        let mut feeder = self.feeder.lock().unwrap_or_else(PoisonError::into_inner);
        if feeder.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new()
            .name("mqtt-fanout".to_owned())
            .spawn(move || router::feed(&shared));
        match spawned {
            Ok(thread) => *feeder = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for the fan-out router; going on without it");
                self.shared.available.store(false, Ordering::Release);
            }
        }
    }

    /// Whether this message may go through the router; if not, the front delivers it to carried sessions too.
    pub(crate) fn takes(&self, message: &Message) -> bool {
        let topic = message.topic.as_str();
        message.qos == 0
            && !message.retain
            && topic
                .as_bytes()
                .first()
                .is_some_and(|first| first.is_ascii() && *first != b'$')
            && self.shared.available.load(Ordering::Acquire)
            && self.shared.knows_topic(topic)
    }

    /// Hands a message to the router, or drops it where too many wait (counted): then false.
    pub(crate) fn publish(&self, message: Arc<Message>) -> bool {
        let mut queue = self.shared.lock_queue();
        if queue.messages >= self.shared.config.max_queued_messages {
            drop(queue);
            metrics::dropped("router_queue_full");
            return false;
        }
        queue.messages += 1;
        queue.jobs.push_back(Job::Publish(message));
        drop(queue);
        self.shared.changed.notify_all();
        true
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.shared.lock_queue().stop = true;
        self.shared.changed.notify_all();
    }
}
