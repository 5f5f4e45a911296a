//! The factory of the reference data, and its way into a production API.
//!
//! Layout: [`factory`] is the data with the ids that the rows get, `rest` is the JSON client, [`load`](mod@load)
//! brings the one through the other.
//!
//! Promise: loading twice changes nothing, and ids are those that the simulator publishes or loading fails.

pub mod factory;
pub mod load;
mod rest;

#[cfg(test)]
mod api_fixture;

pub use factory::Factory;
pub use load::{LoadError, Loaded, load};
