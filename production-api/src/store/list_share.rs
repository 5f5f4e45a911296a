//! What lists of whole tables may take of the pool.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::config::DatabaseConfig;

/// What all lists share.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    pub(super) permits: Arc<Semaphore>,
    /// How long a list waits for a permit.
    pub(super) wait: Duration,
    /// How long a list holds its connection, however its reader reads.
    pub(super) time: Duration,
}

impl Lists {
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        Self {
            permits: Arc::new(Semaphore::new((config.max_connections / 2).max(1))),
            wait: Duration::from_millis(config.connect_timeout_ms),
            time: Duration::from_millis(config.list_timeout_ms),
        }
    }
}
