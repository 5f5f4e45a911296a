//! What no one takes becomes a dead letter, alone.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_breaks_the_contract_goes_to_the_dead_letters_alone() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(), dir.path());
    let bad = r#"{"machineId":"7"}"#;
    let batch = vec![
        publish("c", "supply-chain", unit(1, 1)),
        publish("sensor-9", "supply-chain", bad),
        publish("c", "supply-chain", unit(1, 2)),
        publish("c", "supply-chain", ""),
    ];
    let verdicts = offer(&running.bridge, batch).await;
    assert!(
        matches!(&verdicts[1], Verdict::DeadLettered { reason } if reason.contains("`machineId`")),
        "{verdicts:?}"
    );
    assert!(matches!(&verdicts[3], Verdict::DeadLettered { .. }));
    running.caught_up().await;

    assert_eq!(orders(&running.read("supply_chain").await)["1"], [1, 2]);
    let dead = running.read("dead_letter").await;
    assert_eq!(dead.len(), 2);
    let letter = dead
        .iter()
        .find(|letter| text(letter.value.as_ref()) == bad)
        .unwrap();
    let headers: BTreeMap<_, _> = letter.headers.iter().cloned().collect();
    assert!(
        headers["reason"].contains("`machineId` is the string \"7\""),
        "{headers:?}"
    );
    assert_eq!(headers["mqtt-topic"], "supply-chain");
    assert_eq!(headers["client-id"], "sensor-9");
    assert_eq!(headers["gateway"], "gw-1");
    assert_eq!(headers["sequence"], "2");
    assert_eq!(headers["refused-by"], "contract");
    assert_eq!(headers["received"], "2023-12-10T00:00:00.999Z");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_kafka_does_not_know_costs_its_own_records_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.kafka.unknown_topic_timeout_ms = 100;
    let running = Running::start(config, dir.path());
    running
        .bridge
        .cluster()
        .inject(Fault::UnknownTopic("material"))
        .await;
    let batch = vec![
        publish("c", "supply-chain", unit(1, 1)),
        publish("c", "material", r#"{"id":3,"name":"Steel"}"#),
        publish("c", "supply-chain", unit(1, 2)),
    ];
    offer(&running.bridge, batch).await;
    running.caught_up().await;
    assert_eq!(orders(&running.read("supply_chain").await)["1"], [1, 2]);
    let dead = running.read("dead_letter").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(text(dead[0].value.as_ref()), r#"{"id":3,"name":"Steel"}"#);
    let reason = &dead[0]
        .headers
        .iter()
        .find(|(name, _)| name == "reason")
        .unwrap()
        .1;
    assert!(reason.contains("Kafka refuses the record"), "{reason}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_costs_no_record_that_kafka_takes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    // One request for all of them.
    config.kafka.linger_ms = 50;
    let running = Running::start(config, dir.path());
    offer(&running.bridge, vec![publish("c", "supply-chain", unit(1, 0))]).await;
    running.caught_up().await;
    // The batch is refused, then the first of its records alone is.
    running.bridge.cluster().inject(Fault::BatchTooLarge(2)).await;
    let batch = (1..=20)
        .map(|n| publish("c", "supply-chain", unit(1, n)))
        .collect();
    offer(&running.bridge, batch).await;
    running.caught_up().await;
    let arrived = &orders(&running.read("supply_chain").await)["1"];
    let expected: Vec<u64> = std::iter::once(0).chain(2..=20).collect();
    assert_eq!(
        *arrived, expected,
        "in order, without the one that is refused alone"
    );
    let dead = running.read("dead_letter").await;
    assert_eq!(
        dead.iter()
            .map(|letter| text(letter.value.as_ref()))
            .collect::<Vec<_>>(),
        [unit(1, 1)]
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_even_the_dead_letter_topic_refuses_stays_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.kafka.max_record_bytes = 5_000;
    let running = Running::start(config, dir.path());
    let huge = format!(r#"{{"id":3,"name":"Steel","note":"{}"}}"#, "x".repeat(10_000));
    let batch = vec![
        publish("c", "material", huge.clone()),
        publish("c", "material", r#"{"id":4,"name":"Iron"}"#),
    ];
    offer(&running.bridge, batch).await;
    running.caught_up().await;
    assert_eq!(running.read("material").await.len(), 1);
    assert_eq!(running.read("dead_letter").await.len(), 0);
    running.stop().await;

    let kept = Spool::open(&dir.path().join("dead-letters"), "gw-1", config_of_last_resort()).unwrap();
    let found = kept
        .reader(&kept.cursor("replay").unwrap())
        .next(10, 1 << 20)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].payload, huge);
    let envelope = Envelope::decode(&found[0].meta).unwrap();
    assert!(envelope.reason.contains("size"), "{}", envelope.reason);
    let Destination::DeadLetter(letter) = envelope.destination else {
        panic!("{envelope:?}")
    };
    assert_eq!(
        (letter.refused_by, letter.first_sequence),
        (RefusedBy::Kafka, 1),
        "what a replay needs"
    );
    kept.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_room_for_a_dead_letter_can_be_stopped_and_the_next_one_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.kafka.max_record_bytes = 5_000;
    let mut bridge = Bridge::open(config.clone(), "gw-1", dir.path()).unwrap();
    let no_room = crate::spool::SpoolConfig {
        min_free_disk_bytes: 1 << 60,
        ..config.spool.clone()
    };
    let shared = Arc::get_mut(&mut bridge.shared).unwrap();
    shared.last_resort = LastResort::new(dir.path(), "gw-1", &no_room);
    let running = Running::of(bridge);
    let huge = format!(r#"{{"id":3,"name":"Steel","note":"{}"}}"#, "x".repeat(10_000));
    offer(&running.bridge, vec![publish("c", "material", huge.clone())]).await;
    let told = tokio::time::timeout(PATIENCE, async {
        while running.bridge.sinks()[0].trouble.is_none() {
            tokio::task::yield_now().await;
        }
    });
    told.await.expect("the operator hears of it");
    running.stop().await;

    let running = Running::start(config, dir.path());
    running.caught_up().await;
    running.stop().await;
    let kept = Spool::open(&dir.path().join("dead-letters"), "gw-1", config_of_last_resort()).unwrap();
    let cursor = kept.cursor("replay").unwrap();
    let found = kept.reader(&cursor).next(10, 1 << 20).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].payload, huge);
    kept.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_does_not_end_when_it_is_told_to_is_cut_off() {
    let mut sinks = JoinSet::new();
    sinks.spawn(std::future::pending());
    let ended = tokio::time::timeout(PATIENCE, end(sinks, Duration::from_millis(10)));
    ended.await.expect("a gateway can be stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_spool_takes_its_dead_letters_take_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.spool.commit_max_bytes = 6 * 1024 * 1024;
    let running = Running::start(config, dir.path());
    // More than the default commit takes, and less than the embedded Kafka keeps.
    let huge = format!(r#"{{"id":3,"name":"Steel","note":"{}"}}"#, "x".repeat(4_500_000));
    let batch = vec![
        publish("c", "material", huge),
        publish("c", "material", r#"{"id":4,"name":"Iron"}"#),
    ];
    offer(&running.bridge, batch).await;
    running.caught_up().await;
    assert_eq!(running.read("material").await.len(), 1);
    running.stop().await;
    let kept = crate::spool::inspect::Inspection::open(&dir.path().join("dead-letters")).unwrap();
    assert_eq!(kept.next_sequence(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_topic_cannot_smuggle_an_unchecked_payload_to_the_client() {
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
    let running = Running::start(config, dir.path());
    let verdicts = offer(
        &running.bridge,
        vec![publish("c", "any/supply_chain", "kills the client")],
    )
    .await;
    assert!(matches!(verdicts[0], Verdict::DeadLettered { .. }));
    running.caught_up().await;
    assert_eq!(running.read("supply_chain").await.len(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_api_a_part_without_an_id_is_a_dead_letter_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(), dir.path());
    let verdicts = offer(
        &running.bridge,
        vec![publish("c", "part-information", r#"{"timeToProduce":5}"#)],
    )
    .await;
    assert!(matches!(&verdicts[0], Verdict::DeadLettered { reason } if reason.contains("no production API")));
    running.stop().await;
}
