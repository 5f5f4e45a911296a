//! The `shopfloor.v1` messages.
//!
//! Layout: `shopfloor/v1/telemetry.proto` is the source; `src/gen/` is what prost makes of it, checked in so that
//! building needs no `protoc`. `cargo run -p shopfloor-proto --example generate` writes it anew, and a test
//! holds the two together.
//!
//! Promise: field numbers are never reused, and an old gateway's batch is always readable by a newer API.

/// Version 1 of the messages.
#[allow(missing_debug_implementations, clippy::all)]
pub mod v1 {
    include!("gen/shopfloor.v1.rs");
}

/// Content type of every protobuf body and payload.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Path of the production API's telemetry ingest.
pub const INGEST_PATH: &str = "/internal/v1/telemetry";
