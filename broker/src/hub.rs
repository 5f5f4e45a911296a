//! What all connections share: who is subscribed to what, what is retained, who is connected, and the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticator;
use crate::auth::acl::Acl;
use crate::codec::SubscribeOptions;
use crate::config::BrokerConfig;
use crate::fanout::Fanout;
use crate::message::{Delivery, Message, now_ms};
use crate::metrics::Hot;
use crate::persistence::{Change, Found, KeptSession, Persistence, Restored, Ticket, Wait};
use crate::registry::Registry;
use crate::retained::Retained;
use crate::session::{PendingWill, Reception, Session, SessionState, Subscribed};
use crate::subscriptions::{Subscription, Subscriptions};
use crate::sys::Sys;
use crate::tap::{Batch, Exchange, NotStored, Published, Refused, Tap};

/// The front's shared state.
pub(crate) struct Hub {
    pub(crate) config: BrokerConfig,
    pub(crate) tap: Arc<dyn Tap>,
    pub(crate) auth: Authenticator,
    pub(crate) acl: Arc<Acl>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) retained: Retained,
    pub(crate) fanout: Fanout,
    pub(crate) registry: Registry,
    /// `None` where nothing survives the process.
    pub(crate) persistence: Option<Arc<Persistence>>,
    pub(crate) metrics: Hot,
    pub(crate) sys: Sys,
    pub(crate) stop: CancellationToken,
    /// Connections and what they leave behind.
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("sessions", &self.registry.len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        config: BrokerConfig,
        tap: Arc<dyn Tap>,
        stop: CancellationToken,
        persistence: Option<Arc<Persistence>>,
    ) -> Self {
        Self {
            auth: Authenticator::new(&config.auth),
            acl: Arc::new(Acl::new(config.acl.clone())),
            subscriptions: Subscriptions::default(),
            retained: Retained::new(config.retained.clone(), persistence.clone()),
            fanout: Fanout::new(config.fanout.clone()),
            registry: Registry::new(config.session.clone()),
            persistence,
            metrics: Hot::new(),
            sys: Sys::new(),
            tasks: TaskTracker::new(),
            stop,
            tap,
            config,
        }
    }

    /// Takes up what an earlier process left: its sessions with their subscriptions, and their open exchanges.
    pub(crate) fn begin(self: &Arc<Self>, restored: Restored) {
        let mut exchanges = self.tap.open_exchanges();
        let now_ms = self.age_ms().unwrap_or(0);
        let count = restored.sessions.len();
        self.retained.restore(restored.retained);
        self.metrics.retained.set(self.retained.len() as f64);
        for found in restored.sessions {
            let received = exchanges.remove(&found.session.key).unwrap_or_default();
            // One that was connected has lost its connection with the process.
            let left_ms = found.session.left_ms.unwrap_or(restored.last_ms);
            let ago = Duration::from_millis(now_ms.saturating_sub(left_ms));
            self.restore(found, &received, left_ms, ago);
        }
        for session in exchanges.into_keys() {
            self.tap.forget_session(session);
        }
        if count > 0 {
            tracing::info!(sessions = count, "sessions of an earlier process go on");
        }
        self.metrics.sessions.set(self.registry.len() as f64);
    }

    fn restore(self: &Arc<Self>, found: Found, received: &[Exchange], left_ms: u64, ago: Duration) {
        let kept = found.session;
        let session = Arc::new(Session::new(kept.key, kept.client_id, &self.config.session));
        let Ok(mut state) = session.state.try_lock() else {
            return;
        };
        state.used = true;
        state.durable = true;
        state.expiry_s = kept.expiry_s;
        state.will = kept.will;
        state.filters = found.filters;
        state.last_packet_id = found.inflight.back().map_or(0, |inflight| inflight.packet_id);
        let positions = found.inflight.iter().map(|inflight| inflight.position);
        let positions = positions.chain(found.queue.iter().map(|delivery| delivery.position));
        let last_position = positions.max().unwrap_or(0);
        state.inflight = found.inflight;
        if let Some(persistence) = &self.persistence {
            let persistence = Arc::clone(persistence);
            session
                .mailbox
                .keep(persistence, session.key, found.queue, last_position);
        }
        state.received = received.iter().map(Reception::recovered).collect();
        self.registry.restore(Arc::clone(&session));
        self.fanout.update(&session, &state.filters);
        for (filter, Subscribed { options, id }) in &state.filters {
            self.subscriptions.insert(
                filter,
                Subscription {
                    session: Arc::clone(&session),
                    options: *options,
                    id: *id,
                },
            );
        }
        if ago >= Duration::from_secs(state.expiry_s.into()) {
            let _nobody_waits = self.end_session(&session, &mut state);
        } else {
            self.outlive(&session, &mut state, Some(left_ms), ago);
        }
    }

    /// Stores a message of the front's own (a will) and gives it to subscribers.
    async fn publish(&self, message: Published, publisher: u64) -> Result<(), NotStored> {
        let copy = Arc::new(Message::copy_of(&message, publisher));
        let mut batch = Batch::from(vec![message]);
        let receipt = loop {
            match self.tap.offer(batch) {
                Ok(receipt) => break receipt,
                Err(Refused::Closed(_)) => return Err(NotStored),
                Err(Refused::Busy(refused)) => {
                    batch = refused;
                    self.tap.room().await;
                }
            }
        };
        receipt.await?;
        let _nobody_waits = self.dispatch(&copy);
        Ok(())
    }

    /// Gives a stored message to all who are subscribed now, and retains it where it asks for it. Gives the last
    /// ticket of what is kept of it for a restart: the publisher's acknowledgement says that too.
    pub(crate) fn dispatch(&self, message: &Arc<Message>) -> Option<Ticket> {
        let mut ticket = None;
        if message.retain {
            ticket = self.retained.set(message);
            self.metrics.retained.set(self.retained.len() as f64);
        }
        if self.subscriptions.is_empty() {
            return ticket;
        }
        let mut deliveries: Vec<(Arc<Session>, Delivery)> = Vec::new();
        let mut plain: Vec<Subscription> = Vec::new();
        self.subscriptions
            .each(message.topic.as_str(), |subscription, shared| {
                if subscription.options.no_local && subscription.session.key == message.publisher {
                    return;
                }
                if shared {
                    deliveries.push(delivery(message, std::slice::from_ref(subscription)));
                } else {
                    plain.push(subscription.clone());
                }
            });
        // One copy a session, at its highest QoS and with the identifiers of all its subscriptions that match.
        plain.sort_by_key(|subscription| subscription.session.key);
        let mut routed = false;
        for subscriptions in plain.chunk_by(|one, next| one.session.key == next.session.key) {
            let (session, delivery) = delivery(message, subscriptions);
            if session.carried.load(Ordering::Acquire) && (routed || self.fanout.takes(message)) {
                routed = true;
            } else {
                deliveries.push((session, delivery));
            }
        }
        if routed {
            self.fanout.publish(Arc::clone(message));
        }
        for (session, delivery) in deliveries {
            ticket = ticket.max(session.mailbox.push(delivery));
        }
        ticket
    }

    /// Sends what is retained for a subscription that was just made.
    pub(crate) fn send_retained(
        &self,
        session: &Session,
        filter: &str,
        options: SubscribeOptions,
        id: Option<u32>,
    ) {
        let system = self.sys.matching(filter);
        for message in self.retained.matching(filter, now_ms()).into_iter().chain(system) {
            let qos = message.qos.min(options.qos);
            let _nobody_waits = session.mailbox.push(Delivery {
                message,
                qos,
                retain: true,
                subscription_ids: id.into_iter().collect(),
                position: 0,
            });
        }
    }

    /// Ends a session: its subscriptions go, and a will that still waits is published now.
    /// Whoever says so to a client waits for what it gives back.
    pub(crate) fn end_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        state: &mut SessionState,
    ) -> Option<Wait> {
        for filter in std::mem::take(&mut state.filters).into_keys() {
            self.subscriptions.remove(&filter, session.key);
        }
        self.fanout.update(session, &state.filters);
        if let Some(will) = state.will.take() {
            self.publish_will(session.key, will);
        }
        if let Some(afterlife) = state.afterlife.take() {
            afterlife.abort();
        }
        // Before the end is submitted: nothing comes behind it.
        session.mailbox.forget();
        let ended = state
            .durable
            .then(|| self.submit(Change::End { session: session.key }))
            .flatten();
        if state.durable && !state.received.is_empty() {
            self.tap.forget_session(session.key);
        }
        state.ended = true;
        self.registry.remove(session);
        self.metrics.sessions.set(self.registry.len() as f64);
        self.wait(ended)
    }

    /// Publishes in a task of its own: whoever lets go of a session does not wait for the store.
    pub(crate) fn publish_will(self: &Arc<Self>, publisher: u64, will: PendingWill) {
        let (hub, mut message) = (Arc::clone(self), will.message);
        message.received_ms = now_ms();
        self.tasks.spawn(async move {
            let topic = message.topic.clone();
            if let Err(error) = hub.publish(message, publisher).await {
                tracing::warn!(?topic, %error, "a will was not published");
            }
        });
    }

    /// Lets go of a session that outlives its connection: the will comes after its delay, the end after the expiry.
    pub(crate) fn leave_behind(self: &Arc<Self>, session: &Arc<Session>, state: &mut SessionState) {
        session.mailbox.detach();
        let left_ms = self.age_ms();
        self.outlive(session, state, left_ms, Duration::ZERO);
    }

    /// Waits for the times of a session that was left `ago`.
    pub(crate) fn outlive(
        self: &Arc<Self>,
        session: &Arc<Session>,
        state: &mut SessionState,
        left_ms: Option<u64>,
        ago: Duration,
    ) {
        let expiry = Duration::from_secs(state.expiry_s.into());
        let will_delay = state.will.as_ref().map(|will| {
            let delay = Duration::from_secs(will.delay_s.into());
            delay.min(expiry).saturating_sub(ago)
        });
        if will_delay.is_some_and(|delay| delay.is_zero())
            && let Some(will) = state.will.take()
        {
            self.publish_will(session.key, will);
        }
        self.keep(session, state, left_ms);
        let now = Instant::now();
        let will_at = state
            .will
            .is_some()
            .then_some(now + will_delay.unwrap_or_default());
        let end_at = now + expiry.saturating_sub(ago);
        let (hub, session) = (Arc::clone(self), Arc::clone(session));
        let afterlife = tokio::spawn(async move {
            if let Some(will_at) = will_at {
                hub.until(will_at).await;
                let mut state = session.state.lock().await;
                if let Some(will) = state.will.take() {
                    hub.publish_will(session.key, will);
                    hub.keep(&session, &state, left_ms);
                }
            }
            hub.until(end_at).await;
            let mut state = session.state.lock().await;
            state.afterlife = None;
            let _nobody_waits = hub.end_session(&session, &mut state);
        });
        state.afterlife = Some(afterlife.abort_handle());
    }

    /// Sleeps; for ever once the front stops: what is left to do then is the next process's.
    async fn until(&self, moment: Instant) {
        tokio::select! {
            () = tokio::time::sleep_until(moment) => {}
            () = self.stop.cancelled() => std::future::pending().await,
        }
    }

    fn age_ms(&self) -> Option<u64> {
        self.persistence.as_ref().map(|persistence| persistence.age_ms())
    }

    pub(crate) fn submit(&self, change: Change) -> Option<Ticket> {
        self.persistence
            .as_ref()
            .map(|persistence| persistence.submit(change))
    }

    /// Keeps the session's own row as it is now, where a restart is to find it.
    pub(crate) fn keep(&self, session: &Session, state: &SessionState, left_ms: Option<u64>) -> Option<Wait> {
        if !state.durable {
            return None;
        }
        let ticket = self.submit(Change::Session(Box::new(KeptSession {
            key: session.key,
            client_id: session.client_id.clone(),
            expiry_s: state.expiry_s,
            left_ms,
            will: state.will.clone(),
        })));
        self.wait(ticket)
    }

    /// Resolves when a change is durable; `None` where there is nothing to wait for.
    pub(crate) fn wait(&self, ticket: Option<Ticket>) -> Option<Wait> {
        Some(self.persistence.as_ref()?.wait(ticket?))
    }

    /// Keeps changed subscriptions. What they answer must wait.
    pub(crate) fn keep_filters<'a>(
        &self,
        session: &Session,
        state: &SessionState,
        changed: impl Iterator<Item = &'a String>,
    ) -> Option<Wait> {
        if !state.durable {
            return None;
        }
        let session = session.key;
        let ticket = changed.fold(None, |_, filter| {
            let filter = filter.clone();
            self.submit(match state.filters.get(&filter).copied() {
                Some(subscribed) => Change::Subscribe {
                    session,
                    filter,
                    subscribed,
                },
                None => Change::Unsubscribe { session, filter },
            })
        });
        self.wait(ticket)
    }
}

fn delivery(message: &Arc<Message>, subscriptions: &[Subscription]) -> (Arc<Session>, Delivery) {
    #[allow(clippy::indexing_slicing)] // chunks and single subscriptions are never empty
    let session = Arc::clone(&subscriptions[0].session);
    let asked = subscriptions
        .iter()
        .map(|subscription| subscription.options.qos)
        .max()
        .unwrap_or(0);
    let keep_retain = subscriptions
        .iter()
        .any(|subscription| subscription.options.retain_as_published);
    let delivery = Delivery {
        message: Arc::clone(message),
        qos: message.qos.min(asked),
        retain: message.retain && keep_retain,
        subscription_ids: subscriptions
            .iter()
            .filter_map(|subscription| subscription.id)
            .collect(),
        position: 0,
    };
    (session, delivery)
}
