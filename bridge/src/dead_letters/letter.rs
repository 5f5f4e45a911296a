//! A dead letter as it is read back, from the topic or from disk.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

use super::header;
use crate::contract::timestamp::parse_production_time;
use crate::kafka::ReadRecord;
use crate::record::{Destination, Envelope, Letter, RefusedBy};
use crate::spool::Stored;

/// Where a letter lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the dead-letter topic.
    Topic { partition: i32, offset: i64 },
    /// In the dead-letter spool of the gateway, with its sequence there.
    Disk { sequence: u64 },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic { partition, offset } => write!(f, "topic/{partition}/{offset}"),
            Self::Disk { sequence } => write!(f, "disk/{sequence}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = match text.split('/').collect::<Vec<_>>().as_slice() {
            ["topic", partition, offset] => partition
                .parse()
                .ok()
                .zip(offset.parse().ok())
                .map(|(partition, offset)| Self::Topic { partition, offset }),
            ["disk", sequence] => sequence.parse().ok().map(|sequence| Self::Disk { sequence }),
            _ => None,
        };
        place.ok_or_else(|| format!("{text:?} is no place: write topic/PARTITION/OFFSET or disk/SEQUENCE"))
    }
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub place: Place,
    /// `None` where the record's envelope could not be read: then nothing else is known either.
    pub record_id: Option<Uuid>,
    /// The gateway that accepted it, and the sequence that it had there.
    pub gateway: String,
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub received_ms: Option<i64>,
    pub reason: String,
    pub refused_by: RefusedBy,
    pub mqtt_topic: String,
    /// Where it was meant to go; empty where its route makes the topic of the message.
    pub kafka_topic: String,
    pub client_id: String,
    /// Empty where the topic names none.
    pub machine: String,
    pub protobuf: bool,
    pub key: String,
    pub traceparent: String,
    pub payload: Bytes,
    /// An earlier copy of the same record lies here: a crash repeated it.
    pub repeats: Option<Place>,
}

impl DeadLetter {
    pub(super) fn of_record(record: ReadRecord) -> Self {
        let text = |name: &str| {
            let found = record.headers.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Self {
            place: Place::Topic {
                partition: record.partition,
                offset: record.offset,
            },
            record_id: text(header::RECORD_ID)
                .parse()
                .ok()
                .filter(|id: &Uuid| !id.is_nil()),
            gateway: text(header::GATEWAY),
            sequence: text(header::SEQUENCE).parse().unwrap_or_default(),
            received_ms: parse_production_time(&text(header::RECEIVED)),
            reason: text(header::REASON),
            refused_by: RefusedBy::named(&text(header::REFUSED_BY)).unwrap_or_default(),
            mqtt_topic: text(header::MQTT_TOPIC),
            kafka_topic: text(header::KAFKA_TOPIC),
            client_id: text(header::CLIENT_ID),
            machine: text(header::MACHINE),
            protobuf: text(header::CONTENT_TYPE) == shopfloor_proto::CONTENT_TYPE,
            key: String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
            traceparent: text(header::TRACEPARENT),
            payload: record.value.unwrap_or_default().into(),
            repeats: None,
        }
    }

    pub(super) fn of_stored(stored: &Stored, gateway: &str) -> Self {
        let place = Place::Disk {
            sequence: stored.sequence,
        };
        let Ok(envelope) = Envelope::decode(&stored.meta) else {
            return Self::unknown(place, gateway, stored.payload.clone());
        };
        let letter = match envelope.destination {
            Destination::DeadLetter(letter) => letter,
            _ => Letter::default(),
        };
        Self {
            record_id: Some(Uuid::from_bytes(envelope.record_id)).filter(|id| !id.is_nil()),
            sequence: letter.first_sequence,
            received_ms: Some(envelope.received_ms),
            reason: envelope.reason.to_owned(),
            refused_by: letter.refused_by,
            mqtt_topic: envelope.mqtt_topic.to_owned(),
            kafka_topic: envelope.topic.to_owned(),
            client_id: envelope.client_id.to_owned(),
            machine: envelope.machine.to_owned(),
            protobuf: letter.protobuf,
            key: envelope.key.to_owned(),
            traceparent: envelope.traceparent.to_owned(),
            ..Self::unknown(place, gateway, stored.payload.clone())
        }
    }

    fn unknown(place: Place, gateway: &str, payload: Bytes) -> Self {
        Self {
            place,
            record_id: None,
            gateway: gateway.to_owned(),
            sequence: 0,
            received_ms: None,
            reason: "its envelope cannot be read".into(),
            refused_by: RefusedBy::default(),
            mqtt_topic: String::new(),
            kafka_topic: String::new(),
            client_id: String::new(),
            machine: String::new(),
            protobuf: false,
            key: String::new(),
            traceparent: String::new(),
            payload,
            repeats: None,
        }
    }

    /// The machine that the topic names, else the payload's `machineId`.
    pub fn machine(&self) -> Option<String> {
        if !self.machine.is_empty() {
            return Some(self.machine.clone());
        }
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(rename = "machineId")]
            machine_id: serde_json::Value,
        }
        let named: Named = serde_json::from_slice(&self.payload).ok()?;
        match named.machine_id {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// Which letters are meant; what is not said matches all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub record_id: Option<Uuid>,
    pub place: Option<Place>,
    /// The Kafka topic that it was meant for, or the MQTT topic.
    pub topic: Option<String>,
    pub client: Option<String>,
    pub machine: Option<String>,
    /// A part of the reason, capitals or not.
    pub reason: Option<String>,
    /// Accepted at this time or later.
    pub since_ms: Option<i64>,
    /// Accepted before this time.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// It matches every letter.
    pub fn is_empty(&self) -> bool {
        self.record_id.is_none()
            && self.place.is_none()
            && self.topic.is_none()
            && self.client.is_none()
            && self.machine.is_none()
            && self.reason.is_none()
            && self.since_ms.is_none()
            && self.until_ms.is_none()
    }

    pub fn matches(&self, letter: &DeadLetter) -> bool {
        fn asked<T: ?Sized>(asked: Option<&T>, fits: impl FnOnce(&T) -> bool) -> bool {
            asked.is_none_or(fits)
        }
        asked(self.record_id.as_ref(), |id| letter.record_id == Some(*id))
            && asked(self.place.as_ref(), |place| letter.place == *place)
            && asked(self.topic.as_deref(), |topic| {
                letter.kafka_topic == topic || letter.mqtt_topic == topic
            })
            && asked(self.client.as_deref(), |client| letter.client_id == client)
            && asked(self.since_ms.as_ref(), |since| {
                letter.received_ms.is_some_and(|received| received >= *since)
            })
            && asked(self.until_ms.as_ref(), |until| {
                letter.received_ms.is_some_and(|received| received < *until)
            })
            && asked(self.reason.as_deref(), |reason| {
                letter.reason.to_lowercase().contains(&reason.to_lowercase())
            })
            // Last: it may have to read the payload.
            && asked(self.machine.as_deref(), |machine| letter.machine().as_deref() == Some(machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: &str) -> DeadLetter {
        DeadLetter {
            received_ms: Some(1_000),
            reason: "`partId` is missing: send it".into(),
            mqtt_topic: "factory/north/7/supply-chain".into(),
            kafka_topic: "supply_chain".into(),
            client_id: "press-7".into(),
            ..DeadLetter::unknown(
                Place::Disk { sequence: 1 },
                "gw-1",
                Bytes::copy_from_slice(payload.as_bytes()),
            )
        }
    }

    #[test]
    fn every_filter_narrows() {
        let letter = letter(r#"{"machineId":7}"#);
        let matches = |filter: Filter| filter.matches(&letter);
        let text = |text: &str| Some(text.to_owned());
        assert!(matches(Filter::default()));
        for topic in ["supply_chain", "factory/north/7/supply-chain"] {
            assert!(matches(Filter {
                topic: text(topic),
                ..Filter::default()
            }));
        }
        assert!(!matches(Filter {
            topic: text("supply"),
            ..Filter::default()
        }));
        assert!(matches(Filter {
            client: text("press-7"),
            machine: text("7"),
            ..Filter::default()
        }));
        assert!(!matches(Filter {
            machine: text("8"),
            ..Filter::default()
        }));
        assert!(matches(Filter {
            reason: text("PARTID"),
            ..Filter::default()
        }));
        assert!(!matches(Filter {
            reason: text("machineId"),
            ..Filter::default()
        }));
        assert!(matches(Filter {
            since_ms: Some(1_000),
            until_ms: Some(1_001),
            ..Filter::default()
        }));
        assert!(!matches(Filter {
            since_ms: Some(1_001),
            ..Filter::default()
        }));
        assert!(!matches(Filter {
            until_ms: Some(1_000),
            ..Filter::default()
        }));
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for place in [
            Place::Topic {
                partition: 3,
                offset: 17,
            },
            Place::Disk { sequence: 9 },
        ] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in ["", "topic/3", "disk/x", "topic/3/4/5", "disc/1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_payload_that_is_no_json_names_no_machine() {
        assert_eq!(letter("\u{1b}").machine(), None);
        assert_eq!(letter(r#"{"machineId":"x 1"}"#).machine().as_deref(), Some("x 1"));
    }
}
