//! What the relay can be told.

use serde::Deserialize;
use shopfloor_runtime::check_ranges;
use shopfloor_runtime::problem::Problem;

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
        check_ranges!(self, at, out, {
            max_batch_records: 1..=10_000,
            max_batch_bytes: 1..=256 * 1024 * 1024,
            poll_interval_ms: 10..=60_000,
            publish_timeout_ms: 100..=600_000,
            lease_ms: 300..=3_600_000,
            backoff_min_ms: 1..=60_000,
            backoff_max_ms: 1..=3_600_000,
        });
        if self.backoff_max_ms < self.backoff_min_ms {
            out.push(Problem::new(
                format!("{at}.backoff_max_ms"),
                format!("{} is below backoff_min_ms", self.backoff_max_ms),
                format!("use at least {}", self.backoff_min_ms),
            ));
        }
    }
}
