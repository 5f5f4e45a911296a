//! The table `part_information`.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use futures_util::Stream;

use super::outbox::emit;
use super::rows::{PART_COLUMNS as COLUMNS, missing, part};
use super::{Store, StoreError, quarantine};
use crate::conditions::Conditions;
use crate::error::Error;
use crate::model::{Decimal, Part, Written};
use crate::validate::part::{NewPart, PartChange};

/// What deleting runs into where units still refer to the part.
const PART_OF_UNIT: &str = "FK_76a6631b2801637d6c3612d4ee2";

impl Store {
    /// Every part, in the table's own order.
    pub(crate) async fn parts(
        &self,
    ) -> Result<impl Stream<Item = Result<Part, StoreError>> + Send + use<>, StoreError> {
        self.rows(&format!("SELECT {COLUMNS} FROM part_information"), part)
            .await
    }

    pub(crate) async fn part(&self, id: i32) -> Result<Part, Error> {
        let client = self.client().await?;
        let sql = format!("SELECT {COLUMNS} FROM part_information WHERE id = $1");
        let statement = client.prepare_cached(&sql).await?;
        let row = client.query_opt(&statement, &[&id]).await?;
        Ok(part(&row.ok_or_else(no_part)?)?)
    }

    pub(crate) async fn create_parts(&self, parts: &[NewPart]) -> Result<Vec<Written<Part>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let (prices, times): (Vec<String>, Vec<i32>) = parts
            .iter()
            .map(|part| (part.default_price.to_string(), part.time_to_produce))
            .unzip();
        let sql = format!(
            "INSERT INTO part_information (\"defaultPrice\", \"timeToProduce\")
             SELECT price::numeric, time
             FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS new (price, time, place) ORDER BY place
             RETURNING {COLUMNS}"
        );
        let statement = tx.prepare_cached(&sql).await?;
        let rows = tx.query(&statement, &[&prices, &times]).await?;
        let written: Vec<_> = rows
            .iter()
            .map(|row| part(row).map(Written::changed))
            .collect::<Result<_, _>>()?;
        emit(&tx, &written).await?;
        let ids: Vec<i32> = written.iter().map(|written| written.entity.id).collect();
        quarantine::admit(&tx, &[], &ids).await?;
        tx.commit(&written).await?;
        Ok(written)
    }

    /// The answer, and the part as it is now stored.
    pub(crate) async fn update_part(
        &self,
        id: i32,
        change: PartChange,
        conditions: &Conditions,
    ) -> Result<(Written<Part>, Part), Error> {
        let (mut written, mut rows) = self
            .change_parts(&[(id, change)], |_| no_part(), conditions)
            .await?;
        written
            .pop()
            .zip(rows.remove(&id))
            .ok_or_else(|| StoreError::Unexpected("no row came back from an update").into())
    }

    pub(crate) async fn update_parts(
        &self,
        changes: &[(i32, PartChange)],
    ) -> Result<Vec<Written<Part>>, Error> {
        let gone = |id| Error::NotFound(format!("Part information with ID {id} not found"));
        let unconditional = Conditions::default();
        Ok(self.change_parts(changes, gone, &unconditional).await?.0)
    }

    /// Applies `changes` in order, one answer each, and the rows as they are now stored. A price that was sent is
    /// answered as the number sent.
    async fn change_parts(
        &self,
        changes: &[(i32, PartChange)],
        gone: impl Fn(i32) -> Error,
        conditions: &Conditions,
    ) -> Result<(Vec<Written<Part>>, HashMap<i32, Part>), Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let ids: Vec<i32> = changes.iter().map(|(id, _)| *id).collect();
        let mut rows = locked_parts(&tx, &ids).await?;
        if let Some(id) = ids.iter().find(|id| !rows.contains_key(id)) {
            return Err(gone(*id));
        }
        rows.values().try_for_each(|row| conditions.permit(row))?;
        let mut prices: HashMap<i32, String> = HashMap::new();
        let mut written = Vec::with_capacity(changes.len());
        for (id, change) in changes {
            let Some(row) = rows.get_mut(id) else { continue };
            row.time_to_produce = change.time_to_produce.unwrap_or(row.time_to_produce);
            let mut answer = row.clone();
            if let Some(price) = change.default_price {
                prices.insert(*id, price.to_string());
                row.default_price = Decimal::Stored(price.to_string());
                answer.default_price = Decimal::sent(price);
            }
            written.push(Written::changed(answer));
        }
        update_rows(&tx, &mut rows, &prices).await?;
        emit(&tx, &written).await?;
        tx.commit_with(&written, rows.values().next()).await?;
        Ok((written, rows))
    }

    pub(crate) async fn delete_part(&self, id: i32, conditions: &Conditions) -> Result<(), Error> {
        self.remove_parts(&[id], |_| no_part(), conditions).await
    }

    pub(crate) async fn delete_parts(&self, ids: &[i32]) -> Result<(), Error> {
        let gone = |ids: &str| Error::NotFound(format!("Part information with IDs {ids} not found"));
        self.remove_parts(ids, gone, &Conditions::default()).await
    }

    /// Deletes rows and their links to materials.
    async fn remove_parts(
        &self,
        ids: &[i32],
        gone: impl Fn(&str) -> Error,
        conditions: &Conditions,
    ) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let rows = locked_parts(&tx, ids).await?;
        if let Some(ids) = missing(ids, |id| rows.contains_key(id)) {
            return Err(gone(&ids));
        }
        rows.values().try_for_each(|row| conditions.permit(row))?;
        let links = "DELETE FROM material_part_information WHERE \"partInformationId\" = ANY($1)";
        let links = tx.prepare_cached(links).await?;
        tx.execute(&links, &[&ids]).await?;
        let parts = "DELETE FROM part_information WHERE id = ANY($1)";
        let parts = tx.prepare_cached(parts).await?;
        match tx.execute(&parts, &[&ids]).await.map_err(StoreError::from) {
            Err(error) if error.violated() == Some(PART_OF_UNIT) => {
                return Err(Error::Conflict(
                    "The part information cannot be deleted: supply chain units refer to it.".into(),
                ));
            }
            outcome => outcome?,
        };
        let mut rows: Vec<_> = rows.into_values().collect();
        rows.sort_by_key(|row| row.id);
        let written: Vec<_> = rows.into_iter().map(Written::deleted).collect();
        emit(&tx, &written).await?;
        tx.commit(&written).await?;
        Ok(())
    }
}

fn no_part() -> Error {
    Error::NotFound("Part information not found".into())
}

/// The rows of `ids`, locked in the order of their ids so that two requests never wait for each other.
async fn locked_parts(tx: &Transaction<'_>, ids: &[i32]) -> Result<HashMap<i32, Part>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM part_information WHERE id = ANY($1) ORDER BY id FOR UPDATE");
    let statement = tx.prepare_cached(&sql).await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter()
        .map(|row| part(row).map(|part| (part.id, part)))
        .collect()
}

/// Rows that are as they were stay untouched, and keep their place in the table. `rows` are afterwards as stored: an
/// equal price in other digits (10.50 and 10.5) is no change.
async fn update_rows(
    tx: &Transaction<'_>,
    rows: &mut HashMap<i32, Part>,
    prices: &HashMap<i32, String>,
) -> Result<(), StoreError> {
    let (mut ids, mut amounts, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows.values() {
        ids.push(row.id);
        amounts.push(prices.get(&row.id).map(String::as_str));
        times.push(row.time_to_produce);
    }
    let sql = "WITH new AS (SELECT * FROM unnest($1::int[], $2::text[], $3::int[]) AS new (id, price, time)),
                   changed AS (
                       UPDATE part_information part
                       SET \"defaultPrice\" = coalesce(new.price::numeric, \"defaultPrice\"), \"timeToProduce\" = new.time
                       FROM new
                       WHERE part.id = new.id
                           AND (\"timeToProduce\" <> new.time OR \"defaultPrice\" <> new.price::numeric)
                       RETURNING part.id, \"defaultPrice\")
               SELECT new.id, coalesce(changed.\"defaultPrice\", part.\"defaultPrice\")::text
               FROM new JOIN part_information part USING (id) LEFT JOIN changed USING (id)";
    let statement = tx.prepare_cached(sql).await?;
    for row in tx.query(&statement, &[&ids, &amounts, &times]).await? {
        if let Some(part) = rows.get_mut(&row.try_get(0)?) {
            part.default_price = Decimal::Stored(row.try_get(1)?);
        }
    }
    Ok(())
}
