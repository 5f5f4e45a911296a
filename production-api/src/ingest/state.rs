//! What the handlers share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::api::Api;

#[derive(Debug, Clone)]
pub(super) struct Ingest {
    pub(super) api: Api,
    /// One a batch worked on.
    pub(super) permits: Arc<Semaphore>,
}

impl Ingest {
    pub(super) fn new(api: Api) -> Self {
        let permits = Arc::new(Semaphore::new(api.config.ingest.max_batches_in_flight));
        Self { api, permits }
    }
}
