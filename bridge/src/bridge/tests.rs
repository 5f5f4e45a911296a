//! The whole way from an offer to Kafka, on the embedded cluster and a real spool.

mod arrival;
mod refusals;
mod transactions;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use prost::Message;
use shopfloor_broker::tap::{Batch, Properties, Published, Publisher, Refused, Tap, Topic, Verdict};
use shopfloor_proto::v1;

use super::*;
use crate::config::KafkaConfig;
use crate::contract::Schema;
use crate::kafka::{Fault, ReadRecord};
use crate::record::{Destination, Envelope, RefusedBy};
use crate::routes::rule::{RouteConfig, default_routes};

const RECEIVED_MS: i64 = 1_702_166_400_999;
const PATIENCE: Duration = Duration::from_secs(60);

struct Running {
    bridge: Bridge,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), BridgeFault>>,
}

impl Running {
    fn start(config: BridgeConfig, dir: &Path) -> Self {
        Self::of(Bridge::open(config, "gw-1", dir).unwrap())
    }

    fn of(bridge: Bridge) -> Self {
        let shutdown = CancellationToken::new();
        let (running, stop) = (bridge.clone(), shutdown.clone());
        let task = tokio::spawn(async move { running.run(stop).await });
        Self {
            bridge,
            shutdown,
            task,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    async fn caught_up(&self) {
        let waited = tokio::time::timeout(PATIENCE, self.bridge.caught_up()).await;
        assert!(
            waited.is_ok(),
            "the sinks did not catch up: {:?}",
            self.bridge.sinks()
        );
    }

    async fn read(&self, topic: &str) -> Vec<ReadRecord> {
        self.bridge.cluster().read_all(vec![topic.into()]).await.unwrap()
    }
}

fn config() -> BridgeConfig {
    let mut config = BridgeConfig::default();
    config.kafka.linger_ms = 1;
    config.drain_timeout_ms = 0;
    config.spool.segment_max_bytes = 8 * 1024 * 1024;
    config.spool.min_free_disk_bytes = 0;
    config
}

fn publish(client: &str, topic: &str, payload: impl Into<Bytes>) -> Published {
    Published {
        topic: Topic::from(topic),
        payload: payload.into(),
        qos: 1,
        retain: false,
        properties: None,
        publisher: Arc::new(Publisher {
            client_id: client.into(),
            user: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            v5: true,
        }),
        received_ms: RECEIVED_MS,
        exchange: None,
    }
}

fn unit(machine: usize, order: usize) -> String {
    format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{order},"var5":false,"machineId":{machine},"partId":4}}"#
    )
}

async fn offer(bridge: &Bridge, messages: Vec<Published>) -> Vec<Verdict> {
    let mut batch = Batch::from(messages);
    loop {
        match bridge.tap().offer(batch) {
            Ok(receipt) => return receipt.await.unwrap(),
            Err(Refused::Busy(back)) => {
                batch = back;
                bridge.tap().room().await;
            }
            Err(Refused::Closed(_)) => panic!("the spool is closed"),
        }
    }
}

fn text(bytes: Option<&Vec<u8>>) -> String {
    String::from_utf8(bytes.unwrap().clone()).unwrap()
}

fn orders(records: &[ReadRecord]) -> BTreeMap<String, Vec<u64>> {
    let mut orders: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records {
        let value: serde_json::Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        orders
            .entry(text(record.key.as_ref()))
            .or_default()
            .push(value["order"].as_u64().unwrap());
    }
    orders
}

fn config_of_last_resort() -> crate::spool::SpoolConfig {
    crate::spool::SpoolConfig {
        segment_max_bytes: 8 * 1024 * 1024,
        ..Default::default()
    }
}
