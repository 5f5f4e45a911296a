//! MQTT 3.1.1.

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as RawEvent, EventLoop, MqttOptions, Packet,
    PubRel, Publish, QoS, Request,
};

use super::{Event, Resend, network, outgoing};
use crate::simulate::args::{Config, Login};
use crate::simulate::payload::Message;

pub(super) fn client(config: &Config, id: String, window: u16, capacity: usize) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, &config.host, config.port);
    options
        .set_keep_alive(config.keep_alive)
        .set_inflight(window)
        .set_clean_session(!config.persistent_session());
    if let Some(Login { username, password }) = &config.login {
        options.set_credentials(username, password);
    }
    let (client, mut eventloop) = AsyncClient::new(options, capacity);
    eventloop.set_network_options(network());
    (client, eventloop)
}

pub(super) fn publish(client: &AsyncClient, qos: u8, message: &Message) -> bool {
    client
        .try_publish(
            message.topic.to_string(),
            level(qos),
            false,
            message.payload.clone(),
        )
        .is_ok()
}

/// MQTT 3.1.1 clears a session only in a connection of its own.
pub(super) async fn clear_session(eventloop: &mut EventLoop) -> Result<(), ConnectionError> {
    eventloop.mqtt_options.set_clean_session(true);
    let connected = eventloop.poll().await;
    eventloop.clean();
    eventloop.mqtt_options.set_clean_session(false);
    connected.map(|_| ())
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
        RawEvent::Incoming(Packet::PubAck(ack)) => Event::Acknowledged(ack.pkid),
        RawEvent::Incoming(Packet::PubRec(rec)) => Event::Received(rec.pkid),
        RawEvent::Incoming(Packet::PubComp(comp)) => Event::Acknowledged(comp.pkid),
        RawEvent::Outgoing(written) => outgoing(written),
        RawEvent::Incoming(_) => Event::Other,
    }
}

pub(super) fn request(resend: &Resend<'_>, qos: u8) -> Request {
    match resend {
        Resend::Publish { packet_id, message } => {
            let mut publish = Publish::new(&*message.topic, level(qos), message.payload.clone());
            (publish.pkid, publish.dup) = (*packet_id, true);
            Request::Publish(publish)
        }
        Resend::Release { packet_id } => Request::PubRel(PubRel::new(*packet_id)),
    }
}

/// Whether trying again cannot help.
pub(super) fn is_final(error: &ConnectionError) -> bool {
    use ConnectReturnCode::{BadClientId, BadUserNamePassword, NotAuthorized};
    matches!(
        error,
        ConnectionError::ConnectionRefused(BadUserNamePassword | NotAuthorized | BadClientId)
    )
}

fn level(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}
