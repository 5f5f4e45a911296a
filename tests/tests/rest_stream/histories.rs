//! Ids of events over a crash of Postgres, over a backup that is put back, and beside transactions that stay open.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use shopfloor_tests::{database, postgres};
use tokio::task::{block_in_place, spawn_blocking};

use crate::client::Stream;
use crate::{insert, server, url};

/// Transactions whose numbers are lost in the crash.
const LOST: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_misses_nothing_over_a_crash_of_postgres() {
    let mut cluster = block_in_place(postgres::own);
    cluster.create_database("crash").unwrap();
    let url = cluster.url("crash");
    let server = server(&url, |config| config.database.connect_timeout_ms = 1_000).await;
    let mut open = Stream::open(server.address, "", None).await;
    server.database.batch_execute(&insert("1, 1")).await.unwrap();
    assert_eq!(open.orders(1).await, [1]);

    // From here on nothing reaches the disk that no commit takes there.
    let writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
    let writer: i32 = server.database.query_one(writer, &[]).await.unwrap().get(0);
    kill_process(Pid::from_raw(writer).unwrap(), Signal::STOP).unwrap();
    for _ in 0..LOST {
        let script = "BEGIN; SELECT pg_current_xact_id(); ROLLBACK";
        server.database.batch_execute(script).await.unwrap();
    }
    // What the client has for its last id then.
    for _ in 0..3 {
        assert_eq!(open.any().await.unwrap().name, "");
    }
    let last_id = open.last_id.clone();
    block_in_place(|| cluster.kill()).unwrap();
    block_in_place(|| cluster.restart()).unwrap();

    // The lost numbers are given out again, and more.
    let database = database::connect(&url).await;
    for order in 2..2 + 2 * LOST {
        database
            .batch_execute(&insert(&format!("{order}, {order}")))
            .await
            .unwrap();
    }
    let orders: Vec<i64> = (2..2 + 2 * LOST as i64).collect();
    let mut back = Stream::open(server.address, "", Some(&last_id)).await;
    assert_eq!(
        back.orders(orders.len()).await,
        orders,
        "to a client that came back"
    );
    assert_eq!(open.orders(orders.len()).await, orders, "to a client that stayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_of_before_a_backup_is_gone_on_from_and_one_that_the_backup_has_not_is_told() {
    let (old, copy) = (url().await, url().await);
    let first = server(&old, |_| {}).await;
    let mut stream = Stream::open(first.address, "", None).await;
    first.database.batch_execute(&insert("1, 1")).await.unwrap();
    stream.orders(1).await;
    let before = stream.last_id.clone();
    first.database.batch_execute(&insert("2, 2")).await.unwrap();
    stream.orders(1).await;
    let (from, to) = (old.clone(), copy.clone());
    spawn_blocking(move || copy_database(&from, &to)).await.unwrap();
    first.database.batch_execute(&insert("3, 3")).await.unwrap();
    stream.orders(1).await;

    // The backup is put back, and what happens then has the numbers of what it has not.
    let second = server(&copy, |_| {}).await;
    second.database.batch_execute(&insert("4, 4")).await.unwrap();
    let mut other = Stream::open(second.address, "", Some(&before)).await;
    assert_eq!(other.orders(2).await, [2, 4]);
    second.database.batch_execute(&insert("5, 6")).await.unwrap();
    other.orders(2).await;
    let mut lost = Stream::open(second.address, "", Some(&stream.last_id)).await;
    let event = lost.next().await;
    assert_eq!(event.name, "reset", "{event:?}");
}

fn copy_database(from: &str, to: &str) {
    let mut dump = Command::new("pg_dump")
        .arg(from)
        .stdout(Stdio::piped())
        .spawn()
        .expect("pg_dump of Postgres's client programs");
    let restored = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", to])
        .stdin(dump.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .expect("psql");
    assert!(restored.success() && dump.wait().unwrap().success());
}

#[tokio::test]
async fn transactions_that_stay_open_hold_up_no_stream() {
    let (here, elsewhere) = (url().await, url().await);
    let server = server(&here, |_| {}).await;
    let mut stream = Stream::open(server.address, "", None).await;
    let mut open = Vec::new();
    for url in [&here, &elsewhere] {
        let client = database::connect(url).await;
        client
            .batch_execute("CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)")
            .await
            .unwrap();
        open.push(client);
    }
    server.database.batch_execute(&insert("1, 1")).await.unwrap();
    assert_eq!(stream.orders(1).await, [1]);
    drop(open);
}
