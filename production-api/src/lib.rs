//! The production HTTP API
