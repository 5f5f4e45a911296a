//! A stored message to those who are subscribed to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Hub;
use crate::codec::SubscribeOptions;
use crate::message::{Delivery, Message, now_ms};
use crate::persistence::{Ticket, Wait};
use crate::session::Session;
use crate::subscriptions::Subscription;

impl Hub {
    /// Gives stored messages out, in order. What it gives back resolves when a restart finds what it must of them.
    pub(crate) fn give_out(&self, messages: &[Arc<Message>]) -> Option<Wait> {
        let tickets = messages.iter().filter_map(|message| self.dispatch(message));
        self.wait(tickets.max())
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
        if routed && !self.fanout.publish(Arc::clone(message)) {
            self.quota.count_dropped();
        }
        for (session, delivery) in deliveries {
            ticket = ticket.max(session.mailbox.push(delivery));
        }
        ticket
    }

    /// Sends what is retained for a subscription that was just made; gives the number of messages.
    pub(crate) fn send_retained(
        &self,
        session: &Session,
        filter: &str,
        options: SubscribeOptions,
        id: Option<u32>,
    ) -> usize {
        let retained = if filter.starts_with("$SYS") {
            self.system.matching(filter, 0)
        } else {
            self.retained.matching(filter, now_ms())
        };
        let count = retained.len();
        // All of them or, where too much waits already, as many as there is room for.
        let initial = session.mailbox.takes_more();
        for message in retained {
            let qos = message.qos.min(options.qos);
            let _nobody_waits = session.mailbox.push(Delivery {
                message,
                qos,
                retain: true,
                subscription_ids: id.into_iter().collect(),
                initial,
                position: 0,
                share: None,
            });
        }
        count
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
        initial: false,
        position: 0,
        share: None,
    };
    (session, delivery)
}
