//! What neither the client's topics nor a sink takes, and where it stays.
//!
//! A dead letter goes to the dead-letter topic: the payload as the machine sent it, why and whence in headers. When
//! Kafka refuses even that, it stays in a spool of its own on disk (`dead-letters/` in the data directory), which
//! nothing empties by itself.
//!
//! Layout: this file is the way in, `last_resort` the spool on disk. For whoever looks after them: [`letter`] is one of
//! them as it is read back, [`desk`] reads topic and disk, [`settled`] knows what is done with, [`plan`] where a letter
//! would go now, [`replay`] sends letters there.

pub mod desk;
mod last_resort;
pub mod letter;
pub mod plan;
pub mod replay;
pub mod settled;

pub(crate) use last_resort::LastResort;

use bytes::{BufMut, Bytes, BytesMut};

use crate::contract::timestamp::production_time;
use crate::record::{Destination, Envelope, Letter, RefusedBy};
use crate::spool::{Entry, Stored};
use crate::tap::record_id_text;

/// In a gateway's data directory: dead letters that Kafka refused.
const DIRECTORY: &str = "dead-letters";

/// Header names of records.
pub mod header {
    /// Why it is a dead letter.
    pub const REASON: &str = "reason";
    /// Who refused it, and so who did not get it: `contract` (nobody got it), `kafka` or `api`.
    pub const REFUSED_BY: &str = "refused-by";
    /// `application/x-protobuf` where the payload is that.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The machine, where the MQTT topic or the payload names one.
    pub const MACHINE: &str = "machine";
    /// The MQTT topic on which it was published.
    pub const MQTT_TOPIC: &str = "mqtt-topic";
    /// The Kafka topic for which it was meant.
    pub const KAFKA_TOPIC: &str = "kafka-topic";
    pub const CLIENT_ID: &str = "client-id";
    /// The gateway that accepted it.
    pub const GATEWAY: &str = "gateway";
    /// The sequence in that gateway's spool with which it was accepted.
    pub const SEQUENCE: &str = "sequence";
    /// Its UUID, the same over every retry and replay.
    pub const RECORD_ID: &str = "record-id";
    /// When it was accepted, `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub const RECEIVED: &str = "received";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// Of a mark, which is no letter: what was done with one: `begun` and `replayed` or `refused`, or `dropped`.
    pub const SETTLED: &str = "settled";
    /// Of a mark: when, written as [`RECEIVED`] is.
    pub const SETTLED_AT: &str = "settled-at";
    /// Of a mark: where the letter lies.
    pub const LETTER: &str = "letter";
}

type Headers = Vec<(&'static str, Bytes)>;

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The headers that a route asks for.
pub(crate) fn record_headers(envelope: &Envelope<'_>, sequence: u64, gateway: &Bytes) -> Headers {
    let mut headers = vec![
        (header::GATEWAY, gateway.clone()),
        (header::SEQUENCE, sequence.to_string().into()),
        (header::RECORD_ID, record_id_text(envelope.record_id).into()),
    ];
    if !envelope.traceparent.is_empty() {
        headers.push((header::TRACEPARENT, text(envelope.traceparent)));
    }
    headers
}

/// The headers of a dead letter, which `refused_by` refused unless its envelope says who did.
pub(crate) fn dead_letter_headers(
    envelope: &Envelope<'_>,
    refused_by: RefusedBy,
    reason: &str,
    sequence: u64,
    gateway: &Bytes,
) -> Headers {
    let letter = letter(envelope, refused_by, sequence);
    let mut headers = vec![
        (header::REASON, text(reason)),
        (header::REFUSED_BY, letter.refused_by.name().into()),
        (header::MQTT_TOPIC, text(envelope.mqtt_topic)),
        (header::KAFKA_TOPIC, text(envelope.topic)),
        (header::CLIENT_ID, text(envelope.client_id)),
        (
            header::RECEIVED,
            production_time(envelope.received_ms).unwrap_or_default().into(),
        ),
    ];
    if letter.protobuf {
        headers.push((header::CONTENT_TYPE, shopfloor_proto::CONTENT_TYPE.into()));
    }
    if !envelope.machine.is_empty() {
        headers.push((header::MACHINE, text(envelope.machine)));
    }
    headers.extend(record_headers(envelope, letter.first_sequence, gateway));
    headers
}

/// What is known of a dead letter: from its envelope where it was one already.
fn letter(envelope: &Envelope<'_>, refused_by: RefusedBy, sequence: u64) -> Letter {
    let Destination::DeadLetter(mut letter) = envelope.destination else {
        return Letter {
            refused_by,
            protobuf: false,
            first_sequence: sequence,
        };
    };
    if letter.first_sequence == 0 {
        letter.first_sequence = sequence;
    }
    letter
}

/// The same record as a dead letter, for the spool. Its id and its first sequence stay, so a repetition shows.
pub(crate) fn as_dead_letter(
    stored: &Stored,
    envelope: &Envelope<'_>,
    refused_by: RefusedBy,
    reason: &str,
) -> Entry {
    let mut meta = BytesMut::new();
    Envelope {
        destination: Destination::DeadLetter(letter(envelope, refused_by, stored.sequence)),
        reason,
        // The record that came from the client opened it; this one must not open it again.
        exchange: None,
        ..envelope.clone()
    }
    .encode(&mut meta);
    Entry {
        meta: meta.freeze(),
        payload: stored.payload.clone(),
    }
}

/// An entry whose envelope cannot be read, wrapped so that it can be kept and shown.
pub(crate) fn unreadable(stored: &Stored, reason: &str) -> Entry {
    let mut meta = BytesMut::new();
    Envelope {
        record_id: [0; 16],
        received_ms: 0,
        destination: Destination::DeadLetter(Letter {
            first_sequence: stored.sequence,
            ..Letter::default()
        }),
        schema: crate::contract::Schema::Raw,
        stamp: crate::stamp::Stamp::default(),
        headers: false,
        topic: "",
        key: "",
        machine: "",
        mqtt_topic: "",
        client_id: "",
        traceparent: "",
        reason,
        exchange: None,
    }
    .encode(&mut meta);
    let mut payload = BytesMut::with_capacity(4 + stored.meta.len() + stored.payload.len());
    // The bytes as they were: length of the envelope, envelope, payload.
    payload.put_u32_le(u32::try_from(stored.meta.len()).unwrap_or(u32::MAX));
    payload.put_slice(&stored.meta);
    payload.put_slice(&stored.payload);
    Entry {
        meta: meta.freeze(),
        payload: payload.freeze(),
    }
}
