//! What the front remembers of one client, connected or not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use crate::acks::Acks;
use crate::config::SessionConfig;
use crate::mailbox::Mailbox;
use crate::quota::{Quota, Share};
use crate::receptions::Receptions;
use crate::session_parts::{Inflight, PendingWill, Subscribed};

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
    pub(crate) fn new(key: u64, client_id: String, config: &SessionConfig, quota: &Arc<Quota>) -> Self {
        Self {
            key,
            client_id,
            mailbox: Mailbox::new(config, Arc::clone(quota)),
            carried: AtomicBool::new(false),
            state: Arc::new(Mutex::new(SessionState::new(quota))),
        }
    }
}

/// The part of a session that only its connection touches.
#[derive(Debug)]
pub(crate) struct SessionState {
    /// A connection has had it before.
    pub(crate) used: bool,
    /// It is over and no longer registered; a connection that waited for it starts anew.
    pub(crate) ended: bool,
    /// Seconds that it outlives its connection.
    pub(crate) expiry_s: u32,
    /// Filters as subscribed, shares with their prefix.
    pub(crate) filters: BTreeMap<String, Subscribed>,
    /// For the filters.
    share: Share,
    /// A restart brings the session back.
    pub(crate) durable: bool,
    /// QoS 2 publishes received and not yet released by the client.
    pub(crate) received: Receptions,
    /// What an earlier connection had given to the store without learning in time what became of it.
    pub(crate) unsettled: Acks,
    /// QoS 1 and 2 messages sent and not yet acknowledged, oldest first.
    pub(crate) inflight: VecDeque<Inflight>,
    pub(crate) last_packet_id: u16,
    pub(crate) will: Option<Arc<PendingWill>>,
    /// Publishes the will and ends the session in time, while no connection has it.
    pub(crate) afterlife: Option<AbortHandle>,
}

impl SessionState {
    pub(crate) fn new(quota: &Arc<Quota>) -> Self {
        Self {
            used: false,
            ended: false,
            expiry_s: 0,
            filters: BTreeMap::new(),
            share: quota.share(),
            durable: false,
            received: Receptions::new(quota.share()),
            unsettled: Acks::default(),
            inflight: VecDeque::new(),
            last_packet_id: 0,
            will: None,
            afterlife: None,
        }
    }

    /// Notes a subscription; true where it is a new one. `None` where all sessions together have no room for it.
    pub(crate) fn subscribe(&mut self, filter: &str, subscribed: Subscribed) -> Option<bool> {
        if let Some(known) = self.filters.get_mut(filter) {
            *known = subscribed;
            return Some(false);
        }
        if !self.share.grow(Subscribed::bytes(filter)) {
            return None;
        }
        self.filters.insert(filter.to_owned(), subscribed);
        Some(true)
    }

    /// False where there was none.
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> bool {
        let known = self.filters.remove(filter).is_some();
        if known {
            self.share.shrink(Subscribed::bytes(filter));
        }
        known
    }

    /// Takes up the subscriptions that a restart has found.
    pub(crate) fn recover(&mut self, filters: BTreeMap<String, Subscribed>) {
        let bytes = filters.keys().map(|filter| Subscribed::bytes(filter)).sum();
        self.share.grow_anyway(bytes);
        self.filters = filters;
    }

    /// The session is over: what it held is free, whoever still knows it, but the room of messages sent, which it gives.
    pub(crate) fn give_back(&mut self, quota: &Arc<Quota>) -> Share {
        self.share = quota.share();
        self.received = Receptions::new(quota.share());
        let mut sent = quota.share();
        std::mem::take(&mut self.inflight)
            .into_iter()
            .filter_map(|inflight| inflight.stage.into_share())
            .for_each(|share| sent.absorb(share));
        sent
    }

    /// Its connection has ended: what that had given to the store may still come to be known as stored.
    pub(crate) fn end_connection(&mut self, acks: Acks) {
        self.unsettled = acks.into_unsettled();
        let unsettled = &self.unsettled;
        self.received.end_connection(|number| unsettled.owes(number));
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
    use crate::codec::SubscribeOptions;
    use crate::session_parts::Stage;

    #[test]
    fn packet_identifiers_wrap_past_zero_and_past_those_in_use() {
        let mut state = SessionState::new(&Quota::new(0));
        state.last_packet_id = u16::MAX - 1;
        state.inflight.push_back(Inflight {
            packet_id: 1,
            position: 0,
            stage: Stage::Released,
        });
        assert_eq!([state.next_packet_id(), state.next_packet_id()], [u16::MAX, 2]);
    }

    #[test]
    fn subscriptions_take_their_room_from_all_sessions_and_give_it_back() {
        let quota = Quota::new(Subscribed::bytes("a/b"));
        let (mut one, mut two) = (SessionState::new(&quota), SessionState::new(&quota));
        let subscribed = Subscribed {
            options: SubscribeOptions::default(),
            id: None,
        };
        assert_eq!(one.subscribe("a/b", subscribed), Some(true));
        assert_eq!(one.subscribe("a/b", subscribed), Some(false), "it has its room");
        assert_eq!(two.subscribe("a/b", subscribed), None);
        assert!(one.unsubscribe("a/b") && !one.unsubscribe("a/b"));
        assert_eq!(two.subscribe("a/b", subscribed), Some(true));
        drop(two);
        assert_eq!(one.subscribe("a/b", subscribed), Some(true));
    }
}
