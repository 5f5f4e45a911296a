//! The harness of the end-to-end tests: the real parts, each behind the few calls that a test needs.
//!
//! Layout:
//!
//! - [`repository`]: where things are that no crate can give: the binary, HAProxy's file, the Python clients.
//! - [`wait`]: until something holds, under a deadline.
//! - [`postgres`], [`kafka`]: the foreign servers, for one test or for all of a binary.
//! - [`database`]: what a test asks the database, past the API.
//! - [`telemetry`]: the production API inside the test, and a gateway that posts telemetry to it.
//! - [`python`]: the clients that are not ours: the migration client's reader, paho-mqtt's publisher.
//! - [`http`]: a REST client that can choose its own address. [`rest`]: the API inside the test and a client to it.
//! - [`server`]: one process of the `shopfloor` binary; [`api`] and [`gateway`] are its two kinds of servers.
//! - [`realm`]: an identity provider, its keys and its tokens.
//! - [`proxy`]: a network between two parts, which passes, falls silent or breaks.
//! - [`edge`]: a gateway by itself, and what reached Kafka from it.
//! - [`stack`]: all of it behind HAProxy, as `make up` runs it.
//! - [`simulator`], [`publisher`]: machines, ours and third parties'; each says what was acknowledged.
//! - [`operator`]: one command of an operator or a device's owner, and what it said.
//! - [`audit`]: what was acknowledged against what Postgres and Kafka hold.
//!
//! Promise: no fixed port, no shared state between tests, nothing left behind. What cannot be set up panics with what
//! to do about it: in a test that is the failure's text.

pub mod api;
pub mod audit;
pub mod database;
pub mod edge;
pub mod gateway;
pub mod http;
pub mod kafka;
pub mod operator;
pub mod postgres;
pub mod proxy;
pub mod publisher;
pub mod python;
pub mod realm;
pub mod repository;
pub mod rest;
pub mod server;
pub mod simulator;
pub mod stack;
pub mod telemetry;
pub mod wait;
