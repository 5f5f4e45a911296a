//! The table `material`.

use std::collections::{BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use futures_util::Stream;

use super::outbox::emit;
use super::rows::{material, missing};
use super::{Store, StoreError};
use crate::conditions::Conditions;
use crate::error::Error;
use crate::model::{Material, Written};
use crate::validate::material::MaterialChange;

/// What deleting runs into where prices still refer to the material.
const PRICE_OF_MATERIAL: &str = "FK_ad4a0adb9e22ac71143040be5d2";
/// Times to look again after another request was faster with a name; then the client may.
const INSERT_ATTEMPTS: usize = 3;
const UNIQUE_NAME: &str = "UQ_f7e289dde0c4fdfba5bee2de40b";

impl Store {
    /// Every material, in the table's own order, as the original's clients got them.
    pub(crate) async fn materials(
        &self,
    ) -> Result<impl Stream<Item = Result<Material, StoreError>> + Send + use<>, StoreError> {
        self.rows("SELECT id, name FROM material", material).await
    }

    pub(crate) async fn material(&self, id: i32) -> Result<Material, Error> {
        let client = self.client().await?;
        let sql = "SELECT id, name FROM material WHERE id = $1";
        let statement = client.prepare_cached(sql).await?;
        let row = client.query_opt(&statement, &[&id]).await?;
        let row = row.ok_or_else(|| Error::NotFound("Material not found".into()))?;
        Ok(material(&row)?)
    }

    pub(crate) async fn create_material(&self, name: String) -> Result<Written<Material>, Error> {
        let taken = |_: &BTreeSet<String>| Error::Conflict("This material already exists.".into());
        let mut written = self.insert_materials(&[name], taken).await?;
        written
            .pop()
            .ok_or_else(|| StoreError::Unexpected("no row came back from an insert").into())
    }

    pub(crate) async fn create_materials(&self, names: &[String]) -> Result<Vec<Written<Material>>, Error> {
        let taken = |taken: &BTreeSet<String>| {
            // In the order of the request.
            let mut named: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|name| taken.contains(*name))
                .collect();
            let mut seen = BTreeSet::new();
            named.retain(|name| seen.insert(*name));
            Error::Conflict(format!("These materials already exist: {}", named.join(", ")))
        };
        self.insert_materials(names, taken).await
    }

    /// Inserts `names` in order; `taken` words the refusal where some exist already or twice in `names`.
    async fn insert_materials(
        &self,
        names: &[String],
        taken: impl Fn(&BTreeSet<String>) -> Error,
    ) -> Result<Vec<Written<Material>>, Error> {
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<String> = names.iter().filter(|name| !seen.insert(*name)).cloned().collect();
        for _ in 0..INSERT_ATTEMPTS {
            let mut client = self.client().await?;
            let tx = self.begin_write(&mut client).await?;
            let existing = existing_names(&tx, names).await?;
            if !existing.is_empty() {
                return Err(taken(&existing.into_keys().collect()));
            }
            match insert_names(&tx, names).await {
                Ok(written) => {
                    emit(&tx, &written).await?;
                    tx.commit(&written).await?;
                    return Ok(written);
                }
                Err(error) if error.violated() == Some(UNIQUE_NAME) || error.is_deadlock() => {
                    if !twice.is_empty() {
                        return Err(taken(&twice));
                    }
                    // The next attempt takes another connection, which must find the request's key free.
                    tx.rollback().await?;
                    // Another request was faster; the next look sees its rows, unless it was rolled back.
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Overloaded)
    }

    pub(crate) async fn update_material(
        &self,
        id: i32,
        name: Option<String>,
        conditions: &Conditions,
    ) -> Result<Written<Material>, Error> {
        let gone = |_| Error::NotFound("Material ID doesn't exist.".into());
        let taken =
            |name: &str| Error::Conflict(format!("Another material with the name {name} already exists."));
        let mut written = self
            .change_materials(&[MaterialChange { id, name }], gone, taken, conditions)
            .await?;
        written
            .pop()
            .ok_or_else(|| StoreError::Unexpected("no row came back from an update").into())
    }

    pub(crate) async fn update_materials(
        &self,
        changes: &[MaterialChange],
    ) -> Result<Vec<Written<Material>>, Error> {
        let gone = |id| Error::NotFound(format!("One of the materials with ID {id} doesn't exist."));
        let taken = |names: &str| {
            Error::Conflict(format!(
                "Conflict: Another material with these names already exists: {names}"
            ))
        };
        self.change_materials(changes, gone, taken, &Conditions::default())
            .await
    }

    /// Applies `changes` in order, one answer each.
    async fn change_materials(
        &self,
        changes: &[MaterialChange],
        gone: impl Fn(i32) -> Error,
        taken: impl Fn(&str) -> Error,
        conditions: &Conditions,
    ) -> Result<Vec<Written<Material>>, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let ids: Vec<i32> = changes.iter().map(|change| change.id).collect();
        let mut rows = locked_materials(&tx, &ids).await?;
        if let Some(id) = ids.iter().find(|id| !rows.contains_key(id)) {
            return Err(gone(*id));
        }
        rows.values().try_for_each(|row| conditions.permit(row))?;
        let names: Vec<String> = changes.iter().filter_map(|change| change.name.clone()).collect();
        let owners = existing_names(&tx, &names).await?;
        let conflicts: Vec<&str> = changes
            .iter()
            .filter_map(|change| Some((change.id, change.name.as_deref()?)))
            .filter(|(id, name)| owners.get(*name).is_some_and(|owner| owner != id))
            .map(|(_, name)| name)
            .collect();
        if !conflicts.is_empty() {
            return Err(taken(&conflicts.join(", ")));
        }
        let mut written = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(row) = rows.get_mut(&change.id) else {
                continue;
            };
            if let Some(name) = &change.name {
                row.name.clone_from(name);
            }
            written.push(Written::changed(row.clone()));
        }
        match update_names(&tx, rows.into_values()).await {
            Err(error) if error.violated() == Some(UNIQUE_NAME) => return Err(taken(&contested(&names))),
            outcome => outcome?,
        };
        emit(&tx, &written).await?;
        let now = written.first().map(|written| written.entity.clone());
        tx.commit_with(&written, now.as_ref()).await?;
        Ok(written)
    }

    pub(crate) async fn delete_material(&self, id: i32, conditions: &Conditions) -> Result<(), Error> {
        let gone = |_: &str| Error::NotFound("Material not found".into());
        self.remove_materials(&[id], gone, conditions).await
    }

    pub(crate) async fn delete_materials(&self, ids: &[i32]) -> Result<(), Error> {
        let gone = |ids: &str| Error::NotFound(format!("Materials with IDs {ids} not found"));
        self.remove_materials(ids, gone, &Conditions::default()).await
    }

    /// Deletes rows and, by the table's own cascade, their links to parts.
    async fn remove_materials(
        &self,
        ids: &[i32],
        gone: impl Fn(&str) -> Error,
        conditions: &Conditions,
    ) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let rows = locked_materials(&tx, ids).await?;
        if let Some(ids) = missing(ids, |id| rows.contains_key(id)) {
            return Err(gone(&ids));
        }
        rows.values().try_for_each(|row| conditions.permit(row))?;
        let statement = tx
            .prepare_cached("DELETE FROM material WHERE id = ANY($1)")
            .await?;
        match tx.execute(&statement, &[&ids]).await.map_err(StoreError::from) {
            Err(error) if error.violated() == Some(PRICE_OF_MATERIAL) => {
                return Err(Error::Conflict(
                    "The material cannot be deleted: prices refer to it. Delete its prices first.".into(),
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

async fn insert_names(tx: &Transaction<'_>, names: &[String]) -> Result<Vec<Written<Material>>, StoreError> {
    let sql = "INSERT INTO material (name)
               SELECT name FROM unnest($1::text[]) WITH ORDINALITY AS new (name, place) ORDER BY place
               RETURNING id, name";
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&names]).await?;
    rows.iter()
        .map(|row| material(row).map(Written::changed))
        .collect()
}

/// Which of `names` exist, and whose they are.
async fn existing_names(tx: &Transaction<'_>, names: &[String]) -> Result<HashMap<String, i32>, StoreError> {
    let statement = tx
        .prepare_cached("SELECT name, id FROM material WHERE name = ANY($1::text[])")
        .await?;
    let rows = tx.query(&statement, &[&names]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Those of `names` that two rows were to have; all of them where another request was faster with one.
fn contested(names: &[String]) -> String {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !seen.insert(*name))
        .collect();
    if twice.is_empty() {
        return names.join(", ");
    }
    twice.into_iter().collect::<Vec<_>>().join(", ")
}

/// The rows of `ids`, locked in the order of their ids so that two requests never wait for each other.
async fn locked_materials(tx: &Transaction<'_>, ids: &[i32]) -> Result<HashMap<i32, Material>, StoreError> {
    let sql = "SELECT id, name FROM material WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter()
        .map(|row| material(row).map(|material| (material.id, material)))
        .collect()
}

/// Rows that are as they were stay untouched, and keep their place in the table.
async fn update_names(tx: &Transaction<'_>, rows: impl Iterator<Item = Material>) -> Result<u64, StoreError> {
    let (ids, names): (Vec<i32>, Vec<String>) = rows.map(|row| (row.id, row.name)).unzip();
    let sql = "UPDATE material SET name = new.name FROM unnest($1::int[], $2::text[]) AS new (id, name)
               WHERE material.id = new.id AND material.name <> new.name";
    let statement = tx.prepare_cached(sql).await?;
    Ok(tx.execute(&statement, &[&ids, &names]).await?)
}
