//! What MQTT clients find again when the gateway was killed: the real binary, `kill -9`, the same directory.

#[path = "../../../broker/tests/common/wire.rs"]
#[allow(dead_code, unreachable_pub)] // the broker's own client made of bytes; each test uses its part
mod wire;

mod exchanges;
mod messages;
mod sessions;

use std::path::Path;
use std::time::Duration;

use shopfloor::parts::Backend;
use shopfloor_tests::gateway::spawn_alone;
use shopfloor_tests::server::Server;
use tempfile::TempDir;

use wire::{Wire, connect_v5, connect_v311};

/// Longest wait for anything that must come.
const SOON: Duration = Duration::from_secs(30);

/// A gateway that can be killed and started again.
struct Gateway {
    dir: TempDir,
    at: Backend,
    server: Server,
}

impl Gateway {
    fn start() -> Self {
        Self::with("")
    }

    /// With further settings.
    fn with(mqtt: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = Backend::on_free_ports().expect("free ports");
        let server = spawn_alone(dir.path(), at, mqtt);
        let mut gateway = Self { dir, at, server };
        gateway.wait_ready();
        gateway
    }

    fn crash(&mut self) {
        self.server.kill();
        self.restart();
    }

    fn restart(&mut self) {
        self.server.restart();
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        // It blocks, and the caller is a runtime's thread.
        let waited = std::thread::scope(|scope| scope.spawn(|| self.server.wait_ready()).join());
        waited.expect("the gateway is ready");
    }

    fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    async fn wire(&self) -> Wire {
        Wire::open(self.at.address).await
    }

    /// A 3.1.1 client without a clean session; `present` is what CONNACK must say.
    async fn resume_v311(&self, client_id: &str, present: bool) -> Wire {
        let mut wire = self.wire().await;
        wire.send(connect_v311(client_id, 0, 60)).await;
        wire.expect(&[0x20, 2, u8::from(present), 0]).await;
        wire
    }

    /// An MQTT 5 client, and whether its session was present.
    async fn v5(&self, client_id: &str, clean: bool, expiry_s: u32) -> (Wire, bool) {
        let mut wire = self.wire().await;
        let expiry = [&[17][..], &expiry_s.to_be_bytes()].concat();
        wire.send(connect_v5(client_id, if clean { 2 } else { 0 }, &expiry))
            .await;
        let connack = wire.packet().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        (wire, connack[2] == 1)
    }

    /// Publishes with QoS 1 and waits for PUBACK.
    async fn publish(&self, first: u8, topic: &str, payload: &[u8]) {
        let mut device = self.wire().await;
        device.connect_v311("publisher").await;
        device
            .send(wire::publish(0x32 | first, 9, topic, None, payload))
            .await;
        device.expect(&wire::puback(9)).await;
    }
}

/// What the spool in a gateway's data directory holds, by payload; the gateway must have ended.
fn spooled(data_dir: &Path) -> Vec<String> {
    use shopfloor_bridge::record::{Destination, Envelope};
    use shopfloor_bridge::spool::{Spool, SpoolConfig};

    let spool = Spool::open(&data_dir.join("spool"), "gateway-1", SpoolConfig::default()).expect("the spool");
    let next = spool.status().next_sequence;
    let mut reader = spool.reader_at(1);
    let mut payloads = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    while reader.position() < next {
        for record in runtime.block_on(reader.next(1000, 1 << 20)).expect("records") {
            let envelope = Envelope::decode(&record.meta).expect("an envelope");
            if envelope.destination != Destination::Release {
                payloads.push(String::from_utf8_lossy(&record.payload).into_owned());
            }
        }
    }
    payloads
}
