//! Reading topics back: for counts, for the committed cursor, and for tests. Only what is committed is seen.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::CALL_TIMEOUT;

/// Partition, first and next offset of a topic.
pub(super) fn offsets(consumer: &Reader, topic: &str) -> Result<Vec<(i32, i64, i64)>, KafkaError> {
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

/// For consumers that read once: what goes wrong is in the calls' results, and a partition's end is nothing wrong.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

pub(super) type Reader = BaseConsumer<Quiet>;

/// A consumer that joins no group and is told where a partition ends.
pub(super) fn reader(mut config: ClientConfig) -> Result<Reader, KafkaError> {
    config
        .set("group.id", "shopfloor-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        // A partition may end in commit markers, which are no messages.
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10");
    config.create_with_context(Quiet)
}

/// Shows every record of the topic's partitions, each from its first offset to before its last.
pub(super) fn read(
    consumer: &Reader,
    topic: &str,
    ranges: impl IntoIterator<Item = (i32, i64, i64)>,
    mut show: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), KafkaError> {
    let filled = ranges.into_iter().filter(|(_, from, end)| from < end);
    let (begins, ends) = begins_and_ends(topic, filled)?;
    read_between(consumer, &begins, ends, |message| {
        show(message);
        ControlFlow::Continue(())
    })
}

/// Of partitions with their first and next offsets.
pub(super) fn begins_and_ends(
    topic: &str,
    ranges: impl Iterator<Item = (i32, i64, i64)>,
) -> Result<(TopicPartitionList, BTreeMap<i32, i64>), KafkaError> {
    let (mut begins, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    for (partition, from, end) in ranges {
        begins.add_partition_offset(topic, partition, Offset::Offset(from))?;
        ends.insert(partition, end);
    }
    Ok((begins, ends))
}

/// Shows the partitions' records, each partition in its order up to its end, until `show` has enough.
pub(super) fn read_between(
    consumer: &Reader,
    begins: &TopicPartitionList,
    mut ends: BTreeMap<i32, i64>,
    mut show: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
) -> Result<(), KafkaError> {
    consumer.assign(begins)?;
    while !ends.is_empty() {
        let message = match consumer.poll(CALL_TIMEOUT) {
            None => return Err(KafkaError::NoMessageReceived),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.remove(&partition);
                continue;
            }
            Some(message) => message?,
        };
        let Some(end) = ends.get(&message.partition()).copied() else {
            continue;
        };
        if message.offset() < end && show(&message).is_break() {
            return Ok(());
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(())
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

impl ReadRecord {
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            headers
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                .collect()
        });
        Self {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}
