//! Kafka's confirmations on topics that were made a moment ago.
//!
//! A broker that does not lead a new partition yet refuses the first batch, and accepts the second one, of which it
//! cannot know that it is not the first. librdkafka then takes the first for delivered along with the second
//! ("implicitly acked"), and it is lost. So no second batch may be under way while a first one is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shopfloor_bridge::config::KafkaConfig;
use shopfloor_bridge::kafka::{Cluster, Outgoing, Step};
use shopfloor_tests::kafka;

/// So many that the broker leads some of them a moment later than it says.
const PARTITIONS: u16 = 60;
const ROUNDS: usize = 10;
const BATCHES: usize = 20;
const BATCH_RECORDS: usize = 120;
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_confirmed_on_a_topic_that_is_new_is_in_it() {
    let Some(kafka) = tokio::task::spawn_blocking(kafka::own).await.unwrap() else {
        return;
    };
    let config = KafkaConfig {
        bootstrap_servers: kafka.bootstrap(),
        // Each batch a request of its own.
        linger_ms: 0,
        partitions: PARTITIONS,
        ..KafkaConfig::default()
    };
    let cluster = Cluster::open(&config).unwrap();
    for round in 0..ROUNDS {
        let in_transaction = round % 2 == 1;
        let producer = if in_transaction {
            cluster.transactional_producer(&format!("round-{round}")).unwrap()
        } else {
            cluster.producer(None).unwrap()
        };
        if in_transaction {
            producer.transact(Step::Init, || true).await.unwrap();
            producer.transact(Step::Begin, || false).await.unwrap();
        }
        let topic: Arc<str> = format!("round_{round}").into();
        cluster.ensure_topics(vec![topic.to_string()]).await.unwrap();
        for batch in 0..BATCHES {
            let records = (0..BATCH_RECORDS).map(|record| {
                Box::new(Outgoing {
                    topic: topic.clone(),
                    key: Bytes::from(format!("key-{record}")),
                    value: Bytes::from(format!("{batch}")),
                    headers: Vec::new(),
                    origin: (),
                })
            });
            let (left, full) = producer.produce(records.collect());
            assert!(left.is_empty(), "{full:?}");
            // A moment, so that librdkafka sends what it has.
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        let mut confirmed = 0;
        while confirmed < BATCHES * BATCH_RECORDS {
            let more = tokio::time::timeout(WITHIN, producer.confirmations())
                .await
                .unwrap();
            for confirmation in more {
                confirmation.outcome.unwrap();
                confirmed += 1;
            }
        }
        if in_transaction {
            producer.transact(Step::Commit, || true).await.unwrap();
        }
        assert_eq!(
            there(&cluster, &topic, confirmed).await,
            confirmed,
            "round {round}: records in Kafka, and confirmed ones"
        );
    }
}

/// Counts what can be read. A commit is confirmed before every partition has its marker, so a transaction's records may
/// come into sight a moment later; what is lost never does.
async fn there(cluster: &Cluster, topic: &str, expected: usize) -> usize {
    let begun = Instant::now();
    loop {
        let count = cluster.read_all(vec![topic.to_owned()]).await.unwrap().len();
        if count >= expected || begun.elapsed() > WITHIN {
            return count;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
