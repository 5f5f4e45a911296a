//! From an accepted publish to Kafka and the production API
pub mod config;
pub mod contract;
pub mod record;
pub mod routes;
pub mod stamp;
pub mod spool;
