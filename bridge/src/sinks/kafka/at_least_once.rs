//! At least once: a stream of records to an idempotent producer.
//!
//! A session is one producer's life. It begins at the cursor, so a session that follows another one's failure sends
//! again what was not confirmed: at least once, and never out of order within a key's first delivery.

use std::collections::VecDeque;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    Draft, Drafts, KafkaSink, LAST_CONFIRMATIONS, MAX_BACKOFF, MAX_READ_BYTES, MAX_READ_RECORDS, Origin,
    Record, Role, pause,
};
use crate::kafka::{Confirmation, Full, KafkaFault, Producer, Undelivered};
use crate::metrics;
use crate::sinks::backoff::Backoff;
use crate::sinks::contiguous::Contiguous;
use crate::spool::{ReadError, Reader, Stored};

/// How long records that were not taken wait for a confirmation before they are offered again anyway.
const OFFER_AGAIN: Duration = Duration::from_millis(200);
/// What the embedded cluster's end is called.
const EMBEDDED_FULL: &str = "embedded Kafka is full: it keeps 5 MiB a partition in memory, and nothing is sent that would \
    push older records out; everything stays in the spool until bridge.kafka.bootstrap_servers names a real Kafka";

/// Why a session ended.
enum End {
    Stopped,
    /// A new session must begin at the cursor.
    Again(String),
}

pub(super) async fn run(sink: &KafkaSink, stop: &CancellationToken) {
    let mut backoff = Backoff::new(MAX_BACKOFF);
    loop {
        let before = sink.progress.cursor().position();
        match Session::begin(sink) {
            Ok(mut session) => match session.run(stop).await {
                End::Stopped => return,
                End::Again(why) => tracing::warn!(why, "the Kafka sink begins again at its cursor"),
            },
            Err(error) => sink.progress.stuck(error.to_string()),
        }
        metrics::retried(sink.progress.sink(), "session");
        if sink.progress.cursor().position() > before {
            backoff.reset();
        }
        if !pause(&mut backoff, stop).await {
            return;
        }
    }
}

struct Session<'a> {
    sink: &'a KafkaSink,
    producer: Producer<Origin>,
    reader: Reader,
    confirmed: Contiguous,
    drafts: Drafts,
    /// Read, and not yet in the producer's hands.
    waiting: Vec<Record>,
    /// Their batch was refused. Each is sent alone, so that only the one at fault becomes a dead letter; all else
    /// waits, since nothing may overtake them.
    suspects: VecDeque<Stored>,
    in_flight_records: usize,
    in_flight_bytes: usize,
}

impl<'a> Session<'a> {
    fn begin(sink: &'a KafkaSink) -> Result<Self, KafkaFault> {
        let cursor = sink.progress.cursor();
        Ok(Self {
            sink,
            // A record never times out: only its cursor says when it is done.
            producer: sink.cluster.producer(None)?,
            reader: sink.spool.reader(cursor),
            confirmed: Contiguous::new(cursor.position()),
            drafts: sink.drafts(),
            waiting: Vec::new(),
            suspects: VecDeque::new(),
            in_flight_records: 0,
            in_flight_bytes: 0,
        })
    }

    async fn run(&mut self, stop: &CancellationToken) -> End {
        loop {
            let step = tokio::select! {
                biased;
                confirmations = self.producer.confirmations() => self.settle(confirmations).await,
                () = stop.cancelled() => break,
                () = tokio::time::sleep(OFFER_AGAIN), if self.holds_back() => {
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

    /// Something that was read is not in the producer's hands.
    fn holds_back(&self) -> bool {
        !self.waiting.is_empty() || !self.suspects.is_empty()
    }

    fn has_room(&self) -> bool {
        let config = &self.sink.config;
        !self.holds_back()
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
                for stored in &batch {
                    self.confirmed.begin(stored.sequence);
                }
                for draft in self.drafts.batch(batch) {
                    match draft {
                        Draft::Send(record) => self.waiting.push(record),
                        Draft::Skip { sequence } => self.confirmed.confirm(sequence),
                        Draft::Unreadable { stored, why } => {
                            self.keep(&stored, &why.to_string()).await?;
                        }
                    }
                }
                self.create_new_topics().await?;
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

    async fn create_new_topics(&mut self) -> Result<(), End> {
        let names = self.drafts.take_new_topics();
        if names.is_empty() {
            return Ok(());
        }
        let created = self.sink.cluster.ensure_topics(names).await;
        created.map_err(|error| End::Again(error.to_string()))
    }

    /// Hands over as much as the producer takes; suspects one by one, and before anything else.
    fn offer(&mut self) {
        if self.suspects.is_empty() {
            let offered = std::mem::take(&mut self.waiting);
            self.waiting = self.hand_over(offered);
            return;
        }
        if self.in_flight_records > 0 {
            return;
        }
        let Some(suspect) = self.suspects.pop_front() else {
            return;
        };
        for draft in self.drafts.batch(vec![suspect.clone()]) {
            if let Draft::Send(mut record) = draft {
                record.origin.alone = true;
                if !self.hand_over(vec![record]).is_empty() {
                    self.suspects.push_front(suspect.clone());
                }
            }
        }
    }

    /// What the producer does not take comes back.
    fn hand_over(&mut self, offered: Vec<Record>) -> Vec<Record> {
        let (records, bytes) = size(&offered);
        let (left, full) = self.producer.produce(offered);
        let (left_records, left_bytes) = size(&left);
        self.in_flight_records += records - left_records;
        self.in_flight_bytes += bytes - left_bytes;
        if full == Some(Full::Embedded) && self.sink.cluster.embedded_is_idle() {
            self.sink.progress.stuck(EMBEDDED_FULL.into());
        }
        left
    }

    async fn settle(&mut self, confirmations: Vec<Confirmation<Origin>>) -> Result<(), End> {
        let mut again = None;
        for Confirmation {
            origin,
            bytes,
            outcome,
            ..
        } in confirmations
        {
            self.in_flight_records = self.in_flight_records.saturating_sub(1);
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
            match outcome {
                Ok(()) => self.confirmed.confirm(origin.stored.sequence),
                Err(Undelivered::Again(why)) => again = Some(why),
                Err(Undelivered::Suspect(_)) if !origin.alone => self.suspects.push_back(origin.stored),
                Err(Undelivered::Refused(why) | Undelivered::Suspect(why)) => {
                    self.refused(origin, &why).await?
                }
            }
        }
        self.sink.progress.advance(self.confirmed.position());
        metrics::in_flight(self.sink.progress.sink(), self.in_flight_bytes as u64);
        match again.or_else(|| self.producer.fatal()) {
            Some(why) => Err(End::Again(why)),
            None => {
                self.sink.progress.flows();
                self.suspects
                    .make_contiguous()
                    .sort_by_key(|stored| stored.sequence);
                if self.holds_back() {
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
        if origin.role == Role::Record {
            tracing::warn!(sequence, reason, "a record becomes a dead letter");
            let record = self.drafts.dead_letter(origin.stored, &reason);
            self.waiting.push(record);
            return Ok(());
        }
        self.keep(&origin.stored, &reason).await
    }

    async fn keep(&mut self, stored: &Stored, reason: &str) -> Result<(), End> {
        let kept = self.sink.keep(stored, reason).await;
        kept.map_err(|error| End::Again(error.to_string()))?;
        self.confirmed.confirm(stored.sequence);
        Ok(())
    }
}

fn size(records: &[Record]) -> (usize, usize) {
    (records.len(), records.iter().map(|record| record.bytes()).sum())
}
