//! Every packet that a server sends, appended to one buffer, so that many make one write.

use bytes::{BufMut, BytesMut};

use super::properties as id;
use super::{Protocol, reason};
use crate::tap::Properties;

/// The first byte of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // The names of the standard.
pub(crate) enum AckKind {
    /// PUBACK.
    Ack = 0x40,
    /// PUBREC.
    Received = 0x50,
    /// PUBREL.
    Release = 0x62,
    /// PUBCOMP.
    Complete = 0x70,
}

/// What CONNACK says.
#[derive(Debug, Default)]
pub(crate) struct ConnAck<'a> {
    pub(crate) session_present: bool,
    pub(crate) reason: u8,
    pub(crate) reason_string: Option<&'a str>,
    pub(crate) assigned_client_id: Option<&'a str>,
    /// Where the server's differs from what was asked.
    pub(crate) session_expiry_s: Option<u32>,
    pub(crate) server_keep_alive_s: Option<u16>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) max_packet_bytes: Option<u32>,
    pub(crate) topic_alias_maximum: Option<u16>,
}

pub(crate) fn connack(out: &mut BytesMut, protocol: Protocol, connack: &ConnAck<'_>) {
    if protocol == Protocol::V311 {
        out.put_slice(&[
            0x20,
            2,
            u8::from(connack.session_present),
            connack_code_v311(connack.reason),
        ]);
        return;
    }
    let mut properties = Vec::new();
    put_four(&mut properties, id::SESSION_EXPIRY, connack.session_expiry_s);
    put_two(&mut properties, id::RECEIVE_MAXIMUM, connack.receive_maximum);
    put_four(&mut properties, id::MAXIMUM_PACKET_SIZE, connack.max_packet_bytes);
    put_text(
        &mut properties,
        id::ASSIGNED_CLIENT_ID,
        connack.assigned_client_id,
    );
    put_two(
        &mut properties,
        id::TOPIC_ALIAS_MAXIMUM,
        connack.topic_alias_maximum,
    );
    put_text(&mut properties, id::REASON_STRING, connack.reason_string);
    put_two(
        &mut properties,
        id::SERVER_KEEP_ALIVE,
        connack.server_keep_alive_s,
    );
    out.put_u8(0x20);
    put_variable(out, 2 + variable_bytes(properties.len()) + properties.len());
    out.put_slice(&[u8::from(connack.session_present), connack.reason]);
    put_variable(out, properties.len());
    out.put_slice(&properties);
}

/// 3.1.1 has six codes.
fn connack_code_v311(reason: u8) -> u8 {
    match reason {
        reason::SUCCESS => 0,
        reason::UNSUPPORTED_PROTOCOL => 1,
        reason::CLIENT_ID_INVALID => 2,
        reason::BAD_USER_OR_PASSWORD => 4,
        reason::NOT_AUTHORIZED => 5,
        _ => 3,
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. Reason and text are MQTT 5's; the text is left out where the packet would
/// be over `max_bytes`.
pub(crate) fn ack(
    out: &mut BytesMut,
    protocol: Protocol,
    kind: AckKind,
    packet_id: u16,
    reason: u8,
    text: Option<&str>,
    max_bytes: u32,
) {
    let [high, low] = packet_id.to_be_bytes();
    if protocol == Protocol::V311 || (reason == reason::SUCCESS && text.is_none()) {
        out.put_slice(&[kind as u8, 2, high, low]);
        return;
    }
    let mut properties = Vec::new();
    put_text(&mut properties, id::REASON_STRING, text);
    let remaining = 3 + variable_bytes(properties.len()) + properties.len();
    if properties.is_empty() || 1 + variable_bytes(remaining) + remaining > max_bytes as usize {
        out.put_slice(&[kind as u8, 3, high, low, reason]);
        return;
    }
    out.put_u8(kind as u8);
    put_variable(out, remaining);
    out.put_slice(&[high, low, reason]);
    put_variable(out, properties.len());
    out.put_slice(&properties);
}

/// SUBACK: one code a filter. 3.1.1 knows one refusal.
pub(crate) fn suback(out: &mut BytesMut, protocol: Protocol, packet_id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    match protocol {
        Protocol::V311 => {
            put_variable(out, 2 + codes.len());
            out.put_u16(packet_id);
            out.extend(codes.iter().map(|code| if *code > 2 { 0x80 } else { *code }));
        }
        Protocol::V5 => {
            put_variable(out, 3 + codes.len());
            out.put_u16(packet_id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

/// UNSUBACK: MQTT 5 has one code a filter, 3.1.1 none.
pub(crate) fn unsuback(out: &mut BytesMut, protocol: Protocol, packet_id: u16, codes: &[u8]) {
    out.put_u8(0xB0);
    match protocol {
        Protocol::V311 => {
            put_variable(out, 2);
            out.put_u16(packet_id);
        }
        Protocol::V5 => {
            put_variable(out, 3 + codes.len());
            out.put_u16(packet_id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// DISCONNECT, which only an MQTT 5 server sends.
pub(crate) fn disconnect(out: &mut BytesMut, reason: u8, text: Option<&str>, max_bytes: u32) {
    let mut properties = Vec::new();
    put_text(&mut properties, id::REASON_STRING, text);
    let remaining = 1 + variable_bytes(properties.len()) + properties.len();
    if properties.is_empty() || 1 + variable_bytes(remaining) + remaining > max_bytes as usize {
        out.put_slice(&[0xE0, 1, reason]);
        return;
    }
    out.put_u8(0xE0);
    put_variable(out, remaining);
    out.put_u8(reason);
    put_variable(out, properties.len());
    out.put_slice(&properties);
}

/// PUBLISH as it goes to a subscriber.
#[derive(Debug)]
pub(crate) struct Publish<'a> {
    /// Empty where `topic_alias` already stands for it.
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: u16,
    pub(crate) topic_alias: Option<u16>,
    pub(crate) subscription_ids: &'a [u32],
    pub(crate) properties: Option<&'a Properties>,
    /// What is left of the message's expiry interval.
    pub(crate) message_expiry_s: Option<u32>,
}

/// Appends the packet and returns true, or returns false and appends nothing where it is over `max_bytes`.
pub(crate) fn publish(out: &mut BytesMut, protocol: Protocol, publish: &Publish<'_>, max_bytes: u32) -> bool {
    let mut properties = Vec::new();
    if protocol == Protocol::V5 {
        put_message_properties(&mut properties, publish);
    }
    let property_bytes = match protocol {
        Protocol::V311 => 0,
        Protocol::V5 => variable_bytes(properties.len()) + properties.len(),
    };
    let id_bytes = if publish.qos == 0 { 0 } else { 2 };
    let remaining = 2 + publish.topic.len() + id_bytes + property_bytes + publish.payload.len();
    if remaining > MAX_REMAINING || 1 + variable_bytes(remaining) + remaining > max_bytes as usize {
        return false;
    }
    out.reserve(5 + remaining);
    out.put_u8(0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain));
    put_variable(out, remaining);
    out.put_u16(short(publish.topic.len()));
    out.put_slice(publish.topic.as_bytes());
    if publish.qos > 0 {
        out.put_u16(publish.packet_id);
    }
    if protocol == Protocol::V5 {
        put_variable(out, properties.len());
        out.put_slice(&properties);
    }
    out.put_slice(publish.payload);
    true
}

/// Largest remaining length that four bytes can say.
const MAX_REMAINING: usize = 268_435_455;

fn put_message_properties(out: &mut Vec<u8>, publish: &Publish<'_>) {
    put_two(out, id::TOPIC_ALIAS, publish.topic_alias);
    for subscription_id in publish.subscription_ids {
        out.put_u8(id::SUBSCRIPTION_ID);
        put_variable(out, *subscription_id as usize);
    }
    put_four(out, id::MESSAGE_EXPIRY, publish.message_expiry_s);
    let Some(properties) = publish.properties else {
        return;
    };
    if let Some(utf8) = properties.payload_format_utf8 {
        out.put_slice(&[id::PAYLOAD_FORMAT, u8::from(utf8)]);
    }
    put_text(out, id::CONTENT_TYPE, properties.content_type.as_deref());
    put_text(out, id::RESPONSE_TOPIC, properties.response_topic.as_deref());
    if let Some(data) = &properties.correlation_data {
        out.put_u8(id::CORRELATION_DATA);
        put_sized(out, data);
    }
    for (name, value) in &properties.user {
        out.put_u8(id::USER_PROPERTY);
        put_sized(out, name.as_bytes());
        put_sized(out, value.as_bytes());
    }
}

fn put_two(out: &mut Vec<u8>, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.put_u8(id);
        out.put_u16(value);
    }
}

fn put_four(out: &mut Vec<u8>, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.put_u8(id);
        out.put_u32(value);
    }
}

fn put_text(out: &mut Vec<u8>, id: u8, text: Option<&str>) {
    if let Some(text) = text {
        out.put_u8(id);
        // Our own reason strings; a text never grows past what a length can say.
        let end = (0..=text.len().min(MAX_TEXT))
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        put_sized(out, text.as_bytes().get(..end).unwrap_or_default());
    }
}

const MAX_TEXT: usize = u16::MAX as usize;

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u16(short(bytes.len()));
    out.put_slice(bytes);
}

/// Strings come from packets, whose lengths are 16 bits, or from `put_text`, which cuts.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

fn put_variable(out: &mut impl BufMut, mut value: usize) {
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}
