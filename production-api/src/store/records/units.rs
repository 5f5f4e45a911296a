//! Units: one row each under the record's own id.

use std::collections::{BTreeSet, HashSet};

use deadpool_postgres::Transaction;
use shopfloor_proto::v1::UnitProduced;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::verdict::{Held, Reason, Verdict};
use crate::store::StoreError;
use crate::telemetry::production_time_s;

pub(super) struct Row<'a> {
    pub(super) id: Uuid,
    pub(super) unit: &'a UnitProduced,
}

pub(super) async fn apply(
    tx: &Transaction<'_>,
    units: &[(usize, Row<'_>)],
) -> Result<Vec<(usize, Verdict)>, StoreError> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let machines = units.iter().map(|(_, row)| row.unit.machine_id).collect();
    let parts = units.iter().map(|(_, row)| row.unit.part_id).collect();
    // Locked, so that neither can go before the commit; what is not there stays unknown to this batch.
    let machines = existing(
        tx,
        "SELECT id FROM machine WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE",
        machines,
    );
    let parts = existing(
        tx,
        "SELECT id FROM part_information WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE",
        parts,
    );
    let (machines, parts) = (machines.await?, parts.await?);
    let hold = |unit: &UnitProduced| cannot_store(unit, &machines, &parts);

    let (mut storable, mut rest) = (Vec::with_capacity(units.len()), Vec::new());
    for (index, row) in units {
        match hold(row.unit) {
            None => storable.push((*index, row)),
            Some(held) => rest.push((*index, row.id, held)),
        }
    }
    let stored = insert(tx, &storable).await?;
    let ids: Vec<Uuid> = rest.iter().map(|(_, id, _)| *id).collect();
    let present = present(tx, &ids).await?;
    let stored = storable.into_iter().map(|(index, row)| {
        let verdict = if stored.contains(&row.id) {
            Verdict::Stored
        } else {
            Verdict::Duplicate
        };
        (index, verdict)
    });
    let rest = rest.into_iter().map(|(index, id, held)| {
        let verdict = if present.contains(&id) {
            Verdict::Duplicate
        } else {
            Verdict::Held(held)
        };
        (index, verdict)
    });
    Ok(stored.chain(rest).collect())
}

fn cannot_store(unit: &UnitProduced, machines: &HashSet<i32>, parts: &HashSet<i32>) -> Option<Held> {
    let (machine, part) = (unit.machine_id, unit.part_id);
    if !machines.contains(&machine) {
        let also = if parts.contains(&part) {
            String::new()
        } else {
            format!(", nor does part {part}")
        };
        let detail = format!("machine {machine} does not exist{also}; the unit is stored when it does");
        return Some(Held::new(Reason::UnknownMachine, detail));
    }
    if !parts.contains(&part) {
        let detail = format!("part {part} does not exist; the unit is stored when it does");
        return Some(Held::new(Reason::UnknownPart, detail));
    }
    if unit.order.is_none() {
        let detail = "the unit has no order, which the table requires; retry it with one";
        return Some(Held::new(Reason::MissingOrder, detail));
    }
    None
}

async fn existing(
    tx: &Transaction<'_>,
    sql: &'static str,
    ids: BTreeSet<i32>,
) -> Result<HashSet<i32>, StoreError> {
    let ids: Vec<i32> = ids.into_iter().collect();
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Those of `ids` that are in the table.
pub(in crate::store) async fn present(
    tx: &Transaction<'_>,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, StoreError> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let statement = tx
        .prepare_cached("SELECT id FROM supply_chain WHERE id = ANY ($1)")
        .await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Returns the ids that were not there before.
async fn insert(tx: &Transaction<'_>, rows: &[(usize, &Row<'_>)]) -> Result<HashSet<Uuid>, StoreError> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let units = || rows.iter().map(|(_, row)| row.unit);
    let ids: Vec<Uuid> = rows.iter().map(|(_, row)| row.id).collect();
    let machines: Vec<i32> = units().map(|unit| unit.machine_id).collect();
    let times_s: Vec<i64> = units().map(production_time_s).collect();
    let parts: Vec<i32> = units().map(|unit| unit.part_id).collect();
    let orders: Vec<Option<i32>> = units().map(|unit| unit.order).collect();
    let var1: Vec<Option<i32>> = units().map(|unit| unit.var1).collect();
    let var2: Vec<Option<&str>> = units().map(|unit| unit.var2.as_deref()).collect();
    let var3: Vec<Option<&str>> = units().map(|unit| unit.var3.as_deref()).collect();
    let var4: Vec<Option<i32>> = units().map(|unit| unit.var4).collect();
    let var5: Vec<bool> = units().map(|unit| unit.var5).collect();
    let statement = tx
        .prepare_cached(
            r#"INSERT INTO supply_chain
                   (id, "machineId", "timeOfProduction", "partId", "order", var1, var2, var3, var4, var5)
               SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::int[], $5::int[],
                                    $6::int[], $7::text[], $8::text[], $9::int[], $10::bool[])
               ON CONFLICT (id) DO NOTHING
               RETURNING id"#,
        )
        .await?;
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &ids, &machines, &times_s, &parts, &orders, &var1, &var2, &var3, &var4, &var5,
    ];
    let inserted = tx.query(&statement, &parameters).await?;
    inserted.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
