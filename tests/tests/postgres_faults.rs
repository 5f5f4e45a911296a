//! Postgres killed, stopped and restarted, and the network to it cut, silent or losing answers, all under load: no write
//! is half there, no connection leaks, `/ready` tells the truth, and the same process serves afterwards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shopfloor::config::Config;
use shopfloor::node::ApiNode;
use shopfloor::parts::process::free_port;
use shopfloor_api::Store;
use shopfloor_runtime::telemetry::init_metrics;
use shopfloor_tests::proxy::{Network, Proxy};
use shopfloor_tests::rest::Server;
use shopfloor_tests::{database, http, postgres};
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 24;
const MAX_CONNECTIONS: usize = 8;
/// Rows that one request writes.
const BATCH: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);

/// Clients that write batches of materials, each with names of its own, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    /// The names' common part, and what the answer was.
    answers: Arc<Mutex<Vec<(String, u16)>>>,
    successes: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(server: &Arc<Server>) -> Self {
        let (stop, answers, successes) = (Arc::<AtomicBool>::default(), Arc::default(), Arc::default());
        let clients = (0..CLIENTS).map(|client| {
            let (server, stop) = (Arc::clone(server), Arc::clone(&stop));
            let answers: Arc<Mutex<Vec<(String, u16)>>> = Arc::clone(&answers);
            let successes: Arc<AtomicUsize> = Arc::clone(&successes);
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let batch = format!("{client}-{number}");
                    let names: Vec<Value> = (0..BATCH)
                        .map(|row| json!({"name": format!("{batch}-{row}")}))
                        .collect();
                    let body = json!({ "materials": names });
                    let answer = server.json("POST", "/materials/many-materials", body).await;
                    successes.fetch_add(usize::from(answer.status == 201), Ordering::Relaxed);
                    answers.lock().unwrap().push((batch, answer.status));
                }
            })
        });
        let clients = clients.collect();
        Self {
            stop,
            answers,
            successes,
            clients,
        }
    }

    /// Waits until clients are served again, by the process that they always asked.
    async fn until_served(&self, after: &str) {
        let enough = self.successes.load(Ordering::Relaxed) + 3 * CLIENTS;
        let began = Instant::now();
        while self.successes.load(Ordering::Relaxed) < enough {
            assert!(
                began.elapsed() < WITHIN,
                "clients are not served again after {after}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn finish(self) -> Vec<(String, u16)> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

async fn until_ready_is(admin: SocketAddr, status: u16, what: &str) {
    let began = Instant::now();
    loop {
        let answer = block_in_place(|| http::get(admin, "/ready")).unwrap();
        if answer.status == status {
            return;
        }
        assert!(
            began.elapsed() < WITHIN,
            "{what}: /ready says {}: {}",
            answer.status,
            answer.body
        );
    }
}

/// Every batch is there whole or not at all, with a record each row, and what was answered with success is there.
async fn assert_no_half_write(db: &tokio_postgres::Client, answers: &[(String, u16)]) {
    let rows = |table: &str, name: &str| {
        format!("SELECT regexp_replace({name}, '-[0-9]+$', ''), count(*) FROM {table} GROUP BY 1 ORDER BY 1")
    };
    let stored = database::rows(db, &rows("material", "name")).await;
    let recorded = database::rows(db, &rows("outbox", "payload::json->>'name'")).await;
    assert_eq!(stored, recorded, "a record a row");
    for batch in &stored {
        assert!(batch.ends_with(&format!("|{BATCH}")), "a half write: {batch}");
    }
    let stored: std::collections::BTreeSet<_> =
        stored.iter().filter_map(|row| row.split('|').next()).collect();
    for (batch, status) in answers {
        match status {
            201 => assert!(
                stored.contains(batch.as_str()),
                "{batch} was answered with 201 and is not there"
            ),
            // Whether it was committed its client cannot know.
            503 => {}
            other => panic!("{batch} was answered with {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_postgres_no_write_is_half_no_connection_leaks_and_service_comes_back() {
    let mut cluster = block_in_place(postgres::own);
    cluster.create_database("faults").unwrap();
    let direct = cluster.url("faults");
    let proxy = Proxy::start(([127, 0, 0, 1], cluster.port()).into()).await;
    let url = direct.replace(
        &format!(":{}/", cluster.port()),
        &format!(":{}/", proxy.address().port()),
    );
    assert_ne!(url, direct, "the API goes through the proxy");

    let mut config = Config::default();
    config.api.listener.listen = "127.0.0.1:0".parse().unwrap();
    config.api.database.url.clone_from(&url);
    config.api.database.max_connections = MAX_CONNECTIONS;
    config.api.database.connect_timeout_ms = 1_000;
    config.api.request_timeout_ms = 3_000;
    config.api.mqtt.publish_timeout_ms = 2_000;
    config.api.rate_limit.enabled = false;
    config.admin.listen = ([127, 0, 0, 1], free_port().unwrap()).into();
    let admin = config.admin.listen;
    // Without Kafka every record stays in the outbox, where it is counted.
    let node = ApiNode::start(&config, None, Some(init_metrics().unwrap()))
        .await
        .unwrap();
    let store = Store::new(&config.api.database).unwrap();
    let server = Server::at(node.address, &direct, store, CancellationToken::new()).await;
    let server = Arc::new(server);
    until_ready_is(admin, 200, "at the start").await;
    let load = Load::start(&server);
    load.until_served("the start").await;

    proxy.cut();
    load.until_served("a cut").await;

    for network in [Network::Down, Network::Silent, Network::LosesAnswers] {
        proxy.set(network);
        until_ready_is(admin, 503, &format!("{network:?}")).await;
        // Connections that stand from before the fault, and what is lost on them, are the API's to find out.
        proxy.set(Network::Passes);
        load.until_served(&format!("{network:?}")).await;
        until_ready_is(admin, 200, &format!("after {network:?}")).await;
    }

    block_in_place(|| cluster.pause()).unwrap();
    until_ready_is(admin, 503, "Postgres stopped").await;
    block_in_place(|| cluster.resume()).unwrap();
    load.until_served("Postgres went on").await;

    for _ in 0..2 {
        block_in_place(|| cluster.kill()).unwrap();
        until_ready_is(admin, 503, "Postgres killed").await;
        block_in_place(|| cluster.restart()).unwrap();
        load.until_served("Postgres was restarted").await;
        until_ready_is(admin, 200, "Postgres restarted").await;
    }
    let answers = load.finish().await;
    let refused = answers.iter().filter(|(_, status)| *status != 201).count();
    assert!(refused > 0, "the faults met no request");

    // The pool, and one that upkeep may hold for a moment.
    let db = database::connect(&direct).await;
    let began = Instant::now();
    loop {
        let sessions = "SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%'), count(*)
            FROM pg_stat_activity WHERE application_name = 'shopfloor-api' AND datname = 'faults'";
        let counts = database::rows(&db, sessions).await.remove(0);
        let (in_transaction, all) = counts.split_once('|').unwrap();
        let all: usize = all.parse().unwrap();
        if in_transaction == "0" && all <= MAX_CONNECTIONS && proxy.open() <= MAX_CONNECTIONS {
            break;
        }
        assert!(
            began.elapsed() < WITHIN,
            "{all} sessions, {in_transaction} of them in a transaction; {} connections",
            proxy.open()
        );
    }
    assert_no_half_write(&db, &answers).await;
    // Every place of the pool works.
    let asked = (0..4 * MAX_CONNECTIONS).map(|_| server.get("/machine"));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    node.stop().await;
}
