//! A shift of the factory over the whole way: machines, HAProxy, two gateways, Kafka, two API servers, Postgres.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shopfloor_tests::audit::{self, Name, Unit};
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
    let Some(stack) = Stack::start() else { return };
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
    settle(&stack, &mut client, &acknowledged);
    // The reference data went through the API, whose records the client reads too.
    for (topic, count) in [("machine", 50), ("part_information", 100), ("material", 5)] {
        wait::until(&format!("{count} records of {topic}"), WITHIN, || {
            let read = client.look(|records| records.iter().filter(|record| record.topic == topic).count());
            wait::holds(read == count, read)
        });
    }
    let records = client.close();

    let rows = audit::in_postgres(&stack);
    audit::assert_once_in_postgres(&rows, &acknowledged);
    audit::assert_in_kafka(&records, &acknowledged);
    let mut published: Vec<Vec<Unit>> = sent.into_iter().map(|sent| sent.published).collect();
    published.push(simulated.valid);
    audit::assert_in_order(&records, &published);

    // Not acknowledged is QoS 0 alone: each of those at most once, and nothing that nobody published.
    let names: BTreeSet<_> = published.iter().flatten().map(Unit::name).collect();
    for (name, rows) in rows {
        assert!(names.contains(&name), "nobody published {name:?}");
        assert_eq!(rows.len(), 1, "{rows:?}");
    }
    let gateways = stack.rows("SELECT count(DISTINCT gateway) FROM telemetry_gateway;");
    assert_eq!(gateways, ["2"], "both gateways took part");
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
    let Some(mut stack) = Stack::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut client = MigrationClient::start(&stack.kafka.bootstrap(), &TOPICS);
    let messages = 12_000;
    // Twelve seconds: time for both kills, however slow the machine.
    let more = ["--rate", "1000", "--inflight", "20"];
    let simulation = Simulation::start(dir.path(), stack.haproxy.mqtt(), messages, &more);
    for gateway in &mut stack.gateways {
        let yet = || simulation.acknowledged_yet();
        let enough = yet() + 1_000;
        wait::until(&format!("{enough} acknowledgements"), WITHIN, || {
            wait::holds(yet() >= enough, yet())
        });
        gateway.kill();
        let at_the_kill = yet();
        assert!(at_the_kill < messages, "the shift was over before the kill");
        gateway.restart();
        gateway.wait_ready();
    }
    let acknowledged = simulation.finish().valid;
    assert_eq!(acknowledged.len(), messages);

    settle(&stack, &mut client, &acknowledged);
    let records = client.close();
    audit::assert_in_kafka(&records, &acknowledged);
    let rows = audit::in_postgres(&stack);
    audit::assert_in_postgres(&rows, &acknowledged);
    // A machine sends again what was under way at the kill: at most its 20 unacknowledged messages, at each kill.
    let repeated: usize = rows.values().map(|rows| rows.len() - 1).sum();
    assert!(repeated <= 2 * 50 * 20, "{repeated} rows are repetitions");
}

#[test]
fn the_limiter_goes_by_the_clients_own_address_and_the_internal_route_is_no_clients() {
    let _alone = one_at_a_time();
    let Some(stack) = Stack::start() else { return };
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

/// Waits until every acknowledged unit is in Postgres and read from Kafka.
fn settle(stack: &Stack, client: &mut MigrationClient, acknowledged: &[Unit]) {
    let names: BTreeSet<Name> = acknowledged.iter().map(Unit::name).collect();
    let missing_of = |there: &BTreeSet<Name>| {
        let missing: Vec<_> = names.difference(there).collect();
        let first: Vec<_> = missing.iter().take(5).collect();
        wait::holds(
            missing.is_empty(),
            format!("{} are missing: {first:?}", missing.len()),
        )
    };
    let acknowledged = names.len();
    wait::until(&format!("{acknowledged} units in Postgres"), WITHIN, || {
        let quarantined = stack.rows("SELECT reason, count(*) FROM quarantine GROUP BY reason;");
        missing_of(&audit::in_postgres(stack).into_keys().collect())
            .map_err(|missing| format!("{missing}; in quarantine: {quarantined:?}"))
    });
    wait::until(&format!("{acknowledged} units read from Kafka"), WITHIN, || {
        missing_of(&client.look(audit::names_in_kafka))
    });
}
