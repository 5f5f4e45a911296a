//! Telemetry ingest against a real Postgres, over HTTP as a gateway posts it.

use std::time::Duration;

use hyper::{Method, StatusCode};
use prost::Message;
use serde_json::json;
use shopfloor_proto::v1::TelemetryBatchRefused;
use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_tests::telemetry::{self, RunningApi, batch, id_of, material, part, start, unit};
use shopfloor_tests::{database, postgres};
use tokio_postgres::Client;
use uuid::{NoContext, Timestamp, Uuid};

const UNITS: &str = r#"SELECT id, "machineId", "timeOfProduction", "partId", "order", var1, var2, var3, var4, var5
                       FROM supply_chain ORDER BY id"#;
const PARTS: &str = r#"SELECT id, "defaultPrice", "timeToProduce" FROM part_information ORDER BY id"#;
const MATERIALS: &str = "SELECT id, name FROM material ORDER BY id";
const OUTBOX: &str = "SELECT aggregatetype, aggregateid, type, payload FROM outbox ORDER BY position";
const HELD: &str = "SELECT sequence, reason FROM quarantine ORDER BY position";

/// An API on a database of its own with machines 1 to 3 and parts 1 to 3, and a look behind it.
async fn factory(what: &str) -> (RunningApi, Client) {
    let url = postgres::database(what);
    let api = start(gateway::config(&url)).await;
    let db = database::connect(&url).await;
    db.batch_execute(
        r#"INSERT INTO machine SELECT FROM generate_series(1, 3);
           INSERT INTO part_information ("defaultPrice", "timeToProduce") SELECT 1.5, 10 FROM generate_series(1, 3)"#,
    )
    .await
    .expect("reference data");
    (api, db)
}

/// Everything that a batch may change, but for the time of the gateway's last batch.
async fn everything(db: &Client) -> Vec<Vec<String>> {
    let gateways = "SELECT gateway, highest_sequence, highest_record FROM telemetry_gateway ORDER BY 1";
    let held = "SELECT * FROM quarantine ORDER BY position";
    let ledger = "SELECT * FROM telemetry_ledger ORDER BY 1";
    let mut tables = Vec::new();
    for sql in [UNITS, PARTS, MATERIALS, OUTBOX, gateways, held, ledger] {
        tables.push(database::rows(db, sql).await);
    }
    tables
}

/// One record of every kind and fate.
fn mixed() -> Vec<shopfloor_proto::v1::TelemetryRecord> {
    vec![
        unit(0, 1, 1),
        part(1, Some(2), Some("21.50"), 99),
        part(2, None, Some("7.25"), 60),
        material(3, Some(4), "zinc"),
        material(4, None, "tin"),
        unit(5, 9, 1),
        unit(6, 1, 9),
    ]
}

#[tokio::test]
async fn a_batch_becomes_rows_and_its_counts_add_up() {
    let (api, db) = factory("rows").await;
    let mut records = mixed();
    let mut full = unit(7, 2, 3);
    if let Some(Body::Unit(unit)) = &mut full.body {
        (unit.var1, unit.var2, unit.var3) = (Some(-1), Some("zwei ✓".into()), Some(String::new()));
        (unit.var4, unit.var5, unit.time_of_production_ms) = (Some(4), true, -1);
    }
    records.push(full.clone());
    assert_eq!(api.commit(&batch("g1", records.clone())).await, (6, 0, 2));

    let (first, second) = (id_of(&records[0]), id_of(&full));
    let expected = [
        format!("{first}|1|1702166400|1|5|null|null|null|null|f"),
        format!("{second}|2|-1|3|5|-1|zwei ✓||4|t"),
    ];
    assert_eq!(database::rows(&db, UNITS).await, expected);
    assert_eq!(
        database::rows(&db, PARTS).await,
        ["1|1.5|10", "2|21.5|99", "3|1.5|10", "4|7.25|60"]
    );
    assert_eq!(database::rows(&db, MATERIALS).await, ["4|zinc", "5|tin"]);
    assert_eq!(
        database::rows(&db, HELD).await,
        ["5|unknown_machine", "6|unknown_part"]
    );
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing() {
    let (api, db) = factory("repeat").await;
    let sent = batch("g1", mixed());
    assert_eq!(api.commit(&sent).await, (5, 0, 2));
    let before = everything(&db).await;
    for _ in 0..3 {
        assert_eq!(api.commit(&sent).await, (0, 7, 0));
    }
    // Cut otherwise, as after a restart of the gateway.
    assert_eq!(
        api.commit(&batch("g1", sent.records[2..5].to_vec())).await,
        (0, 3, 0)
    );
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn a_repeated_batch_changes_nothing_after_its_rows_were_changed_deleted_or_admitted() {
    let (api, db) = factory("repeat_later").await;
    let mut records = mixed();
    records.push(unit(7, 3, 3));
    let (changed, deleted) = (id_of(&records[0]), id_of(&records[7]));
    let sent = batch("g1", records);
    assert_eq!(api.commit(&sent).await, (6, 0, 2));
    db.batch_execute(&format!(
        r#"UPDATE supply_chain SET "order" = 77 WHERE id = '{changed}';
           DELETE FROM supply_chain WHERE id = '{deleted}';
           UPDATE part_information SET "defaultPrice" = 3 WHERE id = 2;
           DELETE FROM part_information WHERE id IN (3, 4);
           UPDATE material SET name = 'brass' WHERE id = 4;
           DELETE FROM material WHERE id = 5;
           INSERT INTO machine (id) VALUES (9)"#
    ))
    .await
    .expect("changed");
    let retried = api.post_json("/internal/v1/quarantine/retry", &json!({})).await;
    assert_eq!(retried, json!({"admitted": 1, "held": 1}));
    let before = everything(&db).await;
    assert_eq!(api.commit(&sent).await, (0, 8, 0));
    assert_eq!(everything(&db).await, before);
}

#[tokio::test]
async fn a_batch_with_one_bad_record_is_refused_whole_and_nothing_is_in() {
    let (api, db) = factory("refused").await;
    let before = everything(&db).await;
    let mut records = mixed();
    records.push(unit(7, 1, -4));
    records.push(unit(8, 1, 1));
    let answer = api.post(&batch("g1", records)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let refused = answer.refused();
    assert_eq!(refused.record_index, Some(7));
    assert_eq!(
        refused.reason,
        "unit.part_id: -4 is out of range; use 1 to 2147483647"
    );
    assert_eq!(everything(&db).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_batches_sent_at_once_to_two_processes_are_stored_once() {
    let url = postgres::database("at_once");
    let apis = [
        start(gateway::config(&url)).await,
        start(gateway::config(&url)).await,
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

#[tokio::test]
async fn what_comes_without_an_id_is_created_and_told_as_by_rest() {
    let (api, db) = factory("created").await;
    let records = vec![
        part(0, None, Some("14999.990"), 360),
        part(1, None, None, 1),
        material(2, None, "zinc \"A\""),
    ];
    assert_eq!(api.commit(&batch("g1", records)).await, (3, 0, 0));
    let stamp = database::value(&db, "SELECT DISTINCT payload ->> 'lastUpdate' FROM outbox").await;
    let format = r"SELECT '{}' ~ '^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.0000000$'".replace("{}", &stamp);
    assert_eq!(database::value(&db, &format).await, "t", "{stamp}");
    let tail = format!(r#""isDeleted":false,"lastUpdate":"{stamp}"}}"#);
    let expected = [
        format!(r#"material|1|written|{{"name":"zinc \"A\"","id":1,{tail}"#),
        format!(
            r#"part_information|4|written|{{"defaultPrice":"14999.99","timeToProduce":360,"id":4,{tail}"#
        ),
        format!(r#"part_information|5|written|{{"defaultPrice":"0","timeToProduce":1,"id":5,{tail}"#),
    ];
    assert_eq!(database::rows(&db, OUTBOX).await, expected);
}

#[tokio::test]
async fn what_comes_with_an_id_is_stored_silently_and_later_creates_get_other_ids() {
    let (api, db) = factory("explicit").await;
    let records = vec![
        part(0, Some(4), Some("1"), 1),
        part(1, Some(5), Some("2"), 2),
        part(2, Some(5), None, 3),
        part(3, Some(i32::MAX), None, 4),
        material(4, Some(1), "zinc"),
        material(5, Some(2), "tin"),
    ];
    assert_eq!(api.commit(&batch("g1", records)).await, (6, 0, 0));
    assert_eq!(database::rows(&db, OUTBOX).await, Vec::<String>::new());
    let parts = database::rows(&db, &format!("SELECT * FROM ({PARTS}) AS p WHERE id > 3")).await;
    assert_eq!(parts, ["4|1|1", "5|2|3", "2147483647|0|4"]);
    let create = r#"INSERT INTO part_information ("timeToProduce") VALUES (1) RETURNING id"#;
    assert_eq!(database::value(&db, create).await, "6");
    assert_eq!(
        database::value(&db, "INSERT INTO material (name) VALUES ('x') RETURNING id").await,
        "3"
    );
}

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
fn old_id(age: Duration) -> Vec<u8> {
    let made = std::time::SystemTime::now() - age;
    let since = made.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let timestamp = Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos());
    Uuid::new_v7(timestamp).as_bytes().to_vec()
}

#[tokio::test]
async fn what_the_ledger_has_forgotten_is_neither_stored_twice_nor_lost() {
    let (api, db) = factory("expired").await;
    let day = Duration::from_secs(86_400);
    let old = |mut record: shopfloor_proto::v1::TelemetryRecord, days| {
        record.record_id = old_id(day * days).into();
        record
    };
    // A backlog of eight days is no repetition: it is the first that this gateway sends.
    let first = vec![
        old(unit(0, 1, 1), 9),
        old(part(1, Some(2), Some("5"), 5), 9),
        old(unit(2, 1, 1), 9),
        old(material(3, None, "zinc"), 8),
    ];
    assert_eq!(api.commit(&batch("g1", first.clone())).await, (4, 0, 0));
    db.batch_execute(&format!(
        "DELETE FROM supply_chain WHERE id = '{}'",
        id_of(&first[2])
    ))
    .await
    .expect("deleted");
    db.batch_execute(
        r#"UPDATE part_information SET "defaultPrice" = 6 WHERE id = 2;
           UPDATE telemetry_ledger SET settled_at = now() - interval '8 days'"#,
    )
    .await
    .expect("aged");
    let trimmed = shopfloor_api::store::records::trim_ledger(&api.store, day * 7)
        .await
        .expect("trimmed");
    assert_eq!(trimmed, 3);

    assert_eq!(api.commit(&batch("g1", first.clone())).await, (0, 1, 3));
    assert_eq!(api.commit(&batch("g1", first.clone())).await, (0, 4, 0));
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM supply_chain").await,
        "1"
    );
    assert_eq!(
        database::value(&db, &format!("SELECT * FROM ({PARTS}) AS p WHERE id = 2")).await,
        "2|6|5"
    );
    // Only a person can tell, record by record.
    let retry = "/internal/v1/quarantine/retry";
    assert_eq!(
        api.post_json(retry, &json!({})).await,
        json!({"admitted": 0, "held": 0})
    );
    let named = json!({"recordIds": [id_of(&first[2])]});
    assert_eq!(
        api.post_json(retry, &named).await,
        json!({"admitted": 1, "held": 0})
    );
    // A gateway whose spool was made anew starts from 0 again, with new ids.
    assert_eq!(api.commit(&batch("g1", vec![unit(0, 1, 1)])).await, (1, 0, 0));
}

#[tokio::test]
async fn a_full_quarantine_refuses_the_batch_for_now_and_keeps_nothing_of_it() {
    let url = postgres::database("full");
    let mut config = gateway::config(&url);
    config.ingest.quarantine_max_rows = 3;
    let api = start(config).await;
    let db = database::connect(&url).await;
    assert_eq!(
        api.commit(&batch("g1", vec![unit(0, 1, 1), unit(1, 1, 1)])).await,
        (0, 0, 2)
    );
    let wanted = batch(
        "g1",
        vec![unit(2, 1, 1), material(3, None, "zinc"), unit(4, 1, 1)],
    );
    let answer = api.post(&wanted).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(database::rows(&db, MATERIALS).await, Vec::<String>::new());
    db.batch_execute(
        r#"INSERT INTO machine VALUES (1); INSERT INTO part_information ("timeToProduce") VALUES (1)"#,
    )
    .await
    .expect("reference data");
    assert_eq!(api.commit(&wanted).await, (3, 0, 0));
}

#[tokio::test]
async fn only_the_token_opens_where_one_is_configured() {
    let mut config = gateway::config(&postgres::database("token"));
    config.internal_token = Some("s3cret".into());
    let api = start(config).await;
    let body = batch("g1", vec![]).encode_to_vec();
    let protobuf = ("content-type", shopfloor_proto::CONTENT_TYPE);
    let path = shopfloor_proto::INGEST_PATH;
    for headers in [vec![protobuf], vec![protobuf, ("authorization", "Bearer s3cres")]] {
        let answer = api.request(Method::POST, path, &headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    let answer = api
        .request(Method::GET, "/internal/v1/quarantine", &[], Vec::new())
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let headers = [protobuf, ("authorization", "Bearer s3cret")];
    let answer = api.request(Method::POST, path, &headers, body).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn every_limit_of_a_batch_has_its_answer() {
    let mut config = gateway::config(&postgres::database("limits"));
    config.ingest.max_batch_records = 10;
    config.ingest.max_batch_bytes = 2_048;
    let api = start(config).await;
    let post = async |content_type: &str, body: Vec<u8>| {
        let headers = [("content-type", content_type)];
        let answer = api
            .request(Method::POST, shopfloor_proto::INGEST_PATH, &headers, body)
            .await;
        (
            answer.status,
            TelemetryBatchRefused::decode(answer.body)
                .expect("a refusal")
                .reason,
        )
    };
    let protobuf = shopfloor_proto::CONTENT_TYPE;
    let (status, reason) = post("application/json", b"{}".to_vec()).await;
    assert_eq!(
        (status, reason.as_str()),
        (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type: send application/x-protobuf"
        )
    );
    let (status, reason) = post(protobuf, vec![0; 2_049]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{reason}");
    // Two bytes a record.
    let (status, reason) = post(protobuf, [0x12, 0].repeat(11)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        reason,
        "records: more than a batch may hold; send at most 10 at a time"
    );
    let (status, reason) = post(protobuf, vec![0xff; 20]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reason.starts_with("the body is no TelemetryBatch: "), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_put_off_while_postgres_is_down_and_stored_once_when_sent_again() {
    let mut server = postgres::own();
    server.create_database("shopfloor").expect("a database");
    let url = server.url("shopfloor");
    let api = start(gateway::config(&url)).await;
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
    for round in 0..40 {
        let machine = 100 + round;
        let sent = batch("g1", vec![unit(round as u64, machine, 1)]);
        let create = format!("INSERT INTO machine (id) VALUES ({machine})");
        let (_counts, created) = tokio::join!(api.commit(&sent), db.batch_execute(&create));
        created.expect("a machine");
    }
    shopfloor_api::store::quarantine::sweep(&api.store)
        .await
        .expect("swept");
    assert_eq!(
        database::value(&db, "SELECT count(*) FROM supply_chain").await,
        "40"
    );
    assert_eq!(database::rows(&db, HELD).await, Vec::<String>::new());
}

/// Not a test: prints how many records a second one gateway gets into the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it with --ignored --nocapture, in release"]
async fn throughput_of_one_gateway() {
    let (api, _db) = factory("throughput").await;
    for size in [500, 2_000, 5_000u64] {
        let batches: Vec<_> = (0..10_000 / size)
            .map(|number| {
                let records =
                    (0..size).map(|at| unit(number * size + at, 1 + (at % 3) as i32, 1 + (at % 3) as i32));
                batch("g1", records.collect())
            })
            .collect();
        let started = std::time::Instant::now();
        for batch in &batches {
            assert_eq!(api.commit(batch).await.0 as u64, size);
        }
        let taken = started.elapsed();
        println!(
            "10,000 units in batches of {size}: {taken:?}, {:.0}/s",
            10_000.0 / taken.as_secs_f64()
        );
    }
}
