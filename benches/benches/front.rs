//! Ingest as devices see it: PUBLISH packets into the MQTT front, PUBACKs out, over TCP on loopback. With a store that
//! answers at once it is the cost of decoding and acknowledging; with the bridge every PUBACK follows an fdatasync.

// A measurement that cannot go on ends.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shopfloor_bridge::{Bridge, BridgeConfig};
use shopfloor_broker::tap::{Batch, Receipt, Refused, Tap, Verdict, receipt};
use shopfloor_broker::{BrokerConfig, Front};
use shopfloor_runtime::accept::ListenerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "factory/north/7/supply-chain";
const PAYLOAD: &str = r#"{"timeOfProduction":"2023-12-10T00:00:00.000Z","order":5,"var5":false,"machineId":7,"partId":4,"var1":1,"var2":"a lot number of some length","var4":21}"#;
/// Publishes that a device has under way before it waits for acknowledgements.
const WINDOW: u16 = 100;

/// Stores nothing and answers at once.
struct Nowhere;

impl Tap for Nowhere {
    fn offer(&self, batch: Batch) -> Result<Receipt, Refused> {
        let (sender, receipt) = receipt();
        sender.resolve(vec![Verdict::Stored; batch.messages.len()]);
        Ok(receipt)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// CONNECT, MQTT 3.1.1, clean session, no keep-alive.
fn connect(client: usize) -> Vec<u8> {
    let id = format!("bench-{client}");
    let mut packet = vec![0x10, (12 + id.len()) as u8, 0, 4];
    packet.extend(b"MQTT\x04\x02\0\0");
    packet.extend((id.len() as u16).to_be_bytes());
    packet.extend(id.as_bytes());
    packet
}

/// A window of QoS 1 publishes.
fn publishes() -> Vec<u8> {
    let mut packets = Vec::new();
    for id in 1..=WINDOW {
        let remaining = 2 + TOPIC.len() + 2 + PAYLOAD.len();
        packets.extend([0x32, (remaining % 128) as u8 | 0x80, (remaining / 128) as u8]);
        packets.extend((TOPIC.len() as u16).to_be_bytes());
        packets.extend(TOPIC.as_bytes());
        packets.extend(id.to_be_bytes());
        packets.extend(PAYLOAD.as_bytes());
    }
    packets
}

async fn open(address: SocketAddr, devices: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for device in 0..devices {
        let mut socket = TcpStream::connect(address).await.expect("the front accepts");
        socket.set_nodelay(true).expect("a socket option");
        socket.write_all(&connect(device)).await.expect("CONNECT");
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).await.expect("CONNACK");
        assert_eq!(answer, [0x20, 2, 0, 0]);
        sockets.push(socket);
    }
    sockets
}

/// Every device sends `windows` windows, each after all of the last one's PUBACKs.
async fn publish(sockets: Vec<TcpStream>, packets: Arc<Vec<u8>>, windows: u64) -> Vec<TcpStream> {
    let devices = sockets.into_iter().map(|mut socket| {
        let packets = packets.clone();
        tokio::spawn(async move {
            let mut acknowledgements = vec![0; usize::from(WINDOW) * 4];
            for _ in 0..windows {
                socket.write_all(&packets).await.expect("PUBLISH");
                socket.read_exact(&mut acknowledgements).await.expect("PUBACK");
                assert_eq!(acknowledgements.first(), Some(&0x40));
            }
            socket
        })
    });
    let mut open = Vec::new();
    for device in devices.collect::<Vec<_>>() {
        open.push(device.await.expect("a device's task"));
    }
    open
}

fn measure(criterion: &mut Criterion, store: &str, tap: Arc<dyn Tap>) {
    let runtime = Runtime::new().expect("a runtime");
    let mut config = BrokerConfig {
        listeners: vec![ListenerConfig::new(([127, 0, 0, 1], 0).into())],
        max_packets_per_s: 0,
        max_bytes_per_s: 0,
        ..BrokerConfig::default()
    };
    config.auth.allow_anonymous = true;
    let stop = CancellationToken::new();
    let (address, serving) = runtime.block_on(async {
        let front = Front::new(config, tap, stop.clone());
        let listeners = front.bind().await.expect("a port");
        let address = listeners
            .first()
            .expect("one listener")
            .local_addr()
            .expect("an address");
        (address, tokio::spawn(async move { front.serve(listeners).await }))
    });
    let packets = Arc::new(publishes());
    let mut group = criterion.benchmark_group(format!("front, {store}"));
    group.measurement_time(Duration::from_secs(5)).sample_size(20);
    for devices in [1, 100] {
        let mut sockets = runtime.block_on(open(address, devices));
        let messages = devices as u64 * u64::from(WINDOW);
        let throughput = Throughput::ElementsAndBytes {
            elements: messages,
            bytes: messages * PAYLOAD.len() as u64,
        };
        group.throughput(throughput);
        group.bench_function(format!("{devices} devices, QoS 1"), |bencher| {
            bencher.iter_custom(|windows| {
                let begin = Instant::now();
                sockets = runtime.block_on(publish(std::mem::take(&mut sockets), packets.clone(), windows));
                begin.elapsed()
            });
        });
    }
    group.finish();
    stop.cancel();
    let _drained = runtime.block_on(serving);
}

fn decode_and_acknowledge(criterion: &mut Criterion) {
    measure(criterion, "no store", Arc::new(Nowhere));
}

fn durable(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = BridgeConfig::default();
    config.spool.max_bytes = 64 << 30;
    let bridge = Bridge::open(config, "bench", dir.path()).expect("a bridge");
    measure(criterion, "on disk", bridge.tap());
}

criterion_group!(benches, decode_and_acknowledge, durable);
criterion_main!(benches);
