//! The dead-letter topic for those who look after it: read as a stream, and written to at a chosen partition.

use std::ops::ControlFlow;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::CALL_TIMEOUT;
use super::cluster::Cluster;
use super::fault::KafkaFault;
use super::producer::Producer;
use super::reading::{ReadRecord, Reader, begins_and_ends, offsets, read_between, reader};
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
    let ranges = offsets(consumer, topic)?;
    let filled = ranges.into_iter().filter(|(_, low, end)| low < end);
    // A time goes where an offset stands, says `offsets_for_times`.
    let ranges = filled.map(|(partition, low, end)| (partition, since_ms.unwrap_or(low), end));
    let (mut begins, ends) = begins_and_ends(topic, ranges)?;
    if since_ms.is_some() && !ends.is_empty() {
        begins = consumer.offsets_for_times(begins, CALL_TIMEOUT)?;
    }
    read_between(consumer, &begins, ends, |message| show(Seen(message)))
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
        inner
            .send(partition, record)
            .map_err(|(code, _record)| Undelivered::at_once(code))
    }
}
