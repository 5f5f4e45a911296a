//! A Kafka node, for one test or for all of a binary.

use std::sync::OnceLock;

use shopfloor::parts::{Kafka, KafkaOptions, PartError};

use crate::repository;

/// The node that tests of this binary share, if there is one. It goes with the process.
pub fn shared() -> Option<&'static Kafka> {
    static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
    SHARED.get_or_init(own).as_ref()
}

/// A real node, which the test may pause and kill. `None`, said loudly, where Kafka's jars cannot be had and need not
/// be: what runs without them is `tests/up.rs`, on the embedded cluster.
pub fn own() -> Option<Kafka> {
    start(None, None)
}

/// The same behind something that listens on `advertised_port` and hands on to `port`.
pub fn behind(port: u16, advertised_port: u16) -> Option<Kafka> {
    start(Some(port), Some(advertised_port))
}

fn start(port: Option<u16>, advertised_port: Option<u16>) -> Option<Kafka> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let started = Kafka::start_with(KafkaOptions {
        dir: dir.path().to_owned(),
        jars: repository::kafka_jars(),
        port,
        advertised_port,
        temporary: true,
    });
    match started {
        Ok(kafka) => {
            // The node removes it from here on, also when this process is killed.
            let _kept = dir.keep();
            Some(kafka)
        }
        Err(error @ PartError::NotInstalled { .. }) if !repository::require_real() => {
            eprintln!("**** NOT RUN, there is no real Kafka: {error} ****");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
