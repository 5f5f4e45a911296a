//! The production HTTP API: a drop-in for the original NestJS service.
//!
//! Layout, in the order in which a request passes it:
//!
//! - [`config`]: what the API can be told.
//! - [`server`]: connections in, HTTP/1.1 and h2c.
//! - `stack`: every layer that a request passes, one list.
//! - `routes`: every route, one table.
//! - [`error`]: what went wrong in the domain's terms, and how a client sees it.
//! - [`store`]: Postgres. The only folder that names tokio-postgres.
//! - [`outbox`]: the relay that gives committed records to Kafka.
//! - [`metrics`]: every metric.
//!
//! Promise: a change and its Kafka record are committed together or not at all, and Kafka being down neither
//! fails nor delays a request.

pub mod config;
pub mod error;
pub mod metrics;
pub mod outbox;
pub mod server;
pub mod store;

mod routes;
mod stack;

pub use config::ApiConfig;
pub use server::Api;
pub use store::Store;
