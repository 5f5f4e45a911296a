//! The table `material_price`.

use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::outbox::emit;
use super::{Store, StoreError};
use crate::conditions::Conditions;
use crate::error::Error;
use crate::model::{Decimal, Price, Reference, Written};
use crate::validate::price::DatedPrice;
use crate::validate::price_date::PriceDate;

impl Store {
    /// The prices of a material, in the table's own order.
    pub(crate) async fn prices(&self, material_id: i32) -> Result<Vec<Price>, Error> {
        let client = self.client().await?;
        let prices = listed(&client, material_id).await?;
        if prices.is_empty() {
            return Err(Error::NotFoundNamed(format!(
                "No prices found for the Material with ID {material_id}"
            )));
        }
        Ok(prices)
    }

    /// Stores one price a day: a day that has one gets the new price. One answer for each, in order.
    pub(crate) async fn set_prices(
        &self,
        material_id: i32,
        prices: &[DatedPrice],
        conditions: &Conditions,
    ) -> Result<Vec<Written<Price>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        lock_material(&tx, material_id).await?;
        permit(&tx, material_id, conditions).await?;
        let mut stored = StoredPrices::of(&tx, material_id, prices).await?;
        let news = insert_new(&tx, material_id, prices, &stored).await?;
        let mut written = Vec::with_capacity(prices.len());
        let mut news = news.into_iter();
        for price in prices {
            let day = price.date.to_stored();
            let (id, entity_price, material) = match stored.id_of(&day) {
                Some(id) => {
                    stored.change(id, price.price);
                    (id, Decimal::sent(price.price), None)
                }
                None => {
                    let Some((id, text)) = news.next() else {
                        return Err(
                            StoreError::Unexpected("fewer prices came back than were inserted").into(),
                        );
                    };
                    stored.add(day, id);
                    (id, Decimal::Stored(text), Some(Reference { id: material_id }))
                }
            };
            let date = price.date_as_sent.clone();
            written.push(Written::changed(Price {
                id,
                price: entity_price,
                date,
                material,
            }));
        }
        stored.update(&tx).await?;
        emit(&tx, &written).await?;
        tx.commit(&written).await?;
        Ok(written)
    }

    /// Deletes the prices that have both the day and the amount, all or none.
    pub(crate) async fn delete_prices(
        &self,
        material_id: i32,
        prices: &[DatedPrice],
        conditions: &Conditions,
    ) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        lock_material(&tx, material_id).await?;
        permit(&tx, material_id, conditions).await?;
        let days: Vec<String> = prices.iter().map(|price| price.date.to_stored()).collect();
        let amounts: Vec<String> = prices.iter().map(|price| price.price.to_string()).collect();
        let sql = "SELECT DISTINCT ON (wanted.place) price.id, price.price::text
                   FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS wanted (day, amount, place)
                   LEFT JOIN material_price price ON price.\"materialId\" = $1
                       AND price.date = wanted.day AND price.price = wanted.amount::numeric
                   ORDER BY wanted.place, price.id";
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx.query(&statement, &[&material_id, &days, &amounts]).await?;
        let mut gone: Vec<Price> = Vec::with_capacity(prices.len());
        for (row, sent) in rows.iter().zip(prices) {
            let Some(id) = row.try_get::<_, Option<i32>>(0)? else {
                return Err(Error::NotFoundNamed(format!(
                    "Material Price for ID {material_id} with the specified price or date doesn't exist."
                )));
            };
            if gone.iter().all(|price| price.id != id) {
                let amount = row.try_get(1)?;
                gone.push(Price {
                    id,
                    price: Decimal::Stored(amount),
                    date: sent.date_as_sent.clone(),
                    material: Some(Reference { id: material_id }),
                });
            }
        }
        let ids: Vec<i32> = gone.iter().map(|price| price.id).collect();
        let sql = "DELETE FROM material_price WHERE id = ANY($1)";
        let statement = tx.prepare_cached(sql).await?;
        tx.execute(&statement, &[&ids]).await?;
        let written: Vec<_> = gone.into_iter().map(Written::deleted).collect();
        emit(&tx, &written).await?;
        tx.commit(&written).await?;
        Ok(())
    }
}

/// The prices of a material that is there, in the table's own order.
async fn listed(client: &impl GenericClient, material_id: i32) -> Result<Vec<Price>, Error> {
    let sql = "SELECT price.id, price.price::text, price.date
               FROM material LEFT JOIN material_price price ON price.\"materialId\" = material.id
               WHERE material.id = $1";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&material_id]).await?;
    if rows.is_empty() {
        return Err(no_material(material_id));
    }
    let prices = rows.iter().filter_map(|row| price(row).transpose());
    Ok(prices.collect::<Result<_, _>>()?)
}

/// Holds the request's conditions to the list that GET answers. The material is locked, so nobody changes it.
async fn permit(tx: &Transaction<'_>, material_id: i32, conditions: &Conditions) -> Result<(), Error> {
    if conditions.are_none() {
        return Ok(());
    }
    let prices = listed(tx, material_id).await?;
    if prices.is_empty() {
        return conditions.permit_absent();
    }
    conditions.permit(&prices)
}

fn no_material(id: i32) -> Error {
    Error::NotFoundNamed(format!("Material with ID {id} not found"))
}

/// `None` for the row of a material without prices.
fn price(row: &Row) -> Result<Option<Price>, StoreError> {
    let Some(id) = row.try_get(0)? else {
        return Ok(None);
    };
    let stored: String = row.try_get(2)?;
    let date = PriceDate::from_stored(&stored).map_or(stored, PriceDate::to_iso);
    Ok(Some(Price {
        id,
        price: Decimal::Stored(row.try_get(1)?),
        date,
        material: None,
    }))
}

/// Holds the material's row: requests for one material's prices come one after the other, so that a day never
/// gets two rows. The original's table has no constraint for it, and its rows may hold such days already.
async fn lock_material(tx: &Transaction<'_>, id: i32) -> Result<(), Error> {
    let sql = "SELECT 1 FROM material WHERE id = $1 FOR NO KEY UPDATE";
    let statement = tx.prepare_cached(sql).await?;
    match tx.query_opt(&statement, &[&id]).await? {
        Some(_) => Ok(()),
        None => Err(no_material(id)),
    }
}

/// The rows of the days that a request names, and what becomes of them.
struct StoredPrices {
    ids: std::collections::HashMap<String, i32>,
    changes: std::collections::BTreeMap<i32, f64>,
}

impl StoredPrices {
    async fn of(tx: &Transaction<'_>, material_id: i32, prices: &[DatedPrice]) -> Result<Self, StoreError> {
        let days: Vec<String> = prices.iter().map(|price| price.date.to_stored()).collect();
        let sql = "SELECT date, min(id) FROM material_price
                   WHERE \"materialId\" = $1 AND date = ANY($2::text[]) GROUP BY date";
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx.query(&statement, &[&material_id, &days]).await?;
        let ids = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let ids = ids.collect::<Result<_, StoreError>>()?;
        Ok(Self {
            ids,
            changes: Default::default(),
        })
    }

    fn id_of(&self, day: &str) -> Option<i32> {
        self.ids.get(day).copied()
    }

    fn add(&mut self, day: String, id: i32) {
        self.ids.insert(day, id);
    }

    fn change(&mut self, id: i32, price: f64) {
        self.changes.insert(id, price);
    }

    /// Writes the changes; rows that have their price already stay untouched.
    async fn update(self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let (ids, amounts): (Vec<i32>, Vec<String>) = self
            .changes
            .into_iter()
            .map(|(id, price)| (id, price.to_string()))
            .unzip();
        let sql = "UPDATE material_price SET price = new.price::numeric
                   FROM unnest($1::int[], $2::text[]) AS new (id, price)
                   WHERE material_price.id = new.id AND material_price.price <> new.price::numeric";
        let statement = tx.prepare_cached(sql).await?;
        tx.execute(&statement, &[&ids, &amounts]).await?;
        Ok(())
    }
}

/// Inserts the first price of every day that has no row yet, in order. Answers their ids and stored prices.
async fn insert_new(
    tx: &Transaction<'_>,
    material_id: i32,
    prices: &[DatedPrice],
    stored: &StoredPrices,
) -> Result<Vec<(i32, String)>, StoreError> {
    let mut seen = std::collections::HashSet::new();
    let (days, amounts): (Vec<String>, Vec<String>) = prices
        .iter()
        .map(|price| (price.date.to_stored(), price.price.to_string()))
        .filter(|(day, _)| stored.id_of(day).is_none() && seen.insert(day.clone()))
        .unzip();
    if days.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "INSERT INTO material_price (\"materialId\", date, price)
               SELECT $1, day, amount::numeric
               FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS new (day, amount, place) ORDER BY place
               RETURNING id, price::text";
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&material_id, &days, &amounts]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}
