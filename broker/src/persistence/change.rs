//! What a restart must find, and what it finds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::message::{Delivery, Message};
use crate::quota::Share;
use crate::session_parts::{Inflight, PendingWill, Subscribed};

/// Something that a restart must find. Messages that wait here for the disk keep their room (`_share`): what ends one
/// comes behind it and has its room until then.
#[derive(Debug)]
pub(crate) enum Change {
    /// A session begins, is resumed or left: its row as it is from now on.
    Session(Box<KeptSession>),
    /// A session is over, with all that it had.
    End {
        session: u64,
        _share: Share,
    },
    Subscribe {
        session: u64,
        filter: String,
        subscribed: Subscribed,
    },
    Unsubscribe {
        session: u64,
        filter: String,
    },
    /// The message is its topic's retained one; without a payload the topic has none any more.
    Retain(Arc<Message>),
    /// A QoS 1 or 2 message waits for a subscriber.
    Queue {
        session: u64,
        delivery: Delivery,
    },
    /// It goes out under this packet identifier.
    Sent {
        session: u64,
        position: u64,
        packet_id: u16,
    },
    /// The subscriber has it (PUBREC); only its PUBCOMP is missing.
    Received {
        session: u64,
        position: u64,
        packet_id: u16,
        _share: Option<Share>,
    },
    /// Nothing of it is left to do.
    Done {
        session: u64,
        position: u64,
        _share: Option<Share>,
    },
}

impl Change {
    /// Of a retained message, which nobody else may have any more once the topic has a newer one.
    pub(super) fn retained_bytes(&self) -> usize {
        match self {
            Self::Retain(message) => message.bytes(),
            _ => 0,
        }
    }
}

/// A session's own row.
#[derive(Debug, Clone)]
pub(crate) struct KeptSession {
    pub(crate) key: u64,
    pub(crate) client_id: String,
    pub(crate) expiry_s: u32,
    /// When its connection left it, on the clock of the store (`Persistence::age_ms`); `None` while it is connected.
    pub(crate) left_ms: Option<u64>,
    pub(crate) will: Option<Arc<PendingWill>>,
}

/// A session as a start finds it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) session: KeptSession,
    pub(crate) filters: BTreeMap<String, Subscribed>,
    /// Sent and not done, in the order in which they went.
    pub(crate) inflight: VecDeque<Inflight>,
    /// Not sent yet.
    pub(crate) queue: VecDeque<Delivery>,
}

/// Everything that a start finds.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) sessions: Vec<Found>,
    pub(crate) retained: Vec<Message>,
    /// The last moment at which the process before this one is known to have lived.
    pub(crate) last_ms: u64,
}
