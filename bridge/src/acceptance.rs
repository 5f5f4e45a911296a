//! What a route makes of a message: checked, as JSON, with its destination, Kafka topic and key. The same for a
//! message that arrives and for a dead letter that is replayed.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::contract::{self, Checked, Schema, Violation, protobuf};
use crate::record::Destination;
use crate::routes::{Key, Route};
use crate::stamp::Stamp;
use crate::topic_name::CLIENT_TOPICS;

/// Longest client id that an envelope keeps, in bytes. Each of a batch's messages repeats it.
pub(crate) const MAX_CLIENT_ID_BYTES: usize = 256;

/// A message that its route's contract accepts.
pub(crate) struct Accepted {
    pub(crate) payload: Bytes,
    pub(crate) checked: Checked,
    pub(crate) destination: Destination,
}

/// Checks a payload; one that is `protobuf` becomes JSON.
pub(crate) fn accept(
    payload: &Bytes,
    protobuf: bool,
    route: &Route,
    has_api: bool,
) -> Result<Accepted, Violation> {
    let json = if protobuf {
        protobuf::transcode(route.schema, payload)?
    } else {
        None
    };
    let payload = json.map_or_else(|| payload.clone(), Bytes::from);
    let checked = contract::check(route.schema, &payload, route.stamp)?;
    let destination = match route.schema {
        Schema::Json | Schema::Raw => Destination::Kafka,
        Schema::PartInformation | Schema::Material if checked.id.is_none() => {
            if !has_api {
                return Err(Violation::NoApi);
            }
            Destination::Api
        }
        _ => Destination::KafkaAndApi,
    };
    Ok(Accepted {
        payload,
        checked,
        destination,
    })
}

/// What the sink adds to the payload.
pub(crate) fn missing_stamps(route: &Route, checked: &Checked) -> Stamp {
    Stamp {
        is_deleted: route.stamp && !checked.has_is_deleted,
        last_update: route.stamp && !checked.has_last_update,
    }
}

/// The machine that an MQTT topic names, where the route captures it.
pub(crate) fn machine_of_topic<'a>(route: &Route, mqtt_topic: &'a str) -> Option<&'a str> {
    let level = mqtt_topic.split('/').nth(route.machine_level?)?;
    Some(level).filter(|level| !level.is_empty())
}

/// Scratch for the texts of one message after the other.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// Kafka topic, where the route does not fix it.
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) machine: String,
}

impl Texts {
    /// Sets topic (where it is not fixed), machine and key of a message.
    pub(crate) fn resolve(
        &mut self,
        mqtt_topic: &str,
        client_id: &str,
        route: &Route,
        checked: &Checked,
    ) -> Result<(), Violation> {
        if route.topic.fixed().is_none() {
            self.topic.clear();
            route
                .topic
                .write_kafka_topic(mqtt_topic, &mut self.topic)
                .map_err(|why| Violation::Topic { why })?;
            if CLIENT_TOPICS.contains(&self.topic.as_str())
                && route.schema.client_topic() != Some(self.topic.as_str())
            {
                let why = format!(
                    "{:?} payloads do not fit the topic {:?}",
                    route.schema.name(),
                    self.topic
                );
                return Err(Violation::Topic { why });
            }
        }
        self.machine.clear();
        match machine_of_topic(route, mqtt_topic) {
            Some(machine) => self.machine.push_str(machine),
            None => write_id(checked.machine_id, &mut self.machine),
        }
        self.key.clear();
        match &route.key {
            Key::Template(template) => template.write(mqtt_topic, &mut self.key),
            Key::MachineId => write_id(checked.machine_id, &mut self.key),
            Key::PartId => write_id(checked.part_id, &mut self.key),
            Key::Id => write_id(checked.id, &mut self.key),
            Key::ClientId | Key::None => {}
        }
        if self.key.is_empty() && route.key != Key::None {
            self.key.push_str(shortened(client_id, MAX_CLIENT_ID_BYTES));
        }
        Ok(())
    }
}

fn write_id(id: Option<i32>, out: &mut String) {
    if let Some(id) = id {
        // Writing to a String cannot fail.
        let _written = write!(out, "{id}");
    }
}

pub(crate) fn shortened(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}
