//! What streams of server-sent events tell. OpenAPI 3.1 has no form for it: `x-events` has the data of each event by its
//! name, and the description says it in words.

use serde_json::{Value, json};

use super::schemas::reference;

/// The content of the stream at `path`.
pub(super) fn of(path: &str) -> Value {
    let (text, events) = match path {
        "/supply-chain/stream" => (UNITS, units()),
        _ => (MESSAGES, messages()),
    };
    json!({"schema": {"type": "string", "description": text}, "x-events": events})
}

const UNITS: &str = "Server-sent events; the data of each is one JSON object.\n\n\
    - `unit`: a unit that is new or has changed, as it is now. The changes of one unit are told in their \
    order; one that changed again meanwhile is told twice as it is now.\n\
    - `deleted`: the id of a unit that is gone.\n\
    - `left`: the id of a unit that this stream's filter took and, since a change, takes no more.\n\
    - `reset`: what changed since the last id is no longer known; read the list again. The stream goes on from then.\n\n\
    Every event has an id: sent back as `Last-Event-ID`, to any server, it is where the stream goes on. In quiet times an id \
    comes alone.";

fn units() -> Value {
    json!({
        "unit": reference("SupplyChain"),
        "deleted": reference("UnitId"),
        "left": reference("UnitId"),
        "reset": reference("StreamReset"),
    })
}

const MESSAGES: &str = "Server-sent events.\n\n\
    - An event without a name is a message; its data is a JSON object.\n\
    - `interrupted`: the connection to a broker broke, its messages are missing until `resumed`. The data is text.\n\
    - `overflow`: messages were not read fast enough, the stream ends. The data is text.\n\n\
    In quiet times a comment comes.";

fn messages() -> Value {
    let text = || json!({"type": "string"});
    json!({
        "message": reference("MqttDelivery"),
        "interrupted": text(),
        "resumed": text(),
        "overflow": text(),
    })
}
