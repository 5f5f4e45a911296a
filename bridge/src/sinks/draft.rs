//! From a stored record to what Kafka gets.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::KafkaConfig;
use crate::dead_letters::{dead_letter_headers, record_headers};
use crate::kafka::Outgoing;
use crate::record::{Destination, Envelope, EnvelopeError, RefusedBy};
use crate::spool::Stored;
use crate::stamp::{MAX_STAMP_BYTES, stamp};

/// Most topic names kept; captures in topic names could make any number.
const MAX_TOPICS: usize = 1_000;

/// What comes back with a record's confirmation.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) stored: Stored,
    pub(super) role: Role,
    /// Nothing else is in its batch, so a refusal means itself.
    pub(super) alone: bool,
}

/// What a record is to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Record,
    DeadLetter,
    /// The sink's own: how far the records of its transaction go.
    Cursor,
}

pub(super) type Record = Box<Outgoing<Origin>>;

/// What is to be done with a stored record.
pub(super) enum Draft {
    Send(Record),
    /// Kafka does not get it.
    Skip {
        sequence: u64,
    },
    Unreadable {
        stored: Stored,
        why: EnvelopeError,
    },
}

/// Makes drafts; keeps the topic names that it has seen.
#[derive(Debug)]
pub(super) struct Drafts {
    gateway: Bytes,
    dead_letter_topic: Arc<str>,
    topics: HashMap<String, Arc<str>>,
    new_topics: Vec<String>,
    /// Topics that begin so hold gateways' cursors: no message may pass for one.
    reserved_prefix: String,
}

impl Drafts {
    /// `topics` exist already.
    pub(super) fn new(gateway: Bytes, config: &KafkaConfig, topics: &[String]) -> Self {
        Self {
            gateway,
            dead_letter_topic: config.dead_letter_topic.as_str().into(),
            reserved_prefix: config.cursor_topic_prefix.clone(),
            topics: topics
                .iter()
                .map(|topic| (topic.clone(), topic.as_str().into()))
                .collect(),
            new_topics: Vec::new(),
        }
    }

    /// Topics that captures have made since the last call, and that must be created before they are used.
    pub(super) fn take_new_topics(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_topics)
    }

    /// A draft for each record. The stamped values share one allocation.
    pub(super) fn batch(&mut self, batch: Vec<Stored>) -> Vec<Draft> {
        let stamped_bytes = batch
            .iter()
            .map(|stored| stored.payload.len() + MAX_STAMP_BYTES)
            .sum();
        let mut arena = Vec::with_capacity(stamped_bytes);
        let drafts: Vec<(Draft, Option<Range<usize>>)> = batch
            .into_iter()
            .map(|stored| self.draft(stored, &mut arena))
            .collect();
        let arena = Bytes::from(arena);
        drafts
            .into_iter()
            .map(|(mut draft, stamped)| {
                if let (Draft::Send(record), Some(range)) = (&mut draft, stamped) {
                    record.value = arena.slice(range);
                }
                draft
            })
            .collect()
    }

    /// The draft, and where its stamped value lies in the arena.
    fn draft(&mut self, stored: Stored, arena: &mut Vec<u8>) -> (Draft, Option<Range<usize>>) {
        let envelope = match Envelope::decode(&stored.meta) {
            Ok(envelope) => envelope,
            Err(why) => return (Draft::Unreadable { stored, why }, None),
        };
        match envelope.destination {
            Destination::DeadLetter(_) => {
                let reason = envelope.reason.to_owned();
                return (Draft::Send(self.dead_letter(stored, &reason)), None);
            }
            Destination::Api | Destination::Release => {
                return (
                    Draft::Skip {
                        sequence: stored.sequence,
                    },
                    None,
                );
            }
            Destination::KafkaAndApi | Destination::Kafka => {}
        }
        let Some(topic) = self.topic(envelope.topic) else {
            let reason = format!("the topic {:?} is kept for gateways' cursors", envelope.topic);
            return (Draft::Send(self.dead_letter(stored, &reason)), None);
        };
        let stamped = (!envelope.stamp.is_empty()).then(|| {
            let begin = arena.len();
            stamp(&stored.payload, envelope.stamp, envelope.received_ms, arena);
            begin..arena.len()
        });
        let headers = if envelope.headers {
            record_headers(&envelope, stored.sequence, &self.gateway)
        } else {
            Vec::new()
        };
        let record = Outgoing {
            topic,
            key: stored.meta.slice_ref(envelope.key.as_bytes()),
            value: stored.payload.clone(),
            headers,
            origin: Origin {
                stored,
                role: Role::Record,
                alone: false,
            },
        };
        (Draft::Send(Box::new(record)), stamped)
    }

    /// `None` for a topic that messages may not use.
    fn topic(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some(topic) = self.topics.get(name) {
            return Some(topic.clone());
        }
        if name.starts_with(&self.reserved_prefix) {
            return None;
        }
        if self.topics.len() >= MAX_TOPICS {
            self.topics.clear();
        }
        let topic: Arc<str> = name.into();
        self.topics.insert(name.to_owned(), topic.clone());
        self.new_topics.push(name.to_owned());
        Some(topic)
    }

    /// The record for the dead-letter topic, with its payload as the machine sent it; Kafka refused it, unless its
    /// envelope says who did.
    pub(super) fn dead_letter(&self, stored: Stored, reason: &str) -> Record {
        let (key, headers) = match Envelope::decode(&stored.meta) {
            Ok(envelope) => (
                stored.meta.slice_ref(envelope.key.as_bytes()),
                dead_letter_headers(
                    &envelope,
                    RefusedBy::Kafka,
                    reason,
                    stored.sequence,
                    &self.gateway,
                ),
            ),
            Err(_) => Default::default(),
        };
        Box::new(Outgoing {
            topic: self.dead_letter_topic.clone(),
            key,
            value: stored.payload.clone(),
            headers,
            origin: Origin {
                stored,
                role: Role::DeadLetter,
                alone: false,
            },
        })
    }
}
