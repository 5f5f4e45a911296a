//! What a session is made of, as its connection has it and as a restart finds it.

use std::sync::Arc;

use crate::codec::{SubscribeOptions, Will};
use crate::message::Delivery;
use crate::quota::Share;
use crate::tap::{Published, Publisher};

/// One subscription as its session knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscribed {
    pub(crate) options: SubscribeOptions,
    pub(crate) id: Option<u32>,
}

impl Subscribed {
    /// What a subscription costs, its levels of the tree and its row in the database included; about.
    pub(crate) fn bytes(filter: &str) -> usize {
        let levels = 1 + filter.bytes().filter(|byte| *byte == b'/').count();
        256 + 3 * filter.len() + 512 * levels
    }
}

/// One sent message.
#[derive(Debug)]
pub(crate) struct Inflight {
    pub(crate) packet_id: u16,
    /// As its delivery's.
    pub(crate) position: u64,
    pub(crate) stage: Stage,
}

#[derive(Debug)]
pub(crate) enum Stage {
    /// Sent, to be sent again with DUP after a reconnect.
    Published(Delivery),
    /// PUBREC came, PUBREL went: only PUBCOMP is missing.
    Released,
}

impl Stage {
    /// Of what all sessions may hold.
    pub(crate) fn into_share(self) -> Option<Share> {
        match self {
            Self::Published(delivery) => delivery.share,
            Self::Released => None,
        }
    }
}

/// A will with the identity under which it is published.
#[derive(Debug)]
pub(crate) struct PendingWill {
    pub(crate) message: Published,
    pub(crate) delay_s: u32,
    /// Of what all sessions may hold.
    pub(crate) share: Option<Share>,
}

impl PendingWill {
    pub(crate) fn new(will: Will, publisher: Arc<Publisher>) -> Self {
        let message = Published {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            publisher,
            received_ms: 0,
            exchange: None,
        };
        Self {
            message,
            delay_s: will.delay_s,
            share: None,
        }
    }

    /// What it costs, its row in the database included; about.
    pub(crate) fn bytes(&self) -> usize {
        256 + 2 * self.message.bytes()
    }
}
