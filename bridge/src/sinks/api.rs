//! The production API sink: protobuf batches, one after the other.
//!
//! A batch is repeated until the API answers it; the API knows each record by its id, so a repetition changes
//! nothing there. What it refuses is split until the bad record stands alone, which becomes a dead letter.
//! [`client`] does one exchange.

pub(crate) mod client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use shopfloor_proto::v1::{TelemetryBatch, TelemetryRecord};
use tokio_util::sync::CancellationToken;

use self::client::{Answer, ApiClient, Refusal};
use super::Progress;
use super::backoff::Backoff;
use crate::config::ApiSinkConfig;
use crate::contract;
use crate::dead_letters::{LastResort, as_dead_letter};
use crate::metrics;
use crate::record::{Envelope, RefusedBy};
use crate::spool::{Entry, ReadError, Refused, Spool, SpoolError, Stored};

/// Longest pause that a `Retry-After` can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How long a dead letter waits for room in the spool. The room may depend on this very sink.
const MAX_ROOM_WAIT: Duration = Duration::from_secs(1);

/// The sink's parts.
#[derive(Debug)]
pub(crate) struct ApiSink {
    spool: Spool,
    progress: Arc<Progress>,
    config: ApiSinkConfig,
    gateway: String,
    last_resort: LastResort,
    client: ApiClient,
}

/// A record that the API is to have, with what it came from.
struct Pending {
    stored: Stored,
    record: TelemetryRecord,
}

/// The sink was told to stop with a batch in hand.
struct Stopped;

impl ApiSink {
    /// The error says what is wrong with the configuration.
    pub(crate) fn new(
        spool: Spool,
        progress: Arc<Progress>,
        config: ApiSinkConfig,
        gateway: String,
        last_resort: LastResort,
    ) -> Result<Self, String> {
        Ok(Self {
            spool,
            progress,
            gateway,
            last_resort,
            client: ApiClient::new(&config)?,
            config,
        })
    }

    /// Runs until it is told to stop, or the spool ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut reader = self.spool.reader(self.progress.cursor());
        let mut backoff = self.backoff();
        let (records, bytes) = (
            self.config.max_batch_records as usize,
            self.config.max_batch_bytes as usize,
        );
        loop {
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                read = reader.next(records, bytes) => read,
            };
            match read {
                Ok(batch) => {
                    backoff.reset();
                    if self.deliver(batch, &stop).await.is_err() {
                        return;
                    }
                }
                Err(ReadError::Closed) => return,
                Err(ReadError::Lost { sequences, cause }) => {
                    let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                    tracing::error!(first, last, %cause, "records are lost in the spool; the API sink goes on behind them");
                    metrics::lost(
                        self.progress.sink(),
                        sequences.end.saturating_sub(sequences.start),
                    );
                }
                Err(error) => {
                    self.progress.stuck(error.to_string());
                    if self.wait(backoff.pause(), &stop).await.is_err() {
                        return;
                    }
                }
            }
            self.progress.advance(reader.position());
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(self.config.max_backoff_ms.into()))
    }

    async fn wait(&self, pause: Duration, stop: &CancellationToken) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = stop.cancelled() => Err(Stopped),
        }
    }

    /// Returns when the API has, or the dead letters have, every record of the batch.
    async fn deliver(&self, batch: Vec<Stored>, stop: &CancellationToken) -> Result<(), Stopped> {
        let mut pending = Vec::with_capacity(batch.len());
        for stored in batch {
            match to_record(&stored) {
                Ok(Some(record)) => pending.push(Pending { stored, record }),
                Ok(None) => {}
                Err(reason) => self.dead_letter(&stored, &reason, stop).await?,
            }
        }
        // Parts of the batch that are still to be posted, the next one last.
        let mut parts = vec![pending];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let Some(refusal) = self.post_until_answered(&mut part, stop).await? else {
                continue;
            };
            match part.as_slice() {
                [alone] => {
                    metrics::refused(self.progress.sink());
                    self.dead_letter(&alone.stored, &refusal.reason, stop).await?;
                }
                _ => split(part, refusal.record, &mut parts),
            }
        }
        Ok(())
    }

    /// `None` when the API has stored the part.
    async fn post_until_answered(
        &self,
        part: &mut [Pending],
        stop: &CancellationToken,
    ) -> Result<Option<Refusal>, Stopped> {
        let body = self.encode(part);
        let mut backoff = self.backoff();
        loop {
            let begin = Instant::now();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Stopped),
                answer = self.client.post(body.clone()) => answer,
            };
            metrics::api_batch(begin.elapsed().as_secs_f64());
            let (why, retry_after) = match answer {
                Answer::Stored(_) => {
                    self.progress.flows();
                    return Ok(None);
                }
                Answer::Refused(refusal) => return Ok(Some(refusal)),
                Answer::Later { why, retry_after } => (why, retry_after),
            };
            metrics::retried(self.progress.sink(), "not_answered");
            self.progress.stuck(format!(
                "the production API does not take records ({why}); they wait in the spool"
            ));
            let pause = backoff.pause();
            self.wait(
                retry_after.map_or(pause, |asked| asked.min(MAX_RETRY_AFTER).max(pause)),
                stop,
            )
            .await?;
        }
    }

    fn encode(&self, part: &mut [Pending]) -> Bytes {
        let records = part
            .iter_mut()
            .map(|pending| std::mem::take(&mut pending.record))
            .collect();
        let batch = TelemetryBatch {
            gateway: self.gateway.clone(),
            records,
        };
        let body = batch.encode_to_vec().into();
        for (pending, record) in part.iter_mut().zip(batch.records) {
            pending.record = record;
        }
        body
    }

    /// Puts the record back into the spool, as a dead letter on its way to Kafka's dead-letter topic.
    async fn dead_letter(
        &self,
        stored: &Stored,
        reason: &str,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        tracing::warn!(
            sequence = stored.sequence,
            reason,
            "a record becomes a dead letter"
        );
        // Only records whose envelope was read come here.
        let Ok(envelope) = Envelope::decode(&stored.meta) else {
            return Ok(());
        };
        let entry = as_dead_letter(stored, &envelope, RefusedBy::Api, reason);
        let mut backoff = self.backoff();
        loop {
            if append(&self.spool, entry.clone()).await.is_ok() {
                return Ok(());
            }
            match self.last_resort.keep(entry.clone(), &self.progress).await {
                Ok(()) => return Ok(()),
                Err(error) => self
                    .progress
                    .stuck(format!("a dead letter cannot be stored: {error}")),
            }
            self.wait(backoff.pause(), stop).await?;
        }
    }
}

/// `None` for what the API does not get; the error is a dead letter's reason.
fn to_record(stored: &Stored) -> Result<Option<TelemetryRecord>, String> {
    // What cannot be read is kept by the Kafka sink, once.
    let Some(envelope) = Envelope::decode(&stored.meta)
        .ok()
        .filter(|envelope| envelope.destination.api())
    else {
        return Ok(None);
    };
    let body = contract::body(envelope.schema, &stored.payload).map_err(|violation| violation.to_string())?;
    Ok(Some(TelemetryRecord {
        record_id: Bytes::copy_from_slice(&envelope.record_id),
        sequence: stored.sequence,
        machine: envelope.machine.to_owned(),
        received_ms: envelope.received_ms,
        traceparent: envelope.traceparent.to_owned(),
        body,
    }))
}

/// Pushes the parts of a refused batch so that they are posted in order, the blamed record alone.
fn split(mut part: Vec<Pending>, blamed: Option<usize>, parts: &mut Vec<Vec<Pending>>) {
    match blamed.filter(|index| *index < part.len()) {
        Some(index) => {
            let behind = part.split_off(index + 1);
            let alone = part.split_off(index);
            parts.extend([behind, alone, part]);
        }
        None => {
            let second = part.split_off(part.len() / 2);
            parts.extend([second, part]);
        }
    }
}

async fn append(spool: &Spool, entry: Entry) -> Result<(), SpoolError> {
    let mut entries = vec![entry];
    let deadline = tokio::time::Instant::now() + MAX_ROOM_WAIT;
    loop {
        let (sender, done) = tokio::sync::oneshot::channel();
        let report = Box::new(move |result: Result<_, SpoolError>| drop(sender.send(result.map(|_| ()))));
        match spool.append(entries, report) {
            Ok(()) => return done.await.unwrap_or(Err(SpoolError::Closed)),
            Err(Refused::Busy(back, _)) => entries = back,
            Err(_) => return Err(SpoolError::Closed),
        }
        if tokio::time::timeout_at(deadline, spool.room()).await.is_err() {
            return Err(SpoolError::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
