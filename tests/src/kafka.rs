//! Kafka, for one test.

use shopfloor::parts::{Kafka, KafkaOptions, PartError};
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::Cluster;

use crate::repository;

/// The Kafka of a test that only reads and writes.
#[derive(Debug)]
pub enum AnyKafka {
    Real(Kafka),
    /// librdkafka's in-process cluster, where Kafka's jars cannot be had.
    Embedded(Cluster),
}

impl AnyKafka {
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Real(kafka) => kafka.bootstrap(),
            Self::Embedded(cluster) => cluster.bootstrap_servers().to_owned(),
        }
    }
}

/// A node of its own for one test; the embedded cluster, said loudly, where the real one cannot be had and need not be.
pub fn own() -> AnyKafka {
    match own_real() {
        Some(kafka) => AnyKafka::Real(kafka),
        None => {
            // The default configuration is the embedded cluster.
            let cluster = Cluster::open(&KafkaConfig::default());
            AnyKafka::Embedded(cluster.unwrap_or_else(|error| panic!("the embedded Kafka: {error}")))
        }
    }
}

/// A real node of its own for one test, which may pause and kill it. `None`, said loudly, where it cannot be had and
/// need not be.
pub fn own_real() -> Option<Kafka> {
    let dir = tempfile::tempdir().expect("a temporary directory").keep();
    let started = Kafka::start_with(KafkaOptions {
        dir,
        jars: repository::kafka_jars(),
        port: None,
        temporary: true,
    });
    match started {
        Ok(kafka) => Some(kafka),
        Err(error @ PartError::NotInstalled { .. }) if !repository::require_real() => {
            eprintln!("**** NOT ON REAL KAFKA: {error} ****");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
