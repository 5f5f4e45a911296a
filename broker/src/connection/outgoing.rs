//! Messages from the session's mailbox to the client, and the client's acknowledgements of them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;

use super::handshake::Client;
use super::subscribe;
use crate::codec::encode::{self, AckKind};
use crate::codec::{Ack, DecodeError, Protocol, reason};
use crate::hub::Hub;
use crate::message::{Delivery, now_ms};
use crate::metrics;
use crate::session::{Inflight, Session, SessionState, Stage};

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
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            aliases: HashMap::new(),
            mail: true,
            checked: None,
            screened: false,
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
            let Some(Inflight { packet_id, stage }) = state.inflight.get(at) else {
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
                    self.send(client, out, delivery, *packet_id, true);
                }
            }
        }
    }

    /// Sends what waits, as far as the client's window and `max_out_bytes` go.
    pub(crate) fn deliver(
        &mut self,
        hub: &Hub,
        client: &Client,
        session: &Session,
        state: &mut SessionState,
        out: &mut BytesMut,
        max_out_bytes: usize,
    ) {
        let mut sent = 0;
        while out.len() < max_out_bytes && Self::has_window(hub, client, state) {
            let Some(delivery) = session.mailbox.pop() else {
                self.mail = false;
                break;
            };
            if !self.may_receive(hub, client, &delivery) {
                continue;
            }
            if delivery.qos == 0 {
                sent += u64::from(self.send(client, out, &delivery, 0, false));
                continue;
            }
            let packet_id = state.next_packet_id();
            if self.send(client, out, &delivery, packet_id, false) {
                sent += 1;
                state.inflight.push_back(Inflight {
                    packet_id,
                    stage: Stage::Published(delivery),
                });
            }
        }
        hub.metrics.delivered.increment(sent);
    }

    /// False where the message has expired or is larger than the client takes: it is then done with.
    fn send(
        &mut self,
        client: &Client,
        out: &mut BytesMut,
        delivery: &Delivery,
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
                return false;
            }
        };
        let (topic, topic_alias) = self.alias(client, message.topic.as_str());
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
        if !fits {
            metrics::dropped("larger_than_client_takes");
            if topic_alias.is_some() && !topic.is_empty() {
                self.aliases.remove(message.topic.as_str());
            }
        }
        fits
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
pub(crate) fn puback(state: &mut SessionState, ack: Ack) {
    if let Some(at) = state.inflight_at(ack.packet_id)
        && matches!(state.inflight.get(at), Some(Inflight { stage: Stage::Published(delivery), .. }) if delivery.qos == 1)
    {
        state.inflight.remove(at);
    }
}

/// PUBREC: PUBREL follows, also for one that is unknown, which MQTT 5 is told.
pub(crate) fn pubrec(
    client: &Client,
    state: &mut SessionState,
    ack: Ack,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let Some(at) = state.inflight_at(ack.packet_id) else {
        if ack.reason < reason::UNSPECIFIED {
            let reason = reason::PACKET_ID_NOT_FOUND;
            encode::ack(
                out,
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
        state.inflight.remove(at);
        return Ok(());
    }
    if let Some(inflight) = state.inflight.get_mut(at) {
        inflight.stage = Stage::Released;
    }
    encode::ack(
        out,
        client.protocol,
        AckKind::Release,
        ack.packet_id,
        reason::SUCCESS,
        None,
        u32::MAX,
    );
    Ok(())
}

/// PUBCOMP.
pub(crate) fn pubcomp(state: &mut SessionState, ack: Ack) {
    if let Some(at) = state.inflight_at(ack.packet_id)
        && matches!(
            state.inflight.get(at),
            Some(Inflight {
                stage: Stage::Released,
                ..
            })
        )
    {
        state.inflight.remove(at);
    }
}
