//! The foreign servers that Shopfloor stands on, started as children of this process.
//!
//! Layout:
//!
//! - [`process`]: a child that never outlives this process, its log, its signals.
//! - [`postgres`]: a private Postgres server; `postgres_cluster` makes the directory that it serves.
//! - [`kafka`]: one Kafka node, from its jars; `kafka_probe` asks whether it is ready.
//! - [`haproxy`]: HAProxy with the repository's configuration.
//! - [`error`]: why a part did not start, and what to do about it.
//!
//! Promise: a part that starts is ready to serve, one that cannot start says what to do about it, and none is left
//! behind, however this process ends. Every call blocks: async callers wrap it in `spawn_blocking`.

pub mod error;
pub mod haproxy;
pub mod kafka;
pub mod postgres;
pub mod process;

mod kafka_probe;
mod postgres_cluster;

pub use error::PartError;
pub use haproxy::{Backend, Haproxy, HaproxyOptions, ServerCounts};
pub use kafka::{Kafka, KafkaOptions};
pub use postgres::{Postgres, PostgresOptions};
