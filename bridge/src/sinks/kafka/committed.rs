//! The cursor that is committed along with the records of which it speaks, and when it may be believed.
//!
//! It is ahead of the cursor on disk when the gateway died between the two. But a spool that was wiped, or put back from
//! a copy, gives the same sequences to other records, and to skip those would lose them. So the cursor names a record
//! that it has passed, by the id that was made at reception, and counts only where the spool has that record.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{KafkaSink, with_source};
use crate::record::Envelope;
use crate::spool::{Spool, Stored};

const VERSION: u8 = 1;

/// A value of the cursor's topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Committed {
    version: u8,
    /// The producer that wrote it: each makes an id of its own.
    pub(super) claim: Uuid,
    /// Everything before it is in Kafka.
    pub(super) next_sequence: u64,
    pub(super) passed: Option<Passed>,
}

/// The last record before a cursor, as far as it could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Passed {
    sequence: u64,
    record_id: Uuid,
}

impl Committed {
    pub(super) fn new(claim: Uuid, next_sequence: u64, passed: Option<Passed>) -> Self {
        Self {
            version: VERSION,
            claim,
            next_sequence,
            passed,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Numbers and texts: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn decode(value: &[u8]) -> Result<Self, String> {
        let committed: Self = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        match committed.version {
            VERSION => Ok(committed),
            other => Err(format!("its version is {other}, this build knows {VERSION}")),
        }
    }
}

impl Passed {
    pub(super) fn of(stored: &Stored) -> Option<Self> {
        let envelope = Envelope::decode(&stored.meta).ok()?;
        Some(Self {
            sequence: stored.sequence,
            record_id: Uuid::from_bytes(envelope.record_id),
        })
    }

    /// The spool has this very record.
    pub(super) async fn is_in(self, spool: &Spool) -> bool {
        let mut reader = spool.reader_at(self.sequence);
        if self.sequence >= reader.end_sequence() {
            return false;
        }
        let read = reader.next(1, 0).await;
        let stored = read.ok().and_then(|records| records.into_iter().next());
        stored.and_then(|stored| Self::of(&stored)) == Some(self)
    }
}

impl KafkaSink {
    pub(super) fn cursor_topic(&self) -> String {
        self.config.cursor_topic(&String::from_utf8_lossy(&self.gateway))
    }

    /// What the gateway's last transaction says.
    pub(super) async fn committed(&self) -> Result<Option<Committed>, String> {
        let topic = self.cursor_topic();
        let value = self.cluster.last_committed(&topic).await;
        let value = value.map_err(|error| {
            format!(
                "{}; the cursor's topic {topic} needs one partition and cleanup.policy=compact: make it where the gateway may \
                 not",
                with_source(&error)
            )
        });
        let Some(value) = value? else {
            return Ok(None);
        };
        Committed::decode(&value).map(Some).map_err(|why| {
            format!(
                "the topic {topic} holds something else than this gateway's cursor ({why}); set another \
                 bridge.kafka.cursor_topic_prefix"
            )
        })
    }

    /// Moves the sink to the committed cursor, where that is ahead of its own and speaks of this spool. Gives what the
    /// sink has passed, as far as it is known.
    pub(super) async fn adopt(&self, committed: Option<&Committed>) -> Option<Passed> {
        let own = self.progress.cursor().position();
        let committed = committed.filter(|committed| committed.next_sequence >= own)?;
        let passed = match committed.passed {
            Some(passed) if passed.is_in(&self.spool).await => Some(passed),
            _ => None,
        };
        if passed.is_some() {
            self.progress.advance(committed.next_sequence);
        } else if committed.next_sequence > own {
            tracing::error!(
                own,
                committed = committed.next_sequence,
                "Kafka's cursor speaks of another spool than this directory holds, which was wiped or put back from a copy; \
                 the Kafka sink begins at its own, and may repeat records"
            );
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_encoding_and_another_versions_is_refused() {
        let passed = Passed {
            sequence: 6,
            record_id: Uuid::from_u128(5),
        };
        let cursor = Committed::new(Uuid::from_u128(4), 7, Some(passed));
        assert_eq!(Committed::decode(&cursor.encode()), Ok(cursor.clone()));
        let later = Committed { version: 2, ..cursor };
        assert!(
            Committed::decode(&later.encode())
                .unwrap_err()
                .contains("version")
        );
        assert!(Committed::decode(b"").is_err());
    }
}
