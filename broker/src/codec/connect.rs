//! CONNECT of both versions.

use bytes::Bytes;

use super::properties::{self as id, Allowed, PropertyList, Value, message_property};
use super::reader::Reader;
use super::{Connect, DecodeError, Protocol, Will, reason};
use crate::tap::Topic;

const CONNECT_PROPERTIES: Allowed = Allowed::of(&[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::MAXIMUM_PACKET_SIZE,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE_INFORMATION,
    id::REQUEST_PROBLEM_INFORMATION,
    id::USER_PROPERTY,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
]);

const WILL_PROPERTIES: Allowed = Allowed::of(&[
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);

/// The version that a CONNECT frame asks for, as far as it can be read: says how to phrase a refusal.
pub(crate) fn protocol_of(frame: &Bytes, header: usize) -> Result<Protocol, DecodeError> {
    protocol(&mut Reader::over(frame, header, frame.len()))
}

fn protocol(reader: &mut Reader<'_>) -> Result<Protocol, DecodeError> {
    match (reader.text()?, reader.u8()?) {
        ("MQTT", 4) => Ok(Protocol::V311),
        ("MQTT", 5) => Ok(Protocol::V5),
        ("MQTT" | "MQIsdp", _) => Err(DecodeError {
            reason: reason::UNSUPPORTED_PROTOCOL,
            rule: "a protocol version other than 3.1.1 and 5",
        }),
        _ => Err(DecodeError::malformed("the protocol name is not MQTT")),
    }
}

/// Decodes the body of a CONNECT.
pub(super) fn connect(mut reader: Reader<'_>) -> Result<Connect, DecodeError> {
    let protocol = protocol(&mut reader)?;
    let flags = Flags::read(reader.u8()?, protocol)?;
    let mut connect = Connect {
        protocol,
        client_id: String::new(),
        clean_start: flags.clean_start,
        keep_alive_s: reader.u16()?,
        will: None,
        user: None,
        password: None,
        session_expiry_s: None,
        receive_maximum: u16::MAX,
        max_packet_bytes: u32::MAX,
        topic_alias_maximum: 0,
        request_problem_information: true,
        authentication_method: None,
    };
    if protocol == Protocol::V5 {
        connect_properties(&mut reader, &mut connect)?;
    }
    reader.name()?.clone_into(&mut connect.client_id);
    if flags.will {
        connect.will = Some(will(&mut reader, protocol, &flags)?);
    }
    if flags.user {
        connect.user = Some(reader.name()?.to_owned());
    }
    if flags.password {
        // The frame's buffer goes; a password is small and read once.
        connect.password = Some(Bytes::copy_from_slice(&reader.binary()?));
    }
    reader.finish()?;
    Ok(connect)
}

struct Flags {
    clean_start: bool,
    will: bool,
    will_qos: u8,
    will_retain: bool,
    user: bool,
    password: bool,
}

impl Flags {
    fn read(byte: u8, protocol: Protocol) -> Result<Self, DecodeError> {
        let flags = Self {
            clean_start: byte & 0x02 != 0,
            will: byte & 0x04 != 0,
            will_qos: (byte >> 3) & 0x03,
            will_retain: byte & 0x20 != 0,
            password: byte & 0x40 != 0,
            user: byte & 0x80 != 0,
        };
        if byte & 0x01 != 0 {
            return Err(DecodeError::malformed("the reserved CONNECT flag is set"));
        }
        if flags.will_qos == 3 || (!flags.will && (flags.will_qos != 0 || flags.will_retain)) {
            return Err(DecodeError::malformed("will flags that contradict each other"));
        }
        if protocol == Protocol::V311 && flags.password && !flags.user {
            return Err(DecodeError::malformed("a password without a user name"));
        }
        Ok(flags)
    }
}

fn connect_properties(reader: &mut Reader<'_>, connect: &mut Connect) -> Result<(), DecodeError> {
    let mut list = PropertyList::read(reader, CONNECT_PROPERTIES)?;
    let mut authentication_data = false;
    while let Some((id, value)) = list.next()? {
        match (id, value) {
            (id::SESSION_EXPIRY, Value::Four(seconds)) => connect.session_expiry_s = Some(seconds),
            (id::RECEIVE_MAXIMUM, Value::Two(count)) => connect.receive_maximum = count,
            (id::MAXIMUM_PACKET_SIZE, Value::Four(bytes)) => connect.max_packet_bytes = bytes,
            (id::TOPIC_ALIAS_MAXIMUM, Value::Two(count)) => connect.topic_alias_maximum = count,
            (id::REQUEST_PROBLEM_INFORMATION, Value::Byte(flag)) => {
                connect.request_problem_information = flag == 1;
            }
            (id::AUTHENTICATION_METHOD, Value::Text(method)) => {
                connect.authentication_method = Some(method.to_owned());
            }
            (id::AUTHENTICATION_DATA, _) => authentication_data = true,
            _ => {}
        }
    }
    if authentication_data && connect.authentication_method.is_none() {
        return Err(DecodeError::protocol("authentication data without a method"));
    }
    Ok(())
}

fn will(reader: &mut Reader<'_>, protocol: Protocol, flags: &Flags) -> Result<Will, DecodeError> {
    let (mut delay_s, mut properties) = (0, None);
    if protocol == Protocol::V5 {
        let mut list = PropertyList::read(reader, WILL_PROPERTIES)?;
        while let Some((id, value)) = list.next()? {
            if let (id::WILL_DELAY, Value::Four(seconds)) = (id, &value) {
                delay_s = *seconds;
            } else {
                message_property(&mut properties, id, &value)?;
            }
        }
    }
    let topic = reader.name()?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(DecodeError::malformed(
            "a will topic that is empty or has wildcards",
        ));
    }
    // Copied: a will lives as long as its session and must not keep the read buffer.
    let payload = Bytes::copy_from_slice(&reader.binary()?);
    Ok(Will {
        topic: Topic::from(topic),
        payload,
        qos: flags.will_qos,
        retain: flags.will_retain,
        delay_s,
        properties,
    })
}
