//! The cursor that Kafka keeps: a topic of each gateway's own, compacted, whose records are committed in the transactions
//! of what they speak of.
//!
//! A topic, and not the offsets of a consumer group: brokers forget those after seven days without a member.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use super::cluster::Cluster;
use super::fault::KafkaFault;
use super::reading::{Reader, offsets, read, reader};

/// Compaction spares the segment in use, so segments are small.
const SETTINGS: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("segment.bytes", "8388608")];
/// How many offsets before the end are looked through first; then eight times as many, and so on. Each transaction takes
/// two, and the last ones may have been aborted.
const FIRST_WINDOW: i64 = 64;

impl Cluster {
    /// The value of the last record that was committed to `topic`, of one partition; `None` where there is none. What is
    /// in a transaction that has not ended is not looked at. Makes the topic where it is missing.
    pub async fn last_committed(&self, topic: &str) -> Result<Option<Vec<u8>>, KafkaFault> {
        let there = topic.to_owned();
        let look = self.blocking("look for the cursor's topic", move |config| {
            offsets(&reader(config)?, &there)
        });
        if look.await?.is_empty() {
            self.create(vec![topic.to_owned()], 1, SETTINGS).await?;
        }
        let topic = topic.to_owned();
        self.blocking("read the cursor's topic", move |config| {
            let consumer = reader(config)?;
            let (partition, low, high) = only_partition(&consumer, &topic)?;
            let mut window = FIRST_WINDOW;
            loop {
                let from = high.saturating_sub(window).max(low);
                let mut last = None;
                read(&consumer, &topic, [(partition, from, high)], |message| {
                    last = message.payload().map(<[u8]>::to_vec);
                })?;
                if last.is_some() || from == low {
                    return Ok(last);
                }
                window = window.saturating_mul(8);
            }
        })
        .await
    }
}

/// Partition, first and next offset.
fn only_partition(consumer: &Reader, topic: &str) -> Result<(i32, i64, i64), KafkaError> {
    match *offsets(consumer, topic)?.as_slice() {
        [only] => Ok(only),
        [] => Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )),
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::InvalidPartitions)),
    }
}
