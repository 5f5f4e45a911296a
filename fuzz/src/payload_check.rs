//! What a payload must be, and what becomes of it.

use shopfloor_bridge::contract::{Schema, body, check, protobuf};

/// The first byte chooses schema and stamp, the others are the payload.
pub fn run(data: &[u8]) {
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    let schema = Schema::ALL[usize::from(*choice) % Schema::ALL.len()];
    accepted(schema, payload, choice & 0x80 == 0);
    if let Ok(Some(json)) = protobuf::transcode(schema, payload) {
        serde_json::from_slice::<serde_json::Value>(&json).expect("protobuf becomes JSON");
        accepted(schema, &json, true);
    }
}

/// What the check lets pass, Kafka's clients can read and the production API takes.
fn accepted(schema: Schema, payload: &[u8], stamped: bool) {
    if check(schema, payload, stamped).is_err() || schema == Schema::Raw {
        return;
    }
    let value = serde_json::from_slice::<serde_json::Value>(payload).expect("a payload that passed is JSON");
    assert!(value.is_object(), "a payload that passed is no object");
    let body = body(schema, payload).expect("a payload that passed has a body for the production API");
    assert_eq!(body.is_some(), schema.is_telemetry());
}
