//! The idempotent producer: records in, confirmations out.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::Notify;

use super::embedded::Embedded;
use super::record::{Confirmation, Full, Outgoing, Undelivered};
use super::zero_copy;

/// How long the event thread sleeps at most, and so the longest that a dropped producer lives on.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Most topic handles that one producer keeps; captures in topic names could make any number.
const MAX_TOPIC_HANDLES: usize = 1_000;

pub(super) struct Context<T> {
    confirmed: Mutex<Vec<Confirmation<T>>>,
    news: Notify,
    unreachable: AtomicBool,
    embedded: Option<Arc<Embedded>>,
}

impl<T: Send + Sync + 'static> Context<T> {
    fn confirmed(&self) -> MutexGuard<'_, Vec<Confirmation<T>>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(clippy::boxed_local)] // As librdkafka's opaque holds it.
    fn confirm(&self, record: Box<Outgoing<T>>, sent: bool, outcome: Result<(), Undelivered>) {
        let bytes = record.bytes();
        let Outgoing {
            origin,
            topic,
            key,
            value,
            headers,
        } = *record;
        // Whoever is told finds the payload given back.
        drop((topic, key, value, headers));
        let mut confirmed = self.confirmed();
        let first = confirmed.is_empty();
        confirmed.push(Confirmation {
            origin,
            bytes,
            sent,
            outcome,
        });
        drop(confirmed);
        if first {
            self.news.notify_one();
        }
    }

    fn refuse(&self, record: Box<Outgoing<T>>, sent: bool, why: Undelivered) {
        if let Some(embedded) = &self.embedded {
            embedded.log.release(record.bytes());
        }
        self.confirm(record, sent, Err(why));
    }
}

impl<T: Send + Sync + 'static> ClientContext for Context<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka repeats it with every attempt; the change is the news.
        if !self.unreachable.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, reason, "Kafka does not answer; records wait in the spool");
        }
    }
}

impl<T: Send + Sync + 'static> ProducerContext for Context<T> {
    type DeliveryOpaque = Box<Outgoing<T>>;

    fn delivery(&self, result: &DeliveryResult<'_>, record: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                if self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::Relaxed)
                {
                    tracing::info!("Kafka answers again");
                }
                if let Some(embedded) = &self.embedded {
                    embedded
                        .log
                        .stored(message.topic(), message.partition(), record.bytes());
                }
                // A batch that its own response confirmed has an offset. One that librdkafka takes for delivered because a
                // later one was ("implicitly acked") has none, and may be lost.
                let outcome = match message.offset() {
                    0.. => Ok(()),
                    _ => Err(Undelivered::Again("confirmed without an offset".into())),
                };
                self.confirm(record, true, outcome);
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                self.refuse(record, true, Undelivered::on_the_way(code));
            }
        }
    }
}

pub(super) struct Inner<T: Send + Sync + 'static> {
    // Before the client: handles must go first.
    topics: Mutex<HashMap<Arc<str>, zero_copy::Topic>>,
    pub(super) base: BaseProducer<Context<T>>,
}

/// An idempotent producer. Records of one topic and key reach Kafka in the order in which they were handed over.
pub struct Producer<T: Send + Sync + 'static> {
    inner: Option<Arc<Inner<T>>>,
    stop: Arc<AtomicBool>,
}

impl<T: Send + Sync + 'static> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Drop for Producer<T> {
    fn drop(&mut self) {
        // In this order the event thread drops the last reference: the client's own end blocks.
        self.inner = None;
        self.stop.store(true, Ordering::Release);
    }
}

impl<T: Send + Sync + 'static> Producer<T> {
    /// Makes the client and starts its event thread.
    pub(super) fn start(
        config: &ClientConfig,
        embedded: Option<Arc<Embedded>>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let context = Context {
            confirmed: Mutex::default(),
            news: Notify::new(),
            unreachable: AtomicBool::new(false),
            embedded,
        };
        let base: BaseProducer<Context<T>> = config.create_with_context(context)?;
        let inner = Arc::new(Inner {
            topics: Mutex::default(),
            base,
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (inner.clone(), stop.clone());
        std::thread::Builder::new()
            .name("kafka-events".into())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    polled.base.poll(POLL_INTERVAL);
                }
            })?;
        Ok(Self {
            inner: Some(inner),
            stop,
        })
    }

    /// For calls that block, on a thread of their own.
    pub(super) fn inner(&self) -> Option<Arc<Inner<T>>> {
        self.inner.clone()
    }

    /// Hands records over, in order, without waiting. What was not taken comes back in order and must be offered
    /// again before anything else; what was taken is confirmed later, refusals included.
    pub fn produce(&self, records: Vec<Box<Outgoing<T>>>) -> (Vec<Box<Outgoing<T>>>, Option<Full>) {
        let Some(inner) = &self.inner else {
            return (records, Some(Full::Queue));
        };
        let mut groups: Vec<Group<T>> = Vec::new();
        let mut left = Vec::new();
        let mut full = None;
        let mut records = records.into_iter();
        for record in records.by_ref() {
            if !inner.reserve(&record) {
                left.push(record);
                full = Some(Full::Embedded);
                break;
            }
            let group = group_of(&mut groups, &record.topic);
            if record.headers.is_empty() {
                group.plain.push(record);
            } else {
                inner.produce_group(group);
                inner.produce_with_headers(group, record);
            }
        }
        let mut untaken = Vec::new();
        for mut group in groups {
            inner.produce_group(&mut group);
            untaken.append(&mut group.left);
        }
        for record in &untaken {
            inner.unreserve(record);
            full.get_or_insert(Full::Queue);
        }
        untaken.append(&mut left);
        untaken.extend(records);
        (untaken, full)
    }

    /// Waits for confirmations and takes them all. Cancel-safe.
    pub async fn confirmations(&self) -> Vec<Confirmation<T>> {
        let Some(inner) = &self.inner else {
            return std::future::pending().await;
        };
        let context = inner.base.context();
        loop {
            let news = context.news.notified();
            let confirmed = std::mem::take(&mut *context.confirmed());
            if !confirmed.is_empty() {
                return confirmed;
            }
            news.await;
        }
    }

    /// The error after which this producer sends nothing more.
    pub fn fatal(&self) -> Option<String> {
        let (code, reason) = self.inner.as_ref()?.base.client().fatal_error()?;
        Some(format!("{code}: {reason}"))
    }
}

/// The records of one topic within one call.
struct Group<T> {
    topic: Arc<str>,
    plain: Vec<Box<Outgoing<T>>>,
    /// Not taken, since the queue is full; nothing may overtake them.
    left: Vec<Box<Outgoing<T>>>,
}

fn group_of<'a, T>(groups: &'a mut Vec<Group<T>>, topic: &Arc<str>) -> &'a mut Group<T> {
    let found = groups
        .iter()
        .position(|group| Arc::ptr_eq(&group.topic, topic) || group.topic == *topic);
    let at = found.unwrap_or(groups.len());
    if found.is_none() {
        groups.push(Group {
            topic: topic.clone(),
            plain: Vec::new(),
            left: Vec::new(),
        });
    }
    #[allow(clippy::indexing_slicing)] // Found or pushed just above.
    &mut groups[at]
}

impl<T: Send + Sync + 'static> Inner<T> {
    fn reserve(&self, record: &Outgoing<T>) -> bool {
        self.base
            .context()
            .embedded
            .as_ref()
            .is_none_or(|embedded| embedded.log.reserve(record.bytes()))
    }

    fn unreserve(&self, record: &Outgoing<T>) {
        if let Some(embedded) = &self.base.context().embedded {
            embedded.log.release(record.bytes());
        }
    }

    /// Sends a group's records without headers, without copying them.
    fn produce_group(&self, group: &mut Group<T>) {
        let plain = std::mem::take(&mut group.plain);
        if plain.is_empty() {
            return;
        }
        if !group.left.is_empty() {
            group.left.extend(plain);
            return;
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.len() >= MAX_TOPIC_HANDLES {
            topics.clear();
        }
        let topic = match topics.get(&group.topic) {
            Some(topic) => topic,
            None => match zero_copy::Topic::new(self.base.client(), &group.topic) {
                Ok(topic) => topics.entry(group.topic.clone()).or_insert(topic),
                Err(code) => {
                    return plain
                        .into_iter()
                        .for_each(|record| self.not_taken(group, record, code));
                }
            },
        };
        for (record, code) in zero_copy::produce_batch(topic, plain) {
            self.not_taken(group, record, code);
        }
    }

    fn produce_with_headers(&self, group: &mut Group<T>, record: Box<Outgoing<T>>) {
        if !group.left.is_empty() {
            return group.left.push(record);
        }
        if let Err((code, record)) = self.send(None, record) {
            self.not_taken(group, record, code);
        }
    }

    /// One record, to this partition or by its key; librdkafka copies its value. What it does not take comes back.
    pub(super) fn send(
        &self,
        partition: Option<i32>,
        record: Box<Outgoing<T>>,
    ) -> Result<(), (RDKafkaErrorCode, Box<Outgoing<T>>)> {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record.headers.iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            })
        });
        // Cheap handles: the record itself travels as the opaque.
        let (topic, key, value) = (record.topic.clone(), record.key.clone(), record.value.clone());
        let mut outgoing = BaseRecord::with_opaque_to(&topic, record)
            .payload(value.as_ref())
            .headers(headers);
        if !key.is_empty() {
            outgoing = outgoing.key(key.as_ref());
        }
        if let Some(partition) = partition {
            outgoing = outgoing.partition(partition);
        }
        self.base.send(outgoing).map_err(|(error, record)| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            (code, record.delivery_opaque)
        })
    }

    fn not_taken(&self, group: &mut Group<T>, record: Box<Outgoing<T>>, code: RDKafkaErrorCode) {
        if code == RDKafkaErrorCode::QueueFull {
            group.left.push(record);
        } else {
            self.base
                .context()
                .refuse(record, false, Undelivered::at_once(code));
        }
    }
}
