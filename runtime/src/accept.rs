//! The one accept loop: places and rate, PROXY header, TLS and WebSocket under deadlines in each connection's own
//! task, then the server's handler.
//!
//! - [`config`]: one listening address and its limits.
//! - [`open`]: from the socket to the handler's stream.

mod config;
mod open;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Addresses, Rate};
use crate::metrics;
use crate::reload;
use crate::stream::Connection;
use crate::tls::{ClientCertificate, Tls};
use crate::websocket::WebSocketConfig;
pub use config::{ListenerConfig, Transport};
use open::Door;

fn bind_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => {
            "stop what listens there (`ss -ltnp` shows it), or configure another address"
        }
        io::ErrorKind::AddrNotAvailable => "configure an address of this machine",
        io::ErrorKind::PermissionDenied => "configure a port from 1024, or allow this process lower ones",
        _ => "configure another address",
    }
}

/// One accepted connection.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Connection,
    /// The client's own address: the PROXY header's where there is one, else the socket's.
    pub peer: SocketAddr,
    /// Verified by the listener's authority.
    pub certificate: Option<ClientCertificate>,
}

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    config: ListenerConfig,
    tls: Option<Arc<Tls>>,
    websocket: WebSocketConfig,
}

impl Listener {
    /// Binds `config.listen` and reads its certificate. `name` is the metrics' label.
    pub async fn bind(name: &'static str, config: ListenerConfig) -> io::Result<Self> {
        let tls = match &config.tls {
            Some(tls) if config.transport.is_tls() => {
                Some(Arc::new(Tls::load(tls.clone()).map_err(io::Error::other)?))
            }
            _ if config.transport.is_tls() => {
                return Err(io::Error::other("a TLS listener without a certificate"));
            }
            _ => None,
        };
        let socket = listen(config.listen).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot listen on {} for {name}: {error}; {}",
                    config.listen,
                    bind_remedy(error.kind())
                ),
            )
        })?;
        Ok(Self {
            name,
            socket,
            config,
            tls,
            websocket: WebSocketConfig::default(),
        })
    }

    /// What WebSocket clients must ask for, and the longest message that they may send.
    #[must_use]
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// The bound address: the port that the system chose where port 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`, each connection in a task of its own on `tasks`. Returns when no more are accepted;
    /// the handlers' tasks go on until they end by themselves (they hold the same token). A handler that panics ends
    /// its connection alone.
    pub async fn serve<H, F>(self, stop: CancellationToken, tasks: TaskTracker, handler: H)
    where
        H: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(tls) = &self.tls {
            tokio::spawn(reload::watch(Arc::clone(tls), stop.clone()));
        }
        let name = self.name;
        let mut rate = Rate::new(self.config.max_connects_per_s, Instant::now());
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        let door = Arc::new(Door {
            name,
            config: self.config,
            addresses: Addresses::default(),
            tls: self.tls,
            websocket: self.websocket,
        });
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = next(name, &self.socket, &places) => accepted,
            };
            let (place, socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(name, &error).await;
                    continue;
                }
            };
            if !rate.admits(Instant::now()) {
                metrics::refused(name, "connect_rate");
                // Reset: a client that is shed leaves no socket waiting behind.
                let _gone = socket.set_zero_linger();
                continue;
            }
            let (handler, door) = (handler.clone(), Arc::clone(&door));
            tasks.spawn(async move {
                let served = async {
                    if let Some(connection) = door.open(place, socket, address).await {
                        handler(connection).await;
                    }
                };
                if AssertUnwindSafe(served).catch_unwind().await.is_err() {
                    metrics::panicked(name);
                    tracing::error!(listener = name, %address, "a connection's task panicked; the others go on");
                }
            });
        }
    }
}

/// Connections that the kernel completes before they are accepted: a whole site that reconnects at once. It drops what
/// is over it, and a client comes again only after one second, then two, then four. `net.core.somaxconn` (4096 since
/// Linux 5.4) caps it.
const BACKLOG: u32 = 32 * 1024;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // What lingers of an earlier process is in nobody's way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A place first: what has none waits in the kernel's backlog.
async fn next(
    name: &'static str,
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(_full) => {
            metrics::held_back(name);
            Arc::clone(places)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?
        }
    };
    let (socket, address) = socket.accept().await?;
    Ok((place, socket, address))
}

/// A failed accept is one connection's fault (reset before accept) or the process's (no file descriptors);
/// only the second is worth a pause, so that the loop does not spin.
async fn pause_after(name: &'static str, error: &io::Error) {
    metrics::refused(name, "accept_failed");
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    tracing::warn!(listener = name, %error, "accepting failed, trying again in 100 ms");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests;
