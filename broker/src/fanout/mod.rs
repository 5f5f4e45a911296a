//! rumqttd's router as the engine for live monitoring: QoS 0 messages to wildcard subscriptions.
//!
//! [`router`] is the only file that names rumqttd. What the router does here is what it does well: one writer, a
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

mod router;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::config::FanoutConfig;
use crate::message::{Delivery, Message};
use crate::metrics;
use crate::session::{Session, Subscribed};
use crate::topics;

/// Topics that the router may come to know; it never forgets one.
const MAX_TOPICS: usize = 50_000;
/// The feeder waits no longer for the reader than this; then it takes what is missing for lost.
const STUCK: Duration = Duration::from_secs(1);

/// QoS 0 fan-out through the router. Nothing runs until the first subscription that it carries.
#[derive(Debug)]
pub(crate) struct Fanout {
    shared: Arc<Shared>,
    feeder: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    config: FanoutConfig,
    table: RwLock<Table>,
    queue: Mutex<Queue>,
    changed: Condvar,
    available: AtomicBool,
}

/// Who gets what comes out of the router.
#[derive(Debug, Default)]
struct Table {
    /// The number of a filter is the subscription identifier that the router gives back with each message.
    by_filter: HashMap<String, usize>,
    slots: Vec<Slot>,
    /// Hashes of the topics that the router knows.
    topics: HashSet<u64>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    readers: Vec<Arc<Carried>>,
}

/// A session all of whose subscriptions the router carries.
#[derive(Debug)]
struct Carried {
    session: Arc<Session>,
    filters: Vec<(usize, String, Option<u32>)>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    messages: usize,
    /// Given to the router and not yet come out of it.
    underway_bytes: usize,
    stop: bool,
}

#[derive(Debug)]
enum Job {
    Subscribe(usize, String),
    Publish(Arc<Message>),
    /// The reader of this router saw it die.
    Died(usize),
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

    /// Hands a message to the router, or drops it where too many wait (counted).
    pub(crate) fn publish(&self, message: Arc<Message>) {
        let mut queue = self.shared.lock_queue();
        if queue.messages >= self.shared.config.max_queued_messages {
            drop(queue);
            return metrics::dropped("router_queue_full");
        }
        queue.messages += 1;
        queue.jobs.push_back(Job::Publish(message));
        drop(queue);
        self.shared.changed.notify_all();
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        self.shared.lock_queue().stop = true;
        self.shared.changed.notify_all();
    }
}

impl Table {
    fn has_room<'a>(&self, filters: impl Iterator<Item = &'a String>, max_filters: usize) -> bool {
        let new = filters
            .filter(|filter| !self.by_filter.contains_key(*filter))
            .count();
        self.by_filter.len() + new <= max_filters
    }

    fn add(&mut self, filter: &str) -> usize {
        // The router takes 0 for no identifier: the first slot is never used.
        if self.slots.is_empty() {
            self.slots.push(Slot::default());
        }
        self.slots.push(Slot::default());
        self.by_filter.insert(filter.to_owned(), self.slots.len() - 1);
        self.slots.len() - 1
    }

    fn selecting(&self, topic: &str) -> usize {
        self.by_filter
            .keys()
            .filter(|filter| topics::matches(filter, topic))
            .count()
    }
}

impl Shared {
    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.lock_queue().jobs.push_back(job);
        self.changed.notify_all();
    }

    /// False for a topic over the bound.
    fn knows_topic(&self, topic: &str) -> bool {
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
    fn next_jobs(&self) -> Option<Vec<Job>> {
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
    fn came_out(&self, slot: Option<usize>, message: Message) {
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
                    position: 0,
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

impl Carried {
    /// A topic that several filters of one session select comes out of the router once for each: the first of
    /// them delivers it, with the identifiers of all. `None` where another one does.
    fn ids_through(&self, number: usize, topic: &str) -> Option<Vec<u32>> {
        if let [(_, _, id)] = self.filters.as_slice() {
            return Some(id.iter().copied().collect());
        }
        let mut matching = self
            .filters
            .iter()
            .filter(|(_, filter, _)| topics::matches(filter, topic))
            .peekable();
        let first = matching.peek().is_some_and(|(slot, _, _)| *slot == number);
        first.then(|| matching.filter_map(|(_, _, id)| *id).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::codec::SubscribeOptions;
    use crate::config::SessionConfig;
    use crate::tap::Topic;

    fn reader(fanout: &Fanout, key: u64, filters: &[(&str, u32)]) -> Arc<Session> {
        let session = Arc::new(Session::new(
            key,
            format!("reader-{key}"),
            &SessionConfig::default(),
        ));
        assert!(session.mailbox.attach(session.mailbox.claim(), true));
        let subscribed = filters
            .iter()
            .map(|(filter, id)| {
                (
                    (*filter).to_owned(),
                    Subscribed {
                        options: SubscribeOptions::default(),
                        id: Some(*id),
                    },
                )
            })
            .collect();
        fanout.update(&session, &subscribed);
        session
    }

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: Topic::from(topic),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: 0,
            retain: false,
            properties: None,
            publisher: 0,
            expires_ms: None,
        })
    }

    /// Deliveries as payload and identifiers, once `count` are there.
    fn delivered(session: &Session, count: usize) -> Vec<(String, Vec<u32>)> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = Vec::new();
        while found.len() < count {
            assert!(
                Instant::now() < deadline,
                "only {} of {count} were delivered",
                found.len()
            );
            match session.mailbox.pop() {
                Some(delivery) => {
                    let payload = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
                    found.push((payload, delivery.subscription_ids));
                }
                None => std::thread::yield_now(),
            }
        }
        found
    }

    #[test]
    fn every_subscriber_gets_every_message_once_and_in_order_however_its_filters_overlap() {
        let fanout = Fanout::new(FanoutConfig::default());
        let all = reader(&fanout, 1, &[("#", 7)]);
        let both = reader(&fanout, 2, &[("a/+", 1), ("a/#", 2), ("b/#", 3)]);
        for number in 0..10_000 {
            fanout.publish(message("a/x", &number.to_string()));
        }
        for (session, ids) in [(&all, vec![7]), (&both, vec![2, 1])] {
            let got = delivered(session, 10_000);
            assert!(
                got.iter()
                    .map(|(payload, _)| payload.clone())
                    .eq((0..10_000).map(|n| n.to_string()))
            );
            assert!(
                got.iter()
                    .all(|(_, got)| got.iter().all(|id| ids.contains(id)) && got.len() == ids.len())
            );
        }
    }

    #[test]
    fn the_death_of_the_router_costs_no_subscription() {
        let fanout = Fanout::new(FanoutConfig::default());
        let all = reader(&fanout, 1, &[("#", 7)]);
        fanout.publish(message("a", "before"));
        assert_eq!(delivered(&all, 1)[0].0, "before");
        for life in 0..3 {
            // What `takes` keeps away from it.
            fanout.publish(message("\u{fc}ber", "poison"));
            let after = format!("after {life}");
            let deadline = Instant::now() + Duration::from_secs(10);
            let got = loop {
                fanout.publish(message("a", &after));
                if let Some(delivery) = all.mailbox.pop() {
                    break delivery;
                }
                assert!(Instant::now() < deadline, "nothing came after death {life}");
                std::thread::yield_now();
            };
            assert_eq!(got.message.topic.as_str(), "a");
            while all.mailbox.pop().is_some() {}
        }
    }

    #[test]
    fn only_what_the_router_survives_and_does_right_goes_through_it() {
        let fanout = Fanout::new(FanoutConfig::default());
        assert!(fanout.takes(&message("a", "")));
        assert!(
            !fanout.takes(&message("\u{fc}ber", "")),
            "it dies of a non-ASCII first character"
        );
        assert!(!fanout.takes(&message("$SYS/a", "")), "it never matches these");
        let mut retained = Arc::into_inner(message("a", "")).unwrap();
        retained.retain = true;
        assert!(!fanout.takes(&retained));
        let mut qos_1 = Arc::into_inner(message("a", "")).unwrap();
        qos_1.qos = 1;
        assert!(!fanout.takes(&qos_1));
        for (filters, carried) in [
            (&["a/#"][..], true),
            (&["a"], false),
            (&["a/#", "b"], false),
            (&["$share/g/#"], false),
            (&["$SYS/#"], false),
        ] {
            let filters = filters.iter().map(|filter| (*filter, 1)).collect::<Vec<_>>();
            let session = reader(&fanout, 9, &filters);
            assert_eq!(session.carried.load(Ordering::Acquire), carried, "{filters:?}");
        }
    }

    #[test]
    fn filters_and_topics_over_the_bounds_are_left_to_the_front() {
        let fanout = Fanout::new(FanoutConfig {
            max_filters: 2,
            ..FanoutConfig::default()
        });
        for (key, filter, carried) in [
            (1, "a/#", true),
            (2, "b/#", true),
            (3, "c/#", false),
            (4, "a/#", true),
        ] {
            let session = reader(&fanout, key, &[(filter, 1)]);
            assert_eq!(session.carried.load(Ordering::Acquire), carried, "{filter}");
        }
        for number in 0..MAX_TOPICS {
            assert!(fanout.takes(&message(&format!("a/{number}"), "")));
        }
        assert!(!fanout.takes(&message("a/new", "")));
        assert!(fanout.takes(&message("a/1", "")));
    }
}
