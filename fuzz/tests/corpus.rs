//! What the fuzzers kept, replayed.
// A test is where a wrong answer may end the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use shopfloor_fuzz_targets::{
    codec, operator_files, payload_check, proxy_header, records, route_table, session, spool,
    telemetry_batch, websocket,
};

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files = std::fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        run(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn no_packets_of_the_corpus_break_the_codec() {
    replay("codec", codec::run);
}

#[test]
fn no_clients_of_the_corpus_break_the_front() {
    replay("session", session::run);
}

#[test]
fn no_header_of_the_corpus_breaks_the_proxy_protocol() {
    replay("proxy_header", proxy_header::run);
}

#[test]
fn no_filters_of_the_corpus_break_the_route_table() {
    replay("route_table", route_table::run);
}

#[test]
fn no_payload_of_the_corpus_breaks_the_check() {
    replay("payload_check", payload_check::run);
}

#[test]
fn no_frames_of_the_corpus_lose_bytes_of_a_websocket() {
    replay("websocket", websocket::run);
}

#[test]
fn no_batch_of_the_corpus_breaks_the_ingest() {
    replay("telemetry_batch", telemetry_batch::run);
}

#[test]
fn no_damage_of_the_corpus_makes_the_spool_give_out_what_was_not_stored() {
    replay("spool", spool::run);
}

#[test]
fn no_record_of_the_corpus_breaks_a_restart() {
    replay("records", records::run);
}

#[test]
fn no_lines_of_the_corpus_break_an_operators_files() {
    replay("operator_files", operator_files::run);
}
