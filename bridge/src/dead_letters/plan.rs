//! Where a letter would go now: routes, contract and sinks of the configuration as it is.

use bytes::Bytes;
use shopfloor_proto::v1::TelemetryRecord;
use uuid::Uuid;

use super::desk::{Desk, LettersFault};
use super::header;
use super::letter::DeadLetter;
use crate::acceptance::{Texts, accept, missing_stamps};
use crate::contract;
use crate::kafka::Outgoing;
use crate::record::{Destination, RefusedBy};
use crate::routes::RouteTable;
use crate::stamp::stamp;

/// Where a letter would go, or why it still cannot.
pub type Plan = Result<Way, String>;

/// Where a letter goes.
#[derive(Debug)]
pub struct Way {
    /// Kafka topic, where Kafka is to get it.
    pub topic: Option<String>,
    pub to_api: bool,
    pub(super) record: Option<Outgoing<usize>>,
    pub(super) telemetry: Option<TelemetryRecord>,
}

/// Plans replays: routes, contract, sinks of now.
#[derive(Debug)]
pub struct Planner {
    routes: RouteTable,
    has_api: bool,
    max_record_bytes: usize,
}

impl Way {
    /// In words.
    pub fn describe(&self) -> String {
        let kafka = self.topic.as_ref().map(|topic| format!("Kafka's {topic}"));
        let api = self.to_api.then(|| "the production API".to_owned());
        let places: Vec<String> = kafka.into_iter().chain(api).collect();
        places.join(" and ")
    }
}

impl Planner {
    pub fn new(desk: &Desk) -> Result<Self, LettersFault> {
        let routes = RouteTable::compile(&desk.config.routes).map_err(|problems| LettersFault::Routes {
            problems: problems.len(),
            first: problems.first().map(ToString::to_string).unwrap_or_default(),
        })?;
        Ok(Self {
            routes,
            has_api: desk.config.api.url.is_some(),
            max_record_bytes: desk.config.kafka.max_record_bytes as usize,
        })
    }

    /// The letter's way by the routes and the contract of now, past whoever has it already.
    pub fn plan(&self, letter: &DeadLetter) -> Plan {
        let id = letter.record_id.ok_or(
            "its envelope cannot be read, so nothing tells where it was to go: publish what `dlq show` prints anew, and drop \
             it",
        )?;
        let route = self
            .routes
            .lookup(&letter.mqtt_topic)
            .ok_or_else(|| format!("no route takes {:?}: add one to bridge.routes", letter.mqtt_topic))?;
        let accepted = accept(&letter.payload, letter.protobuf, route, self.has_api)
            .map_err(|violation| violation.to_string())?;
        let mut texts = Texts::default();
        texts
            .resolve(&letter.mqtt_topic, &letter.client_id, route, &accepted.checked)
            .map_err(|violation| violation.to_string())?;
        let (to_kafka, to_api) = who_lacks(letter.refused_by, accepted.destination);
        if to_api && !self.has_api {
            return Err(
                "the production API refused it and none is configured now: set bridge.api.url".into(),
            );
        }
        let received_ms = letter.received_ms.unwrap_or_default();
        let telemetry = if to_api {
            let body =
                contract::body(route.schema, &accepted.payload).map_err(|violation| violation.to_string())?;
            let body = body.ok_or("its route has a schema that the production API does not take")?;
            Some(TelemetryRecord {
                record_id: Bytes::copy_from_slice(id.as_bytes()),
                sequence: letter.sequence,
                machine: texts.machine.clone(),
                received_ms,
                traceparent: letter.traceparent.clone(),
                body: Some(body),
            })
        } else {
            None
        };
        let topic = route.topic.fixed().unwrap_or(&texts.topic).to_owned();
        let record = to_kafka.then(|| {
            let stamps = missing_stamps(route, &accepted.checked);
            let value = if stamps.is_empty() {
                accepted.payload.clone()
            } else {
                let mut value = Vec::new();
                stamp(&accepted.payload, stamps, received_ms, &mut value);
                value.into()
            };
            Outgoing {
                topic: topic.as_str().into(),
                key: Bytes::from(texts.key.clone()),
                value,
                headers: record_headers(letter, id),
                origin: 0,
            }
        });
        if let Some(record) = record
            .as_ref()
            .filter(|record| record.bytes() > self.max_record_bytes)
        {
            let (bytes, max) = (record.bytes(), self.max_record_bytes);
            return Err(format!(
                "it is {bytes} bytes and Kafka's records may have {max}: raise bridge.kafka.max_record_bytes and the brokers' \
                 message.max.bytes"
            ));
        }
        Ok(Way {
            topic: to_kafka.then_some(topic),
            to_api,
            record,
            telemetry,
        })
    }
}

/// Kafka, API.
fn who_lacks(refused_by: RefusedBy, destination: Destination) -> (bool, bool) {
    match refused_by {
        RefusedBy::Contract => (destination.kafka(), destination.api()),
        // The other sink has its own cursor, and got the record by that.
        RefusedBy::Kafka => (destination.kafka(), destination == Destination::Api),
        RefusedBy::Api => (false, true),
    }
}

fn record_headers(letter: &DeadLetter, id: Uuid) -> Vec<(&'static str, Bytes)> {
    let mut headers = vec![
        (header::GATEWAY, Bytes::from(letter.gateway.clone())),
        (header::SEQUENCE, letter.sequence.to_string().into()),
        (header::RECORD_ID, id.to_string().into()),
    ];
    if !letter.traceparent.is_empty() {
        headers.push((header::TRACEPARENT, letter.traceparent.clone().into()));
    }
    headers
}
