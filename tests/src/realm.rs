//! An identity provider that signs as Keycloak does, for API and gateway tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Seconds since the Unix epoch, as tokens have them.
pub fn now_s() -> u64 {
    get_current_timestamp()
}

/// A realm: its keys by id, its discovery document and its key set over http.
pub struct Realm {
    address: SocketAddr,
    keys: Arc<Mutex<BTreeMap<String, EncodingKey>>>,
    is_down: Arc<AtomicBool>,
}

impl Realm {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::default(),
            is_down: Arc::default(),
        };
        realm.rotate_to("first");
        let (address, keys, is_down) = (realm.address, Arc::clone(&realm.keys), Arc::clone(&realm.is_down));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = socket.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let body = if head.starts_with("GET /realms/plant/.well-known/openid-configuration ") {
                    json!({"issuer": issuer(address), "jwks_uri": format!("http://{address}/certs")})
                } else {
                    key_set(&keys.lock().expect("not poisoned"))
                };
                let status = if is_down.load(Ordering::Relaxed) { 503 } else { 200 };
                let (body, head) = (
                    body.to_string(),
                    format!("HTTP/1.1 {status} x\r\nconnection: close\r\n"),
                );
                let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                let _gone = socket.write_all(answer.as_bytes()).await;
            }
        });
        realm
    }

    /// As its tokens have it.
    pub fn issuer(&self) -> String {
        issuer(self.address)
    }

    /// Down, it answers 503 instead of keys.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Replaces all keys by one.
    pub fn rotate_to(&self, id: &str) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        *self.keys.lock().expect("not poisoned") = BTreeMap::from([(id.to_owned(), key)]);
    }

    /// As Keycloak's access tokens, with these realm roles.
    pub fn claims(&self, roles: &[&str]) -> Value {
        json!({
            "iss": issuer(self.address), "aud": ["account", "shopfloor-api"], "sub": "7f3c", "typ": "Bearer",
            "azp": "planner", "exp": now_s() + 300, "iat": now_s(),
            "realm_access": {"roles": roles}, "scope": "profile",
        })
    }

    pub fn sign(&self, claims: &Value) -> String {
        let keys = self.keys.lock().expect("not poisoned");
        let (id, key) = keys.last_key_value().unwrap();
        let header = Header {
            kid: Some(id.clone()),
            ..Header::new(Algorithm::ES256)
        };
        encode(&header, claims, key).unwrap()
    }

    pub fn token(&self, roles: &[&str]) -> String {
        self.sign(&self.claims(roles))
    }
}

fn issuer(address: SocketAddr) -> String {
    format!("http://{address}/realms/plant")
}

fn key_set(keys: &BTreeMap<String, EncodingKey>) -> Value {
    let keys = keys.iter().map(|(id, key)| {
        let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.clone());
        serde_json::to_value(jwk).unwrap()
    });
    json!({"keys": keys.collect::<Vec<_>>()})
}
