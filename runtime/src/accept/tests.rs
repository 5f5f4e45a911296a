use super::*;
use crate::proxy::ProxyProtocol;
use crate::tls::TlsConfig;
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
        ..any_port()
    };
    echo_with(config).await
}

fn any_port() -> ListenerConfig {
    ListenerConfig::new("127.0.0.1:0".parse().unwrap())
}

async fn echo_with(config: ListenerConfig) -> Echo {
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
        answer.starts_with("127.0.0.1:") && answer.ends_with("PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\n")
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

#[tokio::test]
async fn connections_over_the_rate_are_closed_and_the_others_served() {
    let server = echo_with(ListenerConfig {
        max_connects_per_s: 2,
        ..any_port()
    })
    .await;
    let mut served = 0;
    for _ in 0..20 {
        served += usize::from(!talk(server.address, b"hi").await.is_empty());
    }
    assert!((2..20).contains(&served), "{served} of 20 were served");
}

#[tokio::test]
async fn an_address_with_all_its_places_gets_no_further_one_and_others_do() {
    let server = echo_with(ListenerConfig {
        proxy_protocol: ProxyProtocol::Required,
        max_connections_per_address: 1,
        ..any_port()
    })
    .await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let header = b"PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\n";
    first.write_all(header).await.unwrap();
    first.read_u8().await.unwrap();
    assert_eq!(talk(server.address, header).await, "");
    let other = b"PROXY TCP4 10.9.8.6 127.0.0.1 1000 1883\r\n";
    assert_eq!(talk(server.address, other).await, "10.9.8.6:1000\n");
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_own_connection_and_gives_its_place_back() {
    let listener = Listener::bind(
        "test",
        ListenerConfig {
            max_connections: 1,
            ..any_port()
        },
    )
    .await
    .unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(listener.serve(
        stop.clone(),
        TaskTracker::new(),
        |mut connection: Accepted| async move {
            let first = connection.stream.read_u8().await.unwrap();
            assert_ne!(first, b'!', "the test's own panic");
            connection.stream.write_u8(first).await.unwrap();
        },
    ));
    assert_eq!(talk(address, b"!").await, "");
    assert_eq!(talk(address, b"x").await, "x");
    stop.cancel();
}

/// A TLS listener with a certificate of its own, and a client that trusts it.
async fn encrypted(config: ListenerConfig) -> (Echo, tokio_rustls::TlsConnector, tempfile::TempDir) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let tls = TlsConfig {
        certificate,
        key,
        client_ca: None,
        crl: None,
        require_client_certificate: false,
    };
    let server = echo_with(ListenerConfig {
        transport: Transport::Tls,
        tls: Some(tls),
        ..config
    })
    .await;
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = tokio_rustls::rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, tokio_rustls::TlsConnector::from(Arc::new(client)), dir)
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_handshake_and_names_the_client() {
    let (server, connector, _dir) = encrypted(ListenerConfig {
        proxy_protocol: ProxyProtocol::Required,
        ..any_port()
    })
    .await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(b"PROXY TCP4 10.9.8.7 127.0.0.1 1000 1883\r\n")
        .await
        .unwrap();
    let mut stream = connector
        .connect("localhost".try_into().unwrap(), socket)
        .await
        .unwrap();
    let mut told = [0; 14];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"10.9.8.7:1000\n");
}

#[tokio::test]
async fn hundreds_of_silent_connections_delay_no_handshake() {
    let (server, connector, _dir) = encrypted(ListenerConfig {
        handshake_timeout_ms: 60_000,
        ..any_port()
    })
    .await;
    let mut silent = Vec::new();
    for number in 0..400 {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a ClientHello that never comes whole.
            socket.write_all(&[0x16, 3, 1, 0x02]).await.unwrap();
        }
        silent.push(socket);
    }
    let greeted = async {
        let socket = TcpStream::connect(server.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        stream.read_u8().await.unwrap()
    };
    // A fraction of the time that one silent connection may take.
    let greeted = tokio::time::timeout(Duration::from_secs(20), greeted).await;
    assert_eq!(greeted.expect("the handshake waits for silent connections"), b'1');
    for socket in silent {
        let waits = socket.try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(
            waits.kind(),
            io::ErrorKind::WouldBlock,
            "a silent one was not waited for"
        );
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends_at_its_deadline() {
    let (server, _connector, _dir) = encrypted(ListenerConfig {
        handshake_timeout_ms: 200,
        ..any_port()
    })
    .await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(&[0x16, 3, 1, 0x02]).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
