//! What sessions may be and hold.

use serde::Deserialize;
use shopfloor_runtime::Problem;
use shopfloor_runtime::check_ranges;

/// What is kept for a client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Longest life of a session without a connection; also that of a 3.1.1 client with clean session off.
    pub max_expiry_s: u32,
    /// Sessions, connected or not; a further client is refused.
    pub max_sessions: usize,
    pub max_subscriptions: usize,
    /// Messages that wait for one subscriber.
    pub max_queued_messages: usize,
    /// Their topic and payload bytes.
    pub max_queued_bytes: usize,
    /// QoS 1 and 2 messages sent to one subscriber and not acknowledged by it.
    pub max_inflight: u16,
    /// QoS 2 publishes of one client that it has not released (PUBREL), kept over its reconnects; further ones are
    /// refused.
    pub max_unreleased: usize,
    /// What all sessions together may hold, in memory and about as much on disk: messages that wait or are not
    /// acknowledged, subscriptions, wills, open QoS 2 exchanges.
    pub max_total_bytes: usize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_expiry_s: 7 * 24 * 3600,
            max_sessions: 50_000,
            max_subscriptions: 1_000,
            max_queued_messages: 10_000,
            max_queued_bytes: 8 * 1024 * 1024,
            max_inflight: 100,
            max_unreleased: 8192,
            max_total_bytes: 512 * 1024 * 1024,
        }
    }
}

impl SessionConfig {
    pub(super) fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_ranges!(self, at, out, {
            max_sessions: 1..=10_000_000,
            max_subscriptions: 1..=1_000_000,
            max_queued_messages: 1..=10_000_000,
            max_queued_bytes: 1024..=16 * 1024 * 1024 * 1024,
            max_inflight: 1..=10_000,
            max_unreleased: 1..=usize::from(u16::MAX),
            max_total_bytes: 64 * 1024..=1024 * 1024 * 1024 * 1024,
        });
    }
}
