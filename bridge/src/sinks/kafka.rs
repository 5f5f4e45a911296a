//! The Kafka sink: spool to producer, in order.
//!
//! A session is one producer's life. It begins at the cursor, so a session that follows another one's failure sends
//! again what was not confirmed: at least once, and never out of order within a key's first delivery.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::backoff::Backoff;
use super::contiguous::Contiguous;
use crate::config::KafkaConfig;
use crate::dead_letters::{LastResort, as_dead_letter, dead_letter_headers, record_headers, unreadable};
use crate::kafka::{Cluster, Confirmation, Full, Outgoing, Producer, Undelivered};
use crate::metrics;
use crate::record::{Destination, Envelope};
use crate::spool::{ReadError, Reader, Spool, Stored};
use crate::stamp::{MAX_STAMP_BYTES, stamp};

/// Most records and bytes of one read, and so of one hand-over to librdkafka.
const MAX_READ_RECORDS: usize = 2_000;
const MAX_READ_BYTES: usize = 512 * 1024;
/// How long records that were not taken wait for a confirmation before they are offered again anyway.
const OFFER_AGAIN: Duration = Duration::from_millis(200);
/// How long a stopping sink waits for what it has handed over.
const LAST_CONFIRMATIONS: Duration = Duration::from_secs(2);
/// Longest pause between two sessions.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Most topic names kept; captures in topic names could make any number.
const MAX_TOPICS: usize = 1_000;

/// What the embedded cluster's end is called.
const EMBEDDED_FULL: &str = "embedded Kafka is full: it keeps 5 MiB a partition in memory, and nothing is sent that would \
    push older records out; everything stays in the spool until you configure [kafka] bootstrap_servers";

/// A record in the producer's hands.
#[derive(Debug)]
struct Origin {
    stored: Stored,
    /// It goes to the dead-letter topic.
    dead: bool,
}

type Record = Box<Outgoing<Origin>>;

/// Why a session ended.
enum End {
    Stopped,
    /// A new session must begin at the cursor.
    Again(String),
}

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
        while let Err(error) = self.cluster.ensure_topics(self.topics.clone()).await {
            let source = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            self.progress
                .stuck(format!("{error}: {source}; records wait in the spool"));
            if !pause(&mut backoff, &stop).await {
                return;
            }
        }
        self.progress.flows();
        backoff.reset();
        loop {
            let before = self.progress.cursor().position();
            match Session::begin(&self) {
                Ok(mut session) => match session.run(&stop).await {
                    End::Stopped => return,
                    End::Again(why) => tracing::warn!(why, "the Kafka sink begins again at its cursor"),
                },
                Err(error) => self.progress.stuck(error.to_string()),
            }
            metrics::retried(self.progress.sink(), "session");
            if self.progress.cursor().position() > before {
                backoff.reset();
            }
            if !pause(&mut backoff, &stop).await {
                return;
            }
        }
    }
}

/// False when it was told to stop.
async fn pause(backoff: &mut Backoff, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(backoff.pause()) => true,
        () = stop.cancelled() => false,
    }
}

struct Session<'a> {
    sink: &'a KafkaSink,
    producer: Producer<Origin>,
    reader: Reader,
    confirmed: Contiguous,
    /// Read, and not yet in the producer's hands.
    waiting: Vec<Record>,
    in_flight_records: usize,
    in_flight_bytes: usize,
    topics: HashMap<String, Arc<str>>,
    dead_letter_topic: Arc<str>,
}

impl<'a> Session<'a> {
    fn begin(sink: &'a KafkaSink) -> Result<Self, crate::kafka::KafkaFault> {
        let cursor = sink.progress.cursor();
        Ok(Self {
            sink,
            // A record never times out: only its cursor says when it is done.
            producer: sink.cluster.producer(None)?,
            reader: sink.spool.reader(cursor),
            confirmed: Contiguous::new(cursor.position()),
            waiting: Vec::new(),
            in_flight_records: 0,
            in_flight_bytes: 0,
            topics: sink
                .topics
                .iter()
                .map(|topic| (topic.clone(), topic.as_str().into()))
                .collect(),
            dead_letter_topic: sink.config.dead_letter_topic.as_str().into(),
        })
    }

    async fn run(&mut self, stop: &CancellationToken) -> End {
        loop {
            let step = tokio::select! {
                biased;
                confirmations = self.producer.confirmations() => self.settle(confirmations).await,
                () = stop.cancelled() => break,
                () = tokio::time::sleep(OFFER_AGAIN), if !self.waiting.is_empty() => {
                    self.offer();
                    Ok(())
                }
                read = self.reader.next(MAX_READ_RECORDS, MAX_READ_BYTES), if self.has_room() => match read {
                    Err(ReadError::Closed) => break,
                    read => self.take(read).await,
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
        self.last_confirmations().await;
        End::Stopped
    }

    fn has_room(&self) -> bool {
        let config = &self.sink.config;
        self.waiting.is_empty()
            && self.in_flight_records < config.max_in_flight_records as usize
            && (self.in_flight_bytes as u64) < config.max_in_flight_bytes
    }

    /// What is confirmed soon need not be sent again by the next run.
    async fn last_confirmations(&mut self) {
        let deadline = tokio::time::Instant::now() + LAST_CONFIRMATIONS;
        while self.in_flight_records > 0 {
            let Ok(confirmations) = tokio::time::timeout_at(deadline, self.producer.confirmations()).await
            else {
                return;
            };
            if self.settle(confirmations).await.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, read: Result<Vec<Stored>, ReadError>) -> Result<(), End> {
        match read {
            Ok(batch) => {
                self.create_new_topics(&batch).await?;
                let mut arena = Arena::for_batch(&batch);
                let mut drafts = Vec::with_capacity(batch.len());
                for stored in batch {
                    drafts.extend(self.draft(stored, &mut arena).await?);
                }
                let arena = Bytes::from(arena.0);
                self.waiting
                    .extend(drafts.into_iter().map(|(mut record, stamped)| {
                        if let Some(range) = stamped {
                            record.value = arena.slice(range);
                        }
                        record
                    }));
                self.sink.progress.advance(self.confirmed.position());
                self.offer();
                Ok(())
            }
            Err(ReadError::Lost { sequences, cause }) => {
                let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                tracing::error!(first, last, %cause, "records are lost in the spool; the Kafka sink goes on behind them");
                metrics::lost(
                    self.sink.progress.sink(),
                    sequences.end.saturating_sub(sequences.start),
                );
                self.confirmed.skip(sequences.end);
                self.sink.progress.advance(self.confirmed.position());
                Ok(())
            }
            Err(error) => Err(End::Again(error.to_string())),
        }
    }

    /// Topics that captures have made and that no one has created yet.
    async fn create_new_topics(&mut self, batch: &[Stored]) -> Result<(), End> {
        let mut new: HashSet<&str> = HashSet::new();
        for stored in batch {
            if let Ok(envelope) = Envelope::decode(&stored.meta)
                && matches!(
                    envelope.destination,
                    Destination::KafkaAndApi | Destination::Kafka
                )
                && !self.topics.contains_key(envelope.topic)
            {
                new.insert(envelope.topic);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if self.topics.len() >= MAX_TOPICS {
            self.topics.clear();
        }
        let names: Vec<String> = new.into_iter().map(str::to_owned).collect();
        self.sink
            .cluster
            .ensure_topics(names.clone())
            .await
            .map_err(|error| End::Again(error.to_string()))?;
        for name in names {
            let topic = name.as_str().into();
            self.topics.insert(name, topic);
        }
        Ok(())
    }

    /// The record to send, and where its stamped value lies in the arena; `None` for what Kafka does not get.
    async fn draft(
        &mut self,
        stored: Stored,
        arena: &mut Arena,
    ) -> Result<Option<(Record, Option<Range<usize>>)>, End> {
        let sequence = stored.sequence;
        self.confirmed.begin(sequence);
        let envelope = match Envelope::decode(&stored.meta) {
            Ok(envelope) => envelope,
            Err(error) => {
                let entry = unreadable(&stored, &error.to_string());
                self.keep(entry, sequence, &error.to_string()).await?;
                return Ok(None);
            }
        };
        if envelope.destination == Destination::DeadLetter {
            let reason = envelope.reason.to_owned();
            return Ok(Some((self.dead_letter(stored, &reason), None)));
        }
        if !envelope.destination.kafka() {
            self.confirmed.confirm(sequence);
            return Ok(None);
        }
        let topic = match self.topics.get(envelope.topic) {
            Some(topic) => topic.clone(),
            None => envelope.topic.into(),
        };
        let stamped = (!envelope.stamp.is_empty())
            .then(|| arena.add(|out| stamp(&stored.payload, envelope.stamp, envelope.received_ms, out)));
        let headers = if envelope.headers {
            record_headers(&envelope, sequence, &self.sink.gateway)
        } else {
            Vec::new()
        };
        let record = Outgoing {
            topic,
            key: stored.meta.slice_ref(envelope.key.as_bytes()),
            value: stored.payload.clone(),
            headers,
            origin: Origin { stored, dead: false },
        };
        Ok(Some((Box::new(record), stamped)))
    }

    fn dead_letter(&self, stored: Stored, reason: &str) -> Record {
        let envelope = Envelope::decode(&stored.meta).ok();
        let (key, headers) = envelope.map_or_else(Default::default, |envelope| {
            let key = stored.meta.slice_ref(envelope.key.as_bytes());
            (
                key,
                dead_letter_headers(&envelope, reason, stored.sequence, &self.sink.gateway),
            )
        });
        Box::new(Outgoing {
            topic: self.dead_letter_topic.clone(),
            key,
            value: stored.payload.clone(),
            headers,
            origin: Origin { stored, dead: true },
        })
    }

    /// Hands over as much as the producer takes.
    fn offer(&mut self) {
        let offered = std::mem::take(&mut self.waiting);
        let (records, bytes) = size(&offered);
        let (left, full) = self.producer.produce(offered);
        let (left_records, left_bytes) = size(&left);
        self.in_flight_records += records - left_records;
        self.in_flight_bytes += bytes - left_bytes;
        self.waiting = left;
        if full == Some(Full::Embedded) && self.sink.cluster.embedded_is_idle() {
            self.sink.progress.stuck(EMBEDDED_FULL.into());
        }
    }

    async fn settle(&mut self, confirmations: Vec<Confirmation<Origin>>) -> Result<(), End> {
        let mut again = None;
        for Confirmation {
            origin,
            bytes,
            outcome,
        } in confirmations
        {
            self.in_flight_records = self.in_flight_records.saturating_sub(1);
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
            match outcome {
                Ok(()) => self.confirmed.confirm(origin.stored.sequence),
                Err(Undelivered::Again(why)) => again = Some(why),
                Err(Undelivered::Refused(why)) => self.refused(origin, &why).await?,
            }
        }
        self.sink.progress.advance(self.confirmed.position());
        metrics::in_flight(self.sink.progress.sink(), self.in_flight_bytes as u64);
        match again.or_else(|| self.producer.fatal()) {
            Some(why) => Err(End::Again(why)),
            None => {
                self.sink.progress.flows();
                if !self.waiting.is_empty() {
                    self.offer();
                }
                Ok(())
            }
        }
    }

    /// The record alone becomes a dead letter; the rest goes on.
    async fn refused(&mut self, origin: Origin, why: &str) -> Result<(), End> {
        metrics::refused(self.sink.progress.sink());
        let reason = format!("Kafka refuses the record: {why}");
        let sequence = origin.stored.sequence;
        if !origin.dead {
            tracing::warn!(sequence, reason, "a record becomes a dead letter");
            let record = self.dead_letter(origin.stored, &reason);
            self.waiting.push(record);
            return Ok(());
        }
        let entry = match Envelope::decode(&origin.stored.meta) {
            Ok(envelope) if envelope.reason.is_empty() => as_dead_letter(&origin.stored, &envelope, &reason),
            Ok(envelope) => as_dead_letter(&origin.stored, &envelope, envelope.reason),
            Err(error) => unreadable(&origin.stored, &error.to_string()),
        };
        self.keep(entry, sequence, &reason).await
    }

    /// The last resort: on disk, beside the spool.
    async fn keep(&mut self, entry: crate::spool::Entry, sequence: u64, reason: &str) -> Result<(), End> {
        tracing::error!(
            sequence,
            reason,
            "a dead letter stays on disk, in the gateway's dead-letters directory"
        );
        self.sink
            .last_resort
            .keep(entry)
            .await
            .map_err(|error| End::Again(error.to_string()))?;
        self.confirmed.confirm(sequence);
        Ok(())
    }
}

fn size(records: &[Record]) -> (usize, usize) {
    (records.len(), records.iter().map(|record| record.bytes()).sum())
}

/// The stamped values of one read, one behind the other: one allocation for all of them.
struct Arena(Vec<u8>);

impl Arena {
    fn for_batch(batch: &[Stored]) -> Self {
        Self(Vec::with_capacity(
            batch
                .iter()
                .map(|stored| stored.payload.len() + MAX_STAMP_BYTES)
                .sum(),
        ))
    }

    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        let begin = self.0.len();
        write(&mut self.0);
        begin..self.0.len()
    }
}
