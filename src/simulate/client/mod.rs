//! rumqttc, both versions, as one stream of events about packet ids. Only this folder names it.
//!
//! rumqttc 0.25 alone does not account exactly, so its own resending is switched off and the [`Ledger`] does it:
//!
//! - After a reconnect without a session it drops whatever was unacknowledged or queued.
//! - With a session it resends without DUP, and its MQTT 5 half in the order of packet ids, which wrap: the order of
//!   a machine's messages is lost.
//! - Events that were read before a connection broke stay in its queue and mix with those of the next one.
//! - A cancelled `poll` may lose a packet that was on its way into a full socket buffer: callers must not drop it.
//! - MQTT 5: a PUBREC or PUBCOMP with an error code keeps its place in flight for ever ([`LinkError::Stranded`]).
//!
//! [`Ledger`]: super::ledger::Ledger

mod v4;
mod v5;

use rumqttc::Outgoing;

use super::args::{Config, Version};
use super::payload::Message;

/// What happened to a packet id, or to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Connected {
        session_present: bool,
    },
    /// A PUBLISH was written; 0 for QoS 0.
    Written(u16),
    /// PUBREC: the broker owns the message, the exchange goes on.
    Received(u16),
    /// PUBACK or PUBCOMP: the exchange is over.
    Acknowledged(u16),
    /// PUBACK or PUBREC with an error code (MQTT 5): the exchange is over, the broker did not take the message.
    Refused {
        packet_id: u16,
        reason: Reason,
    },
    Disconnected,
    Other,
}

/// Why a broker refused a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// 0x99: what a gateway says of a message that goes to its dead letters.
    PayloadFormatInvalid,
    Other(String),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("{0}")]
    V4(#[source] Box<rumqttc::ConnectionError>),
    #[error("{0}")]
    V5(#[source] Box<rumqttc::v5::ConnectionError>),
    /// rumqttc counts refused QoS 2 messages as in flight; a new connection clears that.
    #[error("reconnecting: too many refused messages for one connection")]
    Stranded,
}

impl LinkError {
    /// True where trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::V4(error) => v4::is_final(error),
            Self::V5(error) => v5::is_final(error),
            Self::Stranded => false,
        }
    }
}

/// A message to be sent once more in the session that the broker kept.
#[derive(Debug, Clone)]
pub(super) enum Resend<'a> {
    /// With the same packet id and DUP.
    Publish { packet_id: u16, message: &'a Message },
    /// Only its PUBREL.
    Release { packet_id: u16 },
}

/// The requests' side of one machine's client.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    qos: u8,
    client: AnyClient,
}

#[derive(Debug, Clone)]
enum AnyClient {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// The network's side of one machine's client.
pub(super) struct Link {
    qos: u8,
    eventloop: AnyLoop,
    /// The broker may hold a session of an earlier run, whose packet ids would swallow ours.
    stale_session: bool,
    /// Places in flight that rumqttc lost in this connection, and how many it may lose.
    stranded: u16,
    stranded_max: u16,
}

enum AnyLoop {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<rumqttc::v5::EventLoop>),
}

/// A client for one machine; it connects when it is polled.
pub(super) fn client(config: &Config, machine_id: i32) -> (Sender, Link) {
    let id = format!("{}{machine_id}", config.client_prefix);
    // One place more than the ledger uses, for DISCONNECT.
    let capacity = usize::from(config.inflight) + 1;
    // rumqttc's own window is wider than the ledger's: packet ids then do not collide when a broker acknowledges
    // out of order.
    let window = config.inflight.saturating_mul(2).max(16);
    let (client, eventloop) = match config.mqtt.of_machine(machine_id) {
        Version::V4 => {
            let (client, eventloop) = v4::client(config, id, window, capacity);
            (AnyClient::V4(client), AnyLoop::V4(Box::new(eventloop)))
        }
        Version::V5 => {
            let (client, eventloop) = v5::client(config, id, window, capacity);
            (AnyClient::V5(client), AnyLoop::V5(Box::new(eventloop)))
        }
    };
    let qos = config.qos;
    let stale_session = config.persistent_session();
    (
        Sender { qos, client },
        Link {
            qos,
            eventloop,
            stale_session,
            stranded: 0,
            stranded_max: window / 2,
        },
    )
}

fn network() -> rumqttc::NetworkOptions {
    let mut network = rumqttc::NetworkOptions::new();
    // rumqttc flushes after each packet; waiting for the one before would cost 40 ms now and then.
    network.set_tcp_nodelay(true);
    network
}

impl Sender {
    /// False where the queue is full, which the ledger's window rules out.
    pub(super) fn publish(&self, message: &Message) -> bool {
        match &self.client {
            AnyClient::V4(client) => v4::publish(client, self.qos, message),
            AnyClient::V5(client) => v5::publish(client, self.qos, message),
        }
    }

    pub(super) fn disconnect(&self) -> bool {
        match &self.client {
            AnyClient::V4(client) => client.try_disconnect().is_ok(),
            AnyClient::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Link {
    /// The next event; connects where there is no connection. To be polled to its end.
    pub(super) async fn poll(&mut self) -> Result<Event, LinkError> {
        if self.stranded >= self.stranded_max {
            return Err(LinkError::Stranded);
        }
        match &mut self.eventloop {
            AnyLoop::V4(eventloop) => {
                if self.stale_session {
                    v4::clear_session(eventloop)
                        .await
                        .map_err(|error| LinkError::V4(Box::new(error)))?;
                    self.stale_session = false;
                }
                let raw = eventloop
                    .poll()
                    .await
                    .map_err(|error| LinkError::V4(Box::new(error)))?;
                Ok(v4::event(&raw))
            }
            AnyLoop::V5(eventloop) => {
                let raw = eventloop
                    .poll()
                    .await
                    .map_err(|error| LinkError::V5(Box::new(error)))?;
                let event = v5::event(&raw);
                if self.stale_session && matches!(event, Event::Connected { .. }) {
                    eventloop.options.set_clean_start(false);
                    self.stale_session = false;
                }
                self.stranded += u16::from(v5::strands(&raw));
                if let Some(limit) = v5::receive_maximum(&raw) {
                    self.stranded_max = self.stranded_max.min(limit.div_ceil(2));
                }
                Ok(event)
            }
        }
    }

    /// Leaves the connection. Returns what had arrived in it but was not polled; forgets every request.
    pub(super) fn reset(&mut self) -> Vec<Event> {
        self.stranded = 0;
        match &mut self.eventloop {
            AnyLoop::V4(eventloop) => v4::reset(eventloop),
            AnyLoop::V5(eventloop) => v5::reset(eventloop),
        }
    }

    /// Puts `resends` before whatever is queued. Only right after [`Event::Connected`] with a session.
    pub(super) fn resume<'a>(&mut self, resends: impl Iterator<Item = Resend<'a>>) {
        let qos = self.qos;
        match &mut self.eventloop {
            AnyLoop::V4(eventloop) => {
                eventloop
                    .pending
                    .extend(resends.map(|resend| v4::request(&resend, qos)));
            }
            AnyLoop::V5(eventloop) => {
                eventloop
                    .pending
                    .extend(resends.map(|resend| v5::request(&resend, qos)));
            }
        }
    }
}

fn outgoing(written: &Outgoing) -> Event {
    match written {
        Outgoing::Publish(packet_id) => Event::Written(*packet_id),
        Outgoing::Disconnect => Event::Disconnected,
        _ => Event::Other,
    }
}
