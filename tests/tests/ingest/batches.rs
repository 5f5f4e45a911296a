//! What a batch becomes, and that the same one again changes nothing.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use shopfloor_proto::v1::telemetry_record::Body;
use shopfloor_tests::database;
use shopfloor_tests::telemetry::{batch, id_of, material, part, unit};
use uuid::{NoContext, Timestamp, Uuid};

use crate::{HELD, MATERIALS, OUTBOX, PARTS, UNITS, everything, factory, mixed};

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
        format!(r#"material|1|written|{{"id":1,"name":"zinc \"A\"",{tail}"#),
        format!(
            r#"part_information|4|written|{{"id":4,"defaultPrice":"14999.99","timeToProduce":360,{tail}"#
        ),
        format!(r#"part_information|5|written|{{"id":5,"defaultPrice":"0","timeToProduce":1,{tail}"#),
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
