//! The entities, in the form in which clients and Kafka see them.

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;
use uuid::Uuid;

use crate::js::date;

/// An entity with its Kafka topic and the key that orders its records there.
pub(crate) trait Entity: Serialize {
    const TOPIC: &'static str;
    fn key(&self) -> String;
}

/// A decimal: a JSON string as it is stored, a number where an update was just sent it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Decimal {
    Stored(String),
    Sent(serde_json::Number),
}

impl Decimal {
    /// `value` as a number of JSON, whole ones without a point.
    pub(crate) fn sent(value: f64) -> Self {
        // Beyond 2^53 not every whole number is one f64, and the text form is exact either way.
        if value.fract() == 0.0 && value.abs() < 9e15 {
            return Self::Sent((value as i64).into());
        }
        serde_json::Number::from_f64(value).map_or_else(|| Self::Stored(value.to_string()), Self::Sent)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Material {
    pub(crate) id: i32,
    pub(crate) name: String,
}

/// A reference to a row by its id.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Reference {
    pub(crate) id: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Price {
    pub(crate) id: i32,
    pub(crate) price: Decimal,
    /// As sent on a write, ISO on a read.
    pub(crate) date: String,
    /// Only where the price is new or gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) material: Option<Reference>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    pub(crate) id: i32,
    pub(crate) default_price: Decimal,
    /// In seconds.
    pub(crate) time_to_produce: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) id: i32,
}

/// One produced unit: a row of the supply chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Unit {
    pub(crate) id: Uuid,
    pub(crate) machine_id: i32,
    pub(crate) time_of_production: Instant,
    pub(crate) part_id: i32,
    pub(crate) order: i32,
    pub(crate) var1: Option<i32>,
    pub(crate) var2: Option<String>,
    pub(crate) var3: Option<String>,
    pub(crate) var4: Option<i32>,
    pub(crate) var5: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) machine: Option<Machine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<Part>,
}

/// Milliseconds since 1970; stored as whole seconds, rounded down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Instant(pub(crate) i64);

impl Instant {
    pub(crate) fn from_stored(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub(crate) fn to_stored(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Serialize for Instant {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&date::to_iso(self.0))
    }
}

/// A material with the parts that it goes into, as links are answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MaterialWithParts {
    #[serde(flatten)]
    pub(crate) material: Material,
    pub(crate) part_informations: Vec<Part>,
}

/// A part with the materials that go into it, as links are answered.
#[derive(Debug, Serialize)]
pub(crate) struct PartWithMaterials {
    #[serde(flatten)]
    pub(crate) part: Part,
    pub(crate) materials: Vec<Material>,
}

/// An entity after a write: the response's body and Kafka's value are this same object.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written<T> {
    #[serde(flatten)]
    pub(crate) entity: T,
    is_deleted: bool,
    /// UTC, `2023-12-10 08:00:00.0000000`.
    last_update: String,
}

impl<T> Written<T> {
    pub(crate) fn changed(entity: T) -> Self {
        Self {
            entity,
            is_deleted: false,
            last_update: now(),
        }
    }

    pub(crate) fn deleted(entity: T) -> Self {
        Self {
            entity,
            is_deleted: true,
            last_update: now(),
        }
    }
}

/// Kafka's reader wants seven decimals and the original sent none of them.
fn now() -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].0000000");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

impl Entity for Material {
    const TOPIC: &'static str = "material";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Price {
    const TOPIC: &'static str = "material_prices";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Part {
    const TOPIC: &'static str = "part_information";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Machine {
    const TOPIC: &'static str = "machine";
    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Unit {
    const TOPIC: &'static str = "supply_chain";
    // The machine, as on the gateways' way: what one machine made stays in one partition.
    fn key(&self) -> String {
        self.machine_id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sent_decimal_is_a_number_and_a_stored_one_a_string() {
        let json = |decimal: Decimal| serde_json::to_string(&decimal).unwrap();
        assert_eq!(json(Decimal::sent(5.0)), "5");
        assert_eq!(json(Decimal::sent(33.3)), "33.3");
        assert_eq!(json(Decimal::Stored("33.30".into())), "\"33.30\"");
    }

    #[test]
    fn a_written_entity_carries_its_own_fields_and_the_two_of_the_write() {
        let json = serde_json::to_value(Written::deleted(Machine { id: 3 })).unwrap();
        assert_eq!(json["id"], 3);
        assert_eq!(json["isDeleted"], true);
        let last_update = json["lastUpdate"].as_str().unwrap();
        assert!(
            last_update.ends_with(".0000000") && last_update.len() == 27,
            "{last_update}"
        );
    }
}
