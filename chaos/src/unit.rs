//! What is followed from a device to both ends: one produced unit.

use std::time::Duration;

use serde::Deserialize;
use shopfloor::simulate::ack_log::AckLine;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Each fleet's shift starts in a decade of its own, so that a unit's time says whose it is: 2000, 2010, 2020.
pub const STARTS_MS: [i64; 3] = [946_684_800_000, 1_262_304_000_000, 1_577_836_800_000];

/// Who made it, and as which of its units: no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub fleet: u8,
    pub machine: u16,
    /// 1 for the first, then up by 1.
    pub order: u32,
}

/// A unit as it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    pub name: Name,
    pub part: i32,
    pub time_ms: i64,
}

/// An acknowledged unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub unit: Unit,
    /// Times that the device published it.
    pub sends: u32,
    /// From when it was first given to its connection to its acknowledgement.
    pub latency: Duration,
    /// The cycle in which the acknowledgement came.
    pub cycle: usize,
}

/// What of a unit's JSON is looked at: the same from the device to Kafka.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    machine_id: i32,
    order: i32,
    part_id: i32,
    #[serde(borrow)]
    time_of_production: &'a str,
}

impl Unit {
    pub fn of_json(json: &[u8]) -> Option<Self> {
        let Json {
            machine_id,
            order,
            part_id,
            time_of_production,
        } = serde_json::from_slice(json).ok()?;
        Self::at(machine_id, order, part_id, time_of_production)
    }

    /// `None` where the numbers are nobody's: no fleet publishes such a unit.
    pub fn new(machine: i32, order: i32, part: i32, time_ms: i64) -> Option<Self> {
        let fleet = STARTS_MS.iter().rposition(|start_ms| *start_ms <= time_ms)?;
        let name = Name {
            fleet: u8::try_from(fleet).ok()?,
            machine: u16::try_from(machine).ok()?,
            order: u32::try_from(order).ok()?,
        };
        Some(Self { name, part, time_ms })
    }

    /// Of a time as devices write it.
    pub fn at(machine: i32, order: i32, part: i32, time: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
        let time_ms = i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()?;
        Self::new(machine, order, part, time_ms)
    }
}

impl Receipt {
    /// Of a line of a fleet's acknowledgement log.
    pub fn read(line: &str, cycle: usize) -> Result<Self, String> {
        let line: AckLine = line.parse()?;
        let unit = Unit::at(
            line.machine_id,
            line.order,
            line.part_id,
            &line.time_of_production,
        )
        .ok_or_else(|| format!("{line} is no unit of a fleet"))?;
        Ok(Self {
            unit,
            sends: line.sends,
            latency: Duration::from_micros(line.latency_us),
            cycle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_receipt_with_its_fleet() {
        let receipt = Receipt::read("7,12,3,2011-02-03T00:00:00.250Z,valid,2,900", 4).unwrap();
        let name = Name {
            fleet: 1,
            machine: 7,
            order: 12,
        };
        assert_eq!((receipt.unit.name, receipt.sends, receipt.cycle), (name, 2, 4));
        assert_eq!(receipt.unit.time_ms % 1000, 250);
        assert!(Receipt::read("7,12,3,1999-02-03T00:00:00.250Z,valid,2,900", 4).is_err());
    }
}
