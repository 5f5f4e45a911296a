//! The front as the binary sees it: listeners in, device connections served, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shopfloor_runtime::accept::{Accepted, Listener};
use shopfloor_runtime::reload;
use shopfloor_runtime::shutdown::drain;
use shopfloor_runtime::websocket::WebSocketConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::config::BrokerConfig;
use crate::connection::{self, Peer};
use crate::hub::Hub;
use crate::mailbox::Order;
use crate::persistence::{Persistence, PersistenceError, Restored};
use crate::sys;
use crate::tap::Tap;

/// The MQTT front over one store.
#[derive(Debug, Clone)]
pub struct Front {
    hub: Arc<Hub>,
}

impl Front {
    /// A front that hands every publish to `tap` and serves until `stop`. Nothing but `tap` survives it.
    pub fn new(config: BrokerConfig, tap: Arc<dyn Tap>, stop: CancellationToken) -> Self {
        let hub = Arc::new(Hub::new(config, tap, stop, None));
        hub.begin(Restored::default());
        Self { hub }
    }

    /// As [`Self::new`], with the sessions that `dir` keeps, unless the configuration turns that off. Call it inside
    /// a runtime; reads and syncs: blocks.
    pub fn open(
        config: BrokerConfig,
        tap: Arc<dyn Tap>,
        dir: &Path,
        stop: CancellationToken,
    ) -> Result<Self, PersistenceError> {
        if !config.persistence.enabled {
            return Ok(Self::new(config, tap, stop));
        }
        let (persistence, restored) = Persistence::open(dir, &config.persistence)?;
        let hub = Arc::new(Hub::new(config, tap, stop, Some(Arc::new(persistence))));
        hub.begin(restored);
        Ok(Self { hub })
    }

    /// Binds the configured listeners and reads the files that the configuration names, so that addresses are known
    /// and errors seen before serving.
    pub async fn bind(&self) -> io::Result<Vec<Listener>> {
        let hub = Arc::clone(&self.hub);
        let loaded = tokio::task::spawn_blocking(move || hub.auth.load().and_then(|()| hub.acl.load()));
        loaded
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        // A message is one packet with most clients, and a batch of small ones with some.
        let websocket = WebSocketConfig {
            protocol: "mqtt",
            max_message_bytes: self.hub.config.max_packet_bytes + 64 * 1024,
        };
        let mut listeners = Vec::new();
        for config in &self.hub.config.listeners {
            let listener = Listener::bind("mqtt", config.clone()).await?;
            listeners.push(listener.websocket(websocket));
        }
        Ok(listeners)
    }

    /// Serves `listeners` until the stop token, then drains: nothing more is read, what was taken is acknowledged
    /// once it is stored, MQTT 5 clients are told, connections close. False where some did not end in time.
    pub async fn serve(&self, listeners: Vec<Listener>) -> bool {
        let hub = &self.hub;
        tokio::spawn(reload::watch(Arc::clone(&hub.acl), hub.stop.clone()));
        tokio::spawn(reload::watch(Arc::clone(&hub.auth.passwords), hub.stop.clone()));
        if let Some(tokens) = hub.auth.tokens() {
            tokio::spawn(tokens.clone().keep_fresh(hub.stop.clone()));
        }
        for listener in listeners {
            let front = self.clone();
            let accepting = listener.serve(hub.stop.clone(), hub.tasks.clone(), move |accepted: Accepted| {
                let front = front.clone();
                async move {
                    let peer = Peer {
                        address: accepted.peer,
                        certificate: accepted.certificate,
                    };
                    connection::serve(front.hub, accepted.stream, peer).await;
                }
            });
            hub.tasks.spawn(accepting);
        }
        if hub.config.sys_interval_s > 0 {
            let interval = Duration::from_secs(hub.config.sys_interval_s.into());
            hub.tasks.spawn(sys::run(Arc::clone(hub), interval));
        }
        hub.stop.cancelled().await;
        hub.registry.order_all(Order::ShutDown);
        // Receipts have their time, then last packets, sessions and wills have theirs.
        let deadline = Duration::from_millis(hub.config.drain_timeout_ms) + Duration::from_secs(10);
        let drained = drain(&hub.tasks, deadline).await;
        if let Some(persistence) = &hub.persistence {
            // A disk that does not answer does not keep the process.
            let _in_time = tokio::time::timeout(deadline, persistence.close()).await;
        }
        drained
    }

    /// What keeps sessions from being written, in words for an operator.
    pub fn persistence_trouble(&self) -> Option<String> {
        self.hub
            .persistence
            .as_ref()
            .and_then(|persistence| persistence.trouble())
    }

    /// Serves one connection that something else has accepted; `peer` is the device's own address.
    pub async fn serve_stream<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer {
            address: peer,
            certificate: None,
        };
        connection::serve(Arc::clone(&self.hub), stream, peer).await;
    }

    /// Sessions, connected or not.
    pub fn sessions(&self) -> usize {
        self.hub.registry.len()
    }
}
