//! Live updates of units: nothing is missed over reconnects, over API processes, and by late commits.

mod behind_haproxy;
mod client;
mod histories;

use std::collections::BTreeSet;
use std::time::Duration;

use client::{Stream, WITHIN};
use serde_json::{Value, json};
use shopfloor_api::ApiConfig;
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_tests::rest::Server;
use shopfloor_tests::{database, postgres};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn url() -> String {
    tokio::task::spawn_blocking(|| postgres::database("stream"))
        .await
        .unwrap()
}

async fn server(url: &str, configure: impl FnOnce(&mut ApiConfig)) -> Server {
    let any_port = ListenerConfig::new("127.0.0.1:0".parse().unwrap());
    let server = Server::start(url, any_port, |config| {
        config.unit_stream.poll_interval_ms = 20;
        config.unit_stream.heartbeat_ms = 100;
        configure(config);
    })
    .await;
    rows(&server).await;
    server
}

/// The machines and the part that units are of.
async fn rows(server: &Server) {
    let rows = "
        INSERT INTO machine SELECT generate_series(1, 2) ON CONFLICT DO NOTHING;
        INSERT INTO part_information (id, \"timeToProduce\") VALUES (1, 1) ON CONFLICT DO NOTHING";
    server.database.batch_execute(rows).await.unwrap();
}

fn unit(order: i64, machine: i64) -> Value {
    json!({
        "timeOfProduction": "2024-05-01T10:00:00Z", "order": order, "var5": true, "machineId": machine, "partId": 1,
    })
}

fn insert(orders: &str) -> String {
    format!(
        "INSERT INTO supply_chain (\"machineId\", \"timeOfProduction\", \"partId\", \"order\", var5)
         SELECT 1, 0, 1, n, true FROM generate_series({orders}) n"
    )
}

#[tokio::test]
async fn a_stream_needs_one_connection_of_the_pool_and_gives_it_back() {
    let server = server(&url().await, |config| config.database.max_connections = 1).await;
    let mut stream = Stream::open(server.address, "", None).await;
    for order in 1..=3 {
        assert_eq!(
            server.json("POST", "/supply-chain", unit(order, 1)).await.status,
            201
        );
        assert_eq!(stream.orders(1).await, [order]);
    }
}

#[tokio::test]
async fn a_stream_tells_of_every_new_changed_and_deleted_unit_whoever_wrote_it() {
    let server = server(&url().await, |_| {}).await;
    let mut stream = Stream::open(server.address, "", None).await;
    let created = server.json("POST", "/supply-chain", unit(1, 1)).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let id = created.body["id"].as_str().unwrap();
    let path = format!("/supply-chain/{id}");
    let event = stream.next().await;
    assert_eq!(
        (event.name.as_str(), &event.data),
        ("unit", &server.get(&path).await.body)
    );

    let changed = server.json("PATCH", &path, json!({"order": 5})).await;
    assert_eq!(changed.status, 200);
    assert_eq!(stream.orders(1).await, [5]);
    // Past the API, as a gateway's batch, the original or a person would.
    server.database.batch_execute(&insert("10, 12")).await.unwrap();
    assert_eq!(stream.orders(3).await, [10, 11, 12]);
    let script = format!("DELETE FROM supply_chain WHERE id = '{id}'");
    server.database.batch_execute(&script).await.unwrap();
    let gone = stream.next().await;
    assert_eq!((gone.name.as_str(), gone.data), ("deleted", json!({"id": id})));
    let same = "UPDATE supply_chain SET \"order\" = 1 WHERE false";
    server.database.batch_execute(same).await.unwrap();
    let quiet = stream.any().await.unwrap();
    assert_eq!((quiet.name.as_str(), quiet.data), ("", Value::Null));
}

#[tokio::test]
async fn a_commit_that_comes_late_is_not_passed_over() {
    let url = url().await;
    let server = server(&url, |_| {}).await;
    let mut stream = Stream::open(server.address, "", None).await;
    let late = database::connect(&url).await;
    late.batch_execute(&format!("BEGIN; {}", insert("1, 1")))
        .await
        .unwrap();
    // Committed before the one that began before it.
    server.database.batch_execute(&insert("2, 2")).await.unwrap();
    let lost = database::connect(&url).await;
    lost.batch_execute(&format!("BEGIN; {}; ROLLBACK", insert("9, 9")))
        .await
        .unwrap();
    assert_eq!(stream.orders(1).await, [2]);
    // Ids in quiet times do not pass the open transaction either.
    for _ in 0..3 {
        let event = stream.any().await.unwrap();
        assert_eq!(event.name, "", "{event:?}");
    }
    let mut other = Stream::open(server.address, "", Some(&stream.last_id)).await;
    late.batch_execute("COMMIT").await.unwrap();
    assert_eq!(stream.orders(1).await, [1]);
    assert_eq!(other.orders(1).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reconnects_to_any_process_after_any_event_gets_each_change_once() {
    let url = url().await;
    let servers = [server(&url, |_| {}).await, server(&url, |_| {}).await];
    let mut stream = Stream::open(servers[0].address, "", None).await;
    let writers = (0..4).map(|writer| {
        let url = url.clone();
        tokio::spawn(async move {
            let client = database::connect(&url).await;
            for n in 0..20 {
                // Transactions of several statements, of which the last commits after others began.
                let first = 1_000 * writer + 10 * n;
                let script = format!(
                    "BEGIN; {}; {}; COMMIT",
                    insert(&format!("{first}, {}", first + 4)),
                    insert(&format!("{}, {}", first + 5, first + 9))
                );
                client.batch_execute(&script).await.unwrap();
            }
        })
    });
    let writers = futures_util::future::join_all(writers);
    let reader = async {
        let mut orders = Vec::new();
        while orders.len() < 800 {
            // A prime number of events a connection: breaks fall inside of statements and transactions.
            orders.extend(stream.orders((800 - orders.len()).min(37)).await);
            let to = &servers[orders.len() % 2];
            stream = Stream::open(to.address, "", Some(&stream.last_id)).await;
        }
        orders
    };
    let (_, orders) = tokio::join!(writers, reader);
    let expected: BTreeSet<i64> = (0..4)
        .flat_map(|writer| (0..200).map(move |n| 1_000 * writer + n))
        .collect();
    assert_eq!(orders.len(), expected.len());
    assert_eq!(orders.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn a_large_statement_comes_whole_and_only_what_is_asked_for() {
    let server = server(&url().await, |_| {}).await;
    let mut all = Stream::open(server.address, "", None).await;
    let mut second = Stream::open(server.address, "?machineId=2", None).await;
    server.database.batch_execute(&insert("1, 6000")).await.unwrap();
    let created = server.json("POST", "/supply-chain", unit(7_000, 2)).await;
    assert_eq!(created.status, 201);
    let orders = all.orders(6_001).await;
    assert!(orders.iter().copied().eq((1..=6_000).chain([7_000])));
    assert_eq!(second.orders(1).await, [7_000]);
    for query in [
        "?machineId=x",
        "?from=2024-01-01T00:00:00Z&machineId=1",
        "?pageSize=1",
        "?machineId=%2B1",
        // Unlike a list's, whose unknown names the original ignored.
        "?limit=1",
        "?machineId=1&partid=1",
    ] {
        let refused = server.get(&format!("/supply-chain/stream{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
    }
}

#[tokio::test]
async fn an_id_that_is_too_old_or_none_is_answered_with_reset_and_the_stream_goes_on() {
    let url = url().await;
    let server = server(&url, |_| {}).await;
    let mut stream = Stream::open(server.address, "", None).await;
    let began = stream.any().await.unwrap().id;
    server.database.batch_execute(&insert("1, 3")).await.unwrap();
    stream.orders(2).await;
    let middle = stream.last_id.clone();
    stream.orders(1).await;

    // What upkeep does, with a retention that is over.
    let mut config = shopfloor::config::Config::default();
    config.api.listener.listen = "127.0.0.1:0".parse().unwrap();
    config.api.database.url.clone_from(&url);
    let aged = "UPDATE unit_change SET numbered_at = now() - interval '1 day'";
    server.database.batch_execute(aged).await.unwrap();
    let node = shopfloor::node::ApiNode::start(&config, None, None)
        .await
        .unwrap();
    let began_at = std::time::Instant::now();
    while server.count("SELECT count(*) FROM unit_change").await > 0 {
        assert!(began_at.elapsed() < WITHIN, "never trimmed");
    }
    node.stop().await;

    let foreign = [
        "x",
        "1-2",
        "9223372036854775807",
        "7-00112233445566778899aabbccddeeff",
        "\u{fc}",
    ];
    for id in [began.as_str(), &middle].into_iter().chain(foreign) {
        let mut behind = Stream::open(server.address, "", Some(id)).await;
        // Nothing comes before it, not even the client's own id.
        let reset = behind.any().await.unwrap();
        assert_eq!(reset.name, "reset", "{id:?}: {reset:?}");
        assert!(reset.data["reason"].as_str().unwrap().contains("read the list"));
        server.database.batch_execute(&insert("4, 4")).await.unwrap();
        assert_eq!(behind.orders(1).await, [4], "{id:?}");
    }
    // Whoever was there all the time missed nothing, and its id is young.
    assert_eq!(stream.orders(foreign.len() + 2).await, vec![4; foreign.len() + 2]);
    let mut young = Stream::open(server.address, "", Some(&stream.last_id)).await;
    server.database.batch_execute(&insert("5, 5")).await.unwrap();
    assert_eq!(young.orders(1).await, [5]);
    // An empty id is none.
    let mut new = Stream::open(server.address, "", Some("")).await;
    assert_eq!(new.any().await.unwrap().name, "");
    server.database.batch_execute(&insert("6, 6")).await.unwrap();
    assert_eq!(new.orders(1).await, [6]);
}

#[tokio::test]
async fn a_filtered_stream_tells_when_a_unit_comes_in_and_when_it_leaves_and_of_no_other() {
    let server = server(&url().await, |_| {}).await;
    let mut first = Stream::open(server.address, "?machineId=1&partId=1", None).await;
    let mut second = Stream::open(server.address, "?machineId=2", None).await;
    let made = [
        server.json("POST", "/supply-chain", unit(1, 1)).await,
        server.json("POST", "/supply-chain", unit(2, 2)).await,
    ];
    let ids = made.map(|made| made.body["id"].as_str().unwrap().to_owned());
    assert_eq!(
        (first.orders(1).await, second.orders(1).await),
        (vec![1], vec![2])
    );

    let path = format!("/supply-chain/{}", ids[0]);
    let moved = server.json("PATCH", &path, json!({"machineId": 2})).await;
    assert_eq!(moved.status, 200, "{}", moved.body);
    let left = first.next().await;
    assert_eq!((left.name.as_str(), left.data), ("left", json!({"id": ids[0]})));
    assert_eq!(second.orders(1).await, [1]);
    // Neither of the first stream any more.
    let script = format!(
        "UPDATE supply_chain SET \"order\" = 9 WHERE id = '{0}'; DELETE FROM supply_chain WHERE id = '{0}'",
        ids[0]
    );
    server.database.batch_execute(&script).await.unwrap();
    loop {
        let event = second.next().await;
        assert_eq!(event.data["id"], ids[0], "{event:?}");
        if event.name == "deleted" {
            break;
        }
    }
    server.database.batch_execute(&insert("3, 3")).await.unwrap();
    assert_eq!(first.orders(1).await, [3], "what left is no more told of");
}

#[tokio::test]
async fn a_table_that_is_emptied_at_once_is_told_by_reset() {
    let server = server(&url().await, |_| {}).await;
    server.database.batch_execute(&insert("1, 3")).await.unwrap();
    let mut stream = Stream::open(server.address, "", None).await;
    let before = stream.any().await.unwrap().id;
    server
        .database
        .batch_execute("TRUNCATE supply_chain")
        .await
        .unwrap();
    assert_eq!(stream.next().await.name, "reset");
    let mut other = Stream::open(server.address, "", Some(&before)).await;
    assert_eq!(other.next().await.name, "reset");
    server.database.batch_execute(&insert("4, 4")).await.unwrap();
    assert_eq!(
        (stream.orders(1).await, other.orders(1).await),
        (vec![4], vec![4])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_and_a_client_that_does_not_read_loses_its_place() {
    let server = server(&url().await, |config| {
        config.unit_stream.max_streams = 1;
        config.unit_stream.slow_client_ms = 300;
    })
    .await;
    let unread = Stream::open(server.address, "", None).await;
    let full = server.get("/supply-chain/stream").await;
    assert_eq!(full.status, 503, "{}", full.body);
    assert!(!full.header("retry-after").is_empty());
    // More than the sockets of both sides take in.
    let long = "
        INSERT INTO supply_chain (\"machineId\", \"timeOfProduction\", \"partId\", \"order\", var2, var5)
        SELECT 1, 0, 1, n, repeat('x', 10000), true FROM generate_series(1, 2000) n";
    server.database.batch_execute(long).await.unwrap();
    let began = std::time::Instant::now();
    let next = loop {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let request = b"GET /api/v1/supply-chain/stream HTTP/1.0\r\nhost: a\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        if status.ends_with(b"200") {
            break socket;
        }
        assert!(began.elapsed() < WITHIN, "its place never became free");
    };
    drop((unread, next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_stops_ends_its_streams() {
    let mut config = shopfloor::config::Config::default();
    config.api.listener.listen = "127.0.0.1:0".parse().unwrap();
    config.api.database.url = url().await;
    let node = shopfloor::node::ApiNode::start(&config, None, None)
        .await
        .unwrap();
    let mut stream = Stream::open(node.address, "", None).await;
    let began = std::time::Instant::now();
    node.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    while stream.any().await.is_some() {}
}
