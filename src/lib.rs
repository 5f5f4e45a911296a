//! The `shopfloor` binary's own parts; the data path is in the crates that it puts together.
//!
//! Layout: [`config`] is the one typed configuration; [`node`] puts a gateway and an API together; [`parts`] starts
//! the foreign servers; [`reference`] is a factory's data, [`simulate`] that factory's machines.

pub mod config;
pub mod node;
pub mod parts;
pub mod reference;
pub mod simulate;
