//! Parts: with an id their price and time are set, silently, since the gateway has told Kafka; without one they
//! are created and told through the outbox, as by REST.

use std::collections::{BTreeMap, HashSet};

use deadpool_postgres::Transaction;
use shopfloor_proto::v1::PartReference;

use super::sequence::move_sequence;
use crate::model::Written;
use crate::store::StoreError;
use crate::store::outbox::emit;
use crate::store::rows::{PART_COLUMNS as COLUMNS, part};

/// Returns the ids of the parts that exist since this call.
pub(super) async fn apply(
    tx: &Transaction<'_>,
    parts: &[(usize, &PartReference)],
) -> Result<Vec<i32>, StoreError> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    // Keeps creates with an id of the sequence out until the commit; readers and foreign keys pass.
    tx.batch_execute("LOCK TABLE part_information IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    let mut new_parts = set(tx, parts).await?;
    new_parts.extend(create(tx, parts).await?);
    Ok(new_parts)
}

/// Adds or changes the parts that carry an id; of several with one id the last wins, field by field.
async fn set(tx: &Transaction<'_>, parts: &[(usize, &PartReference)]) -> Result<Vec<i32>, StoreError> {
    let mut last: BTreeMap<i32, (Option<&str>, i32)> = BTreeMap::new();
    for (_, part) in parts {
        if let Some(id) = part.id {
            let entry = last.entry(id).or_default();
            *entry = (part.default_price.as_deref().or(entry.0), part.time_to_produce);
        }
    }
    if last.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i32> = last.keys().copied().collect();
    let (prices, times): (Vec<Option<&str>>, Vec<i32>) = last.into_values().unzip();
    let statement = tx
        .prepare_cached("SELECT id FROM part_information WHERE id = ANY ($1)")
        .await?;
    let mut present = HashSet::new();
    for row in tx.query(&statement, &[&ids]).await? {
        present.insert(row.try_get::<_, i32>(0)?);
    }
    let statement = tx
        .prepare_cached(
            r#"INSERT INTO part_information (id, "defaultPrice", "timeToProduce")
               SELECT id, coalesce(trim_scale(input.price::numeric), part."defaultPrice", 0), input.time
               FROM unnest($1::int[], $2::text[], $3::int[]) AS input (id, price, time)
               LEFT JOIN part_information part USING (id)
               ON CONFLICT (id) DO UPDATE
               SET "defaultPrice" = EXCLUDED."defaultPrice", "timeToProduce" = EXCLUDED."timeToProduce""#,
        )
        .await?;
    tx.execute(&statement, &[&ids, &prices, &times]).await?;
    move_sequence(
        tx,
        "SELECT setval('part_information_id_seq', $1) FROM part_information_id_seq WHERE last_value <= $1",
        ids.iter().copied(),
    )
    .await?;
    Ok(ids.into_iter().filter(|id| !present.contains(id)).collect())
}

async fn create(tx: &Transaction<'_>, parts: &[(usize, &PartReference)]) -> Result<Vec<i32>, StoreError> {
    let new = || parts.iter().filter(|(_, part)| part.id.is_none());
    let prices: Vec<Option<&str>> = new().map(|(_, part)| part.default_price.as_deref()).collect();
    let times: Vec<i32> = new().map(|(_, part)| part.time_to_produce).collect();
    if times.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        r#"INSERT INTO part_information ("defaultPrice", "timeToProduce")
           SELECT coalesce(trim_scale(price::numeric), 0), time
           FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS input (price, time, ordinal)
           ORDER BY ordinal
           RETURNING {COLUMNS}"#
    );
    let statement = tx.prepare_cached(&sql).await?;
    let rows = tx.query(&statement, &[&prices, &times]).await?;
    let written: Vec<_> = rows
        .iter()
        .map(|row| part(row).map(Written::changed))
        .collect::<Result<_, _>>()?;
    emit(tx, &written).await?;
    Ok(written.iter().map(|written| written.entity.id).collect())
}
