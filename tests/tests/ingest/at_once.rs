//! What two do at the same moment, and what a Postgres that went away leaves behind.

use hyper::StatusCode;
use serde_json::json;
use shopfloor_tests::telemetry::{self, batch, material, part, start, unit};
use shopfloor_tests::{database, postgres};

use crate::{HELD, factory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_batches_sent_at_once_to_two_processes_are_stored_once() {
    let url = postgres::database("at_once");
    let apis = [
        start(telemetry::config(&url)).await,
        start(telemetry::config(&url)).await,
    ];
    let db = database::connect(&url).await;
    db.batch_execute(
        r#"INSERT INTO machine VALUES (1); INSERT INTO part_information ("timeToProduce") VALUES (1)"#,
    )
    .await
    .expect("reference data");
    let mut records: Vec<_> = (0..500).map(|sequence| unit(sequence, 1, 1)).collect();
    records.extend((500..520).map(|sequence| unit(sequence, 8, 1)));
    records.extend((520..530).map(|sequence| part(sequence, None, None, 5)));
    records.extend((530..540).map(|sequence| material(sequence, None, &format!("m{sequence}"))));
    let sent = batch("g1", records);
    let posts = (0..12).map(|index| {
        let (api, sent) = (&apis[index % 2], &sent);
        async move { api.commit(sent).await }
    });
    let counts = futures_util::future::join_all(posts).await;
    let total = counts
        .iter()
        .fold((0, 0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1, sum.2 + c.2));
    assert_eq!(total, (520, 11 * 540, 20));
    for (table, rows) in [
        ("supply_chain", "500"),
        ("part_information", "11"),
        ("material", "10"),
    ] {
        assert_eq!(
            database::value(&db, &format!("SELECT count(*) FROM {table}")).await,
            rows,
            "{table}"
        );
    }
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM quarantine").await,
        "20"
    );
    assert_eq!(
        database::value(&db, "SELECT count(*), count(DISTINCT payload::text) FROM outbox").await,
        "20|20"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_put_off_while_postgres_is_down_and_stored_once_when_sent_again() {
    let mut server = postgres::own();
    server.create_database("shopfloor").expect("a database");
    let url = server.url("shopfloor");
    let api = start(telemetry::config(&url)).await;
    let reference =
        r#"INSERT INTO machine VALUES (1); INSERT INTO part_information ("timeToProduce") VALUES (1);"#;
    server.psql("shopfloor", reference).expect("reference data");
    let (first, second) = (batch("g1", vec![unit(0, 1, 1)]), batch("g1", vec![unit(1, 1, 1)]));
    assert_eq!(api.commit(&first).await, (1, 0, 0));
    server.kill().expect("killed");
    let answer = api.post(&second).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    server.restart().expect("restarted");
    assert_eq!(api.commit(&second).await, (1, 0, 0));
    assert_eq!(api.commit(&first).await, (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_unit_stays_in_quarantine_when_its_machine_is_created_at_the_same_moment() {
    let (api, db) = factory("race").await;
    for round in 0..60 {
        let sent = batch("g1", vec![unit(round, 4 + round as i32, 1)]);
        let create = json!({});
        tokio::join!(api.commit(&sent), api.post_json("/api/v1/machine", &create));
    }
    // For those that were held between the create's look and its commit.
    shopfloor_api::store::quarantine::sweep(&api.store)
        .await
        .expect("swept");
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM supply_chain").await,
        "60"
    );
    assert_eq!(database::rows(&db, HELD).await, Vec::<String>::new());
}
