//! The transactional outbox: a row change and its Kafka record commit together, and the relay delivers the record
//! at least once.
//!
//! Layout, in the order in which a record passes:
//!
//! - [`crate::store::outbox`]: the table; `enqueue` writes to it within the change's transaction.
//! - [`relay`]: takes records out of the table, in order, and gives them to Kafka.
//! - [`settlement`]: what an answer of Kafka means for the table's rows.
//!
//! Promise: a row goes only after Kafka has confirmed its record. Records of one topic and key arrive in the order
//! of their writes (a redelivery may repeat some of them, in that order). Nothing that Kafka does reaches a writer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::Deserialize;
use shopfloor_runtime::problem::{Problem, check_range};
use uuid::Uuid;

pub mod relay;
mod settlement;

pub use relay::Relay;

/// One record for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The same at every redelivery.
    pub id: Uuid,
    pub topic: String,
    pub key: String,
    /// One UTF-8 JSON object.
    pub value: Bytes,
}

/// Kafka did not take a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Not now: it is tried again for as long as it takes.
    #[error("Kafka did not confirm the record: {0}")]
    Unavailable(String),
    /// Never: the record itself is not acceptable (too large, for example). It is marked with the reason and
    /// others go on.
    #[error("Kafka refused the record: {0}")]
    Refused(String),
}

impl PublishError {
    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}

/// One result a record, in their order.
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Vec<Result<(), PublishError>>> + Send + 'a>>;

/// What the relay needs of Kafka. The binary adapts the bridge's producer to it.
pub trait Publisher: Send + Sync + 'static {
    /// Resolves when Kafka has durably acknowledged or failed every record. Records of one topic and key must be
    /// sent in the order given, by an idempotent producer whose own message timeout is shorter than the relay's
    /// lease: what is given up must not arrive late.
    fn publish(&self, records: Vec<Record>) -> Publishing<'_>;
}

impl fmt::Debug for dyn Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publisher")
    }
}

/// How the relay works.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Records given to Kafka at a time.
    pub max_batch_records: u32,
    /// Bytes of values given to Kafka at a time; a single larger record still goes alone.
    pub max_batch_bytes: usize,
    /// How often the table is looked at when no notification comes.
    pub poll_interval_ms: u64,
    /// Time that Kafka has for a batch. Records that it has not confirmed by then are sent again.
    pub publish_timeout_ms: u64,
    /// After this long without a sign of life of the relay that publishes, that of another API process takes over.
    pub lease_ms: u64,
    /// Shortest and longest pause of a topic that fails; doubled each time, with jitter.
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            max_batch_records: 500,
            max_batch_bytes: 8 * 1024 * 1024,
            poll_interval_ms: 1_000,
            publish_timeout_ms: 30_000,
            lease_ms: 45_000,
            backoff_min_ms: 100,
            backoff_max_ms: 10_000,
        }
    }
}

impl OutboxConfig {
    /// Appends every problem of the values; `at` is the path of this section.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_range(
            out,
            format!("{at}.max_batch_records"),
            self.max_batch_records,
            1..=10_000,
        );
        check_range(
            out,
            format!("{at}.max_batch_bytes"),
            self.max_batch_bytes,
            1..=256 * 1024 * 1024,
        );
        check_range(
            out,
            format!("{at}.poll_interval_ms"),
            self.poll_interval_ms,
            10..=60_000,
        );
        check_range(
            out,
            format!("{at}.publish_timeout_ms"),
            self.publish_timeout_ms,
            100..=600_000,
        );
        check_range(out, format!("{at}.lease_ms"), self.lease_ms, 300..=3_600_000);
        check_range(
            out,
            format!("{at}.backoff_min_ms"),
            self.backoff_min_ms,
            1..=60_000,
        );
        check_range(
            out,
            format!("{at}.backoff_max_ms"),
            self.backoff_max_ms,
            1..=3_600_000,
        );
        if self.backoff_max_ms < self.backoff_min_ms {
            out.push(Problem::new(
                format!("{at}.backoff_max_ms"),
                format!("{} is below backoff_min_ms", self.backoff_max_ms),
                format!("use at least {}", self.backoff_min_ms),
            ));
        }
    }
}
