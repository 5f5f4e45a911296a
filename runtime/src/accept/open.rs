//! From the socket to the handler's stream, each step under its deadline.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::{Accepted, ListenerConfig};
use crate::admission::{Addresses, Permit};
use crate::metrics;
use crate::proxy::{self, ProxyProtocol};
use crate::stream::{Connection, Stream, replayed};
use crate::tls::{ClientCertificate, Tls};
use crate::websocket::{self, WebSocketConfig};

/// What all connections of one listener pass.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: &'static str,
    pub(super) config: ListenerConfig,
    pub(super) addresses: Addresses,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) websocket: WebSocketConfig,
}

/// Why a connection was closed: the metric's reason, and what the log says.
struct Closed {
    reason: &'static str,
    why: String,
}

impl Door {
    /// `None` where the connection was closed; it is counted by reason.
    pub(super) async fn open(
        &self,
        place: OwnedSemaphorePermit,
        socket: TcpStream,
        address: SocketAddr,
    ) -> Option<Accepted> {
        match self.pass(place, socket, address).await {
            Ok(accepted) => Some(accepted),
            Err(Closed { reason, why }) => {
                tracing::debug!(listener = self.name, %address, reason, "connection refused: {why}");
                metrics::refused(self.name, reason);
                None
            }
        }
    }

    async fn pass(
        &self,
        place: OwnedSemaphorePermit,
        mut socket: TcpStream,
        address: SocketAddr,
    ) -> Result<Accepted, Closed> {
        socket.set_nodelay(true).map_err(|error| closed("gone", error))?;
        let (peer, replay) = self.peer(&mut socket, address).await?;
        let max = self.config.max_connections_per_address;
        let address_place = self.addresses.take(peer.ip(), max).ok_or_else(|| {
            closed(
                "connections_per_address",
                format!("{} has {max} already", peer.ip()),
            )
        })?;
        let permit = Permit::new(self.name, place, address_place);
        let (wire, certificate) = self.encrypt(replay, socket).await?;
        let wire = if self.config.transport.is_websocket() {
            let upgrade = websocket::accept(wire, self.websocket);
            let upgraded = self.in_time("websocket_timeout", upgrade).await?;
            Box::new(upgraded.map_err(|error| closed("websocket", error))?)
        } else {
            wire
        };
        metrics::accepted(self.name);
        Ok(Accepted {
            stream: Connection::new(wire, permit),
            peer,
            certificate,
        })
    }

    async fn peer(&self, socket: &mut TcpStream, address: SocketAddr) -> Result<(SocketAddr, Bytes), Closed> {
        if self.config.proxy_protocol == ProxyProtocol::Rejected {
            return Ok((address, Bytes::new()));
        }
        let deadline = Duration::from_millis(self.config.header_timeout_ms);
        match tokio::time::timeout(deadline, proxy::read_header(socket)).await {
            Ok(Ok(header)) => Ok((header.client.unwrap_or(address), header.replay)),
            Ok(Err(error)) => Err(closed("proxy_header", error)),
            Err(elapsed) => Err(closed("proxy_header_timeout", elapsed)),
        }
    }

    async fn encrypt(
        &self,
        replay: Bytes,
        socket: TcpStream,
    ) -> Result<(Box<dyn Stream>, Option<ClientCertificate>), Closed> {
        let Some(tls) = &self.tls else {
            return Ok(match replay.is_empty() {
                true => (Box::new(socket), None),
                false => (Box::new(replayed(replay, socket)), None),
            });
        };
        let handshake = tls.accept(replayed(replay, socket));
        let (stream, certificate) = self
            .in_time("tls_timeout", handshake)
            .await?
            .map_err(|error| closed("tls", error))?;
        Ok((Box::new(stream), certificate))
    }

    async fn in_time<T>(&self, reason: &'static str, step: impl Future<Output = T>) -> Result<T, Closed> {
        let deadline = Duration::from_millis(self.config.handshake_timeout_ms);
        tokio::time::timeout(deadline, step)
            .await
            .map_err(|elapsed| closed(reason, elapsed))
    }
}

fn closed(reason: &'static str, why: impl ToString) -> Closed {
    Closed {
        reason,
        why: why.to_string(),
    }
}
