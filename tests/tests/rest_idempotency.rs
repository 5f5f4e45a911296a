//! `Idempotency-Key`: a write that is sent again is answered again, and done once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_tests::postgres;
use shopfloor_tests::rest::{Answer, Server};

async fn under(server: &Server, key: &str, method: &str, path: &str, body: Value) -> Answer {
    server.with(&[("idempotency-key", key)], method, path, body).await
}

async fn same(server: &Server, key: &str, method: &str, path: &str, body: Value) -> Answer {
    let first = under(server, key, method, path, body.clone()).await;
    assert!(
        first.status < 300,
        "{method} {path}: {} {}",
        first.status,
        first.body
    );
    assert_eq!(first.header("idempotency-replayed"), "");
    let records = server.new_records().await.len();
    let again = under(server, key, method, path, body).await;
    assert_eq!(
        (
            again.status,
            &again.bytes,
            again.header("etag"),
            again.header("content-type")
        ),
        (
            first.status,
            &first.bytes,
            first.header("etag"),
            first.header("content-type")
        ),
        "{method} {path}"
    );
    assert_eq!(again.header("idempotency-replayed"), "true", "{method} {path}");
    let more = server.new_records().await.len();
    assert_eq!(
        more, 0,
        "{method} {path}: told Kafka {records} and then {more} more"
    );
    first
}

#[tokio::test]
async fn every_write_sent_again_answers_the_same_and_is_done_once() {
    let server = Server::fresh().await;
    let part = json!({"defaultPrice": 1.5, "timeToProduce": 60});
    let unit = json!({
        "timeOfProduction": "2024-05-01T10:00:00.250Z", "order": 7, "var5": true, "machineId": 1, "partId": 1,
    });
    let dated = json!({"price": 1.5, "date": "15/02/2020"});
    let writes = [
        ("POST", "/materials", json!({"name": "zinc"})),
        (
            "POST",
            "/materials/many-materials",
            json!({"materials": [{"name": "tin"}, {"name": "iron"}]}),
        ),
        ("PATCH", "/materials/1", json!({"name": "lead"})),
        (
            "PATCH",
            "/materials/many-materials",
            json!({"materials": [{"id": 2, "name": "steel"}]}),
        ),
        ("POST", "/part-information", part.clone()),
        (
            "POST",
            "/part-information/many-part-informations",
            json!({"partInformations": [part]}),
        ),
        ("PATCH", "/part-information/1", json!({"defaultPrice": 2.5})),
        (
            "POST",
            "/materials/1/part-informations",
            json!({"partInformationIds": [1]}),
        ),
        (
            "POST",
            "/part-information/2/materials",
            json!({"materialIds": [1]}),
        ),
        (
            "DELETE",
            "/part-information/2/materials",
            json!({"materialIds": [1]}),
        ),
        ("POST", "/materials/prices/1", dated.clone()),
        ("DELETE", "/materials/prices/1", dated.clone()),
        (
            "POST",
            "/materials/prices/1/many-prices",
            json!({"prices": [dated.clone()]}),
        ),
        (
            "DELETE",
            "/materials/prices/1/many-prices",
            json!({"prices": [dated]}),
        ),
        ("POST", "/machine", json!({})),
        ("POST", "/machine/many-machines", json!({"quantity": 3})),
        ("DELETE", "/machine/many-machines", json!({"machineIds": [2, 3]})),
        ("DELETE", "/machine/4", Value::Null),
        ("POST", "/supply-chain", unit.clone()),
        (
            "POST",
            "/supply-chain/many-supply-chain",
            json!({"supplyChains": [unit]}),
        ),
        ("DELETE", "/materials/3", Value::Null),
        ("DELETE", "/part-information/2", Value::Null),
    ];
    for (number, (method, path, body)) in writes.into_iter().enumerate() {
        same(&server, &format!("key-{number}"), method, path, body).await;
    }
    let unit = server.get("/supply-chain").await.body[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/supply-chain/{unit}");
    let changed = same(&server, "unit", "PATCH", &path, json!({"order": 8})).await;
    assert_eq!(changed.header("etag"), server.get(&path).await.header("etag"));
}

#[tokio::test]
async fn a_key_names_one_request_by_one_method_at_one_address() {
    let server = Server::fresh().await;
    let zinc = json!({"name": "zinc"});
    let first = under(&server, "k", "POST", "/materials", zinc.clone()).await;
    assert_eq!(first.status, 201);
    // Quotes, as the draft wants them, make no other key.
    let quoted = under(&server, "\"k\"", "POST", "/materials", zinc.clone()).await;
    assert_eq!(quoted.bytes, first.bytes);
    let reused = under(&server, "k", "POST", "/materials", json!({"name": "tin"})).await;
    assert_eq!(
        (reused.status, server.count("SELECT count(*) FROM material").await),
        (422, 1)
    );
    assert!(
        reused.body["message"]
            .as_str()
            .unwrap()
            .contains("Idempotency-Key")
    );
    let elsewhere = under(&server, "k", "PATCH", "/materials/1", json!({"name": "lead"})).await;
    assert_eq!(elsewhere.status, 200);
    for same in [
        "/materials/01",
        "/materials/1/",
        "/Materials/+1",
        "/materials/%31",
    ] {
        let again = under(&server, "k", "PATCH", same, json!({"name": "lead"})).await;
        assert_eq!(
            again.header("idempotency-replayed"),
            "true",
            "{same}: {}",
            again.body
        );
    }
    let other = under(&server, "k2", "POST", "/materials", json!({"name": "tin"})).await;
    assert_eq!(other.status, 201);
    for key in ["", "two words", &"x".repeat(256)] {
        let answer = under(&server, key, "POST", "/materials", json!({"name": "iron"})).await;
        assert_eq!(answer.status, 400, "{key:?}");
    }
    assert_eq!(
        under(&server, "k", "GET", "/materials", Value::Null).await.status,
        200
    );
}

#[tokio::test]
async fn a_refused_write_leaves_its_key_free_and_a_done_one_is_answered_whatever_its_condition_says_now() {
    let server = Server::fresh().await;
    let zinc = json!({"name": "zinc"});
    let missing = under(&server, "k", "PATCH", "/materials/1", json!({"name": "tin"})).await;
    assert_eq!(missing.status, 404);
    assert_eq!(server.json("POST", "/materials", zinc).await.status, 201);
    let now = under(&server, "k", "PATCH", "/materials/1", json!({"name": "tin"})).await;
    assert_eq!(now.status, 200);

    let tag = server.get("/materials/1").await.header("etag").to_owned();
    let headers = [("idempotency-key", "guarded"), ("if-match", tag.as_str())];
    for _ in 0..2 {
        let answer = server
            .with(&headers, "PATCH", "/materials/1", json!({"name": "lead"}))
            .await;
        assert_eq!((answer.status, &answer.body["name"]), (200, &json!("lead")));
    }
}

#[tokio::test]
async fn the_answer_commits_with_the_write_or_neither_does() {
    let server = Server::fresh().await;
    // What a crash between the two would be, at the last moment that there is.
    let broken = "ALTER TABLE idempotency ADD CONSTRAINT broken CHECK (false) NOT VALID";
    server.database.batch_execute(broken).await.unwrap();
    let zinc = json!({"name": "zinc"});
    let failed = under(&server, "k", "POST", "/materials", zinc.clone()).await;
    assert_eq!(failed.status, 500);
    assert_eq!(server.count("SELECT count(*) FROM material").await, 0);
    assert!(server.new_records().await.is_empty());
    let mended = "ALTER TABLE idempotency DROP CONSTRAINT broken";
    server.database.batch_execute(mended).await.unwrap();
    assert_eq!(under(&server, "k", "POST", "/materials", zinc).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_first_is_worked_on_the_second_is_told_and_later_gets_its_answer() {
    let server = Server::fresh().await;
    assert_eq!(
        server
            .json("POST", "/materials", json!({"name": "zinc"}))
            .await
            .status,
        201
    );
    // Somebody else holds the row.
    server
        .database
        .batch_execute("BEGIN; SELECT 1 FROM material FOR UPDATE")
        .await
        .unwrap();
    let patch = || under(&server, "k", "PATCH", "/materials/1", json!({"name": "tin"}));
    let release = async {
        let began = Instant::now();
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
        while server.count(held).await == 0 {
            assert!(began.elapsed() < Duration::from_secs(8), "the first never began");
        }
        let second = patch().await;
        assert_eq!(second.status, 409, "{}", second.body);
        assert!(
            second.body["message"]
                .as_str()
                .unwrap()
                .contains("being worked on")
        );
        assert_eq!(second.header("retry-after"), "1");
        server.database.batch_execute("ROLLBACK").await.unwrap();
    };
    let (first, ()) = tokio::join!(patch(), release);
    assert_eq!(first.status, 200);
    let later = patch().await;
    assert_eq!((later.status, later.bytes), (200, first.bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_equal_requests_to_two_api_processes_one_writes() {
    let url = tokio::task::spawn_blocking(|| postgres::database("once"))
        .await
        .unwrap();
    let listener = || ListenerConfig::new("127.0.0.1:0".parse().unwrap());
    let servers = [
        Server::start(&url, listener(), |_| {}).await,
        Server::start(&url, listener(), |_| {}).await,
    ];
    for round in 0..5 {
        let key = format!("round-{round}");
        let requests = (0..12).map(|n| under(&servers[n % 2], &key, "POST", "/machine", json!({})));
        let answers = futures_util::future::join_all(requests).await;
        let mut created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert!(!created.is_empty());
        assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 409)));
        created.dedup_by_key(|answer| answer.bytes.clone());
        assert_eq!(created.len(), 1, "every answer tells of the same machine");
        assert_eq!(servers[0].count("SELECT count(*) FROM machine").await, round + 1);
    }
}

#[tokio::test]
async fn answers_are_bounded_in_size_number_and_age() {
    let server = Server::configured(|config| config.idempotency.max_answer_bytes = 1_024).await;
    let many = json!({"quantity": 100});
    let large = under(&server, "large", "POST", "/machine/many-machines", many.clone()).await;
    assert_eq!(large.status, 400);
    assert!(
        large.body["message"].as_str().unwrap().contains("1024"),
        "{}",
        large.body
    );
    assert_eq!(server.count("SELECT count(*) FROM machine").await, 0);
    assert_eq!(
        server.json("POST", "/machine/many-machines", many).await.status,
        201
    );

    // The background work of an API trims what is too old or too much.
    let mut config = shopfloor::config::Config::default();
    config.api.listener.listen = "127.0.0.1:0".parse().unwrap();
    config.api.database.url = tokio::task::spawn_blocking(|| postgres::database("trimmed"))
        .await
        .unwrap();
    config.api.idempotency.max_keys = 5;
    let store = shopfloor_api::Store::new(&config.api.database).unwrap();
    store.migrate().await.unwrap();
    let database = shopfloor_tests::database::connect(&config.api.database.url).await;
    let script = "
        INSERT INTO idempotency SELECT n::text::bytea, '', 201, NULL, '', now() - n * interval '1 minute'
        FROM generate_series(1, 10) n;
        INSERT INTO idempotency VALUES ('old', '', 201, NULL, '', now() - interval '25 hours')";
    database.batch_execute(script).await.unwrap();
    let node = shopfloor::node::ApiNode::start(&config, None, None)
        .await
        .unwrap();
    let began = Instant::now();
    let left = "SELECT string_agg(encode(scope, 'escape'), ',' ORDER BY created_at DESC) FROM idempotency";
    while shopfloor_tests::database::value(&database, left).await != "1,2,3,4,5" {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the rest was never trimmed"
        );
    }
    node.stop().await;
}
