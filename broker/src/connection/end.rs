//! The end of a connection, and what it leaves behind.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::acknowledge;
use super::client::Client;
use super::close::Close;
use super::device::Connection;
use super::parting;
use crate::acks::{Acks, Offer, Stored};
use crate::codec::{Protocol, encode};
use crate::hub::Hub;
use crate::session::SessionState;
use crate::tap::NotStored;

/// Time for the receipts of a connection that has ended.
const SETTLE: Duration = Duration::from_secs(5);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Tells the client, settles what is with the store, and lets go of the session.
    pub(crate) async fn end(mut self, close: Close) {
        // A client of 3.1.1 repeats without end what was before the refused publish, unless it is acknowledged.
        if matches!(close, Close::ShutDown | Close::PublishRefused) {
            self.drain().await;
        }
        if close == Close::Panicked {
            tracing::error!(
                client = self.session.client_id,
                "a connection's task panicked: it ends, the others go on"
            );
            // What the store has taken is settled below; nobody knows how far the rest is.
            self.acks.forget_waiting();
            self.output.ready.clear();
        }
        if let Some(reason) = close.reason()
            && self.client.protocol == Protocol::V5
        {
            let text = close.text().filter(|_| self.client.problem_information);
            encode::disconnect(&mut self.output.ready, reason, text, self.client.max_packet_bytes);
        }
        if matches!(close, Close::PeerGone | Close::WriteStalled) {
            self.output.ready.clear();
        }
        let told = !self.output.ready.is_empty();
        parting::tell(&mut self.stream, &mut self.output.ready).await;
        let Self {
            hub,
            mut stream,
            client,
            session,
            mut state,
            mut acks,
            ..
        } = self;
        settle(&hub, &client, &mut state, &mut acks).await;
        state.end_connection(acks);
        if !close.publishes_will() {
            state.will = None;
        }
        if state.expiry_s == 0 {
            let _nobody_waits = hub.end_session(&session, &mut state);
        } else {
            hub.leave_behind(&session, &mut state);
        }
        // The session is free for the next connection; this one may still have to read what it was told.
        drop(state);
        if told {
            parting::linger(&mut stream).await;
        }
    }

    /// Waits for the receipts of everything taken and writes their acknowledgements.
    async fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(self.hub.config.drain_timeout_ms);
        while !self.acks.is_empty() {
            let next = tokio::time::timeout_at(deadline, next_stored(&self.hub, &mut self.acks)).await;
            let Ok(Ok(stored)) = next else { return };
            acknowledge::stored(
                stored,
                &self.hub,
                &self.client,
                &mut self.state,
                &mut self.output.ready,
            );
        }
    }
}

/// Sees to it that what was read is offered and what was offered is counted in the session: a QoS 2 message that
/// is stored must not be stored again when the client repeats it, and one that is not must.
async fn settle(hub: &Hub, client: &Client, state: &mut SessionState, acks: &mut Acks) {
    let deadline = Instant::now() + SETTLE;
    let mut unsent = BytesMut::new();
    while !acks.is_empty() {
        match tokio::time::timeout_at(deadline, next_stored(hub, acks)).await {
            Ok(Ok(stored)) => acknowledge::stored(stored, hub, client, state, &mut unsent),
            // Later batches may be stored all the same; none may be offered past a lost one.
            Ok(Err(NotStored)) => acks.forget_waiting(),
            Err(_elapsed) => return,
        }
    }
}

async fn next_stored(hub: &Hub, acks: &mut Acks) -> Result<Stored, NotStored> {
    loop {
        let offer = acks.offer(&*hub.tap)?;
        if offer == Offer::Done || !acks.is_waiting() {
            return poll_fn(|cx| acks.poll_stored(cx, |copies| hub.give_out(copies))).await;
        }
        let mut room = hub.tap.room();
        let stored = poll_fn(|cx| match acks.poll_stored(cx, |copies| hub.give_out(copies)) {
            Poll::Ready(stored) => Poll::Ready(Some(stored)),
            Poll::Pending => room.as_mut().poll(cx).map(|()| None),
        });
        if let Some(stored) = stored.await {
            return stored;
        }
    }
}
