//! Every metric of the API.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const REQUEST_SECONDS: &str = "shopfloor_api_request_seconds";
const FAILED_TOTAL: &str = "shopfloor_api_requests_failed_total";
const IDEMPOTENCY_TOTAL: &str = "shopfloor_api_idempotency_total";
const IDEMPOTENCY_KEYS: &str = "shopfloor_api_idempotency_keys";
const UNIT_STREAMS: &str = "shopfloor_api_unit_streams";
const UNIT_STREAMS_ENDED_TOTAL: &str = "shopfloor_api_unit_streams_ended_total";
const UNIT_STREAM_EVENTS_TOTAL: &str = "shopfloor_api_unit_stream_events_total";
const LIMITED_TOTAL: &str = "shopfloor_api_requests_rate_limited_total";
const TOKENS_REFUSED_TOTAL: &str = "shopfloor_api_tokens_refused_total";

/// Registers the HELP texts; call once the recorder stands.
pub fn describe() {
    describe_histogram!(
        REQUEST_SECONDS,
        "Time from a request's head to its response's head, by method, route and status."
    );
    describe_counter!(FAILED_TOTAL, "Requests answered with an error, by kind.");
    describe_counter!(LIMITED_TOTAL, "Requests refused by the rate limit.");
    describe_counter!(
        TOKENS_REFUSED_TOTAL,
        "Requests refused for their bearer token, by reason."
    );
    describe_counter!(
        IDEMPOTENCY_TOTAL,
        "Requests under an Idempotency-Key that was used before: replayed, or reused for another body."
    );
    describe_gauge!(
        IDEMPOTENCY_KEYS,
        "Answers kept for the Idempotency-Keys of their requests."
    );
    describe_gauge!(UNIT_STREAMS, "Open streams of units.");
    describe_counter!(
        UNIT_STREAMS_ENDED_TOTAL,
        "Streams of units that ended or found no place, by reason."
    );
    describe_counter!(UNIT_STREAM_EVENTS_TOTAL, "Changes of units that streams sent.");
    describe_ingest();
    describe_mqtt();
    describe_outbox();
}

pub(crate) fn answered(method: &http::Method, route: String, status: u16, seconds: f64) {
    histogram!(REQUEST_SECONDS, "method" => method.to_string(), "route" => route, "status" => status.to_string())
        .record(seconds);
}

pub(crate) fn failed(kind: &'static str) {
    counter!(FAILED_TOTAL, "kind" => kind).increment(1);
}

pub(crate) fn token_refused(reason: &'static str) {
    counter!(TOKENS_REFUSED_TOTAL, "reason" => reason).increment(1);
}

/// `outcome` is `replayed` or `reused`.
pub(crate) fn idempotency(outcome: &'static str) {
    counter!(IDEMPOTENCY_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn idempotency_keys(count: i64) {
    gauge!(IDEMPOTENCY_KEYS).set(count as f64);
}

pub(crate) fn unit_streams(change: f64) {
    gauge!(UNIT_STREAMS).increment(change);
}

/// `reason` is `left`, `slow`, `stop`, `unwritten`, or `no_place` for one that did not begin.
pub(crate) fn unit_stream_ended(reason: &'static str) {
    counter!(UNIT_STREAMS_ENDED_TOTAL, "reason" => reason).increment(1);
}

pub(crate) fn unit_stream_event() {
    counter!(UNIT_STREAM_EVENTS_TOTAL).increment(1);
}

pub(crate) fn rate_limited() {
    counter!(LIMITED_TOTAL).increment(1);
}

// Telemetry ingest.

const INGEST_BATCH_SECONDS: &str = "shopfloor_api_ingest_batch_seconds";
const INGEST_RECORDS_TOTAL: &str = "shopfloor_api_ingest_records_total";
const QUARANTINE_RECORDS: &str = "shopfloor_api_quarantine_records";
const QUARANTINE_ADMITTED_TOTAL: &str = "shopfloor_api_quarantine_swept_total";
const LEDGER_TRIMMED_TOTAL: &str = "shopfloor_api_ledger_trimmed_total";

fn describe_ingest() {
    describe_histogram!(
        INGEST_BATCH_SECONDS,
        "Time from a telemetry batch's head to its answer, by outcome."
    );
    describe_counter!(
        INGEST_RECORDS_TOTAL,
        "Telemetry records of committed batches: stored, duplicate, or the reason for quarantine."
    );
    describe_gauge!(QUARANTINE_RECORDS, "Telemetry records in quarantine, by reason.");
    describe_counter!(
        QUARANTINE_ADMITTED_TOTAL,
        "Quarantined records that the sweep stored, not counting those that a create or a retry stored."
    );
    describe_counter!(
        LEDGER_TRIMMED_TOTAL,
        "Entries that the telemetry ledger has forgotten."
    );
}

/// `outcome` is `committed` or why not.
pub(crate) fn ingest_answered(outcome: &'static str, seconds: f64) {
    histogram!(INGEST_BATCH_SECONDS, "outcome" => outcome).record(seconds);
}

pub(crate) fn ingest_records(outcome: &'static str, count: u64) {
    counter!(INGEST_RECORDS_TOTAL, "outcome" => outcome).increment(count);
}

pub(crate) fn quarantine_records(reason: &'static str, count: i64) {
    gauge!(QUARANTINE_RECORDS, "reason" => reason).set(count as f64);
}

pub(crate) fn quarantine_swept(count: u64) {
    counter!(QUARANTINE_ADMITTED_TOTAL).increment(count);
}

pub(crate) fn ledger_trimmed(count: u64) {
    counter!(LEDGER_TRIMMED_TOTAL).increment(count);
}

// MQTT.

const MQTT_CONNECTED: &str = "shopfloor_api_mqtt_connected";
const MQTT_PUBLISHED_TOTAL: &str = "shopfloor_api_mqtt_publishes_total";
const MQTT_STREAMS: &str = "shopfloor_api_mqtt_streams";
const MQTT_OVERFLOWED_TOTAL: &str = "shopfloor_api_mqtt_streams_overflowed_total";

fn describe_mqtt() {
    describe_gauge!(
        MQTT_CONNECTED,
        "1 while the connection that publishes stands, else 0."
    );
    describe_counter!(
        MQTT_PUBLISHED_TOTAL,
        "Publishes to the MQTT broker: acknowledged, or why not."
    );
    describe_gauge!(MQTT_STREAMS, "Open subscriptions to MQTT topics.");
    describe_counter!(
        MQTT_OVERFLOWED_TOTAL,
        "Subscriptions that ended because their client read too slowly."
    );
}

pub(crate) fn mqtt_connected(is_connected: bool) {
    gauge!(MQTT_CONNECTED).set(f64::from(u8::from(is_connected)));
}

pub(crate) fn mqtt_published(outcome: &'static str) {
    counter!(MQTT_PUBLISHED_TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn mqtt_streams(change: f64) {
    gauge!(MQTT_STREAMS).increment(change);
}

pub(crate) fn mqtt_overflowed() {
    counter!(MQTT_OVERFLOWED_TOTAL).increment(1);
}

// Outbox.

const OUTBOX_PENDING: &str = "shopfloor_api_outbox_pending_records";
const OUTBOX_OLDEST_SECONDS: &str = "shopfloor_api_outbox_oldest_age_seconds";
const OUTBOX_MARKED: &str = "shopfloor_api_outbox_refused_records";
const OUTBOX_PUBLISHED_TOTAL: &str = "shopfloor_api_outbox_published_total";
const OUTBOX_REFUSED_TOTAL: &str = "shopfloor_api_outbox_refused_total";
const OUTBOX_FAILED_TOTAL: &str = "shopfloor_api_outbox_rounds_failed_total";

fn describe_outbox() {
    describe_gauge!(
        OUTBOX_PENDING,
        "Committed records that wait for Kafka, over all API processes."
    );
    describe_gauge!(
        OUTBOX_OLDEST_SECONDS,
        "Age of the oldest record that waits for Kafka."
    );
    describe_gauge!(
        OUTBOX_MARKED,
        "Records kept in the outbox that Kafka refused for good."
    );
    describe_counter!(
        OUTBOX_PUBLISHED_TOTAL,
        "Records that Kafka has confirmed to this process."
    );
    describe_counter!(OUTBOX_REFUSED_TOTAL, "Records that Kafka refused for good.");
    describe_counter!(
        OUTBOX_FAILED_TOTAL,
        "Batches of one topic that Kafka did not confirm, and looks at the table that failed, by kind."
    );
}

pub(crate) fn outbox_backlog(pending: i64, oldest_age_s: f64, refused: i64) {
    gauge!(OUTBOX_PENDING).set(pending as f64);
    gauge!(OUTBOX_OLDEST_SECONDS).set(oldest_age_s);
    gauge!(OUTBOX_MARKED).set(refused as f64);
}

pub(crate) fn outbox_published(count: usize) {
    counter!(OUTBOX_PUBLISHED_TOTAL).increment(count as u64);
}

pub(crate) fn outbox_refused() {
    counter!(OUTBOX_REFUSED_TOTAL).increment(1);
}

pub(crate) fn outbox_failed(kind: &'static str) {
    counter!(OUTBOX_FAILED_TOTAL, "kind" => kind).increment(1);
}
