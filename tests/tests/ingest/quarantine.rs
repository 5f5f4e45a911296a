//! Records that cannot be stored yet, and what lets them in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use shopfloor_api::Api;
use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_tests::telemetry::{self, batch, id_of, material, part, start, unit};
use shopfloor_tests::{database, postgres};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{HELD, MATERIALS, factory};

#[tokio::test]
async fn units_wait_for_their_machine_and_part_and_are_admitted_in_order() {
    let (api, db) = factory("admitted").await;
    let records = vec![unit(0, 9, 9), unit(1, 9, 1), unit(2, 1, 9), unit(3, 9, 9)];
    assert_eq!(api.commit(&batch("g1", records.clone())).await, (0, 0, 4));
    let listed = api.get_json("/internal/v1/quarantine?limit=2").await;
    assert_eq!(listed["records"][0]["recordId"], json!(id_of(&records[0])));
    assert_eq!(
        listed["records"][0]["detail"],
        "machine 9 does not exist, nor does part 9; the unit is stored when it does"
    );
    assert_eq!(listed["records"][1]["body"]["unit"]["machineId"], 9);
    let next = format!(
        "/internal/v1/quarantine?after={}&reason=unknown_part",
        listed["next"]
    );
    let listed = api.get_json(&next).await;
    assert_eq!(listed["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&listed["records"][0]["sequence"], &listed["next"]),
        (&json!(2), &json!(null))
    );

    // The part comes by telemetry: what lacked only the part is stored within that batch.
    assert_eq!(
        api.commit(&batch("g1", vec![part(4, Some(9), None, 1)])).await,
        (1, 0, 0)
    );
    let waiting = ["0|unknown_machine", "1|unknown_machine", "3|unknown_machine"];
    assert_eq!(database::rows(&db, HELD).await, waiting);
    // The machine comes past the API.
    db.batch_execute("INSERT INTO machine (id) VALUES (9)")
        .await
        .expect("a machine");
    assert_eq!(
        shopfloor_api::store::quarantine::sweep(&api.store)
            .await
            .expect("swept"),
        3
    );
    assert_eq!(database::rows(&db, HELD).await, Vec::<String>::new());
    let order = "SELECT id FROM supply_chain ORDER BY ctid";
    let expected: Vec<String> = [2, 0, 1, 3]
        .map(|index| id_of(&records[index]).to_string())
        .into();
    assert_eq!(database::rows(&db, order).await, expected);
}

#[tokio::test]
async fn a_unit_whose_machine_appears_but_not_its_part_goes_on_waiting_for_the_part() {
    let (api, db) = factory("both_unknown").await;
    api.commit(&batch("g1", vec![unit(0, 9, 9)])).await;
    db.batch_execute("INSERT INTO machine (id) VALUES (9)")
        .await
        .expect("a machine");
    assert_eq!(
        shopfloor_api::store::quarantine::sweep(&api.store)
            .await
            .expect("swept"),
        0
    );
    assert_eq!(database::rows(&db, HELD).await, ["0|unknown_part"]);
}

#[tokio::test]
async fn more_units_than_one_transaction_takes_are_all_admitted() {
    let (api, db) = factory("many_admitted").await;
    for start in [0, 5_000, 10_000] {
        let records = (start..start + 5_000)
            .map(|sequence| unit(sequence, 9, 1))
            .collect();
        assert_eq!(api.commit(&batch("g1", records)).await, (0, 0, 5_000));
    }
    db.batch_execute("INSERT INTO machine (id) VALUES (9)")
        .await
        .expect("a machine");
    assert_eq!(
        shopfloor_api::store::quarantine::sweep(&api.store)
            .await
            .expect("swept"),
        15_000
    );
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM supply_chain").await,
        "15000"
    );
}

#[tokio::test]
async fn a_unit_without_an_order_waits_until_it_is_retried_with_one() {
    let (api, db) = factory("no_order").await;
    let mut record = unit(0, 1, 1);
    if let Some(Body::Unit(unit)) = &mut record.body {
        unit.order = None;
    }
    let id = id_of(&record);
    assert_eq!(api.commit(&batch("g1", vec![record])).await, (0, 0, 1));
    let retry = "/internal/v1/quarantine/retry";
    assert_eq!(
        api.post_json(retry, &json!({})).await,
        json!({"admitted": 0, "held": 1})
    );
    assert_eq!(database::rows(&db, HELD).await, ["0|missing_order"]);
    let with_order = json!({"recordIds": [id], "order": 12});
    assert_eq!(
        api.post_json(retry, &with_order).await,
        json!({"admitted": 1, "held": 0})
    );
    assert_eq!(
        database::value(&db, r#"SELECT id, "order" FROM supply_chain"#).await,
        format!("{id}|12")
    );
}

#[tokio::test]
async fn a_material_whose_name_another_has_waits_until_the_name_is_free() {
    let (api, db) = factory("name_taken").await;
    let records = vec![material(0, Some(1), "zinc"), material(1, Some(2), "zinc")];
    assert_eq!(api.commit(&batch("g1", records)).await, (1, 0, 1));
    let listed = api.get_json("/internal/v1/quarantine").await;
    assert_eq!(listed["records"][0]["reason"], "name_taken");
    assert_eq!(
        listed["records"][0]["detail"],
        "material 2 cannot be named \"zinc\", which is the name of material 1; rename one and retry"
    );
    // Names change hands within one batch.
    let swap = vec![
        material(2, Some(2), "tin"),
        material(3, Some(1), "lead"),
        material(4, Some(2), "brass"),
    ];
    assert_eq!(api.commit(&batch("g1", swap)).await, (3, 0, 0));
    let retried = api.post_json("/internal/v1/quarantine/retry", &json!({})).await;
    assert_eq!(retried, json!({"admitted": 1, "held": 0}));
    assert_eq!(database::rows(&db, MATERIALS).await, ["1|lead", "2|zinc"]);
    let swap = vec![
        material(5, Some(1), "spare"),
        material(6, Some(2), "lead"),
        material(7, Some(1), "zinc"),
    ];
    assert_eq!(api.commit(&batch("g1", swap)).await, (3, 0, 0));
    assert_eq!(database::rows(&db, MATERIALS).await, ["1|zinc", "2|lead"]);
}

/// An id made `age` ago.

#[tokio::test]
async fn what_rest_creates_lets_in_what_waited_for_it_before_it_answers() {
    let (api, db) = factory("rest").await;
    let records = vec![unit(0, 4, 1), unit(1, 1, 5), unit(2, 6, 4), unit(3, 5, 1)];
    assert_eq!(api.commit(&batch("g1", records)).await, (0, 0, 4));
    api.post_json("/api/v1/machine", &json!({})).await;
    assert_eq!(
        database::rows(&db, HELD).await,
        ["1|unknown_part", "2|unknown_machine", "3|unknown_machine"]
    );
    let part = json!({"defaultPrice": 1, "timeToProduce": 1});
    let parts = json!({"partInformations": [part, part]});
    api.post_json("/api/v1/part-information/many-part-informations", &parts)
        .await;
    assert_eq!(
        database::rows(&db, HELD).await,
        ["2|unknown_machine", "3|unknown_machine"]
    );
    api.post_json("/api/v1/machine/many-machines", &json!({"quantity": 2}))
        .await;
    assert_eq!(database::rows(&db, HELD).await, Vec::<String>::new());
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM supply_chain").await,
        "4"
    );
}

#[tokio::test]
async fn the_upkeep_admits_what_nobody_else_does() {
    let url = postgres::database("upkeep");
    let mut config = telemetry::config(&url);
    config.ingest.sweep_interval_ms = 100;
    let api = start(config.clone()).await;
    let db = database::connect(&url).await;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    Api::new(config, api.store.clone(), Arc::new(telemetry::NoKafka)).start_upkeep(&stop, &tasks);
    assert_eq!(api.commit(&batch("g1", vec![unit(0, 1, 1)])).await, (0, 0, 1));
    db.batch_execute(
        r#"INSERT INTO machine VALUES (1); INSERT INTO part_information ("timeToProduce") VALUES (1)"#,
    )
    .await
    .expect("reference data");
    let admitted = async {
        while database::value(&db, "SELECT count(*) FROM supply_chain").await == "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), admitted)
        .await
        .expect("admitted");
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(10), tasks.wait())
        .await
        .expect("the upkeep stops when told");
}
