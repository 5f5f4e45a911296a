//! The transaction of a request that writes. With an Idempotency-Key its answer commits with it.

use std::ops::Deref;

use deadpool_postgres::{Object, Transaction};
use serde::Serialize;
use tokio_postgres::error::SqlState;

use super::idempotency::{Claim, Form};
use super::{Store, StoreError, begin};
use crate::conditions::EntityTag;
use crate::error::Error;

/// How long a request waits for another under the same key. That is for an answer that overtook its rollback; one
/// that is really worked on takes longer.
const WAIT: &str = "250ms";

pub(super) struct Write<'a> {
    tx: Transaction<'a>,
    claim: Option<&'a Claim>,
}

impl<'a> Deref for Write<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Self::Target {
        &self.tx
    }
}

impl Store {
    /// Begins a transaction; under a key that another transaction holds, or that has been used, it is refused.
    pub(super) async fn begin_write<'a>(&'a self, client: &'a mut Object) -> Result<Write<'a>, Error> {
        let tx = begin(client).await?;
        let claim = self.claim.as_deref();
        if let Some(claim) = claim {
            hold(&tx, claim).await?;
        }
        Ok(Write { tx, claim })
    }
}

async fn hold(tx: &Transaction<'_>, claim: &Claim) -> Result<(), Error> {
    let wait = format!("SET LOCAL lock_timeout = '{WAIT}'");
    tx.batch_execute(&wait).await?;
    // Until the end of the transaction, however it ends.
    let lock = tx.prepare_cached("SELECT pg_advisory_xact_lock($1)").await?;
    if let Err(error) = tx.execute(&lock, &[&claim.lock()]).await {
        return Err(if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            Error::KeyInUse
        } else {
            error.into()
        });
    }
    tx.batch_execute("SET LOCAL lock_timeout TO DEFAULT").await?;
    let used = tx
        .prepare_cached("SELECT 1 FROM idempotency WHERE scope = $1")
        .await?;
    // Used since it was looked up: sent again, the request gets the answer.
    match tx.query_opt(&used, &[&claim.scope()]).await? {
        Some(_) => Err(Error::KeyInUse),
        None => Ok(()),
    }
}

impl Write<'_> {
    /// Commits what was done, and under a key what it answers: `written`, or its only row.
    pub(super) async fn commit<T: Serialize>(self, written: &[T]) -> Result<(), Error> {
        self.commit_with(written, None::<&T>).await
    }

    /// The same for a change, whose answer carries the entity tag of the row as it is `now`.
    pub(super) async fn commit_with<T: Serialize, R: Serialize>(
        self,
        written: &[T],
        now: Option<&R>,
    ) -> Result<(), Error> {
        if let Some(claim) = self.claim {
            let encoded = match claim.form {
                Form::Row => serde_json::to_vec(&written.first()),
                Form::Rows => serde_json::to_vec(written),
                Form::Nothing => Ok(Vec::new()),
            };
            let body = encoded.map_err(StoreError::from)?;
            let tag = now
                .filter(|_| claim.form == Form::Row)
                .map(EntityTag::of)
                .transpose()?;
            claim.record(&self.tx, &body, tag.as_ref()).await?;
        }
        Ok(self.tx.commit().await?)
    }

    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.tx.rollback().await?)
    }
}
