//! Sessions without a connection: found by a start, left behind, ended; and their wills.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Hub;
use crate::counts::Counts;
use crate::message::{Message, now_ms};
use crate::persistence::{Change, Found, Restored, Wait};
use crate::session::{Session, SessionState};
use crate::session_parts::{PendingWill, Stage, Subscribed};
use crate::subscriptions::Subscription;
use crate::tap::{Batch, Exchange, NotStored, Published, Refused};

impl Hub {
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
        let session = Arc::new(Session::new(
            kept.key,
            kept.client_id,
            &self.config.session,
            &self.quota,
        ));
        let Ok(mut state) = session.state.try_lock() else {
            return;
        };
        state.used = true;
        state.durable = true;
        state.expiry_s = kept.expiry_s;
        state.will = kept.will;
        if let Some(will) = state.will.as_mut().and_then(Arc::get_mut) {
            will.share = Some(self.quota.share_anyway(will.bytes()));
        }
        state.recover(found.filters);
        state.last_packet_id = found.inflight.back().map_or(0, |inflight| inflight.packet_id);
        let positions = found.inflight.iter().map(|inflight| inflight.position);
        let positions = positions.chain(found.queue.iter().map(|delivery| delivery.position));
        let last_position = positions.max().unwrap_or(0);
        state.inflight = found.inflight;
        for inflight in &mut state.inflight {
            if let Stage::Published(delivery) = &mut inflight.stage {
                delivery.share = Some(self.quota.share_anyway(delivery.bytes()));
            }
        }
        if let Some(persistence) = &self.persistence {
            let persistence = Arc::clone(persistence);
            session
                .mailbox
                .keep(persistence, session.key, found.queue, last_position);
        }
        state.received.recover(received);
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
            Counts::add(&self.counts.expired, 1);
            let _nobody_waits = self.end_session(&session, &mut state);
        } else {
            self.outlive(&session, &mut state, Some(left_ms), ago);
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
        let mut share = state.give_back(&self.quota);
        // Before the end is submitted: nothing comes behind it.
        let queue = session.mailbox.forget();
        queue
            .into_iter()
            .filter_map(|delivery| delivery.share)
            .for_each(|waiting| share.absorb(waiting));
        let ended = state
            .durable
            .then(|| {
                self.submit(Change::End {
                    session: session.key,
                    _share: share,
                })
            })
            .flatten();
        // Also where none is known here to be open: a message that a dead letter's answer ended may have left one.
        if state.durable {
            self.tap.forget_session(session.key);
        }
        state.ended = true;
        self.registry.remove(session);
        self.metrics.sessions.set(self.registry.len() as f64);
        self.wait(ended)
    }

    /// Publishes in a task of its own: whoever lets go of a session does not wait for the store. The will keeps its room
    /// until it is stored: a store that is full would let any number of them wait.
    pub(crate) fn publish_will(self: &Arc<Self>, publisher: u64, will: Arc<PendingWill>) {
        let hub = Arc::clone(self);
        let mut message = will.message.clone();
        message.received_ms = now_ms();
        self.tasks.spawn(async move {
            if let Err(error) = hub.publish(message, publisher).await {
                tracing::warn!(topic = ?will.message.topic, %error, "a will was not published");
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
            Counts::add(&hub.counts.expired, 1);
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
}
