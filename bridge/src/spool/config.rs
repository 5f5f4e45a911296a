//! How large the spool may grow, on disk and in memory.

use serde::Deserialize;
use shopfloor_runtime::problem::check_range;
use shopfloor_runtime::{Problem, check_ranges};

use super::format::{RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Limits of the spool. Bytes of disk count whole segment files; bytes of memory count encoded records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// All files together; at this size appends are held back until a sink has caught up.
    pub max_bytes: u64,
    /// Appends are held back while the oldest undelivered entry is older than this. Exact to an eighth of it.
    pub max_age_s: Option<u64>,
    /// No new segment is begun when it would leave less than this free on the file system.
    pub min_free_disk_bytes: u64,
    /// Size of a segment file; it is allocated at once.
    pub segment_max_bytes: u64,
    /// Entries accepted and not yet durable; at least eight times `commit_max_bytes`.
    pub queue_max_bytes: u64,
    /// Durable entries that are kept in memory for sinks that keep up.
    pub hot_max_bytes: u64,
    /// One write and its fdatasync; also the largest single append. A restart reads at most three times this.
    pub commit_max_bytes: u64,
    /// A cursor that moved is on disk after this long; what a crash repeats to a sink is bounded by it.
    pub cursor_save_interval_ms: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: 8 * GIB,
            max_age_s: None,
            min_free_disk_bytes: 512 * MIB,
            segment_max_bytes: 64 * MIB,
            queue_max_bytes: 32 * MIB,
            hot_max_bytes: 64 * MIB,
            commit_max_bytes: 4 * MIB,
            cursor_save_interval_ms: 200,
        }
    }
}

impl SpoolConfig {
    /// Appends every problem; `at` is the dotted path of this table.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        let segment_least = self
            .commit_max_bytes
            .saturating_add(SEGMENT_HEADER_BYTES)
            .max(MIB);
        check_ranges!(self, at, out, {
            commit_max_bytes: 64 * KIB..=64 * MIB,
            segment_max_bytes: segment_least..=2 * GIB,
            max_bytes: self.segment_max_bytes.saturating_mul(2)..=1 << 50,
            // Half of it must take any one append, with what an entry costs besides its bytes.
            queue_max_bytes: self.commit_max_bytes.saturating_mul(8)..=4 * GIB,
            hot_max_bytes: 0..=64 * GIB,
            cursor_save_interval_ms: 1..=60_000,
        });
        if let Some(max_age_s) = self.max_age_s {
            check_range(
                out,
                format!("{at}.max_age_s"),
                max_age_s,
                8..=10 * 365 * 24 * 3600,
            );
        }
    }

    /// What cannot work at all, whatever [`Self::problems`] advises; bounds the arithmetic of the writer.
    pub(super) fn is_workable(&self) -> bool {
        self.commit_max_bytes >= RECORD_HEADER_BYTES
            && self.commit_max_bytes <= u64::from(u32::MAX) / 4
            && self.segment_max_bytes >= SEGMENT_HEADER_BYTES.saturating_add(self.commit_max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem() {
        let mut out = Vec::new();
        SpoolConfig::default().problems("spool", &mut out);
        assert_eq!(out, vec![]);
        assert!(SpoolConfig::default().is_workable());
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let config = SpoolConfig {
            max_bytes: 1,
            segment_max_bytes: 1,
            commit_max_bytes: 1,
            queue_max_bytes: 0,
            cursor_save_interval_ms: 0,
            max_age_s: Some(0),
            ..SpoolConfig::default()
        };
        let mut out = Vec::new();
        config.problems("bridge.spool", &mut out);
        let paths: Vec<&str> = out.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "bridge.spool.commit_max_bytes",
                "bridge.spool.segment_max_bytes",
                "bridge.spool.max_bytes",
                "bridge.spool.queue_max_bytes",
                "bridge.spool.cursor_save_interval_ms",
                "bridge.spool.max_age_s",
            ]
        );
    }
}
