//! A published message on its way to subscribers, and one subscriber's copy of it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::tap::{Properties, Published, Topic};

/// A message as subscribers get it. Topic and payload are one allocation of their own, so that a subscriber who
/// is slow pins no read buffer.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    /// As published.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Option<Box<Properties>>,
    /// Key of the publishing session, for subscriptions that want no messages of their own.
    pub(crate) publisher: u64,
    /// Milliseconds since the Unix epoch after which nobody gets it any more.
    pub(crate) expires_ms: Option<i64>,
}

impl Message {
    /// Copies topic and payload of `published`.
    pub(crate) fn copy_of(published: &Published, publisher: u64) -> Self {
        let topic = published.topic.as_bytes();
        let mut copy = BytesMut::with_capacity(topic.len() + published.payload.len());
        copy.put_slice(topic);
        copy.put_slice(&published.payload);
        let mut payload = copy.freeze();
        let topic = Topic::from_checked(payload.split_to(topic.len()));
        let mut properties = published.properties.clone();
        let correlation = properties
            .as_mut()
            .and_then(|properties| properties.correlation_data.as_mut());
        if let Some(data) = correlation {
            *data = Bytes::copy_from_slice(data);
        }
        let expiry_s = properties
            .as_ref()
            .and_then(|properties| properties.message_expiry_s);
        Self {
            topic,
            payload,
            qos: published.qos,
            retain: published.retain,
            properties,
            publisher,
            expires_ms: expiry_s.map(|seconds| published.received_ms + i64::from(seconds) * 1000),
        }
    }

    /// What is left of the expiry interval in seconds: `Ok(None)` where it has none, `Err` where it is over.
    pub(crate) fn expiry_left_s(&self, now_ms: i64) -> Result<Option<u32>, Expired> {
        let Some(expires_ms) = self.expires_ms else {
            return Ok(None);
        };
        let left_ms = expires_ms - now_ms;
        if left_ms <= 0 {
            return Err(Expired);
        }
        Ok(Some(u32::try_from((left_ms + 999) / 1000).unwrap_or(u32::MAX)))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.topic.as_bytes().len() + self.payload.len()
    }
}

/// The message's expiry interval has passed.
#[derive(Debug)]
pub(crate) struct Expired;

/// One subscriber's copy.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's and the subscription's.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    /// Its place among all that its session was ever given, where a restart is to find it; else 0.
    pub(crate) position: u64,
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
