//! What the fuzzers call: one function a target, which panics where a promise is broken.
//!
//! - [`codec`]: MQTT packets in, and out again.
//! - [`session`]: three clients of one front, whatever they send and in whatever order.
//! - [`proxy_header`]: the PROXY header, however its bytes come.
//! - [`route_table`]: topic filters against matching them one by one.
//! - [`payload_check`]: what a payload must be, and what becomes of it.
//! - [`websocket`]: the bytes inside a WebSocket, however its frames are cut.
//! - [`telemetry_batch`]: what a gateway posts to the production API.
//! - [`spool`]: the spool's files, damaged between two runs; [`records`]: what it and the session store keep in theirs.
//! - [`operator_files`]: passwords, and the topics of access rules.
//!
//! `make fuzz` searches with libFuzzer (`libfuzzer/`). What it kept (`corpus/`) is replayed by an ordinary test.
// A broken promise is what they are to show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod codec;
pub mod operator_files;
pub mod payload_check;
pub mod proxy_header;
pub mod records;
pub mod route_table;
pub mod session;
pub mod spool;
pub mod telemetry_batch;
pub mod websocket;
