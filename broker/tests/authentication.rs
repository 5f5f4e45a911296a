//! Passwords from a file and tokens of an identity provider, as clients see them.
// A test is where a wrong answer may end the process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::wire::{connect_v5, connect_v311, packet, puback, publish_v311, text};
use common::{Mode, SOON, Server, Store, Wire, config, serve_with};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use shopfloor_broker::config::{AuthConfig, UserConfig};
use shopfloor_broker::{BrokerConfig, password_file};
use shopfloor_runtime::jwks::TokenConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn server(auth: AuthConfig, store: &Arc<Store>) -> Server {
    serve_with(BrokerConfig { auth, ..config() }, store.clone()).await
}

fn connect(level: u8, user: &str, password: &str) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    let body = [
        b"\0\x04MQTT".as_slice(),
        &[level, 0xC2, 0, 60],
        properties,
        &text("device"),
        &text(user),
        &text(password),
    ];
    packet(0x10, &body)
}

/// The CONNACK's code, and the connection.
async fn knock(server: &Server, level: u8, user: &str, password: &str) -> (u8, Wire) {
    let mut wire = server.wire().await;
    wire.send(connect(level, user, password)).await;
    (wire.packet().await[3], wire)
}

#[tokio::test]
async fn users_of_the_password_file_need_their_passwords_and_a_new_one_is_known_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    password_file::set(&file, "press", b"geheim").unwrap();
    let auth = AuthConfig {
        password_file: Some(file.clone()),
        ..AuthConfig::default()
    };
    let store = Store::new(Mode::AtOnce);
    let server = server(auth, &store).await;
    for (level, wrong) in [(4, 4), (5, 0x86)] {
        assert_eq!(knock(&server, level, "press", "geheim").await.0, 0);
        assert_eq!(knock(&server, level, "press", "falsch").await.0, wrong);
        assert_eq!(knock(&server, level, "mill", "neu").await.0, wrong);
    }
    let (_, mut device) = knock(&server, 4, "press", "geheim").await;
    device.send(publish_v311(1, 1, "t", b"x")).await;
    device.expect(&puback(1)).await;
    assert_eq!(store.messages()[0].publisher.user.as_deref(), Some("press"));

    password_file::set(&file, "mill", b"neu").unwrap();
    let known = async { while knock(&server, 4, "mill", "neu").await.0 != 0 {} };
    tokio::time::timeout(SOON, known)
        .await
        .expect("the new user was never let in");
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    preferred_username: &'a str,
    exp: u64,
}

/// A realm: its key, and an http server that shows it.
struct Realm {
    key: EncodingKey,
    auth: AuthConfig,
}

impl Realm {
    async fn start() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".into());
        let keys = serde_json::to_string(&JwkSet { keys: vec![jwk] }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _request = socket.read(&mut [0; 2048]).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    keys.len()
                );
                let _gone = socket.write_all([head.as_str(), &keys].concat().as_bytes()).await;
            }
        });
        let jwt = TokenConfig {
            jwks: Some(format!(
                "http://{address}/realms/plant/protocol/openid-connect/certs"
            )),
            issuer: Some("plant".into()),
            audience: Some("shopfloor".into()),
            user_claim: "preferred_username".into(),
            leeway_s: 0,
            ..TokenConfig::default()
        };
        let auth = AuthConfig {
            jwt,
            ..AuthConfig::default()
        };
        Self { key, auth }
    }

    fn token(&self, audience: &str, lasts_s: i64) -> String {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = Claims {
            iss: "plant",
            aud: audience,
            preferred_username: "press-7",
            exp: now_s.saturating_add_signed(lasts_s),
        };
        let header = Header {
            kid: Some("k1".into()),
            ..Header::new(Algorithm::ES256)
        };
        encode(&header, &claims, &self.key).unwrap()
    }
}

#[tokio::test]
async fn a_token_in_the_password_field_says_who_the_client_is() {
    let realm = Realm::start().await;
    let store = Store::new(Mode::AtOnce);
    let server = server(realm.auth.clone(), &store).await;
    for (level, wrong) in [(4, 4), (5, 0x86)] {
        for token in [
            realm.token("other", 300),
            realm.token("shopfloor", -300),
            Realm::start().await.token("shopfloor", 300),
        ] {
            assert_eq!(knock(&server, level, "press-7", &token).await.0, wrong);
        }
        assert_eq!(knock(&server, level, "press-7", "password").await.0, wrong);
    }
    let (code, mut device) = knock(&server, 4, "anybody", &realm.token("shopfloor", 300)).await;
    assert_eq!(code, 0);
    device.send(publish_v311(1, 1, "t", b"x")).await;
    device.expect(&puback(1)).await;
    assert_eq!(store.messages()[0].publisher.user.as_deref(), Some("press-7"));
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let realm = Realm::start().await;
    let server = server(realm.auth.clone(), &Store::new(Mode::AtOnce)).await;
    let (code, mut device) = knock(&server, 5, "", &realm.token("shopfloor", 2)).await;
    assert_eq!(code, 0);
    let disconnect = device.packet().await;
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0xA0));
    device.expect_end().await;
}

#[tokio::test]
async fn while_the_provider_is_away_clients_are_told_to_come_again() {
    let mut realm = Realm::start().await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    realm.auth.jwt.jwks = Some(format!("http://{gone}/"));
    let server = server(realm.auth.clone(), &Store::new(Mode::AtOnce)).await;
    for (level, busy) in [(4, 3), (5, 0x89)] {
        let (code, _) = knock(&server, level, "press-7", &realm.token("shopfloor", 300)).await;
        assert_eq!(code, busy);
    }
}

#[tokio::test]
async fn users_need_their_password_and_strangers_are_refused() {
    let users = vec![UserConfig {
        name: "press".into(),
        password: "geheim".into(),
    }];
    let config = BrokerConfig {
        auth: AuthConfig {
            users,
            ..AuthConfig::default()
        },
        ..config()
    };
    let server = serve_with(config, Store::new(Mode::AtOnce)).await;
    for (level, code_wrong, code_none) in [(4, 4, 5), (5, 0x86, 0x87)] {
        let mut right = server.wire().await;
        right.send(connect(level, "press", "geheim")).await;
        assert_eq!(right.packet().await[3], 0);
        for (user, password) in [("press", "falsch"), ("nobody", "geheim")] {
            let mut wrong = server.wire().await;
            wrong.send(connect(level, user, password)).await;
            assert_eq!(wrong.packet().await[3], code_wrong);
            wrong.expect_end().await;
        }
        let mut anonymous = server.wire().await;
        let hello = if level == 5 {
            connect_v5("device", 2, &[])
        } else {
            connect_v311("device", 2, 60)
        };
        anonymous.send(hello).await;
        assert_eq!(anonymous.packet().await[3], code_none);
        anonymous.expect_end().await;
    }
}
