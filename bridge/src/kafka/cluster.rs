//! A cluster: its topics, its producers, what it holds.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::CALL_TIMEOUT;
use super::embedded::Embedded;
use super::fault::KafkaFault;
use super::producer::Producer;
use super::reading::{ReadRecord, offsets, read, reader};
use crate::config::KafkaConfig;

/// A Kafka cluster: real brokers, or the embedded one.
#[derive(Debug, Clone)]
pub struct Cluster {
    config: KafkaConfig,
    servers: String,
    pub(super) embedded: Option<Arc<Embedded>>,
}

impl Cluster {
    /// Starts the embedded cluster where the configuration says so; real brokers are not contacted yet.
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaFault> {
        let embedded = config
            .is_embedded()
            .then(Embedded::start)
            .transpose()?
            .map(Arc::new);
        let servers = embedded
            .as_ref()
            .map_or(&config.bootstrap_servers, |embedded| &embedded.servers)
            .clone();
        Ok(Self {
            config: config.clone(),
            servers,
            embedded,
        })
    }

    /// What a client of this cluster connects to.
    pub fn bootstrap_servers(&self) -> &str {
        &self.servers
    }

    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Nothing is on its way into the embedded cluster.
    pub(crate) fn embedded_is_idle(&self) -> bool {
        self.embedded
            .as_ref()
            .is_none_or(|embedded| embedded.log.is_idle())
    }

    /// Creates the topics that are missing. A broker that forbids it is logged and no error: they may exist.
    pub async fn ensure_topics(&self, names: Vec<String>) -> Result<(), KafkaFault> {
        let partitions = i32::from(self.config.partitions);
        if let Some(embedded) = &self.embedded {
            return embedded.create_topics(names, partitions).await;
        }
        self.create(names, partitions, &[]).await
    }

    /// Creates topics on real brokers, with these settings.
    pub(super) async fn create(
        &self,
        names: Vec<String>,
        partitions: i32,
        settings: &'static [(&'static str, &'static str)],
    ) -> Result<(), KafkaFault> {
        let replication = i32::from(self.config.replication);
        self.blocking("create topics", move |config| {
            let admin: AdminClient<DefaultClientContext> = config.create()?;
            let topics: Vec<NewTopic<'_>> = names
                .iter()
                .map(|name| {
                    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
                    settings
                        .iter()
                        .fold(topic, |topic, (name, value)| topic.set(name, value))
                })
                .collect();
            let options = AdminOptions::new()
                .request_timeout(Some(CALL_TIMEOUT))
                .operation_timeout(Some(CALL_TIMEOUT));
            let results =
                tokio::runtime::Handle::current().block_on(admin.create_topics(&topics, &options))?;
            for (topic, code) in results.into_iter().filter_map(Result::err) {
                if code != RDKafkaErrorCode::TopicAlreadyExists {
                    tracing::warn!(topic, %code, "Kafka did not create the topic");
                }
            }
            Ok(())
        })
        .await
    }

    /// Offsets that each topic holds now; 0 for a topic that does not exist. Each is a record, but where transactions
    /// wrote: there, each of them also leaves a marker in every partition.
    pub async fn count_records(&self, topics: Vec<String>) -> Result<BTreeMap<String, u64>, KafkaFault> {
        self.blocking("count records", move |config| {
            let consumer = reader(config)?;
            let mut counts = BTreeMap::new();
            for topic in topics {
                let ranges = offsets(&consumer, &topic)?;
                let count = ranges
                    .iter()
                    .map(|(_, low, high)| high.saturating_sub(*low).unsigned_abs())
                    .sum();
                counts.insert(topic, count);
            }
            Ok(counts)
        })
        .await
    }

    /// Every committed record of the topics, from the beginning to the end as it stands now, a partition in its order.
    pub async fn read_all(&self, topics: Vec<String>) -> Result<Vec<ReadRecord>, KafkaFault> {
        self.blocking("read records", move |config| {
            let consumer = reader(config)?;
            let mut records = Vec::new();
            for topic in topics {
                let ranges = offsets(&consumer, &topic)?;
                read(&consumer, &topic, ranges, |message| {
                    records.push(ReadRecord::of(message));
                })?;
            }
            Ok(records)
        })
        .await
    }

    /// A producer, with its event thread. It gives a record up after `give_up_after`; `None`: never.
    pub fn producer<T: Send + Sync + 'static>(
        &self,
        give_up_after: Option<Duration>,
    ) -> Result<Producer<T>, KafkaFault> {
        self.start_producer(&self.producer_config(give_up_after))
    }

    /// A producer whose records all belong to transactions ([`Producer::transact`]). What is not delivered within the
    /// transaction's longest time fails, and the transaction with it.
    pub fn transactional_producer<T: Send + Sync + 'static>(
        &self,
        transactional_id: &str,
    ) -> Result<Producer<T>, KafkaFault> {
        let timeout = Duration::from_millis(self.config.transaction_timeout_ms.into());
        let mut config = self.producer_config(Some(timeout));
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string());
        self.start_producer(&config)
    }

    fn start_producer<T: Send + Sync + 'static>(
        &self,
        config: &ClientConfig,
    ) -> Result<Producer<T>, KafkaFault> {
        Producer::start(config, self.embedded.clone()).map_err(|source| KafkaFault {
            servers: self.servers.clone(),
            operation: "create a producer",
            source,
        })
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "shopfloor")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.config.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn producer_config(&self, give_up_after: Option<Duration>) -> ClientConfig {
        let mut config = self.client_config();
        let queue_kib = (self.config.max_in_flight_bytes / 1024).clamp(1, 2_097_151) * 2;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // One request at a time: on a partition that is still finding its leader a broker may refuse a batch and take
            // the next one, and librdkafka then reports both as delivered ("implicitly acked"), idempotent, in a
            // transaction, or not. The first one's reports have no offset, which is the second guard (`Context::delivery`).
            .set("max.in.flight.requests.per.connection", "1")
            .set(
                "message.timeout.ms",
                give_up_after.unwrap_or_default().as_millis().to_string(),
            )
            // Java's default: one key, one partition, whichever client wrote it.
            .set("partitioner", "murmur2_random")
            .set(
                "topic.metadata.propagation.max.ms",
                self.config.unknown_topic_timeout_ms.to_string(),
            )
            .set("linger.ms", self.config.linger_ms.to_string())
            .set("compression.type", &self.config.compression)
            .set("message.max.bytes", self.config.max_record_bytes.to_string())
            .set(
                "queue.buffering.max.messages",
                self.config.max_in_flight_records.to_string(),
            )
            .set(
                "queue.buffering.max.kbytes",
                queue_kib.min(2_147_483_647).to_string(),
            );
        config
    }

    /// Runs a blocking call on the blocking pool.
    pub(super) async fn blocking<R: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(ClientConfig) -> Result<R, KafkaError> + Send + 'static,
    ) -> Result<R, KafkaFault> {
        let config = self.client_config();
        let fault = |source: Box<dyn Error + Send + Sync>| KafkaFault {
            servers: self.servers.clone(),
            operation,
            source,
        };
        match tokio::task::spawn_blocking(move || call(config)).await {
            Ok(result) => result.map_err(|error| fault(error.into())),
            Err(error) => Err(fault(error.into())),
        }
    }
}
