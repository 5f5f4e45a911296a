//! What the front remembers of one client, connected or not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use crate::acks::Acks;
use crate::config::SessionConfig;
use crate::mailbox::Mailbox;
use crate::session_parts::{Inflight, PendingWill, Subscribed};
use crate::tap::Exchange;

/// One client's session. Whoever holds the lock of `state` is the connection that serves it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Unique, also among sessions that follow each other under one client id and over restarts.
    pub(crate) key: u64,
    pub(crate) client_id: String,
    pub(crate) mailbox: Mailbox,
    /// QoS 0 messages come to it through the fan-out router.
    pub(crate) carried: AtomicBool,
    pub(crate) state: Arc<Mutex<SessionState>>,
}

impl Session {
    pub(crate) fn new(key: u64, client_id: String, config: &SessionConfig) -> Self {
        Self {
            key,
            client_id,
            mailbox: Mailbox::new(config),
            carried: AtomicBool::new(false),
            state: Arc::default(),
        }
    }
}

/// The part of a session that only its connection touches.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    /// A connection has had it before.
    pub(crate) used: bool,
    /// It is over and no longer registered; a connection that waited for it starts anew.
    pub(crate) ended: bool,
    /// Seconds that it outlives its connection.
    pub(crate) expiry_s: u32,
    /// Filters as subscribed, shares with their prefix.
    pub(crate) filters: BTreeMap<String, Subscribed>,
    /// A restart brings the session back.
    pub(crate) durable: bool,
    /// QoS 2 publishes received and not yet released by the client.
    pub(crate) received: HashMap<u16, Reception>,
    pub(crate) last_reception: u32,
    /// What an earlier connection had given to the store without learning in time what became of it.
    pub(crate) unsettled: Acks,
    /// QoS 1 and 2 messages sent and not yet acknowledged, oldest first.
    pub(crate) inflight: VecDeque<Inflight>,
    pub(crate) last_packet_id: u16,
    pub(crate) will: Option<PendingWill>,
    /// Publishes the will and ends the session in time, while no connection has it.
    pub(crate) afterlife: Option<AbortHandle>,
}

/// The QoS 2 publish that has a packet identifier now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reception {
    /// Tells it from one before it with the same identifier, whose receipt is still to come. Zero is nobody's.
    pub(crate) number: u32,
    /// As its exchange's.
    pub(crate) content: u32,
    pub(crate) progress: Received,
}

impl Reception {
    pub(crate) fn recovered(exchange: &Exchange) -> (u16, Self) {
        let reception = Self {
            number: 0,
            content: exchange.content,
            progress: Received::Recovered,
        };
        (exchange.packet_id, reception)
    }
}

/// How far a received QoS 2 publish is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// Offered to the store; neither acknowledged nor known to be stored.
    Pending,
    /// The store has it and its exchange: a repeated PUBLISH is answered and not stored again, also after a restart.
    Stored,
    /// Answered, but the store keeps no exchange for it: the session or the message concerns this process only.
    Passed,
    /// As `Stored`, by an earlier process, of which nobody knows whether it told the subscribers.
    Recovered,
    /// As `Pending`, since an earlier connection.
    Unsettled,
    /// PUBREL came; PUBCOMP goes when that is stored.
    Releasing,
}

impl Received {
    /// The store may know the exchange as open.
    pub(crate) fn is_stored(self) -> bool {
        self != Self::Passed
    }
}

impl SessionState {
    /// Its connection has ended: of what it had under way, only what the store was offered counts. The rest is
    /// stored when the client repeats it.
    pub(crate) fn keep_unsettled(&mut self) {
        let unsettled = &self.unsettled;
        self.received.retain(|_, reception| {
            let pending = matches!(reception.progress, Received::Pending | Received::Unsettled);
            if pending {
                reception.progress = Received::Unsettled;
            }
            !pending || unsettled.owes(reception.number)
        });
    }

    /// How far the message is that a QoS 2 publish repeats; `None` where it is a new one. The identifier alone says
    /// too little: it may be open since before the client went on at another gateway or lost its state, and a message
    /// that is taken for that one is acknowledged and lost. So in doubt it is new.
    pub(crate) fn repeated(&self, packet_id: u16, dup: bool, content: u32) -> Option<Received> {
        let open = self.received.get(&packet_id)?;
        let same = dup && open.content == content && open.progress != Received::Releasing;
        same.then_some(open.progress)
    }

    /// Gives the identifier to a new message, whoever had it.
    pub(crate) fn receive(&mut self, packet_id: u16, content: u32) -> u32 {
        self.last_reception = self.last_reception.checked_add(1).unwrap_or(1);
        let reception = Reception {
            number: self.last_reception,
            content,
            progress: Received::Pending,
        };
        self.received.insert(packet_id, reception);
        reception.number
    }

    pub(crate) fn progress(&mut self, packet_id: u16, progress: Received) {
        if let Some(reception) = self.received.get_mut(&packet_id) {
            reception.progress = progress;
        }
    }

    /// A packet identifier that no sent message holds. `inflight` is bounded far below the number of identifiers.
    pub(crate) fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self
                .inflight
                .iter()
                .any(|inflight| inflight.packet_id == self.last_packet_id)
            {
                return self.last_packet_id;
            }
        }
    }

    /// The position of a sent message. It is nearly always the first.
    pub(crate) fn inflight_at(&self, packet_id: u16) -> Option<usize> {
        self.inflight
            .iter()
            .position(|inflight| inflight.packet_id == packet_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_parts::Stage;

    #[test]
    fn packet_identifiers_wrap_past_zero_and_past_those_in_use() {
        let mut state = SessionState {
            last_packet_id: u16::MAX - 1,
            ..SessionState::default()
        };
        state.inflight.push_back(Inflight {
            packet_id: 1,
            position: 0,
            stage: Stage::Released,
        });
        assert_eq!([state.next_packet_id(), state.next_packet_id()], [u16::MAX, 2]);
    }
}
