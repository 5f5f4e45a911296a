//! The outbox table.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::StoreError;

/// One record to publish once the transaction that wrote it commits.
#[derive(Debug, Clone)]
pub struct OutboxRecord {
    pub topic: &'static str,
    /// Records of one key are published in the order of their enqueueing.
    pub key: String,
    /// One UTF-8 JSON object.
    pub value: Vec<u8>,
}

/// Writes `records`, in order, as part of `transaction`. One statement for any number of them.
pub async fn enqueue(transaction: &Transaction<'_>, records: &[OutboxRecord]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = records.iter().map(|_| Uuid::now_v7()).collect();
    let topics: Vec<&str> = records.iter().map(|record| record.topic).collect();
    let keys: Vec<&str> = records.iter().map(|record| record.key.as_str()).collect();
    let values: Vec<String> = records
        .iter()
        .map(|record| String::from_utf8_lossy(&record.value).into_owned())
        .collect();
    let statement = transaction
        .prepare_cached(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
             SELECT id, topic, key, topic, value::jsonb
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
                 AS new (id, topic, key, value, place)
             ORDER BY place",
        )
        .await?;
    transaction
        .execute(&statement, &[&ids, &topics, &keys, &values])
        .await?;
    Ok(())
}
