//! The production HTTP API: a drop-in for the original NestJS service.
//!
//! Layout, in the order in which a request passes it:
//!
//! - [`config`]: what the API can be told.
//! - [`server`]: connections in, HTTP/1.1 and h2c.
//! - `stack`: every layer that a request passes, one list; `path`, `body` and `rate_limit` are its own layers.
//! - `routes`: every route, one table.
//! - [`ingest`]: the gateways' telemetry; [`telemetry`] holds the rules of a valid batch.
//! - `resources`: the controllers, one file each.
//! - `validate`: bodies to commands, with the original's texts; `js` has the conversions that they imply.
//! - `model`: the entities as clients and Kafka see them.
//! - `openapi`: the description of all of it, and Swagger UI.
//! - [`store`]: Postgres. The only folder that names tokio-postgres.
//! - [`error`] and `reply`: what went wrong in the domain's terms, and how answers are written.
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

mod body;
mod js;
mod model;
mod openapi;
mod path;
mod rate_limit;
mod reply;
mod resources;
mod routes;
mod stack;
mod upkeep;
mod validate;

pub use config::ApiConfig;
pub use server::Api;
pub use store::Store;
