//! Taking a session over from whoever has it.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::refusal::Refusal;
use crate::codec::{Connect, Protocol, reason};
use crate::hub::Hub;
use crate::persistence::Wait;
use crate::session::{Session, SessionState};

/// The session that a client has from now on.
pub(crate) struct Opened {
    pub(crate) session: Arc<Session>,
    pub(crate) state: OwnedMutexGuard<SessionState>,
    /// It was there before.
    pub(crate) present: bool,
    /// Resolves when a restart does not find the session that this one replaces.
    pub(crate) ended: Option<Wait>,
}

/// Finds or makes the session that CONNECT asks for, and waits until its holder has left.
pub(crate) async fn open_session(hub: &Arc<Hub>, connect: &Connect) -> Result<Opened, Refusal> {
    let v5 = connect.protocol == Protocol::V5;
    let refused = |kind, reason, error| Refusal::Refused {
        protocol: connect.protocol,
        kind,
        reason,
        error,
    };
    let taken_over = || {
        let error = "another connection came with the same client id".to_owned();
        refused("taken_over", reason::SESSION_TAKEN_OVER, error)
    };
    let mut ended = None;
    loop {
        let claim = hub
            .registry
            .claim(&connect.client_id)
            .map_err(|error| refused("too_many_sessions", reason::SERVER_BUSY, error.to_string()))?;
        let mut state = claim.wait().await;
        if state.ended {
            continue;
        }
        if connect.clean_start && state.used {
            if !claim.is_latest() {
                return Err(taken_over());
            }
            ended = hub.end_session(&claim.session, &mut state);
            continue;
        }
        if !claim.attach(v5) {
            // Never used, and the later connection finds it.
            return Err(taken_over());
        }
        if let Some(afterlife) = state.afterlife.take() {
            afterlife.abort();
        }
        hub.metrics.sessions.set(hub.registry.len() as f64);
        let present = std::mem::replace(&mut state.used, true);
        return Ok(Opened {
            session: Arc::clone(&claim.session),
            state,
            present,
            ended,
        });
    }
}
