//! The table `material_part_information`: which materials go into which parts.

use deadpool_postgres::Transaction;

use super::rows::{PART_COLUMNS, material, part};
use super::{Store, StoreError};
use crate::error::Error;
use crate::model::{MaterialWithParts, PartWithMaterials};

impl Store {
    /// Links a material with parts; a link that is there already stays. Answers the material with all its parts.
    pub(crate) async fn link_parts(
        &self,
        material_id: i32,
        part_ids: &[i32],
    ) -> Result<MaterialWithParts, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let sql = "SELECT id, name FROM material WHERE id = $1 FOR KEY SHARE";
        let statement = tx.prepare_cached(sql).await?;
        let row = tx.query_opt(&statement, &[&material_id]).await?;
        let material = material(&row.ok_or_else(|| Error::NotFound("Material not found.".into()))?)?;
        let sql = "SELECT id FROM part_information WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";
        if !all_exist(&tx, sql, part_ids).await? {
            return Err(Error::NotFound("One or more Part Information not found.".into()));
        }
        insert(&tx, &vec![material_id; part_ids.len()], part_ids).await?;
        let sql = "SELECT part.id, part.\"defaultPrice\"::text, part.\"timeToProduce\"
                   FROM material_part_information link JOIN part_information part ON part.id = link.\"partInformationId\"
                   WHERE link.\"materialId\" = $1 ORDER BY part.id";
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx.query(&statement, &[&material_id]).await?;
        let part_informations = rows.iter().map(part).collect::<Result<_, _>>()?;
        let answer = MaterialWithParts {
            material,
            part_informations,
        };
        tx.commit(std::slice::from_ref(&answer)).await?;
        Ok(answer)
    }

    /// Links a part with materials; a link that is there already stays. Answers the part with all its materials.
    pub(crate) async fn link_materials(
        &self,
        part_id: i32,
        material_ids: &[i32],
    ) -> Result<PartWithMaterials, Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        // Materials first: both directions lock the two tables in the same order.
        let sql = "SELECT id FROM material WHERE id = ANY($1) ORDER BY id FOR KEY SHARE";
        let all_there = all_exist(&tx, sql, material_ids).await?;
        let sql = format!(
            "SELECT {} FROM part_information WHERE id = $1 FOR KEY SHARE",
            PART_COLUMNS
        );
        let statement = tx.prepare_cached(&sql).await?;
        let row = tx.query_opt(&statement, &[&part_id]).await?;
        let part = part(&row.ok_or_else(|| Error::NotFound("Part Information not found.".into()))?)?;
        if !all_there {
            return Err(Error::NotFound("One or more Materials not found.".into()));
        }
        insert(&tx, material_ids, &vec![part_id; material_ids.len()]).await?;
        let sql = "SELECT material.id, material.name
                   FROM material_part_information link JOIN material ON material.id = link.\"materialId\"
                   WHERE link.\"partInformationId\" = $1 ORDER BY material.id";
        let statement = tx.prepare_cached(sql).await?;
        let rows = tx.query(&statement, &[&part_id]).await?;
        let materials = rows.iter().map(material).collect::<Result<_, _>>()?;
        let answer = PartWithMaterials { part, materials };
        tx.commit(std::slice::from_ref(&answer)).await?;
        Ok(answer)
    }

    /// Removes links of a material; one that is not there is no fault.
    pub(crate) async fn unlink_parts(&self, material_id: i32, part_ids: &[i32]) -> Result<(), Error> {
        let gone = Error::NotFound("Material not found.".into());
        let sql = "SELECT 1 FROM material WHERE id = $1";
        let delete = "DELETE FROM material_part_information
                      WHERE \"materialId\" = $1 AND \"partInformationId\" = ANY($2)";
        self.unlink(material_id, part_ids, sql, delete, gone).await
    }

    /// Removes links of a part; one that is not there is no fault.
    pub(crate) async fn unlink_materials(&self, part_id: i32, material_ids: &[i32]) -> Result<(), Error> {
        let gone = Error::NotFound("Part Information not found.".into());
        let sql = "SELECT 1 FROM part_information WHERE id = $1";
        let delete = "DELETE FROM material_part_information
                      WHERE \"partInformationId\" = $1 AND \"materialId\" = ANY($2)";
        self.unlink(part_id, material_ids, sql, delete, gone).await
    }

    async fn unlink(
        &self,
        id: i32,
        others: &[i32],
        exists: &str,
        delete: &str,
        gone: Error,
    ) -> Result<(), Error> {
        let mut client = self.client().await?;
        let tx = self.begin_write(&mut client).await?;
        let exists = tx.prepare_cached(exists).await?;
        if tx.query_opt(&exists, &[&id]).await?.is_none() {
            return Err(gone);
        }
        let delete = tx.prepare_cached(delete).await?;
        tx.execute(&delete, &[&id, &others]).await?;
        tx.commit::<()>(&[]).await?;
        Ok(())
    }
}

/// True where every one of `ids` is found by `sql`, which locks the rows against deletion.
async fn all_exist(tx: &Transaction<'_>, sql: &str, ids: &[i32]) -> Result<bool, StoreError> {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let statement = tx.prepare_cached(sql).await?;
    Ok(tx.query(&statement, &[&distinct]).await?.len() == distinct.len())
}

async fn insert(tx: &Transaction<'_>, material_ids: &[i32], part_ids: &[i32]) -> Result<(), StoreError> {
    let sql = "INSERT INTO material_part_information (\"materialId\", \"partInformationId\")
               SELECT * FROM unnest($1::int[], $2::int[]) ON CONFLICT DO NOTHING";
    let statement = tx.prepare_cached(sql).await?;
    tx.execute(&statement, &[&material_ids, &part_ids]).await?;
    Ok(())
}
