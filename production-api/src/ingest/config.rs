//! What telemetry ingest can be told.

use serde::Deserialize;
use shopfloor_runtime::problem::{Problem, check_range};

/// Deleted units older than this leave nothing in the ledger (migration V3), so it cannot remember for longer.
const MAX_RETENTION_S: u64 = 30 * 86_400;

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

impl IngestConfig {
    /// Appends every problem of the values; `at` is the path of this section.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_range(
            out,
            format!("{at}.max_batch_records"),
            self.max_batch_records,
            1..=100_000,
        );
        check_range(
            out,
            format!("{at}.max_batch_bytes"),
            self.max_batch_bytes,
            1_024..=64 * 1024 * 1024,
        );
        check_range(
            out,
            format!("{at}.max_batches_in_flight"),
            self.max_batches_in_flight,
            1..=1_000,
        );
        check_range(
            out,
            format!("{at}.ledger_retention_s"),
            self.ledger_retention_s,
            60..=MAX_RETENTION_S,
        );
        check_range(
            out,
            format!("{at}.quarantine_max_rows"),
            self.quarantine_max_rows,
            1..=100_000_000,
        );
        check_range(
            out,
            format!("{at}.sweep_interval_ms"),
            self.sweep_interval_ms,
            100..=3_600_000,
        );
    }
}
