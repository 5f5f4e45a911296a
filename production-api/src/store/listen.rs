//! LISTEN: a connection of its own, since a pooled one drops notifications.

use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, NoTls};

use super::{Store, StoreError, outbox};

/// Notifies `wake` at every commit with outbox rows. Returns when the connection ends.
pub(crate) async fn outbox(store: &Store, wake: &Notify) -> Result<(), StoreError> {
    let (client, mut connection) = store.postgres.connect(NoTls).await?;
    let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
    let listen = format!("LISTEN {}", outbox::CHANNEL);
    let listening = async {
        client.batch_execute(&listen).await?;
        // What was committed before.
        wake.notify_one();
        // The connection ends when its client goes.
        std::future::pending::<Result<(), StoreError>>().await
    };
    let notified = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(_) = message? {
                wake.notify_one();
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = listening => ended,
        ended = notified => ended,
    }
}
