//! One batch of telemetry, one transaction, a fixed number of statements.
//!
//! A repeated batch changes nothing. A record was here before when its id is a row of `supply_chain`, in the
//! quarantine or in the ledger; the gateway's row is locked first, so two equal batches take turns. The ledger
//! forgets after a retention time, so a record that its gateway made longer ago, from a part of the spool that it
//! has sent already, cannot be told from a repetition: unless its row exists it goes to quarantine as expired,
//! neither stored twice nor lost.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::Transaction;
use shopfloor_proto::v1::telemetry_record::Body;
use uuid::Uuid;

use super::records::{self, Held, Reason, Verdict, ledger};
use super::{Store, StoreError, begin, quarantine};
use crate::telemetry::{Batch, Record};

/// What [`persist`] keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the ledger remembers.
    pub ledger_retention: Duration,
    /// Records that the quarantine holds at most.
    pub quarantine_max_rows: u32,
}

/// What became of a batch. The counts add up to its length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub stored: u32,
    pub duplicates: u32,
    /// One a record that went to quarantine.
    pub quarantined: Vec<Reason>,
}

/// Why a batch was not stored. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    #[error("the quarantine holds {max_rows} records and takes no more")]
    QuarantineFull { max_rows: u32 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A gateway's row before the batch.
struct Gateway {
    highest_sequence: i64,
    highest_record: Uuid,
}

/// Stores the batch. Every record is stored, was stored before or waits in quarantine when this returns.
pub async fn persist(store: &Store, batch: &Batch, limits: &Limits) -> Result<Outcome, PersistError> {
    if batch.records.is_empty() {
        return Ok(Outcome::default());
    }
    let mut client = store.client().await?;
    let tx = begin(&mut client).await?;
    let verdicts = persist_in(&tx, batch, limits).await?;
    tx.commit().await.map_err(StoreError::from)?;
    drop(client);

    let mut outcome = Outcome::default();
    let (mut machines, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for (record, verdict) in batch.records.iter().zip(verdicts) {
        match verdict {
            Verdict::Stored => outcome.stored += 1,
            Verdict::Duplicate => outcome.duplicates += 1,
            Verdict::Held(held) => {
                outcome.quarantined.push(held.reason);
                if let Body::Unit(unit) = &record.body {
                    machines.insert(unit.machine_id);
                    parts.insert(unit.part_id);
                }
            }
        }
    }
    if !machines.is_empty() {
        // Whoever created the machine or part between our look and our commit could not see the records yet.
        let (machines, parts): (Vec<_>, Vec<_>) =
            (machines.into_iter().collect(), parts.into_iter().collect());
        if let Err(error) = quarantine::admit_existing(store, &machines, &parts).await {
            tracing::warn!(
                error = error.chain(),
                "held records were not looked at again; the sweep will"
            );
        }
    }
    Ok(outcome)
}

async fn persist_in(
    tx: &Transaction<'_>,
    batch: &Batch,
    limits: &Limits,
) -> Result<Vec<Verdict>, PersistError> {
    tx.batch_execute("SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '30s'")
        .await
        .map_err(StoreError::from)?;
    let gateway = lock_gateway(tx, &batch.gateway).await?;
    let ids: Vec<Uuid> = batch.records.iter().map(|record| record.id).collect();
    let known = ledger::known(tx, &ids).await?;
    let expired = expired(batch, &known, &gateway, limits.ledger_retention);
    let still_there = records::present_units(tx, &expired).await?;
    let expired: HashSet<Uuid> = expired.into_iter().collect();

    let new: Vec<&Record> = batch
        .records
        .iter()
        .filter(|record| !known.contains(&record.id) && !expired.contains(&record.id))
        .collect();
    let applied = records::apply(tx, &new).await?;
    let mut of_new = applied.verdicts.into_iter();
    let verdicts: Vec<Verdict> = batch
        .records
        .iter()
        .map(|record| {
            if known.contains(&record.id) || still_there.contains(&record.id) {
                Verdict::Duplicate
            } else if expired.contains(&record.id) {
                Verdict::Held(Held::new(Reason::Expired, EXPIRED))
            } else {
                of_new.next().unwrap_or(Verdict::Duplicate)
            }
        })
        .collect();
    hold(tx, batch, &verdicts, limits.quarantine_max_rows).await?;
    if !applied.new_parts.is_empty() {
        quarantine::admit(tx, &[], &applied.new_parts).await?;
    }
    advance_gateway(tx, batch).await?;
    Ok(verdicts)
}

const EXPIRED: &str = "may be a repetition: the gateway has sent later records long ago, and the ledger no longer \
                       tells whether this one was among them; retry it by its id, or delete it";

/// The records that an earlier batch of the same spool may have brought before the ledger's time.
fn expired(batch: &Batch, known: &HashSet<Uuid>, gateway: &Gateway, retention: Duration) -> Vec<Uuid> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let horizon_ms = now.saturating_sub(retention).as_millis();
    batch
        .records
        .iter()
        .filter(|record| {
            record.sequence <= gateway.highest_sequence
                && record.id <= gateway.highest_record
                && u128::from(record.id_time_ms()) < horizon_ms
                && !known.contains(&record.id)
        })
        .map(|record| record.id)
        .collect()
}

async fn hold(
    tx: &Transaction<'_>,
    batch: &Batch,
    verdicts: &[Verdict],
    max_rows: u32,
) -> Result<(), PersistError> {
    let held: Vec<(&Record, Held)> = batch
        .records
        .iter()
        .zip(verdicts)
        .filter_map(|(record, verdict)| match verdict {
            Verdict::Held(held) => Some((record, held.clone())),
            Verdict::Stored | Verdict::Duplicate => None,
        })
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let max = i64::from(max_rows);
    let room = max - quarantine::count(tx, max).await?;
    if i64::try_from(held.len()).is_ok_and(|wanted| wanted > room) {
        return Err(PersistError::QuarantineFull { max_rows });
    }
    Ok(quarantine::hold(tx, &batch.gateway, &held).await?)
}

/// Makes the batches of one gateway take turns until the commit.
async fn lock_gateway(tx: &Transaction<'_>, gateway: &str) -> Result<Gateway, StoreError> {
    let statement = tx
        .prepare_cached(
            "INSERT INTO telemetry_gateway (gateway) VALUES ($1)
             ON CONFLICT (gateway) DO UPDATE SET last_batch_at = now()
             RETURNING highest_sequence, highest_record",
        )
        .await?;
    let row = tx.query_one(&statement, &[&gateway]).await?;
    Ok(Gateway {
        highest_sequence: row.try_get(0)?,
        highest_record: row.try_get(1)?,
    })
}

async fn advance_gateway(tx: &Transaction<'_>, batch: &Batch) -> Result<(), StoreError> {
    let highest_sequence = batch.records.iter().map(|record| record.sequence).max();
    let highest_record = batch.records.iter().map(|record| record.id).max();
    let statement = tx
        .prepare_cached(
            "UPDATE telemetry_gateway
             SET highest_sequence = greatest(highest_sequence, $2), highest_record = greatest(highest_record, $3)
             WHERE gateway = $1",
        )
        .await?;
    tx.execute(&statement, &[&batch.gateway, &highest_sequence, &highest_record])
        .await?;
    Ok(())
}
