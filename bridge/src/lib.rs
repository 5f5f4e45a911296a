//! From an accepted publish to Kafka and the production API

pub mod spool;
