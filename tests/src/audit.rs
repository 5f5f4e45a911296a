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

/// How often each unit is in Postgres, whatever else its row says.
pub fn in_postgres(stack: &Stack) -> BTreeMap<Name, u32> {
    let mut counts = BTreeMap::new();
    for row in stack.rows(r#"SELECT "machineId", "order" FROM supply_chain;"#) {
        *counts.entry(name_of_row(&row)).or_default() += 1;
    }
    counts
}

/// Rows of the units' table.
pub fn row_count(stack: &Stack) -> usize {
    stack.rows("SELECT count(*) FROM supply_chain;")[0]
        .parse()
        .expect("a number")
}

/// Panics unless every unit has exactly one row and that row says what was published.
pub fn assert_once_in_postgres(stack: &Stack, units: &[Unit]) {
    // The table keeps whole seconds.
    let query = r#"SELECT "machineId", "order", "partId",
        to_char(to_timestamp("timeOfProduction"), 'YYYY-MM-DD"T"HH24:MI:SS') FROM supply_chain;"#;
    let mut rows: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for row in stack.rows(query) {
        rows.entry(name_of_row(&row)).or_default().push(row);
    }
    let wrong: Vec<_> = units
        .iter()
        .filter_map(|unit| {
            let seconds = unit.time.get(.."YYYY-MM-DDTHH:MM:SS".len()).expect("an ISO time");
            let expected = format!("{}|{}|{}|{seconds}", unit.machine, unit.order, unit.part);
            let found = rows.get(&unit.name()).cloned().unwrap_or_default();
            (found != [expected]).then_some((unit, found))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} acknowledged units are not exactly once in Postgres, the first: {:?}",
        wrong.len(),
        units.len(),
        wrong[0]
    );
}

/// Panics unless every unit is among the records, as it was published.
pub fn assert_in_kafka(records: &[Consumed], units: &[Unit]) {
    let there: BTreeSet<Unit> = records.iter().map(Unit::of_record).collect();
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
    for record in records {
        let unit = Unit::of_record(record);
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

fn name_of_row(row: &str) -> Name {
    let mut fields = row.split('|');
    let mut number = || {
        fields
            .next()
            .and_then(|field| field.parse().ok())
            .expect("a number")
    };
    (number(), number())
}
