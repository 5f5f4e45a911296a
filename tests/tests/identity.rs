//! Bearer tokens and roles on the REST API, with an identity provider that signs as Keycloak does.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shopfloor::config::Config;
use shopfloor::node::GatewayNode;
use shopfloor_tests::realm::{Realm, now_s};
use shopfloor_tests::rest::{Answer, Server};

const WITHIN: Duration = Duration::from_secs(30);

/// An API that names the realm's issuer and nothing else.
async fn server(realm: &Realm) -> Server {
    Server::configured(|config| config.identity.issuer = Some(realm.issuer())).await
}

async fn send(server: &Server, method: &str, path: &str, authorization: Option<&str>, body: Value) -> Answer {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![header("content-type", "application/json")];
    headers.extend(authorization.map(|value| header("authorization", value)));
    server
        .send(method, &format!("/api/v1{path}"), &headers, body.to_string())
        .await
}

async fn with_token(server: &Server, method: &str, path: &str, token: &str) -> Answer {
    let body = json!({"name": "zinc"});
    send(server, method, path, Some(&format!("Bearer {token}")), body).await
}

#[tokio::test]
async fn without_a_named_issuer_everybody_may_do_everything_as_ever() {
    let server = Server::configured(|_| {}).await;
    let created = send(&server, "POST", "/machine", Some("Bearer nonsense"), json!({})).await;
    assert_eq!(created.status, 201);
    assert_eq!(
        send(&server, "DELETE", "/machine/1", None, json!({}))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn without_a_good_token_the_answer_is_401_and_says_what_to_do() {
    let realm = Realm::start().await;
    let server = server(&realm).await;
    let stranger = send(&server, "GET", "/machine", None, json!({})).await;
    assert_eq!(stranger.refusal(), (401, json!("this needs a bearer token")));
    assert_eq!(stranger.header("www-authenticate"), "Bearer realm=\"shopfloor\"");

    let changed = |key: &str, value: Value| {
        let mut claims = realm.claims(&["admin"]);
        claims[key] = value;
        realm.sign(&claims)
    };
    let good = realm.token(&["admin"]);
    let (head, _) = good.rsplit_once('.').unwrap();
    let viewer = realm.token(&["viewer"]);
    let (_, others) = viewer.rsplit_once('.').unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.e30.";
    for (token, text) in [
        (
            changed("exp", json!(now_s() - 60)),
            "the token has expired or is not valid yet",
        ),
        (
            changed("nbf", json!(now_s() + 60)),
            "the token has expired or is not valid yet",
        ),
        (
            changed("iss", json!("http://elsewhere")),
            "the token is from another issuer",
        ),
        (
            changed("aud", json!("account")),
            "the token is for another audience",
        ),
        (format!("{head}.{others}"), "the signature is wrong"),
        (unsigned.to_owned(), "this is no signed token"),
        ("x".repeat(20_000), "this is no signed token"),
    ] {
        let refused = with_token(&server, "GET", "/machine", &token).await;
        assert_eq!(refused.refusal(), (401, json!(text)));
        let challenge = refused.header("www-authenticate");
        assert!(
            challenge
                .starts_with("Bearer realm=\"shopfloor\", error=\"invalid_token\", error_description=\""),
            "{challenge}"
        );
    }
    let basic = send(&server, "GET", "/machine", Some("Basic YTpi"), json!({})).await;
    assert_eq!(basic.status, 401);
    // Strangers' bodies are not read, and unknown addresses are not told apart.
    let json_type = [("content-type".to_owned(), "application/json".to_owned())];
    assert_eq!(
        server
            .send("POST", "/api/v1/materials", &json_type, "{")
            .await
            .status,
        401
    );
    assert_eq!(server.send("GET", "/api/v1/nothing", &[], "").await.status, 401);
    // Nor can a browser's preflight carry a token.
    let preflight = [("origin", "http://a"), ("access-control-request-method", "POST")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        server
            .send("OPTIONS", "/api/v1/machine", &preflight, "")
            .await
            .status,
        204
    );
    assert_eq!(
        server
            .send("GET", "/api/v1/production/production-swagger-spec.json", &[], "")
            .await
            .status,
        200
    );
}

/// The roles that may, of those that there are; the body is none that the operation takes.
async fn who_may(
    server: &Server,
    tokens: &[(&'static str, String)],
    method: &str,
    path: &str,
) -> Vec<&'static str> {
    let mut may = Vec::new();
    for (role, token) in tokens {
        let answer = send(
            server,
            method,
            path,
            Some(&format!("Bearer {token}")),
            json!({"x": 1}),
        )
        .await;
        if answer.status != 403 {
            assert_ne!(answer.status, 401, "{method} {path}: {}", answer.body);
            may.push(*role);
            continue;
        }
        let challenge = answer.header("www-authenticate");
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        let text = answer.body["message"].as_str().unwrap();
        assert!(text.starts_with("this needs the role "), "{text}");
    }
    may
}

#[tokio::test]
async fn each_operation_is_for_the_role_that_the_document_says_and_those_above_it() {
    let realm = Realm::start().await;
    let server = server(&realm).await;
    let roles = ["viewer", "operator", "admin"];
    let mut tokens: Vec<_> = roles
        .map(|role| (role, realm.token(&["offline_access", role])))
        .into();
    tokens.insert(0, ("none", realm.token(&["offline_access"])));
    let document = server
        .send("GET", "/api/v1/production/production-swagger-spec.json", &[], "")
        .await;
    let mut operations = 0;
    for (path, methods) in document.body["paths"].as_object().unwrap() {
        let asked = path
            .strip_prefix("/api/v1")
            .unwrap()
            .replace("{uuid}", "{id}")
            .replace("{materialId}", "{id}")
            .replace("{id}", "77777")
            // Refused once the role is there: the stream itself has no end.
            .replace("/stream", "/stream?machineId=none");
        for (method, operation) in methods.as_object().unwrap() {
            let needed = roles
                .iter()
                .position(|role| operation["x-role"] == *role)
                .unwrap();
            let may = who_may(&server, &tokens, &method.to_uppercase(), &asked).await;
            assert_eq!(may, roles[needed..], "{method} {path}");
            operations += 1;
        }
    }
    assert!(operations >= 39, "{operations}");
    // A client's own roles count as well.
    let mut claims = realm.claims(&[]);
    claims["resource_access"] =
        json!({"shopfloor-api": {"roles": ["viewer"]}, "other": {"roles": ["admin"]}});
    let token = realm.sign(&claims);
    assert_eq!(with_token(&server, "GET", "/machine", &token).await.status, 200);
    assert_eq!(with_token(&server, "POST", "/machine", &token).await.status, 403);
}

#[tokio::test]
async fn an_idempotency_key_is_its_callers_own() {
    let realm = Realm::start().await;
    let server = server(&realm).await;
    for (user, status, machines) in [("anna", 201, 1), ("anna", 201, 1), ("ben", 201, 2)] {
        let mut claims = realm.claims(&["admin"]);
        claims["sub"] = json!(user);
        let token = format!("Bearer {}", realm.sign(&claims));
        let headers = [("authorization", token.as_str()), ("idempotency-key", "one")];
        let answer = server.with(&headers, "POST", "/machine", json!({})).await;
        assert_eq!(answer.status, status, "{user}: {}", answer.body);
        assert_eq!(
            server.count("SELECT count(*) FROM machine").await,
            machines,
            "{user}"
        );
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart_and_known_ones_stay_good_while_the_provider_is_away() {
    let realm = Realm::start().await;
    let server = server(&realm).await;
    let old = realm.token(&["admin"]);
    assert_eq!(with_token(&server, "GET", "/machine", &old).await.status, 200);

    realm.set_down(true);
    assert_eq!(with_token(&server, "GET", "/machine", &old).await.status, 200);
    realm.rotate_to("second");
    let new = realm.token(&["admin"]);
    let refused = with_token(&server, "GET", "/machine", &new).await;
    assert_eq!(
        refused.refusal(),
        (401, json!("the identity provider has no such key"))
    );
    assert_eq!(with_token(&server, "GET", "/machine", &old).await.status, 200);

    realm.set_down(false);
    let began = Instant::now();
    while with_token(&server, "GET", "/machine", &new).await.status != 200 {
        assert!(began.elapsed() < WITHIN, "the new key is not fetched");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let withdrawn = with_token(&server, "GET", "/machine", &old).await;
    assert_eq!(withdrawn.status, 401, "a key that the provider has withdrawn");
}

#[tokio::test]
async fn while_there_are_no_keys_nobody_is_let_in_and_clients_are_told_to_come_back() {
    let realm = Realm::start().await;
    realm.set_down(true);
    let server = server(&realm).await;
    let refused = with_token(&server, "GET", "/machine", &realm.token(&["admin"])).await;
    assert_eq!(
        refused.refusal(),
        (503, json!("the identity provider's keys could not be fetched"))
    );
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(
        send(&server, "GET", "/machine", None, json!({})).await.status,
        401
    );
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Config::default();
    gateway.gateway.data_dir = dir.path().to_owned();
    gateway.mqtt.auth.allow_anonymous = true;
    gateway.mqtt.listeners[0].listen = "127.0.0.1:0".parse().unwrap();
    let gateway = GatewayNode::start(&gateway, None).await.unwrap();
    let realm = Realm::start().await;
    let server = Server::configured(|config| {
        config.identity.issuer = Some(realm.issuer());
        config.identity.leeway_s = 0;
        config.mqtt.addresses = vec![gateway.mqtt[0].to_string()];
    })
    .await;
    let mut claims = realm.claims(&["viewer"]);
    claims["exp"] = json!(now_s() + 4);
    let request = hyper::Request::get(format!("http://{}/api/v1/mqtt/subscribe?topic=a", server.address))
        .header("authorization", format!("Bearer {}", realm.sign(&claims)))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let stream = Client::builder(TokioExecutor::new())
        .build_http()
        .request(request)
        .await
        .unwrap();
    assert_eq!(stream.status(), 200);
    let ended = tokio::time::timeout(WITHIN, stream.into_body().collect()).await;
    ended.expect("the stream ends").expect("and ends well");
    assert!(
        now_s() >= claims["exp"].as_u64().unwrap(),
        "it did not end before the token"
    );
}

#[test]
fn the_realm_of_compose_has_the_roles_and_the_audience_that_the_api_asks_for() {
    let file = shopfloor_tests::repository::root().join("compose/keycloak-realm.json");
    let realm: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let roles = realm["roles"]["realm"].as_array().unwrap();
    let names: Vec<&str> = roles.iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["viewer", "operator", "admin"]);
    let audience = shopfloor_api::IdentityConfig::default().audience;
    let scopes = realm["clientScopes"].as_array().unwrap();
    let mappers = scopes
        .iter()
        .flat_map(|scope| scope["protocolMappers"].as_array().unwrap());
    let added: Vec<_> = mappers
        .filter(|mapper| mapper["protocolMapper"] == "oidc-audience-mapper")
        .map(|mapper| mapper["config"]["included.custom.audience"].clone())
        .collect();
    assert_eq!(added, [json!(audience)]);
}
