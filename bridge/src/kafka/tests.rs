use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::KafkaConfig;

fn cluster(change: impl FnOnce(&mut KafkaConfig)) -> Cluster {
    let mut config = KafkaConfig {
        linger_ms: 1,
        ..KafkaConfig::default()
    };
    change(&mut config);
    Cluster::open(&config).unwrap()
}

fn record(topic: &str, key: &str, value: impl Into<Bytes>, number: usize) -> Box<Outgoing<usize>> {
    Box::new(Outgoing {
        topic: topic.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        headers: Vec::new(),
        origin: number,
    })
}

async fn confirm(producer: &Producer<usize>, count: usize) -> Vec<Confirmation<usize>> {
    let mut confirmed = Vec::new();
    while confirmed.len() < count {
        let more = tokio::time::timeout(Duration::from_secs(30), producer.confirmations());
        confirmed.extend(more.await.expect("no confirmation within 30 s"));
    }
    confirmed
}

#[tokio::test]
async fn a_key_keeps_to_one_partition_and_its_records_keep_their_order() {
    let cluster = cluster(|_| {});
    cluster.ensure_topics(vec!["t".into()]).await.unwrap();
    let producer = cluster.producer(None).unwrap();
    let records = (0..600).map(|n| {
        let mut record = record("t", &format!("m{}", n % 50), format!("{n}"), n);
        if n.is_multiple_of(7) {
            // Headers take librdkafka's other call; the order must hold across both.
            record.headers.push(("n", format!("{n}").into()));
        }
        record
    });
    let (left, full) = producer.produce(records.collect());
    assert!(left.is_empty() && full.is_none());
    assert!(
        confirm(&producer, 600)
            .await
            .iter()
            .all(|confirmation| confirmation.outcome.is_ok())
    );

    let read = cluster.read_all(vec!["t".into()]).await.unwrap();
    assert_eq!(read.len(), 600);
    let mut by_key: HashMap<Vec<u8>, (i32, Vec<usize>)> = HashMap::new();
    for record in read {
        let number: usize = String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
        assert_eq!(record.headers.len(), usize::from(number.is_multiple_of(7)));
        let entry = by_key
            .entry(record.key.unwrap())
            .or_insert((record.partition, Vec::new()));
        assert_eq!(entry.0, record.partition, "one key, one partition");
        entry.1.push(number);
    }
    assert_eq!(by_key.len(), 50);
    assert!(
        by_key.values().all(|(_, numbers)| numbers.is_sorted()),
        "{by_key:?}"
    );
    assert!(
        by_key
            .values()
            .map(|(partition, _)| partition)
            .collect::<std::collections::HashSet<_>>()
            .len()
            > 3
    );
}

#[tokio::test]
async fn created_topics_have_the_configured_partitions_and_are_counted() {
    let cluster = cluster(|config| config.partitions = 6);
    cluster.ensure_topics(vec!["a".into(), "b".into()]).await.unwrap();
    cluster.ensure_topics(vec!["a".into()]).await.unwrap();
    let producer = cluster.producer(None).unwrap();
    producer.produce((0..40).map(|n| record("a", &n.to_string(), "x", n)).collect());
    confirm(&producer, 40).await;
    let counts = cluster.count_records(vec!["a".into(), "b".into()]).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("a".into(), 40), ("b".into(), 0)]));
    let partitions: std::collections::BTreeSet<i32> = cluster
        .read_all(vec!["a".into()])
        .await
        .unwrap()
        .iter()
        .map(|record| record.partition)
        .collect();
    assert!(
        partitions.last().is_some_and(|last| *last >= 4 && *last < 6),
        "{partitions:?}"
    );
}

#[tokio::test]
async fn a_full_queue_gives_the_rest_back_in_order() {
    let cluster = cluster(|config| config.max_in_flight_records = 10);
    cluster.ensure_topics(vec!["t".into()]).await.unwrap();
    cluster.inject(Fault::BrokersDown).await;
    let producer = cluster.producer(None).unwrap();
    let (left, full) = producer.produce((0..25).map(|n| record("t", "k", format!("{n}"), n)).collect());
    assert_eq!(full, Some(Full::Queue));
    assert_eq!(
        left.iter().map(|record| record.origin).collect::<Vec<_>>(),
        (10..25).collect::<Vec<_>>()
    );
    cluster.inject(Fault::BrokersUp).await;
    let (mut left, mut taken, mut confirmed) = (left, 10, 0);
    while confirmed < 25 {
        let before = left.len();
        left = producer.produce(left).0;
        taken += before - left.len();
        if confirmed < taken {
            confirmed += confirm(&producer, 1).await.len();
        } else {
            // librdkafka counts a record out of its queue only after it was confirmed.
            tokio::task::yield_now().await;
        }
    }
    let read = cluster.read_all(vec!["t".into()]).await.unwrap();
    let values: Vec<String> = read
        .into_iter()
        .map(|r| String::from_utf8(r.value.unwrap()).unwrap())
        .collect();
    assert_eq!(values, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_alone_and_at_once() {
    let cluster = cluster(|config| config.max_record_bytes = 2_000);
    cluster.ensure_topics(vec!["t".into()]).await.unwrap();
    let producer = cluster.producer(None).unwrap();
    let records = vec![
        record("t", "k", "a", 0),
        record("t", "k", vec![b'x'; 3_000], 1),
        record("t", "k", "b", 2),
    ];
    producer.produce(records);
    let mut confirmed = confirm(&producer, 3).await;
    confirmed.sort_by_key(|confirmation| confirmation.origin);
    let refused: Vec<bool> = confirmed
        .iter()
        .map(|confirmation| matches!(confirmation.outcome, Err(Undelivered::Refused(_))))
        .collect();
    assert_eq!(refused, [false, true, false]);
    assert_eq!(cluster.count_records(vec!["t".into()]).await.unwrap()["t"], 2);
}

#[tokio::test]
async fn the_payload_is_handed_over_where_it_lies_and_freed_after_delivery() {
    let cluster = cluster(|_| {});
    cluster.ensure_topics(vec!["t".into()]).await.unwrap();
    let producer = cluster.producer(None).unwrap();
    let value = Bytes::from(vec![b'x'; 100]);
    producer.produce(vec![record("t", "k", value.clone(), 0)]);
    assert!(!value.is_unique(), "the producer holds the same bytes");
    confirm(&producer, 1).await;
    assert!(value.is_unique(), "nothing holds them after delivery");
}

#[tokio::test]
async fn a_dropped_producer_gives_its_payloads_back() {
    let cluster = cluster(|_| {});
    cluster.inject(Fault::BrokersDown).await;
    let producer = cluster.producer(None).unwrap();
    let value = Bytes::from(vec![b'x'; 100]);
    producer.produce(vec![record("t", "k", value.clone(), 0)]);
    drop(producer);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !value.is_unique() {
        assert!(tokio::time::Instant::now() < deadline, "the payload leaked");
        tokio::task::yield_now().await;
    }
}
