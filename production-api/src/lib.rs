//! The production HTTP API: a drop-in for the original NestJS service.
//!
//! Layout, in the order in which a request passes it:
//!
//! - [`config`]: what the API can be told.
//! - [`server`]: connections in, HTTP/1.1 and h2c.
//! - `stack`: every layer that a request passes, one list.
//! - `routes`: every route, one table.
//! - [`error`]: what went wrong in the domain's terms, and how a client sees it.
//! - [`ingest`]: the gateways' telemetry; [`telemetry`] holds the rules of a valid batch.
//! - [`store`]: Postgres. The only folder that names tokio-postgres.
//! - [`outbox`]: the relay that gives committed records to Kafka.
//! - `upkeep`: what is done at intervals: sweep of the quarantine, trimming, gauges.
//! - [`metrics`]: every metric.
//!
//! Promise: a change and its Kafka record are committed together or not at all, and Kafka being down neither
//! fails nor delays a request.

pub mod config;
pub mod error;
pub mod ingest;
pub mod metrics;
pub mod outbox;
pub mod server;
pub mod store;
pub mod telemetry;

mod routes;
mod stack;
mod upkeep;

pub use config::ApiConfig;
pub use server::Api;
pub use store::Store;
