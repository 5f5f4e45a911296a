//! One connected client: what its task holds.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::admit::Admitted;
use super::buffer::ReadBuffer;
use super::client::Client;
use super::intake::Intake;
use super::outgoing::Outgoing;
use super::output::Output;
use super::throttle::Throttle;
use crate::acks::Acks;
use crate::hub::Hub;
use crate::session::{Session, SessionState};

/// One connected client.
pub(crate) struct Connection<S> {
    pub(crate) hub: Arc<Hub>,
    pub(crate) stream: S,
    pub(crate) client: Client,
    pub(crate) session: Arc<Session>,
    pub(crate) state: OwnedMutexGuard<SessionState>,
    pub(crate) input: ReadBuffer,
    pub(crate) output: Output,
    pub(crate) intake: Intake,
    pub(crate) acks: Acks,
    pub(crate) outgoing: Outgoing,
    pub(crate) throttle: Throttle,
    /// It sent too much: nothing is read until then.
    pub(crate) paused_until: Option<Instant>,
    /// Bytes that were read and wait for their turn.
    pub(crate) unhandled: Option<usize>,
    pub(crate) last_read: Instant,
    /// When the packet began of which a part has come.
    pub(crate) packet_began: Option<Instant>,
}

impl<S> Connection<S> {
    pub(crate) fn new(hub: Arc<Hub>, stream: S, admitted: Admitted) -> Self {
        let Admitted {
            client,
            input,
            out,
            session,
            mut state,
        } = admitted;
        let now = Instant::now();
        Self {
            intake: Intake::new(Arc::clone(&client.publisher), session.key),
            acks: std::mem::take(&mut state.unsettled),
            outgoing: Outgoing::new(),
            throttle: Throttle::new(&hub.config, now),
            paused_until: None,
            unhandled: None,
            last_read: now,
            packet_began: None,
            hub,
            stream,
            client,
            session,
            state,
            input,
            output: Output::new(out, now),
        }
    }
}
