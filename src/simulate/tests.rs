//! Whole runs against a broker that breaks connections.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ack_log::AckLine;
use super::args::{Config, MqttVersion, Speed, Version};
use super::broker_fixture::{Broker, Faults, Published};
use super::payload::Message;
use super::plan::Plan;
use super::{SimulateError, Summary, run};

const MESSAGES: u64 = 3_000;

fn config(port: u16, mqtt: MqttVersion, qos: u8) -> Config {
    Config {
        port,
        mqtt,
        qos,
        machines: 6,
        messages: Some(MESSAGES),
        speed: Speed::Max,
        inflight: 20,
        ..Config::default()
    }
}

fn planned(config: &Config) -> Vec<Message> {
    Plan::new(config).unwrap().lines().flatten().collect()
}

/// Payloads say which message they are: no two of a plan are the same but for the invalid ones.
fn payloads<'a>(published: impl IntoIterator<Item = &'a Published>) -> BTreeSet<&'a [u8]> {
    published
        .into_iter()
        .map(|published| &published.payload[..])
        .collect()
}

fn ack_lines(path: &Path) -> Vec<AckLine> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}

async fn run_to_end(config: Config) -> Summary {
    run(config, CancellationToken::new()).await.unwrap()
}

fn versions_and_qos() -> impl Iterator<Item = (MqttVersion, u8)> {
    [MqttVersion::V4, MqttVersion::V5]
        .into_iter()
        .flat_map(|mqtt| [(mqtt, 1), (mqtt, 2)])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_acknowledged_once_though_connections_break_in_mid_flow() {
    let mut cases = tokio::task::JoinSet::new();
    for (mqtt, qos) in versions_and_qos() {
        cases.spawn(survives_breaks(mqtt, qos, false));
        cases.spawn(survives_breaks(mqtt, qos, true));
    }
    cases.join_all().await;
}

async fn survives_breaks(mqtt: MqttVersion, qos: u8, forgets_sessions: bool) {
    let faults = Faults {
        closes_before: 101,
        closes_after: 151,
        closes_on_answer: 211,
        forgets_sessions,
        ..Faults::default()
    };
    let (broker, directory) = (Broker::start(faults).await, tempfile::tempdir().unwrap());
    let log = directory.path().join("acks.csv");
    let config = Config {
        ack_log: Some(log.clone()),
        ..config(broker.port, mqtt, qos)
    };
    let planned = planned(&config);
    let summary = run_to_end(config).await;
    let case = format!("{mqtt:?} QoS {qos} forgets_sessions {forgets_sessions}: {summary:?}");

    assert!(summary.is_complete() && summary.reconnects > 10, "{case}");
    assert_eq!(
        (summary.published, summary.acknowledged),
        (MESSAGES, MESSAGES),
        "{case}"
    );
    let expected: BTreeSet<_> = planned
        .iter()
        .map(|m| (m.unit.machine_id, m.unit.order))
        .collect();
    let lines = ack_lines(&log);
    let logged: BTreeSet<_> = lines.iter().map(|line| (line.machine_id, line.order)).collect();
    assert_eq!((lines.len(), logged), (planned.len(), expected), "{case}");
    let seen = broker.seen();
    assert_eq!(
        payloads(&seen.answered).len(),
        planned.len(),
        "acknowledged without an answer; {case}"
    );
    assert_in_order(&planned, &seen.taken, &case);
    if qos == 2 && !forgets_sessions {
        assert_eq!(
            seen.taken.len(),
            planned.len(),
            "taken twice in a session; {case}"
        );
    }
}

/// Each machine's messages reach the broker for the first time in the plan's order.
fn assert_in_order(planned: &[Message], taken: &[Published], case: &str) {
    let mut orders: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    let by_payload: BTreeMap<&[u8], i32> = planned.iter().map(|m| (&m.payload[..], m.unit.order)).collect();
    let mut known = HashSet::new();
    for published in taken {
        if known.insert(&published.payload) {
            orders
                .entry(&published.client)
                .or_default()
                .push(by_payload[&published.payload[..]]);
        }
    }
    for (client, orders) in orders {
        assert!(orders.is_sorted(), "{client} out of order: {orders:?}; {case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_any_order_settle_the_message_that_they_name() {
    for (mqtt, qos) in versions_and_qos() {
        let broker = Broker::start(Faults {
            swaps_answers: 5,
            ..Faults::default()
        })
        .await;
        // The fixture holds one answer until the next, so the last one of a machine needs a successor: stop short.
        let config = Config {
            patience: Duration::from_millis(500),
            ..config(broker.port, mqtt, qos)
        };
        let summary = run_to_end(config).await;
        let answered = broker.seen().answered.len() as u64;
        assert_eq!(summary.published, MESSAGES);
        assert!(
            summary.acknowledged + 6 >= answered,
            "{answered} answered, {summary:?}"
        );
        assert_eq!(summary.unacknowledged, summary.published - summary.acknowledged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_on_the_wire_are_the_plans_whatever_the_version_and_the_breaks() {
    for mqtt in [MqttVersion::V4, MqttVersion::V5, MqttVersion::Mixed] {
        let broker = Broker::start(Faults {
            closes_after: 150,
            ..Faults::default()
        })
        .await;
        let config = Config {
            protobuf_share: 0.2,
            invalid_share: 0.1,
            seed: 9,
            ..config(broker.port, mqtt, 1)
        };
        let planned = planned(&config);
        run_to_end(config).await;
        let sent: HashSet<_> = (planned.iter())
            .map(|m| {
                let content_type = m.is_protobuf && mqtt.of_machine(m.unit.machine_id) == Version::V5;
                (m.topic.to_string(), m.payload.to_vec(), content_type)
            })
            .collect();
        let seen = broker.seen();
        let taken: HashSet<_> = seen
            .taken
            .iter()
            .map(|p| (p.topic.clone(), p.payload.clone(), p.content_type))
            .collect();
        assert_eq!(taken, sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_invalid_message_is_acknowledged_and_costs_no_place_in_flight() {
    for qos in [1, 2] {
        let broker = Broker::start(Faults {
            refuses_invalid: true,
            ..Faults::default()
        })
        .await;
        let config = Config {
            invalid_share: 0.5,
            ..config(broker.port, MqttVersion::V5, qos)
        };
        let summary = run_to_end(config).await;
        assert!(summary.is_complete(), "{summary:?}");
        assert_eq!(summary.acknowledged, MESSAGES);
        assert_eq!(summary.acknowledged_invalid, summary.invalid);
        assert!((1_200..1_800).contains(&summary.invalid), "{summary:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_0_publishes_everything_and_claims_no_acknowledgement() {
    for mqtt in [MqttVersion::V4, MqttVersion::V5] {
        let broker = Broker::start(Faults::default()).await;
        let summary = run_to_end(config(broker.port, mqtt, 0)).await;
        assert_eq!((summary.published, summary.acknowledged), (MESSAGES, 0));
        // Its DISCONNECT came after the last message, and the fixture reads in order.
        let all_read = async {
            while broker.seen().taken.len() < MESSAGES as usize {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all_read)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_settles_what_is_in_flight_and_sums_up() {
    let broker = Broker::start(Faults::default()).await;
    let stop = CancellationToken::new();
    let config = Config {
        messages: None,
        ..config(broker.port, MqttVersion::Mixed, 1)
    };
    let running = tokio::spawn(run(config, stop.clone()));
    while broker.seen().answered.len() < 500 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let summary = running.await.unwrap().unwrap();
    assert!(summary.stopped && summary.is_complete(), "{summary:?}");
    assert!(
        summary.published >= 500 && summary.acknowledged == summary.published,
        "{summary:?}"
    );
    assert!(
        summary
            .to_string()
            .ends_with(&format!("published {0} acknowledged {0}", summary.published))
    );
}

#[tokio::test]
async fn without_a_broker_the_error_names_the_address_and_the_cause() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = Config {
        patience: Duration::from_millis(300),
        ..config(port, MqttVersion::V4, 1)
    };
    let error = run(config, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SimulateError::Unreachable { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&format!("127.0.0.1:{port}")) && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_never_answers_leaves_its_messages_unacknowledged() {
    let broker = Broker::start(Faults {
        closes_after: 1,
        ..Faults::default()
    })
    .await;
    let config = Config {
        patience: Duration::from_millis(300),
        machines: 2,
        ..config(broker.port, MqttVersion::V4, 1)
    };
    let summary = run_to_end(config).await;
    assert_eq!((summary.acknowledged, summary.gave_up), (0, 2), "{summary:?}");
    assert!(summary.published > 0 && summary.unacknowledged == summary.published);
    assert!(!summary.is_complete());
}
