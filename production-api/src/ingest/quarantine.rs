//! `GET /internal/v1/quarantine` and `POST /internal/v1/quarantine/retry`, in JSON.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shopfloor_proto::v1::telemetry_record::Body;
use uuid::Uuid;

use super::state::Ingest;
use crate::error::Error;
use crate::store::quarantine::{self, Retry, Waiting};

/// Records on one page, and ids in one retry.
const MAX_PAGE: u32 = 1_000;
const MAX_RETRIED_IDS: usize = 5_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Page {
    /// `next` of the page before.
    after: i64,
    limit: u32,
    /// Only records held for this reason.
    reason: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            after: 0,
            limit: 100,
            reason: None,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Listed {
    records: Vec<Value>,
    /// `after` of the next page; null on the last.
    next: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RetryRequest {
    /// Without it, every record but the expired ones.
    record_ids: Option<Vec<Uuid>>,
    /// The order of units that came without one.
    order: Option<i32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Retried {
    admitted: u64,
    held: u64,
}

pub(super) async fn list(
    State(ingest): State<Ingest>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Listed>, Error> {
    let Query(page) = page.map_err(|rejection| Error::Malformed(rejection.body_text()))?;
    if !(1..=MAX_PAGE).contains(&page.limit) {
        let text = format!("limit: {} is out of range; use 1 to {MAX_PAGE}", page.limit);
        return Err(Error::Malformed(text));
    }
    let waiting = quarantine::list(&ingest.api.store, page.after, page.reason.as_deref(), page.limit).await?;
    let full = u32::try_from(waiting.len()).is_ok_and(|count| count == page.limit);
    let next = waiting.last().filter(|_| full).map(|last| last.position);
    let records = waiting.iter().map(shown).collect();
    Ok(Json(Listed { records, next }))
}

pub(super) async fn retry(
    State(ingest): State<Ingest>,
    request: Result<Json<RetryRequest>, JsonRejection>,
) -> Result<Json<Retried>, Error> {
    let Json(request) = request.map_err(|rejection| Error::Malformed(rejection.body_text()))?;
    let ids = request.record_ids.as_ref().map_or(0, Vec::len);
    if ids > MAX_RETRIED_IDS {
        let text = format!("recordIds: {ids} are too many; send at most {MAX_RETRIED_IDS} at a time");
        return Err(Error::Malformed(text));
    }
    let wanted = Retry {
        record_ids: request.record_ids,
        order: request.order,
    };
    let placed = quarantine::retry(&ingest.api.store, &wanted).await?;
    Ok(Json(Retried {
        admitted: placed.admitted,
        held: placed.held,
    }))
}

fn shown(waiting: &Waiting) -> Value {
    let record = &waiting.record;
    json!({
        "recordId": record.id,
        "gateway": waiting.gateway,
        "sequence": record.sequence,
        "machine": record.machine,
        "reason": waiting.reason,
        "detail": waiting.detail,
        "receivedMs": record.received_ms,
        "createdAt": waiting.created_at,
        "body": shown_body(&record.body),
    })
}

fn shown_body(body: &Body) -> Value {
    match body {
        Body::Unit(unit) => json!({"unit": {
            "machineId": unit.machine_id,
            "partId": unit.part_id,
            "timeOfProductionMs": unit.time_of_production_ms,
            "order": unit.order,
            "var1": unit.var1,
            "var2": unit.var2,
            "var3": unit.var3,
            "var4": unit.var4,
            "var5": unit.var5,
        }}),
        Body::Part(part) => json!({"part": {
            "id": part.id,
            "defaultPrice": part.default_price,
            "timeToProduce": part.time_to_produce,
        }}),
        Body::Material(material) => json!({"material": {"id": material.id, "name": material.name}}),
    }
}
