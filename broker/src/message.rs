//! A published message on its way to subscribers, and one subscriber's copy of it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};

use crate::quota::Share;
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

    /// Topic, payload and properties.
    pub(crate) fn bytes(&self) -> usize {
        let properties = self.properties.as_deref().map_or(0, Properties::bytes);
        self.topic.as_bytes().len() + self.payload.len() + properties
    }
}

/// The message's expiry interval has passed.
#[derive(Debug)]
pub(crate) struct Expired;

/// One subscriber's copy.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's and the subscription's.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    /// It was retained when its subscription was made.
    pub(crate) initial: bool,
    /// Its place among all that its session was ever given, where a restart is to find it; else 0.
    pub(crate) position: u64,
    /// Of what all sessions may hold, from the mailbox to its acknowledgement.
    pub(crate) share: Option<Share>,
}

impl Delivery {
    /// What the copy costs its session, the message's row in the database included; about.
    pub(crate) fn bytes(&self) -> usize {
        128 + self.message.bytes() + size_of_val(self.subscription_ids.as_slice())
    }

    /// For the database, whose row the share of this one stands for.
    pub(crate) fn to_keep(&self) -> Self {
        Self {
            message: Arc::clone(&self.message),
            qos: self.qos,
            retain: self.retain,
            subscription_ids: self.subscription_ids.clone(),
            initial: self.initial,
            position: self.position,
            share: None,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::tap::Publisher;

    #[test]
    fn a_copy_keeps_nothing_of_the_buffer_that_its_message_was_read_into() {
        let read = Bytes::from(vec![b'x'; 10 * 1024]);
        let published = Published {
            topic: Topic::from_checked(read.slice(0..5)),
            payload: read.slice(5..155),
            qos: 1,
            retain: false,
            properties: Some(Box::new(Properties {
                correlation_data: Some(read.slice(155..160)),
                ..Properties::default()
            })),
            publisher: Arc::new(Publisher {
                client_id: "press".to_owned(),
                user: None,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                v5: true,
            }),
            received_ms: 0,
            exchange: None,
        };
        let copy = Message::copy_of(&published, 1);
        drop(published);
        assert!(read.is_unique());
        assert_eq!((copy.topic.as_bytes().len(), copy.payload.len()), (5, 150));
    }
}
