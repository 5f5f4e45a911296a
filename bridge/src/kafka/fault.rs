//! A call to Kafka that failed.

use std::error::Error;

/// A call to Kafka failed.
#[derive(Debug, thiserror::Error)]
#[error("Kafka at {servers}: {operation}")]
pub struct KafkaFault {
    pub(super) servers: String,
    pub(super) operation: &'static str,
    pub(super) source: Box<dyn Error + Send + Sync>,
}
