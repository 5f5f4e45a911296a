//! The foreign servers that Shopfloor stands on, started as children of this process.
//!
//! Layout:
//!
//! - [`process`]: a child that never outlives this process, its log, its signals.
//! - [`postgres`]: a private Postgres cluster in a directory.
//!
//! Promise: a part that starts is ready to serve, one that cannot start says what to do about it, and none is left
//! behind, however this process ends. Every call blocks: async callers wrap it in `spawn_blocking`.

pub mod error;
pub mod postgres;
pub mod process;

pub use error::PartError;
pub use postgres::{Postgres, PostgresOptions};
