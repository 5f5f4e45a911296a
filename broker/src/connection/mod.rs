//! One device connection, from its first byte to what it leaves behind.
//!
//! - [`handshake`]: CONNECT, or a refusal: [`client`], [`refusal`]; [`admit`], [`takeover`]: to CONNACK and its session.
//! - [`device`]: what a connected client's task holds: [`buffer`] and [`output`], which read and write.
//! - [`run`]: its loop; [`deadlines`], [`throttle`]: how long it may be silent, how fast it may send.
//! - [`packets`]: packets of one read: [`intake`], PUBLISH packets to batches for the store; [`subscribe`];
//!   [`outgoing`], messages to the client and its acknowledgements of them.
//! - [`acknowledge`]: stored batches to acknowledgements; [`held`]: packets that wait until a change is durable.
//! - [`close`]: why it ends; [`end`]: what follows from that; [`parting`]: its last packet.
//!
//! One task serves one connection; it alone touches the session's state. Nothing in it waits for one thing only:
//! while the store has no room, PINGREQ is still answered and subscribers still get their messages.

mod acknowledge;
mod admit;
mod buffer;
mod client;
mod close;
mod deadlines;
mod device;
mod end;
mod handshake;
mod held;
mod intake;
mod outgoing;
mod output;
mod packets;
mod parting;
mod refusal;
mod run;
mod subscribe;
mod takeover;
mod throttle;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::counts::Counts;
use crate::hub::Hub;
use crate::metrics;
pub(crate) use client::Peer;
use close::Close;
use device::Connection;
use handshake::handshake;

/// Serves one accepted connection until it has ended and what it leaves behind is settled.
pub(crate) async fn serve<S>(hub: Arc<Hub>, mut stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    Counts::add(&hub.counts.sockets, 1);
    // Boxed: the handshake's state is large and short-lived, an idle connection should not carry it.
    let Some(admitted) = Box::pin(handshake(&hub, &mut stream, peer)).await else {
        return;
    };
    hub.metrics.connected.increment(1.0);
    hub.counts.connect();
    let mut connection = Connection::new(Arc::clone(&hub), stream, admitted);
    // A panic ends this connection alone; what it had taken and not acknowledged its client repeats.
    let run = AssertUnwindSafe(connection.run()).catch_unwind().await;
    let close = run.unwrap_or(Close::Panicked);
    hub.metrics.connected.decrement(1.0);
    hub.counts.disconnect();
    metrics::closed(close.kind());
    tracing::debug!(peer = %address, client = connection.session.client_id, reason = close.kind(), "connection ended: {close}");
    Box::pin(connection.end(close)).await;
}
