//! Reading topics back: for counts and for tests.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};

use super::CALL_TIMEOUT;

/// Partition, first and next offset of a topic.
pub(super) fn offsets(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL_TIMEOUT)?;
    let partitions = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none());
    partitions
        .flat_map(|found| found.partitions())
        .map(|partition| {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), CALL_TIMEOUT)?;
            Ok((partition.id(), low, high))
        })
        .collect()
}

/// Reads until each partition's next offset is the one given.
pub(super) fn read_to_ends(
    consumer: &BaseConsumer,
    mut open: BTreeMap<(String, i32), i64>,
) -> Result<Vec<ReadRecord>, KafkaError> {
    let mut records = Vec::new();
    while !open.is_empty() {
        let message = consumer
            .poll(CALL_TIMEOUT)
            .ok_or(KafkaError::NoMessageReceived)??;
        let at = (message.topic().to_owned(), message.partition());
        match open.get(&at) {
            Some(end) if message.offset() >= *end => continue,
            Some(end) if message.offset() + 1 == *end => drop(open.remove(&at)),
            Some(_) => {}
            None => continue,
        }
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                .collect()
        });
        records.push(ReadRecord {
            topic: at.0,
            partition: at.1,
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        });
    }
    Ok(records)
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Values that are not UTF-8 are shown as far as they are.
    pub headers: Vec<(String, String)>,
}
