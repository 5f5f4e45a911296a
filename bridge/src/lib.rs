//! From an accepted publish to Kafka and the production API.
//!
//! Layout, in the order in which a message passes:
//!
//! - [`config`]: what an operator can set.
//! - [`tap`]: the front hands over a batch; route, check, envelope, spool, receipt.
//! - [`routes`]: from an MQTT topic to a Kafka topic, key and contract; [`topic_name`]: what such a topic may be called.
//! - [`contract`]: what a payload must be; protobuf to JSON. `acceptance`: what a route makes of a message by it.
//! - [`record`]: the envelope that the spool keeps beside a payload.
//! - `exchanges`: which QoS 2 exchanges are open, over a crash.
//! - [`spool`]: the durable log between reception and the sinks.
//! - `sinks`: one reader and one cursor each: Kafka, production API.
//! - [`stamp`]: `isDeleted` and `lastUpdate`, added on the way out.
//! - [`dead_letters`]: what no one takes, and where it stays.
//! - [`kafka`]: librdkafka, and the embedded cluster; [`publisher`]: single records for the API's outbox.
//! - [`bridge`]: all of it opened, run and drained.
//! - [`metrics`]: every metric.
//!
//! Promise: a receipt resolves only when its messages are on disk; from then on each reaches every sink that its
//! route names, in order, or the dead letters with the reason, whatever fails in between.

mod acceptance;
pub mod bridge;
pub mod config;
pub mod contract;
pub mod dead_letters;
mod embedded_log;
pub mod exchanges;
pub mod kafka;
pub mod metrics;
pub mod publisher;
pub mod record;
pub mod routes;
mod sinks;
pub mod spool;
pub mod stamp;
pub mod tap;
pub mod topic_name;

pub use bridge::{Bridge, BridgeFault, SinkStatus};
pub use config::BridgeConfig;
