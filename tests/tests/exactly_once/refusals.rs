//! What Kafka refuses within a transaction becomes a dead letter, and nothing else does.

use std::process::Command;

use shopfloor_bridge::kafka::ReadRecord;
use shopfloor_tests::edge::{Edge, await_committed, header, read_committed, text};
use shopfloor_tests::{kafka, python, repository};

use crate::{EXACTLY_ONCE, texts};

fn run_script(name: &str, args: &[&str]) {
    let mut script = Command::new(repository::python());
    script.arg(repository::script(name)).args(args);
    python::run(script, String::new()).unwrap();
}

fn letters_of(bootstrap: &str, gateway: &str) -> Vec<ReadRecord> {
    let mut letters = read_committed(bootstrap, &["dead_letter"]);
    letters.retain(|letter| header(letter, "gateway") == Some(gateway));
    letters
}

#[test]
fn a_record_that_is_too_large_for_its_topic_becomes_a_dead_letter_alone() {
    let Some(kafka) = kafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    run_script(
        "create_topic.py",
        &[&bootstrap, "narrow", "max.message.bytes=3000"],
    );
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
    let letters = letters_of(&bootstrap, "narrow");
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        assert_eq!(text(letter), large);
        assert_eq!(header(letter, "kafka-topic"), Some("narrow"));
        let reason = header(letter, "reason").unwrap();
        assert!(reason.contains("Kafka refuses the record"), "{reason}");
    }
}

/// The coordinator refuses to have the topic in the transaction: all of that fails, and no record says why.
#[test]
fn a_topic_that_may_not_be_in_a_transaction_costs_its_own_records_only() {
    const COUNT: usize = 20;
    let Some(kafka) = kafka::own() else { return };
    let bootstrap = kafka.bootstrap();
    for topic in ["any", "forbidden"] {
        run_script("create_topic.py", &[&bootstrap, topic]);
    }
    run_script("deny_writing.py", &[&bootstrap, "forbidden"]);
    let dir = tempfile::tempdir().unwrap();
    let gateway = Edge {
        dir: dir.path(),
        id: "refused",
        bootstrap: &bootstrap,
        topic: "{topic}",
        schema: "raw",
        kafka: "delivery = \"exactly-once\"\ntransaction_max_records = 10",
    }
    .start();
    gateway.publish("any", texts("before", COUNT));
    await_committed(&bootstrap, "any", COUNT);
    // In turn, so that each transaction has both.
    gateway.publish_each((0..COUNT).flat_map(|n| {
        [
            ("any", format!("between {n}")),
            ("forbidden", format!("refused {n}")),
        ]
    }));
    gateway.publish("any", texts("after", COUNT));
    await_committed(&bootstrap, "dead_letter", COUNT);
    await_committed(&bootstrap, "any", 3 * COUNT);
    gateway.server.stop();

    assert!(read_committed(&bootstrap, &["forbidden"]).is_empty());
    let mut there: Vec<_> = read_committed(&bootstrap, &["any"]).iter().map(text).collect();
    there.sort();
    let mut expected: Vec<_> = ["before", "between", "after"]
        .into_iter()
        .flat_map(|what| texts(what, COUNT))
        .collect();
    expected.sort();
    assert_eq!(there, expected);
    let letters = letters_of(&bootstrap, "refused");
    let mut refused: Vec<_> = letters.iter().map(text).collect();
    refused.sort();
    let mut expected: Vec<_> = texts("refused", COUNT).collect();
    expected.sort();
    assert_eq!(refused, expected);
    for letter in &letters {
        assert_eq!(header(letter, "kafka-topic"), Some("forbidden"));
        let reason = header(letter, "reason").unwrap();
        assert!(reason.contains("authorization"), "{reason}");
    }
}
