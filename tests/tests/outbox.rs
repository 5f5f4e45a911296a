//! The outbox and its relay against a real Postgres. Kafka is a recorder here that can be down, hang or refuse:
//! the real one comes with the end-to-end tests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shopfloor_api::Store;
use shopfloor_api::outbox::{OutboxConfig, PublishError, Publisher, Publishing, Record, Relay};
use shopfloor_tests::telemetry::{self, RunningApi, batch, material, part, start};
use shopfloor_tests::{database, postgres};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the recorder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    /// Nothing is confirmed.
    Down,
    /// No answer at all.
    Hanging,
    /// Records of the topic `sales` are not confirmed.
    OneTopicDown,
    /// Values that hold the word "poison" are refused for good.
    RefusesPoison,
}

/// A Kafka that remembers what it has confirmed.
struct Recorder {
    mode: watch::Sender<Mode>,
    confirmed: watch::Sender<Vec<Record>>,
    /// Calls of `publish`, and those under way.
    calls: watch::Sender<usize>,
    under_way: Mutex<HashSet<usize>>,
    overlapped: watch::Sender<bool>,
}

impl Recorder {
    fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self {
            mode: watch::Sender::new(mode),
            confirmed: watch::Sender::new(Vec::new()),
            calls: watch::Sender::new(0),
            under_way: Mutex::default(),
            overlapped: watch::Sender::new(false),
        })
    }

    async fn until_confirmed(&self, count: usize) -> Vec<Record> {
        let mut confirmed = self.confirmed.subscribe();
        let reached = confirmed.wait_for(|records| records.len() >= count);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(records) => records.expect("the sender lives").clone(),
            Err(_) => panic!("only {} of {count} were confirmed", self.confirmed.borrow().len()),
        }
    }

    async fn until_called(&self, count: usize) {
        let mut calls = self.calls.subscribe();
        tokio::time::timeout(PATIENCE, calls.wait_for(|calls| *calls >= count))
            .await
            .expect("the relay tries")
            .expect("the sender lives");
    }

    fn answer(&self, record: &Record) -> Result<(), PublishError> {
        let down = || Err(PublishError::Unavailable("broker down".into()));
        match *self.mode.borrow() {
            Mode::Up => Ok(()),
            Mode::OneTopicDown if record.topic != "sales" => Ok(()),
            Mode::Down | Mode::Hanging | Mode::OneTopicDown => down(),
            Mode::RefusesPoison if record.value.windows(6).any(|word| word == b"poison") => {
                Err(PublishError::Refused("message too large".into()))
            }
            Mode::RefusesPoison => Ok(()),
        }
    }
}

/// The recorder as one relay sees it.
struct Side(Arc<Recorder>, usize);

impl Publisher for Side {
    fn publish(&self, records: Vec<Record>) -> Publishing<'_> {
        let Self(recorder, side) = self;
        Box::pin(async move {
            {
                let mut under_way = recorder.under_way.lock().expect("not poisoned");
                if under_way.iter().any(|other| other != side) {
                    recorder.overlapped.send_replace(true);
                }
                under_way.insert(*side);
            }
            recorder.calls.send_modify(|calls| *calls += 1);
            if *recorder.mode.borrow() == Mode::Hanging {
                std::future::pending::<()>().await;
            }
            // Gives the other relay a chance to do wrong.
            tokio::task::yield_now().await;
            let results: Vec<_> = records.iter().map(|record| recorder.answer(record)).collect();
            let confirmed = records
                .into_iter()
                .zip(&results)
                .filter(|(_, result)| result.is_ok());
            recorder
                .confirmed
                .send_modify(|all| all.extend(confirmed.map(|(record, _)| record)));
            recorder.under_way.lock().expect("not poisoned").remove(side);
            results
        })
    }
}

/// A relay as another process would run it. It stops cleanly when told and hard when dropped.
struct RunningRelay {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for RunningRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn quick() -> OutboxConfig {
    OutboxConfig {
        poll_interval_ms: 20,
        backoff_min_ms: 5,
        backoff_max_ms: 50,
        ..OutboxConfig::default()
    }
}

fn relay(url: &str, recorder: &Arc<Recorder>, side: usize, config: OutboxConfig) -> RunningRelay {
    let store = Store::new(&gateway::config(url).database).expect("a store");
    let stop = CancellationToken::new();
    let publisher = Arc::new(Side(Arc::clone(recorder), side));
    let task = tokio::spawn(Relay::new(store, publisher, config).run(stop.clone()));
    RunningRelay { stop, task }
}

async fn migrated(what: &str) -> (String, RunningApi, Client) {
    let url = postgres::database(what);
    let api = start(gateway::config(&url)).await;
    let db = database::connect(&url).await;
    (url, api, db)
}

/// Writes one record as the API does, value `{"key":…,"version":…}`.
fn insert(topic: &str, key: &str, version: usize) -> String {
    format!(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
         VALUES (gen_random_uuid(), '{topic}', '{key}', 'written', '{{\"key\":\"{key}\",\"version\":{version}}}');
         NOTIFY shopfloor_outbox;"
    )
}

fn version(record: &Record) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(&record.value).expect("JSON");
    value["version"].as_u64().expect("a version")
}

async fn until_empty(db: &Client) {
    let emptied = async {
        while database::value(db, "SELECT count(*) FROM outbox WHERE refused_at IS NULL").await != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, emptied)
        .await
        .expect("the outbox empties");
}

#[tokio::test]
async fn what_a_batch_creates_reaches_kafka_byte_for_byte_and_leaves_the_table() {
    let (url, api, db) = migrated("end_to_end").await;
    let recorder = Recorder::new(Mode::Up);
    // Only a notification can wake this one.
    let slow = OutboxConfig {
        poll_interval_ms: 60_000,
        ..quick()
    };
    let _relay = relay(&url, &recorder, 0, slow);
    let first = batch("g1", vec![material(0, None, "Zinn \u{1F600} \"x\"")]);
    api.commit(&first).await;
    recorder.until_confirmed(1).await;
    until_empty(&db).await;
    api.commit(&batch("g1", vec![part(1, None, Some("0.50"), 60)]))
        .await;
    let records = recorder.until_confirmed(2).await;
    until_empty(&db).await;
    let value = |index: usize| String::from_utf8(records[index].value.to_vec()).expect("UTF-8");
    let start = "{\"name\":\"Zinn \u{1F600} \\\"x\\\"\",\"id\":1,\"isDeleted\":false,\"lastUpdate\":\"";
    assert!(value(0).starts_with(start), "{}", value(0));
    let start =
        "{\"defaultPrice\":\"0.5\",\"timeToProduce\":60,\"id\":1,\"isDeleted\":false,\"lastUpdate\":\"";
    assert!(value(1).starts_with(start), "{}", value(1));
    assert_eq!(
        (records[0].topic.as_str(), records[0].key.as_str()),
        ("material", "1")
    );
    assert_eq!(
        (records[1].topic.as_str(), records[1].key.as_str()),
        ("part_information", "1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_publish_every_record_once_and_in_the_order_of_each_key() {
    const WRITERS: usize = 4;
    const WRITES: usize = 300;
    let (url, _api, db) = migrated("two_relays").await;
    let recorder = Recorder::new(Mode::Up);
    let small = OutboxConfig {
        max_batch_records: 17,
        ..quick()
    };
    let relays = [
        relay(&url, &recorder, 0, small.clone()),
        relay(&url, &recorder, 1, small),
    ];
    let writers = (0..WRITERS).map(|writer| {
        let url = url.clone();
        tokio::spawn(async move {
            let db = database::connect(&url).await;
            for version in 0..WRITES {
                // Two keys a writer; positions of the writers interleave and commit in any order.
                let key = format!("{writer}-{}", version % 2);
                db.batch_execute(&insert("material", &key, version))
                    .await
                    .expect("written");
            }
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.expect("written");
    }
    recorder.until_confirmed(WRITERS * WRITES).await;
    until_empty(&db).await;
    let records = recorder.confirmed.borrow().clone();
    assert_eq!(records.len(), WRITERS * WRITES);
    assert_eq!(
        records
            .iter()
            .map(|record| record.id)
            .collect::<HashSet<_>>()
            .len(),
        WRITERS * WRITES
    );
    let mut last: HashMap<&str, u64> = HashMap::new();
    for record in &records {
        let before = last.insert(&record.key, version(record));
        assert!(
            before < Some(version(record)),
            "{} after {before:?}",
            version(record)
        );
    }
    assert!(!*recorder.overlapped.borrow(), "both relays published at once");
    drop(relays);
}

#[tokio::test]
async fn a_row_that_commits_late_is_published_although_later_ones_are_gone() {
    let (url, _api, db) = migrated("late").await;
    let recorder = Recorder::new(Mode::Up);
    let _relay = relay(&url, &recorder, 0, quick());
    let late = database::connect(&url).await;
    late.batch_execute(&format!("BEGIN; {}", insert("material", "early", 0)))
        .await
        .expect("begun");
    for number in 0..10 {
        db.batch_execute(&insert("material", "late", number))
            .await
            .expect("written");
    }
    recorder.until_confirmed(10).await;
    until_empty(&db).await;
    late.batch_execute("COMMIT").await.expect("committed");
    let records = recorder.until_confirmed(11).await;
    assert_eq!(records[10].key, "early");
    until_empty(&db).await;
}

#[tokio::test]
async fn writes_go_on_while_kafka_is_down_and_all_arrive_in_order_when_it_is_up() {
    let (url, api, db) = migrated("down").await;
    let recorder = Recorder::new(Mode::Down);
    let _relay = relay(&url, &recorder, 0, quick());
    for number in 0..50 {
        let records = vec![material(number, None, &format!("m{number:02}"))];
        assert_eq!(api.commit(&batch("g1", records)).await, (1, 0, 0));
    }
    recorder.until_called(5).await;
    assert_eq!(database::value(&db, "SELECT count(*) FROM outbox").await, "50");
    recorder.mode.send_replace(Mode::Up);
    let records = recorder.until_confirmed(50).await;
    let ids: Vec<u32> = records
        .iter()
        .map(|record| record.key.parse().expect("an id"))
        .collect();
    assert_eq!(ids, (1..=50).collect::<Vec<_>>());
    until_empty(&db).await;
    assert_eq!(recorder.confirmed.borrow().len(), 50);
}

#[tokio::test]
async fn writes_go_on_while_kafka_hangs_and_the_records_arrive_when_it_answers_again() {
    let (url, api, db) = migrated("hangs").await;
    let recorder = Recorder::new(Mode::Hanging);
    let impatient = OutboxConfig {
        publish_timeout_ms: 100,
        ..quick()
    };
    let _relay = relay(&url, &recorder, 0, impatient);
    api.commit(&batch("g1", vec![material(0, None, "zinc")])).await;
    recorder.until_called(1).await;
    api.commit(&batch("g1", vec![material(1, None, "tin")])).await;
    // Given up, and tried again.
    recorder.until_called(3).await;
    assert_eq!(database::value(&db, "SELECT count(*) FROM outbox").await, "2");
    recorder.mode.send_replace(Mode::Up);
    let records = recorder.until_confirmed(2).await;
    assert_eq!([&*records[0].key, &*records[1].key], ["1", "2"]);
    until_empty(&db).await;
}

#[tokio::test]
async fn a_record_that_kafka_refuses_for_good_is_kept_with_the_reason_and_holds_up_no_other() {
    let (url, _api, db) = migrated("poison").await;
    let recorder = Recorder::new(Mode::RefusesPoison);
    for key in ["a", "poison", "a", "b"] {
        db.batch_execute(&insert("material", key, 1))
            .await
            .expect("written");
    }
    let first = relay(&url, &recorder, 0, quick());
    recorder.until_confirmed(3).await;
    until_empty(&db).await;
    let marked = "SELECT aggregateid, refused_reason, refused_at IS NOT NULL FROM outbox";
    assert_eq!(database::rows(&db, marked).await, ["poison|message too large|t"]);
    // An operator has it tried again once the cause is gone.
    recorder.mode.send_replace(Mode::Up);
    db.batch_execute("UPDATE outbox SET refused_at = NULL, refused_reason = NULL; NOTIFY shopfloor_outbox")
        .await
        .expect("released");
    assert_eq!(recorder.until_confirmed(4).await[3].key, "poison");
    drop(first);
}

#[tokio::test]
async fn a_topic_that_fails_does_not_hold_up_the_others() {
    let (url, _api, db) = migrated("one_topic").await;
    let recorder = Recorder::new(Mode::OneTopicDown);
    // More failing records in front than one batch takes.
    let small = OutboxConfig {
        max_batch_records: 5,
        ..quick()
    };
    for number in 0..20 {
        db.batch_execute(&insert("sales", &number.to_string(), 0))
            .await
            .expect("written");
    }
    for number in 0..20 {
        db.batch_execute(&insert("machine", &number.to_string(), 0))
            .await
            .expect("written");
    }
    let _relay = relay(&url, &recorder, 0, small);
    let records = recorder.until_confirmed(20).await;
    assert!(records.iter().all(|record| record.topic == "machine"));
    recorder.mode.send_replace(Mode::Up);
    recorder.until_confirmed(40).await;
    until_empty(&db).await;
}

#[tokio::test]
async fn another_relay_takes_over_at_once_from_one_that_stops_and_after_the_lease_from_one_that_dies() {
    let (url, _api, db) = migrated("takeover").await;
    let recorder = Recorder::new(Mode::Up);
    let leased = OutboxConfig {
        lease_ms: 1_500,
        ..quick()
    };
    let mut first = relay(
        &url,
        &recorder,
        1,
        OutboxConfig {
            lease_ms: 600_000,
            ..quick()
        },
    );
    db.batch_execute(&insert("material", "a", 1))
        .await
        .expect("written");
    recorder.until_confirmed(1).await;
    let second = relay(&url, &recorder, 2, leased.clone());
    first.stop.cancel();
    (&mut first.task).await.expect("stopped");
    db.batch_execute(&insert("material", "a", 2))
        .await
        .expect("written");
    // Far below the first one's lease.
    recorder.until_confirmed(2).await;
    until_empty(&db).await;
    drop(second);
    let _third = relay(&url, &recorder, 3, leased);
    db.batch_execute(&insert("material", "a", 3))
        .await
        .expect("written");
    let records = recorder.until_confirmed(3).await;
    assert_eq!(records.iter().map(version).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_relay_keeps_its_lease_while_kafka_hangs() {
    let (url, _api, db) = migrated("lease").await;
    let recorder = Recorder::new(Mode::Hanging);
    let short = OutboxConfig {
        lease_ms: 3_000,
        ..quick()
    };
    let _first = relay(&url, &recorder, 0, short.clone());
    db.batch_execute(&insert("material", "a", 1))
        .await
        .expect("written");
    recorder.until_called(1).await;
    let _second = relay(&url, &recorder, 1, short);
    let renewed = async {
        let mut seen = HashSet::new();
        // More renewals than one lease lasts.
        while seen.len() < 5 {
            seen.insert(database::value(&db, "SELECT holder, expires_at FROM outbox_relay").await);
            tokio::task::yield_now().await;
        }
        seen
    };
    let seen = tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("the lease is renewed");
    let holders: HashSet<_> = seen.iter().map(|row| row.split('|').next()).collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(
        *recorder.calls.borrow(),
        1,
        "the second relay published what the first had under way"
    );
}

#[tokio::test]
async fn the_relay_goes_on_after_postgres_was_killed() {
    let mut server = postgres::own();
    server.create_database("shopfloor").expect("a database");
    let url = server.url("shopfloor");
    let _api = start(gateway::config(&url)).await;
    let recorder = Recorder::new(Mode::Up);
    let _relay = relay(&url, &recorder, 0, quick());
    server
        .psql("shopfloor", &insert("material", "a", 1))
        .expect("written");
    recorder.until_confirmed(1).await;
    server.kill().expect("killed");
    server.restart().expect("restarted");
    server
        .psql("shopfloor", &insert("material", "a", 2))
        .expect("written");
    let mut confirmed = recorder.confirmed.subscribe();
    let arrived = confirmed.wait_for(|records| records.iter().any(|record| version(record) == 2));
    tokio::time::timeout(PATIENCE, arrived)
        .await
        .expect("published")
        .expect("the sender lives");
}

#[tokio::test]
async fn the_table_refuses_what_would_kill_the_client() {
    let (_url, _api, db) = migrated("refuses").await;
    for value in ["null", "[]", "\"text\"", "not json", ""] {
        let sql = format!(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             VALUES (gen_random_uuid(), 'material', '1', 'written', '{value}')"
        );
        assert!(db.batch_execute(&sql).await.is_err(), "{value}");
    }
}
