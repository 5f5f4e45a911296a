//! What both servers stand on.
//!
//! Layout, in the order in which a connection and then a process pass them:
//!
//! - [`proxy`]: the PROXY protocol header in front of a connection, Required or Rejected.
//! - [`stream`]: an accepted connection, with the bytes read ahead of it and its place among the open ones.
//! - [`accept`]: the one accept loop: permit, PROXY header under a deadline, then the server's own handler.
//! - [`jwks`]: tokens of an identity provider, and the keys that prove them.
//! - [`admin`]: `/live`, `/ready` and `/metrics` on a listener of their own.
//! - [`telemetry`]: logs and the metrics recorder.
//! - [`shutdown`]: signals to a cancellation token, and the drain under a deadline.
//! - [`problem`]: what is wrong with a configuration, where, and what to do.
//!
//! Promise: no connection waits on another. Whatever one peer sends or withholds costs its own permit until its
//! own deadline, and nothing else.

pub mod accept;
pub mod admin;
pub mod jwks;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod shutdown;
pub mod stream;
pub mod telemetry;

pub use problem::Problem;
