//! The one accept loop: permit, PROXY header under a deadline, then the server's own handler.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics;
use crate::problem::{Problem, check_range};
use crate::proxy::{self, ProxyProtocol};
use crate::stream::{Connection, Permit};

/// One listening address and its limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    pub listen: SocketAddr,
    /// `"required"` behind a load balancer that sends PROXY v1 or v2, else `"rejected"`.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Open connections at most; further ones wait in the kernel's backlog.
    #[serde(default = "default_max_connections")]
    pub max_connections: usize,
    /// Time for the PROXY header.
    #[serde(default = "default_header_timeout_ms")]
    pub header_timeout_ms: u64,
}

fn default_max_connections() -> usize {
    20_000
}

fn default_header_timeout_ms() -> u64 {
    5_000
}

impl ListenerConfig {
    /// A listener with the default limits and no PROXY header.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            proxy_protocol: ProxyProtocol::default(),
            max_connections: default_max_connections(),
            header_timeout_ms: default_header_timeout_ms(),
        }
    }

    pub fn problems(&self, at: &str, out: &mut Vec<Problem>) {
        check_range(
            out,
            format!("{at}.max_connections"),
            self.max_connections,
            1..=1_000_000,
        );
        check_range(
            out,
            format!("{at}.header_timeout_ms"),
            self.header_timeout_ms,
            100..=60_000,
        );
    }
}

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
}

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    config: ListenerConfig,
}

impl Listener {
    /// Binds `config.listen`. `name` is the metrics' label.
    pub async fn bind(name: &'static str, config: ListenerConfig) -> io::Result<Self> {
        let socket = TcpListener::bind(config.listen).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot listen on {} for {name}: {error}; {}",
                    config.listen,
                    bind_remedy(error.kind())
                ),
            )
        })?;
        Ok(Self { name, socket, config })
    }

    /// The bound address: the port that the system chose where port 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop`, each connection in a task of its own on `tasks`. Returns when no more are accepted;
    /// the handlers' tasks go on until they end by themselves (they hold the same token).
    pub async fn serve<H, F>(self, stop: CancellationToken, tasks: TaskTracker, handler: H)
    where
        H: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        loop {
            let next = async {
                let place = Arc::clone(&places)
                    .acquire_owned()
                    .await
                    .map_err(io::Error::other)?;
                let (socket, address) = self.socket.accept().await?;
                Ok::<_, io::Error>((place, socket, address))
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = next => accepted,
            };
            match accepted {
                Ok((place, socket, address)) => {
                    let (handler, name, config) = (handler.clone(), self.name, self.config.clone());
                    tasks.spawn(async move {
                        if let Some(connection) = open(name, &config, place, socket, address).await {
                            handler(connection).await;
                        }
                    });
                }
                Err(error) => pause_after(self.name, &error).await,
            }
        }
    }
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

async fn open(
    name: &'static str,
    config: &ListenerConfig,
    place: OwnedSemaphorePermit,
    mut socket: TcpStream,
    address: SocketAddr,
) -> Option<Accepted> {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(listener = name, %error, "the connection was gone before it was served");
        metrics::refused(name, "gone");
        return None;
    }
    let (peer, replay) = match config.proxy_protocol {
        ProxyProtocol::Rejected => (address, Bytes::new()),
        ProxyProtocol::Required => {
            let deadline = Duration::from_millis(config.header_timeout_ms);
            match tokio::time::timeout(deadline, proxy::read_header(&mut socket)).await {
                Ok(Ok(header)) => (header.client.unwrap_or(address), header.replay),
                Ok(Err(error)) => {
                    tracing::debug!(listener = name, %address, %error, "connection refused");
                    metrics::refused(name, "proxy_header");
                    return None;
                }
                Err(_elapsed) => {
                    metrics::refused(name, "proxy_header_timeout");
                    return None;
                }
            }
        }
    };
    let stream = Connection::new(replay, socket, Permit::new(name, place));
    Some(Accepted { stream, peer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Echo {
        address: SocketAddr,
        stop: CancellationToken,
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    /// Answers every connection with the address that it is told, then with what it reads.
    async fn echo(proxy_protocol: ProxyProtocol, max_connections: usize) -> Echo {
        let config = ListenerConfig {
            proxy_protocol,
            max_connections,
            header_timeout_ms: 200,
            ..ListenerConfig::new("127.0.0.1:0".parse().unwrap())
        };
        let listener = Listener::bind("test", config).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(listener.serve(
            stop.clone(),
            TaskTracker::new(),
            |mut connection: Accepted| async move {
                let told = format!("{}\n", connection.peer);
                if connection.stream.write_all(told.as_bytes()).await.is_ok() {
                    let (mut reader, mut writer) = tokio::io::split(connection.stream);
                    let _gone = tokio::io::copy(&mut reader, &mut writer).await;
                }
            },
        ));
        Echo { address, stop }
    }

    async fn talk(address: SocketAddr, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        let _reset = socket.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_server_sees_the_address_of_the_proxy_header_and_every_byte_after_it() {
        let server = echo(ProxyProtocol::Required, 10).await;
        let answer = talk(
            server.address,
            b"PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\nhello",
        )
        .await;
        assert_eq!(answer, "10.9.8.7:1000\nhello");
    }

    #[tokio::test]
    async fn without_the_required_header_the_server_never_sees_the_connection() {
        let server = echo(ProxyProtocol::Required, 10).await;
        assert_eq!(talk(server.address, b"hello, this is no header").await, "");
    }

    #[tokio::test]
    async fn a_listener_without_proxy_protocol_takes_no_address_from_a_client() {
        let server = echo(ProxyProtocol::Rejected, 10).await;
        let answer = talk(server.address, b"PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\n").await;
        assert!(
            answer.starts_with("127.0.0.1:")
                && answer.ends_with("PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\n")
        );
    }

    #[tokio::test]
    async fn a_silent_connection_delays_nobody_and_is_closed_at_its_deadline() {
        let server = echo(ProxyProtocol::Required, 10).await;
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        let answer = talk(server.address, b"PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\nhi").await;
        assert_eq!(answer, "10.9.8.7:1000\nhi");
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_until_another_ends() {
        let server = echo(ProxyProtocol::Rejected, 1).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.read_u8().await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), second.read_u8()).await;
        assert!(early.is_err(), "the second was served beside the first");
        drop(first);
        second.read_u8().await.unwrap();
    }
}
