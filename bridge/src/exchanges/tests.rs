//! Exchanges over restarts, on a real spool.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use shopfloor_broker::tap::{Batch, Published, Publisher, Tap, Topic, Verdict};

use super::*;
use crate::routes::RouteTable;
use crate::routes::rule::default_routes;
use crate::spool::SpoolConfig;
use crate::tap::Ingest;

const SESSION: u64 = 7;

/// One life of a gateway; dropping it is its crash: nothing is saved on the way out.
struct Life {
    spool: Spool,
    exchanges: Arc<Exchanges>,
    tap: Ingest,
    runtime: tokio::runtime::Runtime,
}

impl Life {
    fn start(dir: &Path) -> Self {
        let config = SpoolConfig {
            segment_max_bytes: 8 * 1024 * 1024,
            min_free_disk_bytes: 0,
            ..SpoolConfig::default()
        };
        let spool = loop {
            match Spool::open(&dir.join("spool"), "gw", config.clone()) {
                Ok(spool) => break spool,
                // The life before this one lets go of the lock on its own thread.
                Err(crate::spool::SpoolError::Locked { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        // A sink that confirms nothing: every record stays.
        spool.cursor("sink").unwrap();
        let exchanges = Arc::new(Exchanges::recover(dir, &spool).unwrap());
        let routes = RouteTable::compile(&default_routes()).unwrap();
        let max = SpoolConfig::default().commit_max_bytes;
        let tap = Ingest::new(routes, spool.clone(), exchanges.clone(), true, max);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self {
            spool,
            exchanges,
            tap,
            runtime,
        }
    }

    fn offer(&self, batch: Batch) -> Vec<Verdict> {
        let receipt = self.tap.offer(batch).unwrap();
        self.runtime.block_on(receipt).unwrap()
    }

    fn publish(&self, session: u64, packet_id: u16, number: usize) {
        let verdicts = self.offer(vec![message(session, packet_id, &unit(number), false)].into());
        assert_eq!(verdicts, [Verdict::Stored]);
    }

    fn release(&self, session: u64, packet_id: u16) {
        self.offer(Batch {
            released: vec![exchange(session, packet_id, "")],
            messages: Vec::new(),
        });
    }

    fn open(&self) -> BTreeMap<u64, Vec<u16>> {
        let ids = |exchanges: Vec<Exchange>| exchanges.into_iter().map(|open| open.packet_id).collect();
        let open = self.exchanges.by_session().into_iter();
        open.map(|(session, exchanges)| (session, ids(exchanges)))
            .collect()
    }

    /// What the front knows of one session at its start.
    fn contents(&self, session: u64) -> BTreeMap<u16, u32> {
        let open = self.exchanges.by_session().remove(&session).unwrap_or_default();
        open.iter().map(|open| (open.packet_id, open.content)).collect()
    }

    /// How often each unit is in the spool.
    fn stored(&self) -> BTreeMap<String, usize> {
        let mut stored = BTreeMap::new();
        let next = self.spool.status().next_sequence;
        let mut reader = self.spool.reader_at(1);
        while reader.position() < next {
            for record in self.runtime.block_on(reader.next(1000, 1 << 20)).unwrap() {
                if Envelope::decode(&record.meta).unwrap().destination != Destination::Release {
                    let text = String::from_utf8(record.payload.to_vec()).unwrap();
                    *stored.entry(text).or_default() += 1;
                }
            }
        }
        stored
    }
}

fn unit(number: usize) -> String {
    format!(
        r#"{{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":{number},"var5":false,"machineId":7,"partId":4}}"#
    )
}

fn message(session: u64, packet_id: u16, payload: &str, v5: bool) -> Published {
    Published {
        topic: Topic::from("supply-chain"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: 2,
        retain: false,
        properties: None,
        publisher: Arc::new(Publisher {
            client_id: "press".into(),
            user: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            v5,
        }),
        received_ms: 1_702_166_400_999,
        exchange: Some(exchange(session, packet_id, payload)),
    }
}

fn exchange(session: u64, packet_id: u16, payload: &str) -> Exchange {
    Exchange {
        session,
        packet_id,
        content: crc32c::crc32c(payload.as_bytes()),
    }
}

#[test]
fn an_exchange_is_open_after_a_crash_until_its_release_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path());
    life.publish(1, 5, 0);
    life.publish(1, 6, 1);
    life.publish(2, 5, 2);
    drop(life);
    let life = Life::start(dir.path());
    assert_eq!(life.open(), BTreeMap::from([(1, vec![5, 6]), (2, vec![5])]));
    life.release(1, 5);
    life.release(2, 5);
    drop(life);
    let life = Life::start(dir.path());
    assert_eq!(life.open(), BTreeMap::from([(1, vec![6])]));
}

#[test]
fn a_new_message_takes_the_identifier_of_an_open_one_over_and_one_release_ends_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Life::start(dir.path());
    life.publish(1, 5, 0);
    life.exchanges.save().unwrap();
    life.publish(1, 5, 1);
    let new = BTreeMap::from([(5, exchange(1, 5, &unit(1)).content)]);
    for checkpoint in [false, true] {
        if checkpoint {
            life.exchanges.save().unwrap();
        }
        drop(life);
        life = Life::start(dir.path());
        assert_eq!(life.contents(1), new);
    }
    life.release(1, 5);
    drop(life);
    assert_eq!(Life::start(dir.path()).open(), BTreeMap::new());
}

#[test]
fn an_open_exchange_keeps_no_segment_and_is_known_from_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path());
    life.publish(1, 5, 0);
    life.exchanges.save().unwrap();
    let next = life.spool.status().next_sequence;
    assert_eq!(life.exchanges.cursor.position(), next);
    drop(life);
    let life = Life::start(dir.path());
    assert_eq!(life.open(), BTreeMap::from([(1, vec![5])]));
    life.exchanges.forget_session(1);
    life.exchanges.save().unwrap();
    drop(life);
    assert_eq!(Life::start(dir.path()).open(), BTreeMap::new());
}

#[test]
fn a_damaged_checkpoint_lets_clients_repeat_and_swallows_nothing() {
    for damage in [
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[20] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        |path: &Path| fs::write(path, b"").unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(dir.path());
        life.publish(1, 5, 0);
        life.exchanges.save().unwrap();
        life.publish(1, 6, 1);
        drop(life);
        damage(&dir.path().join(EXCHANGES));
        let life = Life::start(dir.path());
        assert!(life.open().get(&1).is_none_or(|open| !open.contains(&5)));
    }
}

#[test]
fn a_dead_letter_that_refuses_an_mqtt5_publisher_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path());
    life.offer(vec![message(1, 5, "no unit", true)].into());
    life.offer(vec![message(2, 5, "no unit", false)].into());
    assert_eq!(life.open(), BTreeMap::from([(2, vec![5])]));
}

/// What happens to the packet that the client sends next.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    /// Handled, but the answer never reaches the client, which sends the packet again.
    AnswerLost,
    /// As `AnswerLost`, and the gateway dies.
    Crash,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Send(usize, Fate),
    /// The client ends its exchange elsewhere, so this gateway's stays open; the bool is a first PUBLISH that is lost
    /// with its connection, so that only its resend, with DUP, comes here.
    Leave(usize, bool),
    Checkpoint,
}

/// A client's exchange: the message that it publishes, and whether PUBREC has come.
#[derive(Debug, Clone, Copy)]
struct Sending {
    number: usize,
    /// It was sent before.
    dup: bool,
    received: bool,
}

/// A client with `N` packet identifiers, each publishing one message after the other, and the front's part: it stores
/// what repeats nothing that is open, and answers the rest.
fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let mut life = Some(Life::start(dir.path()));
    let mut open: BTreeMap<u16, u32> = BTreeMap::new();
    let next_number = Cell::new(0);
    let mut sending: BTreeMap<usize, Sending> = BTreeMap::new();
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    let mut send = |slot: &mut Option<Life>,
                    open: &mut BTreeMap<u16, u32>,
                    sending: &mut BTreeMap<usize, Sending>,
                    id: usize,
                    fate: Fate| {
        let life = slot.as_ref().unwrap();
        let exchange = sending.entry(id).or_insert_with(|| {
            next_number.set(next_number.get() + 1);
            Sending {
                number: next_number.get(),
                dup: false,
                received: false,
            }
        });
        let packet_id = id as u16 + 1;
        if !exchange.received {
            let payload = unit(exchange.number);
            let content = self::exchange(SESSION, packet_id, &payload).content;
            if !exchange.dup || open.get(&packet_id) != Some(&content) {
                life.publish(SESSION, packet_id, exchange.number);
                open.insert(packet_id, content);
            }
            exchange.dup = true;
            arrived.insert(payload, 1);
        } else {
            life.release(SESSION, packet_id);
            open.remove(&packet_id);
        }
        match fate {
            Fate::Arrives if exchange.received => drop(sending.remove(&id)),
            Fate::Arrives => exchange.received = true,
            Fate::AnswerLost => {}
            Fate::Crash => {
                drop(slot.take());
                let life = slot.insert(Life::start(dir.path()));
                *open = life.contents(SESSION);
            }
        }
        sending.contains_key(&id)
    };
    for step in steps {
        match step {
            Step::Send(id, fate) => drop(send(&mut life, &mut open, &mut sending, *id, *fate)),
            Step::Leave(id, first_lost) => {
                sending.remove(id);
                if *first_lost {
                    next_number.set(next_number.get() + 1);
                    let next = Sending {
                        number: next_number.get(),
                        dup: true,
                        received: false,
                    };
                    sending.insert(*id, next);
                }
            }
            Step::Checkpoint => life.as_ref().unwrap().exchanges.save().unwrap(),
        }
    }
    for id in 0..IDS {
        while send(&mut life, &mut open, &mut sending, id, Fate::Arrives) {}
    }
    let life = life.unwrap();
    assert_eq!(life.stored(), arrived);
    assert_eq!(life.open(), BTreeMap::new());
}

const IDS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Arrives),
        3 => Just(Fate::AnswerLost),
        1 => Just(Fate::Crash)
    ];
    prop_oneof![
        8 => (0..IDS, fate).prop_map(|(id, fate)| Step::Send(id, fate)),
        1 => (0..IDS, any::<bool>()).prop_map(|(id, first_lost)| Step::Leave(id, first_lost)),
        1 => Just(Step::Checkpoint)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_message_is_in_the_spool_exactly_once_whatever_is_lost_or_crashes(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(&steps);
    }

    #[test]
    fn a_checkpoint_survives_its_encoding_and_no_bytes_panic(
        sessions in prop::collection::hash_map(any::<u64>(), prop::collection::btree_map(any::<u16>(), any::<u32>(), 1..20), 0..8),
        sequence in any::<u64>(),
        at in any::<prop::sample::Index>(),
    ) {
        let open = Open { by_session: sessions, changed: false };
        let mut bytes = encode(&open, sequence);
        prop_assert_eq!(decode(&bytes), Some((open, sequence)));
        let at = at.index(bytes.len());
        bytes[at] ^= 0x10;
        prop_assert_eq!(decode(&bytes), None);
        bytes.truncate(at);
        prop_assert_eq!(decode(&bytes), None);
    }
}
