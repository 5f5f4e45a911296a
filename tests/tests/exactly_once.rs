//! Exactly-once delivery: a consumer that reads what is committed sees each record once and in order, whatever is killed.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use shopfloor_tests::edge::{
    Edge, EdgeServer, TOPIC, WITHIN, assert_once_and_in_order, await_committed, header, read_committed, text,
};
use shopfloor_tests::python::MigrationClient;
use shopfloor_tests::{http, kafka, python, repository, wait};

/// So small that there is always a transaction to be cut.
const SMALL: &str = "delivery = \"exactly-once\"\ntransaction_max_records = 100";
const EXACTLY_ONCE: &str = "delivery = \"exactly-once\"";

fn texts(what: &str, count: usize) -> impl Iterator<Item = String> {
    numbered(what, 0..count)
}

fn numbered(what: &str, numbers: Range<usize>) -> impl Iterator<Item = String> {
    numbers.map(move |n| format!("{what} {n}"))
}

/// Waits until this run of the gateway has committed some transactions.
fn in_full_flow(edge: &EdgeServer) {
    wait::until("five transactions", WITHIN, || {
        let committed = edge.committed();
        wait::holds(committed >= 5, committed)
    });
}

/// Records that a consumer sees that takes whatever is there, as kafka-python 2.0.2 does.
fn uncommitted_too(bootstrap: &str) -> usize {
    let read = python::read_all(bootstrap, TOPIC);
    read.iter()
        .filter(|record| record["headers"]["sequence"].is_string())
        .count()
}

#[test]
fn each_record_is_read_once_and_in_order_over_kills_of_the_gateway() {
    const COUNT: usize = 20_000;
    let Some(kafka) = kafka::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = kafka.bootstrap();
    // The spool fills up while Kafka hangs, so that every kill finds the sink at work.
    kafka.pause().unwrap();
    let mut edge = Edge {
        dir: dir.path(),
        id: "killed",
        bootstrap: &bootstrap,
        topic: TOPIC,
        schema: "raw",
        kafka: SMALL,
    }
    .start();
    let (mut count, mut all) = (0, 0);
    // When a kill cuts a transaction is the scheduler's choice; that one did is what the test is about.
    for _try in 0..5 {
        kafka.pause().unwrap();
        edge.publish(TOPIC, numbered("message", count..count + COUNT));
        count += COUNT;
        kafka.resume().unwrap();
        for round in 0..8 {
            in_full_flow(&edge);
            if round % 2 == 0 {
                edge.server.kill();
            } else {
                // What Kafka was asked to commit it does when it goes on, after the gateway is dead.
                kafka.pause().unwrap();
                edge.server.kill();
                kafka.resume().unwrap();
            }
            edge.server.restart();
            edge.server.wait_ready();
        }
        await_committed(&bootstrap, TOPIC, count);
        all = uncommitted_too(&bootstrap);
        if all > count {
            break;
        }
    }
    edge.server.stop();
    assert_once_and_in_order(&read_committed(&bootstrap, &[TOPIC]), count);
    assert!(all > count, "no kill cut a transaction: {all} records");
}

#[test]
fn each_record_is_read_once_and_in_order_over_kills_of_kafka() {
    const COUNT: usize = 20_000;
    let Some(mut kafka) = kafka::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = kafka.bootstrap();
    kafka.pause().unwrap();
    let settings = Edge {
        dir: dir.path(),
        id: "steady",
        bootstrap: &bootstrap,
        topic: TOPIC,
        schema: "raw",
        kafka: SMALL,
    };
    let edge = settings.start();
    edge.publish(TOPIC, texts("message", COUNT));
    kafka.resume().unwrap();
    for _ in 0..2 {
        let before = edge.committed();
        wait::until("five more transactions", WITHIN, || {
            let committed = edge.committed();
            wait::holds(committed >= before + 5, committed)
        });
        kafka.kill().unwrap();
        kafka.restart().unwrap();
    }
    await_committed(&bootstrap, TOPIC, COUNT);

    // A stop does not wait for a Kafka that hangs, in a transaction or not.
    kafka.pause().unwrap();
    edge.publish(TOPIC, texts("late", 500));
    edge.server.stop();
    kafka.resume().unwrap();
    let edge = settings.start();
    await_committed(&bootstrap, TOPIC, COUNT + 500);
    edge.server.stop();
    assert_once_and_in_order(&read_committed(&bootstrap, &[TOPIC]), COUNT + 500);
}

#[test]
fn a_gateway_whose_id_another_one_took_stops_delivering_and_says_so() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let twin = |dir: &Path| {
        Edge {
            dir,
            id: "twin",
            bootstrap: &bootstrap,
            topic: "twins",
            schema: "raw",
            kafka: EXACTLY_ONCE,
        }
        .start()
    };
    let values = || -> Vec<String> {
        let mut values: Vec<_> = read_committed(&bootstrap, &["twins"]).iter().map(text).collect();
        values.sort();
        values
    };
    let first = twin(dirs[0].path());
    first.publish("twins", texts("first", 100));
    await_committed(&bootstrap, "twins", 100);

    let second = twin(dirs[1].path());
    second.publish("twins", texts("second", 100));
    await_committed(&bootstrap, "twins", 200);
    first.publish("twins", texts("late", 100));
    wait::until("the first one says that it was replaced", WITHIN, || {
        let ready = http::get(first.server.admin(), "/ready").unwrap();
        wait::holds(
            ready.status == 503 && ready.body.contains("another gateway with the id"),
            format!("{ready:?}"),
        )
    });
    // It does not take the id back.
    second.publish("twins", texts("undisturbed", 100));
    await_committed(&bootstrap, "twins", 300);
    second.server.stop();
    first.server.stop();

    let first = twin(dirs[0].path());
    await_committed(&bootstrap, "twins", 400);
    first.server.stop();
    let mut expected: Vec<_> = ["first", "second", "undisturbed", "late"]
        .into_iter()
        .flat_map(|what| texts(what, 100))
        .collect();
    expected.sort();
    assert_eq!(values(), expected);
}

#[test]
fn a_spool_that_was_wiped_loses_nothing_to_the_cursor_of_the_old_one() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge {
        dir: dir.path(),
        id: "wiped",
        bootstrap: &bootstrap,
        topic: "wiped",
        schema: "raw",
        kafka: EXACTLY_ONCE,
    };
    let gateway = edge.start();
    gateway.publish("wiped", texts("old", 100));
    await_committed(&bootstrap, "wiped", 100);
    gateway.server.stop();

    std::fs::remove_dir_all(dir.path().join("data")).unwrap();
    // In the new spool are more records than Kafka's cursor counts, when the sink first sees that.
    let unconnected = Edge {
        bootstrap: "127.0.0.1:1",
        ..edge
    };
    let gateway = unconnected.start();
    gateway.publish("wiped", texts("new", 150));
    gateway.server.stop();
    let gateway = edge.start();
    await_committed(&bootstrap, "wiped", 250);
    gateway.server.stop();
    let mut values: Vec<_> = read_committed(&bootstrap, &["wiped"]).iter().map(text).collect();
    values.sort();
    let mut expected: Vec<_> = texts("old", 100).chain(texts("new", 150)).collect();
    expected.sort();
    assert_eq!(values, expected);
}

/// Why delivery is at least once unless it is said otherwise.
#[test]
fn the_old_python_client_takes_a_commit_marker_for_a_record_and_dies() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Edge {
        dir: dir.path(),
        id: "marker",
        bootstrap: &bootstrap,
        topic: "supply_chain",
        schema: "supply_chain",
        kafka: EXACTLY_ONCE,
    }
    .start();
    let unit = r#"{"machineId":1,"partId":4,"var5":false,"timeOfProduction":"2023-12-10T00:00:00.000Z","isDeleted":false,"lastUpdate":"2023-12-10 00:00:01.0000000"}"#;
    gateway.publish("supply_chain", [unit.to_owned()]);
    await_committed(&bootstrap, "supply_chain", 1);
    let mut client = MigrationClient::start(&bootstrap, &["supply_chain"]);
    let reading = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until("the client's end", WITHIN, || {
            client.look(|records| wait::holds(false, records.len()))
        });
    }));
    let end = *reading.unwrap_err().downcast::<String>().unwrap();
    assert!(end.contains(r"b'\x00\x00\x00\x00\x00\x00'"), "{end}");
    gateway.server.stop();
}

#[test]
fn a_record_that_is_too_large_for_its_topic_becomes_a_dead_letter_alone() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    let mut create = Command::new(repository::python());
    create
        .arg(repository::script("create_topic.py"))
        .args([&bootstrap, "narrow", "max.message.bytes=3000"]);
    python::run(create, String::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let gateway = Edge {
        dir: dir.path(),
        id: "narrow",
        bootstrap: &bootstrap,
        topic: "narrow",
        schema: "raw",
        kafka: EXACTLY_ONCE,
    }
    .start();
    let large = "x".repeat(5_000);
    let is_large = |n: usize| n == 70 || n == 71 || n == 230;
    let payloads = (0..300).map(|n| {
        if is_large(n) {
            large.clone()
        } else {
            format!("{n}")
        }
    });
    gateway.publish("narrow", payloads);
    await_committed(&bootstrap, "narrow", 297);
    gateway.server.stop();

    let records = read_committed(&bootstrap, &["narrow"]);
    let mut numbers: Vec<usize> = records
        .iter()
        .map(|record| text(record).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    let expected: Vec<_> = (0..300).filter(|n| !is_large(*n)).collect();
    assert_eq!(numbers, expected);
    let letters = read_committed(&bootstrap, &["dead_letter"]);
    let letters: Vec<_> = letters
        .iter()
        .filter(|letter| header(letter, "gateway") == Some("narrow"))
        .collect();
    assert_eq!(letters.len(), 3);
    for letter in letters {
        assert_eq!(text(letter), large);
        assert_eq!(header(letter, "kafka-topic"), Some("narrow"));
        let reason = header(letter, "reason").unwrap();
        assert!(reason.contains("Kafka refuses the record"), "{reason}");
    }
}
