//! What an operator can set about routes, the spool and the sinks.

mod api;
mod kafka;

use serde::Deserialize;
use shopfloor_runtime::{Problem, check_ranges};

pub use api::ApiSinkConfig;
pub use kafka::{Delivery, EMBEDDED, KafkaConfig};

use crate::routes::RouteTable;
use crate::routes::rule::{RouteConfig, default_routes};
use crate::spool::SpoolConfig;

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
        check_ranges!(self, at, out, { drain_timeout_ms: 0..=3_600_000 });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
