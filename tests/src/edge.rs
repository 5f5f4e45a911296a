//! A gateway by itself, without balancer and API, and what reached Kafka from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use shopfloor::parts::Backend;
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::{Cluster, ReadRecord};

use crate::server::Server;
use crate::wait;

/// Where its messages go. Each record says in its headers which sequence it had in the spool.
pub const TOPIC: &str = "events";
const MACHINES: usize = 20;
/// How long what is to come may take.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A gateway that is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Edge<'a> {
    /// For the configuration, the log and the spool.
    pub dir: &'a Path,
    pub id: &'a str,
    pub bootstrap: &'a str,
    pub topic: &'a str,
    pub schema: &'a str,
    /// Further lines of `[bridge.kafka]`.
    pub kafka: &'a str,
}

/// A running one.
#[derive(Debug)]
pub struct EdgeServer {
    pub server: Server,
    mqtt: SocketAddr,
}

impl Edge<'_> {
    /// Starts it and waits until it takes messages.
    pub fn start(self) -> EdgeServer {
        let at = Backend::on_free_ports().unwrap_or_else(|error| panic!("{error}"));
        let mut server = Server::spawn("gateway", self.dir, &self.config(at), at.admin());
        server.wait_ready();
        EdgeServer {
            server,
            mqtt: at.address,
        }
    }

    fn config(self, at: Backend) -> String {
        let Self {
            dir,
            id,
            bootstrap,
            topic,
            schema,
            kafka,
        } = self;
        format!(
            r#"
[gateway]
id = "{id}"
data_dir = "{data}"

[mqtt.auth]
allow_anonymous = true

[[mqtt.listeners]]
listen = "{listen}"

[bridge]
drain_timeout_ms = 1000

[[bridge.routes]]
filter = "machines/{{machine}}/{topic}"
topic = "{topic}"
key = "{{machine}}"
schema = "{schema}"
stamp = false
headers = true

[bridge.kafka]
bootstrap_servers = "{bootstrap}"
{kafka}

[admin]
listen = "{admin}"
"#,
            data = dir.join("data").display(),
            listen = at.address,
            admin = at.admin(),
        )
    }
}

impl EdgeServer {
    /// Publishes payloads at QoS 1, in turn from each of some machines, and returns when all are acknowledged.
    pub fn publish(&self, topic: &str, payloads: impl IntoIterator<Item = String>) {
        self.publish_each(payloads.into_iter().map(|payload| (topic, payload)));
    }

    /// The same with a topic for each.
    pub fn publish_each<'a>(&self, messages: impl IntoIterator<Item = (&'a str, String)>) {
        let messages: Vec<_> = messages.into_iter().collect();
        let mut options = MqttOptions::new("machines", self.mqtt.ip().to_string(), self.mqtt.port());
        options.set_max_packet_size(1 << 20, 1 << 20).set_inflight(500);
        let (client, mut connection) = Client::new(options, 100);
        let mut unacknowledged = messages.len();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (n, (topic, payload)) in messages.into_iter().enumerate() {
                    let to = format!("machines/{}/{topic}", n % MACHINES);
                    client
                        .publish(to, QoS::AtLeastOnce, false, payload)
                        .expect("publish");
                }
            });
            while unacknowledged > 0 {
                let event = connection.recv().expect("the connection");
                if let Event::Incoming(Packet::PubAck(_)) = event.expect("the gateway answers") {
                    unacknowledged -= 1;
                }
            }
        });
    }

    /// As [`Server::metric`].
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        self.server.metric(name_and_labels)
    }

    /// Transactions that the running process has committed.
    pub fn committed(&self) -> u64 {
        let name = r#"shopfloor_sink_transactions_total{sink="kafka",outcome="committed"}"#;
        self.metric(name).unwrap_or(0.0) as u64
    }
}

/// Waits until as many records are committed as there must be.
pub fn await_committed(bootstrap: &str, topic: &str, count: usize) {
    wait::until(&format!("{count} records in {topic}"), WITHIN, || {
        let committed = try_read_committed(bootstrap, &[topic]).map(|records| records.len())?;
        wait::holds(committed >= count, committed.to_string())
    });
}

/// The topics' records as a consumer sees them that reads what is committed.
pub fn read_committed(bootstrap: &str, topics: &[&str]) -> Vec<ReadRecord> {
    try_read_committed(bootstrap, topics).expect("the topics are read")
}

fn try_read_committed(bootstrap: &str, topics: &[&str]) -> Result<Vec<ReadRecord>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let config = KafkaConfig {
        bootstrap_servers: bootstrap.to_owned(),
        ..KafkaConfig::default()
    };
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let read = runtime.block_on(Cluster::open(&config).expect("a cluster").read_all(topics));
    // For example: a partition that was made a moment ago has no leader yet.
    read.map_err(|error| format!("{error:?}"))
}

/// A record's header.
pub fn header<'a>(record: &'a ReadRecord, name: &str) -> Option<&'a str> {
    let found = record.headers.iter().find(|(found, _)| found == name)?;
    Some(&found.1)
}

/// A record's value as text.
pub fn text(record: &ReadRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default()).expect("text")
}

/// Panics unless every sequence of one gateway's spool is there once, and in order within its key.
pub fn assert_once_and_in_order(records: &[ReadRecord], count: usize) {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last: BTreeMap<&[u8], (i32, i64, u64)> = BTreeMap::new();
    for record in records {
        let sequence = header(record, "sequence").and_then(|text| text.parse().ok());
        let sequence: u64 = sequence.unwrap_or_else(|| panic!("a record without its sequence: {record:?}"));
        *seen.entry(sequence).or_default() += 1;
        let key = record.key.as_deref().unwrap_or_default();
        let here = (record.partition, record.offset, sequence);
        if let Some(before) = last.insert(key, here) {
            assert_eq!(before.0, here.0, "one key, one partition");
            assert!(
                before.1 < here.1 && before.2 < here.2,
                "{key:?}: {before:?}, then {here:?}"
            );
        }
    }
    let repeated: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).take(5).collect();
    let missing: Vec<_> = (1..=count as u64)
        .filter(|n| !seen.contains_key(n))
        .take(5)
        .collect();
    assert!(
        repeated.is_empty() && missing.is_empty() && seen.len() == count,
        "{} of {count} sequences; repeated: {repeated:?}, missing: {missing:?}",
        seen.len()
    );
}
