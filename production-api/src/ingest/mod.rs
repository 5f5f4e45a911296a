//! Telemetry ingest: what the gateways post, and the operations on what waits in quarantine.
//!
//! Layout, in the order in which a batch passes:
//!
//! - `state`: what the handlers share.
//! - `token`: who may call.
//! - `batch`: `POST /internal/v1/telemetry`, from bytes to an answer.
//! - [`crate::telemetry`]: the rules of a valid batch.
//! - [`crate::store::telemetry`]: the one transaction.
//! - `quarantine`: list and retry.
//!
//! Promise: a batch is wholly in or wholly out, a repeated one changes nothing, and no valid record is refused
//! because a machine or part is missing.

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::api::Api;

mod batch;
mod quarantine;
mod state;
mod token;

use state::Ingest;

/// Every operation under `/internal/v1`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let ingest = Ingest::new(api);
    Router::new()
        .route("/telemetry", post(batch::post))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/retry", post(quarantine::retry))
        .route_layer(middleware::from_fn_with_state(ingest.clone(), token::require))
        .with_state(ingest)
}
