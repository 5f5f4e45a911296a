//! The table `supply_chain`: produced units.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use futures_util::Stream;
use tokio_postgres::Row;
use uuid::Uuid;

use super::outbox::emit;
use super::rows::{PART_COLUMNS, part};
use super::{Store, StoreError};
use crate::conditions::Conditions;
use crate::error::Error;
use crate::model::{Instant, Machine, Part, Unit, Written};
use crate::validate::unit::{NewUnit, UnitChange};

const MACHINE: &str = "FK_027c3d3ad4cb59ddc20d8f670b2";
const PART: &str = "FK_76a6631b2801637d6c3612d4ee2";

pub(super) const COLUMNS: &str =
    "id, \"machineId\", \"timeOfProduction\", \"partId\", \"order\", var1, var2, var3, var4, var5";

pub(super) fn unit(row: &Row) -> Result<Unit, StoreError> {
    Ok(Unit {
        id: row.try_get(0)?,
        machine_id: row.try_get(1)?,
        time_of_production: Instant::from_stored(row.try_get(2)?),
        part_id: row.try_get(3)?,
        order: row.try_get(4)?,
        var1: row.try_get(5)?,
        var2: row.try_get(6)?,
        var3: row.try_get(7)?,
        var4: row.try_get(8)?,
        var5: row.try_get(9)?,
        machine: None,
        part: None,
    })
}

impl Store {
    /// Every unit, in the table's own order.
    pub(crate) async fn units(
        &self,
    ) -> Result<impl Stream<Item = Result<Unit, StoreError>> + Send + use<>, StoreError> {
        self.rows(&format!("SELECT {COLUMNS} FROM supply_chain"), unit)
            .await
    }

    /// `sent_id` is the id as the client wrote it.
    pub(crate) async fn unit(&self, id: Uuid, sent_id: &str) -> Result<Unit, Error> {
        let client = self.client().await?;
        let sql = format!("SELECT {COLUMNS} FROM supply_chain WHERE id = $1");
        let statement = client.prepare_cached(&sql).await?;
        let row = client.query_opt(&statement, &[&id]).await?;
        Ok(unit(&row.ok_or_else(|| no_unit(sent_id))?)?)
    }

    pub(crate) async fn create_units(&self, units: Vec<NewUnit>) -> Result<Vec<Written<Unit>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let references = units.iter().map(|unit| (unit.machine_id, unit.part_id));
        let parts = referenced_parts(&tx, references).await?;
        let entities = units.into_iter().map(|new| {
            let entity = Unit {
                id: Uuid::new_v4(),
                machine_id: new.machine_id,
                time_of_production: new.time_of_production,
                part_id: new.part_id,
                order: new.order,
                var1: new.var1,
                var2: new.var2,
                var3: new.var3,
                var4: new.var4,
                var5: new.var5,
                machine: None,
                part: None,
            };
            nested(entity, &parts)
        });
        let written: Vec<_> = entities.collect();
        let sql = format!("INSERT INTO supply_chain ({COLUMNS}) SELECT {COLUMNS} FROM {ROWS}");
        write_rows(&tx, &sql, written.iter().map(|written| &written.entity)).await?;
        emit(&tx, &written).await?;
        tx.commit(&written).await?;
        Ok(written)
    }

    /// The answer, and the unit as it is now stored.
    pub(crate) async fn update_unit(
        &self,
        change: (Uuid, String, UnitChange),
        conditions: &Conditions,
    ) -> Result<(Written<Unit>, Unit), Error> {
        let written = self.change_units(vec![change], conditions).await?.pop();
        let written = written.ok_or(StoreError::Unexpected("no row came back from an update"))?;
        let now = stored(&written.entity);
        Ok((written, now))
    }

    /// Applies `changes` in order, one answer each. The text beside an id is the id as the client wrote it.
    pub(crate) async fn update_units(
        &self,
        changes: Vec<(Uuid, String, UnitChange)>,
    ) -> Result<Vec<Written<Unit>>, Error> {
        self.change_units(changes, &Conditions::default()).await
    }

    async fn change_units(
        &self,
        changes: Vec<(Uuid, String, UnitChange)>,
        conditions: &Conditions,
    ) -> Result<Vec<Written<Unit>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let ids: Vec<Uuid> = changes.iter().map(|(id, ..)| *id).collect();
        let sql =
            format!("SELECT {COLUMNS} FROM supply_chain WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE");
        let statement = tx.prepare_cached(&sql).await?;
        let rows = tx.query(&statement, &[&ids]).await?;
        let rows = rows.iter().map(|row| unit(row).map(|unit| (unit.id, unit)));
        let mut rows: HashMap<Uuid, Unit> = rows.collect::<Result<_, _>>()?;
        rows.values().try_for_each(|row| conditions.permit(row))?;
        let mut answers = Vec::with_capacity(changes.len());
        for (id, sent_id, change) in changes {
            let row = rows.get_mut(&id).ok_or_else(|| no_unit(&sent_id))?;
            apply(row, change);
            answers.push(row.clone());
        }
        let parts = referenced_parts(&tx, answers.iter().map(|unit| (unit.machine_id, unit.part_id))).await?;
        let written: Vec<_> = answers.into_iter().map(|unit| nested(unit, &parts)).collect();
        let sql = format!(
            "UPDATE supply_chain unit
             SET \"machineId\" = new.\"machineId\", \"timeOfProduction\" = new.\"timeOfProduction\",
                 \"partId\" = new.\"partId\", \"order\" = new.\"order\", var1 = new.var1, var2 = new.var2,
                 var3 = new.var3, var4 = new.var4, var5 = new.var5
             FROM {ROWS}
             WHERE unit.id = new.id AND unit IS DISTINCT FROM new"
        );
        write_rows(&tx, &sql, rows.values()).await?;
        emit(&tx, &written).await?;
        let now = written.first().map(|written| stored(&written.entity));
        tx.commit_with(&written, now.as_ref()).await?;
        Ok(written)
    }
}

/// A unit that was just written as GET answers it.
fn stored(unit: &Unit) -> Unit {
    Unit {
        time_of_production: Instant::from_stored(unit.time_of_production.to_stored()),
        machine: None,
        part: None,
        ..unit.clone()
    }
}

fn no_unit(sent_id: &str) -> Error {
    Error::NotFoundNamed(format!("SupplyChain with ID {sent_id} not found."))
}

fn no_machine() -> Error {
    Error::NotFoundNamed("Machine ID not found.".into())
}

fn no_part() -> Error {
    Error::NotFoundNamed("PartInformation ID not found.".into())
}

fn nested(mut unit: Unit, parts: &HashMap<i32, Part>) -> Written<Unit> {
    unit.machine = Some(Machine { id: unit.machine_id });
    unit.part = parts.get(&unit.part_id).cloned();
    Written::changed(unit)
}

fn apply(unit: &mut Unit, change: UnitChange) {
    let UnitChange {
        time_of_production,
        order,
        var1,
        var2,
        var3,
        var4,
        var5,
        machine_id,
        part_id,
    } = change;
    unit.machine_id = machine_id.unwrap_or(unit.machine_id);
    unit.time_of_production = time_of_production.unwrap_or(unit.time_of_production);
    unit.part_id = part_id.unwrap_or(unit.part_id);
    unit.order = order.unwrap_or(unit.order);
    unit.var1 = var1.unwrap_or(unit.var1);
    unit.var2 = var2.unwrap_or_else(|| unit.var2.take());
    unit.var3 = var3.unwrap_or_else(|| unit.var3.take());
    unit.var4 = var4.unwrap_or(unit.var4);
    unit.var5 = var5.unwrap_or(unit.var5);
}

/// The parts of `references` (machine, part); an error for the first machine or part that is not there.
async fn referenced_parts(
    tx: &Transaction<'_>,
    references: impl Iterator<Item = (i32, i32)>,
) -> Result<HashMap<i32, Part>, Error> {
    let references: Vec<(i32, i32)> = references.collect();
    let (machine_ids, part_ids): (Vec<i32>, Vec<i32>) = references.iter().copied().unzip();
    let machines = "SELECT id FROM machine WHERE id = ANY($1)";
    let machines = tx.prepare_cached(machines).await?;
    let parts = format!("SELECT {PART_COLUMNS} FROM part_information WHERE id = ANY($1)");
    let parts = tx.prepare_cached(&parts).await?;
    let (machine_params, part_params) = ([&machine_ids as _], [&part_ids as _]);
    // Both are on the wire at once.
    let queries = futures_util::future::try_join(
        tx.query(&machines, &machine_params),
        tx.query(&parts, &part_params),
    );
    let (machines, parts) = queries.await?;
    let machines = machines.iter().map(|row| row.try_get::<_, i32>(0));
    let machines: std::collections::HashSet<i32> = machines.collect::<Result<_, _>>()?;
    let parts = parts.iter().map(|row| part(row).map(|part| (part.id, part)));
    let parts: HashMap<i32, Part> = parts.collect::<Result<_, _>>()?;
    for (machine_id, part_id) in references {
        if !machines.contains(&machine_id) {
            return Err(no_machine());
        }
        if !parts.contains_key(&part_id) {
            return Err(no_part());
        }
    }
    Ok(parts)
}

/// The parameters of [`write_rows`] as a table with the columns of `supply_chain`, in the order of the rows.
/// Their types are the columns' own: rows of others cannot be compared.
const ROWS: &str = "(SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::int[], $5::int[], $6::int[],
        $7::varchar[], $8::varchar[], $9::int[], $10::boolean[])
    AS new (id, \"machineId\", \"timeOfProduction\", \"partId\", \"order\", var1, var2, var3, var4, var5)) AS new";

/// Runs `sql` once with all `units` as [`ROWS`].
async fn write_rows<'a>(
    tx: &Transaction<'_>,
    sql: &str,
    units: impl Iterator<Item = &'a Unit> + Clone,
) -> Result<(), Error> {
    let ids: Vec<Uuid> = units.clone().map(|unit| unit.id).collect();
    let machine_ids: Vec<i32> = units.clone().map(|unit| unit.machine_id).collect();
    let times: Vec<i64> = units
        .clone()
        .map(|unit| unit.time_of_production.to_stored())
        .collect();
    let part_ids: Vec<i32> = units.clone().map(|unit| unit.part_id).collect();
    let orders: Vec<i32> = units.clone().map(|unit| unit.order).collect();
    let var1: Vec<Option<i32>> = units.clone().map(|unit| unit.var1).collect();
    let var2: Vec<Option<&str>> = units.clone().map(|unit| unit.var2.as_deref()).collect();
    let var3: Vec<Option<&str>> = units.clone().map(|unit| unit.var3.as_deref()).collect();
    let var4: Vec<Option<i32>> = units.clone().map(|unit| unit.var4).collect();
    let var5: Vec<bool> = units.map(|unit| unit.var5).collect();
    let statement = tx.prepare_cached(sql).await?;
    let outcome = tx
        .execute(
            &statement,
            &[
                &ids,
                &machine_ids,
                &times,
                &part_ids,
                &orders,
                &var1,
                &var2,
                &var3,
                &var4,
                &var5,
            ],
        )
        .await
        .map_err(StoreError::from);
    match outcome {
        Ok(_) => Ok(()),
        // Deleted since it was looked up.
        Err(error) => Err(match error.violated() {
            Some(MACHINE) => no_machine(),
            Some(PART) => no_part(),
            _ => error.into(),
        }),
    }
}
