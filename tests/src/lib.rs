//! The harness of the end-to-end tests: the real parts, each behind the few calls that a test needs.
//!
//! Layout:
//!
//! - [`postgres`]: one temporary cluster a test binary, one database a test.
//! - [`database`]: what a test asks the database, past the API.
//! - [`gateway`]: the production API and a gateway that posts telemetry to it.
//!
//! Promise: no fixed port, no shared state between tests, nothing left behind. What cannot be set up panics with what
//! to do about it: in a test that is the failure's text.

pub mod database;
pub mod gateway;
pub mod postgres;
