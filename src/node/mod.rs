//! The two servers, put together from the crates: what `gateway`, `api` and `up` start.
//!
//! Layout: [`gateway`] is front, bridge and admin endpoint; [`api`] is the production API, its outbox relay and admin
//! endpoint; [`records`] gives the API's outbox the bridge's Kafka.

pub mod api;
pub mod gateway;
mod records;

pub use api::ApiNode;
pub use gateway::GatewayNode;
