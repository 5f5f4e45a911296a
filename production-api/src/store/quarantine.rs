//! Records that are valid but cannot be stored yet: kept with the reason, stored when the reason goes.

use deadpool_postgres::Transaction;
use prost::Message;
use shopfloor_proto::v1::TelemetryRecord;
use shopfloor_proto::v1::telemetry_record::Body;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::records::{self, Held, Verdict};
use super::{Store, StoreError, begin};
use crate::telemetry::Record;

/// Records that one transaction takes out at most; [`sweep`] brings the rest.
const ADMIT_ROWS: i64 = 5_000;
/// Transactions that one sweep makes at most.
const SWEEP_ROUNDS: usize = 1_000;
/// One sweep at a time, over all API processes.
const SWEEP_LOCK: i64 = 0x5348_4f50_5155_4152;

/// A record in quarantine.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its place in the order of arrival; the cursor of [`list`].
    pub position: i64,
    pub gateway: String,
    /// As in [`records::Reason::as_str`].
    pub reason: String,
    pub detail: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub record: Record,
}

/// Which records to try again.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    /// Only these; without it all but the expired ones, which only a person can judge.
    pub record_ids: Option<Vec<Uuid>>,
    /// The order of units that came without one.
    pub order: Option<i32>,
}

/// What a retry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Placed {
    /// Stored, and out of quarantine.
    pub admitted: u64,
    /// Still held, for the reason that the list shows.
    pub held: u64,
}

/// Stores what waited for these machines and parts, in the order of arrival. Call it in the transaction that
/// creates them, after the insert. At most 5,000 records at a time; [`sweep`] brings the rest.
pub async fn admit(tx: &Transaction<'_>, machines: &[i32], parts: &[i32]) -> Result<u64, StoreError> {
    let statement = tx
        .prepare_cached(
            "SELECT record FROM quarantine WHERE position IN (
                 SELECT position FROM quarantine WHERE reason = 'unknown_machine' AND machine_id = ANY ($1)
                 UNION ALL
                 SELECT position FROM quarantine WHERE reason = 'unknown_part' AND part_id = ANY ($2))
             ORDER BY position LIMIT $3 FOR UPDATE",
        )
        .await?;
    let rows = tx.query(&statement, &[&machines, &parts, &ADMIT_ROWS]).await?;
    let waiting = decode(&rows)?;
    Ok(place(tx, &waiting).await?.0.admitted)
}

/// Stores what can be stored by now: rows whose machine or part appeared by another way than [`admit`], and what
/// was too much for one [`admit`]. Returns how many were stored.
pub async fn sweep(store: &Store) -> Result<u64, StoreError> {
    let mut admitted = 0;
    for _ in 0..SWEEP_ROUNDS {
        let mut client = store.client().await?;
        let tx = begin(&mut client).await?;
        let free: bool = tx
            .query_one("SELECT pg_try_advisory_xact_lock($1)", &[&SWEEP_LOCK])
            .await?
            .try_get(0)?;
        if !free {
            break;
        }
        let machines = appeared(
            &tx,
            "SELECT id FROM machine WHERE EXISTS (
                 SELECT FROM quarantine WHERE reason = 'unknown_machine' AND machine_id = machine.id)",
        )
        .await?;
        let parts = appeared(
            &tx,
            "SELECT id FROM part_information part WHERE EXISTS (
                 SELECT FROM quarantine WHERE reason = 'unknown_part' AND part_id = part.id)",
        )
        .await?;
        if machines.is_empty() && parts.is_empty() {
            break;
        }
        // Every record taken is stored or gets a reason that still holds, so this ends.
        admitted += admit(&tx, &machines, &parts).await?;
        tx.commit().await?;
    }
    Ok(admitted)
}

async fn appeared(tx: &Transaction<'_>, sql: &'static str) -> Result<Vec<i32>, StoreError> {
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Stores those of `machines`' and `parts`' records whose machine or part exists: for a batch that was held while
/// another transaction created what it waits for.
pub(super) async fn admit_existing(
    store: &Store,
    machines: &[i32],
    parts: &[i32],
) -> Result<u64, StoreError> {
    let mut client = store.client().await?;
    let tx = begin(&mut client).await?;
    let existing = tx
        .prepare_cached(
            "SELECT id, true FROM machine WHERE id = ANY ($1)
             UNION ALL
             SELECT id, false FROM part_information WHERE id = ANY ($2)",
        )
        .await?;
    let (mut found_machines, mut found_parts) = (Vec::new(), Vec::new());
    for row in tx.query(&existing, &[&machines, &parts]).await? {
        let found = if row.try_get(1)? {
            &mut found_machines
        } else {
            &mut found_parts
        };
        found.push(row.try_get::<_, i32>(0)?);
    }
    if found_machines.is_empty() && found_parts.is_empty() {
        return Ok(0);
    }
    let admitted = admit(&tx, &found_machines, &found_parts).await?;
    tx.commit().await?;
    Ok(admitted)
}

/// Puts valid records that cannot be stored into quarantine, in their order.
pub(super) async fn hold(
    tx: &Transaction<'_>,
    gateway: &str,
    held: &[(&Record, Held)],
) -> Result<(), StoreError> {
    if held.is_empty() {
        return Ok(());
    }
    let records = || held.iter().map(|(record, _)| *record);
    let ids: Vec<Uuid> = records().map(|record| record.id).collect();
    let sequences: Vec<i64> = records().map(|record| record.sequence).collect();
    let machines: Vec<&str> = records().map(|record| record.machine.as_str()).collect();
    let reasons: Vec<&str> = held.iter().map(|(_, held)| held.reason.as_str()).collect();
    let details: Vec<&str> = held.iter().map(|(_, held)| held.detail.as_str()).collect();
    let machine_ids: Vec<Option<i32>> = records()
        .map(|record| unit_ids(record).map(|ids| ids.0))
        .collect();
    let part_ids: Vec<Option<i32>> = records()
        .map(|record| unit_ids(record).map(|ids| ids.1))
        .collect();
    let received_ms: Vec<i64> = records().map(|record| record.received_ms).collect();
    let bodies: Vec<Vec<u8>> = records().map(|record| record.to_wire().encode_to_vec()).collect();
    let statement = tx
        .prepare_cached(
            "INSERT INTO quarantine
                 (record_id, gateway, sequence, machine, reason, detail, machine_id, part_id, received_at, record)
             SELECT id, $1::text, sequence, machine, reason, detail, machine_id, part_id,
                    to_timestamp(received_ms / 1000.0), record
             FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::int[], $8::int[],
                         $9::bigint[], $10::bytea[]) WITH ORDINALITY
                  AS held (id, sequence, machine, reason, detail, machine_id, part_id, received_ms, record, place)
             ORDER BY place
             ON CONFLICT (record_id) DO NOTHING",
        )
        .await?;
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &gateway,
        &ids,
        &sequences,
        &machines,
        &reasons,
        &details,
        &machine_ids,
        &part_ids,
        &received_ms,
        &bodies,
    ];
    tx.execute(&statement, &parameters).await?;
    Ok(())
}

/// How many records wait, counted up to `limit`.
pub(super) async fn count(tx: &Transaction<'_>, limit: i64) -> Result<i64, StoreError> {
    let statement = tx
        .prepare_cached("SELECT count(*) FROM (SELECT FROM quarantine LIMIT $1) AS some")
        .await?;
    Ok(tx.query_one(&statement, &[&limit]).await?.try_get(0)?)
}

/// How many records wait, by reason.
pub async fn counts(store: &Store) -> Result<Vec<(String, i64)>, StoreError> {
    let client = store.client().await?;
    let rows = client
        .query("SELECT reason, count(*) FROM quarantine GROUP BY reason", &[])
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// The waiting records in the order of arrival, from behind `after`, only those of `reason` where one is given.
pub async fn list(
    store: &Store,
    after: i64,
    reason: Option<&str>,
    limit: u32,
) -> Result<Vec<Waiting>, StoreError> {
    let client = store.client().await?;
    let statement = client
        .prepare_cached(
            r#"SELECT position, gateway, reason, detail,
                      to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), record
               FROM quarantine
               WHERE position > $1 AND ($2::text IS NULL OR reason = $2)
               ORDER BY position LIMIT $3"#,
        )
        .await?;
    let rows = client
        .query(&statement, &[&after, &reason, &i64::from(limit)])
        .await?;
    let mut waiting = Vec::with_capacity(rows.len());
    for row in rows {
        waiting.push(Waiting {
            position: row.try_get(0)?,
            gateway: row.try_get(1)?,
            reason: row.try_get(2)?,
            detail: row.try_get(3)?,
            created_at: row.try_get(4)?,
            record: stored_record(row.try_get(5)?)?,
        });
    }
    Ok(waiting)
}

/// Tries records again, in the order of arrival, at most 5,000 at a time.
pub async fn retry(store: &Store, wanted: &Retry) -> Result<Placed, StoreError> {
    let mut client = store.client().await?;
    let tx = begin(&mut client).await?;
    // First, as in a batch: rows of quarantine are locked after the tables, never before.
    tx.batch_execute("LOCK TABLE material, part_information IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    let statement = tx
        .prepare_cached(
            "SELECT record FROM quarantine
             WHERE record_id = ANY ($1) OR ($1 IS NULL AND reason <> 'expired')
             ORDER BY position LIMIT $2 FOR UPDATE",
        )
        .await?;
    let rows = tx.query(&statement, &[&wanted.record_ids, &ADMIT_ROWS]).await?;
    let mut waiting = decode(&rows)?;
    for record in &mut waiting {
        if let Body::Unit(unit) = &mut record.body {
            unit.order = unit.order.or(wanted.order);
        }
    }
    let (placed, new_parts) = place(&tx, &waiting).await?;
    if !new_parts.is_empty() {
        admit(&tx, &[], &new_parts).await?;
    }
    tx.commit().await?;
    Ok(placed)
}

/// Stores what can be stored and takes it out; the rest gets the reason that holds now. Also returns the parts
/// that exist since.
async fn place(tx: &Transaction<'_>, waiting: &[Record]) -> Result<(Placed, Vec<i32>), StoreError> {
    if waiting.is_empty() {
        return Ok((Placed::default(), Vec::new()));
    }
    let records: Vec<&Record> = waiting.iter().collect();
    let applied = records::apply(tx, &records).await?;
    let (mut gone, mut ids, mut reasons, mut details) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (record, verdict) in waiting.iter().zip(applied.verdicts) {
        match verdict {
            Verdict::Stored | Verdict::Duplicate => gone.push(record.id),
            Verdict::Held(held) => {
                ids.push(record.id);
                reasons.push(held.reason.as_str());
                details.push(held.detail);
            }
        }
    }
    let statement = tx
        .prepare_cached("DELETE FROM quarantine WHERE record_id = ANY ($1)")
        .await?;
    tx.execute(&statement, &[&gone]).await?;
    let statement = tx
        .prepare_cached(
            "UPDATE quarantine SET reason = held.reason, detail = held.detail
             FROM unnest($1::uuid[], $2::text[], $3::text[]) AS held (id, reason, detail)
             WHERE record_id = held.id AND quarantine.detail <> held.detail",
        )
        .await?;
    tx.execute(&statement, &[&ids, &reasons, &details]).await?;
    let placed = Placed {
        admitted: gone.len() as u64,
        held: ids.len() as u64,
    };
    Ok((placed, applied.new_parts))
}

/// Machine and part of a unit.
fn unit_ids(record: &Record) -> Option<(i32, i32)> {
    match &record.body {
        Body::Unit(unit) => Some((unit.machine_id, unit.part_id)),
        Body::Part(_) | Body::Material(_) => None,
    }
}

fn decode(rows: &[Row]) -> Result<Vec<Record>, StoreError> {
    rows.iter().map(|row| stored_record(row.try_get(0)?)).collect()
}

fn stored_record(bytes: &[u8]) -> Result<Record, StoreError> {
    let wire = TelemetryRecord::decode(bytes).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Record::from_wire(wire).map_err(StoreError::Corrupt)
}
