//! rumqttc, both versions, as one stream of events about packet ids. The only file that names it.
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

use rumqttc::v5::mqttbytes::v5 as packet5;
use rumqttc::{Outgoing, v5};

use super::args::{Config, Login, Version};
use super::payload::Message;

const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);
/// How long the broker may forget a machine that is gone.
const SESSION_EXPIRY_S: u32 = 3600;

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
    V5(#[source] Box<v5::ConnectionError>),
    /// rumqttc counts refused QoS 2 messages as in flight; a new connection clears that.
    #[error("reconnecting: too many refused messages for one connection")]
    Stranded,
}

impl LinkError {
    /// True where trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        use packet5::ConnectReturnCode as Code5;
        use rumqttc::ConnectReturnCode as Code4;
        match self {
            Self::V4(error) => matches!(
                **error,
                rumqttc::ConnectionError::ConnectionRefused(
                    Code4::BadUserNamePassword | Code4::NotAuthorized | Code4::BadClientId
                )
            ),
            Self::V5(error) => matches!(
                **error,
                v5::ConnectionError::ConnectionRefused(
                    Code5::BadUserNamePassword
                        | Code5::NotAuthorized
                        | Code5::Banned
                        | Code5::ClientIdentifierNotValid
                )
            ),
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
    V5(v5::AsyncClient),
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
    V5(Box<v5::EventLoop>),
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
            let (client, eventloop) = client4(config, id, window, capacity);
            (AnyClient::V4(client), AnyLoop::V4(Box::new(eventloop)))
        }
        Version::V5 => {
            let (client, eventloop) = v5::AsyncClient::new(options5(config, id, window), capacity);
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

fn client4(
    config: &Config,
    id: String,
    window: u16,
    capacity: usize,
) -> (rumqttc::AsyncClient, rumqttc::EventLoop) {
    let mut options = rumqttc::MqttOptions::new(id, &config.host, config.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_inflight(window)
        .set_clean_session(!config.persistent_session());
    if let Some(Login { username, password }) = &config.login {
        options.set_credentials(username, password);
    }
    let (client, mut eventloop) = rumqttc::AsyncClient::new(options, capacity);
    eventloop.set_network_options(network());
    (client, eventloop)
}

fn options5(config: &Config, id: String, window: u16) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(id, &config.host, config.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_outgoing_inflight_upper_limit(window);
    // Later connections ask for the session that the first one starts.
    options.set_clean_start(true).set_network_options(network());
    if config.persistent_session() {
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
    }
    if let Some(Login { username, password }) = &config.login {
        options.set_credentials(username, password);
    }
    options
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
        let (topic, payload) = (message.topic.to_string(), message.payload.clone());
        match &self.client {
            AnyClient::V4(client) => client.try_publish(topic, qos4(self.qos), false, payload).is_ok(),
            AnyClient::V5(client) => match properties5(message) {
                Some(properties) => client
                    .try_publish_with_properties(topic, qos5(self.qos), false, payload, properties)
                    .is_ok(),
                None => client.try_publish(topic, qos5(self.qos), false, payload).is_ok(),
            },
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
                    clear_session(eventloop)
                        .await
                        .map_err(|error| LinkError::V4(Box::new(error)))?;
                    self.stale_session = false;
                }
                match eventloop.poll().await {
                    Ok(event) => Ok(event4(&event)),
                    Err(error) => Err(LinkError::V4(Box::new(error))),
                }
            }
            AnyLoop::V5(eventloop) => match eventloop.poll().await {
                Ok(event) => {
                    if self.stale_session && matches!(event5(&event), Event::Connected { .. }) {
                        eventloop.options.set_clean_start(false);
                        self.stale_session = false;
                    }
                    self.stranded += u16::from(strands(&event));
                    if let Some(limit) = receive_maximum(&event) {
                        self.stranded_max = self.stranded_max.min(limit.div_ceil(2));
                    }
                    Ok(event5(&event))
                }
                Err(error) => Err(LinkError::V5(Box::new(error))),
            },
        }
    }

    /// Leaves the connection. Returns what had arrived in it but was not polled; forgets every request.
    pub(super) fn reset(&mut self) -> Vec<Event> {
        self.stranded = 0;
        match &mut self.eventloop {
            AnyLoop::V4(eventloop) => {
                let events = eventloop
                    .state
                    .events
                    .drain(..)
                    .map(|event| event4(&event))
                    .collect();
                eventloop.clean();
                eventloop.pending.clear();
                eventloop.state.collision = None;
                events
            }
            AnyLoop::V5(eventloop) => {
                let events = eventloop
                    .state
                    .events
                    .drain(..)
                    .map(|event| event5(&event))
                    .collect();
                eventloop.clean();
                eventloop.pending.clear();
                eventloop.state.collision = None;
                events
            }
        }
    }

    /// Puts `resends` before whatever is queued. Only right after [`Event::Connected`] with a session.
    pub(super) fn resume<'a>(&mut self, resends: impl Iterator<Item = Resend<'a>>) {
        match &mut self.eventloop {
            AnyLoop::V4(eventloop) => {
                let qos = qos4(self.qos);
                eventloop
                    .pending
                    .extend(resends.map(|resend| request4(&resend, qos)));
            }
            AnyLoop::V5(eventloop) => {
                let qos = qos5(self.qos);
                eventloop
                    .pending
                    .extend(resends.map(|resend| request5(&resend, qos)));
            }
        }
    }
}

/// MQTT 3.1.1 clears a session only in a connection of its own.
async fn clear_session(eventloop: &mut rumqttc::EventLoop) -> Result<(), rumqttc::ConnectionError> {
    eventloop.mqtt_options.set_clean_session(true);
    let connected = eventloop.poll().await;
    eventloop.clean();
    eventloop.mqtt_options.set_clean_session(false);
    connected.map(|_| ())
}

fn request4(resend: &Resend<'_>, qos: rumqttc::QoS) -> rumqttc::Request {
    match resend {
        Resend::Publish { packet_id, message } => {
            let mut publish = rumqttc::Publish::new(&*message.topic, qos, message.payload.clone());
            (publish.pkid, publish.dup) = (*packet_id, true);
            rumqttc::Request::Publish(publish)
        }
        Resend::Release { packet_id } => rumqttc::Request::PubRel(rumqttc::PubRel::new(*packet_id)),
    }
}

fn request5(resend: &Resend<'_>, qos: v5::mqttbytes::QoS) -> v5::Request {
    match resend {
        Resend::Publish { packet_id, message } => {
            let (payload, properties) = (message.payload.clone(), properties5(message));
            let mut publish = packet5::Publish::new(&*message.topic, qos, payload, properties);
            (publish.pkid, publish.dup) = (*packet_id, true);
            v5::Request::Publish(publish)
        }
        Resend::Release { packet_id } => v5::Request::PubRel(packet5::PubRel::new(*packet_id, None)),
    }
}

fn properties5(message: &Message) -> Option<packet5::PublishProperties> {
    message.is_protobuf.then(|| packet5::PublishProperties {
        content_type: Some(shopfloor_proto::CONTENT_TYPE.to_owned()),
        ..Default::default()
    })
}

fn qos4(qos: u8) -> rumqttc::QoS {
    match qos {
        0 => rumqttc::QoS::AtMostOnce,
        1 => rumqttc::QoS::AtLeastOnce,
        _ => rumqttc::QoS::ExactlyOnce,
    }
}

fn qos5(qos: u8) -> v5::mqttbytes::QoS {
    match qos {
        0 => v5::mqttbytes::QoS::AtMostOnce,
        1 => v5::mqttbytes::QoS::AtLeastOnce,
        _ => v5::mqttbytes::QoS::ExactlyOnce,
    }
}

fn event4(event: &rumqttc::Event) -> Event {
    use rumqttc::{Event as Event4, Packet};
    match event {
        Event4::Incoming(Packet::ConnAck(ack)) => Event::Connected {
            session_present: ack.session_present,
        },
        Event4::Incoming(Packet::PubAck(ack)) => Event::Acknowledged(ack.pkid),
        Event4::Incoming(Packet::PubRec(rec)) => Event::Received(rec.pkid),
        Event4::Incoming(Packet::PubComp(comp)) => Event::Acknowledged(comp.pkid),
        Event4::Outgoing(outgoing) => outgoing_event(outgoing),
        Event4::Incoming(_) => Event::Other,
    }
}

fn event5(event: &v5::Event) -> Event {
    use packet5::{Packet, PubAckReason as Ack, PubRecReason as Rec};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected {
            session_present: ack.session_present,
        },
        v5::Event::Incoming(Packet::PubAck(ack)) => match ack.reason {
            Ack::Success | Ack::NoMatchingSubscribers => Event::Acknowledged(ack.pkid),
            Ack::PayloadFormatInvalid => refused(ack.pkid, Reason::PayloadFormatInvalid),
            other => refused(ack.pkid, Reason::Other(format!("{other:?}"))),
        },
        v5::Event::Incoming(Packet::PubRec(rec)) => match rec.reason {
            Rec::Success | Rec::NoMatchingSubscribers => Event::Received(rec.pkid),
            Rec::PayloadFormatInvalid => refused(rec.pkid, Reason::PayloadFormatInvalid),
            other => refused(rec.pkid, Reason::Other(format!("{other:?}"))),
        },
        // With an error code too: after PUBREC the broker owned the message.
        v5::Event::Incoming(Packet::PubComp(comp)) => Event::Acknowledged(comp.pkid),
        v5::Event::Outgoing(outgoing) => outgoing_event(outgoing),
        v5::Event::Incoming(_) => Event::Other,
    }
}

fn refused(packet_id: u16, reason: Reason) -> Event {
    Event::Refused { packet_id, reason }
}

fn outgoing_event(outgoing: &Outgoing) -> Event {
    match outgoing {
        Outgoing::Publish(packet_id) => Event::Written(*packet_id),
        Outgoing::Disconnect => Event::Disconnected,
        _ => Event::Other,
    }
}

/// Whether rumqttc leaves a place in flight taken after `event`.
fn strands(event: &v5::Event) -> bool {
    use packet5::{Packet, PubCompReason, PubRecReason as Rec};
    match event {
        v5::Event::Incoming(Packet::PubRec(rec)) => {
            !matches!(rec.reason, Rec::Success | Rec::NoMatchingSubscribers)
        }
        v5::Event::Incoming(Packet::PubComp(comp)) => comp.reason != PubCompReason::Success,
        _ => false,
    }
}

fn receive_maximum(event: &v5::Event) -> Option<u16> {
    match event {
        v5::Event::Incoming(packet5::Packet::ConnAck(ack)) => ack.properties.as_ref()?.receive_max,
        _ => None,
    }
}
