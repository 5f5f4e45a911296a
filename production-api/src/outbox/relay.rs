//! The relay: takes records out of the table, in order, and gives them to Kafka.
//!
//! Every API process runs one; the one that holds the lease (a row of the database) publishes, so that records of
//! one key have one sender. No transaction and no lock is open while Kafka is waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::OutboxConfig;
use super::publisher::{PublishError, Publisher, Record};
use super::settlement::{Given, Settlement};
use crate::metrics;
use crate::store::outbox::{self as table, Pending};
use crate::store::{Store, StoreError, listen};

/// Time that a batch under way has when the process stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The relay of one process.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    publisher: Arc<dyn Publisher>,
    config: OutboxConfig,
    backoff: Backoff,
    /// This relay's name in the lease.
    holder: Uuid,
    /// Until when the lease is ours, at least.
    held_until: Option<Instant>,
    /// Topics that failed, and until when they rest.
    resting: HashMap<String, Rest>,
    /// A batch was given to Kafka and never answered: it may still arrive, so the lease must run out.
    unanswered: bool,
}

/// How often a topic has failed in a row, and until when it rests.
#[derive(Debug)]
struct Rest {
    failures: u32,
    until: Instant,
}

/// How one look at the table ended.
enum Round {
    /// Another relay publishes.
    Standby,
    /// Nothing to do now.
    Idle,
    Worked,
}

impl Relay {
    pub fn new(store: Store, publisher: Arc<dyn Publisher>, config: OutboxConfig) -> Self {
        let backoff = Backoff {
            min: Duration::from_millis(config.backoff_min_ms),
            max: Duration::from_millis(config.backoff_max_ms),
        };
        Self {
            store,
            publisher,
            config,
            backoff,
            holder: Uuid::now_v7(),
            held_until: None,
            resting: HashMap::new(),
            unanswered: false,
        }
    }

    /// Publishes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let wake = Notify::new();
        let (store, backoff) = (self.store.clone(), self.backoff);
        tokio::select! {
            () = self.publish_until(&stop, &wake) => {}
            () = keep_listening(&store, &wake, backoff) => {}
        }
        if self.held_until.is_some()
            && !self.unanswered
            && let Err(error) = self
                .store
                .bounded(table::release_lease(&self.store, self.holder))
                .await
        {
            tracing::warn!(
                error = error.chain(),
                "the outbox lease was not given back; it runs out by itself"
            );
        }
    }

    async fn publish_until(&mut self, stop: &CancellationToken, wake: &Notify) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.round(stop).await {
                Ok(Round::Worked) => {
                    failures = 0;
                    continue;
                }
                Ok(Round::Idle) => {
                    failures = 0;
                    self.next_look()
                }
                Ok(Round::Standby) => {
                    failures = 0;
                    Instant::now() + self.poll_interval()
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = error.chain(), "the outbox cannot be read; trying again");
                    metrics::outbox_failed(error.kind());
                    Instant::now() + self.backoff.pause(failures)
                }
            };
            let standby_or_failed = failures > 0 || self.held_until.is_none();
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep_until(pause) => {}
                // A notification is worth a look only where we may publish.
                () = wake.notified(), if !standby_or_failed => {}
            }
        }
    }

    /// Takes the first rows that wait, gives them to Kafka and settles them.
    async fn round(&mut self, stop: &CancellationToken) -> Result<Round, StoreError> {
        if !self.hold_lease().await? {
            return Ok(Round::Standby);
        }
        let now = Instant::now();
        let resting: Vec<String> = self
            .resting
            .iter()
            .filter(|(_, rest)| rest.until > now)
            .map(|(topic, _)| topic.clone())
            .collect();
        let (max_rows, max_bytes) = (self.config.max_batch_records, self.config.max_batch_bytes);
        let pending = table::pending(&self.store, &resting, max_rows, max_bytes);
        let pending = self.store.bounded(pending).await?;
        if pending.is_empty() {
            // What has rested and has nothing more to send.
            self.resting.retain(|_, rest| rest.until > now);
            return Ok(Round::Idle);
        }
        let (given, records) = split(pending);
        let results = self.publish(records, stop).await;
        let settlement = Settlement::of(&given, results);
        // Confirmed rows go even where the lease was lost meanwhile: Kafka has them.
        let settled = table::settle(&self.store, &settlement.delivered, &settlement.refused);
        self.store.bounded(settled).await?;
        self.note(&given, &settlement);
        Ok(Round::Worked)
    }

    /// Waits for Kafka and keeps the lease alive meanwhile. Without an answer in time every record counts as
    /// unconfirmed.
    async fn publish(
        &mut self,
        records: Vec<Record>,
        stop: &CancellationToken,
    ) -> Vec<Result<(), PublishError>> {
        let publisher = Arc::clone(&self.publisher);
        let limit = Duration::from_millis(self.config.publish_timeout_ms);
        let count = records.len();
        let answer = timeout(limit, publisher.publish(records));
        let given_up = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::pin!(answer, given_up);
        let mut renewals = interval(self.lease() / 3);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = &mut answer => {
                    self.unanswered = answer.is_err();
                    return answer.unwrap_or_else(|_| {
                        let reason = format!("no answer within {limit:?}");
                        vec![Err(PublishError::Unavailable(reason)); count]
                    });
                }
                () = &mut given_up => {
                    self.unanswered = true;
                    return vec![Err(PublishError::Unavailable("the process stops".into())); count];
                }
                _ = renewals.tick() => {
                    if let Err(error) = self.hold_lease().await {
                        tracing::warn!(error = error.chain(), "the outbox lease was not renewed");
                    }
                }
            }
        }
    }

    /// Takes or renews the lease, where less than two thirds of it are left.
    async fn hold_lease(&mut self) -> Result<bool, StoreError> {
        let (asked, lease) = (Instant::now(), self.lease());
        if self.held_until.is_some_and(|until| until > asked + lease * 2 / 3) {
            return Ok(true);
        }
        let held = table::hold_lease(&self.store, self.holder, lease);
        let ours = self.store.bounded(held).await?;
        if ours != self.held_until.is_some() {
            tracing::info!(publishes = ours, "the outbox relay changed its role");
        }
        self.held_until = ours.then(|| asked + lease);
        Ok(ours)
    }

    /// Metrics, logs and the rest of topics that failed.
    fn note(&mut self, given: &[Given], settlement: &Settlement) {
        metrics::outbox_published(settlement.delivered.len());
        for (position, reason) in &settlement.refused {
            metrics::outbox_refused();
            tracing::error!(
                position,
                reason,
                "Kafka refused a record for good; it stays in the outbox, marked"
            );
        }
        for row in given {
            if settlement.failed.iter().all(|(topic, _)| *topic != row.topic) {
                self.resting.remove(&row.topic);
            }
        }
        for (topic, reason) in &settlement.failed {
            metrics::outbox_failed("kafka_unavailable");
            let failures = self
                .resting
                .get(topic)
                .map_or(1, |rest| rest.failures.saturating_add(1));
            let pause = self.backoff.pause(failures);
            tracing::warn!(
                topic,
                reason,
                ?pause,
                "Kafka did not confirm records; sending them again"
            );
            let until = Instant::now() + pause;
            self.resting.insert(topic.clone(), Rest { failures, until });
        }
    }

    /// When an idle relay looks again without being woken.
    fn next_look(&self) -> Instant {
        let poll = Instant::now() + self.poll_interval();
        self.resting
            .values()
            .map(|rest| rest.until)
            .fold(poll, Instant::min)
    }

    fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.config.poll_interval_ms)
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(self.config.lease_ms)
    }
}

/// Pauses that double from failure to failure, with jitter, between two limits.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// After `failures` in a row, at least one.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self
            .min
            .saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Wakes the relay when a transaction with outbox rows commits. Without the connection the relay still polls.
async fn keep_listening(store: &Store, wake: &Notify, backoff: Backoff) {
    let mut failures = 0;
    loop {
        let since = Instant::now();
        let ended = listen::outbox(store, wake).await;
        failures = if since.elapsed() > backoff.max {
            1
        } else {
            failures + 1
        };
        if let Err(error) = ended {
            tracing::debug!(
                error = error.chain(),
                "not listening for outbox rows; polling meanwhile"
            );
        }
        sleep(backoff.pause(failures)).await;
    }
}

fn split(pending: Vec<Pending>) -> (Vec<Given>, Vec<Record>) {
    pending
        .into_iter()
        .map(|row| {
            let given = Given {
                position: row.position,
                topic: row.topic.clone(),
                key: row.key.clone(),
            };
            let record = Record {
                id: row.id,
                topic: row.topic,
                key: row.key,
                value: Bytes::from(row.value),
            };
            (given, record)
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_differ() {
        let backoff = Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
        };
        assert!(backoff.pause(1) <= Duration::from_millis(100));
        assert!(backoff.pause(1) >= Duration::from_millis(50));
        assert!(backoff.pause(60) <= Duration::from_secs(10));
        assert!(backoff.pause(u32::MAX) >= Duration::from_secs(5));
        let pauses: std::collections::HashSet<_> = (0..20).map(|_| backoff.pause(5)).collect();
        assert!(pauses.len() > 1);
    }
}
