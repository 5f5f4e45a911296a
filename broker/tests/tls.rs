//! MQTT over TLS and WebSocket: who is let in, as whom, and what changes while connections go on.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::pki::{Device, Pki};
use common::wire::{connect_v5, connect_v311, puback, publish_v311};
use common::{Mode, SOON, Server, Store, config, serve_with};
use futures_util::{SinkExt, StreamExt};
use shopfloor_broker::BrokerConfig;
use shopfloor_broker::config::{AuthConfig, CertificateName};
use shopfloor_runtime::accept::{ListenerConfig, Transport};
use shopfloor_runtime::tls::TlsConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ALL_VERSIONS, SupportedProtocolVersion, version};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Bytes, Message};

async fn server(
    store: &Arc<Store>,
    transport: Transport,
    tls: Option<TlsConfig>,
    auth: AuthConfig,
) -> Server {
    let listener = ListenerConfig {
        transport,
        tls,
        ..ListenerConfig::new("127.0.0.1:0".parse().unwrap())
    };
    let config = BrokerConfig {
        listeners: vec![listener],
        auth,
        ..config()
    };
    serve_with(config, store.clone()).await
}

fn anonymous() -> AuthConfig {
    AuthConfig {
        allow_anonymous: true,
        ..AuthConfig::default()
    }
}

/// Certificates of the plant or nothing.
fn mutual(pki: &Pki) -> TlsConfig {
    TlsConfig {
        client_ca: Some(pki.path("ca.pem")),
        crl: pki.path("crl.pem").exists().then(|| pki.path("crl.pem")),
        require_client_certificate: true,
        ..pki.config()
    }
}

async fn encrypt(
    server: &Server,
    pki: &Pki,
    device: Option<&Device>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(server.address).await?;
    let connector = pki.connector(device, versions);
    connector.connect("localhost".try_into().unwrap(), socket).await
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    packet: &[u8],
    answer: usize,
) -> std::io::Result<Vec<u8>> {
    stream.write_all(packet).await?;
    let mut bytes = vec![0; answer];
    tokio::time::timeout(SOON, stream.read_exact(&mut bytes))
        .await
        .expect("no answer came")?;
    Ok(bytes)
}

/// A 3.1.1 client that is let in, and an acknowledged publish; the error where it is not.
async fn publish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, payload: &[u8]) -> std::io::Result<()> {
    let connack = exchange(stream, &connect_v311("device", 2, 60), 4).await?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    let answer = exchange(stream, &publish_v311(1, 1, "t", payload), 4).await?;
    assert_eq!(answer, puback(1));
    Ok(())
}

async fn ping<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    assert_eq!(exchange(stream, &[0xC0, 0], 2).await.unwrap(), [0xD0, 0]);
}

/// Until it holds: a changed file is seen within a second or so.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let looked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, looked).await.expect(what);
}

#[tokio::test]
async fn tls_1_2_and_1_3_clients_publish_and_large_messages_arrive_whole() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    let server = server(&store, Transport::Tls, Some(pki.config()), anonymous()).await;
    for version in [&version::TLS12, &version::TLS13] {
        let mut stream = encrypt(&server, &pki, None, &[version]).await.unwrap();
        publish(&mut stream, &vec![b'x'; 300_000]).await.unwrap();
    }
    let messages = store.messages();
    assert!(messages.len() == 2 && messages.iter().all(|m| m.payload.len() == 300_000));
}

#[tokio::test]
async fn a_subscriber_over_tls_gets_everything_although_it_reads_late() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    let server = server(&store, Transport::Tls, Some(pki.config()), anonymous()).await;
    let mut reader = encrypt(&server, &pki, None, ALL_VERSIONS).await.unwrap();
    exchange(&mut reader, &connect_v311("reader", 2, 60), 4)
        .await
        .unwrap();
    let suback = exchange(&mut reader, &common::wire::subscribe_v311(1, "t", 0), 5).await;
    assert_eq!(suback.unwrap(), [0x90, 3, 0, 1, 0]);
    let mut writer = encrypt(&server, &pki, None, ALL_VERSIONS).await.unwrap();
    exchange(&mut writer, &connect_v311("writer", 2, 60), 4)
        .await
        .unwrap();
    let message = publish_v311(0, 0, "t", &[7; 20_000]);
    for _ in 0..200 {
        writer.write_all(&message).await.unwrap();
    }
    ping(&mut writer).await;
    let mut got = vec![0; message.len() * 200];
    tokio::time::timeout(SOON, reader.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert!(got == message.repeat(200));
}

#[tokio::test]
async fn a_clients_certificate_is_its_user_and_without_one_nobody_is_let_in() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    let auth = AuthConfig::default();
    assert!(!auth.allow_anonymous && auth.certificate_name == CertificateName::CommonName);
    let server = server(&store, Transport::Tls, Some(mutual(&pki)), auth).await;
    let press = pki.issue("press-1", 10);
    let mut stream = encrypt(&server, &pki, Some(&press), ALL_VERSIONS).await.unwrap();
    publish(&mut stream, b"mine").await.unwrap();
    assert_eq!(store.messages()[0].publisher.user.as_deref(), Some("press-1"));

    // In TLS 1.3 a client learns of the refusal when it reads.
    let nobody = async {
        let mut stream = encrypt(&server, &pki, None, ALL_VERSIONS).await?;
        publish(&mut stream, b"x").await
    };
    assert!(nobody.await.is_err(), "a client without a certificate was let in");
    let stranger = Pki::new().issue("press-1", 10);
    let forged = async {
        let mut stream = encrypt(&server, &pki, Some(&stranger), ALL_VERSIONS).await?;
        publish(&mut stream, b"x").await
    };
    assert!(forged.await.is_err(), "a stranger's certificate was taken");
    assert_eq!(store.payloads(), ["mine"]);
}

#[tokio::test]
async fn an_optional_certificate_leaves_the_others_to_their_passwords() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    let tls = TlsConfig {
        require_client_certificate: false,
        ..mutual(&pki)
    };
    let server = server(&store, Transport::Tls, Some(tls), AuthConfig::default()).await;
    let mut stream = encrypt(&server, &pki, None, ALL_VERSIONS).await.unwrap();
    let refused = exchange(&mut stream, &connect_v5("device", 2, &[]), 4)
        .await
        .unwrap();
    assert_eq!(refused[3], 0x87);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_then_on_and_open_connections_go_on() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    pki.write_crl(&[]);
    let server = server(&store, Transport::Tls, Some(mutual(&pki)), AuthConfig::default()).await;
    let (press, mill) = (pki.issue("press-1", 10), pki.issue("mill-1", 11));
    let mut open = encrypt(&server, &pki, Some(&press), ALL_VERSIONS).await.unwrap();
    publish(&mut open, b"x").await.unwrap();

    pki.write_crl(&[10]);
    until("the certificate was never refused", || async {
        let Ok(mut stream) = encrypt(&server, &pki, Some(&press), ALL_VERSIONS).await else {
            return true;
        };
        // Another client id: the open connection is not to be taken over.
        exchange(&mut stream, &connect_v311("probe", 2, 60), 4)
            .await
            .is_err()
    })
    .await;
    ping(&mut open).await;
    let mut other = encrypt(&server, &pki, Some(&mill), ALL_VERSIONS).await.unwrap();
    exchange(&mut other, &connect_v311("mill", 2, 60), 4)
        .await
        .unwrap();
}

/// The serial number of the certificate that the server shows.
async fn shown(server: &Server, pki: &Pki) -> Option<Vec<u8>> {
    let stream = encrypt(server, pki, None, ALL_VERSIONS).await.ok()?;
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates()?[0].to_vec())
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let (pki, store) = (Pki::new(), Store::new(Mode::AtOnce));
    let server = server(&store, Transport::Tls, Some(pki.config()), anonymous()).await;
    let mut open = encrypt(&server, &pki, None, ALL_VERSIONS).await.unwrap();
    publish(&mut open, b"x").await.unwrap();
    let first = shown(&server, &pki).await.unwrap();

    pki.write_server(2);
    until("the new certificate was never shown", || async {
        shown(&server, &pki).await.is_some_and(|shown| shown != first)
    })
    .await;
    ping(&mut open).await;
}

#[tokio::test]
async fn mqtt_runs_over_websocket_with_packets_cut_anywhere() {
    let store = Store::new(Mode::AtOnce);
    let server = server(&store, Transport::Ws, None, anonymous()).await;
    let mut request = format!("ws://{}/mqtt", server.address)
        .into_client_request()
        .unwrap();
    let protocols = "other, mqtt".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols);
    let socket = TcpStream::connect(server.address).await.unwrap();
    let (mut messages, response) = tokio_tungstenite::client_async(request, socket).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");

    let bytes = [
        connect_v311("browser", 2, 60),
        publish_v311(1, 1, "t", b"first"),
        publish_v311(1, 2, "t", b"second"),
    ]
    .concat();
    for piece in bytes.chunks(7) {
        messages
            .send(Message::Binary(Bytes::copy_from_slice(piece)))
            .await
            .unwrap();
        messages.send(Message::Ping(Bytes::new())).await.unwrap();
    }
    let expected = [vec![0x20, 2, 0, 0], puback(1), puback(2)].concat();
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let message = tokio::time::timeout(SOON, messages.next()).await.unwrap();
        if let Message::Binary(bytes) = message.unwrap().unwrap() {
            got.extend(bytes);
        }
    }
    assert_eq!(got, expected);
    assert_eq!(store.payloads(), ["first", "second"]);
}

#[tokio::test]
async fn a_websocket_without_the_mqtt_protocol_or_with_text_is_refused() {
    let store = Store::new(Mode::AtOnce);
    let server = server(&store, Transport::Ws, None, anonymous()).await;
    let url = format!("ws://{}/mqtt", server.address);
    let socket = TcpStream::connect(server.address).await.unwrap();
    let refused = tokio_tungstenite::client_async(url.clone(), socket).await;
    assert!(refused.unwrap_err().to_string().contains("400"));

    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let socket = TcpStream::connect(server.address).await.unwrap();
    let (mut messages, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
    messages.send(Message::text("hello")).await.unwrap();
    let end = tokio::time::timeout(SOON, messages.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Binary(_)))));
}
