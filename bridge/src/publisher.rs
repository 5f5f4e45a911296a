//! Records to Kafka, each awaited: what the production API's outbox relay needs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::kafka::{Cluster, Full, KafkaFault, Outgoing, Producer, Undelivered};

/// Pause before a full queue is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// What Kafka has not confirmed by then is given up, so that its caller can send it anew and nothing arrives late:
/// below the outbox's `publish_timeout_ms` and `lease_ms`.
const GIVE_UP_AFTER: Duration = Duration::from_secs(20);

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

/// A producer that answers for each record.
#[derive(Debug)]
pub struct Publisher {
    producer: Arc<RwLock<Arc<Producer<Reply>>>>,
    _stops: DropGuard,
}

impl Publisher {
    /// Starts a producer and the task that hands out its confirmations. Call inside a tokio runtime.
    pub fn start(cluster: &Cluster) -> Result<Self, KafkaFault> {
        let producer = Arc::new(RwLock::new(Arc::new(cluster.producer(Some(GIVE_UP_AFTER))?)));
        let stop = CancellationToken::new();
        tokio::spawn(hand_out(cluster.clone(), producer.clone(), stop.clone()));
        Ok(Self {
            producer,
            _stops: stop.drop_guard(),
        })
    }

    /// Resolves when Kafka has each record on all replicas, or has failed it; one outcome a record, in their order.
    /// Records of one topic and key keep their order as long as none fails.
    pub async fn publish_all(&self, records: Vec<(String, String, Bytes)>) -> Vec<Result<(), PublishFault>> {
        let mut answers = Vec::with_capacity(records.len());
        let mut waiting = Vec::with_capacity(records.len());
        for (topic, key, value) in records {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            waiting.push(Box::new(Outgoing {
                topic: topic.into(),
                key: Bytes::from(key),
                value,
                headers: Vec::new(),
                origin: reply,
            }));
        }
        let unsent = self.hand_over(waiting).await;
        let mut outcomes = Vec::with_capacity(answers.len());
        for answer in answers {
            outcomes.push(match answer.await {
                Ok(outcome) => outcome.map_err(PublishFault::from),
                Err(_) => Err(unsent.clone()),
            });
        }
        outcomes
    }

    #[allow(clippy::vec_box)] // What the producer takes: librdkafka holds each record by its box.
    /// Gives all to the producer, in order. What it cannot take is dropped, which its answer tells; the fault is why.
    async fn hand_over(&self, mut records: Vec<Box<Outgoing<Reply>>>) -> PublishFault {
        loop {
            let (left, full) = current(&self.producer).produce(records);
            if left.is_empty() {
                return PublishFault::Stopped;
            }
            if full == Some(Full::Embedded) {
                return PublishFault::EmbeddedFull;
            }
            records = left;
            tokio::time::sleep(FULL_PAUSE).await;
        }
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
            match cluster.producer(Some(GIVE_UP_AFTER)) {
                Ok(fresh) => {
                    tracing::warn!(why, "the Kafka producer is replaced");
                    *producer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                }
                Err(error) => tracing::error!(%error, "no new Kafka producer"),
            }
        }
    }
}
