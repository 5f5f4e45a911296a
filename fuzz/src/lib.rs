//! What the fuzzers call: one function a target, which panics where a promise is broken.
//!
//! - [`codec`]: MQTT packets in, and out again.
//! - [`session`]: three clients of one front, whatever they send and in whatever order.
//! - [`proxy_header`]: the PROXY header, however its bytes come.
//! - [`route_table`]: topic filters against matching them one by one.
//! - [`payload_check`]: what a payload must be, and what becomes of it.
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
pub mod payload_check;
pub mod proxy_header;
pub mod route_table;
pub mod session;
