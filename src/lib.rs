//! The `shopfloor` binary's own parts; the data path is in the crates that it puts together.
//!
//! Layout: [`config`] is the one typed configuration.

pub mod config;
