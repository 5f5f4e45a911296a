//! Many requests for the same thing at once: one of them wins, none fails in another way.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::server::Server;

const AT_ONCE: usize = 200;

/// Sends `AT_ONCE` requests that `request` makes of their number, and counts the statuses of the answers.
async fn at_once(
    server: &Arc<Server>,
    request: impl Fn(usize) -> (&'static str, String, Value),
) -> BTreeMap<u16, usize> {
    let tasks = (0..AT_ONCE).map(|number| {
        let (server, (method, path, body)) = (Arc::clone(server), request(number));
        tokio::spawn(async move { server.json(method, &path, body).await.status })
    });
    let mut statuses = BTreeMap::new();
    for status in join_all(tasks).await {
        *statuses.entry(status.unwrap()).or_default() += 1;
    }
    statuses
}

async fn server() -> Arc<Server> {
    let server = Server::fresh().await;
    server.json("POST", "/materials", json!({"name": "zinc"})).await;
    server
        .json(
            "POST",
            "/part-information",
            json!({"defaultPrice": 1, "timeToProduce": 1}),
        )
        .await;
    server.json("POST", "/machine", json!({})).await;
    server.new_records().await;
    Arc::new(server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creations_of_one_name_one_succeeds_and_the_others_conflict() {
    let server = server().await;
    let statuses = at_once(&server, |_| ("POST", "/materials".into(), json!({"name": "tin"}))).await;
    assert_eq!(statuses, BTreeMap::from([(201, 1), (409, AT_ONCE - 1)]));
    assert_eq!(server.new_records().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_share_names_in_opposite_orders_conflict_and_never_fail() {
    let server = server().await;
    let statuses = at_once(&server, |number| {
        let (first, second) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
        let body = json!({"materials": [{"name": first}, {"name": second}]});
        ("POST", "/materials/many-materials".into(), body)
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(201, 1), (409, AT_ONCE - 1)]));
    assert_eq!(server.new_records().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_prices_of_one_day_are_one_row() {
    let server = server().await;
    let statuses = at_once(&server, |number| {
        (
            "POST",
            "/materials/prices/1".into(),
            json!({"price": number, "date": "15/02/2020"}),
        )
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(201, AT_ONCE)]));
    assert_eq!(server.count("SELECT count(*) FROM material_price").await, 1);
    let records = server.new_records().await;
    assert_eq!(records.len(), AT_ONCE);
    let last = records.last().unwrap().1["price"].to_string();
    let stored = server.get("/materials/prices/1").await.body[0]["price"].clone();
    assert_eq!(
        stored,
        json!(last.trim_matches('"')),
        "the last record is what is stored"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_deletions_of_one_row_one_succeeds_and_one_record_tells_of_it() {
    let server = server().await;
    for path in ["/machine/1", "/part-information/1", "/materials/1"] {
        let statuses = at_once(&server, |_| ("DELETE", path.into(), json!(null))).await;
        assert_eq!(statuses, BTreeMap::from([(204, 1), (404, AT_ONCE - 1)]), "{path}");
        assert_eq!(server.new_records().await.len(), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linking_from_both_sides_at_once_makes_one_link() {
    let server = server().await;
    let statuses = at_once(&server, |number| match number % 2 {
        0 => (
            "POST",
            "/materials/1/part-informations".into(),
            json!({"partInformationIds": [1]}),
        ),
        _ => (
            "POST",
            "/part-information/1/materials".into(),
            json!({"materialIds": [1]}),
        ),
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(201, AT_ONCE)]));
    assert_eq!(
        server
            .count("SELECT count(*) FROM material_part_information")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_deleted_while_units_are_written_leaves_no_unit_without_one() {
    let server = server().await;
    let statuses = at_once(&server, |number| match number % 10 {
        9 => ("DELETE", "/machine/1".into(), json!(null)),
        _ => {
            let body = json!({"timeOfProduction": "2023-12-10", "order": 1, "var5": false, "machineId": 1, "partId": 1});
            ("POST", "/supply-chain".into(), body)
        }
    })
    .await;
    for status in statuses.keys() {
        assert!([201, 204, 404, 409].contains(status), "{statuses:?}");
    }
    let units = server.count("SELECT count(*) FROM supply_chain").await;
    assert_eq!(
        usize::try_from(units).unwrap(),
        statuses.get(&201).copied().unwrap_or(0)
    );
    assert_eq!(
        server.count("SELECT count(*) FROM machine").await,
        i64::from(units > 0)
    );
}
