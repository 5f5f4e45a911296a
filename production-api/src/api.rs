//! What the requests share: the settings, the database, where records go, the MQTT brokers.

use std::sync::Arc;

use crate::config::ApiConfig;
use crate::identity::Identity;
use crate::mqtt::Mqtt;
use crate::outbox::Publisher;
use crate::store::Store;
use crate::unit_stream::UnitStreams;

/// The production API: its settings, its database and where its records go.
#[derive(Clone)]
pub struct Api {
    pub(crate) config: Arc<ApiConfig>,
    pub(crate) store: Store,
    pub(crate) publisher: Arc<dyn Publisher>,
    /// Where a provider is named.
    pub(crate) identity: Option<Identity>,
    /// Once the API serves, where a broker is named.
    pub(crate) mqtt: Option<Arc<Mqtt>>,
    /// Once the API serves.
    pub(crate) unit_streams: Option<Arc<UnitStreams>>,
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
            identity: Identity::new(&config.identity),
            config: Arc::new(config),
            store,
            publisher,
            mqtt: None,
            unit_streams: None,
        }
    }

    /// For the admin endpoint's `/ready`, where a provider is named.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// For the admin endpoint's `/ready`.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
