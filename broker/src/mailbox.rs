//! What waits for one subscriber, within bounds, and the orders to the connection that serves it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::config::SessionConfig;
use crate::message::Delivery;
use crate::metrics;
use crate::persistence::{Change, Persistence, Ticket};
use crate::quota::{Quota, Share};

/// An order to the connection that holds the session. The later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Another connection has come with the same client id.
    TakenOver,
    /// The front stops.
    ShutDown,
    /// More QoS 1 and 2 messages came than the bounds allow.
    QueueFull,
}

/// Bounded queue towards one session. Pushing never waits.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    /// Something changed since the connection last looked.
    signalled: AtomicBool,
    waker: AtomicWaker,
    max_messages: usize,
    max_bytes: usize,
    quota: Arc<Quota>,
    /// Counts the connections that have claimed the session: only the latest may have it.
    claims: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Delivery>,
    /// Of the queue without `initial`: what is retained is bounded where it is kept, and comes once.
    messages: usize,
    bytes: usize,
    reader: Reader,
    order: Option<Order>,
    kept: Option<Kept>,
    /// The one copy that is beyond the bound of all sessions, until the client has acknowledged it.
    beyond: Weak<()>,
}

/// Where QoS 1 and 2 copies are kept for a restart.
#[derive(Debug)]
struct Kept {
    persistence: Arc<Persistence>,
    session: u64,
    last_position: u64,
}

/// Who reads the mailbox.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reader {
    #[default]
    Offline,
    Online {
        /// MQTT 5 clients can be told why they are disconnected.
        v5: bool,
    },
}

impl Inner {
    /// Counts anew what waits.
    fn count(&mut self) {
        let counted = self.queue.iter().filter(|delivery| !delivery.initial);
        (self.messages, self.bytes) = counted.fold((0, 0), |(messages, bytes), delivery| {
            (messages + 1, bytes + delivery.message.bytes())
        });
    }
}

impl Mailbox {
    pub(crate) fn new(config: &SessionConfig, quota: Arc<Quota>) -> Self {
        Self {
            inner: Mutex::default(),
            signalled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            max_messages: config.max_queued_messages,
            max_bytes: config.max_queued_bytes,
            quota,
            claims: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the queue whole, so a panic elsewhere spoils nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on QoS 1 and 2 copies are kept for a restart, which has left `queue`; nothing up to `last_position`
    /// is given out again.
    pub(crate) fn keep(
        &self,
        persistence: Arc<Persistence>,
        session: u64,
        mut queue: VecDeque<Delivery>,
        last_position: u64,
    ) {
        for delivery in &mut queue {
            delivery.share = Some(self.quota.share_anyway(delivery.bytes()));
        }
        let mut inner = self.lock();
        inner.queue = queue;
        inner.count();
        inner.kept = Some(Kept {
            persistence,
            session,
            last_position,
        });
    }

    /// The session is over: nothing of it is kept any more. Gives what waited.
    pub(crate) fn forget(&self) -> VecDeque<Delivery> {
        let mut inner = self.lock();
        inner.kept = None;
        let queue = std::mem::take(&mut inner.queue);
        inner.count();
        queue
    }

    /// Queues a copy, or drops it where there is no room (counted). Gives the ticket of one that is kept.
    pub(crate) fn push(&self, mut delivery: Delivery) -> Option<Ticket> {
        let mut inner = self.lock();
        if inner.reader == Reader::Offline && delivery.qos == 0 {
            drop(inner);
            metrics::dropped("offline_qos0");
            return None;
        }
        let bytes = delivery.message.bytes();
        let full = !delivery.initial
            && (inner.messages >= self.max_messages || inner.bytes + bytes > self.max_bytes);
        if full {
            let tell = delivery.qos > 0 && inner.reader == (Reader::Online { v5: true });
            if tell && inner.order.is_none() {
                inner.order = Some(Order::QueueFull);
            }
            drop(inner);
            self.drop_for(if delivery.qos == 0 {
                "queue_full_qos0"
            } else {
                "queue_full"
            });
            self.signal();
            return None;
        }
        let Some(share) = self.room_for(&delivery, &mut inner) else {
            drop(inner);
            self.drop_for("session_store_full");
            return None;
        };
        if !delivery.initial {
            inner.messages += 1;
            inner.bytes += bytes;
        }
        // Under the lock: what the connection says about the copy must come behind this.
        let ticket = match &mut inner.kept {
            Some(kept) if delivery.qos > 0 => {
                kept.last_position += 1;
                delivery.position = kept.last_position;
                let (session, delivery) = (kept.session, delivery.to_keep());
                Some(kept.persistence.submit(Change::Queue { session, delivery }))
            }
            _ => None,
        };
        delivery.share = Some(share);
        inner.queue.push_back(delivery);
        drop(inner);
        self.signal();
        ticket
    }

    /// Room among all sessions. A client that keeps up is not cut off by those that do not: one copy at a time goes
    /// beyond the bound, from here to its acknowledgement.
    fn room_for(&self, delivery: &Delivery, inner: &mut Inner) -> Option<Share> {
        let bytes = delivery.bytes();
        if inner.reader == Reader::Offline {
            return self.quota.share_asleep(bytes);
        }
        let mut share = self.quota.share();
        if !share.grow(bytes) {
            if !inner.queue.is_empty() || inner.beyond.strong_count() > 0 {
                return None;
            }
            (share, inner.beyond) = self.quota.share_beyond(bytes);
        }
        Some(share)
    }

    fn drop_for(&self, reason: &'static str) {
        self.quota.count_dropped();
        metrics::dropped(reason);
    }

    /// Copies that wait, and their bytes.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.queue.len(), inner.bytes)
    }

    /// The oldest copy.
    pub(crate) fn pop(&self) -> Option<Delivery> {
        let mut inner = self.lock();
        let delivery = inner.queue.pop_front()?;
        if !delivery.initial {
            inner.messages -= 1;
            inner.bytes -= delivery.message.bytes();
        }
        Some(delivery)
    }

    /// Whether a further copy would find room and a reader; shared subscriptions ask it.
    pub(crate) fn takes_more(&self) -> bool {
        let inner = self.lock();
        inner.reader != Reader::Offline
            && inner.queue.len() < self.max_messages
            && inner.bytes < self.max_bytes
    }

    /// Announces a new connection to the one that holds the session; the returned number is its claim.
    pub(crate) fn claim(&self) -> u64 {
        let claim = self.claims.fetch_add(1, Ordering::SeqCst) + 1;
        self.order(Order::TakenOver);
        claim
    }

    /// The connection with `claim` begins to read. False where a later one has claimed the session since.
    pub(crate) fn attach(&self, claim: u64, v5: bool) -> bool {
        {
            let mut inner = self.lock();
            inner.order = None;
            inner.reader = Reader::Online { v5 };
        }
        // A claim after this look finds the order cleared already and sets it again.
        self.is_latest(claim)
    }

    pub(crate) fn is_latest(&self, claim: u64) -> bool {
        self.claims.load(Ordering::SeqCst) == claim
    }

    /// The connection has gone; QoS 0 copies are not kept.
    pub(crate) fn detach(&self) {
        let mut inner = self.lock();
        inner.reader = Reader::Offline;
        inner.queue.retain(|delivery| delivery.qos > 0);
        inner.count();
        // A persistent session can sleep for days.
        inner.queue.shrink_to_fit();
    }

    pub(crate) fn order(&self, order: Order) {
        self.lock().order = Some(order);
        self.signal();
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Ready when something was pushed or ordered since the last time; gives the order, if there is one.
    pub(crate) fn poll_signal(&self, cx: &mut Context<'_>) -> Poll<Option<Order>> {
        if !self.signalled.swap(false, Ordering::AcqRel) {
            self.waker.register(cx.waker());
            if !self.signalled.swap(false, Ordering::AcqRel) {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.lock().order)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Message;
    use crate::tap::Topic;

    fn mailbox(max_queued_messages: usize) -> Mailbox {
        mailbox_of(max_queued_messages, &Quota::new(1024 * 1024))
    }

    fn mailbox_of(max_queued_messages: usize, quota: &Arc<Quota>) -> Mailbox {
        let config = SessionConfig {
            max_queued_messages,
            ..SessionConfig::default()
        };
        Mailbox::new(&config, Arc::clone(quota))
    }

    fn delivery(qos: u8) -> Delivery {
        let message = Message {
            topic: Topic::from("t"),
            payload: Bytes::from_static(b"payload"),
            qos,
            retain: false,
            properties: None,
            publisher: 0,
            expires_ms: None,
        };
        Delivery {
            message: Arc::new(message),
            qos,
            retain: false,
            subscription_ids: Vec::new(),
            initial: false,
            position: 0,
            share: None,
        }
    }

    fn order(mailbox: &Mailbox) -> Option<Order> {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        match mailbox.poll_signal(&mut cx) {
            Poll::Ready(order) => order,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_slow_subscriber_costs_a_bounded_queue_and_only_mqtt5_is_disconnected() {
        for (v5, expected) in [(true, Some(Order::QueueFull)), (false, None)] {
            let mailbox = mailbox(2);
            assert!(mailbox.attach(mailbox.claim(), v5));
            for _ in 0..3 {
                mailbox.push(delivery(1));
            }
            assert_eq!(order(&mailbox), expected);
            assert!(mailbox.pop().is_some() && mailbox.pop().is_some() && mailbox.pop().is_none());
        }
    }

    #[test]
    fn qos_0_over_the_bound_is_dropped_without_disconnecting() {
        let mailbox = mailbox(1);
        assert!(mailbox.attach(mailbox.claim(), true));
        mailbox.push(delivery(0));
        mailbox.push(delivery(0));
        assert_eq!(order(&mailbox), None);
        assert!(mailbox.pop().is_some() && mailbox.pop().is_none());
    }

    #[test]
    fn a_sleeping_session_keeps_qos_1_and_not_qos_0() {
        let mailbox = mailbox(10);
        assert!(mailbox.attach(mailbox.claim(), false));
        mailbox.push(delivery(0));
        mailbox.push(delivery(1));
        mailbox.detach();
        mailbox.push(delivery(0));
        mailbox.push(delivery(2));
        let kept = std::iter::from_fn(|| mailbox.pop())
            .map(|delivery| delivery.qos)
            .collect::<Vec<_>>();
        assert_eq!(kept, [1, 2]);
    }

    #[test]
    fn over_the_bound_of_all_sessions_the_sleeping_get_nothing_and_who_has_read_all_goes_on() {
        let quota = Quota::new(4 * delivery(1).bytes());
        let (asleep, slow, awake) = (
            mailbox_of(10, &quota),
            mailbox_of(10, &quota),
            mailbox_of(10, &quota),
        );
        for mailbox in [&slow, &awake] {
            assert!(mailbox.attach(mailbox.claim(), true));
        }
        for _ in 0..10 {
            asleep.push(delivery(1));
        }
        assert_eq!(asleep.waiting().0, 3, "three quarters");
        for _ in 0..10 {
            slow.push(delivery(1));
            awake.push(delivery(1));
            assert!(awake.pop().is_some());
        }
        assert_eq!(slow.waiting().0, 1);
        assert_eq!(order(&slow), None, "the bound of all is not its fault");
        assert_eq!(quota.dropped(), 7 + 9);
        drop(asleep);
        slow.push(delivery(1));
        assert_eq!(slow.waiting().0, 2);
    }

    #[test]
    fn a_client_that_reads_and_acknowledges_nothing_holds_one_copy_beyond_the_bound_of_all() {
        let quota = Quota::new(2 * delivery(1).bytes());
        let mailbox = mailbox_of(10, &quota);
        assert!(mailbox.attach(mailbox.claim(), true));
        let mut unacknowledged = Vec::new();
        for _ in 0..10 {
            mailbox.push(delivery(1));
            unacknowledged.extend(mailbox.pop());
        }
        assert_eq!((unacknowledged.len(), quota.dropped()), (3, 7));
        unacknowledged.pop();
        mailbox.push(delivery(1));
        assert!(
            mailbox.pop().is_some(),
            "its acknowledgement gives the place back"
        );
    }

    #[test]
    fn the_latest_claim_wins() {
        let mailbox = mailbox(10);
        let first = mailbox.claim();
        let second = mailbox.claim();
        assert!(!mailbox.attach(first, true));
        assert!(mailbox.attach(second, true));
        mailbox.claim();
        assert_eq!(order(&mailbox), Some(Order::TakenOver));
    }
}
