//! Telemetry records as the API accepts them: the rules that a batch must keep before anything is stored.

use std::collections::HashMap;

use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_proto::v1::{MaterialData, PartReference, TelemetryBatch, TelemetryRecord, UnitProduced};
use uuid::Uuid;

/// Longest gateway id, in characters.
pub const MAX_GATEWAY_CHARS: usize = 128;
/// Longest machine name, in characters.
pub const MAX_MACHINE_CHARS: usize = 1024;
/// Longest material name, in characters (the Kafka client's own limit).
pub const MAX_NAME_CHARS: usize = 255;
/// Longest `var2` or `var3`, in characters.
pub const MAX_VAR_CHARS: usize = 65_535;
/// Longest decimal, in characters.
pub const MAX_DECIMAL_CHARS: usize = 64;
/// Years 0000 to 9999, in milliseconds since the Unix epoch: what the Kafka client can read.
const TIME_RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// One valid record.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// UUID version 7 made at reception; a unit's row id.
    pub id: Uuid,
    /// Position in the gateway's spool.
    pub sequence: i64,
    pub machine: String,
    /// Milliseconds since the Unix epoch.
    pub received_ms: i64,
    pub body: Body,
    pub traceparent: String,
}

/// One valid batch: record ids differ from each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub gateway: String,
    pub records: Vec<Record>,
}

/// Why a batch is refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Invalid {
    /// Names the field, its problem and the remedy.
    pub reason: String,
    /// The record that caused it; `None` where the batch itself did.
    pub record_index: Option<u32>,
}

/// Checks every record; the first that breaks a rule refuses the batch.
pub fn check(batch: TelemetryBatch, max_records: usize) -> Result<Batch, Invalid> {
    let whole = |reason: String| Invalid {
        reason,
        record_index: None,
    };
    check_text("gateway", &batch.gateway, 1..=MAX_GATEWAY_CHARS).map_err(whole)?;
    if batch.records.len() > max_records {
        let count = batch.records.len();
        return Err(whole(format!(
            "records: {count} is more than a batch may hold; send at most {max_records} at a time"
        )));
    }
    let mut records = Vec::with_capacity(batch.records.len());
    let mut seen = HashMap::with_capacity(batch.records.len());
    for (index, wire) in batch.records.into_iter().enumerate() {
        let at = |reason| Invalid {
            reason,
            record_index: u32::try_from(index).ok(),
        };
        let record = Record::from_wire(wire).map_err(at)?;
        if let Some(earlier) = seen.insert(record.id, index) {
            return Err(at(format!(
                "record_id: {} is the id of record {earlier} too; give every record its own",
                record.id
            )));
        }
        records.push(record);
    }
    Ok(Batch {
        gateway: batch.gateway,
        records,
    })
}

impl Record {
    /// Checks one record. The error names the field, its problem and the remedy.
    pub fn from_wire(wire: TelemetryRecord) -> Result<Self, String> {
        let id = record_id(&wire.record_id)?;
        let sequence = i64::try_from(wire.sequence).map_err(|_| {
            format!(
                "sequence: {} is above 2^63-1; use the spool's position",
                wire.sequence
            )
        })?;
        check_text("machine", &wire.machine, 0..=MAX_MACHINE_CHARS)?;
        check_time("received_ms", wire.received_ms)?;
        let body = wire
            .body
            .ok_or("body: missing; send one of unit, part and material")?;
        match &body {
            Body::Unit(unit) => check_unit(unit)?,
            Body::Part(part) => check_part(part)?,
            Body::Material(material) => check_material(material)?,
        }
        Ok(Self {
            id,
            sequence,
            machine: wire.machine,
            received_ms: wire.received_ms,
            body,
            traceparent: wire.traceparent,
        })
    }

    /// The record as it came.
    pub fn to_wire(&self) -> TelemetryRecord {
        TelemetryRecord {
            record_id: self.id.as_bytes().to_vec().into(),
            sequence: self.sequence.unsigned_abs(),
            machine: self.machine.clone(),
            received_ms: self.received_ms,
            body: Some(self.body.clone()),
            traceparent: self.traceparent.clone(),
        }
    }

    /// When the id was made, milliseconds since the Unix epoch: the first 48 bits of a version 7 UUID.
    pub fn id_time_ms(&self) -> u64 {
        let (high, _) = self.id.as_u64_pair();
        high >> 16
    }
}

/// `timeOfProduction` as the database holds it: whole seconds since the Unix epoch.
pub fn production_time_s(unit: &UnitProduced) -> i64 {
    unit.time_of_production_ms.div_euclid(1000)
}

fn record_id(bytes: &[u8]) -> Result<Uuid, String> {
    let id = Uuid::from_slice(bytes)
        .map_err(|_| format!("record_id: {} bytes; send the 16 bytes of a UUID", bytes.len()))?;
    if id.get_version_num() != 7 || id.get_variant() != uuid::Variant::RFC4122 {
        return Err(format!(
            "record_id: {id} is not a version 7 UUID; make one at reception"
        ));
    }
    Ok(id)
}

fn check_unit(unit: &UnitProduced) -> Result<(), String> {
    check_positive("unit.machine_id", unit.machine_id)?;
    check_positive("unit.part_id", unit.part_id)?;
    check_time("unit.time_of_production_ms", unit.time_of_production_ms)?;
    check_text(
        "unit.var2",
        unit.var2.as_deref().unwrap_or_default(),
        0..=MAX_VAR_CHARS,
    )?;
    check_text(
        "unit.var3",
        unit.var3.as_deref().unwrap_or_default(),
        0..=MAX_VAR_CHARS,
    )
}

fn check_part(part: &PartReference) -> Result<(), String> {
    if let Some(id) = part.id {
        check_positive("part.id", id)?;
    }
    if let Some(price) = &part.default_price {
        check_decimal("part.default_price", price)?;
    }
    check_positive("part.time_to_produce", part.time_to_produce)
}

fn check_material(material: &MaterialData) -> Result<(), String> {
    if let Some(id) = material.id {
        check_positive("material.id", id)?;
    }
    check_text("material.name", &material.name, 1..=MAX_NAME_CHARS)
}

fn check_positive(field: &str, value: i32) -> Result<(), String> {
    if value < 1 {
        return Err(format!("{field}: {value} is out of range; use 1 to 2147483647"));
    }
    Ok(())
}

fn check_time(field: &str, value_ms: i64) -> Result<(), String> {
    if !TIME_RANGE_MS.contains(&value_ms) {
        return Err(format!(
            "{field}: {value_ms} is out of range; use milliseconds since 1970 within the years 0000 to 9999"
        ));
    }
    Ok(())
}

fn check_text(field: &str, text: &str, chars: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    // Postgres holds no NUL in text.
    if text.contains('\0') {
        return Err(format!("{field}: contains a NUL character; leave it out"));
    }
    let count = text.chars().count();
    if !chars.contains(&count) {
        return Err(format!(
            "{field}: {count} characters; use {} to {}",
            chars.start(),
            chars.end()
        ));
    }
    Ok(())
}

/// Digits with at most one point inside, not negative: `"21.6154"`.
fn check_decimal(field: &str, text: &str) -> Result<(), String> {
    let mut parts = text.splitn(2, '.');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let whole = parts.next().is_some_and(digits);
    let fraction = parts.next().is_none_or(digits);
    if !whole || !fraction || text.len() > MAX_DECIMAL_CHARS {
        return Err(format!(
            "{field}: not a decimal that is accepted; use digits with at most one point, not negative, \
             such as \"21.6154\", at most {MAX_DECIMAL_CHARS} characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit() -> UnitProduced {
        UnitProduced {
            machine_id: 1,
            part_id: 4,
            time_of_production_ms: 1_702_166_400_999,
            order: Some(5),
            ..UnitProduced::default()
        }
    }

    fn wire(body: Body) -> TelemetryRecord {
        TelemetryRecord {
            record_id: Uuid::now_v7().as_bytes().to_vec().into(),
            sequence: 9,
            machine: "press-1".into(),
            received_ms: 1_702_166_401_000,
            body: Some(body),
            traceparent: String::new(),
        }
    }

    fn refusal(record: TelemetryRecord) -> String {
        Record::from_wire(record).expect_err("must be refused")
    }

    #[test]
    fn a_valid_record_comes_back_as_it_came() {
        let sent = wire(Body::Unit(unit()));
        assert_eq!(Record::from_wire(sent.clone()).expect("valid").to_wire(), sent);
    }

    #[test]
    fn the_refusal_names_the_record_and_the_field() {
        let bad = wire(Body::Unit(UnitProduced { part_id: 0, ..unit() }));
        let batch = TelemetryBatch {
            gateway: "g".into(),
            records: vec![wire(Body::Unit(unit())), bad],
        };
        let invalid = check(batch, 10).expect_err("must be refused");
        assert_eq!(invalid.record_index, Some(1));
        assert_eq!(
            invalid.reason,
            "unit.part_id: 0 is out of range; use 1 to 2147483647"
        );
    }

    #[test]
    fn every_rule_of_the_envelope_is_checked() {
        let good = wire(Body::Unit(unit()));
        let short = TelemetryRecord {
            record_id: vec![1; 15].into(),
            ..good.clone()
        };
        assert!(refusal(short).starts_with("record_id: 15 bytes"));
        let v4 = TelemetryRecord {
            record_id: Uuid::new_v4().as_bytes().to_vec().into(),
            ..good.clone()
        };
        assert!(refusal(v4).contains("not a version 7 UUID"));
        assert!(
            refusal(TelemetryRecord {
                body: None,
                ..good.clone()
            })
            .starts_with("body: missing")
        );
        assert!(
            refusal(TelemetryRecord {
                sequence: u64::MAX,
                ..good.clone()
            })
            .starts_with("sequence")
        );
        assert!(
            refusal(TelemetryRecord {
                machine: "a\0b".into(),
                ..good.clone()
            })
            .contains("NUL")
        );
        assert!(
            refusal(TelemetryRecord {
                received_ms: i64::MAX,
                ..good
            })
            .starts_with("received_ms")
        );
    }

    #[test]
    fn every_rule_of_the_bodies_is_checked() {
        let long = Some("x".repeat(MAX_VAR_CHARS + 1));
        assert!(refusal(wire(Body::Unit(UnitProduced { var2: long, ..unit() }))).starts_with("unit.var2"));
        let nul = Some("\0".into());
        assert!(refusal(wire(Body::Unit(UnitProduced { var3: nul, ..unit() }))).starts_with("unit.var3"));
        let far = UnitProduced {
            time_of_production_ms: i64::MIN,
            ..unit()
        };
        assert!(refusal(wire(Body::Unit(far))).starts_with("unit.time_of_production_ms"));
        let part = PartReference {
            id: Some(0),
            default_price: None,
            time_to_produce: 1,
        };
        assert!(refusal(wire(Body::Part(part))).starts_with("part.id"));
        let part = PartReference {
            id: None,
            default_price: None,
            time_to_produce: 0,
        };
        assert!(refusal(wire(Body::Part(part))).starts_with("part.time_to_produce"));
        for name in [String::new(), "x".repeat(256)] {
            let material = MaterialData { id: None, name };
            assert!(refusal(wire(Body::Material(material))).starts_with("material.name"));
        }
    }

    #[test]
    fn two_records_with_one_id_refuse_the_batch() {
        let record = wire(Body::Unit(unit()));
        let batch = TelemetryBatch {
            gateway: "g".into(),
            records: vec![record.clone(), record],
        };
        let invalid = check(batch, 10).expect_err("must be refused");
        assert_eq!(invalid.record_index, Some(1));
        assert!(invalid.reason.contains("record 0"), "{}", invalid.reason);
    }

    #[test]
    fn gateway_and_count_are_limited() {
        let batch = |gateway: &str, count| TelemetryBatch {
            gateway: gateway.into(),
            records: (0..count).map(|_| wire(Body::Unit(unit()))).collect(),
        };
        assert!(check(batch("", 1), 2).is_err());
        assert!(check(batch(&"g".repeat(129), 1), 2).is_err());
        assert!(check(batch("g", 3), 2).is_err());
        assert!(check(batch(&"ü".repeat(128), 2), 2).is_ok());
    }

    #[test]
    fn production_times_are_whole_seconds_also_before_1970() {
        assert_eq!(production_time_s(&unit()), 1_702_166_400);
        let early = UnitProduced {
            time_of_production_ms: -1,
            ..unit()
        };
        assert_eq!(production_time_s(&early), -1);
    }

    #[test]
    fn the_time_of_an_id_is_read_from_it() {
        let record = Record::from_wire(wire(Body::Unit(unit()))).expect("valid");
        let (seconds, nanos) = record.id.get_timestamp().expect("version 7").to_unix();
        assert_eq!(record.id_time_ms(), seconds * 1000 + u64::from(nanos) / 1_000_000);
    }

    proptest! {
        #[test]
        fn accepted_decimals_are_plain_and_finite(text in "[-+0-9.eE ]{0,8}") {
            if check_decimal("price", &text).is_ok() {
                let value: f64 = text.parse().expect("a number");
                prop_assert!(value >= 0.0 && !text.contains(['e', 'E', '+', '-', ' ']));
            }
        }

        #[test]
        fn plain_decimals_are_accepted(whole in "[0-9]{1,20}", fraction in "[0-9]{1,20}") {
            let plain = format!("{whole}.{fraction}");
            prop_assert!(check_decimal("price", &whole).is_ok());
            prop_assert!(check_decimal("price", &plain).is_ok());
        }
    }
}
