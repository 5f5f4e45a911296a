//! `rd_kafka_produce_batch`, which takes payloads where they lie.
//!
//! `BaseProducer::send` copies every payload. Side by side when this was chosen, the batch call took about a quarter less
//! CPU a record at 150 B, and nearly half less from 1 KiB on; that is what the unsafe blocks below are for. It carries no
//! headers, so routes that ask for headers take `send`.

use std::ffi::CString;
use std::ptr::{self, NonNull};

use rdkafka::bindings::{rd_kafka_produce_batch, rd_kafka_topic_destroy, rd_kafka_topic_new};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{IsError, RDKafkaErrorCode};
use rdkafka::types::{RDKafkaMessage, RDKafkaRespErr, RDKafkaTopic};
use rdkafka::util::IntoOpaque;

use super::Outgoing;

/// "Choose the partition by the key."
const ANY_PARTITION: i32 = -1;

/// A topic handle. It must be dropped before its client.
pub(super) struct Topic(NonNull<RDKafkaTopic>);

// SAFETY: librdkafka's handles may be used from any thread (rdkafka.h, "Threads and callbacks").
unsafe impl Send for Topic {}
// SAFETY: as above; no call through a shared handle needs exclusive access.
unsafe impl Sync for Topic {}

impl Topic {
    pub(super) fn new<C: ClientContext>(client: &Client<C>, name: &str) -> Result<Self, RDKafkaErrorCode> {
        let name = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client lives through the call, the name is a C string; a null configuration means the
        // client's default, and librdkafka copies the name.
        let topic = unsafe { rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(topic)
            .map(Self)
            .ok_or(RDKafkaErrorCode::InvalidTopic)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle came from `rd_kafka_topic_new` and is given back once; `Inner` drops its handles
        // before its client.
        unsafe { rd_kafka_topic_destroy(self.0.as_ptr()) };
    }
}

/// Hands records over in order; librdkafka reads key (a copy) and payload (in place). Returns what it did not
/// take, in order. What it took comes back through `ProducerContext::delivery`.
pub(super) fn produce_batch<T: Send + Sync>(
    topic: &Topic,
    records: Vec<Box<Outgoing<T>>>,
) -> Vec<(Box<Outgoing<T>>, RDKafkaErrorCode)> {
    let mut messages: Vec<RDKafkaMessage> = records.into_iter().map(message).collect();
    // Never more than the in-flight limit, far below i32::MAX.
    let count = i32::try_from(messages.len()).unwrap_or(i32::MAX);
    // SAFETY: `messages` holds at least `count` initialised messages. Flags 0: librdkafka neither copies nor frees
    // the payloads. They stay valid, since each message's opaque is the box that owns the `Bytes`, `Bytes` do not
    // move their data, and the box is given back only by `delivery` (after which librdkafka no longer reads
    // the payload) or below.
    unsafe { rd_kafka_produce_batch(topic.0.as_ptr(), ANY_PARTITION, 0, messages.as_mut_ptr(), count) };
    messages
        .into_iter()
        .filter(|message| message.err.is_error())
        .map(|message| {
            // SAFETY: a message with an error was not taken, so nobody else has its opaque, which came from
            // `into_ptr` in `message`. Those without an error are not touched: they may be delivered by now.
            let record = unsafe { Box::<Outgoing<T>>::from_ptr(message._private) };
            (record, message.err.into())
        })
        .collect()
}

fn message<T: Send + Sync>(record: Box<Outgoing<T>>) -> RDKafkaMessage {
    let key = if record.key.is_empty() {
        ptr::null()
    } else {
        record.key.as_ptr()
    };
    RDKafkaMessage {
        // Overwritten for every message that librdkafka looks at.
        err: RDKafkaRespErr::RD_KAFKA_RESP_ERR__FAIL,
        rkt: ptr::null_mut(),
        partition: ANY_PARTITION,
        payload: record.value.as_ptr().cast_mut().cast(),
        len: record.value.len(),
        key: key.cast_mut().cast(),
        key_len: record.key.len(),
        offset: 0,
        _private: record.into_ptr(),
    }
}
