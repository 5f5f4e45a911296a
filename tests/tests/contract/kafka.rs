//! What a client's writes leave in a real Kafka: the recorded cases' records, and those that were written while Kafka
//! was down.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shopfloor::config::Config;
use shopfloor::node::ApiNode;
use shopfloor_api::Store;
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::Cluster;
use shopfloor_tests::python::{self, Consumed, MigrationClient};
use shopfloor_tests::stack::TOPICS;
use shopfloor_tests::{kafka, postgres, wait};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::replay::{Due, Names, replay_to_kafka, same};
use crate::server::Server;

const FILES: [&str; 5] = [
    "01_materials",
    "02_prices",
    "03_parts",
    "04_machines",
    "05_supply_chain",
];
const WITHIN: Duration = Duration::from_secs(90);

/// An API as `shopfloor api` runs it, on a database of its own, and a client to it.
async fn api(cluster: &Cluster) -> (ApiNode, Server) {
    let url = block_in_place(|| postgres::database("to_kafka"));
    let mut config = Config::default();
    config.api.listener.listen = "127.0.0.1:0".parse().unwrap();
    config.api.database.url.clone_from(&url);
    config.api.rate_limit.enabled = false;
    let node = ApiNode::start(&config, Some(cluster), None).await.unwrap();
    let store = Store::new(&config.api.database).unwrap();
    // The node is stopped by itself: this token ends nothing.
    let server = Server::at(node.address, &url, store, CancellationToken::new()).await;
    (node, server)
}

fn cluster(bootstrap: String) -> Cluster {
    let config = KafkaConfig {
        bootstrap_servers: bootstrap,
        ..KafkaConfig::default()
    };
    Cluster::open(&config).unwrap()
}

fn until_read(client: &mut MigrationClient, count: usize) {
    block_in_place(|| {
        wait::until(&format!("{count} records in Kafka"), WITHIN, || {
            let read = client.look(<[Consumed]>::len);
            wait::holds(read >= count, read)
        });
    });
}

/// Takes each due record out of those that Kafka holds, by topic; answers those that are missing.
fn settle(due: Vec<Due>, held: &mut BTreeMap<&str, Vec<Value>>, names: &Names) -> Vec<String> {
    let mut problems = Vec::new();
    for due in due {
        let held = held.get_mut(due.topic.as_str()).expect("one of the topics");
        match held
            .iter()
            .position(|value| same(&due.value, value, names).is_ok())
        {
            Some(index) => drop(held.remove(index)),
            None => problems.push(format!("{}: no {} in {}", due.case, due.value, due.topic)),
        }
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_case_leaves_its_records_in_kafka_and_no_other() {
    let Some(kafka) = block_in_place(kafka::own) else {
        return;
    };
    let cluster = cluster(kafka.bootstrap());
    cluster
        .ensure_topics(TOPICS.map(str::to_owned).to_vec())
        .await
        .unwrap();
    let (mut replayed, mut problems) = (Vec::new(), Vec::new());
    for file in FILES {
        let (node, server) = api(&cluster).await;
        let (deviations, due, names) = replay_to_kafka(file, &server).await;
        problems.extend(deviations);
        replayed.push((due, names));
        let began = Instant::now();
        while server.count("SELECT count(*) FROM outbox").await > 0 {
            assert!(began.elapsed() < WITHIN, "{file}: the outbox does not empty");
        }
        node.stop().await;
    }
    let read = |topic| {
        let records = python::read_all(&kafka.bootstrap(), topic);
        let value = |record: Value| serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
        (topic, records.into_iter().map(value).collect::<Vec<Value>>())
    };
    let mut held: BTreeMap<_, _> = block_in_place(|| TOPICS.into_iter().map(read).collect());
    let total: usize = held.values().map(Vec::len).sum();
    for (due, names) in replayed {
        problems.extend(settle(due, &mut held, &names));
    }
    for (topic, values) in held {
        problems.extend(
            values
                .iter()
                .map(|value| format!("{topic}: nobody expects {value}")),
        );
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(total > 100, "{total} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_kafka_is_down_is_answered_at_once_and_reaches_it_afterwards_in_order() {
    let Some(mut kafka) = block_in_place(kafka::own) else {
        return;
    };
    let cluster = cluster(kafka.bootstrap());
    let (node, server) = api(&cluster).await;
    let mut answered = vec![("machine", server.json("POST", "/machine", json!({})).await.body)];
    let part = json!({"defaultPrice": 1.5, "timeToProduce": 7});
    answered.push((
        "part_information",
        server.json("POST", "/part-information", part).await.body,
    ));
    let mut client = MigrationClient::start(&kafka.bootstrap(), &TOPICS);
    until_read(&mut client, 2);

    block_in_place(|| kafka.kill()).unwrap();
    let unit = json!({"timeOfProduction": "2023-12-10T00:00:00.000Z", "order": 5, "var5": false,
        "machineId": 1, "partId": 1});
    let created = server.json("POST", "/supply-chain", unit).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let path = format!("/supply-chain/{}", created.body["id"].as_str().unwrap());
    answered.push(("supply_chain", created.body));
    for order in 6..10 {
        let asked = Instant::now();
        let changed = server.json("PATCH", &path, json!({"order": order})).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        answered.push(("supply_chain", changed.body));
    }
    assert_eq!(server.count("SELECT count(*) FROM outbox").await, 5);

    block_in_place(|| kafka.restart()).unwrap();
    until_read(&mut client, answered.len());
    node.stop().await;
    let read = client.close();
    // A producer that was cut off may repeat a record, and a relay a batch: each at its place, in order.
    for topic in ["machine", "part_information", "supply_chain"] {
        let mut values: Vec<&Value> = read
            .iter()
            .filter(|record| record.topic == topic)
            .map(|record| &record.value)
            .collect();
        values.dedup();
        let of_topic = |(name, _): &&(&str, Value)| *name == topic;
        let expected: Vec<&Value> = answered.iter().filter(of_topic).map(|(_, body)| body).collect();
        assert_eq!(values, expected, "{topic}");
    }
}
