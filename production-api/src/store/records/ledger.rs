//! Which records were here before. A stored unit is known by its row's primary key, a held record by the
//! quarantine, everything else by `telemetry_ledger`.

use std::collections::HashSet;
use std::time::Duration;

use deadpool_postgres::Transaction;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Rows that one trimming statement deletes at most.
const TRIM_ROWS: i64 = 10_000;

/// Those of `ids` that the ledger or the quarantine holds.
pub(in crate::store) async fn known(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT record_id FROM telemetry_ledger WHERE record_id = ANY ($1)
             UNION ALL
             SELECT record_id FROM quarantine WHERE record_id = ANY ($1)",
        )
        .await?;
    let rows = tx.query(&statement, &[&ids]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Remembers records that leave no row under their own id.
pub(in crate::store) async fn settle(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let statement = tx
        .prepare_cached(
            "INSERT INTO telemetry_ledger (record_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING",
        )
        .await?;
    tx.execute(&statement, &[&ids]).await?;
    Ok(())
}

/// Deletes entries older than `retention`; returns how many went. What comes again after that is told by its
/// own age, see [`crate::store::telemetry`].
pub async fn trim(store: &Store, retention: Duration) -> Result<u64, StoreError> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            "DELETE FROM telemetry_ledger WHERE record_id IN (
                 SELECT record_id FROM telemetry_ledger
                 WHERE settled_at < now() - make_interval(secs => $1)
                 ORDER BY settled_at LIMIT $2)",
        )
        .await?;
    let mut trimmed = 0;
    loop {
        let gone = client
            .execute(&statement, &[&retention.as_secs_f64(), &TRIM_ROWS])
            .await?;
        trimmed += gone;
        if gone < TRIM_ROWS.unsigned_abs() {
            return Ok(trimmed);
        }
    }
}
