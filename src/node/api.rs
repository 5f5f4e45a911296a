//! One production API: listener, outbox relay, admin endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use shopfloor_api::{Api, Store};
use shopfloor_bridge::kafka::Cluster;
use shopfloor_runtime::accept::Listener;
use shopfloor_runtime::admin::{Admin, Check};
use shopfloor_runtime::shutdown;
use shopfloor_runtime::telemetry::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::records;
use crate::config::Config;

/// Time for requests under way and for the relay's last batch.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A running API.
#[derive(Debug)]
pub struct ApiNode {
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    admin_stop: CancellationToken,
}

impl ApiNode {
    /// Takes its addresses, migrates the database and serves. Without `kafka`, records wait in the outbox.
    pub async fn start(
        config: &Config,
        kafka: Option<&Cluster>,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self> {
        let store = Store::new(&config.api.database).context("cannot use the database")?;
        // Before anything else: a process that cannot serve leaves the database as it is.
        let listener = Listener::bind("api", config.api.listener.clone()).await?;
        let address = listener.local_addr()?;
        let admin = match metrics {
            Some(metrics) => Some((Listener::bind("admin", config.admin.clone()).await?, metrics)),
            None => None,
        };
        let publisher = records::publisher(kafka).context("cannot make a Kafka producer")?;
        let api = Api::new(config.api.clone(), store.clone(), publisher);
        let (stop, admin_stop, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        // Before the migrations, which may take long: it lives, and is not ready.
        if let Some((listener, metrics)) = admin {
            serve_admin(listener, metrics, &api, admin_stop.clone());
        }
        if let Err(error) = store.migrate().await {
            admin_stop.cancel();
            return Err(error).with_context(|| {
                format!(
                    "cannot use the database {}: start Postgres and make that database, or name another with \
                     --database-url or api.database.url",
                    store.address()
                )
            });
        }
        if kafka.is_some() {
            api.start_background(&stop, &tasks);
        } else {
            api.start_upkeep(&stop, &tasks);
        }
        tasks.spawn(api.serve(listener, stop.clone(), tasks.clone()));
        Ok(Self {
            address,
            stop,
            tasks,
            admin_stop,
        })
    }

    /// Takes no more connections, finishes the requests under way, stops the relay.
    pub async fn stop(self) {
        self.stop.cancel();
        shutdown::drain(&self.tasks, DRAIN_TIMEOUT).await;
        self.admin_stop.cancel();
    }
}

fn serve_admin(listener: Listener, metrics: PrometheusHandle, api: &Api, stop: CancellationToken) {
    let store = api.store().clone();
    let postgres: Check = Arc::new(move || {
        let store = store.clone();
        Box::pin(async move { store.ready().await })
    });
    let mut checks = vec![("postgres", postgres)];
    if let Some(identity) = api.identity().cloned() {
        let keys: Check = Arc::new(move || Box::pin(std::future::ready(identity.ready())));
        checks.push(("identity", keys));
    }
    let admin = Admin::new(metrics, checks);
    tokio::spawn(admin.serve(listener, stop, TaskTracker::new()));
}
