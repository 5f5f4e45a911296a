//! The seam to Kafka: what the relay gives, and what it asks of whoever takes it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use uuid::Uuid;

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
