//! Errors as problem details, where a client asks for them, and as the original's where it does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shopfloor_tests::rest::{Answer, Server};
use tokio::io::AsyncWriteExt;

const PROBLEM: (&str, &str) = ("accept", "application/problem+json");

fn assert_problem(answer: &Answer, status: u16, kind: &str, instance: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let length: usize = answer.header("content-length").parse().unwrap();
    assert_eq!(length, answer.bytes.len());
    let body = &answer.body;
    assert_eq!(body["type"], format!("urn:shopfloor:problem:{kind}"));
    assert_eq!(
        (&body["status"], &body["instance"]),
        (&json!(status), &json!(instance))
    );
    assert!(!body["title"].as_str().unwrap().is_empty());
    assert!(!body["detail"].as_str().unwrap().is_empty());
    assert_eq!(body["requestId"], answer.header("x-request-id"));
}

#[tokio::test]
async fn every_refusal_of_a_resource_can_be_a_problem() {
    let server = Server::fresh().await;
    let get = |path: &'static str| server.with(&[PROBLEM], "GET", path, Value::Null);
    assert_problem(
        &get("/materials/9").await,
        404,
        "not_found",
        "/api/v1/materials/9",
    );
    assert_problem(&get("/nothing").await, 404, "not_found", "/api/v1/nothing");
    assert_problem(&get("/machine/x").await, 400, "malformed", "/api/v1/machine/x");
    // The original knows no 405: a method that a path has not is not found.
    let put = server.with(&[PROBLEM], "PUT", "/machine/1", Value::Null).await;
    assert_problem(&put, 404, "not_found", "/api/v1/machine/1");
    let page = server
        .with(&[PROBLEM], "GET", "/production/none.js", Value::Null)
        .await;
    assert_problem(&page, 404, "not_found", "/api/v1/production/none.js");

    let body = json!({"timeToProduce": "x", "more": 1});
    let fields = server
        .with(&[PROBLEM], "POST", "/part-information", body.clone())
        .await;
    assert_problem(&fields, 400, "fields", "/api/v1/part-information");
    let original = server.json("POST", "/part-information", body).await;
    assert_eq!(fields.body["errors"], original.body["message"]);
    assert!(fields.body["errors"].as_array().unwrap().len() > 2);

    let zinc = json!({"name": "zinc"});
    assert_eq!(server.json("POST", "/materials", zinc.clone()).await.status, 201);
    let twice = server.with(&[PROBLEM], "POST", "/materials", zinc.clone()).await;
    assert_problem(&twice, 409, "conflict", "/api/v1/materials");
    let stale = server
        .with(&[PROBLEM, ("if-match", "\"x\"")], "PATCH", "/materials/1", zinc)
        .await;
    assert_problem(&stale, 412, "precondition_failed", "/api/v1/materials/1");
    let large = json!({"name": "x".repeat(200_000)});
    let large = server.with(&[PROBLEM], "POST", "/materials", large).await;
    assert_problem(&large, 413, "too_large", "/api/v1/materials");
    let latin = [
        PROBLEM,
        ("content-type", "application/json; charset=latin1"),
        ("x-request-id", "mine"),
    ];
    let charset = server.with(&latin, "POST", "/materials", Value::Null).await;
    assert_problem(&charset, 415, "unsupported_media", "/api/v1/materials");
    assert_eq!(charset.body["requestId"], "mine");
}

#[tokio::test]
async fn whoever_does_not_name_problems_gets_the_originals_errors() {
    let server = Server::fresh().await;
    for accept in [
        "*/*",
        "application/*",
        "application/problem+json;q=0.1, application/json",
    ] {
        let answer = server
            .with(&[("accept", accept)], "GET", "/materials/9", Value::Null)
            .await;
        assert_eq!(
            (answer.status, answer.body),
            (404, json!({"statusCode": 404, "message": "Material not found"})),
            "{accept}"
        );
    }
    let fine = server.with(&[PROBLEM], "GET", "/materials", Value::Null).await;
    assert_eq!((fine.status, fine.body), (200, json!([])));
    // A cache between must not give one client's form to the other.
    let vary = server.get("/materials/9").await;
    let vary: Vec<_> = vary.headers.get_all("vary").iter().collect();
    assert!(
        vary.iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"accept")),
        "{vary:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stacks_own_refusals_are_problems_too() {
    let server = Server::configured(|config| {
        config.max_requests_in_flight = 1;
        config.rate_limit.enabled = true;
        config.rate_limit.requests = 1;
    })
    .await;
    let get = || server.with(&[PROBLEM], "GET", "/machine", Value::Null);
    assert_eq!(get().await.status, 200);
    let limited = get().await;
    assert_problem(&limited, 429, "rate_limited", "/api/v1/machine");
    assert!(!limited.header("retry-after").is_empty());

    // A body that never ends takes the only place.
    let mut slow = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = b"POST /api/v1/materials HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                 content-length: 10\r\n\r\n{";
    slow.write_all(head).await.unwrap();
    let began = Instant::now();
    let mut full = get().await;
    while full.status != 503 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the place was never taken"
        );
        full = get().await;
    }
    assert_problem(&full, 503, "overloaded", "/api/v1/machine");
    assert!(!full.header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_away_is_told_without_what_only_operators_may_see() {
    let mut cluster = tokio::task::spawn_blocking(shopfloor_tests::postgres::own)
        .await
        .unwrap();
    cluster.create_database("away").unwrap();
    let any_port = shopfloor_runtime::accept::ListenerConfig::new("127.0.0.1:0".parse().unwrap());
    let server = Server::start(&cluster.url("away"), any_port, |config| {
        config.database.connect_timeout_ms = 500;
    })
    .await;
    tokio::task::block_in_place(|| cluster.kill()).unwrap();
    let down = server.with(&[PROBLEM], "GET", "/machine", Value::Null).await;
    assert_problem(&down, 503, "unavailable", "/api/v1/machine");
    let text = down.body.to_string();
    assert!(
        !text.contains("postgres") && !text.contains("127.0.0.1"),
        "{text}"
    );
}
