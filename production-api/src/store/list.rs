//! Lists of whole tables, row by row.
//!
//! A list takes as long as its reader, and a reader may stop: so lists together hold no more than half of the
//! pool's connections, and each holds its own for a limited time. Everything else goes on beside them.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, PoolError, TimeoutType};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row, RowStream};

use super::error::StoreError;
use super::pool::Store;

/// Rows between a list's connection and its reader.
const ROWS_AHEAD: usize = 512;
/// How long Postgres may take to hear that a list is over.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

enum Next {
    Row(Result<Row, tokio_postgres::Error>),
    End,
}

impl Store {
    /// The rows of `sql` as they come: memory holds a few of them, however many there are. A list that is not read
    /// within `list_timeout_ms` ends in an error.
    pub(super) async fn rows<T>(
        &self,
        sql: &str,
        read: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<impl Stream<Item = Result<T, StoreError>> + Send + use<T>, StoreError> {
        self.rows_with(sql, Vec::new(), read).await
    }

    pub(super) async fn rows_with<T>(
        &self,
        sql: &str,
        parameters: Vec<Box<dyn ToSql + Sync + Send>>,
        read: fn(&Row) -> Result<T, StoreError>,
    ) -> Result<impl Stream<Item = Result<T, StoreError>> + Send + use<T>, StoreError> {
        let permit = Arc::clone(&self.lists.permits).acquire_owned();
        let permit = tokio::time::timeout(self.lists.wait, permit).await;
        let Ok(Ok(permit)) = permit else {
            return Err(StoreError::Pool(PoolError::Timeout(TimeoutType::Wait)));
        };
        let client = self.client().await?;
        let time = self.lists.time;
        // A list may take longer than a statement; both are on the wire at once.
        let allow = format!("SET statement_timeout = {}", time.as_millis());
        let prepared =
            futures_util::future::try_join(async { Ok(client.batch_execute(&allow).await?) }, async {
                Ok::<_, StoreError>(client.prepare_cached(sql).await?)
            });
        let rows = match prepared.await {
            Ok(((), statement)) => client.query_raw(&statement, parameters).await,
            Err(error) => {
                drop(Object::take(client));
                return Err(error);
            }
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                drop(Object::take(client));
                return Err(error.into());
            }
        };
        let (sender, receiver) = mpsc::channel(ROWS_AHEAD);
        // A task of its own: a body whose client does not read is not polled, and could not keep the time.
        tokio::spawn(async move {
            let whole = tokio::time::timeout(time, forward(rows, sender)).await;
            if whole != Ok(true) {
                abandon(client).await;
            } else if client.batch_execute("RESET statement_timeout").await.is_err() {
                drop(Object::take(client));
            }
            drop(permit);
        });
        // With the end of the list the receiver ends too; without it, the list broke off.
        Ok(stream::unfold(Some(receiver), move |receiver| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Next::Row(Ok(row))) => Some((read(&row), Some(receiver))),
                Some(Next::Row(Err(error))) => Some((Err(error.into()), None)),
                Some(Next::End) => None,
                None => Some((Err(StoreError::Unexpected("a list was not read in time")), None)),
            }
        }))
    }
}

/// True where every row went to the reader, and the connection is free again.
async fn forward(rows: RowStream, sender: mpsc::Sender<Next>) -> bool {
    let mut rows = Box::pin(rows);
    while let Some(row) = rows.next().await {
        if sender.send(Next::Row(row)).await.is_err() {
            return false;
        }
    }
    sender.send(Next::End).await.is_ok()
}

/// Ends a list under way. Its connection ends with it: rows, or the cancellation itself, could still be on the way.
async fn abandon(client: Object) {
    let cancelling = client.cancel_token();
    if !matches!(
        tokio::time::timeout(CANCEL_TIMEOUT, cancelling.cancel_query(NoTls)).await,
        Ok(Ok(()))
    ) {
        tracing::warn!("Postgres could not be told that a list is over");
    }
    drop(Object::take(client));
}
