//! Exactly once: records and cursor in one Kafka transaction.
//!
//! A session is one producer's life. It takes the gateway's transactional id over, which ends whatever an earlier producer
//! left open, reads back how far the committed ones came, and goes on from there. The first transaction that fails ends the
//! session: whether it was committed is then for the next one to find out, before it sends anything.
//!
//! Two gateways with one id: each session begins with a transaction that only says who it is (its claim). A session that
//! finds another one's claim behind its own has been replaced, and the sink gives up rather than take the id back.

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::committed::Committed;
use super::session::{End, Ends, Known, Open, Session};
use super::{KafkaSink, LAST_CONFIRMATIONS, MAX_BACKOFF, Origin, pause};
use crate::kafka::{Producer, Step};
use crate::metrics;
use crate::sinks::backoff::Backoff;

pub(super) async fn run(sink: &KafkaSink, stop: &CancellationToken) {
    let give_up = CancellationToken::new();
    let last_moments = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_CONFIRMATIONS).await;
        give_up.cancel();
        std::future::pending::<()>().await;
    };
    let ends = Ends {
        stop,
        give_up: &give_up,
    };
    tokio::select! {
        () = sessions(sink, &ends) => {}
        () = last_moments => {}
    }
}

async fn sessions(sink: &KafkaSink, ends: &Ends<'_>) {
    let mut backoff = Backoff::new(MAX_BACKOFF);
    let mut known = Known::default();
    loop {
        let before = sink.progress.cursor().position();
        let end = match Session::begin(sink, &mut known, ends).await {
            Ok(mut session) => match session.run(ends).await {
                End::Again(why) => {
                    tracing::warn!(
                        why,
                        "a Kafka transaction failed; the sink goes on from the committed cursor"
                    );
                    End::Again(why)
                }
                end => end,
            },
            Err(end) => {
                if let End::Again(why) = &end {
                    sink.progress.stuck(why.clone());
                }
                end
            }
        };
        match end {
            _ if ends.stop.is_cancelled() => return,
            End::Stopped => return,
            End::Replaced(why) => {
                sink.progress.halt(why);
                return ends.stop.cancelled().await;
            }
            End::Redo(why) => {
                tracing::warn!(
                    why,
                    "a Kafka transaction is done again without a record that was refused"
                );
                backoff.reset();
            }
            End::Again(_) => {}
        }
        metrics::retried(sink.progress.sink(), "session");
        if sink.progress.cursor().position() > before {
            backoff.reset();
        }
        if !pause(&mut backoff, ends.stop).await {
            return;
        }
    }
}

impl<'a> Session<'a> {
    async fn begin(sink: &'a KafkaSink, known: &'a mut Known, ends: &Ends<'_>) -> Result<Self, End> {
        let found = until_stop(ends, sink.committed()).await?;
        let last_claim = found.as_ref().map(|committed| committed.claim);
        let is_foreign = |claims: [Option<Uuid>; 2]| last_claim.is_some() && !claims.contains(&last_claim);
        if known.claims.is_some_and(is_foreign) {
            return Err(End::Replaced(format!(
                "another gateway with the id {:?} has taken over delivery to Kafka; give each gateway an id of its own and \
                 start this one again: its records wait in its spool",
                String::from_utf8_lossy(&sink.gateway)
            )));
        }
        let producer: Producer<Origin> = sink
            .cluster
            .transactional_producer(&String::from_utf8_lossy(&sink.gateway))
            .map_err(|error| End::Again(super::with_source(&error)))?;
        let go_on = || !ends.stop.is_cancelled();
        let taken_over = producer.transact(Step::Init, go_on).await;
        taken_over.map_err(|why| End::Again(format!("the transactional id is not to be had: {why}")))?;
        let found: Option<Committed> = until_stop(ends, sink.committed()).await?;
        if let Some(passed) = sink.adopt(found.as_ref()).await {
            known.passed = Some(passed);
        }
        let claim = Uuid::new_v4();
        known.claims = Some([found.map(|committed| committed.claim), Some(claim)]);
        let position = sink.progress.cursor().position();
        let mut session = Self {
            sink,
            producer,
            reader: sink.spool.reader_at(position),
            drafts: sink.drafts(),
            cursor_topic: sink.cursor_topic().into(),
            claim,
            known,
        };
        session.transaction(None, Open::at(position), ends).await?;
        tracing::info!(position, "the Kafka sink delivers in transactions");
        Ok(session)
    }

    async fn run(&mut self, ends: &Ends<'_>) -> End {
        loop {
            if let Err(end) = self.next_transaction(ends).await {
                return end;
            }
        }
    }
}

async fn until_stop<T>(ends: &Ends<'_>, call: impl Future<Output = Result<T, String>>) -> Result<T, End> {
    tokio::select! {
        result = call => result.map_err(End::Again),
        () = ends.stop.cancelled() => Err(End::Stopped),
    }
}
