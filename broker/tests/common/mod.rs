//! A front on a port of its own, a store under the test's control, and a client made of bytes.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod counted;
pub mod pki;
pub mod store;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shopfloor_broker::Front;
use shopfloor_broker::config::{AuthConfig, BrokerConfig};
use shopfloor_broker::tap::Tap;
use shopfloor_runtime::accept::ListenerConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use store::{Mode, Store};
pub use wire::Wire;

/// Longest wait for anything that must come.
pub const SOON: Duration = Duration::from_secs(10);

/// A running front; stopped when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub front: Front,
    pub stop: CancellationToken,
    pub served: Option<JoinHandle<bool>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Anonymous clients, a free port, short times.
pub fn config() -> BrokerConfig {
    BrokerConfig {
        listeners: vec![ListenerConfig::new("127.0.0.1:0".parse().unwrap())],
        auth: AuthConfig {
            allow_anonymous: true,
            ..AuthConfig::default()
        },
        ..BrokerConfig::default()
    }
}

pub async fn serve(tap: Arc<dyn Tap>) -> Server {
    serve_with(config(), tap).await
}

pub async fn serve_with(config: BrokerConfig, tap: Arc<dyn Tap>) -> Server {
    let stop = CancellationToken::new();
    let front = Front::new(config, tap, stop.clone());
    let listeners = front.bind().await.unwrap();
    let address = listeners[0].local_addr().unwrap();
    let serving = front.clone();
    let served = Some(tokio::spawn(async move { serving.serve(listeners).await }));
    Server {
        address,
        front,
        stop,
        served,
    }
}

impl Server {
    pub async fn wire(&self) -> Wire {
        Wire::open(self.address).await
    }

    /// A connected 3.1.1 client with a clean session.
    pub async fn v311(&self, client_id: &str) -> Wire {
        let mut wire = self.wire().await;
        wire.connect_v311(client_id).await;
        wire
    }

    /// A connected MQTT 5 client with a clean start and no expiry.
    pub async fn v5(&self, client_id: &str) -> Wire {
        let mut wire = self.wire().await;
        wire.connect_v5(client_id).await;
        wire
    }
}
