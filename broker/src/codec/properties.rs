//! MQTT 5 property lists: known, allowed in this packet, sent once, in range.

use bytes::Bytes;

use super::DecodeError;
use super::reader::Reader;
use crate::tap::Properties;

pub(crate) const PAYLOAD_FORMAT: u8 = 1;
pub(crate) const MESSAGE_EXPIRY: u8 = 2;
pub(crate) const CONTENT_TYPE: u8 = 3;
pub(crate) const RESPONSE_TOPIC: u8 = 8;
pub(crate) const CORRELATION_DATA: u8 = 9;
pub(crate) const SUBSCRIPTION_ID: u8 = 11;
pub(crate) const SESSION_EXPIRY: u8 = 17;
pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
pub(crate) const AUTHENTICATION_METHOD: u8 = 21;
pub(crate) const AUTHENTICATION_DATA: u8 = 22;
pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 23;
pub(crate) const WILL_DELAY: u8 = 24;
pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 25;
pub(crate) const SERVER_REFERENCE: u8 = 28;
pub(crate) const REASON_STRING: u8 = 31;
pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
pub(crate) const TOPIC_ALIAS: u8 = 35;
pub(crate) const USER_PROPERTY: u8 = 38;
pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 39;

/// The properties that a packet may carry, one bit an identifier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed(u64);

impl Allowed {
    pub(crate) const fn of(ids: &[u8]) -> Self {
        let (mut bits, mut at) = (0_u64, 0);
        while at < ids.len() {
            #[allow(clippy::indexing_slicing)] // `at` is below the length; `get` is not const here
            let id = ids[at];
            bits |= 1 << id;
            at += 1;
        }
        Self(bits)
    }

    const fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }
}

/// One property's value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Text(&'a str),
    Binary(Bytes),
    Pair(&'a str, &'a str),
}

/// Walks one property list.
#[derive(Debug)]
pub(crate) struct PropertyList<'a> {
    reader: Reader<'a>,
    allowed: Allowed,
    seen: u64,
}

impl<'a> PropertyList<'a> {
    /// Takes the list's length and its bytes off `reader`.
    pub(crate) fn read(reader: &mut Reader<'a>, allowed: Allowed) -> Result<Self, DecodeError> {
        let bytes = reader.variable()?;
        let reader = reader.part(bytes as usize)?;
        Ok(Self {
            reader,
            allowed,
            seen: 0,
        })
    }

    /// The next property, or `None` at the list's end.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Value<'a>)>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = u8::try_from(self.reader.variable()?)
            .ok()
            .filter(|id| self.allowed.has(*id))
            .ok_or(DecodeError::malformed(
                "a property that is unknown or does not belong in this packet",
            ))?;
        // User properties are the only ones that a client may repeat.
        if id != USER_PROPERTY && self.seen & (1 << id) != 0 {
            return Err(DecodeError::protocol("a property that was sent twice"));
        }
        self.seen |= 1 << id;
        Ok(Some((id, self.value(id)?)))
    }

    fn value(&mut self, id: u8) -> Result<Value<'a>, DecodeError> {
        let reader = &mut self.reader;
        Ok(match id {
            PAYLOAD_FORMAT | REQUEST_PROBLEM_INFORMATION | REQUEST_RESPONSE_INFORMATION => {
                match reader.u8()? {
                    flag @ 0..=1 => Value::Byte(flag),
                    _ => return Err(DecodeError::protocol("a flag property that is neither 0 nor 1")),
                }
            }
            RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => match (id, reader.u16()?) {
                (RECEIVE_MAXIMUM, 0) => return Err(DecodeError::protocol("receive maximum 0")),
                (TOPIC_ALIAS, 0) => {
                    return Err(DecodeError {
                        reason: super::reason::TOPIC_ALIAS_INVALID,
                        rule: "topic alias 0",
                    });
                }
                (_, value) => Value::Two(value),
            },
            MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY => Value::Four(reader.u32()?),
            MAXIMUM_PACKET_SIZE => match reader.u32()? {
                0 => return Err(DecodeError::protocol("maximum packet size 0")),
                value => Value::Four(value),
            },
            SUBSCRIPTION_ID => match reader.variable()? {
                0 => return Err(DecodeError::protocol("subscription identifier 0")),
                value => Value::Four(value),
            },
            CORRELATION_DATA | AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
            USER_PROPERTY => Value::Pair(reader.text()?, reader.text()?),
            _ => Value::Text(reader.text()?),
        })
    }

    /// Checks the whole list where no value in it matters.
    pub(crate) fn skip(mut self) -> Result<(), DecodeError> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

/// Takes a property of an application message into `properties`; false where it is none.
pub(crate) fn message_property(
    properties: &mut Option<Box<Properties>>,
    id: u8,
    value: &Value<'_>,
) -> Result<bool, DecodeError> {
    match (id, value) {
        (PAYLOAD_FORMAT, Value::Byte(flag)) => fresh(properties).payload_format_utf8 = Some(*flag == 1),
        (MESSAGE_EXPIRY, Value::Four(seconds)) => fresh(properties).message_expiry_s = Some(*seconds),
        (CONTENT_TYPE, Value::Text(text)) => fresh(properties).content_type = Some((*text).to_owned()),
        (RESPONSE_TOPIC, Value::Text(text)) => {
            if text.is_empty() || text.contains(['+', '#']) {
                return Err(DecodeError::protocol(
                    "a response topic that is empty or has wildcards",
                ));
            }
            fresh(properties).response_topic = Some((*text).to_owned());
        }
        (CORRELATION_DATA, Value::Binary(bytes)) => fresh(properties).correlation_data = Some(bytes.clone()),
        (USER_PROPERTY, Value::Pair(name, text)) => {
            fresh(properties)
                .user
                .push(((*name).to_owned(), (*text).to_owned()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn fresh(properties: &mut Option<Box<Properties>>) -> &mut Properties {
    properties.get_or_insert_with(Box::default)
}
