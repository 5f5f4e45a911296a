use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// An identity provider: a key, and an http server with its key set.
struct Provider {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

fn signing_key() -> EncodingKey {
    let pair = rcgen::KeyPair::generate().unwrap();
    EncodingKey::from_ec_der(&pair.serialize_der())
}

fn key_set(keys: &[(&str, &EncodingKey)]) -> Value {
    let keys = keys.iter().map(|(id, key)| {
        let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some((*id).to_owned());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        serde_json::to_value(jwk).unwrap()
    });
    // Keycloak publishes its encryption key in the same set; other providers what this version does not know.
    let others = [
        json!({"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "XYZ", "kid": "strange"}),
        json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
    ];
    json!({"keys": keys.chain(others).collect::<Vec<_>>()})
}

impl Provider {
    /// Answers each request with the next of `answers`, the last one for ever.
    async fn start(answers: Vec<Result<Value, u16>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(number).or(answers.last()).unwrap();
                let mut request = [0; 2048];
                let _read = socket.read(&mut request).await;
                let (status, body) = match answer {
                    Ok(set) => (200, set.to_string()),
                    Err(status) => (*status, String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _gone = socket.write_all([head, body].concat().as_bytes()).await;
            }
        });
        Self { address, requests }
    }

    fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new(&config(format!("http://{}/certs", self.address))).unwrap()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn config(jwks: String) -> TokenConfig {
    TokenConfig {
        jwks: Some(jwks),
        issuer: Some("https://id/realms/plant".into()),
        audience: Some("shopfloor".into()),
        ..TokenConfig::default()
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://id/realms/plant",
        "aud": ["account", "shopfloor"],
        "sub": "press-1",
        "exp": get_current_timestamp() + 300,
    })
}

fn token(key: &EncodingKey, id: Option<&str>, claims: &Value) -> String {
    let header = Header {
        kid: id.map(str::to_owned),
        ..Header::new(Algorithm::ES256)
    };
    encode(&header, claims, key).unwrap()
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

#[tokio::test]
async fn a_token_of_the_provider_names_its_user() {
    let key = signing_key();
    let provider = Provider::start(vec![Ok(key_set(&[("k1", &key)]))]).await;
    let verifier = provider.verifier();
    let verified = verifier
        .verify(&token(&key, Some("k1"), &claims()))
        .await
        .unwrap();
    assert_eq!(verified.user, "press-1");
    assert!(verified.expires_s > get_current_timestamp());
    assert_eq!(verified.claims["aud"][1], "shopfloor");
    verifier.verify(&token(&key, None, &claims())).await.unwrap();
    assert_eq!(provider.requests(), 1, "the keys are remembered");
}

#[tokio::test]
async fn a_token_that_is_foreign_old_or_forged_is_refused() {
    let (key, other) = (signing_key(), signing_key());
    let provider = Provider::start(vec![Ok(key_set(&[("k1", &key)]))]).await;
    let verifier = provider.verifier();
    let now = get_current_timestamp();
    for (claims, error) in [
        (with("exp", json!(now - 100)), TokenError::Time),
        (with("nbf", json!(now + 100)), TokenError::Time),
        (with("exp", Value::Null), TokenError::Time),
        (with("iss", json!("https://id/realms/other")), TokenError::Issuer),
        (with("iss", Value::Null), TokenError::Issuer),
        (with("aud", json!("account")), TokenError::Audience),
        (with("aud", Value::Null), TokenError::Audience),
        (with("sub", json!("")), TokenError::NoUser),
        (with("sub", json!(7)), TokenError::NoUser),
    ] {
        let refused = verifier.verify(&token(&key, Some("k1"), &claims)).await;
        assert_eq!(refused, Err(error), "{claims}");
    }
    let forged = verifier.verify(&token(&other, Some("k1"), &claims())).await;
    assert_eq!(forged, Err(TokenError::Signature));
    for garbage in ["", "a.b.c", "password", &"x".repeat(100_000)] {
        assert_eq!(verifier.verify(garbage).await, Err(TokenError::Malformed));
    }
}

#[tokio::test]
async fn tokens_signed_with_a_shared_secret_or_with_nothing_are_refused() {
    let key = signing_key();
    let provider = Provider::start(vec![Ok(key_set(&[("k1", &key)]))]).await;
    let verifier = provider.verifier();
    let header = Header {
        kid: Some("secret".into()),
        ..Header::new(Algorithm::HS256)
    };
    let shared = encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap();
    assert_eq!(verifier.verify(&shared).await, Err(TokenError::Algorithm));
    // {"alg":"none"}.{"sub":"press-1"}.
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwcmVzcy0xIn0.";
    assert_eq!(verifier.verify(unsigned).await, Err(TokenError::Malformed));
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_strangers_cannot_make_the_provider_work() {
    let (old, new) = (signing_key(), signing_key());
    let sets = vec![
        Ok(key_set(&[("old", &old)])),
        Ok(key_set(&[("old", &old), ("new", &new)])),
    ];
    let provider = Provider::start(sets).await;
    let mut verifier = provider.verifier();
    verifier
        .verify(&token(&old, Some("old"), &claims()))
        .await
        .unwrap();
    for number in 0..50 {
        let stranger = token(&new, Some(&format!("made-up-{number}")), &claims());
        assert_eq!(verifier.verify(&stranger).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(provider.requests(), 1);
    Arc::get_mut(&mut verifier.inner).unwrap().keys.min_fetch_interval = Duration::ZERO;
    verifier
        .verify(&token(&new, Some("new"), &claims()))
        .await
        .unwrap();
    assert_eq!(provider.requests(), 2);
}

#[tokio::test]
async fn while_the_provider_fails_the_known_keys_stay_good() {
    let key = signing_key();
    let provider = Provider::start(vec![
        Ok(key_set(&[("k1", &key)])),
        Err(503),
        Ok(json!({"keys": []})),
    ])
    .await;
    let verifier = provider.verifier();
    verifier.fetch().await.unwrap();
    let refused = verifier.fetch().await.unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    assert!(verifier.fetch().await.is_err(), "an empty set replaces nothing");
    verifier
        .verify(&token(&key, Some("k1"), &claims()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_provider_that_was_never_reached_is_named_as_the_reason() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let verifier = TokenVerifier::new(&config(format!("http://{gone}/certs"))).unwrap();
    let refused = verifier
        .verify(&token(&signing_key(), Some("k"), &claims()))
        .await;
    assert_eq!(refused, Err(TokenError::NoKeys));
    assert!(
        verifier
            .fetch()
            .await
            .unwrap_err()
            .to_string()
            .contains("refused")
    );
}

#[tokio::test]
async fn keys_can_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("jwks.json"), signing_key());
    std::fs::write(&file, key_set(&[("k1", &key)]).to_string()).unwrap();
    let config = TokenConfig {
        user_claim: "preferred_username".into(),
        ..config(file.display().to_string())
    };
    let verifier = TokenVerifier::new(&config).unwrap();
    let named = token(&key, Some("k1"), &with("preferred_username", json!("anna")));
    assert_eq!(verifier.verify(&named).await.unwrap().user, "anna");
}

#[test]
fn a_provider_without_issuer_or_audience_or_with_no_address_is_a_problem() {
    let mut out = Vec::new();
    let config = TokenConfig {
        jwks: Some("ftp://id/certs".into()),
        ..TokenConfig::default()
    };
    config.problems("t", &mut out);
    let paths = out
        .iter()
        .map(|problem| problem.path.as_str())
        .collect::<Vec<_>>();
    assert_eq!(paths, ["t.jwks", "t.issuer", "t.audience"]);
    TokenConfig::default().problems("t", &mut out);
    assert_eq!(out.len(), 3, "none is off");
}
