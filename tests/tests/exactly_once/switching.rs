//! From one way of delivery to the other, after a crash in the middle of each: nothing is lost or out of order, what the
//! cursor on disk did not know of yet is repeated, and exactly once holds again from the switch on.

use std::collections::BTreeMap;

use shopfloor_bridge::kafka::ReadRecord;
use shopfloor_tests::edge::{Edge, EdgeServer, TOPIC, WITHIN, await_committed, header, read_committed};
use shopfloor_tests::{kafka, wait};

use crate::kills::{SMALL, in_full_flow};
use crate::numbered;

const AT_LEAST_ONCE: &str = "delivery = \"at-least-once\"\nmax_in_flight_records = 100";
const COUNT: usize = 20_000;

fn sequence(record: &ReadRecord) -> u64 {
    header(record, "sequence").unwrap().parse().unwrap()
}

/// Panics where a first copy stands behind a later one of its key; gives how often each sequence is there.
fn first_copies_in_order(records: &[ReadRecord]) -> BTreeMap<u64, usize> {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    let mut highest: BTreeMap<&[u8], u64> = BTreeMap::new();
    for record in records {
        let sequence = sequence(record);
        let copies = times.entry(sequence).or_default();
        *copies += 1;
        let highest = highest.entry(record.key.as_deref().unwrap()).or_default();
        if *copies == 1 {
            assert!(sequence > *highest, "{sequence} stands behind {highest}");
            *highest = sequence;
        }
    }
    times
}

/// Waits until some of what is waiting is delivered, and kills it amid the rest.
fn kill_at_work(edge: &mut EdgeServer) {
    wait::until("a thousand delivered records", WITHIN, || {
        let delivered = edge.metric(r#"shopfloor_sink_delivered_total{sink="kafka"}"#);
        wait::holds(
            delivered.is_some_and(|count| count >= 1_000.0),
            format!("{delivered:?}"),
        )
    });
    edge.server.kill();
}

#[test]
fn a_switch_after_a_crash_loses_nothing_and_repeats_only_what_the_cursor_on_disk_did_not_know() {
    let Some(kafka) = kafka::own() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = kafka.bootstrap();
    let with = |delivery| Edge {
        dir: dir.path(),
        id: "switched",
        bootstrap: &bootstrap,
        topic: TOPIC,
        schema: "raw",
        kafka: delivery,
    };
    // Kafka hangs while the spool fills, so that each kill finds the sink at work.
    kafka.pause().unwrap();
    let mut edge = with(SMALL).start();
    edge.publish(TOPIC, numbered("message", 0..COUNT));
    kafka.resume().unwrap();
    in_full_flow(&edge);
    edge.server.kill();

    kafka.pause().unwrap();
    let mut edge = with(AT_LEAST_ONCE).start();
    edge.publish(TOPIC, numbered("message", COUNT..2 * COUNT));
    kafka.resume().unwrap();
    kill_at_work(&mut edge);

    let mut edge = with(SMALL).start();
    in_full_flow(&edge);
    edge.server.kill();
    edge.server.restart();
    edge.server.wait_ready();
    await_committed(&bootstrap, TOPIC, 2 * COUNT);
    wait::until("everything is delivered", WITHIN, || {
        let lag = edge.metric(r#"shopfloor_sink_lag_records{sink="kafka"}"#);
        wait::holds(lag == Some(0.0), format!("{lag:?}"))
    });
    edge.publish(TOPIC, numbered("message", 2 * COUNT..3 * COUNT));
    in_full_flow(&edge);
    edge.server.kill();
    edge.server.restart();
    edge.server.wait_ready();
    wait::until("every sequence is there", WITHIN, || {
        let records = read_committed(&bootstrap, &[TOPIC]);
        let there = first_copies_in_order(&records).len();
        wait::holds(there == 3 * COUNT, there)
    });
    edge.server.stop();

    let records = read_committed(&bootstrap, &[TOPIC]);
    let times = first_copies_in_order(&records);
    let expected = 1..=3 * COUNT as u64;
    assert!(times.keys().copied().eq(expected), "{} sequences", times.len());
    let repeated_since: Vec<_> = times
        .range(2 * COUNT as u64 + 1..)
        .filter(|(_, times)| **times > 1)
        .collect();
    assert!(
        repeated_since.is_empty(),
        "twice after the switch: {repeated_since:?}"
    );
}
