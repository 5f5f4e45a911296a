//! What Kafka holds, read from where the last look ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::unit::Unit;

const TOPIC: &str = "supply_chain";
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// A reader of its own, that no group knows: committed records only, each once.
#[derive(Debug)]
pub(super) struct Reader {
    config: ClientConfig,
    /// The next offset of each partition.
    next: BTreeMap<i32, i64>,
}

impl Reader {
    pub(super) fn new(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "chaos-audit")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true");
        Self {
            config,
            next: BTreeMap::new(),
        }
    }

    /// Gives every further record, a partition in its order, up to the end as it stands.
    pub(super) fn read_on(&mut self, mut to: impl FnMut(i32, Unit)) -> Result<()> {
        let consumer: BaseConsumer = self.config.create()?;
        self.find_partitions(&consumer)?;
        let mut from = TopicPartitionList::new();
        for (partition, next) in &self.next {
            from.add_partition_offset(TOPIC, *partition, Offset::Offset(*next))?;
        }
        consumer.assign(&from)?;
        let mut open = self.next.len();
        let deadline = Instant::now() + READ_TIMEOUT;
        while open > 0 {
            ensure!(
                Instant::now() < deadline,
                "Kafka's records could not be read in {READ_TIMEOUT:?}"
            );
            match consumer.poll(Duration::from_millis(500)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                // The wire of a fault that has just ended: the reader connects again by itself.
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {}
                Some(Err(error)) => return Err(error).context("reading Kafka's records"),
                Some(Ok(message)) => {
                    self.next.insert(message.partition(), message.offset() + 1);
                    let unit = Unit::of_json(message.payload().unwrap_or_default()).with_context(|| {
                        format!(
                            "offset {} of partition {} is no unit",
                            message.offset(),
                            message.partition()
                        )
                    })?;
                    to(message.partition(), unit);
                }
            }
        }
        Ok(())
    }

    fn find_partitions(&mut self, consumer: &BaseConsumer) -> Result<()> {
        let metadata = consumer.fetch_metadata(Some(TOPIC), CALL_TIMEOUT)?;
        let found = metadata.topics().iter().filter(|topic| topic.name() == TOPIC);
        for partition in found.flat_map(|topic| topic.partitions()) {
            self.next.entry(partition.id()).or_insert(0);
        }
        Ok(())
    }
}

fn is_passing(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut)
}
