//! The table `idempotency`: what writes under a key have answered.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::{Store, StoreError};
use crate::conditions::EntityTag;
use crate::error::Error;

/// Rows that one statement trims at most.
const TRIM_ROWS: i64 = 10_000;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// How a write answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The one row that was written.
    Row,
    /// A list of all that were.
    Rows,
    Nothing,
}

/// The right to answer under a key once.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) scope: Hash,
    pub(crate) fingerprint: Hash,
    pub(crate) status: u16,
    pub(crate) form: Form,
    pub(crate) max_answer_bytes: usize,
}

/// An answer that was given under a key.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) entity_tag: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Claim {
    pub(super) fn scope(&self) -> &[u8] {
        &self.scope
    }

    /// The advisory lock of the key.
    pub(super) fn lock(&self) -> i64 {
        let first = self.scope.first_chunk().copied().unwrap_or_default();
        i64::from_be_bytes(first)
    }

    /// Stores the answer as part of the write's transaction.
    pub(super) async fn record(
        &self,
        tx: &Transaction<'_>,
        body: &[u8],
        tag: Option<&EntityTag>,
    ) -> Result<(), Error> {
        let max = self.max_answer_bytes;
        if body.len() > max {
            return Err(Error::Refused(format!(
                "The answer would have {} bytes, and under an Idempotency-Key it may have {max}: write fewer rows \
                 at once, or without the key.",
                body.len()
            )));
        }
        let sql = "INSERT INTO idempotency (scope, fingerprint, status, entity_tag, body)
                   VALUES ($1, $2, $3, $4, $5)";
        let statement = tx.prepare_cached(sql).await?;
        let status = i16::try_from(self.status).unwrap_or_default();
        let tag = tag.map(EntityTag::as_str);
        let (scope, fingerprint) = (self.scope(), self.fingerprint.as_slice());
        let parameters: [&(dyn ToSql + Sync); 5] = [&scope, &fingerprint, &status, &tag, &body];
        tx.execute(&statement, &parameters).await?;
        Ok(())
    }
}

impl Store {
    /// The same store, whose next write answers under a key.
    pub(crate) fn under(&self, claim: Option<Claim>) -> Self {
        let mut store = self.clone();
        store.claim = claim.map(Arc::new);
        store
    }

    pub(crate) async fn recorded(&self, scope: &Hash) -> Result<Option<Recorded>, StoreError> {
        let client = self.client().await?;
        let sql = "SELECT fingerprint, status, entity_tag, body FROM idempotency WHERE scope = $1";
        let statement = client.prepare_cached(sql).await?;
        let Some(row) = client.query_opt(&statement, &[&scope.as_slice()]).await? else {
            return Ok(None);
        };
        let status: i16 = row.try_get(1)?;
        Ok(Some(Recorded {
            fingerprint: row.try_get(0)?,
            status: u16::try_from(status).unwrap_or_default(),
            entity_tag: row.try_get(2)?,
            body: row.try_get(3)?,
        }))
    }

    /// Forgets answers that are older than `retention`, and the oldest of more than `max_keys`. Returns how many are
    /// left.
    pub(crate) async fn trim_idempotency(
        &self,
        retention: Duration,
        max_keys: u32,
    ) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let trim = client
            .prepare_cached(
                "DELETE FROM idempotency WHERE scope IN (
                     SELECT scope FROM idempotency
                     WHERE created_at < now() - make_interval(secs => $1)
                        OR created_at < (SELECT created_at FROM idempotency ORDER BY created_at DESC OFFSET $2 LIMIT 1)
                     LIMIT $3)",
            )
            .await?;
        // The row at `OFFSET n - 1` is the oldest that stays.
        let (seconds, stays) = (retention.as_secs_f64(), i64::from(max_keys).saturating_sub(1));
        loop {
            let gone = client.execute(&trim, &[&seconds, &stays, &TRIM_ROWS]).await?;
            if i64::try_from(gone).unwrap_or_default() < TRIM_ROWS {
                break;
            }
        }
        let count = client.prepare_cached("SELECT count(*) FROM idempotency").await?;
        Ok(client.query_one(&count, &[]).await?.try_get(0)?)
    }
}
