//! The table: what each kind of fault came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::audit::{Finding, Place, Wrong};
use crate::fault::Fault;

/// One cycle: a fault under load, until acknowledgements flowed again.
#[derive(Debug, Clone, Copy)]
pub struct Cycle {
    pub fault: Fault,
    pub acknowledged: usize,
    /// From the end of the fault until every fleet had acknowledgements again.
    pub recovered: Duration,
}

/// A fault that could not be done, and why.
pub type NotRun = (Fault, String);

/// A whole run. Its text is the table, then the line of totals.
#[derive(Debug)]
pub struct Report {
    /// The first cycle is 1; what is acknowledged after the last counts as one more.
    pub cycles: Vec<Cycle>,
    pub acknowledged: usize,
    pub findings: Vec<Finding>,
    pub exactly_once: bool,
    /// Faults that could not be done here, and why.
    pub not_run: Vec<NotRun>,
}

/// What is wrong, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Units that are missing in Kafka, in Postgres, or in both.
    pub missing: usize,
    /// The same of those that the suite destroyed and the gateway reported.
    pub damaged: usize,
    pub out_of_order: usize,
    pub duplicates_kafka: usize,
    pub duplicates_postgres: usize,
}

impl Report {
    pub fn totals(&self) -> Totals {
        Totals::of(self.findings.iter())
    }

    /// Nothing missing, nothing out of order, nothing twice where it must be once.
    pub fn is_good(&self) -> bool {
        !self
            .findings
            .iter()
            .any(|finding| finding.wrong.is_broken_promise(self.exactly_once))
    }
}

impl Totals {
    pub(crate) fn of<'a>(findings: impl Iterator<Item = &'a Finding>) -> Self {
        let mut totals = Self::default();
        let (mut missing, mut damaged) = (BTreeSet::new(), BTreeSet::new());
        for finding in findings {
            match finding.wrong {
                Wrong::Missing(_) => drop(missing.insert(finding.name)),
                Wrong::Damaged(_) => drop(damaged.insert(finding.name)),
                Wrong::OutOfOrder => totals.out_of_order += 1,
                Wrong::Duplicate(Place::Kafka, excess) => totals.duplicates_kafka += excess as usize,
                Wrong::Duplicate(Place::Postgres, excess) => totals.duplicates_postgres += excess as usize,
            }
        }
        totals.missing = missing.len();
        totals.damaged = damaged.difference(&missing).count();
        totals
    }
}

/// One line of the table.
#[derive(Debug, Default)]
struct Row {
    recovered: Vec<Duration>,
    acknowledged: usize,
    cycles: Vec<usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: BTreeMap<Fault, Row> = BTreeMap::new();
        for (number, cycle) in (1..).zip(&self.cycles) {
            let row = rows.entry(cycle.fault).or_default();
            row.recovered.push(cycle.recovered);
            row.acknowledged += cycle.acknowledged;
            row.cycles.push(number);
        }
        writeln!(
            f,
            "{:<20}{:>7}{:>12}{:>10}{:>14}{:>9}{:>9}{:>14}{:>12}{:>15}",
            "fault",
            "cycles",
            "recovery s",
            "at most",
            "acknowledged",
            "missing",
            "damaged",
            "out_of_order",
            "dup_kafka",
            "dup_postgres"
        )?;
        for (fault, mut row) in rows {
            row.recovered.sort();
            let seconds = |at: Option<&Duration>| at.map_or(0.0, Duration::as_secs_f64);
            let totals = Totals::of(
                self.findings
                    .iter()
                    .filter(|finding| row.cycles.contains(&finding.cycle)),
            );
            writeln!(
                f,
                "{fault:<20}{:>7}{:>12.1}{:>10.1}{:>14}{:>9}{:>9}{:>14}{:>12}{:>15}",
                row.cycles.len(),
                seconds(row.recovered.get(row.recovered.len() / 2)),
                seconds(row.recovered.last()),
                row.acknowledged,
                totals.missing,
                totals.damaged,
                totals.out_of_order,
                totals.duplicates_kafka,
                totals.duplicates_postgres
            )?;
        }
        for (fault, why) in &self.not_run {
            writeln!(f, "{fault:<20}NOT RUN: {why}")?;
        }
        let totals = self.totals();
        write!(
            f,
            "cycles {} acknowledged {} missing {} out_of_order {} duplicates_kafka {} duplicates_postgres {}",
            self.cycles.len(),
            self.acknowledged,
            totals.missing,
            totals.out_of_order,
            totals.duplicates_kafka,
            totals.duplicates_postgres
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Part;
    use crate::unit::Name;

    fn finding(order: u32, cycle: usize, wrong: Wrong) -> Finding {
        let name = Name {
            fleet: 0,
            machine: 1,
            order,
        };
        Finding { name, cycle, wrong }
    }

    fn report(findings: Vec<Finding>) -> Report {
        let cycle = |part| Cycle {
            fault: Fault::Kill(part),
            acknowledged: 50,
            recovered: Duration::from_millis(1500),
        };
        Report {
            cycles: vec![cycle(Part::Gateway), cycle(Part::Kafka)],
            acknowledged: 100,
            findings,
            exactly_once: false,
            not_run: Vec::new(),
        }
    }

    #[test]
    fn a_finding_is_blamed_on_the_fault_of_its_cycle_and_counted_in_the_last_line() {
        let report = report(vec![
            finding(4, 2, Wrong::Missing(Place::Kafka)),
            finding(4, 2, Wrong::Missing(Place::Postgres)),
            finding(5, 2, Wrong::Duplicate(Place::Kafka, 3)),
            finding(2, 1, Wrong::Damaged(Place::Postgres)),
        ]);
        let text = report.to_string();
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            fields(row("kill-gateway"))[4..],
            ["50", "0", "1", "0", "0", "0"].map(str::to_owned)
        );
        assert_eq!(
            fields(row("kill-kafka"))[4..],
            ["50", "1", "0", "0", "3", "0"].map(str::to_owned)
        );
        assert_eq!(
            text.lines().last().unwrap(),
            "cycles 2 acknowledged 100 missing 1 out_of_order 0 duplicates_kafka 3 duplicates_postgres 0"
        );
    }

    #[test]
    fn only_copies_in_kafka_may_be_and_only_without_exactly_once() {
        assert!(report(vec![]).is_good());
        for wrong in [
            Wrong::Missing(Place::Kafka),
            Wrong::OutOfOrder,
            Wrong::Duplicate(Place::Postgres, 1),
        ] {
            assert!(!report(vec![finding(1, 1, wrong)]).is_good(), "{wrong:?}");
        }
        assert!(report(vec![finding(1, 1, Wrong::Damaged(Place::Kafka))]).is_good());
        let mut repeated = report(vec![finding(1, 1, Wrong::Duplicate(Place::Kafka, 1))]);
        assert!(repeated.is_good());
        repeated.exactly_once = true;
        assert!(!repeated.is_good());
    }
}
