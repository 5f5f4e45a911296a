//! A record on its way to Kafka, and what became of it.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;

/// One record on its way. `origin` comes back with the confirmation.
#[derive(Debug)]
pub struct Outgoing<T> {
    pub topic: Arc<str>,
    /// Empty for none.
    pub key: Bytes,
    pub value: Bytes,
    pub headers: Vec<(&'static str, Bytes)>,
    pub origin: T,
}

impl<T> Outgoing<T> {
    /// Key, value and headers, in bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.key.len() + self.value.len() + headers
    }
}

/// What became of one record.
#[derive(Debug)]
pub struct Confirmation<T> {
    pub origin: T,
    /// As [`Outgoing::bytes`] counted them.
    pub bytes: usize,
    /// False where librdkafka refused it before it was sent: no batch and no transaction is touched by that.
    pub sent: bool,
    pub outcome: Result<(), Undelivered>,
}

/// Why a record is not in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// This record will never be taken; others may be.
    #[error("Kafka refuses the record: {0}")]
    Refused(String),
    /// The batch in which it travelled was refused; sent alone, the record may be taken.
    #[error("Kafka refuses the batch of the record: {0}")]
    Suspect(String),
    /// The producer is at fault or has stopped: another one must send it again.
    #[error("the Kafka producer failed: {0}")]
    Again(String),
}

impl Undelivered {
    /// What a code means when librdkafka refuses a record before it is sent.
    pub(super) fn at_once(code: RDKafkaErrorCode) -> Self {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => Self::Refused(code.to_string()),
            other => Self::on_the_way(other),
        }
    }

    /// What a code means when it comes back for a record that was sent.
    pub(super) fn on_the_way(code: RDKafkaErrorCode) -> Self {
        Self::of(code, code.to_string())
    }

    pub(super) fn of(code: RDKafkaErrorCode, why: String) -> Self {
        use RDKafkaErrorCode as Code;
        match code {
            Code::InvalidTopic
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::TopicAuthorizationFailed => Self::Refused(why),
            Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::MessageBatchTooLarge
            | Code::InvalidRecord
            | Code::InvalidDifferentRecord
            | Code::InvalidMessage
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat => Self::Suspect(why),
            // Not the record's fault: one with the same time is taken once the clocks agree.
            Code::InvalidTimestamp => Self::Again(format!(
                "{why}: this machine's clock is further from the brokers' than the topic's \
                 message.timestamp.after.max.ms (an hour by default); set it, the records wait"
            )),
            _ => Self::Again(why),
        }
    }
}

/// Why a producer stopped taking records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Too much waits for Kafka: try again when some of it is confirmed.
    Queue,
    /// The embedded cluster would have to forget records.
    Embedded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_makes_records_wait_and_no_dead_letter() {
        let why = Undelivered::on_the_way(RDKafkaErrorCode::InvalidTimestamp);
        assert!(
            matches!(&why, Undelivered::Again(why) if why.contains("clock")),
            "{why:?}"
        );
    }
}
