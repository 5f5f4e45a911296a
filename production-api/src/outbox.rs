//! The relay: takes records out of the outbox table, in order, and gives them to Kafka.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// One record for Kafka.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: String,
    pub key: String,
    /// One UTF-8 JSON object.
    pub value: Bytes,
}

/// Kafka did not take a record; the relay keeps it and tries again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PublishError(pub String);

/// What the relay needs of Kafka. The binary adapts the bridge's producer to it.
pub trait Publisher: Send + Sync + 'static {
    /// Resolves when Kafka has acknowledged the record durably.
    fn publish(&self, record: Record) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>>;
}
