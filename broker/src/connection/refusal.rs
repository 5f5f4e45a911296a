//! Why a client is not let in, and the CONNACK that says it.

use bytes::BytesMut;

use crate::codec::encode::{self, ConnAck};
use crate::codec::{DecodeError, Protocol, reason};

/// A client that was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection ended before CONNECT was complete")]
    Gone,
    #[error("CONNECT was not complete in time")]
    Timeout,
    #[error("the first packet is no CONNECT")]
    NoConnect,
    #[error("CONNECT has {error}")]
    Decode {
        protocol: Option<Protocol>,
        error: DecodeError,
    },
    #[error("{error}")]
    Refused {
        protocol: Protocol,
        kind: &'static str,
        reason: u8,
        error: String,
    },
    #[error("the client takes no packet as large as its CONNACK")]
    NoRoomForConnAck,
    #[error("the front stops")]
    ShutDown,
}

impl Refusal {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Timeout => "timeout",
            Self::NoConnect => "no_connect",
            Self::Decode { error, .. } => error.kind(),
            Self::Refused { kind, .. } => kind,
            Self::NoRoomForConnAck => "no_room_for_connack",
            Self::ShutDown => "shut_down",
        }
    }

    /// The CONNACK that says it, without the text where the client takes no packet of that size; nothing where the peer
    /// speaks no MQTT, or takes not even that.
    pub(crate) fn connack(&self, out: &mut BytesMut, max_packet_bytes: u32) {
        let (protocol, reason, text) = match self {
            // The version is unknown: 3.1.1's is the shape that every client reads.
            Self::Decode {
                protocol: None,
                error,
            } if error.reason == reason::UNSUPPORTED_PROTOCOL => (Protocol::V311, error.reason, ""),
            Self::Decode {
                protocol: Some(Protocol::V5),
                error,
            } => (Protocol::V5, error.reason, error.rule),
            Self::Refused {
                protocol,
                reason,
                error,
                ..
            } => (*protocol, *reason, error.as_str()),
            _ => return,
        };
        for reason_string in [Some(text), None] {
            let connack = ConnAck {
                reason,
                reason_string,
                ..ConnAck::default()
            };
            encode::connack(out, protocol, &connack);
            if out.len() <= max_packet_bytes as usize {
                return;
            }
            out.clear();
        }
    }
}
