//! All sessions by client id: opening, taking over, ending.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::config::SessionConfig;
use crate::mailbox::Order;
use crate::quota::Quota;
use crate::session::{Session, SessionState};

#[derive(Debug)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    config: SessionConfig,
    quota: Arc<Quota>,
}

/// A session that waits for its holder to let go of it.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) session: Arc<Session>,
    number: u64,
}

/// Every place for a session is taken.
#[derive(Debug, thiserror::Error)]
#[error("the limit of {max_sessions} sessions is reached")]
pub(crate) struct TooManySessions {
    max_sessions: usize,
}

impl Registry {
    pub(crate) fn new(config: SessionConfig, quota: Arc<Quota>) -> Self {
        Self {
            sessions: Mutex::default(),
            config,
            quota,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds or makes the session and tells the connection that holds it to leave.
    pub(crate) fn claim(&self, client_id: &str) -> Result<Claim, TooManySessions> {
        let mut sessions = self.lock();
        let session = match sessions.get(client_id) {
            Some(session) => Arc::clone(session),
            None => {
                if sessions.len() >= self.config.max_sessions {
                    return Err(TooManySessions {
                        max_sessions: self.config.max_sessions,
                    });
                }
                // Random, so that no session of a later process has it again.
                let key = uuid::Uuid::new_v4().as_u64_pair().0;
                let session = Arc::new(Session::new(key, client_id.to_owned(), &self.config, &self.quota));
                sessions.insert(client_id.to_owned(), Arc::clone(&session));
                session
            }
        };
        // Under the registry's lock, so that claims are numbered in the order in which sessions are found.
        let number = session.mailbox.claim();
        Ok(Claim { session, number })
    }

    /// Registers a session that a restart has found.
    pub(crate) fn restore(&self, session: Arc<Session>) {
        self.lock().insert(session.client_id.clone(), session);
    }

    /// Forgets `session`, unless another has taken its place.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.lock();
        if sessions
            .get(&session.client_id)
            .is_some_and(|current| Arc::ptr_eq(current, session))
        {
            sessions.remove(&session.client_id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Messages that wait in all sessions, and their bytes; one that waits for two counts twice.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let sessions = self.lock();
        sessions
            .values()
            .map(|session| session.mailbox.waiting())
            .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Tells every connection.
    pub(crate) fn order_all(&self, order: Order) {
        let sessions = self.lock().values().cloned().collect::<Vec<_>>();
        for session in sessions {
            session.mailbox.order(order);
        }
    }
}

impl Claim {
    /// Waits until the holder has left.
    pub(crate) async fn wait(&self) -> OwnedMutexGuard<SessionState> {
        Arc::clone(&self.session.state).lock_owned().await
    }

    /// Begins to serve the session. False where a later connection wants it too: this one must go.
    pub(crate) fn attach(&self, v5: bool) -> bool {
        self.session.mailbox.attach(self.number, v5)
    }

    /// Whether no later connection wants the session.
    pub(crate) fn is_latest(&self) -> bool {
        self.session.mailbox.is_latest(self.number)
    }
}
