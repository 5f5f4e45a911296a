//! A unit as an MQTT message: topic and bytes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;
use shopfloor_proto::v1::UnitProduced;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::args::Version;
use super::unit::Unit;

const ISO_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// How a unit goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Protobuf,
    /// Not acceptable to any reader, on purpose.
    Invalid(Fault),
}

/// What one machine publishes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub unit: Unit,
    pub kind: Kind,
    pub topic: Arc<str>,
    /// `application/x-protobuf`, or else JSON. MQTT 5 says it as the content type, 3.1.1 by the topic's suffix.
    pub is_protobuf: bool,
    pub payload: Bytes,
}

impl Message {
    /// Whether a reader that holds to the contract takes it.
    pub fn is_valid(&self) -> bool {
        !matches!(self.kind, Kind::Invalid(_))
    }
}

/// One machine's topics.
#[derive(Debug, Clone)]
pub struct Topics {
    json: Arc<str>,
    protobuf: Arc<str>,
}

impl Topics {
    pub fn new(topic: &str, version: Version) -> Self {
        let protobuf = match version {
            Version::V4 => format!("{topic}/pb").into(),
            Version::V5 => topic.into(),
        };
        Self {
            json: topic.into(),
            protobuf,
        }
    }
}

/// A way of being unacceptable to the reader of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Empty,
    Truncated,
    NotUtf8,
    NotAnObject,
    WithoutPart,
    PartZero,
    EpochTime,
    TimeWithSpace,
    Var5Text,
    ForbiddenField,
    BrokenProtobuf,
    ProtobufMachineZero,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Empty,
        Self::Truncated,
        Self::NotUtf8,
        Self::NotAnObject,
        Self::WithoutPart,
        Self::PartZero,
        Self::EpochTime,
        Self::TimeWithSpace,
        Self::Var5Text,
        Self::ForbiddenField,
        Self::BrokenProtobuf,
        Self::ProtobufMachineZero,
    ];
}

/// `2023-12-10T00:00:00.000Z`, the form that the reader of the topic needs.
pub fn iso_ms(unix_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    // Planned times have a year of four digits, so both steps succeed.
    time.ok()
        .and_then(|time| time.format(ISO_MS).ok())
        .unwrap_or_default()
}

pub(super) fn message(unit: Unit, kind: Kind, topics: &Topics) -> Message {
    let payload = match kind {
        Kind::Json => json(&unit),
        Kind::Protobuf => protobuf(&unit),
        Kind::Invalid(fault) => invalid(&unit, fault),
    };
    let is_protobuf = matches!(
        kind,
        Kind::Protobuf | Kind::Invalid(Fault::BrokenProtobuf) | Kind::Invalid(Fault::ProtobufMachineZero)
    );
    let topic = if is_protobuf {
        &topics.protobuf
    } else {
        &topics.json
    };
    Message {
        unit,
        kind,
        topic: Arc::clone(topic),
        is_protobuf,
        payload: Bytes::from(payload),
    }
}

/// Fields in the order of the contract's example.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnitJson<'a> {
    time_of_production: String,
    order: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    var1: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    var2: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    var3: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    var4: Option<i32>,
    var5: bool,
    machine_id: i32,
    part_id: i32,
}

fn json(unit: &Unit) -> Vec<u8> {
    let fields = UnitJson {
        time_of_production: iso_ms(unit.time_of_production_ms),
        order: unit.order,
        var1: unit.var1,
        var2: unit.var2.as_deref(),
        var3: unit.var3,
        var4: unit.var4,
        var5: unit.var5,
        machine_id: unit.machine_id,
        part_id: unit.part_id,
    };
    // Numbers, booleans and text under fixed keys always have a JSON form.
    serde_json::to_vec(&fields).unwrap_or_default()
}

fn protobuf(unit: &Unit) -> Vec<u8> {
    let fields = UnitProduced {
        machine_id: unit.machine_id,
        part_id: unit.part_id,
        time_of_production_ms: unit.time_of_production_ms,
        order: Some(unit.order),
        var1: unit.var1,
        var2: unit.var2.clone(),
        var3: unit.var3.map(str::to_owned),
        var4: unit.var4,
        var5: unit.var5,
    };
    fields.encode_to_vec()
}

fn invalid(unit: &Unit, fault: Fault) -> Vec<u8> {
    let Unit {
        machine_id,
        part_id,
        order,
        var5,
        ..
    } = unit;
    let time = iso_ms(unit.time_of_production_ms);
    let text = match fault {
        Fault::Empty => String::new(),
        Fault::Truncated => format!(r#"{{"timeOfProduction":"{time}","order":{order},"var5":{var5},"mach"#),
        Fault::NotUtf8 => {
            return [&json(unit)[..], &[0xff, 0xfe, 0xc0]].concat();
        }
        Fault::NotAnObject => format!(r#"["{time}",{order},{var5},{machine_id},{part_id}]"#),
        Fault::WithoutPart => {
            format!(
                r#"{{"timeOfProduction":"{time}","order":{order},"var5":{var5},"machineId":{machine_id}}}"#
            )
        }
        Fault::PartZero => with(&time, order, "false", machine_id, "0"),
        Fault::EpochTime => format!(
            r#"{{"timeOfProduction":{},"order":{order},"var5":{var5},"machineId":{machine_id},"partId":{part_id}}}"#,
            unit.time_of_production_ms
        ),
        Fault::TimeWithSpace => with(
            &time.replace('T', " "),
            order,
            "false",
            machine_id,
            &part_id.to_string(),
        ),
        Fault::Var5Text => with(&time, order, r#""maybe""#, machine_id, &part_id.to_string()),
        Fault::ForbiddenField => with(
            &time,
            order,
            "false",
            machine_id,
            &format!(r#"{part_id},"materialIdODS":1"#),
        ),
        Fault::BrokenProtobuf => return [&protobuf(unit)[..], &[0x0a, 0xff, 0xff, 0x01]].concat(),
        Fault::ProtobufMachineZero => {
            return protobuf(&Unit {
                machine_id: 0,
                ..unit.clone()
            });
        }
    };
    text.into_bytes()
}

fn with(time: &str, order: &i32, var5: &str, machine_id: &i32, part_id: &str) -> String {
    format!(
        r#"{{"timeOfProduction":"{time}","order":{order},"var5":{var5},"machineId":{machine_id},"partId":{part_id}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit {
            machine_id: 1,
            part_id: 4,
            order: 5,
            time_of_production_ms: 1_702_166_400_000,
            var1: None,
            var2: None,
            var3: None,
            var4: None,
            var5: false,
        }
    }

    #[test]
    fn a_unit_without_variables_is_the_contracts_example_byte_for_byte() {
        let example = r#"{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":5,"var5":false,"machineId":1,"partId":4}"#;
        let message = message(unit(), Kind::Json, &Topics::new("supply-chain", Version::V4));
        assert_eq!(message.payload, example.as_bytes());
        assert_eq!(&*message.topic, "supply-chain");
    }

    #[test]
    fn mqtt_5_needs_no_suffix_for_protobuf() {
        let message = message(unit(), Kind::Protobuf, &Topics::new("supply-chain", Version::V5));
        assert_eq!((&*message.topic, message.is_protobuf), ("supply-chain", true));
    }

    #[test]
    fn a_protobuf_unit_decodes_to_the_same_unit_and_goes_to_the_suffixed_topic() {
        let full = Unit {
            var1: Some(-1),
            var2: Some("lot".into()),
            var3: Some("ü"),
            var4: Some(9),
            ..unit()
        };
        let message = message(
            full,
            Kind::Protobuf,
            &Topics::new("factory/a/1/supply-chain", Version::V4),
        );
        assert_eq!(&*message.topic, "factory/a/1/supply-chain/pb");
        let decoded = UnitProduced::decode(message.payload).unwrap();
        assert_eq!(
            (decoded.machine_id, decoded.part_id, decoded.order),
            (1, 4, Some(5))
        );
        assert_eq!(
            (decoded.var1, decoded.var4, decoded.var5),
            (Some(-1), Some(9), false)
        );
        assert_eq!(
            (decoded.var2.as_deref(), decoded.var3.as_deref()),
            (Some("lot"), Some("ü"))
        );
        assert_eq!(decoded.time_of_production_ms, 1_702_166_400_000);
    }
}
