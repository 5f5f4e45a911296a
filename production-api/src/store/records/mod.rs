//! Puts valid telemetry records into their tables, within the caller's transaction.
//!
//! Layout, in the order in which a batch passes: `materials`, `parts`, `units`; `ledger` tells which
//! records were here before.
//!
//! Promise: a fixed number of statements whatever the batch holds, and locks always in one order (tables
//! `material`, `part_information`, then rows of `machine`, `part_information`), so that batches cannot deadlock
//! each other.

use deadpool_postgres::Transaction;
use serde::Serialize;
use shopfloor_proto::v1::telemetry_record::Body;

use super::StoreError;
use super::outbox;
use crate::telemetry::Record;

pub(super) mod ledger;
mod materials;
mod parts;
mod units;

pub use ledger::trim as trim_ledger;
pub(super) use units::present as present_units;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The tables say what the record says.
    Stored,
    /// An earlier batch had brought it.
    Duplicate,
    /// Valid, but cannot be stored now.
    Held(Held),
}

/// Why a record waits in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub reason: Reason,
    /// One sentence with the values and the remedy.
    pub detail: String,
}

/// The kinds of reasons; also the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    UnknownMachine,
    UnknownPart,
    MissingOrder,
    NameTaken,
    Expired,
}

impl Reason {
    pub const ALL: [Self; 5] = [
        Self::UnknownMachine,
        Self::UnknownPart,
        Self::MissingOrder,
        Self::NameTaken,
        Self::Expired,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownMachine => "unknown_machine",
            Self::UnknownPart => "unknown_part",
            Self::MissingOrder => "missing_order",
            Self::NameTaken => "name_taken",
            Self::Expired => "expired",
        }
    }
}

impl Held {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// What [`apply`] did.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// One a record, in their order.
    pub(super) verdicts: Vec<Verdict>,
    /// Parts that exist since this call.
    pub(super) new_parts: Vec<i32>,
}

/// Puts the records into their tables: materials, parts, then units, each in the records' order. Records that
/// the ledger knows must have been taken out before.
pub(super) async fn apply(tx: &Transaction<'_>, records: &[&Record]) -> Result<Applied, StoreError> {
    let mut sorted = Sorted::default();
    for (index, record) in records.iter().enumerate() {
        match &record.body {
            Body::Material(material) => sorted.materials.push((index, material)),
            Body::Part(part) => sorted.parts.push((index, part)),
            Body::Unit(unit) => sorted.units.push((index, units::Row { id: record.id, unit })),
        }
    }
    let (mut settled, mut emitted) = (Vec::new(), Vec::new());
    let mut found: Vec<(usize, Verdict)> = Vec::with_capacity(records.len());
    found.extend(materials::apply(tx, &sorted.materials, &mut emitted).await?);
    let new_parts = parts::apply(tx, &sorted.parts, &mut emitted).await?;
    found.extend(sorted.parts.iter().map(|(index, _)| (*index, Verdict::Stored)));
    for (index, verdict) in &found {
        if let (Verdict::Stored, Some(record)) = (verdict, records.get(*index)) {
            settled.push(record.id);
        }
    }
    ledger::settle(tx, &settled).await?;
    found.extend(units::apply(tx, &sorted.units).await?);
    outbox::enqueue(tx, &emitted).await?;
    found.sort_unstable_by_key(|(index, _)| *index);
    Ok(Applied {
        verdicts: found.into_iter().map(|(_, verdict)| verdict).collect(),
        new_parts,
    })
}

/// The records by kind, each with its index.
#[derive(Default)]
struct Sorted<'a> {
    materials: Vec<(usize, &'a shopfloor_proto::v1::MaterialData)>,
    parts: Vec<(usize, &'a shopfloor_proto::v1::PartReference)>,
    units: Vec<(usize, units::Row<'a>)>,
}

/// Ids above this do not move a sequence: one device that publishes 2^31-1 would leave REST no id to give.
/// REST reaches them after a billion creates.
const SEQUENCE_CEILING: i32 = 1 << 30;

/// Moves the table's id sequence past ids that were given explicitly. The caller holds the table's lock, so no
/// create runs in between.
async fn move_sequence(
    tx: &Transaction<'_>,
    sql: &'static str,
    ids: impl Iterator<Item = i32>,
) -> Result<(), StoreError> {
    let Some(highest) = ids.filter(|id| *id <= SEQUENCE_CEILING).max() else {
        return Ok(());
    };
    let statement = tx.prepare_cached(sql).await?;
    tx.execute(&statement, &[&i64::from(highest)]).await?;
    Ok(())
}

/// A created row as REST would tell of it.
fn outbox_record(topic: &'static str, id: i32, created: &impl Serialize) -> outbox::OutboxRecord {
    outbox::OutboxRecord {
        topic,
        key: id.to_string(),
        // A struct of plain fields always serializes; the table would refuse an empty value.
        value: serde_json::to_vec(created).unwrap_or_default(),
    }
}

/// Now, as the `lastUpdate` of every record that goes to Kafka.
fn last_update() -> String {
    let now = time::OffsetDateTime::now_utc();
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second].0000000");
    now.format(&format).unwrap_or_default()
}
