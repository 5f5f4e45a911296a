//! What an operator can set about Kafka.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::{Problem, check_ranges};

use crate::topic_name::{CLIENT_TOPICS, topic_name_fault};

/// `bootstrap_servers` value that starts Kafka inside the process.
pub const EMBEDDED: &str = "embedded";

/// librdkafka properties that an operator may set: security and network. The rest carries the delivery
/// promise (acks, idempotence, retries, partitioner) and is not theirs to change.
const PASSED_PROPERTIES: [&str; 8] = [
    "security.",
    "sasl.",
    "ssl.",
    "socket.",
    "client.",
    "broker.",
    "metadata.",
    "enable.ssl.",
];

/// The Kafka sink.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port` of brokers, comma-separated, or `embedded` for a small in-memory Kafka (a first look only).
    pub bootstrap_servers: String,
    pub delivery: Delivery,
    /// Further librdkafka properties: security, sockets, client id.
    pub properties: BTreeMap<String, String>,
    /// How long a record may wait for others to share its batch.
    pub linger_ms: u32,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Partitions of topics that Shopfloor creates.
    pub partitions: u16,
    /// Copies of topics that Shopfloor creates; -1 leaves it to the brokers.
    pub replication: i16,
    /// Topic of messages that no route's contract or no sink accepts.
    pub dead_letter_topic: String,
    /// How long a topic may be unknown to Kafka before its records become dead letters.
    pub unknown_topic_timeout_ms: u32,
    /// Largest record, in bytes of key, value and headers, as Kafka's `message.max.bytes` counts it.
    pub max_record_bytes: u32,
    /// Most records handed to Kafka and not yet confirmed.
    pub max_in_flight_records: u32,
    /// Most bytes handed to Kafka and not yet confirmed.
    pub max_in_flight_bytes: u64,
    /// With exactly-once delivery: most records of one transaction.
    pub transaction_max_records: u32,
    /// Most bytes of one transaction.
    pub transaction_max_bytes: u64,
    /// How long a record may wait for others to share its transaction.
    pub transaction_linger_ms: u32,
    /// Longest life of a transaction: then Kafka ends it, so that what is behind it can be read.
    pub transaction_timeout_ms: u32,
    /// The gateway's cursor is kept in the topic of this name and the gateway's id.
    pub cursor_topic_prefix: String,
}

/// How often a record may be in Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// A crash or a new producer repeats what was not confirmed.
    AtLeastOnce,
    /// Records and cursor in one transaction: who reads what is committed sees each record once.
    ExactlyOnce,
}

/// Without secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("delivery", &self.delivery)
            .field("properties", &self.properties.keys())
            .field("linger_ms", &self.linger_ms)
            .field("compression", &self.compression)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("unknown_topic_timeout_ms", &self.unknown_topic_timeout_ms)
            .field("max_record_bytes", &self.max_record_bytes)
            .field("max_in_flight_records", &self.max_in_flight_records)
            .field("max_in_flight_bytes", &self.max_in_flight_bytes)
            .field("transaction_max_records", &self.transaction_max_records)
            .field("transaction_max_bytes", &self.transaction_max_bytes)
            .field("transaction_linger_ms", &self.transaction_linger_ms)
            .field("transaction_timeout_ms", &self.transaction_timeout_ms)
            .field("cursor_topic_prefix", &self.cursor_topic_prefix)
            .finish()
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: EMBEDDED.into(),
            delivery: Delivery::AtLeastOnce,
            properties: BTreeMap::new(),
            linger_ms: 5,
            compression: "none".into(),
            partitions: 6,
            replication: -1,
            dead_letter_topic: "dead_letter".into(),
            unknown_topic_timeout_ms: 30_000,
            max_record_bytes: 1_000_000,
            max_in_flight_records: 100_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            transaction_max_records: 5_000,
            transaction_max_bytes: 8 * 1024 * 1024,
            transaction_linger_ms: 20,
            transaction_timeout_ms: 30_000,
            cursor_topic_prefix: "shopfloor-cursor-".into(),
        }
    }
}

impl KafkaConfig {
    pub fn is_embedded(&self) -> bool {
        self.bootstrap_servers == EMBEDDED
    }

    /// Appends every semantic problem.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if self.bootstrap_servers.trim().is_empty() {
            out.push(Problem::new(
                format!("{at}.bootstrap_servers"),
                "it is empty",
                "write host:port of a broker, or \"embedded\"",
            ));
        }
        for name in self.properties.keys() {
            if !PASSED_PROPERTIES.iter().any(|prefix| name.starts_with(prefix)) {
                out.push(Problem::new(
                    format!("{at}.properties.{name}"),
                    "this property is not passed to librdkafka, since it may break the delivery promise",
                    format!("use properties that start with {}", PASSED_PROPERTIES.join(", ")),
                ));
            }
        }
        if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&self.compression.as_str()) {
            out.push(Problem::new(
                format!("{at}.compression"),
                format!("{:?} is no compression", self.compression),
                "use none, gzip, snappy, lz4 or zstd",
            ));
        }
        if self.replication != -1 {
            check_ranges!(self, at, out, { replication: 1..=15 });
        }
        check_ranges!(self, at, out, {
            linger_ms: 0..=10_000,
            partitions: 1..=1_000,
            unknown_topic_timeout_ms: 1..=3_600_000,
            max_record_bytes: 1_024..=1_000_000_000,
            max_in_flight_records: 1..=5_000_000,
            max_in_flight_bytes: 1_024..=8 * 1024 * 1024 * 1024,
        });
        if let Err(why) = topic_name_fault(&self.dead_letter_topic) {
            out.push(Problem::new(
                format!("{at}.dead_letter_topic"),
                why,
                "use letters, digits, '.', '_' and '-'",
            ));
        }
        self.transaction_problems(at, out);
        if CLIENT_TOPICS.contains(&self.dead_letter_topic.as_str()) {
            out.push(Problem::new(
                format!("{at}.dead_letter_topic"),
                format!(
                    "the migration client reads {:?}, and a dead letter there kills it",
                    self.dead_letter_topic
                ),
                "use a topic of its own, for example \"dead_letter\"",
            ));
        }
    }
}

/// What exactly-once delivery needs.
impl KafkaConfig {
    /// The topic of this gateway's cursor.
    pub fn cursor_topic(&self, gateway: &str) -> String {
        format!("{}{gateway}", self.cursor_topic_prefix)
    }

    fn transaction_problems(&self, at: &str, out: &mut Vec<Problem>) {
        let exactly_once = self.delivery == Delivery::ExactlyOnce;
        if exactly_once && self.is_embedded() {
            out.push(Problem::new(
                format!("{at}.delivery"),
                "the embedded Kafka keeps no transactions, and nothing over a restart",
                format!("name a real Kafka in {at}.bootstrap_servers, or write delivery = \"at-least-once\""),
            ));
        }
        let socket_timeout = self.properties.get("socket.timeout.ms");
        if let Some(socket_timeout) = socket_timeout.and_then(|text| text.parse::<u64>().ok())
            && exactly_once
            && socket_timeout > u64::from(self.transaction_timeout_ms)
        {
            out.push(Problem::new(
                format!("{at}.transaction_timeout_ms"),
                format!("it is below socket.timeout.ms, {socket_timeout}"),
                "a transaction must outlive one request: raise it, or lower socket.timeout.ms",
            ));
        }
        check_ranges!(self, at, out, {
            transaction_max_records: 1..=1_000_000,
            transaction_max_bytes: 1_024..=1024 * 1024 * 1024,
            // Well below the shortest timeout.
            // Well below the shortest timeout.
            transaction_linger_ms: 0..=500,
            // Kafka's transaction.max.timeout.ms, unless its operator changed it.
            // Kafka's transaction.max.timeout.ms, unless its operator changed it.
            transaction_timeout_ms: 1_000..=900_000,
        });
        // As long as a gateway's id may be.
        if let Err(why) = topic_name_fault(&self.cursor_topic(&"x".repeat(64))) {
            out.push(Problem::new(
                format!("{at}.cursor_topic_prefix"),
                format!("with a gateway's id behind it: {why}"),
                "use few letters, digits, '.', '_' and '-'",
            ));
        }
        if self.cursor_topic_prefix.is_empty()
            || self.dead_letter_topic.starts_with(&self.cursor_topic_prefix)
        {
            out.push(Problem::new(
                format!("{at}.cursor_topic_prefix"),
                "other topics begin so",
                "use a prefix of its own, for example \"shopfloor-cursor-\"",
            ));
        }
    }
}
