//! The dead-letter topic for those who look after it: read as a stream, and written to at a chosen partition.

use std::ops::ControlFlow;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::cluster::Cluster;
use super::fault::KafkaFault;
use super::producer::Producer;
use super::reading::{ReadRecord, Reader, offsets, reader};
use super::record::{Outgoing, Undelivered};

/// What the consumer reads ahead of whoever looks.
const READ_AHEAD_KIB: &str = "8192";

/// A record that passes by.
pub(crate) struct Seen<'a>(&'a BorrowedMessage<'a>);

impl Seen<'_> {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.0.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    }

    pub(crate) fn record(&self) -> ReadRecord {
        ReadRecord::of(self.0)
    }
}

impl Cluster {
    /// Shows every committed record that Kafka took at `since_ms` or later, up to the end as it stands now, a partition
    /// in its order, until `show` has enough. A topic that does not exist has none.
    pub(crate) async fn each_record(
        &self,
        topic: String,
        since_ms: Option<i64>,
        show: impl FnMut(Seen<'_>) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), KafkaFault> {
        self.blocking("read the dead-letter topic", move |mut config| {
            config.set("queued.max.messages.kbytes", READ_AHEAD_KIB);
            each(&reader(config)?, &topic, since_ms, show)
        })
        .await
    }
}

fn each(
    consumer: &Reader,
    topic: &str,
    since_ms: Option<i64>,
    mut show: impl FnMut(Seen<'_>) -> ControlFlow<()>,
) -> Result<(), KafkaError> {
    let mut begins = TopicPartitionList::new();
    let mut ends = std::collections::BTreeMap::new();
    for (partition, low, end) in offsets(consumer, topic)? {
        // A time goes where an offset stands, says this call.
        let from = since_ms.unwrap_or(low);
        begins.add_partition_offset(topic, partition, Offset::Offset(from))?;
        if low < end {
            ends.insert(partition, end);
        }
    }
    if since_ms.is_some() && !ends.is_empty() {
        begins = consumer.offsets_for_times(begins, CALL_TIMEOUT)?;
    }
    if ends.is_empty() {
        return Ok(());
    }
    consumer.assign(&begins)?;
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
        if message.offset() < end && show(Seen(&message)).is_break() {
            return Ok(());
        }
        if message.offset() + 1 >= end {
            ends.remove(&message.partition());
        }
    }
    Ok(())
}

impl<T: Send + Sync + 'static> Producer<T> {
    /// Hands one record over, to a partition of the caller's choice or by its key. What librdkafka does not take is
    /// said at once; what it takes is confirmed later.
    pub(crate) fn produce_to(
        &self,
        partition: Option<i32>,
        record: Box<Outgoing<T>>,
    ) -> Result<(), Undelivered> {
        let Some(inner) = self.inner() else {
            return Err(Undelivered::Again("the producer has stopped".into()));
        };
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record.headers.iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value.as_ref()),
            })
        });
        // Cheap handles: the record itself travels as the opaque.
        let (topic, key, value) = (record.topic.clone(), record.key.clone(), record.value.clone());
        let mut outgoing = BaseRecord::with_opaque_to(&topic, record)
            .payload(value.as_ref())
            .headers(headers);
        if !key.is_empty() {
            outgoing = outgoing.key(key.as_ref());
        }
        if let Some(partition) = partition {
            outgoing = outgoing.partition(partition);
        }
        inner.base.send(outgoing).map_err(|(error, _record)| {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            Undelivered::at_once(code)
        })
    }
}
