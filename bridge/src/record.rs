//! What the spool keeps beside a payload: everything that the sinks need, so that a record's way is decided once,
//! at reception, and survives any later change of the routes.
//!
//! ```text
//! u8   format version, 1
//! u8   destination
//! u8   schema
//! u8   flags: add isDeleted, add lastUpdate, headers, machine equals key, traceparent follows, reason follows,
//!      exchange follows
//! 16 B record id (UUIDv7)
//! i64  reception time, milliseconds since the Unix epoch, little-endian
//! text Kafka topic, key, [machine], MQTT topic, client id, [traceparent], [reason]
//! of a dead letter also: u8 who refused it, u8 whether the payload is protobuf, varint of its first sequence
//! [exchange: session u64, packet identifier u16, content u32, little-endian]
//! ```
//! A text is a varint of its length and its UTF-8 bytes. A release has an exchange and no payload.

use bytes::BufMut;
use prost::encoding::{decode_varint, encode_varint};
use shopfloor_broker::tap::Exchange;

use crate::contract::Schema;
use crate::stamp::Stamp;

const VERSION: u8 = 1;

const ADD_IS_DELETED: u8 = 1;
const ADD_LAST_UPDATE: u8 = 1 << 1;
const HEADERS: u8 = 1 << 2;
const MACHINE_IS_KEY: u8 = 1 << 3;
const HAS_TRACEPARENT: u8 = 1 << 4;
const HAS_REASON: u8 = 1 << 5;
const HAS_EXCHANGE: u8 = 1 << 6;

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Kafka gets it, and the API persists it silently.
    KafkaAndApi,
    Kafka,
    /// The API creates it and emits it to Kafka itself.
    Api,
    /// The dead-letter topic, with the reason.
    DeadLetter(Letter),
    /// Nowhere: it says that its QoS 2 exchange is over.
    Release,
}

/// What a replay of a dead letter must know beside the envelope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Letter {
    pub refused_by: RefusedBy,
    /// The payload is protobuf: it never passed the check that turns it into JSON.
    pub protobuf: bool,
    /// The sequence that the record was accepted with; 0 where it is the one that it has now.
    pub first_sequence: u64,
}

/// Who refused a dead letter, and so what did not get it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RefusedBy {
    /// The route's contract, at reception: nothing got it.
    #[default]
    Contract,
    /// Kafka alone.
    Kafka,
    /// The production API alone.
    Api,
}

impl RefusedBy {
    pub const ALL: [Self; 3] = [Self::Contract, Self::Kafka, Self::Api];

    pub fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Kafka => "kafka",
            Self::Api => "api",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }
}

impl Destination {
    pub fn kafka(self) -> bool {
        !matches!(self, Self::Api | Self::Release)
    }

    pub fn api(self) -> bool {
        matches!(self, Self::KafkaAndApi | Self::Api)
    }
}

/// One record's envelope, borrowed from its encoded form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// UUIDv7 made at reception; the same over every retry and sink.
    pub record_id: [u8; 16],
    /// Milliseconds since the Unix epoch.
    pub received_ms: i64,
    pub destination: Destination,
    pub schema: Schema,
    pub stamp: Stamp,
    /// The route asks for Kafka headers.
    pub headers: bool,
    /// Kafka topic; of a dead letter, the topic it would have gone to (may be empty).
    pub topic: &'a str,
    /// Kafka key; empty for none.
    pub key: &'a str,
    /// Empty where neither topic nor payload names one.
    pub machine: &'a str,
    pub mqtt_topic: &'a str,
    pub client_id: &'a str,
    /// W3C traceparent; empty where the publisher sent none.
    pub traceparent: &'a str,
    /// Why it is a dead letter; else empty.
    pub reason: &'a str,
    /// The QoS 2 exchange that the record opened when it was taken in, or that a release ends.
    pub exchange: Option<Exchange>,
}

/// Bytes that are no envelope: another version's, or not the spool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it ends early")]
    Short,
    #[error("its format version is {0}; this gateway reads version {VERSION}")]
    Version(u8),
    #[error("its destination {0} is unknown")]
    Destination(u8),
    #[error("its schema {0} is unknown")]
    Schema(u8),
    #[error("who refused it, {0}, is unknown")]
    RefusedBy(u8),
    #[error("a text in it is not UTF-8")]
    Text,
}

impl<'a> Envelope<'a> {
    /// The end of a QoS 2 exchange.
    pub fn release(exchange: Exchange, record_id: [u8; 16], received_ms: i64) -> Self {
        Self {
            record_id,
            received_ms,
            destination: Destination::Release,
            schema: Schema::Raw,
            stamp: Stamp::default(),
            headers: false,
            topic: "",
            key: "",
            machine: "",
            mqtt_topic: "",
            client_id: "",
            traceparent: "",
            reason: "",
            exchange: Some(exchange),
        }
    }

    /// Appends the encoded form.
    pub fn encode(&self, out: &mut impl BufMut) {
        let machine_is_key = self.machine == self.key;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_u8(VERSION);
        out.put_u8(match self.destination {
            Destination::KafkaAndApi => 0,
            Destination::Kafka => 1,
            Destination::Api => 2,
            Destination::DeadLetter(_) => 3,
            Destination::Release => 4,
        });
        out.put_u8(match self.schema {
            Schema::SupplyChain => 0,
            Schema::PartInformation => 1,
            Schema::Material => 2,
            Schema::Json => 3,
            Schema::Raw => 4,
        });
        out.put_u8(
            flag(self.stamp.is_deleted, ADD_IS_DELETED)
                | flag(self.stamp.last_update, ADD_LAST_UPDATE)
                | flag(self.headers, HEADERS)
                | flag(machine_is_key, MACHINE_IS_KEY)
                | flag(!self.traceparent.is_empty(), HAS_TRACEPARENT)
                | flag(!self.reason.is_empty(), HAS_REASON)
                | flag(self.exchange.is_some(), HAS_EXCHANGE),
        );
        out.put_slice(&self.record_id);
        out.put_i64_le(self.received_ms);
        put_text(self.topic, out);
        put_text(self.key, out);
        if !machine_is_key {
            put_text(self.machine, out);
        }
        put_text(self.mqtt_topic, out);
        put_text(self.client_id, out);
        if !self.traceparent.is_empty() {
            put_text(self.traceparent, out);
        }
        if !self.reason.is_empty() {
            put_text(self.reason, out);
        }
        if let Destination::DeadLetter(letter) = self.destination {
            out.put_u8(match letter.refused_by {
                RefusedBy::Contract => 0,
                RefusedBy::Kafka => 1,
                RefusedBy::Api => 2,
            });
            out.put_u8(u8::from(letter.protobuf));
            encode_varint(letter.first_sequence, out);
        }
        if let Some(exchange) = self.exchange {
            out.put_u64_le(exchange.session);
            out.put_u16_le(exchange.packet_id);
            out.put_u32_le(exchange.content);
        }
    }

    pub fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (&[version, destination, schema, flags], rest) =
            bytes.split_first_chunk().ok_or(EnvelopeError::Short)?;
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        let (&record_id, rest) = rest.split_first_chunk().ok_or(EnvelopeError::Short)?;
        let (&received_ms, mut rest) = rest.split_first_chunk().ok_or(EnvelopeError::Short)?;
        let mut text = |present: bool| if present { take_text(&mut rest) } else { Ok("") };
        let topic = text(true)?;
        let key = text(true)?;
        let machine = if flags & MACHINE_IS_KEY != 0 {
            key
        } else {
            text(true)?
        };
        let mqtt_topic = text(true)?;
        let client_id = text(true)?;
        let traceparent = text(flags & HAS_TRACEPARENT != 0)?;
        let reason = text(flags & HAS_REASON != 0)?;
        Ok(Self {
            record_id,
            received_ms: i64::from_le_bytes(received_ms),
            destination: match destination {
                0 => Destination::KafkaAndApi,
                1 => Destination::Kafka,
                2 => Destination::Api,
                3 => Destination::DeadLetter(take_letter(&mut rest)?),
                4 => Destination::Release,
                other => return Err(EnvelopeError::Destination(other)),
            },
            schema: match schema {
                0 => Schema::SupplyChain,
                1 => Schema::PartInformation,
                2 => Schema::Material,
                3 => Schema::Json,
                4 => Schema::Raw,
                other => return Err(EnvelopeError::Schema(other)),
            },
            stamp: Stamp {
                is_deleted: flags & ADD_IS_DELETED != 0,
                last_update: flags & ADD_LAST_UPDATE != 0,
            },
            headers: flags & HEADERS != 0,
            topic,
            key,
            machine,
            mqtt_topic,
            client_id,
            traceparent,
            reason,
            exchange: (flags & HAS_EXCHANGE != 0)
                .then(|| take_exchange(rest))
                .transpose()?,
        })
    }
}

fn take_letter(rest: &mut &[u8]) -> Result<Letter, EnvelopeError> {
    let (&[refused_by, protobuf], after) = rest.split_first_chunk().ok_or(EnvelopeError::Short)?;
    *rest = after;
    Ok(Letter {
        refused_by: match refused_by {
            0 => RefusedBy::Contract,
            1 => RefusedBy::Kafka,
            2 => RefusedBy::Api,
            other => return Err(EnvelopeError::RefusedBy(other)),
        },
        protobuf: protobuf != 0,
        first_sequence: decode_varint(rest).map_err(|_| EnvelopeError::Short)?,
    })
}

fn put_text(text: &str, out: &mut impl BufMut) {
    encode_varint(text.len() as u64, out);
    out.put_slice(text.as_bytes());
}

fn take_exchange(bytes: &[u8]) -> Result<Exchange, EnvelopeError> {
    let (&session, rest) = bytes.split_first_chunk().ok_or(EnvelopeError::Short)?;
    let (&packet_id, rest) = rest.split_first_chunk().ok_or(EnvelopeError::Short)?;
    let (&content, _) = rest.split_first_chunk().ok_or(EnvelopeError::Short)?;
    Ok(Exchange {
        session: u64::from_le_bytes(session),
        packet_id: u16::from_le_bytes(packet_id),
        content: u32::from_le_bytes(content),
    })
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, EnvelopeError> {
    let length = decode_varint(rest).map_err(|_| EnvelopeError::Short)?;
    let length = usize::try_from(length).map_err(|_| EnvelopeError::Short)?;
    let (text, after) = rest.split_at_checked(length).ok_or(EnvelopeError::Short)?;
    *rest = after;
    std::str::from_utf8(text).map_err(|_| EnvelopeError::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope<'a>(texts: &'a [String; 7], bits: u8) -> Envelope<'a> {
        let [topic, key, machine, mqtt_topic, client_id, traceparent, reason] = texts;
        Envelope {
            record_id: [bits; 16],
            received_ms: i64::from(bits) - 100,
            destination: match bits % 5 {
                0 => Destination::KafkaAndApi,
                1 => Destination::Kafka,
                2 => Destination::Api,
                3 => Destination::Release,
                _ => Destination::DeadLetter(Letter {
                    refused_by: RefusedBy::ALL[usize::from(bits) % 3],
                    protobuf: bits & 8 != 0,
                    first_sequence: u64::from(bits) * 1_000,
                }),
            },
            schema: Schema::ALL[usize::from(bits) % 5],
            stamp: Stamp {
                is_deleted: bits & 8 != 0,
                last_update: bits & 16 != 0,
            },
            headers: bits & 32 != 0,
            topic,
            key,
            machine: if bits & 64 != 0 { key } else { machine },
            mqtt_topic,
            client_id,
            traceparent,
            reason,
            exchange: (bits & 128 != 0).then_some(Exchange {
                session: u64::MAX - u64::from(bits),
                packet_id: u16::from(bits) << 8,
                content: u32::MAX - u32::from(bits),
            }),
        }
    }

    proptest! {
        #[test]
        fn an_envelope_survives_its_encoding(texts in prop::array::uniform7("\\PC{0,200}"), bits in any::<u8>()) {
            let envelope = envelope(&texts, bits);
            let mut bytes = Vec::new();
            envelope.encode(&mut bytes);
            prop_assert_eq!(Envelope::decode(&bytes), Ok(envelope.clone()));
            for end in 0..bytes.len() {
                prop_assert!(Envelope::decode(&bytes[..end]).is_err(), "cut at {}", end);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _envelope = Envelope::decode(&bytes);
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _envelope = Envelope::decode(&bytes);
        }
    }

    #[test]
    fn a_typical_envelope_is_small() {
        let envelope = Envelope {
            record_id: [7; 16],
            received_ms: 1_702_166_400_000,
            destination: Destination::KafkaAndApi,
            schema: Schema::SupplyChain,
            stamp: Stamp {
                is_deleted: true,
                last_update: true,
            },
            headers: false,
            topic: "supply_chain",
            key: "17",
            machine: "17",
            mqtt_topic: "supply-chain",
            client_id: "machine-17",
            traceparent: "",
            reason: "",
            exchange: None,
        };
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        assert!(bytes.len() <= 70, "{}", bytes.len());
    }

    #[test]
    fn another_versions_envelope_is_named() {
        let mut bytes = vec![0; 40];
        bytes[0] = 9;
        assert_eq!(Envelope::decode(&bytes), Err(EnvelopeError::Version(9)));
    }
}
