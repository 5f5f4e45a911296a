//! The store over restarts, and on a disk that fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::tables::Meta;
use super::*;
use crate::codec::SubscribeOptions;
use crate::config::RetainedConfig;
use crate::message::{Delivery, Message};
use crate::quota::Quota;
use crate::retained::Retained;
use crate::session_parts::{Inflight, PendingWill, Stage, Subscribed};
use crate::tap::{Properties, Published, Publisher, Topic};

const PATIENCE: Duration = Duration::from_secs(30);

fn session(key: u64, client_id: &str) -> Change {
    Change::Session(Box::new(KeptSession {
        key,
        client_id: client_id.to_owned(),
        expiry_s: 60,
        left_ms: None,
        will: None,
    }))
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: Topic::from(topic),
        payload: Bytes::copy_from_slice(payload),
        qos: 1,
        retain: true,
        properties: None,
        publisher: 0,
        expires_ms: None,
    }
}

fn queued(session: u64, position: u64, payload: &[u8]) -> Change {
    let delivery = Delivery {
        message: Arc::new(message("t", payload)),
        qos: 2,
        retain: false,
        subscription_ids: vec![7],
        initial: false,
        position,
        share: None,
    };
    Change::Queue { session, delivery }
}

fn open(dir: &Path) -> (Persistence, Restored) {
    Persistence::open(dir, &PersistenceConfig::default()).unwrap()
}

async fn durable(persistence: &Persistence, changes: impl IntoIterator<Item = Change>) {
    let ticket = changes
        .into_iter()
        .map(|change| persistence.submit(change))
        .max()
        .unwrap();
    tokio::time::timeout(PATIENCE, persistence.wait(ticket))
        .await
        .expect("in time")
        .expect("durable");
}

fn clients(restored: &Restored) -> Vec<&str> {
    let mut clients: Vec<_> = restored
        .sessions
        .iter()
        .map(|found| found.session.client_id.as_str())
        .collect();
    clients.sort_unstable();
    clients
}

#[tokio::test]
async fn a_start_finds_what_was_durable_and_nothing_of_an_ended_session() {
    let dir = tempfile::tempdir().unwrap();
    let (persistence, restored) = open(dir.path());
    assert!(restored.sessions.is_empty());
    let subscribe = |session| Change::Subscribe {
        session,
        filter: "a/#".to_owned(),
        subscribed: Subscribed {
            options: SubscribeOptions {
                qos: 2,
                no_local: true,
                ..SubscribeOptions::default()
            },
            id: Some(9),
        },
    };
    let sent = |position, packet_id| Change::Sent {
        session: 2,
        position,
        packet_id,
    };
    durable(
        &persistence,
        [
            session(1, "ended"),
            subscribe(1),
            queued(1, 1, b"x"),
            session(2, "kept"),
            subscribe(2),
            queued(2, 1, b"done"),
            queued(2, 2, b"received"),
            queued(2, 3, b"sent"),
            queued(2, 4, b"waits"),
            sent(1, 1),
            sent(2, 2),
            sent(3, 3),
            Change::Done {
                session: 2,
                position: 1,
                _share: None,
            },
            Change::Received {
                session: 2,
                position: 2,
                packet_id: 2,
                _share: None,
            },
            Change::End {
                session: 1,
                _share: Quota::new(0).share(),
            },
            Change::Retain(Arc::new(message("kept", b"1"))),
            Change::Retain(Arc::new(message("removed", b"1"))),
            Change::Retain(Arc::new(message("removed", b""))),
        ],
    )
    .await;
    drop(persistence);
    let (_persistence, restored) = open(dir.path());
    assert_eq!(clients(&restored), ["kept"]);
    let found = &restored.sessions[0];
    let inflight: Vec<_> = found.inflight.iter().collect();
    let subscribed = found.filters["a/#"];
    assert_eq!((subscribed.options.qos, subscribed.options.no_local), (2, true));
    assert_eq!(subscribed.id, Some(9));
    assert!(
        matches!(
            inflight.as_slice(),
            [
                Inflight { packet_id: 2, stage: Stage::Released, .. },
                Inflight { packet_id: 3, stage: Stage::Published(sent), .. }
            ] if sent.message.payload == "sent" && sent.subscription_ids == [7]
        ),
        "{inflight:?}"
    );
    assert_eq!(found.queue.len(), 1);
    assert_eq!(
        (found.queue[0].position, &found.queue[0].message.payload[..]),
        (4, &b"waits"[..])
    );
    let topics: Vec<_> = restored
        .retained
        .iter()
        .map(|message| message.topic.as_str())
        .collect();
    assert_eq!(topics, ["kept"]);
}

#[test]
fn two_processes_do_not_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Persistence::open(dir.path(), &PersistenceConfig::default());
    assert!(
        matches!(second, Err(PersistenceError::Locked { .. })),
        "{second:?}"
    );
}

#[test]
fn a_file_that_is_no_database_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sessions.redb"), [7; 10_000]).unwrap();
    let error = Persistence::open(dir.path(), &PersistenceConfig::default()).unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
}

/// A disk in memory that takes nothing while it is full.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = offset as usize;
        self.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn open_on(disk: &Disk) -> (Persistence, Restored) {
    let disk = disk.clone();
    let opener = move || Ok(redb::Database::builder().create_with_backend(disk.clone())?);
    let (database, restored, base_ms) = Database::open_with("memory".into(), Box::new(opener)).unwrap();
    (Persistence::start(database, base_ms).unwrap(), restored)
}

#[tokio::test]
async fn what_relies_on_a_full_disk_waits_and_goes_on_by_itself() {
    let disk = Disk::default();
    let (persistence, _) = open_on(&disk);
    durable(&persistence, [session(1, "before")]).await;
    disk.full.store(true, Ordering::SeqCst);
    let ticket = persistence.submit(session(2, "meanwhile"));
    let trouble = async {
        while persistence.trouble().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, trouble)
        .await
        .expect("the trouble is told");
    let mut wait = std::pin::pin!(persistence.wait(ticket));
    assert!(
        futures_util::poll!(&mut wait).is_pending(),
        "it was said to be durable"
    );
    disk.full.store(false, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("in time")
        .expect("durable");
    assert_eq!(persistence.trouble(), None);
    drop(persistence);
    let (_persistence, restored) = open_on(&disk);
    assert_eq!(clients(&restored), ["before", "meanwhile"]);
}

#[tokio::test]
async fn a_message_that_waits_for_a_full_disk_has_its_room_although_its_client_has_acknowledged_it() {
    let disk = Disk::default();
    let (persistence, _) = open_on(&disk);
    durable(&persistence, [session(1, "reader")]).await;
    disk.full.store(true, Ordering::SeqCst);
    let quota = Quota::new(100);
    let mut share = quota.share();
    assert!(share.grow(100));
    persistence.submit(queued(1, 1, b"x"));
    let ticket = persistence.submit(Change::Done {
        session: 1,
        position: 1,
        _share: Some(share),
    });
    assert!(!quota.share().grow(1));
    disk.full.store(false, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, persistence.wait(ticket))
        .await
        .expect("in time")
        .expect("durable");
    assert!(quota.share().grow(100));
}

#[tokio::test]
async fn one_topic_does_not_fill_the_memory_with_retained_messages_while_the_disk_is_full() {
    let disk = Disk::default();
    let persistence = Arc::new(open_on(&disk).0);
    durable(&persistence, [session(1, "before")]).await;
    disk.full.store(true, Ordering::SeqCst);
    let config = RetainedConfig {
        max_bytes: 10_000,
        ..RetainedConfig::default()
    };
    let retained = Retained::new(config, Some(Arc::clone(&persistence)));
    let set = |payload: &[u8]| retained.set(&Arc::new(message("t", payload)));
    let tickets: Vec<_> = (0..100).filter_map(|_| set(&[b'x'; 1_000])).collect();
    assert_eq!(tickets.len(), 10);
    let removed = set(b"").expect("what frees room is taken");
    disk.full.store(false, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, persistence.wait(removed))
        .await
        .expect("in time")
        .expect("durable");
    assert!(set(b"on").is_some());
}

#[tokio::test]
async fn a_stop_on_a_full_disk_ends_and_says_nothing_untrue() {
    let disk = Disk::default();
    let (persistence, _) = open_on(&disk);
    durable(&persistence, [session(1, "before")]).await;
    disk.full.store(true, Ordering::SeqCst);
    let wait = persistence.wait(persistence.submit(session(2, "lost")));
    tokio::time::timeout(PATIENCE, persistence.close())
        .await
        .expect("it ends");
    assert_eq!(wait.await, Err(NotDurable));
}

#[test]
fn the_age_counts_over_restarts_and_a_clock_that_goes_back_takes_nothing_from_it() {
    let meta = Meta {
        format: Some(1),
        age_ms: 5_000,
        wall_ms: 1_000_000,
    };
    assert_eq!(meta.age_ms(1_002_000), 7_000);
    assert_eq!(meta.age_ms(10), 5_000);
    assert_eq!(Meta::default().age_ms(1_000_000), 0);
}

fn properties() -> impl Strategy<Value = Option<Box<Properties>>> {
    let text = || proptest::option::of("\\PC{0,20}");
    let user = proptest::collection::vec(("\\PC{0,5}", "\\PC{0,5}"), 0..3);
    let all = (
        text(),
        any::<Option<bool>>(),
        any::<Option<u32>>(),
        text(),
        any::<Option<Vec<u8>>>(),
        user,
    );
    proptest::option::of(
        all.prop_map(|(content_type, utf8, expiry, response, correlation, user)| {
            Box::new(Properties {
                content_type,
                payload_format_utf8: utf8,
                message_expiry_s: expiry,
                response_topic: response,
                correlation_data: correlation.map(Bytes::from),
                user,
            })
        }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_will_and_a_message_survive_their_records(
        payload in any::<Vec<u8>>(),
        properties in properties(),
        qos in 0..=2_u8,
        (retain, v5) in any::<(bool, bool)>(),
        expires_ms in any::<Option<i64>>(),
        delay_s in any::<u32>(),
        user in proptest::option::of("\\PC{0,10}"),
    ) {
        use prost::Message as _;
        use super::records::{MessageRecord, SessionRecord};

        let kept = KeptSession {
            key: 5,
            client_id: "press".to_owned(),
            expiry_s: 9,
            left_ms: Some(11),
            will: Some(Arc::new(PendingWill {
                message: Published {
                    topic: Topic::from("will"),
                    payload: payload.clone().into(),
                    qos,
                    retain,
                    properties: properties.clone(),
                    publisher: Arc::new(Publisher {
                        client_id: "press".to_owned(),
                        user,
                        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                        v5,
                    }),
                    received_ms: 0,
                    exchange: None,
                },
                delay_s,
                share: None,
            })),
        };
        let bytes = SessionRecord::from(&kept).encode_to_vec();
        let read = SessionRecord::read(&bytes).unwrap().into_session(5);
        prop_assert_eq!(format!("{read:?}"), format!("{kept:?}"));

        let message = Message { qos, retain, properties, expires_ms, ..message("t", &payload) };
        let bytes = MessageRecord::from(&message).encode_to_vec();
        let read = MessageRecord::read(&bytes).unwrap().into_message().unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
}
