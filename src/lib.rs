//! The `shopfloor` binary's own parts; the data path is in the crates that it puts together.
//!
//! Layout: [`config`] is the one typed configuration, [`parts`] starts the foreign servers, [`simulate`] publishes as
//! a factory's machines would, from the factory of [`reference`](mod@reference), which also loads it into the
//! production API.

pub mod config;
pub mod parts;
pub mod reference;
pub mod simulate;
