//! The one place that knows MQTT's bytes: frames in, packets out, and back.
//!
//! - [`reader`]: strict primitives over one frame; running out of bytes inside a frame is an error, never a wait.
//! - [`properties`]: MQTT 5 property lists: known, allowed in this packet, sent once, in range.
//! - [`connect`]: CONNECT of both versions.
//! - [`decode`]: the frame and every other packet that a client may send.
//! - [`encode`]: every packet that a server sends, into one buffer, so that many make one write.
//!
//! Decoding is our own for every packet. The hot packets needed it (topic and payload are slices of the read
//! buffer), with MQTT 5 property lists and all; once those stand, the rest is a page, whereas each field that
//! `mqtt-protocol-core` reads needed a check before or after it (reserved bits, a will's QoS, NUL, trailing bytes)
//! and a password without a user name, which MQTT 5 allows, is refused there. The library is the oracle of the
//! tests instead: what it encodes is decoded here to the same values, and what is encoded here it accepts.

pub(crate) mod connect;
pub(crate) mod decode;
pub(crate) mod encode;
#[cfg(test)]
mod oracle_tests;
pub(crate) mod properties;
pub(crate) mod reader;

use bytes::Bytes;

use crate::tap::{Properties, Topic};

pub(crate) use decode::{Frame, decode, frame};

/// The two protocol versions that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    V311,
    V5,
}

/// MQTT 5 reason codes that the front uses; 3.1.1 shows them only by closing.
pub(crate) mod reason {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const UNSUPPORTED_PROTOCOL: u8 = 0x84;
    pub(crate) const CLIENT_ID_INVALID: u8 = 0x85;
    pub(crate) const BAD_USER_OR_PASSWORD: u8 = 0x86;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const SERVER_UNAVAILABLE: u8 = 0x88;
    pub(crate) const SERVER_BUSY: u8 = 0x89;
    pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8B;
    pub(crate) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
    pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub(crate) const TOPIC_FILTER_INVALID: u8 = 0x8F;
    pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
    pub(crate) const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
    pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub(crate) const MAXIMUM_CONNECT_TIME: u8 = 0xA0;
}

/// Why bytes are no packet: the reason code to answer with and the rule that they break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub(crate) struct DecodeError {
    pub(crate) reason: u8,
    pub(crate) rule: &'static str,
}

impl DecodeError {
    pub(crate) const fn malformed(rule: &'static str) -> Self {
        Self {
            reason: reason::MALFORMED,
            rule,
        }
    }

    /// Label of the metric: limits are told from what no packet may be.
    pub(crate) fn kind(self) -> &'static str {
        match self.reason {
            reason::PACKET_TOO_LARGE => "packet_too_large",
            reason::RECEIVE_MAXIMUM_EXCEEDED => "receive_maximum",
            reason::TOPIC_ALIAS_INVALID => "topic_alias",
            reason::UNSUPPORTED_PROTOCOL => "protocol_version",
            reason::MALFORMED => "malformed",
            _ => "protocol",
        }
    }

    pub(crate) const fn protocol(rule: &'static str) -> Self {
        Self {
            reason: reason::PROTOCOL_ERROR,
            rule,
        }
    }
}

/// A packet from a client.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    PingReq,
    Disconnect(Disconnect),
    Auth,
}

/// CONNECT, with the defaults of what was not sent filled in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) protocol: Protocol,
    /// Empty where the client wants one assigned.
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    /// Zero is off.
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Bytes>,
    /// `None` where no property was sent (and always in 3.1.1).
    pub(crate) session_expiry_s: Option<u32>,
    /// Unacknowledged QoS 1 and 2 publishes that the client takes at a time.
    pub(crate) receive_maximum: u16,
    /// Largest packet that the client takes.
    pub(crate) max_packet_bytes: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) request_problem_information: bool,
    pub(crate) authentication_method: Option<String>,
}

/// The message that a client leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) properties: Option<Box<Properties>>,
}

/// PUBLISH; topic and payload are slices of the read buffer. The DUP flag is checked and then means nothing: it does
/// not say whether the first copy ever arrived.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Empty only where a topic alias stands for it.
    pub(crate) topic: Topic,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// Zero in QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) properties: Option<Box<Properties>>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) packet_id: u16,
    pub(crate) reason: u8,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subscribe {
    pub(crate) packet_id: u16,
    pub(crate) subscription_id: Option<u32>,
    pub(crate) filters: Vec<(String, SubscribeOptions)>,
}

/// What a subscription asks for; 3.1.1 knows the QoS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubscribeOptions {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
}

/// Whether retained messages are sent when a subscription is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RetainHandling {
    #[default]
    Always,
    OnlyIfNew,
    Never,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsubscribe {
    pub(crate) packet_id: u16,
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) reason: u8,
    pub(crate) session_expiry_s: Option<u32>,
}
