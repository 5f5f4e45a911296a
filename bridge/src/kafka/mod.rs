//! Kafka through librdkafka. The only folder that names rdkafka.
//!
//! Layout:
//!
//! - [`cluster`]: real brokers or the embedded ones: topics, producers, counts.
//! - [`embedded`]: librdkafka's in-process cluster.
//! - [`record`]: a record on its way, and what became of it.
//! - [`producer`]: records in, confirmations out; [`zero_copy`] hands payloads over where they lie.
//! - [`transaction`]: a producer's transactions; [`committed`]: the cursor that Kafka keeps.
//! - [`reading`]: topics read back; [`letters`]: the dead-letter topic, as a stream.
//! - [`fault`]: a call that failed.
//!
//! The producer is idempotent and waits for all replicas; librdkafka retries whatever can be retried for ever, in
//! order. Nothing here waits on a tokio worker: librdkafka's events are served on a thread of their own, blocking
//! calls run on tokio's blocking pool.

mod cluster;
mod committed;
mod embedded;
mod fault;
#[cfg(test)]
mod faults;
mod letters;
mod producer;
mod reading;
mod record;
mod transaction;
#[allow(unsafe_code)]
mod zero_copy;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use cluster::Cluster;
pub use fault::KafkaFault;
#[cfg(test)]
pub(crate) use faults::Fault;
pub use producer::Producer;
pub use reading::ReadRecord;
pub use record::{Confirmation, Full, Outgoing, Undelivered};
pub use transaction::Step;

/// How long one blocking call to Kafka may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
