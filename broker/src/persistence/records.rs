//! The values in the tables: protobuf, so that a later version can add fields.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::change::KeptSession;
use crate::codec::{RetainHandling, SubscribeOptions};
use crate::message::{Delivery, Message};
use crate::session_parts::{PendingWill, Subscribed};
use crate::tap::{Properties, Published, Publisher, Topic};

/// A value that is no record, as the database's own error.
fn damaged(error: &prost::DecodeError) -> redb::Error {
    redb::Error::Corrupted(format!("a value is no record: {error}"))
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SessionRecord {
    #[prost(string, tag = "1")]
    client_id: String,
    #[prost(uint32, tag = "2")]
    expiry_s: u32,
    #[prost(uint64, optional, tag = "3")]
    left_ms: Option<u64>,
    #[prost(message, optional, tag = "4")]
    will: Option<WillRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WillRecord {
    #[prost(message, optional, tag = "1")]
    message: Option<MessageRecord>,
    #[prost(uint32, tag = "2")]
    delay_s: u32,
    #[prost(string, tag = "3")]
    client_id: String,
    #[prost(string, optional, tag = "4")]
    user: Option<String>,
    #[prost(string, tag = "5")]
    address: String,
    #[prost(bool, tag = "6")]
    v5: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MessageRecord {
    #[prost(bytes = "bytes", tag = "1")]
    topic: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
    #[prost(uint32, tag = "3")]
    qos: u32,
    #[prost(bool, tag = "4")]
    retain: bool,
    #[prost(message, optional, tag = "5")]
    properties: Option<PropertiesRecord>,
    /// Milliseconds since the Unix epoch.
    #[prost(sint64, optional, tag = "6")]
    expires_ms: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeliveryRecord {
    #[prost(message, optional, tag = "1")]
    message: Option<MessageRecord>,
    #[prost(uint32, tag = "2")]
    qos: u32,
    #[prost(bool, tag = "3")]
    retain: bool,
    #[prost(uint32, repeated, tag = "4")]
    subscription_ids: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PropertiesRecord {
    #[prost(string, optional, tag = "1")]
    content_type: Option<String>,
    #[prost(bool, optional, tag = "2")]
    payload_format_utf8: Option<bool>,
    #[prost(uint32, optional, tag = "3")]
    message_expiry_s: Option<u32>,
    #[prost(string, optional, tag = "4")]
    response_topic: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    correlation_data: Option<Bytes>,
    #[prost(message, repeated, tag = "6")]
    user: Vec<UserProperty>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UserProperty {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SubscriptionRecord {
    #[prost(uint32, tag = "1")]
    qos: u32,
    #[prost(bool, tag = "2")]
    no_local: bool,
    #[prost(bool, tag = "3")]
    retain_as_published: bool,
    #[prost(uint32, tag = "4")]
    retain_handling: u32,
    #[prost(uint32, optional, tag = "5")]
    id: Option<u32>,
}

impl SessionRecord {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, redb::Error> {
        Self::decode(bytes).map_err(|error| damaged(&error))
    }

    pub(super) fn into_session(self, key: u64) -> KeptSession {
        KeptSession {
            key,
            client_id: self.client_id,
            expiry_s: self.expiry_s,
            left_ms: self.left_ms,
            will: self.will.and_then(WillRecord::into_will).map(Arc::new),
        }
    }
}

impl From<&KeptSession> for SessionRecord {
    fn from(session: &KeptSession) -> Self {
        Self {
            client_id: session.client_id.clone(),
            expiry_s: session.expiry_s,
            left_ms: session.left_ms,
            will: session.will.as_deref().map(WillRecord::from),
        }
    }
}

impl From<&PendingWill> for WillRecord {
    fn from(will: &PendingWill) -> Self {
        let publisher = &will.message.publisher;
        Self {
            message: Some(MessageRecord {
                topic: will.message.topic.as_bytes().clone(),
                payload: will.message.payload.clone(),
                qos: will.message.qos.into(),
                retain: will.message.retain,
                properties: will.message.properties.as_deref().map(PropertiesRecord::from),
                expires_ms: None,
            }),
            delay_s: will.delay_s,
            client_id: publisher.client_id.clone(),
            user: publisher.user.clone(),
            address: publisher.address.to_string(),
            v5: publisher.v5,
        }
    }
}

impl WillRecord {
    fn into_will(self) -> Option<PendingWill> {
        let message = self.message?;
        Some(PendingWill {
            message: Published {
                topic: Topic::from_utf8(message.topic)?,
                payload: message.payload,
                qos: qos(message.qos),
                retain: message.retain,
                properties: message.properties.map(|properties| Box::new(properties.into())),
                publisher: Arc::new(Publisher {
                    client_id: self.client_id,
                    user: self.user,
                    address: self.address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                    v5: self.v5,
                }),
                received_ms: 0,
                exchange: None,
            },
            delay_s: self.delay_s,
            share: None,
        })
    }
}

impl From<&Properties> for PropertiesRecord {
    fn from(properties: &Properties) -> Self {
        let user = |(name, value): &(String, String)| UserProperty {
            name: name.clone(),
            value: value.clone(),
        };
        Self {
            content_type: properties.content_type.clone(),
            payload_format_utf8: properties.payload_format_utf8,
            message_expiry_s: properties.message_expiry_s,
            response_topic: properties.response_topic.clone(),
            correlation_data: properties.correlation_data.clone(),
            user: properties.user.iter().map(user).collect(),
        }
    }
}

impl From<PropertiesRecord> for Properties {
    fn from(record: PropertiesRecord) -> Self {
        Self {
            content_type: record.content_type,
            payload_format_utf8: record.payload_format_utf8,
            message_expiry_s: record.message_expiry_s,
            response_topic: record.response_topic,
            correlation_data: record.correlation_data,
            user: record
                .user
                .into_iter()
                .map(|property| (property.name, property.value))
                .collect(),
        }
    }
}

impl MessageRecord {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, redb::Error> {
        Self::decode(bytes).map_err(|error| damaged(&error))
    }

    pub(super) fn into_message(self) -> Result<Message, redb::Error> {
        let topic = Topic::from_utf8(self.topic)
            .ok_or_else(|| redb::Error::Corrupted("a topic is not UTF-8".to_owned()))?;
        Ok(Message {
            topic,
            payload: self.payload,
            qos: qos(self.qos),
            retain: self.retain,
            properties: self.properties.map(|properties| Box::new(properties.into())),
            // No session has this number.
            publisher: 0,
            expires_ms: self.expires_ms,
        })
    }
}

impl From<&Message> for MessageRecord {
    fn from(message: &Message) -> Self {
        Self {
            topic: message.topic.as_bytes().clone(),
            payload: message.payload.clone(),
            qos: message.qos.into(),
            retain: message.retain,
            properties: message.properties.as_deref().map(PropertiesRecord::from),
            expires_ms: message.expires_ms,
        }
    }
}

impl DeliveryRecord {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, redb::Error> {
        Self::decode(bytes).map_err(|error| damaged(&error))
    }

    pub(super) fn into_delivery(self, position: u64) -> Result<Delivery, redb::Error> {
        let message = self.message.unwrap_or_default().into_message()?;
        Ok(Delivery {
            message: Arc::new(message),
            qos: qos(self.qos),
            retain: self.retain,
            subscription_ids: self.subscription_ids,
            initial: false,
            position,
            share: None,
        })
    }
}

impl From<&Delivery> for DeliveryRecord {
    fn from(delivery: &Delivery) -> Self {
        Self {
            message: Some(MessageRecord::from(&*delivery.message)),
            qos: delivery.qos.into(),
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids.clone(),
        }
    }
}

impl SubscriptionRecord {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, redb::Error> {
        Self::decode(bytes).map_err(|error| damaged(&error))
    }
}

impl From<&Subscribed> for SubscriptionRecord {
    fn from(subscribed: &Subscribed) -> Self {
        let options = subscribed.options;
        Self {
            qos: options.qos.into(),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                RetainHandling::Always => 0,
                RetainHandling::OnlyIfNew => 1,
                RetainHandling::Never => 2,
            },
            id: subscribed.id,
        }
    }
}

impl From<SubscriptionRecord> for Subscribed {
    fn from(record: SubscriptionRecord) -> Self {
        Self {
            options: SubscribeOptions {
                qos: qos(record.qos),
                no_local: record.no_local,
                retain_as_published: record.retain_as_published,
                retain_handling: match record.retain_handling {
                    0 => RetainHandling::Always,
                    1 => RetainHandling::OnlyIfNew,
                    _ => RetainHandling::Never,
                },
            },
            id: record.id,
        }
    }
}

fn qos(record: u32) -> u8 {
    u8::try_from(record).unwrap_or(0).min(2)
}
