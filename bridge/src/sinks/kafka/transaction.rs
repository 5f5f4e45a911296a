//! One transaction: filled from the spool, settled, committed with the cursor.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::aside::Fate;
use super::committed::{Committed, Passed};
use super::session::{End, Ends, Failure, Open, Session};
use super::{Draft, MAX_READ_BYTES, MAX_READ_RECORDS, Origin, Record, Role};
use crate::kafka::{Confirmation, Outgoing, Step, Undelivered};
use crate::metrics;
use crate::spool::{ReadError, Stored};

/// Before records for which librdkafka has no room are offered again.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// How long an abort may take. The next session's producer aborts too, so nothing depends on it.
const ABORT_WITHIN: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Waits for records and delivers them.
    pub(super) async fn next_transaction(&mut self, ends: &Ends<'_>) -> Result<(), End> {
        let mut open = Open::at(self.reader.position());
        open.alone = self.known.aside.is_suspect(open.first);
        let (max_records, max_bytes) = self.room(&open).unwrap_or((1, 0));
        let read = tokio::select! {
            biased;
            () = ends.stop.cancelled() => return Err(End::Stopped),
            read = self.reader.next(max_records, max_bytes) => read,
        };
        let records = self.take(read, &mut open).await?;
        if records.is_empty() {
            // Nothing of it is for Kafka.
            self.passed(&open);
            return Ok(());
        }
        self.transaction(Some(records), open, ends).await
    }

    /// Delivers the records, what comes to share their transaction, and the cursor; without records, the cursor alone.
    pub(super) async fn transaction(
        &mut self,
        records: Option<Vec<Record>>,
        mut open: Open,
        ends: &Ends<'_>,
    ) -> Result<(), End> {
        let begun = self.producer.transact(Step::Begin, || false).await;
        begun.map_err(|why| End::Again(why.to_string()))?;
        if let Err(end) = self.fill(records, &mut open, ends).await {
            metrics::transaction(self.sink.progress.sink(), "failed");
            self.abort().await;
            return Err(end);
        }
        let go_on = || !ends.give_up.is_cancelled();
        if let Err(why) = self.producer.transact(Step::Commit, go_on).await {
            metrics::transaction(self.sink.progress.sink(), "failed");
            return Err(End::Again(format!(
                "whether it was committed is not known: {why}"
            )));
        }
        metrics::transaction(self.sink.progress.sink(), "committed");
        metrics::in_flight(self.sink.progress.sink(), 0);
        self.sink.progress.flows();
        self.passed(&open);
        Ok(())
    }

    /// The transaction is done.
    fn passed(&mut self, open: &Open) {
        self.known.passed = open.passed.or(self.known.passed);
        self.known.aside.forget_before(open.position);
        self.sink.progress.advance(open.position);
    }

    async fn abort(&self) {
        let deadline = Instant::now() + ABORT_WITHIN;
        let aborted = self
            .producer
            .transact(Step::Abort, || Instant::now() < deadline)
            .await;
        if let Err(why) = aborted {
            tracing::debug!(%why, "the transaction is left to the next producer");
        }
    }

    async fn fill(
        &mut self,
        records: Option<Vec<Record>>,
        open: &mut Open,
        ends: &Ends<'_>,
    ) -> Result<(), End> {
        if let Some(records) = records {
            self.send(records, open, ends).await?;
            self.gather(open, ends).await?;
        }
        let cursor = self.cursor(open);
        self.send(vec![cursor], open, ends).await?;
        self.settle(open, ends).await
    }

    /// Takes what comes within the linger time, until the transaction is full.
    async fn gather(&mut self, open: &mut Open, ends: &Ends<'_>) -> Result<(), End> {
        let linger = Duration::from_millis(self.sink.config.transaction_linger_ms.into());
        let closes = Instant::now() + linger;
        while let Some((max_records, max_bytes)) = self.room(open) {
            let read = tokio::select! {
                biased;
                () = ends.stop.cancelled() => break,
                () = tokio::time::sleep_until(closes) => break,
                read = self.reader.next(max_records, max_bytes) => read,
            };
            if matches!(read, Err(ReadError::Closed)) {
                break;
            }
            let records = self.take(read, open).await?;
            self.send(records, open, ends).await?;
        }
        Ok(())
    }

    /// Most records and bytes that may be read for this transaction.
    fn room(&self, open: &Open) -> Option<(usize, usize)> {
        let config = &self.sink.config;
        let max_records = config.transaction_max_records.min(config.max_in_flight_records) as usize;
        let max_bytes = usize::try_from(config.transaction_max_bytes.min(config.max_in_flight_bytes));
        let bytes = max_bytes.unwrap_or(usize::MAX).saturating_sub(open.bytes);
        let records = match open.alone {
            true => 1_usize.saturating_sub(open.records),
            false => max_records
                .saturating_sub(open.records)
                .min(self.known.aside.before_next_suspect(self.reader.position())),
        };
        (records > 0 && bytes > 0).then(|| (records.min(MAX_READ_RECORDS), bytes.min(MAX_READ_BYTES)))
    }

    /// What of a read is for Kafka.
    async fn take(
        &mut self,
        read: Result<Vec<Stored>, ReadError>,
        open: &mut Open,
    ) -> Result<Vec<Record>, End> {
        match read {
            Ok(batch) => {
                open.records += batch.len();
                open.passed = batch.iter().rev().find_map(Passed::of).or(open.passed);
                open.position = batch.last().map_or(open.position, |stored| stored.sequence + 1);
                self.records(batch).await
            }
            Err(ReadError::Lost { sequences, cause }) => {
                let (first, last) = (sequences.start, sequences.end.saturating_sub(1));
                tracing::error!(first, last, %cause, "records are lost in the spool; the Kafka sink goes on behind them");
                metrics::lost(
                    self.sink.progress.sink(),
                    sequences.end.saturating_sub(sequences.start),
                );
                open.position = sequences.end;
                Ok(Vec::new())
            }
            Err(ReadError::Closed) => Err(End::Stopped),
            Err(error) => Err(End::Again(error.to_string())),
        }
    }

    async fn records(&mut self, batch: Vec<Stored>) -> Result<Vec<Record>, End> {
        let mut records = Vec::with_capacity(batch.len());
        let mut drafts = Vec::with_capacity(batch.len());
        if self.known.aside.is_empty() {
            drafts = self.drafts.batch(batch);
        } else {
            for stored in batch {
                match self.known.aside.fate(stored.sequence).cloned() {
                    None => drafts.append(&mut self.drafts.batch(vec![stored])),
                    Some(Fate::DeadLetter(reason)) => {
                        drafts.push(Draft::Send(self.drafts.dead_letter(stored, &reason)));
                    }
                    Some(Fate::Disk(reason)) => self.keep(&stored, &reason).await?,
                    Some(Fate::Kept) => {}
                }
            }
        }
        for draft in drafts {
            match draft {
                Draft::Send(record) => records.push(record),
                Draft::Skip { .. } => {}
                Draft::Unreadable { stored, why } => self.keep(&stored, &why.to_string()).await?,
            }
        }
        let new_topics = self.drafts.take_new_topics();
        if !new_topics.is_empty() {
            let created = self.sink.cluster.ensure_topics(new_topics).await;
            created.map_err(|error| End::Again(super::with_source(&error)))?;
        }
        Ok(records)
    }

    async fn keep(&mut self, stored: &Stored, reason: &str) -> Result<(), End> {
        let kept = self.sink.keep(stored, reason).await;
        kept.map_err(|error| End::Again(error.to_string()))?;
        self.known.aside.decide(stored.sequence, Fate::Kept);
        Ok(())
    }

    fn cursor(&self, open: &Open) -> Record {
        let passed = open.passed.or(self.known.passed);
        Box::new(Outgoing {
            topic: self.cursor_topic.clone(),
            key: self.sink.gateway.clone(),
            value: Committed::new(self.claim, open.position, passed).encode().into(),
            headers: Vec::new(),
            origin: Origin {
                stored: Stored {
                    sequence: open.position,
                    meta: Bytes::new(),
                    payload: Bytes::new(),
                },
                role: Role::Cursor,
                alone: false,
            },
        })
    }

    /// Hands all over, in order.
    async fn send(&self, mut records: Vec<Record>, open: &mut Open, ends: &Ends<'_>) -> Result<(), End> {
        open.outstanding += records.len();
        open.bytes += records.iter().map(|record| record.bytes()).sum::<usize>();
        metrics::in_flight(self.sink.progress.sink(), open.bytes as u64);
        loop {
            records = self.producer.produce(records).0;
            if records.is_empty() {
                return Ok(());
            }
            if ends.give_up.is_cancelled() {
                return Err(End::Stopped);
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    /// Waits until it is known of everything that was handed over what became of it.
    async fn settle(&mut self, open: &mut Open, ends: &Ends<'_>) -> Result<(), End> {
        while open.outstanding > 0 {
            let confirmations = tokio::select! {
                biased;
                confirmations = self.producer.confirmations() => confirmations,
                () = ends.give_up.cancelled() => return Err(End::Stopped),
            };
            for confirmation in confirmations {
                open.outstanding = open.outstanding.saturating_sub(1);
                self.judge(confirmation, open, ends).await?;
            }
        }
        match open.failure.take() {
            None => Ok(()),
            Some(Failure::Refused(why)) => Err(End::Redo(why)),
            Some(Failure::Other(why)) => Err(self.cause(why, open).await),
        }
    }

    async fn judge(
        &mut self,
        confirmation: Confirmation<Origin>,
        open: &mut Open,
        ends: &Ends<'_>,
    ) -> Result<(), End> {
        let Confirmation {
            origin,
            sent,
            outcome,
            ..
        } = confirmation;
        let sequence = origin.stored.sequence;
        match outcome {
            Ok(()) => {}
            Err(Undelivered::Again(why)) => drop(open.failure.get_or_insert(Failure::Other(why))),
            Err(why) if origin.role == Role::Cursor => {
                open.failure = Some(Failure::Other(format!("{}: {why}", self.cursor_topic)));
            }
            Err(Undelivered::Suspect(why)) if !open.alone => {
                self.known.aside.suspect(sequence..sequence + 1);
                open.refused(why);
            }
            Err(Undelivered::Refused(why) | Undelivered::Suspect(why)) => {
                metrics::refused(self.sink.progress.sink());
                let reason = format!("Kafka refuses the record: {why}");
                tracing::warn!(sequence, reason, role = ?origin.role, "Kafka refused a record");
                match (sent, origin.role) {
                    (true, Role::DeadLetter) => self.known.aside.decide(sequence, Fate::Disk(reason.clone())),
                    (true, _) => self.known.aside.refuse(sequence, reason.clone()),
                    // It never was in the transaction, which goes on.
                    (false, Role::DeadLetter) => return self.keep(&origin.stored, &reason).await,
                    (false, _) => {
                        let letter = self.drafts.dead_letter(origin.stored, &reason);
                        return self.send(vec![letter], open, ends).await;
                    }
                }
                open.refused(reason);
            }
        }
        Ok(())
    }

    /// Why all that was under way was given up. Where a topic refused to be in the transaction at all, no record says so.
    async fn cause(&mut self, why: String, open: &Open) -> End {
        // A transaction that has failed answers a second beginning with its error.
        let cause = self.producer.transact(Step::Begin, || false).await.err();
        match cause {
            // Without records it is the cursor's own topic.
            Some(cause) if open.records == 0 => End::Again(format!("{}: {cause}", self.cursor_topic)),
            Some(Undelivered::Refused(why) | Undelivered::Suspect(why)) => {
                if open.alone {
                    self.known
                        .aside
                        .refuse(open.first, format!("Kafka refuses the record: {why}"));
                } else {
                    self.known.aside.suspect(open.first..open.position);
                }
                End::Redo(why)
            }
            Some(Undelivered::Again(cause)) => End::Again(format!("{why}: {cause}")),
            None => End::Again(why),
        }
    }
}
