//! What was acknowledged against what Kafka and Postgres hold, unit by unit.
//!
//! - *Missing*: acknowledged, and not in Kafka or not in Postgres as it was published.
//! - *Damaged*: missing because the suite destroyed its only copy on disk, and reported by the gateway with its sequence.
//! - *Out of order*: its first copy in Kafka stands behind one that its device published later, or in another
//!   partition than its machine's.
//! - *Duplicate*: a copy beyond those that MQTT permits: one with QoS 2; with QoS 1 as many as the device sent, since
//!   whoever has no acknowledgement publishes again.

mod kafka;
mod losses;
mod postgres;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::fleet::permitted_copies;
use crate::rig::Rig;
use crate::segments::Damaged;
use crate::unit::{Name, Receipt, Unit};

/// What is missing this long after the last one came is lost. Kafka's own connections hang too: a broker that writes a
/// transaction's markers gives such a request 30 s, and the gateway's next transaction waits as long, both more than once.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The account of a run.
#[derive(Debug)]
pub struct Audit {
    receipts: HashMap<Name, Receipt>,
    reader: kafka::Reader,
    kafka: Copies,
    order: Order,
    postgres: Copies,
    losses: losses::Losses,
}

/// Where copies are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Kafka,
    Postgres,
}

/// Something that the suite looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    Missing(Place),
    /// Missing, by the suite's own hand, and reported.
    Damaged(Place),
    OutOfOrder,
    /// With the number of copies too many.
    Duplicate(Place, u32),
}

impl Wrong {
    /// Whether it must not be: Kafka may repeat where it is not told each record exactly once.
    pub fn is_broken_promise(self, exactly_once: bool) -> bool {
        match self {
            Self::Missing(_) | Self::OutOfOrder | Self::Duplicate(Place::Postgres, _) => true,
            Self::Duplicate(Place::Kafka, _) => exactly_once,
            Self::Damaged(_) => false,
        }
    }
}

/// A unit with which something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Finding {
    pub name: Name,
    /// In which it was acknowledged.
    pub cycle: usize,
    pub wrong: Wrong,
}

impl Audit {
    pub fn new(bootstrap: &str) -> Self {
        Self {
            receipts: HashMap::new(),
            reader: kafka::Reader::new(bootstrap),
            kafka: Copies::default(),
            order: Order::default(),
            postgres: Copies::default(),
            losses: losses::Losses::default(),
        }
    }

    /// Holds that the only copy of this record may be gone.
    pub fn damage(&mut self, damaged: Damaged) {
        self.losses.damage(damaged);
    }

    /// Holds the device's word: this must be there at the end.
    pub fn acknowledge(&mut self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            let before = self.receipts.insert(receipt.unit.name, receipt);
            assert!(
                before.is_none(),
                "{receipt:?} was acknowledged before: {before:?}"
            );
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.receipts.len()
    }

    /// Reads both until everything that is acknowledged by now is there, or nothing more comes.
    pub fn settle(&mut self, rig: &Rig) -> Result<()> {
        let mut progress = (usize::MAX, Instant::now());
        loop {
            let (kafka, order) = (&mut self.kafka, &mut self.order);
            self.reader.read_on(|partition, unit| {
                if kafka.count(unit) {
                    order.first_copy(partition, unit.name);
                }
            })?;
            self.losses.read(&rig.gateway_log()?);
            let reported = self
                .absent(Place::Postgres)
                .filter(|(_, excused)| *excused)
                .count();
            let rows = postgres::count(rig)? + reported;
            let absent = self.receipts.len().saturating_sub(rows) + self.missing(Place::Kafka);
            if absent == 0 || progress.1.elapsed() > PATIENCE {
                self.postgres = Copies::default();
                postgres::read(rig)?.into_iter().for_each(|unit| {
                    self.postgres.count(unit);
                });
                if self.missing(Place::Postgres) == 0 || progress.1.elapsed() > PATIENCE {
                    return Ok(());
                }
            }
            if absent < progress.0 {
                progress = (absent, Instant::now());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Everything that is wrong, as of the last [`Self::settle`].
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut add = |receipt: &Receipt, wrong| {
            findings.push(Finding {
                name: receipt.unit.name,
                cycle: receipt.cycle,
                wrong,
            });
        };
        for place in [Place::Kafka, Place::Postgres] {
            for (receipt, excused) in self.absent(place) {
                let wrong = if excused {
                    Wrong::Damaged(place)
                } else {
                    Wrong::Missing(place)
                };
                add(receipt, wrong);
            }
            for (receipt, excess) in self.duplicates(place) {
                add(receipt, Wrong::Duplicate(place, excess));
            }
        }
        for receipt in self.order.wrong.iter().filter_map(|name| self.receipts.get(name)) {
            add(receipt, Wrong::OutOfOrder);
        }
        findings.sort_by_key(|finding| (finding.cycle, finding.name));
        findings
    }

    /// Acknowledged and not there, each with whether it was damaged and reported.
    fn absent(&self, place: Place) -> impl Iterator<Item = (&Receipt, bool)> {
        self.receipts
            .values()
            .filter(move |receipt| !self.copies(place).hold(&self.as_held(place, receipt.unit)))
            .map(move |receipt| (receipt, self.losses.excuse(place, receipt.unit.name)))
    }

    fn missing(&self, place: Place) -> usize {
        self.absent(place).filter(|(_, excused)| !excused).count()
    }

    fn duplicates(&self, place: Place) -> impl Iterator<Item = (&Receipt, u32)> {
        self.receipts.values().filter_map(move |receipt| {
            let Name { fleet, .. } = receipt.unit.name;
            let copies = self.copies(place).of(receipt.unit.name);
            let excess = copies.saturating_sub(permitted_copies(fleet, receipt.sends));
            (excess > 0).then_some((receipt, excess))
        })
    }

    fn copies(&self, place: Place) -> &Copies {
        match place {
            Place::Kafka => &self.kafka,
            Place::Postgres => &self.postgres,
        }
    }

    /// Postgres keeps whole seconds.
    fn as_held(&self, place: Place, unit: Unit) -> Unit {
        match place {
            Place::Kafka => unit,
            Place::Postgres => Unit {
                time_ms: unit.time_ms - unit.time_ms % 1000,
                ..unit
            },
        }
    }
}

/// How often each unit is there, and as what.
#[derive(Debug, Default)]
struct Copies {
    by_name: HashMap<Name, (Unit, u32)>,
    /// Copies that differ from the first one.
    altered: HashSet<Name>,
}

impl Copies {
    /// True for the first.
    fn count(&mut self, unit: Unit) -> bool {
        let (first, copies) = self.by_name.entry(unit.name).or_insert((unit, 0));
        *copies += 1;
        if *first != unit {
            self.altered.insert(unit.name);
        }
        *copies == 1
    }

    fn of(&self, name: Name) -> u32 {
        self.by_name.get(&name).map_or(0, |(_, copies)| *copies)
    }

    /// Whether it is there, and every copy is as it should be.
    fn hold(&self, unit: &Unit) -> bool {
        !self.altered.contains(&unit.name)
            && self.by_name.get(&unit.name).is_some_and(|(held, _)| held == unit)
    }
}

/// Who stands behind a later one.
#[derive(Debug, Default)]
struct Order {
    /// Of each fleet and machine, the highest order yet.
    highest: HashMap<(u8, u16), u32>,
    partitions: HashMap<u16, i32>,
    wrong: HashSet<Name>,
}

impl Order {
    fn first_copy(&mut self, partition: i32, name: Name) {
        let home = *self.partitions.entry(name.machine).or_insert(partition);
        let highest = self.highest.entry((name.fleet, name.machine)).or_insert(0);
        if name.order < *highest || home != partition {
            self.wrong.insert(name);
        }
        *highest = name.order.max(*highest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::STARTS_MS;

    fn unit(fleet: u8, order: i32) -> Unit {
        Unit::new(
            7,
            order,
            3,
            STARTS_MS[usize::from(fleet)] + i64::from(order) * 1500,
        )
        .unwrap()
    }

    fn audit(acknowledged: &[(Unit, u32)], in_kafka: &[(i32, Unit)], in_postgres: &[Unit]) -> Vec<Wrong> {
        let mut audit = Audit::new("127.0.0.1:1");
        let receipts = acknowledged.iter().map(|(unit, sends)| Receipt {
            unit: *unit,
            sends: *sends,
            latency: Duration::ZERO,
            cycle: 1,
        });
        audit.acknowledge(receipts.collect());
        for (partition, unit) in in_kafka {
            if audit.kafka.count(*unit) {
                audit.order.first_copy(*partition, unit.name);
            }
        }
        for unit in in_postgres {
            audit.postgres.count(audit.as_held(Place::Postgres, *unit));
        }
        audit
            .findings()
            .into_iter()
            .map(|finding| finding.wrong)
            .collect()
    }

    #[test]
    fn what_is_whole_and_in_order_has_no_finding() {
        let (a, b, other) = (unit(0, 1), unit(0, 2), unit(2, 1));
        let kafka = [(3, a), (3, other), (3, b)];
        let nothing: [Wrong; 0] = [];
        assert_eq!(
            audit(&[(a, 1), (b, 1), (other, 1)], &kafka, &[b, a, other]),
            nothing
        );
    }

    #[test]
    fn an_acknowledged_unit_that_one_end_lacks_is_missing_there() {
        let a = unit(0, 1);
        assert_eq!(audit(&[(a, 1)], &[], &[a]), [Wrong::Missing(Place::Kafka)]);
        assert_eq!(
            audit(&[(a, 1)], &[(0, a)], &[]),
            [Wrong::Missing(Place::Postgres)]
        );
    }

    #[test]
    fn a_unit_with_another_content_is_missing() {
        let a = unit(0, 1);
        let altered = Unit { part: 4, ..a };
        assert_eq!(
            audit(&[(a, 1)], &[(0, altered)], &[a]),
            [Wrong::Missing(Place::Kafka)]
        );
        assert_eq!(
            audit(&[(a, 2)], &[(0, a), (0, altered)], &[a]),
            [Wrong::Missing(Place::Kafka)]
        );
    }

    #[test]
    fn a_first_copy_behind_a_later_unit_is_out_of_order_and_a_repetition_is_not() {
        let (a, b) = (unit(0, 1), unit(0, 2));
        let both = [(a, 2), (b, 2)];
        assert_eq!(audit(&both, &[(3, b), (3, a)], &[a, b]), [Wrong::OutOfOrder]);
        let repeated = [(3, a), (3, b), (3, a), (3, b)];
        assert!(audit(&both, &repeated, &[a, b]).is_empty());
        assert_eq!(audit(&both, &[(3, a), (4, b)], &[a, b]), [Wrong::OutOfOrder]);
    }

    #[test]
    fn a_second_copy_is_a_duplicate_unless_a_device_of_qos_1_sent_twice() {
        let (qos1, qos2) = (unit(0, 1), unit(2, 1));
        let twice = |unit| audit(&[(unit, 2)], &[(0, unit), (0, unit)], &[unit, unit]);
        assert!(twice(qos1).is_empty());
        assert_eq!(
            twice(qos2),
            [
                Wrong::Duplicate(Place::Kafka, 1),
                Wrong::Duplicate(Place::Postgres, 1)
            ]
        );
        assert_eq!(
            audit(&[(qos1, 1)], &[(0, qos1)], &[qos1; 3]),
            [Wrong::Duplicate(Place::Postgres, 2)]
        );
    }
}
