//! What the gateway has reported as lost, and what the suite has damaged.
//!
//! Who changes the bytes of the only copy of a record destroys it: no software can deliver it then. What is promised is
//! that it is reported, with its exact sequences, and that nothing else goes with it.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::Place;
use crate::segments::Damaged;
use crate::unit::Name;

/// Damaged records, and reports of lost ones.
#[derive(Debug, Default)]
pub(super) struct Losses {
    damaged: HashMap<Name, Vec<u64>>,
    reported: Vec<(Place, RangeInclusive<u64>)>,
}

impl Losses {
    pub(super) fn damage(&mut self, damaged: Damaged) {
        self.damaged
            .entry(damaged.unit)
            .or_default()
            .push(damaged.sequence);
    }

    /// Takes every report in the gateway's log.
    pub(super) fn read(&mut self, log: &str) {
        self.reported = log.lines().filter_map(report).collect();
    }

    /// Whether the suite damaged this unit and the gateway has said to whom it could not bring it.
    pub(super) fn excuse(&self, place: Place, unit: Name) -> bool {
        let sequences = self.damaged.get(&unit).into_iter().flatten();
        sequences.copied().any(|sequence| {
            self.reported
                .iter()
                .any(|(at, lost)| *at == place && lost.contains(&sequence))
        })
    }
}

/// A line such as `... records are lost in the spool; the API sink goes on behind them first=7 last=9 cause=...`.
fn report(line: &str) -> Option<(Place, RangeInclusive<u64>)> {
    let (_, said) = line.split_once("records are lost in the spool; the ")?;
    let (sink, fields) = said.split_once(" sink goes on behind them")?;
    let place = match sink {
        "Kafka" => Place::Kafka,
        "API" => Place::Postgres,
        _ => return None,
    };
    let field = |name: &str| {
        let value = fields
            .split_whitespace()
            .find_map(|field| field.strip_prefix(name))?;
        value.parse().ok()
    };
    Some((place, field("first=")?..=field("last=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.000000Z ERROR shopfloor_bridge::sinks::api: records are lost in the spool; \
                       the API sink goes on behind them first=7 last=8 cause=their bytes on disk fail the checksum\n";

    #[test]
    fn damage_is_excused_where_it_was_reported_and_nowhere_else() {
        let name = |order| Name {
            fleet: 0,
            machine: 1,
            order,
        };
        let mut losses = Losses::default();
        for (sequence, order) in [(8, 1), (9, 2)] {
            let unit = name(order);
            losses.damage(Damaged { sequence, unit });
        }
        losses.read(LOG);
        assert!(losses.excuse(Place::Postgres, name(1)));
        assert!(
            !losses.excuse(Place::Kafka, name(1)),
            "that sink has not reported it"
        );
        assert!(
            !losses.excuse(Place::Postgres, name(2)),
            "its sequence was not reported"
        );
        assert!(!losses.excuse(Place::Postgres, name(3)), "nobody damaged it");
    }
}
