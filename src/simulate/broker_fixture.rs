//! A small broker that breaks connections in mid-flow, and remembers exactly what it was sent and what it
//! acknowledged. Speaks 3.1.1 and 5 as far as the simulator does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How often it misbehaves, as one in so many publishes; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Closes without taking the message.
    pub(super) closes_before: u32,
    /// Takes the message, then closes without answering.
    pub(super) closes_after: u32,
    /// Takes and answers, then closes at once: the answer may or may not arrive.
    pub(super) closes_on_answer: u32,
    /// Keeps the answers back and sends the next two in reverse.
    pub(super) swaps_answers: u32,
    /// Forgets the client's session when it closes.
    pub(super) forgets_sessions: bool,
    /// Answers payloads that the contract forbids with 0x99 (MQTT 5).
    pub(super) refuses_invalid: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) client: String,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) dup: bool,
    pub(super) content_type: bool,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Messages that it took, in order; a QoS 2 repetition in a session is not taken again.
    pub(super) taken: Vec<Published>,
    /// Those that it began to acknowledge for good (PUBACK, PUBREC).
    pub(super) answered: Vec<Published>,
    pub(super) connections: usize,
    sessions: HashMap<String, HashSet<u16>>,
}

pub(super) struct Broker {
    pub(super) port: u16,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    pub(super) async fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let connection = Connection {
                    stream,
                    seen: Arc::clone(&shared),
                    faults,
                    rng: StdRng::seed_from_u64(number),
                    client: String::new(),
                    is_v5: false,
                    held: Vec::new(),
                };
                connections.spawn(connection.serve());
            }
        });
        Self { port, seen, task }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

struct Connection {
    stream: TcpStream,
    seen: Arc<Mutex<Seen>>,
    faults: Faults,
    rng: StdRng,
    client: String,
    is_v5: bool,
    /// Answers kept back.
    held: Vec<Vec<u8>>,
}

struct Closed;

impl From<std::io::Error> for Closed {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Connection {
    async fn serve(mut self) {
        while self.packet().await.is_ok() {}
        if self.faults.forgets_sessions {
            self.seen.lock().unwrap().sessions.remove(&self.client);
        }
    }

    fn happens(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.rng.random_ratio(1, one_in)
    }

    async fn packet(&mut self) -> Result<(), Closed> {
        let first = self.stream.read_u8().await?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        match first >> 4 {
            1 => self.connect(&body).await,
            3 => self.publish(first, &body).await,
            6 => self.release(&body).await,
            12 => Ok(self.stream.write_all(&[0xd0, 0]).await?),
            14 => Err(Closed),
            other => panic!("the simulator sent packet type {other}"),
        }
    }

    async fn connect(&mut self, body: &[u8]) -> Result<(), Closed> {
        assert_eq!(&body[..6], b"\0\x04MQTT");
        (self.is_v5, self.held) = (body[6] == 5, Vec::new());
        let clean = body[7] & 2 != 0;
        let properties = if self.is_v5 { usize::from(body[10]) + 1 } else { 0 };
        self.client = text(&body[10 + properties..]).0;
        let present = {
            let mut seen = self.seen.lock().unwrap();
            seen.connections += 1;
            if clean {
                seen.sessions.remove(&self.client);
            }
            let present = seen.sessions.contains_key(&self.client);
            seen.sessions.entry(self.client.clone()).or_default();
            present
        };
        let answer: &[u8] = if self.is_v5 {
            &[0x20, 3, u8::from(present), 0, 0]
        } else {
            &[0x20, 2, u8::from(present), 0]
        };
        Ok(self.stream.write_all(answer).await?)
    }

    async fn publish(&mut self, first: u8, body: &[u8]) -> Result<(), Closed> {
        let qos = (first >> 1) & 3;
        let (topic, mut rest) = text(body);
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut content_type = false;
        if self.is_v5 {
            let properties = usize::from(rest[0]);
            content_type = rest.get(1) == Some(&3) && properties > 0;
            rest = &rest[1 + properties..];
        }
        if self.happens(self.faults.closes_before) {
            return Err(Closed);
        }
        let (client, payload) = (self.client.clone(), rest.to_vec());
        let published = Published {
            client,
            topic,
            payload,
            dup: first & 8 != 0,
            content_type,
        };
        let refused = self.faults.refuses_invalid && self.is_v5 && !is_valid(&published);
        self.take(&published, qos, id, refused);
        if self.happens(self.faults.closes_after) {
            return Err(Closed);
        }
        if qos > 0 {
            self.seen.lock().unwrap().answered.push(published);
            let kind = if qos == 1 { 0x40 } else { 0x50 };
            let [high, low] = id.to_be_bytes();
            self.answer(if refused {
                vec![kind, 3, high, low, 0x99]
            } else {
                vec![kind, 2, high, low]
            })
            .await?;
            if self.happens(self.faults.closes_on_answer) {
                return Err(Closed);
            }
        }
        Ok(())
    }

    fn take(&self, published: &Published, qos: u8, id: u16, refused: bool) {
        let mut seen = self.seen.lock().unwrap();
        let is_new = match seen
            .sessions
            .get_mut(&self.client)
            .filter(|_| qos == 2 && !refused)
        {
            Some(received) => received.insert(id),
            None => true,
        };
        assert!(
            is_new || published.dup,
            "packet id {id} of {} used again before its PUBREL",
            self.client
        );
        if is_new {
            seen.taken.push(published.clone());
        }
    }

    async fn answer(&mut self, answer: Vec<u8>) -> Result<(), Closed> {
        if self.happens(self.faults.swaps_answers) && self.held.is_empty() {
            self.held.push(answer);
            return Ok(());
        }
        self.stream.write_all(&answer).await?;
        for held in std::mem::take(&mut self.held) {
            self.stream.write_all(&held).await?;
        }
        Ok(())
    }

    async fn release(&mut self, body: &[u8]) -> Result<(), Closed> {
        let id = u16::from_be_bytes([body[0], body[1]]);
        if let Some(received) = self.seen.lock().unwrap().sessions.get_mut(&self.client) {
            received.remove(&id);
        }
        let closes = self.happens(self.faults.closes_after);
        if closes {
            return Err(Closed);
        }
        Ok(self.stream.write_all(&[0x70, 2, body[0], body[1]]).await?)
    }
}

/// The broker's own idea of what it may refuse: enough to tell the generated faults apart.
fn is_valid(published: &Published) -> bool {
    super::contract::check_payload(published.content_type, &published.payload).is_ok()
}

fn text(bytes: &[u8]) -> (String, &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    (
        String::from_utf8(bytes[2..2 + length].to_vec()).unwrap(),
        &bytes[2 + length..],
    )
}
