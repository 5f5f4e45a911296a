//! The MQTT front.
//!
//! Layout, in the order in which a message passes it:
//!
//! - [`config`]: what the front can be told.
//! - [`front`]: listeners in, connections served, drained at the end.
//! - `codec/`: the one place that knows MQTT's bytes.
//! - `connection/`: one device connection: CONNECT, batches, acknowledgements, subscriptions, its end.
//! - `auth/`: who a client is, and what it may do; [`password_file`], `topic_pattern`: what that is made of.
//! - `registry`, `session`: sessions by client id; what is remembered of one: its `session_parts`; `acks`, what it has
//!   given to the store; `receptions`, its QoS 2 publishes; `mailbox`, what waits for it; `quota`, the bound on all of it.
//! - `persistence/`: what a restart finds of sessions and retained messages.
//! - [`tap`]: the seam towards whatever makes messages durable.
//! - `hub`: what all connections share, and the way of a stored message to subscribers:
//!   `message`, `topics`, `subscriptions`, `retained`, and `fanout`, the one file that names rumqttd.
//! - [`metrics`]: everything that is counted; `sys`: some of it (`counts`, `loads`) as `$SYS` topics.
//!
//! Promise: a message is acknowledged only after its receipt from the [`tap::Tap`] resolved, in the order in which
//! it came; whatever one client sends or withholds, the others' messages go on.

mod acks;
mod auth;
mod codec;
pub mod config;
mod connection;
mod counts;
mod fanout;
pub mod front;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hub;
mod loads;
mod mailbox;
mod message;
pub mod metrics;
pub mod password_file;
mod persistence;
mod quota;
mod receptions;
mod registry;
mod retained;
mod session;
mod session_parts;
mod subscriptions;
mod sys;
pub mod tap;
mod topic_pattern;
mod topics;

pub use config::BrokerConfig;
pub use front::Front;
pub use persistence::PersistenceError;
