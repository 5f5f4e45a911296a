//! Gives the API's outbox the bridge's Kafka: the two crates know nothing of each other.

use std::sync::Arc;

use shopfloor_api::outbox::{PublishError, Publisher, Publishing, Record};
use shopfloor_bridge::kafka::{Cluster, KafkaFault, Undelivered};
use shopfloor_bridge::publisher::{PublishFault, Publisher as KafkaPublisher};

/// The outbox's way to Kafka; without one every record waits.
pub(super) fn publisher(kafka: Option<&Cluster>) -> Result<Arc<dyn Publisher>, KafkaFault> {
    match kafka {
        None => Ok(Arc::new(Nowhere)),
        Some(cluster) => Ok(Arc::new(ToKafka(KafkaPublisher::start(cluster)?))),
    }
}

struct ToKafka(KafkaPublisher);

impl Publisher for ToKafka {
    fn publish(&self, records: Vec<Record>) -> Publishing<'_> {
        let records = records
            .into_iter()
            .map(|record| (record.topic, record.key, record.value))
            .collect();
        Box::pin(async move {
            let outcomes = self.0.publish_all(records).await;
            outcomes
                .into_iter()
                .map(|outcome| outcome.map_err(refusal))
                .collect()
        })
    }
}

fn refusal(fault: PublishFault) -> PublishError {
    match fault {
        PublishFault::Undelivered(Undelivered::Refused(why)) => PublishError::Refused(why),
        other => PublishError::Unavailable(other.to_string()),
    }
}

struct Nowhere;

impl Publisher for Nowhere {
    fn publish(&self, records: Vec<Record>) -> Publishing<'_> {
        let outcomes = records
            .iter()
            .map(|_| Err(PublishError::Unavailable("no Kafka is configured".into())))
            .collect();
        Box::pin(std::future::ready(outcomes))
    }
}
