//! Postgres: the only folder that names tokio-postgres.
//!
//! Layout: `pool` gives connections and transactions; one file per table or group of tables adds its operations to
//! [`Store`], with `rows` for what several read. `write` is the transaction of a request.
//!
//! Promise: a write takes a transaction and enqueues its records into the outbox on that same transaction, so that
//! neither exists without the other.

pub(crate) mod idempotency;
pub mod outbox;
pub mod quarantine;
pub mod records;
pub mod telemetry;
pub(crate) mod unit_changes;

mod config;
mod error;
mod links;
mod list;
mod list_share;
pub(crate) mod listen;
mod machines;
mod materials;
mod pages;
mod parts;
mod pool;
mod prices;
mod rows;
mod units;
mod write;

pub use config::DatabaseConfig;
pub use error::StoreError;
pub use pool::Store;
pub(crate) use pool::begin;
