//! What the API can be told. The store, the outbox, the identity provider and the MQTT service bring their own sections.

use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::problem::Problem;

use crate::identity::IdentityConfig;
use crate::mqtt::MqttConfig;
use crate::outbox::OutboxConfig;
use crate::store::DatabaseConfig;

/// Deleted units older than this leave nothing in the ledger (migration V3), so it cannot remember for longer.
const MAX_RETENTION_S: u64 = 30 * 86_400;

/// The production API's configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    pub listener: ListenerConfig,
    pub database: DatabaseConfig,
    pub rate_limit: RateLimitConfig,
    pub idempotency: IdempotencyConfig,
    pub unit_stream: UnitStreamConfig,
    pub ingest: IngestConfig,
    pub outbox: OutboxConfig,
    pub mqtt: MqttConfig,
    pub identity: IdentityConfig,
    /// Longest that one request may take before it is answered with 503.
    pub request_timeout_ms: u64,
    /// Requests worked on at once; further ones are answered with 503 at once.
    pub max_requests_in_flight: usize,
    /// Largest JSON or urlencoded body, after decompression.
    pub max_body_bytes: usize,
    /// Most machines that one request may create.
    pub max_machines_per_request: u32,
    /// Most rows of a page that a client may ask a list for.
    pub max_page_rows: u32,
    /// Bearer token that `/internal/*` asks for. Without one, any client that can connect may post there.
    pub internal_token: Option<String>,
}

/// The fixed-window limit per client address. `/internal/*` is outside of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    pub enabled: bool,
    /// Requests that one address may make in one window.
    pub requests: u32,
    pub window_s: u32,
    /// Addresses remembered at once; over it, those whose window ends first are forgotten.
    pub max_clients: usize,
}

/// What is kept for requests that are sent again under their `Idempotency-Key`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencyConfig {
    /// How long an answer is kept.
    pub retention_s: u64,
    /// Answers kept at most; over it the oldest go.
    pub max_keys: u32,
    /// Largest answer; a write that would answer more is refused under a key.
    pub max_answer_bytes: usize,
}

/// `GET /supply-chain/stream`, and how long a client that was away can go on from where it was.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitStreamConfig {
    /// Streams of this process at once; further ones are answered with 503.
    pub max_streams: usize,
    /// How often a stream looks for changes.
    pub poll_interval_ms: u64,
    /// An id alone in quiet streams, so that proxies keep them and clients' last ids stay young.
    pub heartbeat_ms: u64,
    /// A client that takes no event for this long is dropped.
    pub slow_client_ms: u64,
    /// How long changes are kept for clients that come back.
    pub retention_s: u64,
    /// Statements of up to 250 units whose changes are kept at most; over it the oldest go.
    pub max_changes: u32,
}

/// Limits of `POST /internal/v1/telemetry`, and how long what it keeps is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Records in one batch.
    pub max_batch_records: usize,
    /// Bytes of one batch's body.
    pub max_batch_bytes: usize,
    /// Batches worked on at once; further ones are answered with 503 and `Retry-After`.
    pub max_batches_in_flight: usize,
    /// How long a repeated record is known although it has no row under its id.
    pub ledger_retention_s: u64,
    /// Records that wait in quarantine at most. Batches that would bring more are answered with 503: the gateway
    /// keeps them.
    pub quarantine_max_rows: u32,
    /// How often quarantined records are looked at whose machine or part appeared by another way than the API.
    pub sweep_interval_ms: u64,
}

/// Without secrets.
impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig")
            .field("listener", &self.listener)
            .field("database", &self.database)
            .field("rate_limit", &self.rate_limit)
            .field("idempotency", &self.idempotency)
            .field("unit_stream", &self.unit_stream)
            .field("ingest", &self.ingest)
            .field("outbox", &self.outbox)
            .field("mqtt", &self.mqtt)
            .field("identity", &self.identity)
            .field("request_timeout_ms", &self.request_timeout_ms)
            .field("max_requests_in_flight", &self.max_requests_in_flight)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_machines_per_request", &self.max_machines_per_request)
            .field("max_page_rows", &self.max_page_rows)
            .field(
                "internal_token",
                &self.internal_token.as_ref().map(|_| "not shown"),
            )
            .finish()
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listener: ListenerConfig::new(([127, 0, 0, 1], 3002).into()),
            database: DatabaseConfig::default(),
            rate_limit: RateLimitConfig::default(),
            idempotency: IdempotencyConfig::default(),
            unit_stream: UnitStreamConfig::default(),
            ingest: IngestConfig::default(),
            outbox: OutboxConfig::default(),
            mqtt: MqttConfig::default(),
            identity: IdentityConfig::default(),
            request_timeout_ms: 15_000,
            max_requests_in_flight: 1_024,
            max_body_bytes: 102_400,
            max_machines_per_request: 10_000,
            max_page_rows: 1_000,
            internal_token: None,
        }
    }
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            requests: 50,
            window_s: 60,
            max_clients: 100_000,
        }
    }
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            retention_s: 86_400,
            max_keys: 100_000,
            max_answer_bytes: 256 * 1024,
        }
    }
}

impl Default for UnitStreamConfig {
    fn default() -> Self {
        Self {
            max_streams: 64,
            poll_interval_ms: 500,
            heartbeat_ms: 10_000,
            slow_client_ms: 10_000,
            retention_s: 900,
            max_changes: 200_000,
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            max_batch_records: 5_000,
            max_batch_bytes: 4 * 1024 * 1024,
            max_batches_in_flight: 8,
            ledger_retention_s: 7 * 86_400,
            quarantine_max_rows: 1_000_000,
            sweep_interval_ms: 30_000,
        }
    }
}

impl ApiConfig {
    /// Appends every problem of the values; `at` is the path of this section.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        self.listener.problems(&format!("{at}.listener"), out);
        self.database.problems(&format!("{at}.database"), out);
        self.rate_limit.problems(&format!("{at}.rate_limit"), out);
        self.idempotency.problems(&format!("{at}.idempotency"), out);
        self.unit_stream.problems(&format!("{at}.unit_stream"), out);
        self.ingest.problems(&format!("{at}.ingest"), out);
        self.outbox.problems(&format!("{at}.outbox"), out);
        self.mqtt
            .problems(&format!("{at}.mqtt"), self.request_timeout_ms, out);
        self.identity.problems(&format!("{at}.identity"), out);
        check_ranges!(self, at, out, {
            request_timeout_ms: 100..=600_000,
            max_requests_in_flight: 1..=1_000_000,
            max_body_bytes: 1_024..=64 * 1024 * 1024,
            max_machines_per_request: 1..=100_000,
            max_page_rows: 1..=10_000,
        });
        if self
            .internal_token
            .as_deref()
            .is_some_and(|token| token.trim().is_empty())
        {
            out.push(Problem::new(
                format!("{at}.internal_token"),
                "is empty",
                "write a secret of at least one character, or leave the setting out",
            ));
        }
    }
}

impl RateLimitConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            requests: 1..=10_000_000,
            window_s: 1..=86_400,
            max_clients: 16..=10_000_000,
        });
    }
}

impl IdempotencyConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            retention_s: 60..=30 * 86_400,
            max_keys: 1..=10_000_000,
            max_answer_bytes: 1_024..=16 * 1024 * 1024,
        });
    }
}

impl UnitStreamConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            max_streams: 1..=100_000,
            poll_interval_ms: 10..=60_000,
            heartbeat_ms: 100..=600_000,
            slow_client_ms: 100..=600_000,
            retention_s: 60..=7 * 86_400,
            max_changes: 1_000..=100_000_000,
        });
    }
}

impl IngestConfig {
    fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            max_batch_records: 1..=100_000,
            max_batch_bytes: 1_024..=64 * 1024 * 1024,
            max_batches_in_flight: 1..=1_000,
            ledger_retention_s: 60..=MAX_RETENTION_S,
            quarantine_max_rows: 1..=100_000_000,
            sweep_interval_ms: 100..=3_600_000,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        let mut problems = Vec::new();
        ApiConfig::default().problems("api", &mut problems);
        assert_eq!(problems, []);
    }

    #[test]
    fn every_problem_is_named_with_its_path_at_once() {
        let mut config = ApiConfig::default();
        config.database.url = "mysql://nowhere".into();
        config.rate_limit.window_s = 0;
        config.internal_token = Some(" ".into());
        let mut problems = Vec::new();
        config.problems("api", &mut problems);
        let paths: Vec<_> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "api.database.url",
                "api.rate_limit.window_s",
                "api.internal_token"
            ]
        );
    }
}
