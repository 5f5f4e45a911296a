//! What all connections share: who is subscribed to what, what is retained, who is connected, and the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticator;
use crate::auth::acl::Acl;
use crate::codec::SubscribeOptions;
use crate::config::BrokerConfig;
use crate::fanout::Fanout;
use crate::message::{Delivery, Message, now_ms};
use crate::metrics::Hot;
use crate::registry::Registry;
use crate::retained::Retained;
use crate::session::{PendingWill, Session, SessionState};
use crate::subscriptions::{Subscription, Subscriptions};
use crate::tap::{NotStored, Published, Refused, Tap};

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
    pub(crate) metrics: Hot,
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
    pub(crate) fn new(config: BrokerConfig, tap: Arc<dyn Tap>, stop: CancellationToken) -> Self {
        Self {
            auth: Authenticator::new(&config.auth),
            acl: Arc::new(Acl::new(config.acl.clone())),
            subscriptions: Subscriptions::default(),
            retained: Retained::new(config.retained.clone()),
            fanout: Fanout::new(config.fanout.clone()),
            registry: Registry::new(config.session.clone()),
            metrics: Hot::new(),
            tasks: TaskTracker::new(),
            stop,
            tap,
            config,
        }
    }

    /// Stores a message of the front's own (a will) and gives it to subscribers.
    async fn publish(&self, message: Published, publisher: u64) -> Result<(), NotStored> {
        let copy = Arc::new(Message::copy_of(&message, publisher));
        let mut batch = vec![message];
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
        self.dispatch(&copy);
        Ok(())
    }

    /// Gives a stored message to all who are subscribed now, and retains it where it asks for it.
    pub(crate) fn dispatch(&self, message: &Arc<Message>) {
        if message.retain {
            self.metrics
                .retained
                .set(self.retained.set(Arc::clone(message)) as f64);
        }
        if self.subscriptions.is_empty() {
            return;
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
            session.mailbox.push(delivery);
        }
    }

    /// Sends what is retained for a subscription that was just made.
    pub(crate) fn send_retained(
        &self,
        session: &Session,
        filter: &str,
        options: SubscribeOptions,
        id: Option<u32>,
    ) {
        for message in self.retained.matching(filter, now_ms()) {
            let qos = message.qos.min(options.qos);
            session.mailbox.push(Delivery {
                message,
                qos,
                retain: true,
                subscription_ids: id.into_iter().collect(),
            });
        }
    }

    /// Ends a session: its subscriptions go, and a will that still waits is published now.
    pub(crate) fn end_session(self: &Arc<Self>, session: &Arc<Session>, state: &mut SessionState) {
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
        state.ended = true;
        self.registry.remove(session);
        self.metrics.sessions.set(self.registry.len() as f64);
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
        let expiry_s = state.expiry_s;
        let will_s = match &state.will {
            Some(will) if will.delay_s.min(expiry_s) > 0 => Some(will.delay_s.min(expiry_s)),
            Some(_) => {
                if let Some(will) = state.will.take() {
                    self.publish_will(session.key, will);
                }
                None
            }
            None => None,
        };
        let (hub, session) = (Arc::clone(self), Arc::clone(session));
        let afterlife = tokio::spawn(async move {
            if let Some(will_s) = will_s {
                tokio::time::sleep(Duration::from_secs(will_s.into())).await;
                let mut state = session.state.lock().await;
                if let Some(will) = state.will.take() {
                    hub.publish_will(session.key, will);
                }
            }
            let rest_s = expiry_s.saturating_sub(will_s.unwrap_or(0));
            tokio::time::sleep(Duration::from_secs(rest_s.into())).await;
            let mut state = session.state.lock().await;
            state.afterlife = None;
            hub.end_session(&session, &mut state);
        });
        state.afterlife = Some(afterlife.abort_handle());
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
    };
    (session, delivery)
}
