//! The transactional outbox: a row change and its Kafka record commit together, and the relay delivers the record
//! at least once.
//!
//! Layout, in the order in which a record passes:
//!
//! - [`crate::store::outbox`]: the table; `enqueue` writes to it within the change's transaction.
//! - [`relay`]: takes records out of the table, in order, and gives them to Kafka.
//! - `publisher`: the seam to Kafka.
//! - [`settlement`]: what an answer of Kafka means for the table's rows.
//!
//! Promise: a row goes only after Kafka has confirmed its record. Records of one topic and key arrive in the order
//! of their writes (a redelivery may repeat some of them, in that order). Nothing that Kafka does reaches a writer.

mod config;
mod publisher;
pub mod relay;
mod settlement;

pub use config::OutboxConfig;
pub use publisher::{PublishError, Publisher, Publishing, Record};
pub use relay::Relay;
