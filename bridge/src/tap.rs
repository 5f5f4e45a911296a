//! Where the front hands over: route, check, envelope, spool.
//!
//! One offer is one append, so a batch keeps its order and costs one buffer for all of its envelopes. The receipt
//! resolves when the spool says that the batch is on disk.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use rand::Rng;
use shopfloor_broker::tap::{Batch, Exchange, Published, Receipt, Refused, Tap, Verdict, receipt};
use uuid::Uuid;

use crate::acceptance::{
    Accepted, MAX_CLIENT_ID_BYTES, Texts, accept, machine_of_topic, missing_stamps, shortened,
};
use crate::contract::Violation;
use crate::exchanges::{Event, Exchanges};
use crate::metrics;
use crate::record::{Destination, Envelope, Letter};
use crate::routes::{Route, RouteTable};
use crate::spool::{self, Entry, Spool, SpoolError};
use crate::stamp::Stamp;

/// Longest reason that an envelope and a publisher get, in bytes.
const MAX_REASON_BYTES: usize = 1_024;
/// A W3C traceparent of version 00 has exactly this length.
const TRACEPARENT_BYTES: usize = 55;
/// What a commit has room for besides one message's payload and topic: an envelope's other parts (2 KiB) and the releases
/// of QoS 2 that share its batch.
pub const BESIDE_MESSAGE_BYTES: u64 = 32 * 1024;
/// An envelope has the MQTT topic, and may have it as machine and key too.
pub const TOPIC_COPIES: u64 = 3;
/// Of a commit one batch may take this part, as the front counts: at most eight times that is stored, where JSON escapes
/// what was protobuf, or each of the smallest messages becomes a dead letter.
const BATCHES_PER_COMMIT: u64 = 16;
const MAX_BATCH_BYTES: u64 = 256 * 1024;
/// A usual envelope, for the first size of a batch's buffer.
const ENVELOPE_BYTES: usize = 96;

/// The bridge's end of the [`Tap`].
#[derive(Debug)]
pub struct Ingest {
    routes: RouteTable,
    spool: Spool,
    exchanges: Arc<Exchanges>,
    /// Somebody assigns ids to parts and materials that have none.
    has_api: bool,
    /// The largest append that the spool takes.
    commit_max_bytes: u64,
}

impl Ingest {
    pub(crate) fn new(
        routes: RouteTable,
        spool: Spool,
        exchanges: Arc<Exchanges>,
        has_api: bool,
        commit_max_bytes: u64,
    ) -> Self {
        Self {
            routes,
            spool,
            exchanges,
            has_api,
            commit_max_bytes,
        }
    }

    /// Whether this payload fits a commit; what came always does, as the configuration check sees to.
    fn check_size(&self, payload: &Bytes, topic: &str) -> Result<(), Violation> {
        let beside = BESIDE_MESSAGE_BYTES + TOPIC_COPIES * topic.len() as u64;
        let max_bytes = self.commit_max_bytes.saturating_sub(beside);
        match payload.len() as u64 {
            bytes if bytes > max_bytes => Err(Violation::TooLarge { bytes, max_bytes }),
            _ => Ok(()),
        }
    }
}

impl Tap for Ingest {
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused> {
        let mut intake = Intake::new(self, batch.released.len() + batch.messages.len());
        for exchange in &batch.released {
            intake.release(*exchange);
        }
        for message in &batch.messages {
            intake.take(message);
        }
        let Taken {
            entries,
            verdicts,
            counts,
            events,
        } = intake.finish();
        let (sender, receipt) = receipt();
        let exchanges = Arc::clone(&self.exchanges);
        if entries.is_empty() {
            counts.record();
            sender.resolve(verdicts);
            return Ok(receipt);
        }
        let done = Box::new(move |stored: Result<_, _>| match stored {
            Ok(sequences) => {
                let sequences: Range<u64> = sequences;
                exchanges.apply(&events, sequences.end);
                counts.record();
                sender.resolve(verdicts);
            }
            // Dropping the sender tells the front that nothing of the batch may be acknowledged.
            // At a stop that is as it should be, and there may be a batch for each of thousands of connections.
            Err(error @ (SpoolError::Held(_) | SpoolError::Closed)) => {
                tracing::debug!(%error, "a batch was not stored and not acknowledged");
            }
            Err(error) => tracing::error!(%error, "the spool did not store a batch"),
        });
        match self.spool.append(entries, done) {
            Ok(()) => Ok(receipt),
            Err(spool::Refused::Busy(..)) => Err(Refused::Busy(batch)),
            Err(spool::Refused::TooLarge(..)) => {
                // The sizes of packets and batches rule it out. Nothing may be stored that came behind it.
                tracing::error!(
                    messages = batch.messages.len(),
                    "a batch is larger than the spool's commit_max_bytes"
                );
                Err(Refused::Closed(batch))
            }
            Err(spool::Refused::Closed(..)) => Err(Refused::Closed(batch)),
        }
    }

    fn room(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.spool.room())
    }

    fn max_batch_bytes(&self) -> usize {
        (self.commit_max_bytes / BATCHES_PER_COMMIT).min(MAX_BATCH_BYTES) as usize
    }

    fn open_exchanges(&self) -> HashMap<u64, Vec<Exchange>> {
        self.exchanges.by_session()
    }

    fn forget_session(&self, session: u64) {
        self.exchanges.forget_session(session);
    }
}

/// A batch as the spool gets it.
struct Taken {
    entries: Vec<Entry>,
    verdicts: Vec<Verdict>,
    counts: Counts,
    events: Vec<Event>,
}

/// Messages of one batch by what became of them.
#[derive(Debug, Default)]
struct Counts {
    stored: u64,
    unrouted: u64,
    dead_letters: Vec<&'static str>,
}

impl Counts {
    fn record(self) {
        metrics::ingested(self.stored, self.unrouted);
        for kind in self.dead_letters {
            metrics::dead_lettered(kind);
        }
    }
}

/// One batch on its way to entries.
struct Intake<'a> {
    ingest: &'a Ingest,
    /// All envelopes, one behind the other.
    envelopes: BytesMut,
    /// End of each entry's envelope, and its payload.
    parts: Vec<(usize, Bytes)>,
    verdicts: Vec<Verdict>,
    counts: Counts,
    /// Of QoS 2 only: nothing is allocated for other batches.
    events: Vec<Event>,
    random: rand::rngs::ThreadRng,
    /// Scratch, reused by every message.
    texts: Texts,
}

impl<'a> Intake<'a> {
    fn new(ingest: &'a Ingest, messages: usize) -> Self {
        Self {
            ingest,
            envelopes: BytesMut::with_capacity(messages * ENVELOPE_BYTES),
            parts: Vec::with_capacity(messages),
            verdicts: Vec::with_capacity(messages),
            counts: Counts::default(),
            events: Vec::new(),
            random: rand::rng(),
            texts: Texts::default(),
        }
    }

    fn release(&mut self, exchange: Exchange) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let id = record_id(now_ms, &mut self.random);
        Envelope::release(exchange, id, now_ms).encode(&mut self.envelopes);
        self.parts.push((self.envelopes.len(), Bytes::new()));
        self.events.push(Event::Released(exchange));
    }

    fn take(&mut self, message: &Published) {
        let Some(route) = self.ingest.routes.lookup(message.topic.as_str()) else {
            self.counts.unrouted += 1;
            self.verdicts.push(Verdict::Unrouted);
            return;
        };
        let protobuf = route.protobuf || says_protobuf(message);
        let (topic, client_id) = (message.topic.as_str(), &message.publisher.client_id);
        let accepted = accept(&message.payload, protobuf, route, self.ingest.has_api).and_then(|accepted| {
            self.ingest.check_size(&accepted.payload, topic)?;
            self.texts.resolve(topic, client_id, route, &accepted.checked)?;
            Ok(accepted)
        });
        match accepted {
            Ok(accepted) => self.store(message, route, accepted),
            Err(violation) => self.dead_letter(message, route, protobuf, &violation),
        }
    }

    fn store(&mut self, message: &Published, route: &Route, accepted: Accepted) {
        let envelope = Envelope {
            record_id: record_id(message.received_ms, &mut self.random),
            received_ms: message.received_ms,
            destination: accepted.destination,
            schema: route.schema,
            stamp: missing_stamps(route, &accepted.checked),
            headers: route.headers,
            topic: route.topic.fixed().unwrap_or(&self.texts.topic),
            key: &self.texts.key,
            machine: &self.texts.machine,
            mqtt_topic: message.topic.as_str(),
            client_id: shortened(&message.publisher.client_id, MAX_CLIENT_ID_BYTES),
            traceparent: traceparent(message),
            reason: "",
            exchange: message.exchange,
        };
        envelope.encode(&mut self.envelopes);
        self.events.extend(message.exchange.map(Event::Opened));
        self.parts.push((self.envelopes.len(), accepted.payload));
        self.counts.stored += 1;
        self.verdicts.push(Verdict::Stored);
    }

    fn dead_letter(&mut self, message: &Published, route: &Route, protobuf: bool, violation: &Violation) {
        let reason = violation.to_string();
        let reason = shortened(&reason, MAX_REASON_BYTES);
        let client_id = shortened(&message.publisher.client_id, MAX_CLIENT_ID_BYTES);
        // An MQTT 5 client is refused, which ends the exchange without a release.
        let exchange = message.exchange.filter(|_| !message.publisher.v5);
        let envelope = Envelope {
            record_id: record_id(message.received_ms, &mut self.random),
            received_ms: message.received_ms,
            destination: Destination::DeadLetter(Letter {
                protobuf,
                ..Letter::default()
            }),
            schema: route.schema,
            stamp: Stamp::default(),
            headers: false,
            topic: route.topic.fixed().unwrap_or_default(),
            key: client_id,
            machine: machine_of_topic(route, message.topic.as_str()).unwrap_or_default(),
            mqtt_topic: message.topic.as_str(),
            client_id,
            traceparent: traceparent(message),
            reason,
            exchange,
        };
        envelope.encode(&mut self.envelopes);
        self.events.extend(exchange.map(Event::Opened));
        self.parts.push((self.envelopes.len(), message.payload.clone()));
        self.counts.dead_letters.push(violation.kind());
        self.verdicts.push(Verdict::DeadLettered {
            reason: reason.into(),
        });
    }

    fn finish(self) -> Taken {
        let envelopes = self.envelopes.freeze();
        let mut begin = 0;
        let entries = self
            .parts
            .into_iter()
            .map(|(end, payload)| {
                let meta = envelopes.slice(begin..end);
                begin = end;
                Entry { meta, payload }
            })
            .collect();
        Taken {
            entries,
            verdicts: self.verdicts,
            counts: self.counts,
            events: self.events,
        }
    }
}

fn says_protobuf(message: &Published) -> bool {
    let content_type = message
        .properties
        .as_ref()
        .and_then(|properties| properties.content_type.as_deref());
    content_type == Some(shopfloor_proto::CONTENT_TYPE)
}

/// The publisher's trace, where it is one.
fn traceparent(message: &Published) -> &str {
    let Some(properties) = &message.properties else {
        return "";
    };
    let found = properties.user.iter().find(|(name, _)| name == "traceparent");
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| {
            value.len() == TRACEPARENT_BYTES
                && value.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        })
        .unwrap_or_default()
}

/// A UUIDv7 of the reception time.
fn record_id(received_ms: i64, random: &mut impl Rng) -> [u8; 16] {
    let ms = u64::try_from(received_ms).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(ms, &random.random())
        .into_uuid()
        .into_bytes()
}

/// The text of a record id, as headers and logs show it.
pub(crate) fn record_id_text(record_id: [u8; 16]) -> String {
    Uuid::from_bytes(record_id).to_string()
}

#[cfg(test)]
mod tests;
