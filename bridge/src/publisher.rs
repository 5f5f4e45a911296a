//! Single records to Kafka, each awaited: what the production API's outbox relay needs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::kafka::{Cluster, Full, KafkaFault, Outgoing, Producer, Undelivered};

/// Pause before a full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

type Reply = oneshot::Sender<Result<(), Undelivered>>;

/// Why a record was not published. The caller keeps it and decides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFault {
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    #[error("embedded Kafka is full: configure [kafka] bootstrap_servers")]
    EmbeddedFull,
    #[error("the publisher has stopped")]
    Stopped,
}

/// A producer whose records are awaited one by one; any number may be on their way.
#[derive(Debug)]
pub struct Publisher {
    producer: Arc<RwLock<Arc<Producer<Reply>>>>,
    _stops: DropGuard,
}

impl Publisher {
    /// Starts a producer and the task that hands out its confirmations. Call inside a tokio runtime.
    pub fn start(cluster: &Cluster) -> Result<Self, KafkaFault> {
        let producer = Arc::new(RwLock::new(Arc::new(cluster.producer()?)));
        let stop = CancellationToken::new();
        tokio::spawn(hand_out(cluster.clone(), producer.clone(), stop.clone()));
        Ok(Self {
            producer,
            _stops: stop.drop_guard(),
        })
    }

    /// Resolves when Kafka has the record on all replicas. Records of one topic and key keep the order of their calls
    /// as long as none fails.
    pub async fn publish(&self, topic: &str, key: &str, value: Bytes) -> Result<(), PublishFault> {
        let (reply, answer) = oneshot::channel();
        let mut records = vec![Box::new(Outgoing {
            topic: topic.into(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value,
            headers: Vec::new(),
            origin: reply,
        })];
        loop {
            let producer = current(&self.producer);
            let (left, full) = producer.produce(records);
            if left.is_empty() {
                break;
            }
            if full == Some(Full::Embedded) {
                return Err(PublishFault::EmbeddedFull);
            }
            records = left;
            tokio::time::sleep(FULL_PAUSE).await;
        }
        Ok(answer.await.map_err(|_| PublishFault::Stopped)??)
    }
}

fn current(producer: &RwLock<Arc<Producer<Reply>>>) -> Arc<Producer<Reply>> {
    producer.read().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn hand_out(cluster: Cluster, producer: Arc<RwLock<Arc<Producer<Reply>>>>, stop: CancellationToken) {
    loop {
        let serving = current(&producer);
        let confirmations = tokio::select! {
            () = stop.cancelled() => return,
            confirmations = serving.confirmations() => confirmations,
        };
        for confirmation in confirmations {
            // A caller that has gone does not want to know.
            let _gone = confirmation.origin.send(confirmation.outcome);
        }
        if let Some(why) = serving.fatal() {
            match cluster.producer() {
                Ok(fresh) => {
                    tracing::warn!(why, "the Kafka producer is replaced");
                    *producer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                }
                Err(error) => tracing::error!(%error, "no new Kafka producer"),
            }
        }
    }
}
