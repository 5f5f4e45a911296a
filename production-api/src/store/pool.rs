//! The pool of connections, the schema they need, and transactions on them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
    Transaction,
};
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

use super::config::DatabaseConfig;
use super::error::StoreError;
use super::idempotency::Claim;
use super::list_share::Lists;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Held while migrating, so that processes that start together migrate one after the other.
const MIGRATION_LOCK: i64 = 0x5348_4f50_464c_4f4f;

/// A connection that was handed out longer ago than this must show that it still answers. One that hangs without a
/// reset comes back with the request that gave up on it, and nothing else tells it from a good one.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// Time for that answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements, each with its timeout, that one piece of background work may wait for.
const STATEMENTS_OF_A_JOB: u32 = 3;

/// The database, through a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    /// For connections that are not the pool's.
    pub(super) postgres: tokio_postgres::Config,
    pub(super) lists: Lists,
    job_timeout: Duration,
    /// The key under which the next write answers.
    pub(super) claim: Option<Arc<Claim>>,
}

impl Store {
    /// Makes the pool. Nothing connects yet.
    pub fn new(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let mut postgres: tokio_postgres::Config = config.url.parse()?;
        let timeout = Duration::from_millis(config.connect_timeout_ms);
        let mut options = postgres.get_options().unwrap_or_default().to_owned();
        options.push_str(&format!(
            " -c statement_timeout={} -c timezone=UTC",
            config.statement_timeout_ms
        ));
        postgres
            .options(options)
            .application_name("shopfloor-api")
            .connect_timeout(timeout)
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(Duration::from_secs(10));
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_config(postgres.clone(), NoTls, recycling))
            .max_size(config.max_connections)
            .wait_timeout(Some(timeout))
            .create_timeout(Some(timeout))
            .recycle_timeout(Some(timeout))
            .pre_recycle(Hook::async_fn(|client, metrics| {
                let used_ago = metrics.last_used();
                Box::pin(still_answers(client, used_ago))
            }))
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self {
            pool,
            postgres,
            lists: Lists::new(config),
            job_timeout: timeout
                + Duration::from_millis(config.statement_timeout_ms).saturating_mul(STATEMENTS_OF_A_JOB),
            claim: None,
        })
    }

    /// `host:port/database`, for messages: no user, no password.
    pub fn address(&self) -> String {
        let host = match self.postgres.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.postgres.get_ports().first().unwrap_or(&5432);
        format!("{host}:{port}/{}", self.postgres.get_dbname().unwrap_or_default())
    }

    /// Brings the database to this build's level, from empty, from the original's or from an older one.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        client.batch_execute("SET statement_timeout = 0").await?;
        client
            .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
            .await?;
        let outcome = embedded::migrations::runner().run_async(&mut **client).await;
        // This connection carries the lock and a changed setting: it ends here instead of returning to the pool.
        drop(Object::take(client));
        let report = outcome.map_err(|error| StoreError::Migration(Box::new(error)))?;
        for migration in report.applied_migrations() {
            tracing::info!(%migration, "migrated");
        }
        Ok(())
    }

    /// `Ok` when Postgres answers and its schema is at this build's level; else why not, for an operator.
    pub async fn ready(&self) -> Result<(), String> {
        let wanted = embedded::migrations::runner()
            .get_migrations()
            .iter()
            .map(|migration| i64::from(migration.version()))
            .max()
            .unwrap_or_default();
        let read = async {
            let client = self.client().await?;
            let statement = "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history";
            Ok::<i64, StoreError>(client.query_one(statement, &[]).await?.get(0))
        };
        match read.await {
            Ok(level) if level >= wanted => Ok(()),
            Ok(level) => Err(format!(
                "the schema is at migration {level}, this build needs {wanted}"
            )),
            Err(error) => Err(format!("Postgres does not answer: {}", error.chain())),
        }
    }

    /// Background work, given up when Postgres stays silent: no request's timeout ends it, and a connection that
    /// hangs without a reset would hold it for ever.
    pub(crate) async fn bounded<T>(
        &self,
        job: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let limit = self.job_timeout;
        let done = tokio::time::timeout(limit, job).await;
        done.unwrap_or(Err(StoreError::Silent(limit)))
    }

    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }
}

async fn still_answers(client: &ClientWrapper, used_ago: Duration) -> Result<(), HookError> {
    if used_ago < TRUSTED_FOR {
        return Ok(());
    }
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.simple_query("")).await;
    match asked {
        Ok(answer) => answer.map(drop).map_err(HookError::Backend),
        Err(_elapsed) => Err(HookError::message("it does not answer")),
    }
}

/// Begins a transaction on a pooled connection.
pub(crate) async fn begin(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    Ok(client.transaction().await?)
}
