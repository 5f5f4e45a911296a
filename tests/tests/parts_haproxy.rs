//! The HAProxy part with the repository's configuration, in front of servers that tell what they see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shopfloor::parts::{Backend, Haproxy, HaproxyOptions};
use shopfloor_runtime::accept::{Accepted, Listener, ListenerConfig};
use shopfloor_runtime::proxy::ProxyProtocol;
use shopfloor_tests::repository;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const WITHIN: Duration = Duration::from_secs(20);

struct Front {
    haproxy: Haproxy,
    _dir: tempfile::TempDir,
}

type Backends = [Backend; 2];

/// HAProxy takes a server as up until a check fails: servers that start before it are in use from the start.
fn backends() -> (Backends, Backends) {
    let backend = || Backend::on_free_ports().unwrap();
    ([backend(), backend()], [backend(), backend()])
}

async fn front(apis: Backends, gateways: Backends) -> Front {
    let dir = tempfile::tempdir().unwrap();
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let options = HaproxyOptions {
        config: repository::haproxy_config(),
        dir: dir.path().to_owned(),
        rest: free,
        internal: free,
        mqtt: free,
        apis,
        gateways,
    };
    let haproxy = tokio::task::spawn_blocking(|| Haproxy::start(options).unwrap())
        .await
        .unwrap();
    Front { haproxy, _dir: dir }
}

/// A server that reads the PROXY header with the production code, then answers each connection with its name and
/// the client's address. It lives until the token is cancelled or dropped.
struct Server(CancellationToken);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn server(name: &'static str, at: Backend, http: bool) -> Server {
    let stop = CancellationToken::new();
    listen(at.address, ProxyProtocol::Required, &stop, move |peer| {
        let said = format!("{name} {}", peer.ip());
        if http { response(&said) } else { said }
    })
    .await;
    listen(at.admin(), ProxyProtocol::Rejected, &stop, |_peer| {
        response("ready")
    })
    .await;
    Server(stop)
}

fn response(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn listen(
    at: SocketAddr,
    proxy_protocol: ProxyProtocol,
    stop: &CancellationToken,
    answer: impl Fn(SocketAddr) -> String + Clone + Send + Sync + 'static,
) {
    let config = ListenerConfig {
        proxy_protocol,
        ..ListenerConfig::new(at)
    };
    let listener = Listener::bind("test", config).await.unwrap();
    let stopping = stop.clone();
    tokio::spawn(listener.serve(
        stop.clone(),
        TaskTracker::new(),
        move |mut connection: Accepted| {
            let (answer, stopping) = (answer.clone(), stopping.clone());
            async move {
                let mut head = [0; 4096];
                if connection.stream.read(&mut head).await.is_ok() {
                    let _gone = connection
                        .stream
                        .write_all(answer(connection.peer).as_bytes())
                        .await;
                    // An MQTT connection stays; an HTTP one ends with its response.
                    if !answer(connection.peer).starts_with("HTTP") {
                        tokio::select! {
                            _closed = connection.stream.read(&mut head) => {},
                            () = stopping.cancelled() => {},
                        }
                    }
                }
            }
        },
    ));
}

async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn request(from: &str, to: SocketAddr, line: &str) -> String {
    let mut stream = connect(from, to).await;
    let request = format!("{line} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Asks again until the answer holds: HAProxy sees a server come and go by its health checks only.
async fn request_until(to: SocketAddr, line: &str, holds: impl Fn(&str) -> bool) -> String {
    let asking = async {
        loop {
            let answer = request("127.0.0.1", to, line).await;
            if holds(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WITHIN, asking)
        .await
        .expect("the answer within 20 s")
}

fn mqtt_connect(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
    packet.extend(b"MQTT");
    packet.extend([4, 2, 0, 60, 0, client_id.len() as u8]);
    packet.extend(client_id.as_bytes());
    packet
}

/// Which gateway a device meets, and what it says the device's address is.
async fn gateway_of(front: &Front, from: &str, client_id: &str) -> (TcpStream, String) {
    let mut device = connect(from, front.haproxy.mqtt()).await;
    device.write_all(&mqtt_connect(client_id)).await.unwrap();
    let mut said = [0; 64];
    let read = device.read(&mut said).await.unwrap();
    (device, String::from_utf8_lossy(&said[..read]).into_owned())
}

#[tokio::test]
async fn an_api_server_sees_the_clients_own_address_and_one_address_always_meets_the_same_server() {
    let (apis, gateways) = backends();
    let _one = server("api1", apis[0], true).await;
    let _two = server("api2", apis[1], true).await;
    let front = front(apis, gateways).await;
    let rest = front.haproxy.rest();
    let mut met = std::collections::BTreeSet::new();
    for n in 1..=40 {
        let from = format!("127.0.0.{n}");
        let first = request(&from, rest, "GET /api/v1/machine").await;
        assert!(first.ends_with(&format!(" {from}")), "{first}");
        assert_eq!(request(&from, rest, "GET /api/v1/machine").await, first);
        met.insert(first.contains("api1"));
    }
    assert_eq!(met.len(), 2, "40 addresses all met one server");
}

#[tokio::test]
async fn a_body_that_trickles_in_waits_in_haproxy_and_not_in_the_api() {
    let (apis, gateways) = backends();
    let stop = CancellationToken::new();
    let (_stops, arrived) = (stop.clone().drop_guard(), Arc::new(AtomicUsize::new(0)));
    for api in &apis {
        let arrived = arrived.clone();
        listen(api.address, ProxyProtocol::Required, &stop, move |_peer| {
            arrived.fetch_add(1, Ordering::Relaxed);
            response("taken")
        })
        .await;
        listen(api.admin(), ProxyProtocol::Rejected, &stop, |_peer| {
            response("ready")
        })
        .await;
    }
    let front = front(apis, gateways).await;
    let mut slow = connect("127.0.0.1", front.haproxy.rest()).await;
    slow.write_all(b"POST /api/v1/parts HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345")
        .await
        .unwrap();
    // A later request goes past it.
    let whole = request("127.0.0.2", front.haproxy.rest(), "GET /api/v1/parts").await;
    assert!(whole.ends_with("taken"), "{whole}");
    let before = arrived.swap(0, Ordering::Relaxed);
    slow.write_all(b"67890").await.unwrap();
    let mut answer = [0; 256];
    let length = tokio::time::timeout(WITHIN, slow.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).starts_with("HTTP/1.1 200"));
    let after = arrived.load(Ordering::Relaxed);
    assert!(
        before > 0 && before == after,
        "{before} calls for the whole request, {after} for the slow one"
    );
}

#[tokio::test]
async fn the_internal_route_is_not_there_for_clients_however_it_is_spelled() {
    let (apis, gateways) = backends();
    let _one = server("api1", apis[0], true).await;
    let front = front(apis, gateways).await;
    let rest = front.haproxy.rest();
    // The second server is not there: until HAProxy has seen that, an address may be sent to it.
    request_until(rest, "GET /api/v1/machine", |answer| answer.contains("api1")).await;
    for path in [
        "/internal/v1/telemetry",
        "/internal",
        "/INTERNAL/v1/telemetry",
        "//internal/v1/telemetry",
        "/./internal/v1/telemetry",
        "/%69nternal/v1/telemetry",
        "/%2Finternal/v1/telemetry",
        "/internal%2Fv1/telemetry",
        "/internal/v1/telemetry?a=b",
    ] {
        let answer = request("127.0.0.1", rest, &format!("POST {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("api1"), "{path} reached the server: {answer}");
    }
    let internal = front.haproxy.internal();
    let answer = request("127.0.0.1", internal, "POST /internal/v1/telemetry").await;
    assert!(answer.ends_with("api1 127.0.0.1"), "{answer}");
    for line in ["GET /internal/v1/telemetry", "POST /api/v1/machine"] {
        let answer = request("127.0.0.1", internal, line).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{line}: {answer}");
    }
}

#[tokio::test]
async fn without_an_api_server_clients_get_the_apis_form_of_503_and_are_told_to_come_back() {
    let (apis, gateways) = backends();
    let front = front(apis, gateways).await;
    let unavailable = |answer: &str| answer.starts_with("HTTP/1.1 503");
    let answer = request_until(front.haproxy.rest(), "GET /api/v1/machine", unavailable).await;
    assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    assert!(answer.contains(r#"{"statusCode":503,"message":"#), "{answer}");
    let one = server("api1", apis[0], true).await;
    request_until(front.haproxy.rest(), "GET /api/v1/machine", |answer| {
        answer.contains("api1")
    })
    .await;
    drop(one);
    request_until(front.haproxy.rest(), "GET /api/v1/machine", unavailable).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_in_the_apis_form() {
    let (apis, gateways) = backends();
    let front = front(apis, gateways).await;
    let mut slow = connect("127.0.0.1", front.haproxy.rest()).await;
    slow.write_all(b"POST /api/v1/parts HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        .await
        .unwrap();
    let mut answer = String::new();
    let reading = tokio::time::timeout(WITHIN, slow.read_to_string(&mut answer));
    reading.await.expect("an answer within 20 s").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.ends_with(r#"{"statusCode":408,"message":"The body took longer than 10 s to arrive"}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_device_meets_the_same_gateway_at_every_connection_and_the_other_when_that_one_dies() {
    let (apis, gateways) = backends();
    let one = server("gateway1", gateways[0], false).await;
    let _two = server("gateway2", gateways[1], false).await;
    let front = front(apis, gateways).await;
    let mut first_devices = Vec::new();
    for n in 0..20 {
        let id = format!("machine-{n}");
        let (device, said) = gateway_of(&front, "127.0.0.7", &id).await;
        assert!(said.ends_with(" 127.0.0.7"), "{said}");
        let (_again, again) = gateway_of(&front, "127.0.0.7", &id).await;
        assert_eq!(again, said, "{id}");
        if said.starts_with("gateway1") {
            first_devices.push((id, device));
        }
    }
    assert!(!first_devices.is_empty(), "20 devices all on the second gateway");

    drop(one);
    for (id, mut device) in first_devices {
        let cut = tokio::time::timeout(WITHIN, device.read_u8()).await;
        assert!(cut.expect("cut off within 20 s").is_err(), "{id}");
        let moved = async {
            loop {
                let (_device, said) = gateway_of(&front, "127.0.0.7", &id).await;
                if said.starts_with("gateway2") {
                    return;
                }
            }
        };
        tokio::time::timeout(WITHIN, moved)
            .await
            .expect("the other gateway within 20 s");
    }
}

#[tokio::test]
async fn what_is_no_mqtt_reaches_a_gateway_that_can_say_so_and_silence_is_bounded() {
    let (apis, gateways) = backends();
    let _one = server("gateway1", gateways[0], false).await;
    let _two = server("gateway2", gateways[1], false).await;
    let front = front(apis, gateways).await;
    let mut stranger = connect("127.0.0.1", front.haproxy.mqtt()).await;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = [0; 64];
    let read = tokio::time::timeout(WITHIN, stranger.read(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(String::from_utf8_lossy(&said[..read]).starts_with("gateway"));
}
