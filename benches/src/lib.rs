//! Measurements with criterion, `make bench`: `benches/front.rs` (packets in, acknowledgements out, with and without the
//! disk), `benches/bridge.rs` (route, check, stamp, tap to disk, tap to Kafka's acknowledgement), `benches/delivery.rs`
//! (spool to a real Kafka, at least once and exactly once in turn), `benches/spool.rs` (group commit), `benches/ingest.rs`
//! (batches into a real Postgres through the API). `make connections`: `src/connections/` (memory and delays with thousands
//! of connections). Figures of one machine at one moment; compare ratios of one run.

pub mod load;
