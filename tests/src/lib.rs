//! The harness of the end-to-end tests: the real parts, each behind the few calls that a test needs.
//!
//! Layout:
//!
//! - [`repository`]: where things are that no crate can give: the binary, HAProxy's file, the Python clients.
//! - [`postgres`]: one temporary cluster a test binary, one database a test.
//! - [`kafka`]: a Kafka node.
//! - [`python`]: the clients that are not ours: the migration client's reader, paho-mqtt's publisher.
//! - [`wait`]: until something holds, under a deadline.
//!
//! Promise: no fixed port, no shared state between tests, nothing left behind. What cannot be set up panics with what
//! to do about it: in a test that is the failure's text.

pub mod kafka;
pub mod postgres;
pub mod python;
pub mod repository;
pub mod wait;
