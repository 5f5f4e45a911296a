//! Id sequences, after rows were given explicit ids.

use deadpool_postgres::Transaction;

use crate::store::StoreError;

/// Ids above this do not move a sequence: one device that publishes 2^31-1 would leave REST no id to give.
/// REST reaches them after a billion creates.
const SEQUENCE_CEILING: i32 = 1 << 30;

/// Moves the table's id sequence past ids that were given explicitly. The caller holds the table's lock, so no
/// create runs in between.
pub(super) async fn move_sequence(
    tx: &Transaction<'_>,
    sql: &'static str,
    ids: impl Iterator<Item = i32>,
) -> Result<(), StoreError> {
    let Some(highest) = ids.filter(|id| *id <= SEQUENCE_CEILING).max() else {
        return Ok(());
    };
    let statement = tx.prepare_cached(sql).await?;
    tx.execute(&statement, &[&i64::from(highest)]).await?;
    Ok(())
}
