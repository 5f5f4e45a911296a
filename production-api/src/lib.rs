//! The production HTTP API: a drop-in for the original NestJS service.
//!
//! Layout, in the order in which a request passes it; each names only what stands below it:
//!
//! - `server`: connections in, HTTP/1.1 and h2c; starts what works without a request.
//! - `stack`: every layer that a request passes, one list; `rate_limit` and `body` are its own layers.
//! - `identity`: who may do what, by tokens of an OpenID Connect provider.
//! - `openapi`: the description of all routes, and Swagger UI.
//! - `unit_stream`: units as they change, as server-sent events.
//! - `idempotency`: writes that are sent again under their `Idempotency-Key`.
//! - `routes`: every route, one table; `path` reads the id in a path.
//! - `resources`: the controllers, one file each. [`ingest`]: the gateways' telemetry.
//! - `api`: [`Api`], what they share.
//! - [`config`]: what the API can be told. The store's and the outbox's sections stand in their folders.
//! - [`outbox`]: the relay that gives committed records to Kafka. `upkeep`: what is done at intervals: sweep of the
//!   quarantine, trimming, gauges.
//! - `problem`: errors as problem details, where a client asks for them; `request_id` is their name in the logs,
//!   `failures` what the logs say of them.
//! - `encoding`: long answers in gzip. `accept` reads what a client takes.
//! - `reply`: how answers and errors are written.
//! - `mqtt`: publishes and follows topics for clients without MQTT. The only folder that names rumqttc.
//! - [`store`]: Postgres. The only folder that names tokio-postgres.
//! - `validate`: bodies to commands, with the original's texts; `js` has the conversions that they imply.
//!   [`telemetry`] holds the rules of a valid batch.
//! - `paging`: what a list's query asks for; `cursor` is where a page ended, as text.
//! - `conditions`: entity tags, `If-Match` and `If-None-Match`.
//! - `model`: the entities as clients and Kafka see them.
//! - [`error`]: what went wrong, in the domain's terms.
//! - [`metrics`]: every metric.
//!
//! Promise: a change and its Kafka record are committed together or not at all, and Kafka being down neither
//! fails nor delays a request.

pub mod config;
pub mod error;
pub mod ingest;
pub mod metrics;
pub mod outbox;
pub mod store;
pub mod telemetry;

mod accept;
mod api;
mod body;
mod conditions;
mod cursor;
mod encoding;
mod failures;
mod idempotency;
mod identity;
mod js;
mod model;
mod mqtt;
mod openapi;
mod paging;
mod path;
mod problem;
mod rate_limit;
mod reply;
mod request_id;
mod resources;
mod routes;
mod server;
mod stack;
mod unit_stream;
mod upkeep;
mod validate;

pub use api::Api;
pub use config::ApiConfig;
pub use identity::IdentityConfig;
pub use mqtt::MqttConfig;
pub use store::Store;
