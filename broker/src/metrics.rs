//! Every metric of the front.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

const PUBLISHES_TOTAL: &str = "shopfloor_mqtt_publishes_received_total";
const PUBLISH_BYTES_TOTAL: &str = "shopfloor_mqtt_publish_payload_bytes_received_total";
const ACKNOWLEDGED_TOTAL: &str = "shopfloor_mqtt_publishes_acknowledged_total";
const DELIVERED_TOTAL: &str = "shopfloor_mqtt_deliveries_sent_total";
const DROPPED_TOTAL: &str = "shopfloor_mqtt_deliveries_dropped_total";
const SESSIONS: &str = "shopfloor_mqtt_sessions";
const CONNECTED: &str = "shopfloor_mqtt_clients_connected";
const REFUSED_TOTAL: &str = "shopfloor_mqtt_connects_refused_total";
const CLOSED_TOTAL: &str = "shopfloor_mqtt_connections_closed_total";
const STALLED_TOTAL: &str = "shopfloor_mqtt_store_busy_total";
const PUBLISHES_REFUSED_TOTAL: &str = "shopfloor_mqtt_publishes_refused_total";
const THROTTLED_TOTAL: &str = "shopfloor_mqtt_reads_throttled_total";
const SUBSCRIBES_REFUSED_TOTAL: &str = "shopfloor_mqtt_subscribes_refused_total";
const SESSION_BYTES: &str = "shopfloor_mqtt_session_bytes";
const RETAINED: &str = "shopfloor_mqtt_retained_messages";
const PERSISTENCE_FAILURES_TOTAL: &str = "shopfloor_mqtt_persistence_failures_total";
const ROUTER_RESTARTS_TOTAL: &str = "shopfloor_mqtt_router_restarts_total";

/// Registers the HELP texts; call once the recorder stands.
pub fn describe() {
    describe_counter!(
        PUBLISHES_TOTAL,
        "Application messages received from clients, by QoS."
    );
    describe_counter!(
        PUBLISH_BYTES_TOTAL,
        "Payload bytes of the messages received from clients."
    );
    describe_counter!(
        ACKNOWLEDGED_TOTAL,
        "QoS 1 and 2 messages acknowledged to clients, each after its receipt, by verdict."
    );
    describe_counter!(DELIVERED_TOTAL, "Messages sent to subscribers.");
    describe_counter!(
        DROPPED_TOTAL,
        "Messages that a subscriber did not get, by reason."
    );
    describe_gauge!(SESSIONS, "Sessions, connected or not.");
    describe_gauge!(CONNECTED, "Clients that are connected.");
    describe_counter!(
        REFUSED_TOTAL,
        "Connections refused before or with CONNACK, by reason."
    );
    describe_counter!(
        CLOSED_TOTAL,
        "Connections of admitted clients that ended, by reason."
    );
    describe_counter!(
        STALLED_TOTAL,
        "Batches that had to wait because the store had no room."
    );
    describe_counter!(
        PUBLISHES_REFUSED_TOTAL,
        "Messages from clients that were not taken, by reason."
    );
    describe_counter!(
        THROTTLED_TOTAL,
        "Times that a client sent too fast and was not read for a while, by reason."
    );
    describe_counter!(
        SUBSCRIBES_REFUSED_TOTAL,
        "Topic filters that were refused or revoked, by reason."
    );
    describe_gauge!(
        SESSION_BYTES,
        "What all sessions hold, in bytes, in steps of 64 KiB: messages that wait or are not acknowledged, \
         subscriptions, wills, open QoS 2 exchanges."
    );
    describe_gauge!(RETAINED, "Retained messages.");
    describe_counter!(
        PERSISTENCE_FAILURES_TOTAL,
        "Commits of sessions and retained messages that failed and are tried again."
    );
    describe_counter!(
        ROUTER_RESTARTS_TOTAL,
        "Times that the fan-out router was rebuilt, by reason."
    );
}

/// Handles of what is counted on the hot path: looked up once.
#[derive(Clone)]
pub(crate) struct Hot {
    pub(crate) publishes: [Counter; 3],
    pub(crate) publish_bytes: Counter,
    pub(crate) acknowledged_stored: Counter,
    pub(crate) acknowledged_unrouted: Counter,
    pub(crate) acknowledged_dead_lettered: Counter,
    pub(crate) delivered: Counter,
    pub(crate) stalled: Counter,
    pub(crate) sessions: Gauge,
    pub(crate) connected: Gauge,
    pub(crate) retained: Gauge,
}

impl std::fmt::Debug for Hot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hot")
    }
}

impl Hot {
    pub(crate) fn new() -> Self {
        let acknowledged = |verdict: &'static str| counter!(ACKNOWLEDGED_TOTAL, "verdict" => verdict);
        Self {
            publishes: ["0", "1", "2"].map(|qos| counter!(PUBLISHES_TOTAL, "qos" => qos)),
            publish_bytes: counter!(PUBLISH_BYTES_TOTAL),
            acknowledged_stored: acknowledged("stored"),
            acknowledged_unrouted: acknowledged("unrouted"),
            acknowledged_dead_lettered: acknowledged("dead_lettered"),
            delivered: counter!(DELIVERED_TOTAL),
            stalled: counter!(STALLED_TOTAL),
            sessions: gauge!(SESSIONS),
            connected: gauge!(CONNECTED),
            retained: gauge!(RETAINED),
        }
    }
}

pub(crate) fn session_bytes() -> Gauge {
    gauge!(SESSION_BYTES)
}

pub(crate) fn dropped(reason: &'static str) {
    counter!(DROPPED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn refused(reason: &'static str) {
    counter!(REFUSED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn publish_refused(reason: &'static str) {
    counter!(PUBLISHES_REFUSED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn throttled(reason: &'static str) {
    counter!(THROTTLED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn subscribe_refused(reason: &'static str) {
    counter!(SUBSCRIBES_REFUSED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn closed(reason: &'static str) {
    counter!(CLOSED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn persistence_failed() {
    counter!(PERSISTENCE_FAILURES_TOTAL).increment(1);
}

pub(crate) fn router_restarted(reason: &'static str) {
    counter!(ROUTER_RESTARTS_TOTAL, "reason" => reason).increment(1);
}
