//! What is accepted reaches Kafka, whatever fails on the way.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machines_message_reaches_kafka_stamped_and_keyed_by_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(), dir.path());
    let batch = vec![
        publish("c", "supply-chain", unit(7, 5)),
        publish("c", "factory/berlin/17/material", r#"{"id":3,"name":"Steel"}"#),
        publish("c", "chatter/of/operators", "hello"),
    ];
    let verdicts = offer(&running.bridge, batch).await;
    assert_eq!(verdicts, [Verdict::Stored, Verdict::Stored, Verdict::Unrouted]);
    running.caught_up().await;

    let units = running.read("supply_chain").await;
    assert_eq!(units.len(), 1);
    assert_eq!(text(units[0].key.as_ref()), "7");
    assert_eq!(
        text(units[0].value.as_ref()),
        unit(7, 5).replace(
            "\"partId\":4",
            "\"partId\":4,\"isDeleted\":false,\"lastUpdate\":\"2023-12-10 00:00:00.0000000\""
        )
    );
    assert!(units[0].headers.is_empty());
    let materials = running.read("material").await;
    assert_eq!(text(materials[0].key.as_ref()), "17");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_reaches_kafka_as_json_by_suffix_and_by_content_type() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(), dir.path());
    let message = |order| {
        v1::UnitProduced {
            machine_id: 7,
            part_id: 4,
            time_of_production_ms: 0,
            order: Some(order),
            ..Default::default()
        }
        .encode_to_vec()
    };
    let mut typed = publish("c", "supply-chain", message(2));
    typed.properties = Some(Box::new(Properties {
        content_type: Some("application/x-protobuf".into()),
        ..Default::default()
    }));
    let untyped = publish("c", "supply-chain", message(3));
    let verdicts = offer(
        &running.bridge,
        vec![publish("c", "supply-chain/pb", message(1)), typed, untyped],
    )
    .await;
    assert_eq!(verdicts[..2], [Verdict::Stored, Verdict::Stored]);
    assert!(
        matches!(verdicts[2], Verdict::DeadLettered { .. }),
        "protobuf that nobody announced is not JSON"
    );
    running.caught_up().await;
    let units = running.read("supply_chain").await;
    assert_eq!(orders(&units)["7"], [1, 2]);
    crate::contract::client::accepts("supply_chain", units[0].value.as_ref().unwrap()).unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_of_ones_own_uses_captures_for_topic_and_key_and_may_ask_for_headers() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.routes.push(RouteConfig {
        filter: "plant/{site}/{line}/#".into(),
        topic: "telemetry.{site}".into(),
        key: Some("{site}-{line}".into()),
        schema: Schema::Json,
        stamp: false,
        headers: true,
    });
    let running = Running::start(config, dir.path());
    let mut traced = publish("c", "plant/Köln/3/temperature", r#"{"c":20}"#);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    traced.properties = Some(Box::new(Properties {
        user: vec![("traceparent".into(), traceparent.into())],
        ..Default::default()
    }));
    offer(&running.bridge, vec![traced]).await;
    running.caught_up().await;
    let records = running.read("telemetry.K_ln").await;
    assert_eq!(records.len(), 1);
    assert_eq!(text(records[0].key.as_ref()), "Köln-3");
    assert_eq!(text(records[0].value.as_ref()), r#"{"c":20}"#);
    let headers: BTreeMap<_, _> = records[0].headers.iter().cloned().collect();
    assert_eq!(headers["traceparent"], traceparent);
    assert_eq!(headers["sequence"], "1");
    assert_eq!(headers["gateway"], "gw-1");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_messages_arrive_in_order_per_machine_while_brokers_fail() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(config(), dir.path());
    const BATCHES: usize = 60;
    for n in 0..BATCHES {
        match n {
            10 => running.bridge.cluster().inject(Fault::BrokersDown).await,
            20 => running.bridge.cluster().inject(Fault::BrokersUp).await,
            30 => running.bridge.cluster().inject(Fault::NotLeader(3)).await,
            _ => {}
        }
        let batch = (0..100)
            .map(|m| publish("c", "supply-chain", unit(m % 50 + 1, n * 2 + m / 50)))
            .collect();
        let verdicts = offer(&running.bridge, batch).await;
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Stored));
    }
    running.caught_up().await;
    let orders = orders(&running.read("supply_chain").await);
    assert_eq!(orders.len(), 50);
    for (machine, orders) in orders {
        assert_eq!(
            orders,
            (0..2 * BATCHES as u64).collect::<Vec<_>>(),
            "machine {machine}"
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_is_not_there_stops_no_receipt_and_a_later_run_delivers() {
    let dir = tempfile::tempdir().unwrap();
    let mut away = config();
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    away.kafka.bootstrap_servers = format!("127.0.0.1:{port}");
    let running = Running::start(away, dir.path());
    let batch = (0..10)
        .map(|n| publish("c", "supply-chain", unit(1, n)))
        .collect();
    let verdicts = offer(&running.bridge, batch).await;
    assert_eq!(verdicts, vec![Verdict::Stored; 10]);
    assert_eq!(running.bridge.sinks()[0].lag_records, 10);
    running.stop().await;

    let running = Running::start(config(), dir.path());
    running.caught_up().await;
    assert_eq!(
        orders(&running.read("supply_chain").await)["1"],
        (0..10).collect::<Vec<_>>()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_kafka_never_forgets_a_record_to_take_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.drain_timeout_ms = 100;
    let running = Running::start(config, dir.path());
    let note = "x".repeat(1_000);
    let payload = |n: usize| unit(1, n).replace("\"partId\":4", &format!("\"partId\":4,\"note\":\"{note}\""));
    const MESSAGES: usize = 6_000;
    for n in (0..MESSAGES).step_by(200) {
        offer(
            &running.bridge,
            (n..n + 200)
                .map(|n| publish("c", "supply-chain", payload(n)))
                .collect(),
        )
        .await;
    }
    let full = async {
        while !running.bridge.sinks()[0]
            .trouble
            .as_ref()
            .is_some_and(|why| why.contains("embedded Kafka is full"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.unwrap();
    let records = running.read("supply_chain").await;
    let orders = &orders(&records)["1"];
    assert!(orders.len() > 3_000, "{}", orders.len());
    assert_eq!(
        *orders,
        (0..orders.len() as u64).collect::<Vec<_>>(),
        "from the first one on, without a gap"
    );
    assert_eq!(
        running.bridge.sinks()[0].lag_records as usize,
        MESSAGES - orders.len()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fatal_producer_error_begins_again_at_the_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::open(config(), "gw-1", dir.path()).unwrap();
    bridge.cluster().inject(Fault::ProducerRefused).await;
    let shutdown = CancellationToken::new();
    let (ran, stop) = (bridge.clone(), shutdown.clone());
    let task = tokio::spawn(async move { ran.run(stop).await });
    let running = Running {
        bridge,
        shutdown,
        task,
    };
    offer(
        &running.bridge,
        (0..100)
            .map(|n| publish("c", "supply-chain", unit(1, n)))
            .collect(),
    )
    .await;
    running.caught_up().await;
    assert_eq!(
        orders(&running.read("supply_chain").await)["1"],
        (0..100).collect::<Vec<_>>()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_stop_nothing_is_taken_and_a_drained_stop_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.drain_timeout_ms = 30_000;
    let running = Running::start(config, dir.path());
    let tap = running.bridge.tap();
    let cluster = running.bridge.cluster().clone();
    let verdicts = offer(
        &running.bridge,
        (0..500)
            .map(|n| publish("c", "supply-chain", unit(1, n)))
            .collect(),
    )
    .await;
    assert_eq!(verdicts.len(), 500);
    running.stop().await;
    assert!(matches!(
        tap.offer(vec![publish("c", "supply-chain", unit(1, 1))].into()),
        Err(Refused::Closed(_))
    ));
    let counts = cluster.count_records(vec!["supply_chain".into()]).await.unwrap();
    assert_eq!(counts["supply_chain"], 500);
}

#[test]
fn bad_routes_are_refused_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut routes = default_routes();
    routes[0].filter = "a/#/b".into();
    let config = BridgeConfig {
        routes,
        kafka: KafkaConfig::default(),
        ..BridgeConfig::default()
    };
    let error = Bridge::open(config, "gw-1", dir.path()).unwrap_err().to_string();
    assert!(error.contains("routes[0].filter"), "{error}");
    assert!(!dir.path().join("spool").exists());
}
