//! What is done at intervals, in every API process: each job is one that two processes may do at once.

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::{ApiConfig, IdempotencyConfig};
use crate::metrics;
use crate::store::records::{self, Reason};
use crate::store::{Store, StoreError, outbox, quarantine};

const GAUGES_EVERY: Duration = Duration::from_secs(10);
const TRIM_EVERY: Duration = Duration::from_secs(600);
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Runs every job until `stop`.
pub(crate) async fn run(store: Store, config: &ApiConfig, stop: CancellationToken) {
    let sweep_every = Duration::from_millis(config.ingest.sweep_interval_ms);
    let retention = Duration::from_secs(config.ingest.ledger_retention_s);
    let change_retention = Duration::from_secs(config.unit_stream.retention_s);
    let jobs = async {
        tokio::join!(
            every(&store, GAUGES_EVERY, "gauges", || gauges(&store)),
            every(&store, sweep_every, "quarantine sweep", || sweep(&store)),
            every(&store, TRIM_EVERY, "ledger trimming", || trim(&store, retention)),
            every(&store, FORGET_EVERY, "unit changes", || store
                .trim_unit_changes(change_retention, config.unit_stream.max_changes)),
            every(&store, FORGET_EVERY, "idempotency keys", || forget(
                &store,
                &config.idempotency
            )),
        )
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _never = jobs => {}
    }
}

async fn every<F: Future<Output = Result<(), StoreError>>>(
    store: &Store,
    period: Duration,
    job: &str,
    work: impl Fn() -> F,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = store.bounded(work()).await {
            tracing::warn!(
                job,
                error = error.chain(),
                "not done; tried again at the next interval"
            );
        }
    }
}

async fn gauges(store: &Store) -> Result<(), StoreError> {
    let backlog = outbox::backlog(store).await?;
    metrics::outbox_backlog(backlog.pending, backlog.oldest_age_s, backlog.refused);
    let counts = quarantine::counts(store).await?;
    for reason in Reason::ALL {
        let count = counts
            .iter()
            .find(|(name, _)| name == reason.as_str())
            .map_or(0, |(_, count)| *count);
        metrics::quarantine_records(reason.as_str(), count);
    }
    Ok(())
}

async fn sweep(store: &Store) -> Result<(), StoreError> {
    let admitted = quarantine::sweep(store).await?;
    if admitted > 0 {
        tracing::info!(admitted, "stored records that were in quarantine");
    }
    metrics::quarantine_swept(admitted);
    Ok(())
}

async fn forget(store: &Store, config: &IdempotencyConfig) -> Result<(), StoreError> {
    let retention = Duration::from_secs(config.retention_s);
    metrics::idempotency_keys(store.trim_idempotency(retention, config.max_keys).await?);
    Ok(())
}

async fn trim(store: &Store, retention: Duration) -> Result<(), StoreError> {
    metrics::ledger_trimmed(records::trim_ledger(store, retention).await?);
    Ok(())
}
