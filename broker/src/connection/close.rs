//! Why a connection ends, and what follows from it.

use crate::codec::{DecodeError, reason};

/// The end of an admitted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Close {
    #[error("the client disconnected")]
    ByClient { with_will: bool },
    #[error("the client closed the connection without DISCONNECT")]
    PeerGone,
    #[error("the client sent {0}")]
    Protocol(DecodeError),
    #[error("nothing came for one and a half times the keep-alive")]
    KeepAlive,
    #[error("a packet was not complete in time")]
    PacketTimeout,
    #[error("another connection came with the same client id")]
    TakenOver,
    #[error("the front stops")]
    ShutDown,
    #[error("the message store stopped before the messages were durable")]
    NotStored,
    #[error("the client did not keep up with its subscriptions")]
    QueueFull,
    #[error("the client published what is not taken, and 3.1.1 has no code to say so")]
    PublishRefused,
    #[error("the token that the client came with has ended")]
    TokenExpired,
    #[error("its task panicked")]
    Panicked,
    #[error("the client did not read")]
    WriteStalled,
}

impl Close {
    /// What an MQTT 5 client is told; `None` where there is nobody to tell.
    pub(crate) fn reason(self) -> Option<u8> {
        match self {
            Self::ByClient { .. } | Self::PeerGone | Self::WriteStalled => None,
            Self::Protocol(error) => Some(error.reason),
            Self::KeepAlive => Some(reason::KEEP_ALIVE_TIMEOUT),
            Self::TakenOver => Some(reason::SESSION_TAKEN_OVER),
            Self::ShutDown => Some(reason::SERVER_SHUTTING_DOWN),
            Self::NotStored | Self::Panicked | Self::PacketTimeout => Some(reason::UNSPECIFIED),
            Self::QueueFull => Some(reason::QUOTA_EXCEEDED),
            Self::PublishRefused => Some(reason::NOT_AUTHORIZED),
            Self::TokenExpired => Some(reason::MAXIMUM_CONNECT_TIME),
        }
    }

    /// The reason string for the client: what it did wrong, nothing of the server's inside.
    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::Protocol(error) => Some(error.rule),
            Self::PacketTimeout => Some("a packet that was not complete in time"),
            _ => None,
        }
    }

    /// Label of the metric.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::ByClient { .. } => "by_client",
            Self::PeerGone => "peer_gone",
            Self::Protocol(error) => error.kind(),
            Self::KeepAlive => "keep_alive",
            Self::PacketTimeout => "packet_timeout",
            Self::TakenOver => "taken_over",
            Self::ShutDown => "shut_down",
            Self::NotStored => "not_stored",
            Self::QueueFull => "queue_full",
            Self::PublishRefused => "publish_refused",
            Self::TokenExpired => "token_expired",
            Self::Panicked => "panicked",
            Self::WriteStalled => "write_stalled",
        }
    }

    pub(crate) fn publishes_will(self) -> bool {
        !matches!(self, Self::ByClient { with_will: false })
    }
}

impl From<DecodeError> for Close {
    fn from(error: DecodeError) -> Self {
        Self::Protocol(error)
    }
}
