//! Telemetry ingest: what the gateways post, and the operations on what waits in quarantine.
//!
//! Layout, in the order in which a batch passes:
//!
//! - [`config`]: the limits of a batch and of what is kept.
//! - `token`: who may call.
//! - `batch`: `POST /internal/v1/telemetry`, from bytes to an answer.
//! - [`crate::telemetry`]: the rules of a valid batch.
//! - [`crate::store::telemetry`]: the one transaction.
//! - `quarantine`: list and retry.
//!
//! Promise: a batch is wholly in or wholly out, a repeated one changes nothing, and no valid record is refused
//! because a machine or part is missing.

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::server::Api;

mod batch;
pub mod config;
mod quarantine;
mod token;

pub use config::IngestConfig;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    api: Api,
    /// One a batch worked on.
    permits: Arc<Semaphore>,
}

/// Every operation under `/internal/v1`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let permits = Arc::new(Semaphore::new(api.config.ingest.max_batches_in_flight));
    let ingest = Ingest { api, permits };
    Router::new()
        .route("/telemetry", post(batch::post))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/retry", post(quarantine::retry))
        .route_layer(middleware::from_fn_with_state(ingest.clone(), token::require))
        .with_state(ingest)
}
