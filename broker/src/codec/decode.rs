//! The frame, and every packet that a client may send after CONNECT.

use std::ops::Range;

use bytes::Bytes;

use super::properties::{self as id, Allowed, PropertyList, Value, message_property};
use super::reader::Reader;
use super::{
    Ack, DecodeError, Disconnect, Packet, Protocol, Publish, RetainHandling, Subscribe, SubscribeOptions,
    Unsubscribe, connect, reason,
};
use crate::tap::Topic;

/// What the start of a buffer says of its first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// All of it is there: bytes of the fixed header, and of the whole packet.
    Complete { header: usize, total: usize },
    /// More is needed: bytes of the whole packet where the length is known.
    Partial { total: Option<usize> },
}

/// Measures the first packet of `buffer`, at most `max_bytes` long.
pub(crate) fn frame(buffer: &[u8], max_bytes: usize) -> Result<Frame, DecodeError> {
    if buffer.first().is_some_and(|first| first >> 4 == 0) {
        return Err(DecodeError::protocol("the forbidden packet type 0"));
    }
    let mut length = 0_usize;
    for (at, shift) in [(1, 0), (2, 7), (3, 14), (4, 21)] {
        let Some(byte) = buffer.get(at) else {
            return Ok(Frame::Partial { total: None });
        };
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let (header, total) = (at + 1, at + 1 + length);
            if total > max_bytes {
                return Err(DecodeError {
                    reason: reason::PACKET_TOO_LARGE,
                    rule: "a packet over the maximum size",
                });
            }
            return Ok(if buffer.len() >= total {
                Frame::Complete { header, total }
            } else {
                Frame::Partial { total: Some(total) }
            });
        }
    }
    Err(DecodeError::malformed(
        "a remaining length of more than four bytes",
    ))
}

/// Decodes the complete frame at `frame` of `chunk`, whose fixed header is `header` bytes long. Slices in the
/// packet share `chunk`.
pub(crate) fn decode(
    chunk: &Bytes,
    frame: Range<usize>,
    header: usize,
    protocol: Protocol,
) -> Result<Packet, DecodeError> {
    let first = chunk.get(frame.start).copied().unwrap_or_default();
    let mut reader = Reader::over(chunk, frame.start + header, frame.end);
    match (first >> 4, first & 0x0F) {
        (3, flags) => publish(&mut reader, flags, protocol).map(Packet::Publish),
        (4, 0) => ack(&mut reader, protocol, &PUBACK_REASONS).map(Packet::PubAck),
        (5, 0) => ack(&mut reader, protocol, &PUBACK_REASONS).map(Packet::PubRec),
        (6, 2) => ack(&mut reader, protocol, &PUBREL_REASONS).map(Packet::PubRel),
        (7, 0) => ack(&mut reader, protocol, &PUBREL_REASONS).map(Packet::PubComp),
        (8, 2) => subscribe(&mut reader, protocol).map(Packet::Subscribe),
        (10, 2) => unsubscribe(&mut reader, protocol).map(Packet::Unsubscribe),
        (12, 0) => reader.finish().map(|()| Packet::PingReq),
        (14, 0) => disconnect(&mut reader, protocol).map(Packet::Disconnect),
        (1, 0) => connect::connect(reader).map(|connect| Packet::Connect(Box::new(connect))),
        (15, 0) if protocol == Protocol::V5 => Ok(Packet::Auth),
        (2 | 9 | 11 | 13, 0) => Err(DecodeError::protocol("a packet that only a server sends")),
        _ => Err(DecodeError::malformed(
            "an unknown packet type or wrong fixed header flags",
        )),
    }
}

const PUBLISH_PROPERTIES: Allowed = Allowed::of(&[
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
    id::CONTENT_TYPE,
    // Servers send it.
    id::SUBSCRIPTION_ID,
]);

fn publish(reader: &mut Reader<'_>, flags: u8, protocol: Protocol) -> Result<Publish, DecodeError> {
    let (dup, qos, retain) = (flags & 0x08 != 0, (flags >> 1) & 0x03, flags & 0x01 != 0);
    if qos == 3 {
        return Err(DecodeError::malformed("QoS 3"));
    }
    if dup && qos == 0 {
        return Err(DecodeError::malformed("the DUP flag with QoS 0"));
    }
    let (name, topic) = reader.name_slice()?;
    if name.contains(['+', '#']) {
        return Err(DecodeError::malformed("wildcards in a topic name"));
    }
    let packet_id = if qos == 0 { 0 } else { reader.packet_id()? };
    let (mut topic_alias, mut properties) = (None, None);
    if protocol == Protocol::V5 {
        let mut list = PropertyList::read(reader, PUBLISH_PROPERTIES)?;
        while let Some((id, value)) = list.next()? {
            match (id, &value) {
                (id::TOPIC_ALIAS, Value::Two(alias)) => topic_alias = Some(*alias),
                (id::SUBSCRIPTION_ID, _) => {
                    return Err(DecodeError::protocol("a subscription identifier from a client"));
                }
                _ => {
                    message_property(&mut properties, id, &value)?;
                }
            }
        }
    }
    if name.is_empty() && topic_alias.is_none() {
        return Err(match protocol {
            Protocol::V5 => DecodeError::protocol("an empty topic name without a topic alias"),
            Protocol::V311 => DecodeError::malformed("an empty topic name"),
        });
    }
    let topic = Topic::from_checked(topic);
    Ok(Publish {
        topic,
        payload: reader.rest(),
        qos,
        dup,
        retain,
        packet_id,
        topic_alias,
        properties,
    })
}

const ACK_PROPERTIES: Allowed = Allowed::of(&[id::REASON_STRING, id::USER_PROPERTY]);
const PUBACK_REASONS: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_REASONS: [u8; 2] = [0x00, 0x92];

fn ack(reader: &mut Reader<'_>, protocol: Protocol, reasons: &[u8]) -> Result<Ack, DecodeError> {
    let packet_id = reader.packet_id()?;
    let mut reason = reason::SUCCESS;
    if protocol == Protocol::V5 && !reader.is_empty() {
        reason = reader.u8()?;
        if !reasons.contains(&reason) {
            return Err(DecodeError::protocol(
                "a reason code that does not belong in this packet",
            ));
        }
        if !reader.is_empty() {
            PropertyList::read(reader, ACK_PROPERTIES)?.skip()?;
        }
    }
    reader.finish()?;
    Ok(Ack { packet_id, reason })
}

const SUBSCRIBE_PROPERTIES: Allowed = Allowed::of(&[id::SUBSCRIPTION_ID, id::USER_PROPERTY]);

fn subscribe(reader: &mut Reader<'_>, protocol: Protocol) -> Result<Subscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    let mut subscription_id = None;
    if protocol == Protocol::V5 {
        let mut list = PropertyList::read(reader, SUBSCRIBE_PROPERTIES)?;
        while let Some((_, value)) = list.next()? {
            if let Value::Four(id) = value {
                subscription_id = Some(id);
            }
        }
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.name()?.to_owned();
        filters.push((filter, subscribe_options(reader.u8()?, protocol)?));
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("a SUBSCRIBE without a topic filter"));
    }
    Ok(Subscribe {
        packet_id,
        subscription_id,
        filters,
    })
}

fn subscribe_options(byte: u8, protocol: Protocol) -> Result<SubscribeOptions, DecodeError> {
    let reserved = match protocol {
        Protocol::V311 => 0xFC,
        Protocol::V5 => 0xC0,
    };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed(
            "reserved bits in the subscription options",
        ));
    }
    let retain_handling = match (byte >> 4) & 0x03 {
        0 => RetainHandling::Always,
        1 => RetainHandling::OnlyIfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::protocol("retain handling 3")),
    };
    match byte & 0x03 {
        3 => Err(DecodeError::malformed("a subscription of QoS 3")),
        qos => Ok(SubscribeOptions {
            qos,
            no_local: byte & 0x04 != 0,
            retain_as_published: byte & 0x08 != 0,
            retain_handling,
        }),
    }
}

const UNSUBSCRIBE_PROPERTIES: Allowed = Allowed::of(&[id::USER_PROPERTY]);

fn unsubscribe(reader: &mut Reader<'_>, protocol: Protocol) -> Result<Unsubscribe, DecodeError> {
    let packet_id = reader.packet_id()?;
    if protocol == Protocol::V5 {
        PropertyList::read(reader, UNSUBSCRIBE_PROPERTIES)?.skip()?;
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(reader.name()?.to_owned());
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("an UNSUBSCRIBE without a topic filter"));
    }
    Ok(Unsubscribe { packet_id, filters })
}

const DISCONNECT_PROPERTIES: Allowed = Allowed::of(&[
    id::SESSION_EXPIRY,
    id::SERVER_REFERENCE,
    id::REASON_STRING,
    id::USER_PROPERTY,
]);
/// Those that a client may send.
const DISCONNECT_REASONS: [u8; 13] = [
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
];

fn disconnect(reader: &mut Reader<'_>, protocol: Protocol) -> Result<Disconnect, DecodeError> {
    let mut disconnect = Disconnect {
        reason: reason::SUCCESS,
        session_expiry_s: None,
    };
    if protocol == Protocol::V5 && !reader.is_empty() {
        disconnect.reason = reader.u8()?;
        if !DISCONNECT_REASONS.contains(&disconnect.reason)
            && disconnect.reason != reason::PAYLOAD_FORMAT_INVALID
        {
            return Err(DecodeError::protocol(
                "a reason code that does not belong in this packet",
            ));
        }
        if !reader.is_empty() {
            let mut list = PropertyList::read(reader, DISCONNECT_PROPERTIES)?;
            while let Some((_, value)) = list.next()? {
                if let Value::Four(seconds) = value {
                    disconnect.session_expiry_s = Some(seconds);
                }
            }
        }
    }
    reader.finish()?;
    Ok(disconnect)
}
