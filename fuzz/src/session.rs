//! Three clients of one front, whatever they send and in whatever order.
//!
//! The bytes are a script: most steps send a packet that is whole, so that sessions are reached, some send anything.
//! Whatever happens, no QoS 1 message is acknowledged that the store does not have, and a further client is served.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use shopfloor_broker::Front;
use shopfloor_broker::config::{AuthConfig, BrokerConfig, FanoutConfig};
use shopfloor_broker::tap::{Batch, Published, Receipt, ReceiptSender, Refused, Tap, Verdict, receipt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

const MAX_STEPS: usize = 200;
/// The front's tasks are done with what was sent after fewer turns.
const TURNS: usize = 20;
const TOPICS: [&str; 4] = ["a", "a/b", "factory/f/1/material", "\u{fc}/x"];
const FILTERS: [&str; 8] = [
    "a",
    "a/#",
    "+/b",
    "#",
    "$share/g/a",
    "$share/g/#",
    "$SYS/#",
    "\u{fc}/+",
];

pub fn run(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(Script { bytes: data }));
}

async fn play(mut script: Script<'_>) {
    let store = Arc::new(Store::default());
    let stop = CancellationToken::new();
    let config = BrokerConfig {
        auth: AuthConfig {
            allow_anonymous: true,
            ..AuthConfig::default()
        },
        // Its threads would outlive this run; it has tests of its own.
        fanout: FanoutConfig {
            max_filters: 0,
            ..FanoutConfig::default()
        },
        ..BrokerConfig::default()
    };
    let front = Front::new(config, Arc::clone(&store) as Arc<dyn Tap>, stop.clone());
    let mut clients = [const { None }; 3];
    let mut acknowledged = 0;
    for _ in 0..MAX_STEPS {
        let Some(step) = script.next() else { break };
        let at = usize::from(step & 3) % 3;
        take_step(&front, &store, &mut clients[at], at, step >> 2, &mut script).await;
        for client in &mut clients {
            acknowledged += settle(client).await;
        }
        assert!(
            acknowledged <= store.durable_qos_1(),
            "a message was acknowledged that is not stored"
        );
    }
    store.set_mode(Mode::AtOnce);
    still_serves(&front).await;
    stop.cancel();
}

async fn take_step(
    front: &Front,
    store: &Store,
    client: &mut Option<Client>,
    at: usize,
    step: u8,
    script: &mut Script<'_>,
) {
    if step.is_multiple_of(16) || client.is_none() {
        *client = Some(Client::open(front, at, script.byte()).await);
        return;
    }
    let Some(open) = client else { return };
    match step % 16 {
        1 | 2 => open.subscribe(script.byte(), script.byte()).await,
        3 => open.unsubscribe(script.byte()).await,
        4..=7 => open.publish(script.byte(), script.byte()).await,
        8 | 9 => open.acknowledge(script.byte()).await,
        10 => open.send(&[0xC0, 0]).await,
        11 => open.send(&script.take()).await,
        12 => open.disconnect(script.byte()).await,
        13 => *client = None,
        14 => store.set_mode(match script.byte() % 3 {
            0 => Mode::AtOnce,
            1 => Mode::Hold,
            _ => Mode::Busy,
        }),
        _ => tokio::time::advance(std::time::Duration::from_secs(script.byte().into())).await,
    }
}

/// A stranger connects, publishes and is acknowledged.
async fn still_serves(front: &Front) {
    let mut client = Client::open(front, 9, 1).await;
    client.send(b"\x32\x06\0\x01t\0\x01x").await;
    let mut got = Vec::new();
    let answered = async {
        while !got.windows(4).any(|packet| packet == b"\x40\x02\0\x01") {
            assert!(
                client.stream.read_buf(&mut got).await.unwrap() > 0,
                "the front closed: {got:02x?}"
            );
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), answered)
        .await
        .expect("the front serves no further client");
}

/// Lets the front work, and reads what it sent: the number of messages that it acknowledged.
async fn settle(client: &mut Option<Client>) -> usize {
    let mut acknowledged = 0;
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
        if let Some(open) = client {
            acknowledged += open.read().await;
        }
    }
    acknowledged
}

struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// As many bytes as the next one says.
    fn take(&mut self) -> Vec<u8> {
        let count = usize::from(self.byte()).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        taken.to_vec()
    }
}

struct Client {
    stream: DuplexStream,
    v5: bool,
    received: Vec<u8>,
}

impl Client {
    /// `choice`: version, clean start, will.
    async fn open(front: &Front, number: usize, choice: u8) -> Self {
        let (stream, served) = tokio::io::duplex(1024 * 1024);
        let (front, peer) = (front.clone(), SocketAddr::from(([127, 0, 0, 1], 1000)));
        tokio::spawn(async move { front.serve_stream(served, peer).await });
        let v5 = choice & 2 != 0;
        let mut client = Self {
            stream,
            v5,
            received: Vec::new(),
        };
        let will = choice & 4 != 0;
        let flags = (choice & 1) << 1 | if will { 0x0C } else { 0 };
        let mut body = b"\0\x04MQTT".to_vec();
        body.extend([if v5 { 5 } else { 4 }, flags, 0, choice >> 3]);
        // Session expiry, receive maximum 2, topic alias maximum 1.
        body.extend(client.properties(&[17, 0, 0, 0, choice >> 4, 33, 0, 2, 34, 0, 1]));
        body.extend([0, 1, b'0' + number as u8]);
        if will {
            body.extend(client.properties(&[24, 0, 0, 0, choice >> 5]));
            body.extend(b"\0\x01a\0\x04gone");
        }
        client.packet(0x10, &body).await;
        client
    }

    fn properties(&self, listed: &[u8]) -> Vec<u8> {
        if self.v5 {
            [&[listed.len() as u8], listed].concat()
        } else {
            Vec::new()
        }
    }

    async fn subscribe(&mut self, choice: u8, options: u8) {
        let filter = FILTERS[usize::from(choice) % FILTERS.len()];
        let mut body = vec![0, 1];
        body.extend(self.properties(if choice & 0x80 == 0 { &[] } else { &[11, 7] }));
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        body.push(if self.v5 { options & 0x2F } else { options & 3 });
        self.packet(0x82, &body).await;
    }

    async fn unsubscribe(&mut self, choice: u8) {
        let filter = FILTERS[usize::from(choice) % FILTERS.len()];
        let mut body = vec![0, 1];
        body.extend(self.properties(&[]));
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        self.packet(0xA2, &body).await;
    }

    /// `choice`: QoS, RETAIN and DUP as in the header; the rest is topic, identifier and payload.
    async fn publish(&mut self, choice: u8, more: u8) {
        let (qos, topic) = ((choice >> 1 & 3) % 3, TOPICS[usize::from(more) % TOPICS.len()]);
        let dup = if qos > 0 { choice & 8 } else { 0 };
        let mut body = vec![0, topic.len() as u8];
        body.extend(topic.as_bytes());
        if qos > 0 {
            body.extend([0, 1 + (more >> 2 & 3)]);
        }
        body.extend(self.properties(if more & 0x80 == 0 { &[] } else { &[35, 0, 1] }));
        body.extend(std::iter::repeat_n(more, usize::from(more >> 4)));
        self.packet(0x30 | dup | qos << 1 | choice & 1, &body).await;
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP of one of the first identifiers.
    async fn acknowledge(&mut self, choice: u8) {
        let first = [0x40, 0x50, 0x62, 0x70][usize::from(choice & 3)];
        self.packet(first, &[0, 1 + (choice >> 2 & 3)]).await;
    }

    async fn disconnect(&mut self, choice: u8) {
        let body: &[u8] = if self.v5 && choice & 1 == 1 { &[4] } else { &[] };
        self.packet(0xE0, body).await;
    }

    async fn packet(&mut self, first: u8, body: &[u8]) {
        assert!(body.len() < 128, "one byte says the length");
        self.send(&[&[first, body.len() as u8], body].concat()).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        // Larger than all that a script can send: never full. A front that has closed is no error.
        let _closed = self.stream.write_all(bytes).await;
    }

    /// Reads what is there: the number of PUBACKs that say success.
    async fn read(&mut self) -> usize {
        let mut chunk = [0; 4096];
        let now = std::time::Duration::ZERO;
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(now, self.stream.read(&mut chunk)).await {
            self.received.extend(&chunk[..count]);
        }
        let mut acknowledged = 0;
        while let Some(packet) = self.next_packet() {
            let success = packet.get(4).is_none_or(|reason| *reason < 0x80);
            acknowledged += usize::from(packet[0] == 0x40 && success);
        }
        acknowledged
    }

    fn next_packet(&mut self) -> Option<Vec<u8>> {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = *self.received.get(at)?;
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte < 0x80 {
                break;
            }
            assert!(at < 5, "the front sent a length of five bytes");
        }
        (self.received.len() >= at + length).then(|| self.received.drain(..at + length).collect())
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mode {
    #[default]
    AtOnce,
    Hold,
    Busy,
}

/// Stores at once, later, or has no room.
#[derive(Debug, Default)]
struct Store {
    inner: Mutex<Inner>,
    room: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Inner {
    mode: Mode,
    held: Vec<(ReceiptSender, Vec<Published>)>,
    durable_qos_1: usize,
}

impl Inner {
    fn store(&mut self, sender: ReceiptSender, batch: &[Published]) {
        self.durable_qos_1 += batch.iter().filter(|message| message.qos == 1).count();
        sender.resolve(vec![Verdict::Stored; batch.len()]);
    }
}

impl Store {
    fn set_mode(&self, mode: Mode) {
        let mut inner = self.inner.lock().unwrap();
        inner.mode = mode;
        for (sender, batch) in std::mem::take(&mut inner.held) {
            inner.store(sender, &batch);
        }
        self.room.notify_waiters();
    }

    fn durable_qos_1(&self) -> usize {
        self.inner.lock().unwrap().durable_qos_1
    }
}

impl Tap for Store {
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused> {
        let mut inner = self.inner.lock().unwrap();
        if inner.mode == Mode::Busy {
            return Err(Refused::Busy(batch));
        }
        let (sender, receipt) = receipt();
        if inner.mode == Mode::Hold {
            inner.held.push((sender, batch.messages));
        } else {
            inner.store(sender, &batch.messages);
        }
        Ok(receipt)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut room = Box::pin(self.room.notified());
        room.as_mut().enable();
        let busy = self.inner.lock().unwrap().mode == Mode::Busy;
        Box::pin(async move {
            if busy {
                room.await;
            }
        })
    }
}
