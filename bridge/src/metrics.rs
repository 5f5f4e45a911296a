//! Every metric of the bridge.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const INGESTED_TOTAL: &str = "shopfloor_messages_stored_total";
const UNROUTED_TOTAL: &str = "shopfloor_messages_unrouted_total";
const DEAD_LETTERS_TOTAL: &str = "shopfloor_dead_letters_total";
const DELIVERED_TOTAL: &str = "shopfloor_sink_delivered_total";
const REFUSED_TOTAL: &str = "shopfloor_sink_refused_total";
const RETRIES_TOTAL: &str = "shopfloor_sink_retries_total";
const TRANSACTIONS_TOTAL: &str = "shopfloor_sink_transactions_total";
const LAG: &str = "shopfloor_sink_lag_records";
const IN_FLIGHT: &str = "shopfloor_sink_in_flight_bytes";
const BATCH_SECONDS: &str = "shopfloor_sink_api_batch_seconds";
const TORN_TOTAL: &str = "shopfloor_spool_torn_bytes_total";
const LOST_TOTAL: &str = "shopfloor_spool_lost_records_total";

/// Registers the HELP texts; call once the recorder stands.
pub fn describe() {
    describe_counter!(INGESTED_TOTAL, "Messages stored on their way to the sinks.");
    describe_counter!(
        UNROUTED_TOTAL,
        "Messages that no route takes; MQTT subscribers got them, the sinks do not."
    );
    describe_counter!(
        DEAD_LETTERS_TOTAL,
        "Messages stored as dead letters at reception, by reason."
    );
    describe_counter!(DELIVERED_TOTAL, "Records that a sink has confirmed, by sink.");
    describe_counter!(
        REFUSED_TOTAL,
        "Records that a sink refused for good and that became dead letters, by sink."
    );
    describe_counter!(
        RETRIES_TOTAL,
        "Times that a sink had to start over, by sink and reason."
    );
    describe_counter!(
        TRANSACTIONS_TOTAL,
        "Kafka transactions of a sink, by sink and outcome (committed, failed)."
    );
    describe_gauge!(
        LAG,
        "Records in the spool that a sink has not confirmed, by sink."
    );
    describe_gauge!(
        IN_FLIGHT,
        "Bytes handed to a sink and not yet confirmed, by sink."
    );
    describe_histogram!(BATCH_SECONDS, "Time until the production API answered one batch.");
    describe_counter!(
        TORN_TOTAL,
        "Bytes of an unfinished record that the start cut from the end of the spool."
    );
    describe_counter!(
        LOST_TOTAL,
        "Records that could not be read from the spool, by sink."
    );
}

pub(crate) fn ingested(stored: u64, unrouted: u64) {
    counter!(INGESTED_TOTAL).increment(stored);
    counter!(UNROUTED_TOTAL).increment(unrouted);
}

pub(crate) fn dead_lettered(reason: &'static str) {
    counter!(DEAD_LETTERS_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn delivered(sink: &'static str, records: u64) {
    counter!(DELIVERED_TOTAL, "sink" => sink).increment(records);
}

pub(crate) fn refused(sink: &'static str) {
    counter!(REFUSED_TOTAL, "sink" => sink).increment(1);
}

pub(crate) fn retried(sink: &'static str, reason: &'static str) {
    counter!(RETRIES_TOTAL, "sink" => sink, "reason" => reason).increment(1);
}

pub(crate) fn transaction(sink: &'static str, outcome: &'static str) {
    counter!(TRANSACTIONS_TOTAL, "sink" => sink, "outcome" => outcome).increment(1);
}

pub(crate) fn lag(sink: &'static str, records: u64) {
    gauge!(LAG, "sink" => sink).set(records as f64);
}

pub(crate) fn in_flight(sink: &'static str, bytes: u64) {
    gauge!(IN_FLIGHT, "sink" => sink).set(bytes as f64);
}

pub(crate) fn api_batch(seconds: f64) {
    histogram!(BATCH_SECONDS).record(seconds);
}

pub(crate) fn torn(bytes: u64) {
    counter!(TORN_TOTAL).increment(bytes);
}

pub(crate) fn lost(sink: &'static str, records: u64) {
    counter!(LOST_TOTAL, "sink" => sink).increment(records);
}
