//! Databases that the API finds: empty, the original's, at an older level, or being migrated by another process.

use serde_json::json;
use shopfloor_api::{ApiConfig, Store};
use shopfloor_runtime::accept::ListenerConfig;
use shopfloor_tests::postgres;

use crate::server::Server;

const ORIGINAL_ROWS: &str = r#"
    INSERT INTO public.machine DEFAULT VALUES;
    INSERT INTO public.material (name) VALUES ('zinc'), ('iron');
    INSERT INTO public.part_information ("defaultPrice", "timeToProduce") VALUES (1.5, 10);
    INSERT INTO public.material_price (price, date, "materialId") VALUES (10, '11-10-2020', 1);
    INSERT INTO public.material_part_information VALUES (1, 1);
    INSERT INTO public.supply_chain ("machineId", "timeOfProduction", "partId", "order", var5)
        VALUES (1, 1702166400, 1, 5, true);
"#;

async fn original() -> String {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/original_schema.sql");
    let script = format!("{}\n{ORIGINAL_ROWS}", std::fs::read_to_string(schema).unwrap());
    tokio::task::spawn_blocking(move || {
        let url = postgres::database("original");
        let name = url.rsplit('/').next().unwrap();
        postgres::shared().psql(name, &script).unwrap();
        url
    })
    .await
    .unwrap()
}

fn store(url: &str) -> Store {
    let mut config = ApiConfig::default().database;
    config.url = url.to_owned();
    Store::new(&config).unwrap()
}

#[tokio::test]
async fn the_originals_database_is_served_with_its_rows_and_its_numbering() {
    let listener = ListenerConfig::new("127.0.0.1:0".parse().unwrap());
    let server = Server::start(&original().await, listener, |_| {}).await;
    assert_eq!(
        server.get("/materials").await.body,
        json!([{"id": 1, "name": "zinc"}, {"id": 2, "name": "iron"}])
    );
    let price = json!([{"id": 1, "price": "10", "date": "2020-11-10T00:00:00.000Z"}]);
    assert_eq!(server.get("/materials/prices/1").await.body, price);
    let units = server.get("/supply-chain").await.body;
    assert_eq!(units[0]["timeOfProduction"], "2023-12-10T00:00:00.000Z");
    assert_eq!(
        server
            .json("POST", "/materials", json!({"name": "tin"}))
            .await
            .body["id"],
        3
    );
    assert_eq!(server.json("DELETE", "/machine/1", json!(null)).await.status, 409);
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_not_ready_and_says_what_it_needs() {
    let store = store(&original().await);
    assert!(store.ready().await.is_err());
    store.migrate().await.unwrap();
    assert_eq!(store.ready().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_together_migrate_one_after_the_other() {
    let url = tokio::task::spawn_blocking(|| postgres::database("together"))
        .await
        .unwrap();
    let starts = (0..5).map(|_| {
        let store = store(&url);
        tokio::spawn(async move { store.migrate().await })
    });
    for outcome in futures_util::future::join_all(starts).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(store(&url).ready().await, Ok(()));
}

#[tokio::test]
async fn an_empty_database_gets_the_originals_tables_exactly() {
    let columns = "SELECT table_name, column_name, data_type, is_nullable, column_default
                   FROM information_schema.columns WHERE table_schema = 'public' AND table_name IN
                   ('machine', 'material', 'material_part_information', 'material_price', 'part_information',
                    'supply_chain') ORDER BY 1, ordinal_position;
                   SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
                   WHERE connamespace = 'public'::regnamespace AND conname ~ '^(PK|FK|UQ)_' ORDER BY 1, 2;
                   SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname ~ '^IDX_'
                   ORDER BY 1;";
    let original = original().await;
    let fresh = tokio::task::spawn_blocking(|| postgres::database("empty"))
        .await
        .unwrap();
    store(&fresh).migrate().await.unwrap();
    let describe = |url: String| {
        tokio::task::spawn_blocking(move || {
            postgres::shared()
                .psql(url.rsplit('/').next().unwrap(), columns)
                .unwrap()
        })
    };
    let (original, fresh) = (describe(original).await.unwrap(), describe(fresh).await.unwrap());
    assert!(original.lines().count() > 30);
    assert_eq!(fresh, original);
}
