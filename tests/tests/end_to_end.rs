//! A shift of the factory over the whole way: machines, HAProxy, two gateways, Kafka, two API servers, Postgres.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shopfloor_tests::audit::{self, Unit};
use shopfloor_tests::publisher::{Program, Publisher, Sent};
use shopfloor_tests::python::{self, MigrationClient};
use shopfloor_tests::simulator::Simulation;
use shopfloor_tests::stack::{Stack, TOPICS};
use shopfloor_tests::{http, wait};

const WITHIN: Duration = Duration::from_secs(180);
/// With the third parties' 3,000: 20,000.
const SIMULATED: usize = 17_000;

/// Each test runs everything there is: two at once would only wait for each other.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both programs, both versions, every QoS: twelve publishers of 250 messages.
fn third_parties() -> Vec<Publisher> {
    let mut all = Vec::new();
    for program in [Program::Paho, Program::Mosquitto] {
        for v5 in [false, true] {
            for qos in 0..=2 {
                all.push(Publisher {
                    program,
                    v5,
                    qos,
                    number: all.len() as i32 + 1,
                    messages: 250,
                });
            }
        }
    }
    all
}

#[test]
fn every_acknowledged_message_is_once_in_postgres_and_in_order_in_kafka() {
    let _alone = one_at_a_time();
    let stack = Stack::start();
    let broker = stack.haproxy.mqtt();
    let dir = tempfile::tempdir().unwrap();
    let mut client = MigrationClient::start(&stack.kafka.bootstrap(), &TOPICS);

    let more = ["--protobuf", "0.2", "--invalid", "0.01"];
    let simulation = Simulation::start(dir.path(), broker, SIMULATED, &more);
    let publishing = third_parties()
        .into_iter()
        .map(|publisher| std::thread::spawn(move || publisher.run(broker)));
    let publishing: Vec<_> = publishing.collect();
    let sent: Vec<Sent> = publishing
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let simulated = simulation.finish();
    assert_eq!(simulated.valid.len() + simulated.invalid, SIMULATED);
    assert!(simulated.invalid > 0, "no message was invalid on purpose");

    let acknowledged: Vec<Unit> = simulated
        .valid
        .iter()
        .chain(sent.iter().flat_map(|sent| &sent.acknowledged))
        .cloned()
        .collect();
    let third_party_acknowledgements = sent.iter().map(|sent| sent.acknowledged.len()).sum::<usize>();
    assert_eq!(
        third_party_acknowledgements,
        8 * 250,
        "QoS 1 and 2, both versions, both programs"
    );
    settle(&stack, &mut client, acknowledged.len());
    let records: Vec<_> = client
        .close()
        .into_iter()
        .filter(|record| record.topic == "supply_chain")
        .collect();

    audit::assert_once_in_postgres(&stack, &acknowledged);
    audit::assert_in_kafka(&records, &acknowledged);
    let mut published: Vec<Vec<Unit>> = sent.into_iter().map(|sent| sent.published).collect();
    published.push(simulated.valid);
    audit::assert_in_order(&records, &published);

    // Not acknowledged is QoS 0 alone: each of those at most once, and nothing that nobody published.
    let names: std::collections::BTreeSet<_> = published.iter().flatten().map(Unit::name).collect();
    for (name, count) in audit::in_postgres(&stack) {
        assert!(names.contains(&name), "nobody published {name:?}");
        assert_eq!(count, 1, "{name:?}");
    }
    let dead_letters = python::read_all(&stack.kafka.bootstrap(), "dead_letter");
    assert_eq!(
        dead_letters.len(),
        simulated.invalid,
        "each invalid message is one dead letter"
    );
}

#[test]
fn a_gateway_killed_in_mid_flow_loses_no_acknowledged_message() {
    let _alone = one_at_a_time();
    let mut stack = Stack::start();
    let dir = tempfile::tempdir().unwrap();
    let mut client = MigrationClient::start(&stack.kafka.bootstrap(), &TOPICS);
    let messages = 10_000;
    let more = ["--rate", "2500", "--inflight", "20"];
    let simulation = Simulation::start(dir.path(), stack.haproxy.mqtt(), messages, &more);
    for (index, at) in [2_000, 5_000].into_iter().enumerate() {
        let yet = || simulation.acknowledged_yet();
        wait::until(
            "acknowledgements",
            WITHIN,
            || yet() >= at,
            || format!("{} of {at}", yet()),
        );
        // In mid-flow: it goes on after the kill.
        assert!(yet() < messages, "the shift was over before the kill");
        stack.gateways[index].kill();
        stack.gateways[index].restart();
        stack.gateways[index].wait_ready();
    }
    let acknowledged = simulation.finish().valid;
    assert_eq!(acknowledged.len(), messages);

    settle(&stack, &mut client, messages);
    let records: Vec<_> = client
        .close()
        .into_iter()
        .filter(|record| record.topic == "supply_chain")
        .collect();
    audit::assert_in_kafka(&records, &acknowledged);
    let in_postgres = audit::in_postgres(&stack);
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|unit| !in_postgres.contains_key(&unit.name()))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged units are not in Postgres: {:?}",
        lost.len(),
        lost[0]
    );
    // A machine sends again what was under way at the kill: at most its 20 unacknowledged messages, at each kill.
    let repeated: u32 = in_postgres.values().map(|count| count - 1).sum();
    assert!(repeated <= 2 * 50 * 20, "{repeated} rows are repetitions");
}

#[test]
fn the_limiter_goes_by_the_clients_own_address_and_the_internal_route_is_no_clients() {
    let _alone = one_at_a_time();
    let stack = Stack::start();
    let rest = stack.haproxy.rest();
    let ask = |from: &str| {
        let from: IpAddr = from.parse().unwrap();
        http::request(from, rest, "GET", "/api/v1/materials").unwrap()
    };
    for n in 1..=50 {
        assert_eq!(ask("127.0.0.21").status, 200, "request {n}");
    }
    let limited = ask("127.0.0.21");
    assert_eq!(limited.status, 429);
    assert_eq!(
        limited.body,
        r#"{"statusCode":429,"message":"Rate limit exceeded"}"#
    );
    assert_eq!(ask("127.0.0.22").status, 200, "another client pays for the first");

    let from = "127.0.0.22".parse().unwrap();
    let refused = http::request(from, rest, "POST", "/internal/v1/telemetry").unwrap();
    assert_eq!(refused.status, 404);
    // Gateways' own way in asks for their token.
    let without_token =
        http::request(from, stack.haproxy.internal(), "POST", "/internal/v1/telemetry").unwrap();
    assert_eq!(without_token.status, 401);
}

/// Waits until as many units are in Postgres and in Kafka as were acknowledged; the audit says which.
fn settle(stack: &Stack, client: &mut MigrationClient, acknowledged: usize) {
    wait::until(
        &format!("{acknowledged} rows in Postgres"),
        WITHIN,
        || audit::row_count(stack) >= acknowledged,
        || {
            format!(
                "{}, and quarantined {:?}",
                audit::row_count(stack),
                stack.rows("SELECT reason, count(*) FROM quarantine GROUP BY 1;")
            )
        },
    );
    let consumed = Cell::new(0);
    wait::until(
        &format!("{acknowledged} records in Kafka"),
        WITHIN,
        || {
            consumed.set(client.count("supply_chain"));
            consumed.get() >= acknowledged
        },
        || consumed.get(),
    );
}
