//! What all connections share: who is subscribed to what, what is retained, who is connected, and the store.
//!
//! - `dispatch`: a stored message to those who are subscribed to it.
//! - `afterlife`: sessions without a connection: found by a start, left behind, ended; their wills.

mod afterlife;
mod dispatch;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticator;
use crate::auth::acl::Acl;
use crate::config::{BrokerConfig, RetainedConfig};
use crate::counts::Counts;
use crate::fanout::Fanout;
use crate::metrics::Hot;
use crate::persistence::{Change, KeptSession, Persistence, Ticket, Wait};
use crate::quota::Quota;
use crate::registry::Registry;
use crate::retained::Retained;
use crate::session::{Session, SessionState};
use crate::subscriptions::Subscriptions;
use crate::tap::Tap;

/// Far above the number of `$SYS` topics.
const MAX_SYSTEM_TOPICS: usize = 256;

/// The front's shared state.
pub(crate) struct Hub {
    pub(crate) config: BrokerConfig,
    pub(crate) tap: Arc<dyn Tap>,
    pub(crate) auth: Authenticator,
    pub(crate) acl: Arc<Acl>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) retained: Retained,
    pub(crate) fanout: Fanout,
    pub(crate) registry: Registry,
    /// What all sessions together may hold.
    pub(crate) quota: Arc<Quota>,
    /// `None` where nothing survives the process.
    pub(crate) persistence: Option<Arc<Persistence>>,
    pub(crate) metrics: Hot,
    pub(crate) counts: Counts,
    /// The `$SYS` topics, made anew with each start.
    pub(crate) system: Retained,
    pub(crate) stop: CancellationToken,
    /// Connections and what they leave behind.
    pub(crate) tasks: TaskTracker,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("sessions", &self.registry.len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        config: BrokerConfig,
        tap: Arc<dyn Tap>,
        stop: CancellationToken,
        persistence: Option<Arc<Persistence>>,
    ) -> Self {
        let system_topics = RetainedConfig {
            max_messages: MAX_SYSTEM_TOPICS,
            ..RetainedConfig::default()
        };
        let quota = Quota::new(config.session.max_total_bytes);
        Self {
            auth: Authenticator::new(&config.auth),
            acl: Arc::new(Acl::new(config.acl.clone())),
            subscriptions: Subscriptions::default(),
            retained: Retained::new(config.retained.clone(), persistence.clone()),
            fanout: Fanout::new(config.fanout.clone()),
            registry: Registry::new(config.session.clone(), Arc::clone(&quota)),
            quota,
            persistence,
            metrics: Hot::new(),
            counts: Counts::default(),
            system: Retained::new(system_topics, None),
            tasks: TaskTracker::new(),
            stop,
            tap,
            config,
        }
    }

    /// Milliseconds that the store of sessions has existed.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        self.persistence.as_ref().map(|persistence| persistence.age_ms())
    }

    pub(crate) fn submit(&self, change: Change) -> Option<Ticket> {
        self.persistence
            .as_ref()
            .map(|persistence| persistence.submit(change))
    }

    /// Keeps the session's own row as it is now, where a restart is to find it.
    pub(crate) fn keep(&self, session: &Session, state: &SessionState, left_ms: Option<u64>) -> Option<Wait> {
        if !state.durable {
            return None;
        }
        let ticket = self.submit(Change::Session(Box::new(KeptSession {
            key: session.key,
            client_id: session.client_id.clone(),
            expiry_s: state.expiry_s,
            left_ms,
            will: state.will.clone(),
        })));
        self.wait(ticket)
    }

    /// Resolves when a change is durable; `None` where there is nothing to wait for.
    pub(crate) fn wait(&self, ticket: Option<Ticket>) -> Option<Wait> {
        Some(self.persistence.as_ref()?.wait(ticket?))
    }

    /// Keeps changed subscriptions. What they answer must wait.
    pub(crate) fn keep_filters<'a>(
        &self,
        session: &Session,
        state: &SessionState,
        changed: impl Iterator<Item = &'a String>,
    ) -> Option<Wait> {
        if !state.durable {
            return None;
        }
        let session = session.key;
        let ticket = changed.fold(None, |_, filter| {
            let filter = filter.clone();
            self.submit(match state.filters.get(&filter).copied() {
                Some(subscribed) => Change::Subscribe {
                    session,
                    filter,
                    subscribed,
                },
                None => Change::Unsubscribe { session, filter },
            })
        });
        self.wait(ticket)
    }
}
