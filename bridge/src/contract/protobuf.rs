//! `shopfloor.v1` payloads as the JSON that the Kafka client reads.
//!
//! Only the form is changed here; whether the values are acceptable is the JSON check's question alone.

use prost::Message;
use serde::Serialize;
use shopfloor_proto::v1;

use super::{Schema, Violation, timestamp};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unit<'a> {
    time_of_production: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<i32>,
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

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_price: Option<&'a str>,
    time_to_produce: i32,
}

#[derive(Serialize)]
struct Material<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i32>,
    name: &'a str,
}

/// The payload as JSON. Schemas without a message keep their payload: `Ok(None)`.
pub fn transcode(schema: Schema, payload: &[u8]) -> Result<Option<Vec<u8>>, Violation> {
    match schema {
        Schema::SupplyChain => unit(&decode(payload, "UnitProduced")?).map(Some),
        Schema::PartInformation => {
            let part: v1::PartReference = decode(payload, "PartReference")?;
            json(
                "PartReference",
                &Part {
                    id: part.id,
                    default_price: part.default_price.as_deref(),
                    time_to_produce: part.time_to_produce,
                },
            )
            .map(Some)
        }
        Schema::Material => {
            let material: v1::MaterialData = decode(payload, "MaterialData")?;
            json(
                "MaterialData",
                &Material {
                    id: material.id,
                    name: &material.name,
                },
            )
            .map(Some)
        }
        Schema::Json | Schema::Raw => Ok(None),
    }
}

fn unit(unit: &v1::UnitProduced) -> Result<Vec<u8>, Violation> {
    let message = "UnitProduced";
    let time_of_production =
        timestamp::production_time(unit.time_of_production_ms).ok_or_else(|| Violation::NotProtobuf {
            message,
            why: format!(
                "time_of_production_ms {} is outside of the years 1 to 9999",
                unit.time_of_production_ms
            ),
        })?;
    json(
        message,
        &Unit {
            time_of_production,
            order: unit.order,
            var1: unit.var1,
            var2: unit.var2.as_deref(),
            var3: unit.var3.as_deref(),
            var4: unit.var4,
            var5: unit.var5,
            machine_id: unit.machine_id,
            part_id: unit.part_id,
        },
    )
}

fn decode<M: Message + Default>(payload: &[u8], message: &'static str) -> Result<M, Violation> {
    M::decode(payload).map_err(|error| Violation::NotProtobuf {
        message,
        why: error.to_string(),
    })
}

fn json<T: Serialize>(message: &'static str, value: &T) -> Result<Vec<u8>, Violation> {
    serde_json::to_vec(value).map_err(|error| Violation::NotProtobuf {
        message,
        why: error.to_string(),
    })
}
