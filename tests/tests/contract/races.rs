//! Many requests for the same thing at once: one of them wins, none fails in another way.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};
use shopfloor_api::ApiConfig;

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
    // All queue for one row: on a busy disk longer than a client should wait, and 503 is not what is asked for here.
    let patient = |config: &mut ApiConfig| {
        config.request_timeout_ms = 120_000;
        config.database.connect_timeout_ms = 60_000;
        config.database.statement_timeout_ms = 60_000;
    };
    let server = Server::configured(patient).await;
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
        let (first, second) = if number.is_multiple_of(2) {
            ("a", "b")
        } else {
            ("b", "a")
        };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_materials_that_are_renamed_to_one_name_one_gets_it() {
    let server = server().await;
    let names: Vec<_> = (0..AT_ONCE).map(|n| json!({"name": format!("m{n}")})).collect();
    let created = server.json("POST", "/materials/many-materials", json!({"materials": names}));
    let created = created.await.body;
    server.new_records().await;
    let statuses = at_once(&server, |number| {
        let path = format!("/materials/{}", created[number]["id"]);
        ("PATCH", path, json!({"name": "gold"}))
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(200, 1), (409, AT_ONCE - 1)]));
    assert_eq!(
        server
            .count("SELECT count(*) FROM material WHERE name = 'gold'")
            .await,
        1
    );
    assert_eq!(server.new_records().await.len(), 1);
}

/// Bodies of `{"id":1}` and `{"id":2}` in alternating order: locks that are taken in the order of the body would
/// wait for each other.
fn pair(number: usize, list: &str, item: impl Fn(i32) -> Value) -> Value {
    let (first, second) = if number.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    json!({ list: [item(first), item(second)] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_change_the_same_rows_in_opposite_orders_all_succeed() {
    let server = server().await;
    let part = json!({"defaultPrice": 2, "timeToProduce": 2});
    server.json("POST", "/part-information", part).await;
    server.new_records().await;
    let statuses = at_once(&server, |number| {
        let change = |id| json!({"id": id, "timeToProduce": number + 1});
        let body = pair(number, "partInformations", change);
        ("PATCH", "/part-information/many-part-informations".into(), body)
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(200, AT_ONCE)]));
    let records = server.new_records().await;
    assert_eq!(records.len(), 2 * AT_ONCE);
    for id in [1, 2] {
        let last = records.iter().rev().find(|(_, value)| value["id"] == id).unwrap();
        let stored = server.get(&format!("/part-information/{id}")).await.body;
        assert_eq!(last.1["timeToProduce"], stored["timeToProduce"], "part {id}");
    }
    let (first, second) = (
        server.get("/part-information/1").await.body,
        server.get("/part-information/2").await.body,
    );
    assert_eq!(
        first["timeToProduce"], second["timeToProduce"],
        "both rows are of one request"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_batches_that_delete_the_same_rows_in_opposite_orders_one_succeeds_whole() {
    let server = server().await;
    server.json("POST", "/machine", json!({})).await;
    server.json("POST", "/materials", json!({"name": "iron"})).await;
    let part = json!({"defaultPrice": 2, "timeToProduce": 2});
    server.json("POST", "/part-information", part).await;
    server.new_records().await;
    let id = |id| json!({ "id": id });
    for (path, list) in [
        ("/materials/many-materials", "materials"),
        ("/part-information/many-part-informations", "partInformations"),
    ] {
        let statuses = at_once(&server, |number| ("DELETE", path.into(), pair(number, list, id))).await;
        assert_eq!(statuses, BTreeMap::from([(204, 1), (404, AT_ONCE - 1)]), "{path}");
        assert_eq!(server.new_records().await.len(), 2, "{path}");
    }
    let statuses = at_once(&server, |number| {
        let body = pair(number, "machineIds", |id| json!(id));
        ("DELETE", "/machine/many-machines".into(), body)
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(204, 1), (404, AT_ONCE - 1)]));
    assert_eq!(server.new_records().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_while_it_is_linked_leaves_no_link() {
    let server = server().await;
    for deleted in ["/materials/1", "/part-information/1"] {
        let statuses = at_once(&server, |number| match number % 10 {
            9 => ("DELETE", deleted.into(), json!(null)),
            n if n.is_multiple_of(2) => (
                "POST",
                "/materials/1/part-informations".into(),
                json!({"partInformationIds": [1]}),
            ),
            _ => (
                "DELETE",
                "/materials/1/part-informations".into(),
                json!({"partInformationIds": [1]}),
            ),
        })
        .await;
        for status in statuses.keys() {
            assert!([201, 204, 404].contains(status), "{deleted}: {statuses:?}");
        }
        let dangling = "SELECT count(*) FROM material_part_information";
        assert_eq!(server.count(dangling).await, 0, "{deleted}");
        let (_, records): (Vec<_>, Vec<_>) = server.new_records().await.into_iter().unzip();
        let told = records.iter().filter(|value| value["isDeleted"] == true).count();
        assert_eq!(told, 1, "{deleted}: {records:?}");
        // The other side is there for the second round.
        server.json("POST", "/materials", json!({"name": "zinc"})).await;
        server.new_records().await;
        if deleted == "/materials/1" {
            let restored = "WITH back AS (UPDATE material SET id = 1 WHERE id <> 1 RETURNING 1)
                SELECT count(*) FROM back";
            assert_eq!(server.count(restored).await, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_deleted_while_units_are_written_leaves_no_unit_without_one() {
    let server = server().await;
    let statuses = at_once(&server, |number| match number % 10 {
        9 => ("DELETE", "/part-information/1".into(), json!(null)),
        _ => {
            let body = json!({"timeOfProduction": "2023-12-10", "order": 1, "var5": false, "machineId": 1, "partId": 1});
            ("POST", "/supply-chain".into(), body)
        }
    })
    .await;
    for status in statuses.keys() {
        assert!([201, 204, 404, 409].contains(status), "{statuses:?}");
    }
    let orphans = "SELECT count(*) FROM supply_chain u LEFT JOIN part_information p ON p.id = u.\"partId\"
        WHERE p.id IS NULL";
    assert_eq!(server.count(orphans).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_record_of_a_unit_that_many_change_is_what_is_stored() {
    let server = server().await;
    let body =
        json!({"timeOfProduction": "2023-12-10", "order": 1, "var5": false, "machineId": 1, "partId": 1});
    let unit = server.json("POST", "/supply-chain", body).await.body;
    let path = format!("/supply-chain/{}", unit["id"].as_str().unwrap());
    server.new_records().await;
    let statuses = at_once(&server, |number| {
        ("PATCH", path.clone(), json!({"order": number, "var1": number}))
    })
    .await;
    assert_eq!(statuses, BTreeMap::from([(200, AT_ONCE)]));
    let records = server.new_records().await;
    assert_eq!(records.len(), AT_ONCE);
    let last = &records.last().unwrap().1;
    let stored = server.get(&path).await.body;
    assert_eq!(
        (&last["order"], &last["var1"]),
        (&stored["order"], &stored["var1"])
    );
    assert_eq!(stored["order"], stored["var1"], "of one request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_that_is_set_and_deleted_at_once_is_there_or_not_as_its_last_record_says() {
    let server = server().await;
    let statuses = at_once(&server, |number| {
        let body = json!({"price": 5, "date": "15/02/2020"});
        let method = if number.is_multiple_of(2) {
            "POST"
        } else {
            "DELETE"
        };
        (method, "/materials/prices/1".into(), body)
    })
    .await;
    for status in statuses.keys() {
        assert!([201, 204, 404].contains(status), "{statuses:?}");
    }
    let records = server.new_records().await;
    let told = statuses.get(&201).copied().unwrap_or(0) + statuses.get(&204).copied().unwrap_or(0);
    assert_eq!(records.len(), told);
    let rows = server.count("SELECT count(*) FROM material_price").await;
    let deleted = records.last().unwrap().1["isDeleted"] == true;
    assert_eq!(rows, i64::from(!deleted));
}
