//! Exactly-once delivery on the embedded cluster, which takes transactions' calls and undoes none: so only what never
//! aborts is tested here, all else on a real Kafka.

use super::*;
use crate::config::Delivery;

/// The embedded cluster makes no topic by itself, and a cursor's topic has one partition.
async fn start(mut config: BridgeConfig, dir: &Path, fault: Option<Fault>) -> Running {
    config.kafka.delivery = Delivery::ExactlyOnce;
    let cursor_topic = config.kafka.cursor_topic("gw-1");
    let bridge = Bridge::open(config, "gw-1", dir).unwrap();
    bridge.cluster().make_topic(cursor_topic, 1).await;
    if let Some(fault) = fault {
        bridge.cluster().inject(fault).await;
    }
    Running::of(bridge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_does_not_come_is_looked_up_before_anything_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.kafka.transaction_max_records = 10;
    let running = start(config, dir.path(), None).await;
    offer(&running.bridge, vec![publish("c", "supply-chain", unit(1, 0))]).await;
    running.caught_up().await;
    for round in 0..3 {
        running.bridge.cluster().inject(Fault::CommitUnanswered).await;
        let batch = (1..=50).map(|n| publish("c", "supply-chain", unit(1, round * 50 + n)));
        offer(&running.bridge, batch.collect()).await;
        running.caught_up().await;
    }
    let arrived = &orders(&running.read("supply_chain").await)["1"];
    assert_eq!(*arrived, (0..=150).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_is_refused_at_the_start_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(config(), dir.path(), Some(Fault::ProducerRefused)).await;
    let batch = (0..100).map(|n| publish("c", "supply-chain", unit(1, n)));
    offer(&running.bridge, batch.collect()).await;
    running.caught_up().await;
    let arrived = &orders(&running.read("supply_chain").await)["1"];
    assert_eq!(*arrived, (0..100).collect::<Vec<_>>());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_before_it_is_sent_leaves_its_transaction_and_stays_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.kafka.max_record_bytes = 5_000;
    let running = start(config, dir.path(), None).await;
    let huge = format!(r#"{{"id":3,"name":"Steel","note":"{}"}}"#, "x".repeat(10_000));
    let batch = vec![
        publish("c", "material", r#"{"id":2,"name":"Zinc"}"#),
        publish("c", "material", huge.clone()),
        publish("c", "material", r#"{"id":4,"name":"Iron"}"#),
    ];
    offer(&running.bridge, batch).await;
    running.caught_up().await;
    assert_eq!(running.read("material").await.len(), 2);
    assert_eq!(running.read("dead_letter").await.len(), 0);
    running.stop().await;

    let kept = Spool::open(&dir.path().join("dead-letters"), "gw-1", config_of_last_resort()).unwrap();
    let found = kept.reader_at(1).next(10, 1 << 20).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].payload, huge);
    kept.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_cannot_pass_for_a_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.routes.push(RouteConfig {
        filter: "any/{topic}".into(),
        topic: "{topic}".into(),
        key: None,
        schema: Schema::Raw,
        stamp: false,
        headers: false,
    });
    let running = start(config, dir.path(), None).await;
    offer(
        &running.bridge,
        vec![publish("c", "any/shopfloor-cursor-gw-1", "forged")],
    )
    .await;
    running.caught_up().await;
    let cursors = running.read("shopfloor-cursor-gw-1").await;
    assert!(
        cursors
            .iter()
            .all(|cursor| text(cursor.value.as_ref()) != "forged")
    );
    let letters = running.read("dead_letter").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(text(letters[0].value.as_ref()), "forged");
    running.stop().await;
}
