//! Messages from the session's mailbox to the client, and the client's acknowledgements of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::client::Client;
use super::output::Output;
use super::subscribe;
use crate::codec::encode::{self, AckKind};
use crate::codec::{Ack, DecodeError, Protocol, reason};
use crate::counts::Counts;
use crate::hub::Hub;
use crate::message::{Delivery, now_ms};
use crate::metrics;
use crate::persistence::{Change, Ticket};
use crate::quota::Share;
use crate::session::{Session, SessionState};
use crate::session_parts::{Inflight, Stage};

/// The sending half of one connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Topics that the client knows by a number, in MQTT 5.
    aliases: HashMap<String, u16>,
    /// The mailbox may have more.
    pub(crate) mail: bool,
    /// Generation of the access rules that the subscriptions were held to; `None` where they are to be looked at.
    checked: Option<u64>,
    /// Not all that comes may be delivered.
    screened: bool,
    /// PUBLISH packets, and their payload bytes, that are not counted yet.
    sent: u64,
    sent_bytes: u64,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            aliases: HashMap::new(),
            mail: true,
            checked: None,
            screened: false,
            sent: 0,
            sent_bytes: 0,
        }
    }

    /// Whether a further QoS 1 or 2 message may be sent.
    pub(crate) fn has_window(hub: &Hub, client: &Client, state: &SessionState) -> bool {
        state.inflight.len() < usize::from(client.receive_maximum.min(hub.config.session.max_inflight))
    }

    /// The subscriptions have changed.
    pub(crate) fn subscriptions_changed(&mut self) {
        self.checked = None;
    }

    /// Holds the subscriptions to the access rules, where either has changed.
    pub(crate) fn check_access(
        &mut self,
        hub: &Hub,
        client: &Client,
        session: &Arc<Session>,
        state: &mut SessionState,
    ) {
        let rules = hub.acl.generation();
        if self.checked != Some(rules) {
            // What waits may have come under other rules: once screened, always screened.
            let changed = self.checked.is_some();
            self.screened |= subscribe::revoke(hub, client, session, state) || changed;
            self.checked = Some(rules);
        }
    }

    fn may_receive(&self, hub: &Hub, client: &Client, delivery: &Delivery) -> bool {
        let topic = &delivery.message.topic;
        if !self.screened || hub.acl.may_receive(&client.publisher.who(), topic.as_str()) {
            return true;
        }
        metrics::dropped("not_authorized");
        false
    }

    /// Sends again what the client had not acknowledged when it left.
    pub(crate) fn resume(&mut self, client: &Client, state: &mut SessionState, out: &mut BytesMut) {
        for at in 0..state.inflight.len() {
            let Some(Inflight { packet_id, stage, .. }) = state.inflight.get(at) else {
                continue;
            };
            match stage {
                Stage::Released => {
                    encode::ack(
                        out,
                        client.protocol,
                        AckKind::Release,
                        *packet_id,
                        0,
                        None,
                        u32::MAX,
                    );
                }
                Stage::Published(delivery) => {
                    let topic = self.alias(client, delivery.message.topic.as_str());
                    self.send(client, out, delivery, topic, *packet_id, true);
                }
            }
        }
    }

    /// Sends what waits, as far as the client's window and its buffer go.
    pub(crate) fn deliver(
        &mut self,
        hub: &Hub,
        client: &Client,
        session: &Session,
        state: &mut SessionState,
        output: &mut Output,
    ) {
        while !output.is_full() && Self::has_window(hub, client, state) {
            let Some(delivery) = session.mailbox.pop() else {
                self.mail = false;
                break;
            };
            let position = delivery.position;
            if !self.may_receive(hub, client, &delivery) {
                done(hub, session, position, delivery.share);
                continue;
            }
            if delivery.qos == 0 {
                let topic = self.alias(client, delivery.message.topic.as_str());
                self.send(client, &mut output.ready, &delivery, topic, 0, false);
                continue;
            }
            let packet_id = state.next_packet_id();
            if self.send_first(hub, client, session, &delivery, packet_id, output) {
                state.inflight.push_back(Inflight {
                    packet_id,
                    position,
                    stage: Stage::Published(delivery),
                });
            } else {
                done(hub, session, position, delivery.share);
            }
        }
        let sent = std::mem::take(&mut self.sent);
        hub.metrics.delivered.increment(sent);
        Counts::add(&hub.counts.publishes_sent, sent);
        Counts::add(
            &hub.counts.publish_bytes_sent,
            std::mem::take(&mut self.sent_bytes),
        );
    }

    /// Sends a QoS 1 or 2 message for the first time. One of QoS 2 goes once its identifier is durable: after a restart
    /// another one would make it another message. False as with [`Self::send`].
    fn send_first(
        &mut self,
        hub: &Hub,
        client: &Client,
        session: &Session,
        delivery: &Delivery,
        packet_id: u16,
        output: &mut Output,
    ) -> bool {
        let name = delivery.message.topic.as_str();
        if delivery.position > 0 && delivery.qos == 2 {
            let mut packet = BytesMut::new();
            // Without an alias: what is sent meanwhile could use one that the client does not know yet.
            let fits = self.send(client, &mut packet, delivery, (name, None), packet_id, false);
            if fits {
                let kept = keep_sent(hub, session, delivery.position, packet_id);
                output.send_after(hub.wait(kept), packet);
            }
            return fits;
        }
        let topic = self.alias(client, name);
        let fits = self.send(client, &mut output.ready, delivery, topic, packet_id, false);
        if fits {
            let _nobody_waits = keep_sent(hub, session, delivery.position, packet_id);
        }
        fits
    }

    /// False where the message has expired or is larger than the client takes: it is then done with.
    fn send(
        &mut self,
        client: &Client,
        out: &mut BytesMut,
        delivery: &Delivery,
        (topic, topic_alias): (&str, Option<u16>),
        packet_id: u16,
        dup: bool,
    ) -> bool {
        let message = &delivery.message;
        // What was sent once is repeated even after its time: the client may have it already and wait for its end.
        let message_expiry_s = match message.expiry_left_s(now_ms()) {
            Ok(left_s) => left_s,
            Err(_expired) if dup => Some(0),
            Err(_expired) => {
                metrics::dropped("expired");
                self.forget_alias(topic, topic_alias);
                return false;
            }
        };
        let publish = encode::Publish {
            topic,
            payload: &message.payload,
            qos: delivery.qos,
            retain: delivery.retain,
            dup,
            packet_id,
            topic_alias,
            subscription_ids: &delivery.subscription_ids,
            properties: message.properties.as_deref(),
            message_expiry_s,
        };
        let fits = encode::publish(out, client.protocol, &publish, client.max_packet_bytes);
        if fits {
            self.sent += 1;
            self.sent_bytes += message.payload.len() as u64;
        } else {
            metrics::dropped("larger_than_client_takes");
            self.forget_alias(topic, topic_alias);
        }
        fits
    }

    /// The client never saw the packet that would have set it.
    fn forget_alias(&mut self, topic: &str, topic_alias: Option<u16>) {
        if topic_alias.is_some() {
            self.aliases.remove(topic);
        }
    }

    /// What stands for the topic: itself with a new alias, nothing with a known one.
    fn alias<'a>(&mut self, client: &Client, topic: &'a str) -> (&'a str, Option<u16>) {
        if client.protocol == Protocol::V311 || client.topic_alias_maximum == 0 {
            return (topic, None);
        }
        if let Some(alias) = self.aliases.get(topic) {
            return ("", Some(*alias));
        }
        let used = u16::try_from(self.aliases.len()).unwrap_or(u16::MAX);
        if used >= client.topic_alias_maximum {
            return (topic, None);
        }
        self.aliases.insert(topic.to_owned(), used + 1);
        (topic, Some(used + 1))
    }
}

/// PUBACK. One that belongs to nothing is ignored: the message may have been settled before a reconnect.
pub(crate) fn puback(
    hub: &Hub,
    session: &Session,
    state: &mut SessionState,
    ack: Ack,
) -> Result<(), DecodeError> {
    let Some(at) = state.inflight_at(ack.packet_id) else {
        return Ok(());
    };
    if !matches!(state.inflight.get(at), Some(Inflight { stage: Stage::Published(delivery), .. }) if delivery.qos == 1)
    {
        return Err(DecodeError::protocol("a PUBACK for a QoS 2 message"));
    }
    remove(hub, session, state, at);
    Ok(())
}

/// The subscriber is done with it.
fn remove(hub: &Hub, session: &Session, state: &mut SessionState, at: usize) {
    if let Some(inflight) = state.inflight.remove(at) {
        done(hub, session, inflight.position, inflight.stage.into_share());
    }
}

/// A restart need not find it any more. Nobody waits: one that is found all the same is sent again as what it is.
fn done(hub: &Hub, session: &Session, position: u64, share: Option<Share>) {
    if position > 0 {
        let session = session.key;
        let _nobody_waits = hub.submit(Change::Done {
            session,
            position,
            _share: share,
        });
    }
}

fn keep_sent(hub: &Hub, session: &Session, position: u64, packet_id: u16) -> Option<Ticket> {
    if position == 0 {
        return None;
    }
    hub.submit(Change::Sent {
        session: session.key,
        position,
        packet_id,
    })
}

/// PUBREC: PUBREL follows, also for one that is unknown, which MQTT 5 is told. Once PUBREL is out the client may take a
/// repeated PUBLISH for a new message, so it waits until a restart would not repeat it.
pub(crate) fn pubrec(
    hub: &Hub,
    client: &Client,
    session: &Session,
    state: &mut SessionState,
    ack: Ack,
    output: &mut Output,
) -> Result<(), DecodeError> {
    let Some(at) = state.inflight_at(ack.packet_id) else {
        if ack.reason < reason::UNSPECIFIED {
            let reason = reason::PACKET_ID_NOT_FOUND;
            encode::ack(
                &mut output.ready,
                client.protocol,
                AckKind::Release,
                ack.packet_id,
                reason,
                None,
                u32::MAX,
            );
        }
        return Ok(());
    };
    if matches!(state.inflight.get(at), Some(Inflight { stage: Stage::Published(delivery), .. }) if delivery.qos != 2)
    {
        return Err(DecodeError::protocol("a PUBREC for a QoS 1 message"));
    }
    if ack.reason >= reason::UNSPECIFIED {
        remove(hub, session, state, at);
        return Ok(());
    }
    let mut kept = None;
    if let Some(inflight) = state.inflight.get_mut(at) {
        let share = std::mem::replace(&mut inflight.stage, Stage::Released).into_share();
        if inflight.position > 0 {
            kept = hub.submit(Change::Received {
                session: session.key,
                position: inflight.position,
                packet_id: ack.packet_id,
                _share: share,
            });
        }
    }
    let mut pubrel = BytesMut::new();
    encode::ack(
        &mut pubrel,
        client.protocol,
        AckKind::Release,
        ack.packet_id,
        reason::SUCCESS,
        None,
        u32::MAX,
    );
    output.send_after(hub.wait(kept), pubrel);
    Ok(())
}

/// PUBCOMP. One that belongs to nothing is ignored, as with PUBACK.
pub(crate) fn pubcomp(
    hub: &Hub,
    session: &Session,
    state: &mut SessionState,
    ack: Ack,
) -> Result<(), DecodeError> {
    let Some(at) = state.inflight_at(ack.packet_id) else {
        return Ok(());
    };
    let released = state
        .inflight
        .get(at)
        .is_some_and(|inflight| matches!(inflight.stage, Stage::Released));
    if !released {
        return Err(DecodeError::protocol(
            "a PUBCOMP for a message that was not released",
        ));
    }
    remove(hub, session, state, at);
    Ok(())
}
