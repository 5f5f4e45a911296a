//! What an operator can set about routes, Kafka and the production API.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use shopfloor_runtime::Problem;
use shopfloor_runtime::problem::check_range;

use crate::routes::RouteTable;
use crate::routes::rule::{RouteConfig, default_routes};
use crate::spool::SpoolConfig;
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
        check_range(out, format!("{at}.linger_ms"), self.linger_ms, 0..=10_000);
        check_range(out, format!("{at}.partitions"), self.partitions, 1..=1_000);
        if self.replication != -1 {
            check_range(out, format!("{at}.replication"), self.replication, 1..=15);
        }
        check_range(
            out,
            format!("{at}.unknown_topic_timeout_ms"),
            self.unknown_topic_timeout_ms,
            1..=3_600_000,
        );
        check_range(
            out,
            format!("{at}.max_record_bytes"),
            self.max_record_bytes,
            1_024..=1_000_000_000,
        );
        check_range(
            out,
            format!("{at}.max_in_flight_records"),
            self.max_in_flight_records,
            1..=5_000_000,
        );
        check_range(
            out,
            format!("{at}.max_in_flight_bytes"),
            self.max_in_flight_bytes,
            1_024..=8 * 1024 * 1024 * 1024,
        );
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
        check_range(
            out,
            format!("{at}.transaction_max_records"),
            self.transaction_max_records,
            1..=1_000_000,
        );
        check_range(
            out,
            format!("{at}.transaction_max_bytes"),
            self.transaction_max_bytes,
            1_024..=1024 * 1024 * 1024,
        );
        check_range(
            out,
            format!("{at}.transaction_linger_ms"),
            self.transaction_linger_ms,
            // Well below the shortest timeout.
            0..=500,
        );
        check_range(
            out,
            format!("{at}.transaction_timeout_ms"),
            self.transaction_timeout_ms,
            // Kafka's transaction.max.timeout.ms, unless its operator changed it.
            1_000..=900_000,
        );
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

/// The sink that posts to the production API.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSinkConfig {
    /// `http://host:port` of the API or of the balancer before it; none turns the sink off.
    pub url: Option<String>,
    /// Bearer token that the API expects; none sends no `Authorization`.
    pub token: Option<String>,
    /// Most records in one request.
    pub max_batch_records: u32,
    /// Most bytes in one request's body.
    pub max_batch_bytes: u32,
    /// How long one request may take before it is sent again.
    pub timeout_ms: u32,
    /// Longest pause between two tries of one batch.
    pub max_backoff_ms: u32,
}

/// Without secrets.
impl fmt::Debug for ApiSinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiSinkConfig")
            .field("url", &self.url)
            .field("token", &self.token.as_ref().map(|_| "not shown"))
            .field("max_batch_records", &self.max_batch_records)
            .field("max_batch_bytes", &self.max_batch_bytes)
            .field("timeout_ms", &self.timeout_ms)
            .field("max_backoff_ms", &self.max_backoff_ms)
            .finish()
    }
}

impl Default for ApiSinkConfig {
    fn default() -> Self {
        Self {
            url: None,
            token: None,
            max_batch_records: 1_000,
            max_batch_bytes: 512 * 1024,
            timeout_ms: 10_000,
            max_backoff_ms: 10_000,
        }
    }
}

impl ApiSinkConfig {
    /// Appends every semantic problem.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if let Some(url) = &self.url {
            let parsed: Option<http::Uri> = url.parse().ok();
            let usable = parsed.is_some_and(|uri| {
                uri.scheme_str() == Some("http") && uri.host().is_some() && matches!(uri.path(), "" | "/")
            });
            if url.contains('@') {
                out.push(Problem::new(
                    format!("{at}.url"),
                    "it holds a user name or password, which are not sent",
                    "write http://host:port, and the secret into token",
                ));
            } else if !usable {
                out.push(Problem::new(
                    format!("{at}.url"),
                    format!("{url:?} is not a base URL"),
                    "write http://host:port without a path",
                ));
            }
        }
        if let Some(token) = &self.token
            && http::HeaderValue::from_str(token).is_err()
        {
            out.push(Problem::new(
                format!("{at}.token"),
                "it holds a character that an HTTP header cannot carry",
                "use visible ASCII characters",
            ));
        }
        check_range(
            out,
            format!("{at}.max_batch_records"),
            self.max_batch_records,
            1..=100_000,
        );
        check_range(
            out,
            format!("{at}.max_batch_bytes"),
            self.max_batch_bytes,
            1_024..=64 * 1024 * 1024,
        );
        check_range(out, format!("{at}.timeout_ms"), self.timeout_ms, 10..=600_000);
        check_range(
            out,
            format!("{at}.max_backoff_ms"),
            self.max_backoff_ms,
            10..=600_000,
        );
    }
}

/// Everything of the bridge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    pub routes: Vec<RouteConfig>,
    pub spool: SpoolConfig,
    pub kafka: KafkaConfig,
    pub api: ApiSinkConfig,
    /// How long a stop waits for the sinks to catch up with what was accepted.
    pub drain_timeout_ms: u32,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            routes: default_routes(),
            spool: SpoolConfig::default(),
            kafka: KafkaConfig::default(),
            api: ApiSinkConfig::default(),
            drain_timeout_ms: 10_000,
        }
    }
}

impl BridgeConfig {
    /// Appends every semantic problem.
    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        if let Err(problems) = RouteTable::compile(&self.routes) {
            out.extend(problems.into_iter().map(|problem| Problem {
                path: format!("{at}.{}", problem.path),
                ..problem
            }));
        }
        for (index, route) in self.routes.iter().enumerate() {
            if route.topic == self.kafka.dead_letter_topic {
                out.push(Problem::new(
                    format!("{at}.routes[{index}].topic"),
                    format!("{:?} is the dead-letter topic", route.topic),
                    "route to another topic",
                ));
            }
            if route.topic.starts_with(&self.kafka.cursor_topic_prefix) {
                out.push(Problem::new(
                    format!("{at}.routes[{index}].topic"),
                    format!(
                        "topics that begin with {:?} hold cursors",
                        self.kafka.cursor_topic_prefix
                    ),
                    "route to another topic",
                ));
            }
        }
        self.spool.problems(&format!("{at}.spool"), out);
        self.kafka.problems(&format!("{at}.kafka"), out);
        self.api.problems(&format!("{at}.api"), out);
        check_range(
            out,
            format!("{at}.drain_timeout_ms"),
            self.drain_timeout_ms,
            0..=3_600_000,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &BridgeConfig) -> Vec<String> {
        let mut out = Vec::new();
        config.problems("bridge", &mut out);
        out.iter().map(|problem| problem.path.clone()).collect()
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(problems(&BridgeConfig::default()), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_listed_with_its_place() {
        let mut config = BridgeConfig::default();
        config.routes[0].filter = "a/#/b".into();
        config.routes[1].topic = "not a topic".into();
        config.kafka.properties.insert("acks".into(), "0".into());
        config.kafka.dead_letter_topic = "material".into();
        config.api.url = Some("example".into());
        let paths = problems(&config);
        for path in [
            "bridge.routes[0].filter",
            "bridge.routes[1].topic",
            "bridge.kafka.properties.acks",
            "bridge.kafka.dead_letter_topic",
            "bridge.api.url",
        ] {
            assert!(
                paths.iter().any(|found| found == path),
                "{path} is not in {paths:?}"
            );
        }
    }

    #[test]
    fn exactly_once_delivery_needs_a_real_kafka_and_a_topic_for_its_cursor() {
        let mut config = BridgeConfig::default();
        config.kafka.delivery = Delivery::ExactlyOnce;
        assert_eq!(problems(&config), ["bridge.kafka.delivery"]);
        config.kafka.bootstrap_servers = "kafka:9092".into();
        assert_eq!(problems(&config), Vec::<String>::new());

        let socket_timeout = ("socket.timeout.ms".to_owned(), "60000".to_owned());
        config.kafka.properties.extend([socket_timeout]);
        config.kafka.cursor_topic_prefix = "a/b".into();
        config.routes[0].topic = "a/b/c".into();
        let paths = problems(&config);
        for path in ["transaction_timeout_ms", "cursor_topic_prefix"] {
            assert!(paths.contains(&format!("bridge.kafka.{path}")), "{paths:?}");
        }
        assert!(paths.contains(&"bridge.routes[0].topic".to_owned()), "{paths:?}");
    }

    #[test]
    fn a_property_that_weakens_the_delivery_promise_is_refused() {
        let mut config = BridgeConfig::default();
        for name in [
            "acks",
            "enable.idempotence",
            "retries",
            "partitioner",
            "message.timeout.ms",
        ] {
            config.kafka.properties = BTreeMap::from([(name.into(), "x".into())]);
            assert_eq!(problems(&config), [format!("bridge.kafka.properties.{name}")]);
        }
        config.kafka.properties = BTreeMap::from([("sasl.username".into(), "x".into())]);
        assert_eq!(problems(&config), Vec::<String>::new());
    }
}
