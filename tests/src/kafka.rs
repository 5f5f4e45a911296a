//! A Kafka node.

use shopfloor::parts::{Kafka, KafkaOptions};

use crate::repository;

/// A real node for one test alone, which may pause and kill it.
pub fn own() -> Kafka {
    let dir = tempfile::tempdir().expect("a temporary directory").keep();
    Kafka::start_with(KafkaOptions {
        dir,
        jars: repository::kafka_jars(),
        port: None,
        temporary: true,
    })
    .unwrap_or_else(|error| panic!("{error}"))
}
