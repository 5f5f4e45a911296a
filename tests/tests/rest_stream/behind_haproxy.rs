//! Streams through HAProxy, whose timeouts end what is silent.

use std::time::{Duration, Instant};

use shopfloor::parts::{Backend, Haproxy, HaproxyOptions};
use shopfloor_api::ApiConfig;
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::proxy::ProxyProtocol;
use shopfloor_tests::repository;
use shopfloor_tests::rest::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::Stream;
use crate::{insert, rows, url};

/// HAProxy's timeouts, and the heartbeats, are this many times as fast as those that are shipped.
const FASTER: u64 = 10;

/// An API behind HAProxy.
struct Front {
    server: Server,
    haproxy: Haproxy,
    _dir: tempfile::TempDir,
}

async fn front(heartbeat_ms: u64) -> Front {
    let backend = || Backend::on_free_ports().unwrap();
    let apis = [backend(), backend()];
    let mut listener = ListenerConfig::new(apis[0].address);
    listener.proxy_protocol = ProxyProtocol::Required;
    let server = Server::start(&url().await, listener, |config| {
        config.unit_stream.poll_interval_ms = 20;
        config.unit_stream.heartbeat_ms = heartbeat_ms;
    })
    .await;
    rows(&server).await;
    let admin = TcpListener::bind(apis[0].admin()).await.unwrap();
    tokio::spawn(always_ready(admin));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("haproxy.cfg");
    std::fs::write(&config, faster(&haproxy_cfg())).unwrap();
    let free = "127.0.0.1:0".parse().unwrap();
    let options = HaproxyOptions {
        config,
        dir: dir.path().to_owned(),
        rest: free,
        internal: free,
        mqtt: free,
        apis,
        gateways: [backend(), backend()],
    };
    let haproxy = tokio::task::spawn_blocking(|| Haproxy::start(options).unwrap());
    let haproxy = haproxy.await.unwrap();
    // Until its checks have found the one server that there is.
    let began = Instant::now();
    while haproxy.servers().unwrap().up < 2 || haproxy.servers().unwrap().down < 4 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            haproxy.servers()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Front {
        server,
        haproxy,
        _dir: dir,
    }
}

async fn always_ready(admin: TcpListener) {
    while let Ok((mut socket, _)) = admin.accept().await {
        let _head = socket.read(&mut [0; 1024]).await;
        let _gone = socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .await;
    }
}

fn haproxy_cfg() -> String {
    std::fs::read_to_string(repository::haproxy_config()).unwrap()
}

fn faster(config: &str) -> String {
    let mut config = config.to_owned();
    for side in ["client", "server"] {
        let shipped = format!("timeout {side} 30s");
        assert!(config.contains(&shipped), "{shipped}");
        config = config.replace(&shipped, &format!("timeout {side} {}ms", 30_000 / FASTER));
    }
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_is_held_open_by_its_heartbeats_and_without_them_is_cut() {
    let shipped = ApiConfig::default();
    assert_eq!(
        shipped.mqtt.heartbeat_ms, shipped.unit_stream.heartbeat_ms,
        "one kind of stream stands for both"
    );
    let heartbeat_ms = shipped.unit_stream.heartbeat_ms / FASTER;
    let (held, silent) = tokio::join!(front(heartbeat_ms), front(600_000));

    let mut cut = Stream::open(silent.haproxy.rest(), "", None).await;
    let began = Instant::now();
    while cut.any().await.is_some() {}
    let timeout = began.elapsed();
    assert!(
        timeout < Duration::from_secs(10),
        "not HAProxy's timeout: {timeout:?}"
    );

    let mut stream = Stream::open(held.haproxy.rest(), "", None).await;
    let began = Instant::now();
    while began.elapsed() < 2 * timeout {
        let event = stream.any().await.expect("the stream is open");
        assert_eq!(event.name, "");
    }
    held.server.database.batch_execute(&insert("1, 1")).await.unwrap();
    assert_eq!(stream.orders(1).await, [1]);
}
