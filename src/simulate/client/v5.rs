//! MQTT 5.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Packet, PubAckReason, PubCompReason, PubRecReason, PubRel, Publish, PublishProperties,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event as RawEvent, EventLoop, MqttOptions, Request};

use super::{Event, Reason, Resend, network, outgoing};
use crate::simulate::args::{Config, Login};
use crate::simulate::payload::Message;

/// rumqttc refuses a shorter one; where the broker asks for a shorter one in CONNACK, it keeps to that.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// How long the broker may forget a machine that is gone.
const SESSION_EXPIRY_S: u32 = 3600;

pub(super) fn client(config: &Config, id: String, window: u16, capacity: usize) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, &config.host, config.port);
    options
        .set_keep_alive(config.keep_alive.max(KEEP_ALIVE_MIN))
        .set_outgoing_inflight_upper_limit(window);
    // Later connections ask for the session that the first one starts.
    options.set_clean_start(true).set_network_options(network());
    if config.persistent_session() {
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
    }
    if let Some(Login { username, password }) = &config.login {
        options.set_credentials(username, password);
    }
    AsyncClient::new(options, capacity)
}

pub(super) fn publish(client: &AsyncClient, qos: u8, message: &Message) -> bool {
    let (topic, payload) = (message.topic.to_string(), message.payload.clone());
    match properties(message) {
        Some(properties) => client
            .try_publish_with_properties(topic, level(qos), false, payload, properties)
            .is_ok(),
        None => client.try_publish(topic, level(qos), false, payload).is_ok(),
    }
}

/// What was read or written but not polled yet; every request is forgotten.
pub(super) fn reset(eventloop: &mut EventLoop) -> Vec<Event> {
    let events = eventloop.state.events.drain(..).map(|raw| event(&raw)).collect();
    eventloop.clean();
    eventloop.pending.clear();
    eventloop.state.collision = None;
    events
}

pub(super) fn event(raw: &RawEvent) -> Event {
    match raw {
        RawEvent::Incoming(Packet::ConnAck(ack)) => Event::Connected {
            session_present: ack.session_present,
        },
        RawEvent::Incoming(Packet::PubAck(ack)) => match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Event::Acknowledged(ack.pkid),
            PubAckReason::PayloadFormatInvalid => refused(ack.pkid, Reason::PayloadFormatInvalid),
            other => refused(ack.pkid, Reason::Other(format!("{other:?}"))),
        },
        RawEvent::Incoming(Packet::PubRec(rec)) => match rec.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Event::Received(rec.pkid),
            PubRecReason::PayloadFormatInvalid => refused(rec.pkid, Reason::PayloadFormatInvalid),
            other => refused(rec.pkid, Reason::Other(format!("{other:?}"))),
        },
        // With an error code too: after PUBREC the broker owned the message.
        RawEvent::Incoming(Packet::PubComp(comp)) => Event::Acknowledged(comp.pkid),
        RawEvent::Outgoing(written) => outgoing(written),
        RawEvent::Incoming(_) => Event::Other,
    }
}

fn refused(packet_id: u16, reason: Reason) -> Event {
    Event::Refused { packet_id, reason }
}

pub(super) fn request(resend: &Resend<'_>, qos: u8) -> Request {
    match resend {
        Resend::Publish { packet_id, message } => {
            let payload = message.payload.clone();
            let mut publish = Publish::new(&*message.topic, level(qos), payload, properties(message));
            (publish.pkid, publish.dup) = (*packet_id, true);
            Request::Publish(publish)
        }
        Resend::Release { packet_id } => Request::PubRel(PubRel::new(*packet_id, None)),
    }
}

/// Whether rumqttc leaves a place in flight taken after `raw`.
pub(super) fn strands(raw: &RawEvent) -> bool {
    match raw {
        RawEvent::Incoming(Packet::PubRec(rec)) => !matches!(
            rec.reason,
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers
        ),
        RawEvent::Incoming(Packet::PubComp(comp)) => comp.reason != PubCompReason::Success,
        _ => false,
    }
}

/// The broker's receive maximum, where `raw` tells it.
pub(super) fn receive_maximum(raw: &RawEvent) -> Option<u16> {
    match raw {
        RawEvent::Incoming(Packet::ConnAck(ack)) => ack.properties.as_ref()?.receive_max,
        _ => None,
    }
}

/// Whether trying again cannot help.
pub(super) fn is_final(error: &ConnectionError) -> bool {
    use ConnectReturnCode::{BadUserNamePassword, Banned, ClientIdentifierNotValid, NotAuthorized};
    matches!(
        error,
        ConnectionError::ConnectionRefused(
            BadUserNamePassword | NotAuthorized | Banned | ClientIdentifierNotValid
        )
    )
}

fn properties(message: &Message) -> Option<PublishProperties> {
    message.is_protobuf.then(|| PublishProperties {
        content_type: Some(shopfloor_proto::CONTENT_TYPE.to_owned()),
        ..Default::default()
    })
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}
