//! The outbox table: rows written with the change that they tell of, read by the one relay that holds the lease.

use std::time::Duration;

use deadpool_postgres::Transaction;
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Store, StoreError, begin};
use crate::model::{Entity, Written};

/// The NOTIFY channel that wakes the relays when a transaction with outbox rows commits.
pub(super) const CHANNEL: &str = "shopfloor_outbox";

/// One record to publish once the transaction that wrote it commits.
#[derive(Debug, Clone)]
pub struct OutboxRecord {
    pub topic: &'static str,
    /// Kafka key. Records of one topic and key are published in the order of their enqueueing.
    pub key: String,
    /// One UTF-8 JSON object, published byte for byte. The table refuses anything else, and with it the transaction.
    pub value: Vec<u8>,
}

/// A record that waits for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its place in the table.
    pub position: i64,
    /// The same at every redelivery.
    pub id: Uuid,
    pub topic: String,
    pub key: String,
    pub value: String,
}

/// What waits in the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// Rows that wait for Kafka.
    pub pending: i64,
    /// Age of the oldest of them; 0 where none waits.
    pub oldest_age_s: f64,
    /// Rows that Kafka refused for good, kept with the reason.
    pub refused: i64,
}

/// Enqueues what was written, in order, as part of the transaction that wrote it.
pub(super) async fn emit<T: Entity>(
    transaction: &Transaction<'_>,
    written: &[Written<T>],
) -> Result<(), StoreError> {
    let records = written.iter().map(|written| {
        Ok(OutboxRecord {
            topic: T::TOPIC,
            key: written.entity.key(),
            value: serde_json::to_vec(written)?,
        })
    });
    let records = records.collect::<Result<Vec<_>, serde_json::Error>>()?;
    enqueue(transaction, &records).await
}

/// Adds the records, in order, as part of `transaction`, and wakes the relays at its commit; one statement for any
/// number of them.
///
/// Call it after the rows that the records tell of were written: their row locks are what puts the records of
/// one key into the order of the changes.
pub async fn enqueue(transaction: &Transaction<'_>, records: &[OutboxRecord]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = records.iter().map(|_| Uuid::now_v7()).collect();
    let topics: Vec<&str> = records.iter().map(|record| record.topic).collect();
    let keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    let values: Vec<_> = records
        .iter()
        .map(|record| String::from_utf8_lossy(&record.value))
        .collect();
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    let statement = transaction
        .prepare_cached(
            "WITH added AS (
                 INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                 SELECT id, topic, key,
                        CASE value::json ->> 'isDeleted' WHEN 'true' THEN 'deleted' ELSE 'written' END,
                        value::json
                 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
                      AS new (id, topic, key, value, place)
                 ORDER BY place)
             SELECT pg_notify($5, '')",
        )
        .await?;
    let parameters: [&(dyn ToSql + Sync); 5] = [&ids, &topics, &keys, &values, &CHANNEL];
    transaction.execute(&statement, &parameters).await?;
    Ok(())
}

/// Takes or renews the right to publish for `lease`. False while another relay has it.
pub async fn hold_lease(store: &Store, holder: Uuid, lease: Duration) -> Result<bool, StoreError> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            "UPDATE outbox_relay SET holder = $1, expires_at = clock_timestamp() + make_interval(secs => $2)
             WHERE holder = $1 OR holder IS NULL OR expires_at < clock_timestamp()",
        )
        .await?;
    Ok(client
        .execute(&statement, &[&holder, &lease.as_secs_f64()])
        .await?
        == 1)
}

/// Gives the right back, so that another relay need not wait for the lease to run out.
pub async fn release_lease(store: &Store, holder: Uuid) -> Result<(), StoreError> {
    let client = store.client().await?;
    client
        .execute(
            "UPDATE outbox_relay SET holder = NULL, expires_at = '-infinity' WHERE holder = $1",
            &[&holder],
        )
        .await?;
    Ok(())
}

/// The first waiting rows in order, without those of `paused` topics: at most `max_rows`, and no more than
/// `max_bytes` of payload but for a single larger row.
///
/// Every round starts from the lowest row that is visible, so a row whose transaction committed late is found
/// although higher ones are gone already.
pub async fn pending(
    store: &Store,
    paused: &[String],
    max_rows: u32,
    max_bytes: usize,
) -> Result<Vec<Pending>, StoreError> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            "SELECT position, id, aggregatetype, aggregateid, payload::text
             FROM outbox
             WHERE refused_at IS NULL AND aggregatetype <> ALL ($1)
             ORDER BY position LIMIT $2",
        )
        .await?;
    let limit = i64::from(max_rows);
    let parameters: [&(dyn ToSql + Sync); 2] = [&paused, &limit];
    let rows = client.query_raw(&statement, parameters).await?;
    let mut rows = std::pin::pin!(rows);
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let value: String = row.try_get(4)?;
        bytes += value.len();
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        found.push(Pending {
            position: row.try_get(0)?,
            id: row.try_get(1)?,
            topic: row.try_get(2)?,
            key: row.try_get(3)?,
            value,
        });
    }
    Ok(found)
}

/// Removes what Kafka has confirmed and marks what it refused for good, in one transaction.
pub async fn settle(store: &Store, delivered: &[i64], refused: &[(i64, String)]) -> Result<(), StoreError> {
    let mut client = store.client().await?;
    let tx = begin(&mut client).await?;
    if !delivered.is_empty() {
        let statement = tx
            .prepare_cached("DELETE FROM outbox WHERE position = ANY ($1)")
            .await?;
        tx.execute(&statement, &[&delivered]).await?;
    }
    if !refused.is_empty() {
        let (positions, reasons): (Vec<i64>, Vec<&str>) = refused
            .iter()
            .map(|(position, reason)| (*position, reason.as_str()))
            .unzip();
        tx.execute(
            "UPDATE outbox SET refused_at = now(), refused_reason = input.reason
             FROM unnest($1::bigint[], $2::text[]) AS input (position, reason)
             WHERE outbox.position = input.position",
            &[&positions, &reasons],
        )
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Counts what waits.
pub async fn backlog(store: &Store) -> Result<Backlog, StoreError> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE refused_at IS NULL),
                    coalesce(extract(epoch FROM clock_timestamp() - min(created_at)
                             FILTER (WHERE refused_at IS NULL)), 0)::float8,
                    count(*) FILTER (WHERE refused_at IS NOT NULL)
             FROM outbox",
        )
        .await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(Backlog {
        pending: row.try_get(0)?,
        oldest_age_s: row.try_get(1)?,
        refused: row.try_get(2)?,
    })
}
