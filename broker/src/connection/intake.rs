//! PUBLISH packets to batches for the store.

use std::sync::Arc;

use super::close::Close;
use crate::acks::{Answer, Batch, Owed};
use crate::codec::{Ack, DecodeError, Publish, reason};
use crate::config::RefusedPublish;
use crate::counts::Counts;
use crate::hub::Hub;
use crate::message::{Message, now_ms};
use crate::metrics;
use crate::receptions::Received;
use crate::session::SessionState;
use crate::tap::{Exchange, Published, Publisher, Topic};
use crate::topics;

/// Releases in one batch, so that their entries fit one commit of the store.
const MAX_RELEASED: usize = 256;

/// Copied: an alias lives as long as its connection and must not keep the read buffer. Of a topic that is longer than
/// a topic may be, only as much as is refused again.
fn aliased(topic: &Topic, max_topic_bytes: usize) -> Topic {
    let name = topic.as_str();
    let end = name.ceil_char_boundary(max_topic_bytes + 1);
    Topic::from(name.get(..end).unwrap_or(name))
}

/// What tells a repeated QoS 2 publish from another message. No topic has a zero byte.
fn content(topic: &Topic, payload: &[u8]) -> u32 {
    let topic = crc32c::crc32c_append(crc32c::crc32c(topic.as_bytes()), &[0]);
    crc32c::crc32c_append(topic, payload)
}

/// Collects the batches of one connection.
#[derive(Debug)]
pub(crate) struct Intake {
    publisher: Arc<Publisher>,
    session_key: u64,
    aliases: Vec<Option<Topic>>,
    batch: Batch,
    received_ms: i64,
    /// Publishes of this read by QoS, and their payload bytes.
    received: [u64; 3],
    received_bytes: u64,
    last_topic: Option<LastTopic>,
    last_permitted: Option<LastPermitted>,
}

/// Devices publish on few topics: whether the last one has subscribers is remembered until subscriptions change.
#[derive(Debug)]
struct LastTopic {
    topic: Topic,
    generation: u64,
    subscribed: bool,
}

/// The same for the access rules.
#[derive(Debug)]
struct LastPermitted {
    topic: Topic,
    generation: u64,
}

/// What a publish is to the session.
#[derive(Debug, Clone, Copy)]
struct Taken {
    answer: Answer,
    /// As [`Owed::reception`].
    reception: u32,
    /// The store has it from an earlier process, of which nobody knows whether it told the subscribers.
    recovered: bool,
}

/// Why the front does not take a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    reason: u8,
    kind: &'static str,
}

const TOO_MANY_UNRELEASED: Refusal = Refusal {
    reason: reason::QUOTA_EXCEEDED,
    kind: "too_many_unreleased",
};

/// Not for clients, as with most brokers, and no machine's data.
const RESERVED_TOPIC: Refusal = Refusal {
    reason: reason::TOPIC_NAME_INVALID,
    kind: "reserved_topic",
};

impl Intake {
    pub(crate) fn new(publisher: Arc<Publisher>, session_key: u64) -> Self {
        Self {
            publisher,
            session_key,
            aliases: Vec::new(),
            batch: Batch::default(),
            received_ms: 0,
            received: [0; 3],
            received_bytes: 0,
            last_topic: None,
            last_permitted: None,
        }
    }

    /// Ends a read: what it brought is counted in one go, not message by message.
    pub(crate) fn end(&mut self, hub: &Hub) -> Option<Batch> {
        Counts::add(&hub.counts.publishes_received, self.received.iter().sum());
        Counts::add(&hub.counts.publish_bytes_received, self.received_bytes);
        for (count, counter) in self.received.iter_mut().zip(&hub.metrics.publishes) {
            if *count > 0 {
                counter.increment(std::mem::take(count));
            }
        }
        hub.metrics
            .publish_bytes
            .increment(std::mem::take(&mut self.received_bytes));
        (!self.batch.owed.is_empty()).then(|| std::mem::take(&mut self.batch))
    }

    /// QoS 1 publishes of this read that are in no batch yet that was handed on.
    pub(crate) fn qos_1(&self) -> usize {
        self.batch.qos_1
    }

    fn count(&mut self, publish: &Publish) {
        if let Some(count) = self.received.get_mut(usize::from(publish.qos)) {
            *count += 1;
        }
        self.received_bytes += publish.payload.len() as u64;
    }

    /// Begins a read: its messages carry this moment as their reception time.
    pub(crate) fn begin(&mut self) {
        self.received_ms = now_ms();
    }

    /// Takes one publish in. Gives back the batch before it, where that is full.
    pub(crate) fn publish(
        &mut self,
        hub: &Hub,
        state: &mut SessionState,
        mut publish: Publish,
    ) -> Result<Option<Batch>, Close> {
        self.count(&publish);
        publish.topic = self.resolve_alias(hub, publish.topic, publish.topic_alias)?;
        let content = if publish.qos == 2 {
            content(&publish.topic, &publish.payload)
        } else {
            0
        };
        let Some(taken) = self.take(hub, state, &publish, content)? else {
            return Ok(None);
        };
        let owed = Owed {
            packet_id: publish.packet_id,
            qos: publish.qos,
            silent: false,
            reception: taken.reception,
            answer: taken.answer,
            subscribed: false,
        };
        if taken.answer != Answer::Verdict && !taken.recovered {
            self.batch.owe(owed);
            return Ok(None);
        }
        let exchange = (state.durable && publish.qos == 2).then_some(Exchange {
            session: self.session_key,
            packet_id: publish.packet_id,
            content,
        });
        let message = Published {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
            publisher: Arc::clone(&self.publisher),
            received_ms: self.received_ms,
            exchange,
        };
        Ok(self.add(hub, message, owed, !taken.recovered))
    }

    /// What answers a publish, and whether it is a message to be handed on. `None` where it repeats one whose
    /// acknowledgement is under way already.
    fn take(
        &mut self,
        hub: &Hub,
        state: &mut SessionState,
        publish: &Publish,
        content: u32,
    ) -> Result<Option<Taken>, Close> {
        let (packet_id, received) = (publish.packet_id, &mut state.received);
        let mut taken = Taken {
            answer: Answer::Verdict,
            reception: 0,
            recovered: false,
        };
        let repeated = (publish.qos == 2)
            .then(|| received.repeat(packet_id, publish.dup, content))
            .flatten();
        match repeated {
            Some(Received::Pending) => return Ok(None),
            Some(Received::Stored | Received::Passed) => taken.answer = Answer::Fixed(reason::SUCCESS),
            Some(Received::Unsettled) => {
                taken.answer = Answer::Repeated;
                received.progress(packet_id, Received::Pending);
            }
            Some(Received::Recovered) => {
                taken.answer = Answer::Fixed(reason::SUCCESS);
                taken.recovered = true;
                received.progress(packet_id, Received::Stored);
            }
            None | Some(Received::Releasing) => {
                let mut refusal = self.refusal(hub, &publish.topic);
                if refusal.is_none() && publish.qos == 2 {
                    match received.begin(packet_id, content, hub.config.session.max_unreleased) {
                        Some(number) => taken.reception = number,
                        None => refusal = Some(TOO_MANY_UNRELEASED),
                    }
                }
                if let Some(refusal) = refusal {
                    metrics::publish_refused(refusal.kind);
                    self.check_refusal(hub, publish.qos, refusal)?;
                    taken.answer = Answer::Fixed(refusal.reason);
                }
            }
        }
        Ok(Some(taken))
    }

    /// Adds a message to the batch, and to the store's part of it where it `is_new`. Gives back the batch before it,
    /// where that is full.
    fn add(&mut self, hub: &Hub, message: Published, mut owed: Owed, is_new: bool) -> Option<Batch> {
        let bytes = message.batch_bytes();
        let full = (!self.batch.offer.messages.is_empty()
            && self.batch.bytes + bytes > hub.tap.max_batch_bytes())
        .then(|| std::mem::take(&mut self.batch));
        owed.subscribed = self.is_subscribed(hub, &message.topic);
        if message.retain || owed.subscribed {
            self.batch
                .copies
                .push(Arc::new(Message::copy_of(&message, self.session_key)));
        }
        self.batch.owe(owed);
        if is_new {
            self.batch.bytes += bytes;
            self.batch.offer.messages.push(message);
        }
        full
    }

    /// Takes PUBREL in: the client will not repeat the message. PUBCOMP frees the identifier for the next one, so
    /// it waits until the release is stored: an exchange that a crash left open would swallow that next message.
    /// Gives back the batch before it, where that has the message itself.
    pub(crate) fn release(&mut self, state: &mut SessionState, ack: Ack) -> Option<Batch> {
        let open = state.received.get(ack.packet_id);
        let found = open.map(|open| open.progress);
        let full = self.batch.offer.released.len() >= MAX_RELEASED;
        let before = (full || found == Some(Received::Pending)).then(|| std::mem::take(&mut self.batch));
        if let Some(open) = open.filter(|open| state.durable && open.is_kept()) {
            self.batch.offer.released.push(Exchange {
                session: self.session_key,
                packet_id: ack.packet_id,
                content: open.content,
            });
        }
        let reason = match found {
            None => reason::PACKET_ID_NOT_FOUND,
            Some(Received::Pending | Received::Unsettled) => reason::SUCCESS,
            Some(_) => {
                state.received.progress(ack.packet_id, Received::Releasing);
                reason::SUCCESS
            }
        };
        self.batch.owe(Owed {
            packet_id: ack.packet_id,
            qos: 2,
            silent: false,
            reception: 0,
            answer: Answer::Released(reason),
            subscribed: false,
        });
        before.filter(|batch| !batch.owed.is_empty())
    }

    fn refusal(&mut self, hub: &Hub, topic: &Topic) -> Option<Refusal> {
        let (name, limits) = (topic.as_str(), &hub.config);
        let refusal = |reason, kind| Some(Refusal { reason, kind });
        if !topics::within_limits(name, limits.max_topic_bytes, limits.max_topic_levels) {
            return refusal(reason::TOPIC_NAME_INVALID, "topic_limits");
        }
        if name.starts_with('$') {
            return Some(RESERVED_TOPIC);
        }
        if !self.is_permitted(hub, topic) {
            return refusal(reason::NOT_AUTHORIZED, "not_authorized");
        }
        None
    }

    /// 3.1.1 has no code for a refused publish: an acknowledgement would say that the message is safe.
    fn check_refusal(&self, hub: &Hub, qos: u8, refusal: Refusal) -> Result<(), Close> {
        if self.publisher.v5 || qos == 0 || refusal == RESERVED_TOPIC {
            return Ok(());
        }
        if refusal == TOO_MANY_UNRELEASED {
            return Err(Close::PublishRefused);
        }
        match hub.config.acl.refused_publish_v311 {
            RefusedPublish::Close => Err(Close::PublishRefused),
            RefusedPublish::Acknowledge => Ok(()),
        }
    }

    fn is_permitted(&mut self, hub: &Hub, topic: &Topic) -> bool {
        let generation = hub.acl.generation();
        if let Some(last) = &self.last_permitted
            && last.generation == generation
            && last.topic == *topic
        {
            return true;
        }
        let permitted = hub.acl.may_publish(&self.publisher.who(), topic.as_str());
        if permitted {
            self.last_permitted = Some(LastPermitted {
                topic: Topic::from(topic.as_str()),
                generation,
            });
        }
        permitted
    }

    fn resolve_alias(&mut self, hub: &Hub, topic: Topic, alias: Option<u16>) -> Result<Topic, DecodeError> {
        let Some(alias) = alias else { return Ok(topic) };
        if alias > hub.config.topic_alias_maximum {
            return Err(DecodeError {
                reason: reason::TOPIC_ALIAS_INVALID,
                rule: "a topic alias over the maximum",
            });
        }
        let at = usize::from(alias);
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        let Some(slot) = self.aliases.get_mut(at) else {
            return Ok(topic);
        };
        if topic.as_bytes().is_empty() {
            return slot
                .clone()
                .ok_or(DecodeError::protocol("a topic alias that was never set"));
        }
        *slot = Some(aliased(&topic, hub.config.max_topic_bytes));
        Ok(topic)
    }

    fn is_subscribed(&mut self, hub: &Hub, topic: &Topic) -> bool {
        if hub.subscriptions.is_empty() {
            return false;
        }
        let generation = hub.subscriptions.generation();
        if let Some(last) = &self.last_topic
            && last.generation == generation
            && last.topic == *topic
        {
            return last.subscribed;
        }
        let subscribed = hub.subscriptions.any(topic.as_str());
        self.last_topic = Some(LastTopic {
            topic: Topic::from(topic.as_str()),
            generation,
            subscribed,
        });
        subscribed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_keeps_no_more_of_a_topic_than_is_refused_again() {
        for (name, kept) in [
            ("abc", "abc"),
            ("abcd", "abcd"),
            ("abcdef", "abcd"),
            ("abc\u{fc}f", "abc\u{fc}"),
        ] {
            assert_eq!(aliased(&Topic::from(name), 3).as_str(), kept);
        }
    }
}
