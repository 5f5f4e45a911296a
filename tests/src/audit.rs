//! What was acknowledged against what Postgres and Kafka hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::python::Consumed;
use crate::stack::Stack;

/// One produced unit as it was published. `machine` and `order` name it: no publisher uses a pair twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    pub machine: i32,
    pub order: i32,
    pub part: i32,
    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub time: String,
}

/// A unit's name.
pub type Name = (i32, i32);

impl Unit {
    pub fn name(&self) -> Name {
        (self.machine, self.order)
    }

    /// As a machine publishes it.
    pub fn payload(&self) -> String {
        let Self {
            machine,
            order,
            part,
            time,
        } = self;
        format!(
            r#"{{"timeOfProduction":"{time}","order":{order},"var5":false,"machineId":{machine},"partId":{part}}}"#
        )
    }

    /// As Postgres has it; the table keeps whole seconds.
    fn row(&self) -> String {
        let seconds = self.time.get(.."YYYY-MM-DDTHH:MM:SS".len()).expect("an ISO time");
        format!("{}|{}|{}|{seconds}", self.machine, self.order, self.part)
    }

    fn of_record(record: &Consumed) -> Self {
        let number = |name: &str| {
            let number = record.value[name].as_i64().expect("the client's rules hold");
            i32::try_from(number).expect("a 32-bit number")
        };
        Self {
            machine: number("machineId"),
            order: number("order"),
            part: number("partId"),
            time: record.value["timeOfProduction"]
                .as_str()
                .expect("a text")
                .to_owned(),
        }
    }
}

/// The rows of units by the unit's name; each row is `machine|order|part|time in whole seconds`.
pub type Rows = BTreeMap<Name, Vec<String>>;

/// Every unit's rows in Postgres.
pub fn in_postgres(stack: &Stack) -> Rows {
    let query = r#"SELECT "machineId", "order", "partId",
        to_char(to_timestamp("timeOfProduction"), 'YYYY-MM-DD"T"HH24:MI:SS') FROM supply_chain;"#;
    by_name(stack.rows(query))
}

/// The units among records.
pub fn names_in_kafka(records: &[Consumed]) -> BTreeSet<Name> {
    units_of(records).map(|(_, unit)| unit.name()).collect()
}

/// Panics unless every unit has a row, and each row of it says what was published.
pub fn assert_in_postgres(rows: &Rows, units: &[Unit]) {
    assert_rows(rows, units, |found, expected| {
        !found.is_empty() && found.iter().all(|row| row == expected)
    });
}

/// Panics unless every unit has exactly one row, and that row says what was published.
pub fn assert_once_in_postgres(rows: &Rows, units: &[Unit]) {
    assert_rows(rows, units, |found, expected| {
        found == std::slice::from_ref(expected)
    });
}

fn assert_rows(rows: &Rows, units: &[Unit], right: impl Fn(&[String], &String) -> bool) {
    let found = |unit: &Unit| rows.get(&unit.name()).cloned().unwrap_or_default();
    let wrong: Vec<_> = units
        .iter()
        .filter(|unit| !right(&found(unit), &unit.row()))
        .collect();
    if let Some(first) = wrong.first() {
        panic!(
            "{} of {} acknowledged units are not in Postgres as they should be, the first: {first:?}, there {:?}",
            wrong.len(),
            units.len(),
            found(first)
        );
    }
}

/// Panics unless every unit is among the records, as it was published.
pub fn assert_in_kafka(records: &[Consumed], units: &[Unit]) {
    let there: BTreeSet<Unit> = units_of(records).map(|(_, unit)| unit).collect();
    let missing: Vec<_> = units.iter().filter(|unit| !there.contains(unit)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} acknowledged units are not in Kafka, the first: {:?}",
        missing.len(),
        units.len(),
        missing[0]
    );
}

/// Panics unless each machine has one partition, and there the units of one publisher stand in the order in which
/// they were published, each counted where it stands first.
pub fn assert_in_order(records: &[Consumed], published: &[Vec<Unit>]) {
    let mut partitions: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    let mut first_offsets: BTreeMap<Name, i64> = BTreeMap::new();
    for (record, unit) in units_of(records) {
        partitions
            .entry(unit.machine)
            .or_default()
            .insert(record.partition);
        let first = first_offsets.entry(unit.name()).or_insert(record.offset);
        *first = record.offset.min(*first);
    }
    for (machine, partitions) in &partitions {
        assert_eq!(
            partitions.len(),
            1,
            "machine {machine} is in partitions {partitions:?}"
        );
    }
    for units in published {
        let mut last: BTreeMap<i32, (i64, &Unit)> = BTreeMap::new();
        for unit in units {
            let Some(&offset) = first_offsets.get(&unit.name()) else {
                continue;
            };
            if let Some((before, earlier)) = last.insert(unit.machine, (offset, unit)) {
                assert!(before < offset, "in Kafka {unit:?} stands before {earlier:?}");
            }
        }
    }
}

/// The records of units, each with its unit.
fn units_of(records: &[Consumed]) -> impl Iterator<Item = (&Consumed, Unit)> {
    records
        .iter()
        .filter(|record| record.topic == "supply_chain")
        .map(|record| (record, Unit::of_record(record)))
}

fn by_name(rows: Vec<String>) -> Rows {
    let mut by_name = Rows::new();
    for row in rows {
        let mut fields = row.split('|');
        let mut number = || {
            fields
                .next()
                .and_then(|field| field.parse().ok())
                .expect("a number")
        };
        let name = (number(), number());
        by_name.entry(name).or_default().push(row);
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(machine: i32, order: i32) -> Unit {
        Unit {
            machine,
            order,
            part: 4,
            time: "2023-12-10T00:00:00.500Z".to_owned(),
        }
    }

    fn record(unit: &Unit, partition: i64, offset: i64) -> Consumed {
        Consumed {
            topic: "supply_chain".to_owned(),
            partition,
            offset,
            key: None,
            value: serde_json::from_str(&unit.payload()).unwrap(),
        }
    }

    fn rows(units: &[&Unit]) -> Rows {
        by_name(units.iter().map(|unit| unit.row()).collect())
    }

    #[test]
    fn a_right_whole_passes() {
        let (a, b) = (unit(1, 1), unit(1, 2));
        let units = [a.clone(), b.clone()];
        assert_once_in_postgres(&rows(&[&b, &a]), &units);
        let records = [record(&a, 3, 10), record(&b, 3, 11), record(&a, 3, 12)];
        assert_in_kafka(&records, &units);
        assert_in_order(&records, &[units.to_vec()]);
    }

    #[test]
    #[should_panic(expected = "1 of 2 acknowledged units")]
    fn a_lost_row_fails() {
        assert_in_postgres(&rows(&[&unit(1, 1)]), &[unit(1, 1), unit(1, 2)]);
    }

    #[test]
    #[should_panic(expected = "1 of 1 acknowledged units")]
    fn a_second_row_of_one_unit_fails() {
        assert_once_in_postgres(&rows(&[&unit(1, 1), &unit(1, 1)]), &[unit(1, 1)]);
    }

    #[test]
    #[should_panic(expected = "1 of 1 acknowledged units")]
    fn a_changed_value_fails() {
        let changed = Unit {
            part: 5,
            ..unit(1, 1)
        };
        assert_in_postgres(&rows(&[&changed]), &[unit(1, 1)]);
    }

    #[test]
    #[should_panic(expected = "1 of 2 acknowledged units are not in Kafka")]
    fn a_lost_record_fails() {
        assert_in_kafka(&[record(&unit(1, 1), 0, 0)], &[unit(1, 1), unit(1, 2)]);
    }

    #[test]
    #[should_panic(expected = "stands before")]
    fn two_records_of_one_machine_in_the_wrong_order_fail() {
        let (a, b) = (unit(1, 1), unit(1, 2));
        assert_in_order(
            &[record(&b, 0, 0), record(&a, 0, 1)],
            &[vec![a.clone(), b.clone()]],
        );
    }

    #[test]
    #[should_panic(expected = "is in partitions")]
    fn one_machine_in_two_partitions_fails() {
        let (a, b) = (unit(1, 1), unit(1, 2));
        assert_in_order(&[record(&a, 0, 0), record(&b, 1, 0)], &[]);
    }
}
