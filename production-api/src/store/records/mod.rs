//! Puts valid telemetry records into their tables, within the caller's transaction.
//!
//! Layout, in the order in which a batch passes: `materials`, `parts`, `units`; `ledger` tells which
//! records were here before.
//!
//! Promise: a fixed number of statements whatever the batch holds, and locks always in one order (tables
//! `material`, `part_information`, then rows of `machine`, `part_information`), so that batches cannot deadlock
//! each other.

use deadpool_postgres::Transaction;
use shopfloor_proto::v1::telemetry_record::Body;

use super::StoreError;
use crate::telemetry::Record;

pub(super) mod ledger;
mod materials;
mod parts;
mod sequence;
mod units;
mod verdict;

pub use ledger::trim as trim_ledger;
pub(super) use units::present as present_units;
pub use verdict::{Held, Reason, Verdict};

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
    let mut settled = Vec::new();
    let mut found: Vec<(usize, Verdict)> = Vec::with_capacity(records.len());
    found.extend(materials::apply(tx, &sorted.materials).await?);
    let new_parts = parts::apply(tx, &sorted.parts).await?;
    found.extend(sorted.parts.iter().map(|(index, _)| (*index, Verdict::Stored)));
    for (index, verdict) in &found {
        if let (Verdict::Stored, Some(record)) = (verdict, records.get(*index)) {
            settled.push(record.id);
        }
    }
    ledger::settle(tx, &settled).await?;
    found.extend(units::apply(tx, &sorted.units).await?);
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
