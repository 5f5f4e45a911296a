//! The rules of the Kafka contract for one supply-chain message, as the reader of the topic applies them. Written
//! from the contract's text and independent of the gateway's own check.

use prost::Message as _;
use serde_json::Value;
use shopfloor_proto::v1::UnitProduced;

use super::payload::Message;

/// What is wrong with a message, in the order in which a reader would stumble over it.
pub(super) fn check(message: &Message) -> Result<(), String> {
    check_payload(message.is_protobuf, &message.payload)
}

pub(super) fn check_payload(is_protobuf: bool, payload: &[u8]) -> Result<(), String> {
    if is_protobuf {
        check_protobuf(payload)
    } else {
        check_json(payload)
    }
}

fn check_json(payload: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(payload).map_err(|_| "not UTF-8".to_owned())?;
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let fields = value.as_object().ok_or("not an object")?;
    for id in ["machineId", "partId"] {
        let value = fields
            .get(id)
            .and_then(Value::as_i64)
            .ok_or(format!("{id} is not an integer"))?;
        check_id(id, value)?;
    }
    fields
        .get("var5")
        .and_then(Value::as_bool)
        .ok_or("var5 is not a boolean")?;
    let time = fields
        .get("timeOfProduction")
        .and_then(Value::as_str)
        .ok_or("timeOfProduction is not text")?;
    check_time(time)?;
    // The database, not the reader of the topic, needs these.
    for number in ["order", "var1", "var4"] {
        let fits = |value: &Value| value.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
        if !fields.get(number).is_none_or(fits) {
            return Err(format!("{number} is not a 32-bit integer"));
        }
    }
    fields.get("order").ok_or("order is missing")?;
    for text in ["var2", "var3"] {
        if !fields.get(text).is_none_or(Value::is_string) {
            return Err(format!("{text} is not text"));
        }
    }
    if fields.contains_key("materialIdODS") {
        return Err("materialIdODS is forbidden".to_owned());
    }
    Ok(())
}

fn check_protobuf(payload: &[u8]) -> Result<(), String> {
    let unit = UnitProduced::decode(payload).map_err(|error| error.to_string())?;
    check_id("machine_id", unit.machine_id.into())?;
    check_id("part_id", unit.part_id.into())?;
    unit.order.ok_or("order is missing")?;
    let four_digits = -62_167_219_200_000..=253_402_300_799_999;
    if !four_digits.contains(&unit.time_of_production_ms) {
        return Err("time_of_production_ms has no year of four digits".to_owned());
    }
    Ok(())
}

fn check_id(name: &str, id: i64) -> Result<(), String> {
    if (1..=i64::from(i32::MAX)).contains(&id) {
        Ok(())
    } else {
        Err(format!("{name} {id} is out of range"))
    }
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ`
fn check_time(time: &str) -> Result<(), String> {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(expected, got): (char, char)| {
        if expected == 'd' {
            got.is_ascii_digit()
        } else {
            got == expected
        }
    };
    if time.len() != form.len() || !form.chars().zip(time.chars()).all(fits) {
        return Err(format!(
            "timeOfProduction {time:?} is not of the form YYYY-MM-DDTHH:MM:SS.mmmZ"
        ));
    }
    let parsed = time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339);
    parsed
        .map(|_| ())
        .map_err(|error| format!("timeOfProduction {time:?}: {error}"))
}

#[test]
fn the_contracts_example_passes() {
    let example =
        br#"{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":5,"var5":false,"machineId":1,"partId":4}"#;
    check_json(example).unwrap();
}
