//! What a payload must be before a Kafka client may see it.
//!
//! The migration client dies of a value that breaks its rules, so a payload is read once here, straight from its
//! bytes, and nothing that fails goes on. The rules of the telemetry topics are the client's own, narrowed where
//! Postgres could not keep the value.
//!
//! Layout: [`protobuf`] turns `shopfloor.v1` payloads into JSON; `fields` reads one JSON object without a tree;
//! `timestamp` knows the two time formats; this file holds the rules.

mod fields;
pub mod protobuf;
pub mod timestamp;

use std::borrow::Cow;

use serde::Deserialize;
use shopfloor_proto::v1;
use shopfloor_proto::v1::telemetry_record::Body;

use fields::{Field, Fields, Value};

/// Largest id: a Postgres `integer`.
const MAX_ID: i64 = i32::MAX as i64;
/// Longest material name, in characters.
const MAX_NAME_CHARS: usize = 255;
/// Longest price, in characters.
const MAX_PRICE_CHARS: usize = 40;

/// What a route's payload must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// One produced unit, for the topic `supply_chain`.
    SupplyChain,
    /// One part, for the topic `part_information`.
    PartInformation,
    /// One material, for the topic `material`.
    Material,
    /// Any one JSON object.
    Json,
    /// Any bytes.
    Raw,
}

impl Schema {
    pub const ALL: [Self; 5] = [
        Self::SupplyChain,
        Self::PartInformation,
        Self::Material,
        Self::Json,
        Self::Raw,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::SupplyChain => "supply_chain",
            Self::PartInformation => "part_information",
            Self::Material => "material",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }

    /// The production API takes it, and protobuf stands for it.
    pub fn is_telemetry(self) -> bool {
        self.client_topic().is_some()
    }

    /// The client topic that this schema was made for.
    pub fn client_topic(self) -> Option<&'static str> {
        self.is_client_schema().then(|| self.name())
    }

    /// The schema that a client topic asks for, where machines write it at all.
    pub fn of_client_topic(topic: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|schema| schema.client_topic() == Some(topic))
    }

    fn is_client_schema(self) -> bool {
        matches!(self, Self::SupplyChain | Self::PartInformation | Self::Material)
    }
}

/// Why a payload is not accepted. The text names the field, what is wrong with it and what to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("the payload is not UTF-8 from byte {at} on: send JSON in UTF-8")]
    NotUtf8 { at: usize },
    #[error("the payload is not one JSON object ({why}): send one object and nothing else")]
    NotObject { why: String },
    #[error("`{field}` is missing: send {expected}")]
    Missing {
        field: &'static str,
        expected: &'static str,
    },
    #[error("`{field}` is {found}: send {expected}")]
    Value {
        field: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("`{field}` stands in the object twice: send it once")]
    Duplicate { field: &'static str },
    #[error("`materialIdODS` is not allowed here: leave it out")]
    Forbidden,
    #[error("`isDeleted` is true: machines cannot delete; send DELETE to the production API instead")]
    Deletion,
    #[error("`{field}` is missing and the route does not add it: send {expected}, or set stamp = true")]
    NotStamped {
        field: &'static str,
        expected: &'static str,
    },
    #[error("the payload is not a protobuf shopfloor.v1.{message} ({why}): send that message, or JSON")]
    NotProtobuf { message: &'static str, why: String },
    #[error("`id` is missing and no production API is configured to assign one: send an id")]
    NoApi,
    #[error("{why}: publish on a topic whose levels make a Kafka topic")]
    Topic { why: String },
    #[error("the payload has {bytes} bytes as JSON, where at most {max_bytes} can be stored: send less")]
    TooLarge { bytes: u64, max_bytes: u64 },
}

impl Violation {
    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotObject { .. } => "not_json_object",
            Self::Missing { .. } => "missing_field",
            Self::Value { .. } => "bad_value",
            Self::Duplicate { .. } => "duplicate_field",
            Self::Forbidden => "forbidden_field",
            Self::Deletion => "deletion",
            Self::NotStamped { .. } => "not_stamped",
            Self::NotProtobuf { .. } => "not_protobuf",
            Self::NoApi => "no_api_for_id",
            Self::Topic { .. } => "bad_topic",
            Self::TooLarge { .. } => "too_large",
        }
    }
}

/// What the check learns on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    pub machine_id: Option<i32>,
    pub part_id: Option<i32>,
    /// The part's or the material's own id.
    pub id: Option<i32>,
    /// Milliseconds since the Unix epoch.
    pub time_of_production_ms: Option<i64>,
    pub has_is_deleted: bool,
    pub has_last_update: bool,
}

/// Checks a payload. `stamped`: the sink adds `isDeleted` and `lastUpdate` where they are missing.
pub fn check(schema: Schema, payload: &[u8], stamped: bool) -> Result<Checked, Violation> {
    if schema == Schema::Raw {
        return Ok(Checked::default());
    }
    let fields = Fields::read(payload)?;
    let mut checked = check_stamps(&fields)?;
    match schema {
        Schema::SupplyChain => {
            let unit = Unit::read(&fields)?;
            checked.machine_id = Some(unit.machine_id);
            checked.part_id = Some(unit.part_id);
            checked.time_of_production_ms = Some(unit.time_of_production_ms);
        }
        Schema::PartInformation => checked.id = Part::read(&fields)?.id,
        Schema::Material => checked.id = Material::read(&fields)?.id,
        Schema::Json | Schema::Raw => {}
    }
    if schema.is_telemetry() && !stamped {
        require_stamps(checked)?;
    }
    Ok(checked)
}

/// The production API's message of a payload that passed the check; `None` for schemas that it does not take.
pub fn body(schema: Schema, payload: &[u8]) -> Result<Option<Body>, Violation> {
    if !schema.is_telemetry() {
        return Ok(None);
    }
    let fields = Fields::read(payload)?;
    Ok(match schema {
        Schema::SupplyChain => Some(Body::Unit(Unit::read(&fields)?.message())),
        Schema::PartInformation => Some(Body::Part(Part::read(&fields)?.message())),
        Schema::Material => Some(Body::Material(Material::read(&fields)?.message())),
        Schema::Json | Schema::Raw => None,
    })
}

const LAST_UPDATE: &str = "\"YYYY-MM-DD HH:MM:SS.0000000\" (UTC)";

fn check_stamps(fields: &Fields<'_>) -> Result<Checked, Violation> {
    let has_is_deleted = match fields.get(Field::IsDeleted) {
        None => false,
        Some(Value::Bool(false)) => true,
        Some(Value::Bool(true)) => return Err(Violation::Deletion),
        Some(other) => return Err(other.is_not(Field::IsDeleted, "false, or leave it out")),
    };
    let has_last_update = match fields.get(Field::LastUpdate) {
        None => false,
        Some(Value::Text(text)) if timestamp::is_last_update(text) => true,
        Some(other) => return Err(other.is_not(Field::LastUpdate, LAST_UPDATE)),
    };
    Ok(Checked {
        has_is_deleted,
        has_last_update,
        ..Checked::default()
    })
}

fn require_stamps(checked: Checked) -> Result<(), Violation> {
    if !checked.has_is_deleted {
        return Err(Violation::NotStamped {
            field: "isDeleted",
            expected: "false",
        });
    }
    if !checked.has_last_update {
        return Err(Violation::NotStamped {
            field: "lastUpdate",
            expected: LAST_UPDATE,
        });
    }
    Ok(())
}

const AN_ID: &str = "an integer from 1 to 2147483647";
const AN_INTEGER: &str = "an integer from -2147483648 to 2147483647, or leave it out";
const A_TEXT: &str = "a string without U+0000, null, or leave it out";
const A_PRICE: &str = "a number of at least 0 or a decimal string as \"21.6154\", or leave it out";

/// One produced unit.
struct Unit<'a> {
    machine_id: i32,
    part_id: i32,
    time_of_production_ms: i64,
    order: Option<i32>,
    var1: Option<i32>,
    var2: Option<&'a str>,
    var3: Option<&'a str>,
    var4: Option<i32>,
    var5: bool,
}

impl<'a> Unit<'a> {
    fn read(fields: &'a Fields<'_>) -> Result<Self, Violation> {
        const TIME: &str = "\"YYYY-MM-DDTHH:MM:SS.mmmZ\", a real date in UTC";
        if fields.get(Field::MaterialIdOds).is_some() {
            return Err(Violation::Forbidden);
        }
        Ok(Self {
            machine_id: id(fields, Field::MachineId)?,
            part_id: id(fields, Field::PartId)?,
            time_of_production_ms: match fields.need(Field::TimeOfProduction, TIME)? {
                Value::Text(text) => timestamp::parse_production_time(text),
                _ => None,
            }
            .ok_or_else(|| fields.is_not(Field::TimeOfProduction, TIME))?,
            order: integer(fields, Field::Order)?,
            var1: integer(fields, Field::Var1)?,
            var2: text(fields, Field::Var2)?,
            var3: text(fields, Field::Var3)?,
            var4: integer(fields, Field::Var4)?,
            var5: match fields.need(Field::Var5, "true or false")? {
                Value::Bool(value) => *value,
                other => return Err(other.is_not(Field::Var5, "true or false, without quotes")),
            },
        })
    }

    fn message(&self) -> v1::UnitProduced {
        v1::UnitProduced {
            machine_id: self.machine_id,
            part_id: self.part_id,
            time_of_production_ms: self.time_of_production_ms,
            order: self.order,
            var1: self.var1,
            var2: self.var2.map(str::to_owned),
            var3: self.var3.map(str::to_owned),
            var4: self.var4,
            var5: self.var5,
        }
    }
}

/// One part.
struct Part<'a> {
    id: Option<i32>,
    default_price: Option<Cow<'a, str>>,
    time_to_produce: i32,
}

impl<'a> Part<'a> {
    fn read(fields: &'a Fields<'_>) -> Result<Self, Violation> {
        // The client takes any number; the database keeps whole seconds, and both must hold the same.
        const SECONDS: &str = "whole seconds, an integer from 1 to 2147483647";
        let seconds = fields.need(Field::TimeToProduce, SECONDS)?;
        Ok(Self {
            id: optional_id(fields)?,
            default_price: match fields.get(Field::DefaultPrice) {
                None | Some(Value::Null) => None,
                Some(value) => Some(price(value).ok_or_else(|| value.is_not(Field::DefaultPrice, A_PRICE))?),
            },
            time_to_produce: seconds
                .integer(1, MAX_ID)
                .ok_or_else(|| seconds.is_not(Field::TimeToProduce, SECONDS))?,
        })
    }

    fn message(&self) -> v1::PartReference {
        v1::PartReference {
            id: self.id,
            default_price: self.default_price.as_deref().map(str::to_owned),
            time_to_produce: self.time_to_produce,
        }
    }
}

/// One material.
struct Material<'a> {
    id: Option<i32>,
    name: &'a str,
}

impl<'a> Material<'a> {
    fn read(fields: &'a Fields<'_>) -> Result<Self, Violation> {
        const NAME: &str = "a string of 1 to 255 characters without U+0000";
        let name = fields.need(Field::Name, NAME)?;
        match name {
            Value::Text(text) if is_name(text) => Ok(Self {
                id: optional_id(fields)?,
                name: text,
            }),
            other => Err(other.is_not(Field::Name, NAME)),
        }
    }

    fn message(&self) -> v1::MaterialData {
        v1::MaterialData {
            id: self.id,
            name: self.name.to_owned(),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.contains('\0')
        && text.chars().take(MAX_NAME_CHARS + 1).count() <= MAX_NAME_CHARS
}

fn id(fields: &Fields<'_>, field: Field) -> Result<i32, Violation> {
    let value = fields.need(field, AN_ID)?;
    value.integer(1, MAX_ID).ok_or_else(|| value.is_not(field, AN_ID))
}

fn optional_id(fields: &Fields<'_>) -> Result<Option<i32>, Violation> {
    match fields.get(Field::Id) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .integer(1, MAX_ID)
            .map(Some)
            .ok_or_else(|| value.is_not(Field::Id, "an integer from 1 to 2147483647, or leave it out")),
    }
}

fn integer(fields: &Fields<'_>, field: Field) -> Result<Option<i32>, Violation> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .integer(i64::from(i32::MIN), MAX_ID)
            .map(Some)
            .ok_or_else(|| value.is_not(field, AN_INTEGER)),
    }
}

fn text<'a>(fields: &'a Fields<'_>, field: Field) -> Result<Option<&'a str>, Violation> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) if !text.contains('\0') => Ok(Some(text)),
        Some(other) => Err(other.is_not(field, A_TEXT)),
    }
}

/// A price in plain decimal notation.
fn price<'a>(value: &'a Value<'_>) -> Option<Cow<'a, str>> {
    let text: Cow<'a, str> = match value {
        Value::Text(text) => Cow::Borrowed(text.as_ref()),
        Value::Integer(number) => Cow::Owned(number.to_string()),
        // Never an exponent: Rust prints floats in full.
        Value::Float(number) => Cow::Owned(number.to_string()),
        _ => return None,
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (text.len() <= MAX_PRICE_CHARS && digits(whole) && digits(fraction)).then_some(text)
}

#[cfg(test)]
pub(crate) mod client;
#[cfg(test)]
mod tests;
