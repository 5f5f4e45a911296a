//! The Kafka sink: spool to producer, in order.
//!
//! Layout: [`at_least_once`] and [`exactly_once`] are the two ways of delivery; for the latter, [`committed`] is the cursor
//! that travels with the records, [`aside`] what Kafka has refused in a transaction that had to be undone, [`session`] one
//! producer's life and [`transaction`] its work. Both ways begin again at the cursor, with a new producer, when one fails.

mod aside;
mod at_least_once;
mod committed;
mod exactly_once;
mod session;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::backoff::Backoff;
use super::draft::{Draft, Drafts, Origin, Record, Role};
use crate::config::{Delivery, KafkaConfig};
use crate::dead_letters::{LastResort, as_dead_letter, unreadable};
use crate::kafka::Cluster;
use crate::record::{Envelope, RefusedBy};
use crate::spool::{Entry, Spool, SpoolError, Stored};

/// Most records and bytes of one read, and so of one hand-over to librdkafka.
const MAX_READ_RECORDS: usize = 2_000;
const MAX_READ_BYTES: usize = 512 * 1024;
/// How long a stopping sink waits for what it has handed over.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(2);
/// Longest pause between two sessions.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The sink's fixed parts.
#[derive(Debug)]
pub(crate) struct KafkaSink {
    pub(crate) spool: Spool,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cluster: Cluster,
    pub(crate) config: KafkaConfig,
    pub(crate) gateway: Bytes,
    /// Topics that must exist before the first message.
    pub(crate) topics: Vec<String>,
    pub(crate) last_resort: LastResort,
}

impl KafkaSink {
    /// Runs until it is told to stop, or the spool ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(MAX_BACKOFF);
        loop {
            let created = tokio::select! {
                created = self.cluster.ensure_topics(self.topics.clone()) => created,
                () = stop.cancelled() => return,
            };
            let Err(error) = created else { break };
            self.progress.stuck(with_source(&error));
            if !pause(&mut backoff, &stop).await {
                return;
            }
        }
        self.progress.flows();
        match self.config.delivery {
            Delivery::AtLeastOnce => at_least_once::run(&self, &stop).await,
            Delivery::ExactlyOnce => exactly_once::run(&self, &stop).await,
        }
    }

    fn drafts(&self) -> Drafts {
        Drafts::new(self.gateway.clone(), &self.config, &self.topics)
    }

    /// What Kafka refuses even as a dead letter: on disk, beside the spool.
    async fn keep(&self, stored: &Stored, reason: &str) -> Result<(), SpoolError> {
        tracing::error!(
            sequence = stored.sequence,
            reason,
            "a dead letter stays on disk, in the gateway's dead-letters directory"
        );
        self.last_resort.keep(kept(stored, reason), &self.progress).await
    }
}

fn kept(stored: &Stored, reason: &str) -> Entry {
    match Envelope::decode(&stored.meta) {
        Ok(envelope) => {
            let why = match envelope.reason {
                "" => reason,
                earlier => earlier,
            };
            as_dead_letter(stored, &envelope, RefusedBy::Kafka, why)
        }
        Err(error) => unreadable(stored, &error.to_string()),
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}; records wait in the spool")
}

/// False when it was told to stop.
async fn pause(backoff: &mut Backoff, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(backoff.pause()) => true,
        () = stop.cancelled() => false,
    }
}
