//! Each record is read once, whatever is killed.

use shopfloor_tests::edge::{
    Edge, EdgeServer, TOPIC, WITHIN, assert_once_and_in_order, await_committed, read_committed,
};
use shopfloor_tests::{kafka, python, wait};

use crate::texts;

/// So small that there is always a transaction to be cut.
pub(crate) const SMALL: &str = "delivery = \"exactly-once\"\ntransaction_max_records = 100";

/// Waits until this run of the gateway has committed some transactions.
pub(crate) fn in_full_flow(edge: &EdgeServer) {
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
        edge.publish(TOPIC, crate::numbered("message", count..count + COUNT));
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
