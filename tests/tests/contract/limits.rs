//! The rate limit, both HTTP versions, and what a client sees while Postgres is away.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_runtime::proxy::ProxyProtocol;
use shopfloor_tests::postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;

fn any_port() -> ListenerConfig {
    ListenerConfig::new("127.0.0.1:0".parse().unwrap())
}

async fn limited(listener: ListenerConfig) -> Server {
    let url = tokio::task::spawn_blocking(|| postgres::database("limits"))
        .await
        .unwrap();
    Server::start(&url, listener, |config| config.rate_limit.enabled = true).await
}

#[tokio::test]
async fn the_fifty_first_request_of_a_window_is_refused_and_every_answer_says_where_one_stands() {
    let server = limited(any_port()).await;
    for n in 1..=50_u32 {
        let answer = server.get("/machine").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), "50");
        assert_eq!(answer.header("x-retry-remaining"), (50 - n).to_string());
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=50;w=60");
        assert!(
            answer
                .header("ratelimit")
                .starts_with(&format!("\"default\";r={};t=", 50 - n))
        );
        let retry_after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&retry_after) && !answer.header("x-retry-reset").is_empty());
    }
    let refused = server.get("/machine").await;
    assert_eq!(
        (refused.status, refused.body),
        (429, json!({"statusCode": 429, "message": "Rate limit exceeded"}))
    );
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_before_it_is_counted_and_the_gateways_are_not_limited() {
    let server = limited(any_port()).await;
    let json_type = [("content-type".to_owned(), "application/json".to_owned())];
    for _ in 0..60 {
        let broken = server.send("POST", "/api/v1/materials", &json_type, "{").await;
        assert_eq!((broken.status, broken.header("x-ratelimit-limit")), (400, ""));
        let internal = server.send("GET", "/internal/v1/nothing", &[], "").await;
        assert_eq!(internal.status, 404);
    }
    assert_eq!(server.get("/machine").await.header("x-retry-remaining"), "49");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_says_when_to_come_back_and_not_when_the_window_ends() {
    let mut cluster = tokio::task::spawn_blocking(postgres::own).await.unwrap();
    cluster.create_database("away").unwrap();
    let server = Server::start(&cluster.url("away"), any_port(), |config| {
        config.rate_limit.enabled = true;
        config.rate_limit.requests = 2;
        config.database.connect_timeout_ms = 500;
    })
    .await;
    tokio::task::block_in_place(|| cluster.kill()).unwrap();
    let away = server.get("/machine").await;
    assert_eq!((away.status, away.header("retry-after")), (503, "2"));
    // The last of the window: earlier than its end the next one is refused.
    let last = server.get("/machine").await;
    assert_eq!((last.status, last.header("x-retry-remaining")), (503, "0"));
    assert!(last.header("retry-after").parse::<u32>().unwrap() > 30);
}

#[tokio::test]
async fn every_client_behind_the_proxy_has_its_own_window() {
    let server = limited(ListenerConfig {
        proxy_protocol: ProxyProtocol::Required,
        ..any_port()
    })
    .await;
    for (client, remaining) in [("10.0.0.1", 49), ("10.0.0.1", 48), ("10.0.0.2", 49)] {
        let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "PROXY TCP4 {client} 127.0.0.1 4000 3002\r\nGET /api/v1/machine HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains(&format!("x-retry-remaining: {remaining}\r\n")),
            "{client}: {answer}"
        );
    }
}

#[tokio::test]
async fn http_2_without_tls_is_answered_on_the_same_port() {
    let server = Server::fresh().await;
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let request = Request::get(format!("http://{}/api/v1/materials", server.address));
    let answer = client
        .request(request.body(Empty::<bytes::Bytes>::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.version(), hyper::Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "[]");
}

#[tokio::test]
async fn no_answer_names_what_it_was_made_with_and_every_answer_has_a_request_id() {
    let server = Server::fresh().await;
    let answer = server.get("/materials").await;
    assert_eq!((answer.header("x-powered-by"), answer.header("server")), ("", ""));
    assert_eq!(answer.header("x-request-id").len(), 36);
    let own = [("x-request-id".to_owned(), "mine".to_owned())];
    assert_eq!(
        server
            .send("GET", "/nothing", &own, "")
            .await
            .header("x-request-id"),
        "mine"
    );
    for unfit in ["", "two words", "tab\there", &"x".repeat(129)] {
        let answer = server
            .with(&[("x-request-id", unfit)], "GET", "/materials", Value::Null)
            .await;
        assert_eq!(answer.header("x-request-id").len(), 36, "{unfit:?}");
    }
}

#[tokio::test]
async fn scripts_of_another_origin_may_read_every_header_that_tells_them_something() {
    let server = Server::configured(|config| config.rate_limit.enabled = true).await;
    let key = [("idempotency-key", "k"), ("origin", "https://elsewhere")];
    let make = || server.with(&key, "POST", "/materials", json!({"name": "zinc"}));
    let first = make().await;
    let replayed = make().await;
    let read = server
        .with(
            &[("origin", "https://elsewhere")],
            "GET",
            "/materials?pageSize=1",
            Value::Null,
        )
        .await;
    // What browsers show, and what is not for scripts.
    let plain = [
        "content-type",
        "content-length",
        "vary",
        "access-control-allow-origin",
        "access-control-expose-headers",
    ];
    for answer in [first, replayed, read] {
        let exposed = answer.header("access-control-expose-headers").to_owned();
        for name in answer
            .headers
            .keys()
            .filter(|name| !plain.contains(&name.as_str()))
        {
            assert!(
                exposed.split(',').any(|shown| shown == name.as_str()),
                "{name} is not in {exposed}"
            );
        }
    }
}

fn assert_unavailable(status: u16, retry_after: &str, body: &Value) {
    assert_eq!(
        (status, body),
        (503, &json!({"statusCode": 503, "message": "Service Unavailable"}))
    );
    assert!(retry_after.parse::<u32>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_clients_are_told_to_come_back_and_afterwards_are_served() {
    let mut cluster = tokio::task::spawn_blocking(postgres::own).await.unwrap();
    cluster.create_database("away").unwrap();
    let server = Server::start(&cluster.url("away"), any_port(), |config| {
        config.request_timeout_ms = 1_000;
        config.database.connect_timeout_ms = 500;
    })
    .await;
    assert_eq!(server.json("POST", "/machine", json!({})).await.status, 201);
    assert_eq!(server.store.ready().await, Ok(()));

    tokio::task::block_in_place(|| cluster.pause()).unwrap();
    let asked = Instant::now();
    let hung = server.json("POST", "/machine", json!({})).await;
    assert_unavailable(hung.status, hung.header("retry-after"), &hung.body);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    tokio::task::block_in_place(|| cluster.resume()).unwrap();

    tokio::task::block_in_place(|| cluster.kill()).unwrap();
    for _ in 0..20 {
        let down = server.get("/machine").await;
        assert_unavailable(down.status, down.header("retry-after"), &down.body);
    }
    assert!(
        server
            .store
            .ready()
            .await
            .unwrap_err()
            .contains("Postgres does not answer")
    );
    tokio::task::block_in_place(|| cluster.restart()).unwrap();
    let back = server.json("POST", "/machine", json!({})).await;
    assert_eq!(back.status, 201);
    assert_eq!(server.store.ready().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_rows_is_whole_and_one_client_that_reads_slowly_delays_nobody() {
    let server = Server::fresh().await;
    let script = "INSERT INTO machine SELECT generate_series(1, 200000)";
    assert_eq!(
        server
            .count(&format!(
                "WITH added AS ({script} RETURNING 1) SELECT count(*) FROM added"
            ))
            .await,
        200_000
    );
    let mut slow = tokio::net::TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET /api/v1/machine HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    slow.read_exact(&mut [0; 1]).await.unwrap();
    let listed = server.get("/machine").await.body;
    let listed = listed.as_array().unwrap();
    assert_eq!(
        (listed.len(), &listed[199_999]),
        (200_000, &json!({"id": 200_000}))
    );
    let mut rest = String::new();
    slow.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.ends_with("]\r\n0\r\n\r\n"),
        "the slow client's list breaks off"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_no_list_take_neither_the_pool_nor_a_connection_for_long() {
    let url = tokio::task::spawn_blocking(|| postgres::database("unread")).await;
    let server = Server::start(&url.unwrap(), any_port(), |config| {
        config.database.max_connections = 2;
        config.database.connect_timeout_ms = 1_000;
        config.database.list_timeout_ms = 3_000;
    })
    .await;
    // More than the sockets of both sides take in.
    let script = "WITH added AS (INSERT INTO machine SELECT generate_series(1, 2000000) RETURNING 1)
        SELECT count(*) FROM added";
    assert_eq!(server.count(script).await, 2_000_000);
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut client = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /api/v1/machine HTTP/1.1\r\nhost: shopfloor\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        // The first one has its list before the others ask.
        if unread.is_empty() {
            let mut answer = vec![0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 200");
        }
        unread.push(client);
    }
    for _ in 0..20 {
        assert_eq!(server.get("/machine/1").await.status, 200);
    }

    // Other lists wait only until the time of this one is over, although nobody reads it.
    let mut other = server.get("/materials").await;
    let began = Instant::now();
    while other.status == 503 && began.elapsed() < Duration::from_secs(30) {
        other = server.get("/materials").await;
    }
    assert_eq!((other.status, other.body), (200, json!([])));

    // A list that broke off cannot be taken for a whole one.
    let mut rest = Vec::new();
    let _reset = unread[0].read_to_end(&mut rest).await;
    assert!(!rest.is_empty() && !rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_whose_bodies_trickle_in_keep_no_gateway_out() {
    let url = tokio::task::spawn_blocking(|| postgres::database("trickle")).await;
    let server = Server::start(&url.unwrap(), any_port(), |config| {
        config.max_requests_in_flight = 1;
    })
    .await;
    let mut slow = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = b"POST /api/v1/materials HTTP/1.1\r\nhost: shopfloor\r\ncontent-type: application/json\r\n\
                 content-length: 10\r\n\r\n{";
    slow.write_all(head).await.unwrap();
    // The one place is taken once another client is refused.
    let began = Instant::now();
    while server.get("/machine").await.status != 503 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the slow request never took its place"
        );
    }
    let gateway = server.send("GET", "/internal/v1/quarantine", &[], "").await;
    assert_eq!(gateway.status, 200, "{}", gateway.body);
}
