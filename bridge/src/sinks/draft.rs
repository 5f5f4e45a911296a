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

/// A buffer that was read lives as long as any record of it. Where less than this part of a read is for Kafka, its records
/// are copied: with Kafka away, a read after the other would be kept for the sake of a few.
const SPARSE_PART: usize = 4;

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
        let read_bytes: usize = batch.iter().map(bytes_of).sum();
        let mut arena = Vec::with_capacity(read_bytes + batch.len() * MAX_STAMP_BYTES);
        let drafts: Vec<(Draft, Option<Range<usize>>)> = batch
            .into_iter()
            .map(|stored| self.draft(stored, &mut arena))
            .collect();
        let sent = drafts.iter().filter_map(|(draft, _)| match draft {
            Draft::Send(record) => Some(bytes_of(&record.origin.stored)),
            Draft::Skip { .. } | Draft::Unreadable { .. } => None,
        });
        let is_sparse = sent.sum::<usize>() < read_bytes / SPARSE_PART;
        if is_sparse {
            arena.shrink_to_fit();
        }
        let arena = Bytes::from(arena);
        drafts
            .into_iter()
            .map(|(mut draft, stamped)| {
                if let Draft::Send(record) = &mut draft {
                    if is_sparse {
                        detach(record);
                    }
                    if let Some(range) = stamped {
                        record.value = arena.slice(range);
                    }
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

fn bytes_of(stored: &Stored) -> usize {
    stored.meta.len() + stored.payload.len()
}

/// Lets go of the buffer that it was read into.
fn detach(record: &mut Record) {
    let stored = &mut record.origin.stored;
    stored.meta = Bytes::copy_from_slice(&stored.meta);
    stored.payload = Bytes::copy_from_slice(&stored.payload);
    record.key = Bytes::copy_from_slice(&record.key);
    record.value = stored.payload.clone();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Schema;
    use crate::stamp::Stamp;

    /// Records as they lie in one buffer.
    fn read(destinations: &[Destination]) -> (Bytes, Vec<Stored>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for destination in destinations {
            Envelope {
                record_id: [7; 16],
                received_ms: 1_702_166_400_000,
                destination: *destination,
                schema: Schema::Raw,
                stamp: Stamp::default(),
                headers: false,
                topic: "events",
                key: "7",
                machine: "7",
                mqtt_topic: "t",
                client_id: "c",
                traceparent: "",
                reason: "",
                exchange: None,
            }
            .encode(&mut bytes);
            let meta_end = bytes.len();
            bytes.extend_from_slice(b"payload");
            ends.push((meta_end, bytes.len()));
        }
        let buffer = Bytes::from(bytes);
        let mut begin = 0;
        let records = (1..).zip(ends).map(|(sequence, (meta_end, end))| {
            let stored = Stored {
                sequence,
                meta: buffer.slice(begin..meta_end),
                payload: buffer.slice(meta_end..end),
            };
            begin = end;
            stored
        });
        let records = records.collect();
        (buffer, records)
    }

    fn sent(destinations: &[Destination]) -> (Bytes, Vec<Record>) {
        let config = KafkaConfig::default();
        let mut drafts = Drafts::new("gw-1".into(), &config, &["events".into()]);
        let (buffer, records) = read(destinations);
        let sent = drafts.batch(records).into_iter().filter_map(|draft| match draft {
            Draft::Send(record) => Some(record),
            Draft::Skip { .. } | Draft::Unreadable { .. } => None,
        });
        (buffer, sent.collect())
    }

    #[test]
    fn a_few_records_of_a_read_do_not_keep_its_buffer_and_many_are_not_copied() {
        let mut few = vec![Destination::Api; 99];
        few.push(Destination::KafkaAndApi);
        let (buffer, records) = sent(&few);
        assert_eq!(records.len(), 1);
        assert!(buffer.is_unique(), "one record of a hundred keeps them all");
        assert_eq!(
            (&records[0].key[..], &records[0].value[..]),
            (&b"7"[..], &b"payload"[..])
        );
        assert_eq!(records[0].origin.stored.sequence, 100);

        let (buffer, records) = sent(&[Destination::Kafka; 100]);
        let own = buffer.as_ptr_range();
        assert!(records.iter().all(|record| own.contains(&record.value.as_ptr())));
    }
}
