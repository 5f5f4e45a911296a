//! What both servers stand on.
//!
//! Layout, in the order in which a connection and then a process pass them:
//!
//! - [`proxy`]: the PROXY protocol header in front of a connection, Required or Rejected.
//! - [`tls`], [`websocket`]: what may lie between TCP and a server's protocol.
//! - `admission`: how many may come in, in all, from one address and in a second.
//! - [`stream`]: an accepted connection, whatever it runs on, and its place among the open ones.
//! - [`accept`]: the one accept loop: rate, places, PROXY, TLS and WebSocket under deadlines, then the server's handler.
//! - [`reload`]: files that are read again when they change and on SIGHUP.
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
mod admission;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod jwks;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod reload;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod websocket;

pub use problem::Problem;
