//! The table `machine`.

use futures_util::Stream;
use tokio_postgres::Row;

use super::outbox::emit;
use super::{Store, StoreError, quarantine};
use crate::conditions::Conditions;
use crate::error::Error;
use crate::model::{Machine, Written};

/// What deleting runs into where units still refer to the machine.
const MACHINE_OF_UNIT: &str = "FK_027c3d3ad4cb59ddc20d8f670b2";

impl Store {
    /// Every machine, in the table's own order.
    pub(crate) async fn machines(
        &self,
    ) -> Result<impl Stream<Item = Result<Machine, StoreError>> + Send + use<>, StoreError> {
        self.rows("SELECT id FROM machine", machine).await
    }

    pub(crate) async fn machine(&self, id: i32) -> Result<Machine, Error> {
        let client = self.client().await?;
        let sql = "SELECT id FROM machine WHERE id = $1";
        let statement = client.prepare_cached(sql).await?;
        let row = client.query_opt(&statement, &[&id]).await?;
        row.map(|_| Machine { id }).ok_or_else(no_machine)
    }

    pub(crate) async fn create_machines(&self, count: u32) -> Result<Vec<Written<Machine>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let sql = "INSERT INTO machine SELECT nextval('machine_id_seq') FROM generate_series(1, $1::bigint) RETURNING id";
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx.query(&statement, &[&i64::from(count)]).await?;
        let written: Vec<_> = rows
            .iter()
            .map(|row| Ok(Written::changed(Machine { id: row.try_get(0)? })))
            .collect::<Result<_, StoreError>>()?;
        emit(&tx, &written).await?;
        let ids: Vec<i32> = written.iter().map(|written| written.entity.id).collect();
        quarantine::admit(&tx, &ids, &[]).await?;
        tx.commit(&written).await?;
        Ok(written)
    }

    pub(crate) async fn delete_machine(&self, id: i32, conditions: &Conditions) -> Result<(), Error> {
        self.remove_machines(vec![id], no_machine, conditions).await
    }

    pub(crate) async fn delete_machines(&self, ids: Vec<i32>) -> Result<(), Error> {
        let gone = || Error::NotFound("Some machines were not found and could not be deleted.".into());
        self.remove_machines(ids, gone, &Conditions::default()).await
    }

    async fn remove_machines(
        &self,
        mut ids: Vec<i32>,
        gone: impl Fn() -> Error,
        conditions: &Conditions,
    ) -> Result<(), Error> {
        ids.sort_unstable();
        ids.dedup();
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        // Locked in the order of their ids so that two requests never wait for each other.
        let sql = "SELECT id FROM machine WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        let lock = tx.prepare_cached(sql).await?;
        if tx.query(&lock, &[&ids]).await?.len() < ids.len() {
            return Err(gone());
        }
        ids.iter()
            .try_for_each(|id| conditions.permit(&Machine { id: *id }))?;
        let sql = "DELETE FROM machine WHERE id = ANY($1)";
        let statement = tx.prepare_cached(sql).await?;
        match tx.execute(&statement, &[&ids]).await.map_err(StoreError::from) {
            Err(error) if error.violated() == Some(MACHINE_OF_UNIT) => {
                return Err(Error::Conflict(
                    "The machine cannot be deleted: supply chain units refer to it.".into(),
                ));
            }
            outcome => outcome?,
        };
        let written: Vec<_> = ids
            .into_iter()
            .map(|id| Written::deleted(Machine { id }))
            .collect();
        emit(&tx, &written).await?;
        tx.commit(&written).await?;
        Ok(())
    }
}

pub(super) fn machine(row: &Row) -> Result<Machine, StoreError> {
    Ok(Machine { id: row.try_get(0)? })
}

fn no_machine() -> Error {
    Error::NotFound("Machine not found".into())
}
