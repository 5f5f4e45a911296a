//! Telemetry ingest against a real Postgres, over HTTP as a gateway posts it.

mod at_once;
mod batches;
mod quarantine;
mod refusals;

use shopfloor_tests::telemetry::{self, RunningApi, material, part, start, unit};
use shopfloor_tests::{database, postgres};
use tokio_postgres::Client;

const UNITS: &str = r#"SELECT id, "machineId", "timeOfProduction", "partId", "order", var1, var2, var3, var4, var5
                       FROM supply_chain ORDER BY id"#;
const PARTS: &str = r#"SELECT id, "defaultPrice", "timeToProduce" FROM part_information ORDER BY id"#;
const MATERIALS: &str = "SELECT id, name FROM material ORDER BY id";
const OUTBOX: &str = "SELECT aggregatetype, aggregateid, type, payload FROM outbox ORDER BY position";
const HELD: &str = "SELECT sequence, reason FROM quarantine ORDER BY position";

/// An API on a database of its own with machines 1 to 3 and parts 1 to 3, and a look behind it.
async fn factory(what: &str) -> (RunningApi, Client) {
    let url = postgres::database(what);
    let api = start(telemetry::config(&url)).await;
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
