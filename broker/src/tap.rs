//! The seam between the MQTT front and whatever makes messages durable.
//!
//! The front hands every batch of publishes that it decoded to a [`Tap`] and acknowledges a device only when
//! the batch's [`Receipt`] resolves. Neither side knows more of the other than stands in this file.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::topic_pattern::Who;

/// One application message as a device published it. The slices share the connection's read buffer.
#[derive(Debug, Clone)]
pub struct Published {
    /// Topic name: valid UTF-8, not empty, no wildcards, aliases already resolved.
    pub topic: Topic,
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// MQTT 5 properties that matter past the front; `None` where none was sent.
    pub properties: Option<Box<Properties>>,
    pub publisher: Arc<Publisher>,
    /// Reception time, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// The QoS 2 exchange that it opens; `None` below QoS 2, and for a session that no restart brings back.
    pub exchange: Option<Exchange>,
}

impl Published {
    /// Topic, payload and properties.
    pub fn bytes(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, Properties::bytes);
        self.topic.as_bytes().len() + self.payload.len() + properties
    }

    /// What it counts in a batch: a store keeps more of the smallest message than its own bytes.
    pub fn batch_bytes(&self) -> usize {
        self.bytes() + STORED_BESIDE_BYTES
    }
}

/// Part of the room that a batch has is taken by a message whatever its size.
const STORED_BESIDE_BYTES: usize = 256;

/// A QoS 2 exchange: from the moment that its message is stored until it is released, a PUBLISH with this identifier,
/// this content and the DUP flag is the same message; any other is a new one, which takes the identifier over. The session is part of it, so whatever an ended session left open concerns
/// nobody: a session's number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exchange {
    pub session: u64,
    pub packet_id: u16,
    /// CRC32C of the topic, a zero byte and the payload, as they came.
    pub content: u32,
}

/// What a device sent in one go.
#[derive(Debug, Default)]
pub struct Batch {
    /// Exchanges that the client has released; stored before the messages.
    pub released: Vec<Exchange>,
    pub messages: Vec<Published>,
}

impl From<Vec<Published>> for Batch {
    fn from(messages: Vec<Published>) -> Self {
        Self {
            released: Vec::new(),
            messages,
        }
    }
}

/// The session that published; one allocation a connection, shared by its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    pub client_id: String,
    /// The authenticated user, if any.
    pub user: Option<String>,
    /// The device's own address (from the PROXY header where there is one).
    pub address: IpAddr,
    /// True for MQTT 5.
    pub v5: bool,
}

impl Publisher {
    pub(crate) fn who(&self) -> Who<'_> {
        Who {
            user: self.user.as_deref(),
            client_id: &self.client_id,
        }
    }
}

/// MQTT 5 publish properties carried past the front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    pub content_type: Option<String>,
    /// `Some(false)` says that the format is unspecified; it is passed on like everything that was said.
    pub payload_format_utf8: Option<bool>,
    pub message_expiry_s: Option<u32>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    /// In the order in which they were sent; `traceparent` is among them.
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// What they occupy, about: a publisher decides how long they are, as with the payload.
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let user = self
            .user
            .iter()
            .map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
        size_of::<Self>()
            + text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + user.sum::<usize>()
    }
}

/// A topic name known to be valid UTF-8, kept as a slice.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Topic(Bytes);

impl Topic {
    /// Takes a slice of the read buffer; `None` where it is not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// Takes a slice that the codec has already found to be UTF-8; a wrong one reads as an empty topic.
    pub(crate) fn from_checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_str(&self) -> &str {
        // Checked once in `from_utf8`; the default is unreachable and harmless.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl From<&str> for Topic {
    fn from(name: &str) -> Self {
        Self(Bytes::copy_from_slice(name.as_bytes()))
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// What became of one message, in the order of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Durable on its way to the sinks.
    Stored,
    /// No route takes this topic: the message concerns MQTT subscribers only and was not stored.
    Unrouted,
    /// Durable, but in the dead letters: the payload breaks the contract of its route. An MQTT 5 publisher
    /// is told with reason code 0x99 and this text.
    DeadLettered { reason: Arc<str> },
}

/// Resolves when every message of the batch, and every release, is on disk.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Vec<Verdict>>);

/// The storing side of a [`Receipt`]. Dropped without an answer, the receipt resolves to [`NotStored`].
#[derive(Debug)]
pub struct ReceiptSender(oneshot::Sender<Vec<Verdict>>);

/// A receipt and the end that resolves it.
pub fn receipt() -> (ReceiptSender, Receipt) {
    let (sender, receiver) = oneshot::channel();
    (ReceiptSender(sender), Receipt(receiver))
}

impl ReceiptSender {
    /// Call only when the batch is durable. One verdict a message, in order. A publisher that has gone is no error.
    pub fn resolve(self, verdicts: Vec<Verdict>) {
        let _gone = self.0.send(verdicts);
    }
}

impl Future for Receipt {
    type Output = Result<Vec<Verdict>, NotStored>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(|_| NotStored)
    }
}

/// The batch could not be made durable: nothing of it may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message store stopped before the messages were durable")]
pub struct NotStored;

/// Why a batch was not taken. Nothing of it is stored and the caller keeps it.
#[derive(Debug)]
pub enum Refused {
    /// No room now: wait for [`Tap::room`] and offer the same batch again.
    Busy(Batch),
    /// The store has stopped for good.
    Closed(Batch),
}

/// Where accepted publishes go. Batches of one caller are stored in the order in which they were offered.
pub trait Tap: Send + Sync + 'static {
    /// Takes a batch without waiting. At most [`Tap::max_batch_bytes`] at a time.
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused>;

    /// Resolves when an offer is worth another try. A hint, not a reservation.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The largest batch, in [`Published::batch_bytes`]; a single larger message is still taken alone.
    fn max_batch_bytes(&self) -> usize {
        256 * 1024
    }

    /// The exchanges that were open when the process before this one ended, by session. Asked once, at the start.
    fn open_exchanges(&self) -> HashMap<u64, Vec<Exchange>> {
        HashMap::new()
    }

    /// The session is over: its exchanges need not be kept any more.
    fn forget_session(&self, _session: u64) {}
}
