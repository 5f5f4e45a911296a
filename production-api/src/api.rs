//! What the requests share: the settings, the database and where records go.

use std::sync::Arc;

use crate::config::ApiConfig;
use crate::outbox::Publisher;
use crate::store::Store;

/// The production API: its settings, its database and where its records go.
#[derive(Clone)]
pub struct Api {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) store: Store,
    pub(crate) publisher: Arc<dyn Publisher>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Api {
    pub fn new(config: ApiConfig, store: Store, publisher: Arc<dyn Publisher>) -> Self {
        Self {
            config: Arc::new(config),
            store,
            publisher,
        }
    }

    /// For the admin endpoint's `/ready`.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
