//! What the embedded cluster can be made to do, for tests.

use super::cluster::Cluster;

/// What the embedded cluster can be made to do.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    BrokersDown,
    BrokersUp,
    /// The topic does not exist, whatever is asked.
    UnknownTopic(&'static str),
    /// The next producer is fatally refused.
    ProducerRefused,
    /// What the next commit came to is not told; the producer is at its end.
    CommitUnanswered,
    /// The next produce requests fail in a way that passes.
    NotLeader(usize),
    /// The next produce requests are refused as a whole: the batch is larger than the topic allows.
    BatchTooLarge(usize),
}

impl Cluster {
    pub(crate) async fn make_topic(&self, name: String, partitions: i32) {
        let embedded = self.embedded.as_ref().expect("the embedded cluster");
        let made = embedded.create_topics(vec![name], partitions).await;
        made.expect("the embedded cluster makes the topic");
    }

    pub(crate) async fn inject(&self, fault: Fault) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
        let embedded = self.embedded.as_ref().expect("faults need the embedded cluster");
        let injected = embedded.call("inject a fault", move |mock| match fault {
            Fault::BrokersDown => mock.broker_down(-1),
            Fault::BrokersUp => mock.broker_up(-1),
            Fault::UnknownTopic(topic) => {
                mock.topic_error(topic, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            }
            Fault::ProducerRefused => {
                let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED];
                mock.request_errors(RDKafkaApiKey::InitProducerId, &refused);
                Ok(())
            }
            Fault::CommitUnanswered => {
                let unanswered = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TXN_STATE];
                mock.request_errors(RDKafkaApiKey::EndTxn, &unanswered);
                Ok(())
            }
            Fault::BatchTooLarge(times) => {
                let errors = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; times];
                mock.request_errors(RDKafkaApiKey::Produce, &errors);
                Ok(())
            }
            Fault::NotLeader(times) => {
                let errors = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; times];
                mock.request_errors(RDKafkaApiKey::Produce, &errors);
                Ok(())
            }
        });
        injected.await.expect("the embedded cluster takes the fault");
    }
}
