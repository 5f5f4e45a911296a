//! A letter for programs.

use serde_json::{Value, json};
use shopfloor_bridge::contract::timestamp::production_time;
use shopfloor_bridge::dead_letters::letter::DeadLetter;
use shopfloor_bridge::dead_letters::settled::Settlement;

use crate::cli::plain::hex;

pub(super) fn letter_json(letter: &DeadLetter, settlement: Option<Settlement>) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let payload = std::str::from_utf8(&letter.payload).ok();
    json!({
        "id": letter.record_id.map(|id| id.to_string()),
        "place": letter.place.to_string(),
        "settled": settlement.map(Settlement::name),
        "received": letter.received_ms.and_then(production_time),
        "reason": letter.reason,
        "refused_by": letter.refused_by.name(),
        "mqtt_topic": text(&letter.mqtt_topic),
        "kafka_topic": text(&letter.kafka_topic),
        "client_id": text(&letter.client_id),
        "machine": letter.machine(),
        "gateway": letter.gateway,
        "sequence": letter.sequence,
        "key": text(&letter.key),
        "traceparent": text(&letter.traceparent),
        "protobuf": letter.protobuf,
        "payload": payload,
        "payload_hex": payload.is_none().then(|| hex(&letter.payload)),
    })
}
