//! Where records leave the gateway.
//!
//! Each sink reads the spool in order with a durable cursor of its own, which moves only past records that it has
//! confirmed without a gap. A sink that stands still holds its own cursor, never the other sink.

pub(crate) mod api;
mod backoff;
mod contiguous;
mod draft;
pub(crate) mod kafka;
mod progress;

pub(crate) use progress::Progress;
