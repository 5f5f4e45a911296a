//! The bridge as a whole: what is opened, what runs, how it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::BridgeConfig;
use crate::dead_letters::LastResort;
use crate::exchanges::{Exchanges, RecoveryError};
use crate::kafka::{Cluster, KafkaFault};
use crate::metrics;
use crate::routes::RouteTable;
use crate::sinks::Progress;
use crate::sinks::api::ApiSink;
use crate::sinks::kafka::KafkaSink;
use crate::spool::{Spool, SpoolError, Status};
use crate::tap::Ingest;

const KAFKA: &str = "kafka";
const API: &str = "api";
/// How often gauges are set and the spool's health is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long sinks that were told to stop may take: more than twice what they allow themselves.
const SINKS_END_WITHIN: Duration = Duration::from_secs(5);

/// Why a bridge cannot be opened, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum BridgeFault {
    #[error("the routes have {problems} problems, first {first}; `shopfloor check` lists all")]
    Routes { problems: usize, first: String },
    #[error("the production API sink: {0}")]
    Api(String),
    #[error("the spool cannot store messages")]
    Spool(#[from] SpoolError),
    #[error("the open QoS 2 exchanges cannot be recovered")]
    Exchanges(#[from] RecoveryError),
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    #[error("the {0} sink ended by itself, which is a fault of Shopfloor's")]
    SinkEnded(&'static str),
}

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatus {
    pub sink: &'static str,
    /// Records in the spool that it has not confirmed.
    pub lag_records: u64,
    /// What holds it up, in words for an operator.
    pub trouble: Option<String>,
    /// It has given up until a restart: `trouble` says why.
    pub halted: bool,
}

/// Routes, spool and sinks of one gateway. Clones share it.
#[derive(Debug, Clone)]
pub struct Bridge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: BridgeConfig,
    gateway: String,
    spool: Spool,
    cluster: Cluster,
    tap: Arc<Ingest>,
    exchanges: Arc<Exchanges>,
    last_resort: LastResort,
    kafka: Arc<Progress>,
    api: Option<Arc<Progress>>,
    /// Topics that the routes name in full.
    topics: Vec<String>,
}

impl Bridge {
    /// Opens the spool under `data_dir` and, where configured, starts the embedded Kafka. Reads and syncs: blocks.
    /// Neither Kafka nor the production API need to be there.
    pub fn open(config: BridgeConfig, gateway: &str, data_dir: &Path) -> Result<Self, BridgeFault> {
        let routes = RouteTable::compile(&config.routes).map_err(|problems| BridgeFault::Routes {
            problems: problems.len(),
            first: problems.first().map(ToString::to_string).unwrap_or_default(),
        })?;
        let mut topics: Vec<String> = routes.static_topics().map(str::to_owned).collect();
        topics.push(config.kafka.dead_letter_topic.clone());
        topics.sort_unstable();
        topics.dedup();
        let spool = Spool::open(&data_dir.join("spool"), gateway, config.spool.clone())?;
        metrics::torn(spool.recovery().torn.as_ref().map_or(0, |torn| torn.bytes));
        let kafka = Arc::new(Progress::new(KAFKA, spool.cursor(KAFKA)?));
        let api = match config.api.url {
            Some(_) => Some(Arc::new(Progress::new(API, spool.cursor(API)?))),
            None => {
                forget_idle_cursor(&spool)?;
                None
            }
        };
        let cluster = Cluster::open(&config.kafka)?;
        let exchanges = Arc::new(Exchanges::recover(data_dir, &spool)?);
        let tap = Arc::new(Ingest::new(
            routes,
            spool.clone(),
            exchanges.clone(),
            api.is_some(),
            config.spool.commit_max_bytes,
        ));
        let last_resort = LastResort::new(data_dir, gateway, &config.spool);
        let gateway = gateway.to_owned();
        let shared = Shared {
            config,
            gateway,
            spool,
            cluster,
            tap,
            exchanges,
            last_resort,
            kafka,
            api,
            topics,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Where the front hands over its messages.
    pub fn tap(&self) -> Arc<Ingest> {
        self.shared.tap.clone()
    }

    /// The Kafka that the sink writes to.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    pub fn spool_status(&self) -> Status {
        self.shared.spool.status()
    }

    /// How far each sink is.
    pub fn sinks(&self) -> Vec<SinkStatus> {
        let next = self.shared.spool.status().next_sequence;
        self.progress()
            .map(|progress| SinkStatus {
                sink: progress.sink(),
                lag_records: next.saturating_sub(progress.cursor().position()),
                trouble: progress.trouble(),
                halted: progress.is_halted(),
            })
            .collect()
    }

    /// Resolves when every sink has confirmed everything that is durable, dead letters that came of it included.
    pub async fn caught_up(&self) {
        loop {
            let next = self.shared.spool.status().next_sequence;
            for progress in self.progress() {
                progress.reached(next).await;
            }
            if self.shared.spool.status().next_sequence == next {
                return;
            }
        }
    }

    fn progress(&self) -> impl Iterator<Item = &Arc<Progress>> {
        std::iter::once(&self.shared.kafka).chain(&self.shared.api)
    }

    /// Runs the sinks until `shutdown`, then waits for them to catch up, at most `drain_timeout_ms`, and closes the
    /// spool. Stop the front before: what it hands over later is refused.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), BridgeFault> {
        let stop = CancellationToken::new();
        let mut sinks = self.spawn_sinks(&stop)?;
        let keeping = tokio::spawn(self.shared.exchanges.clone().run(stop.clone()));
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            fault = self.watch() => Err(fault),
            ended = sinks.join_next() => Err(BridgeFault::SinkEnded(match ended {
                Some(Ok(sink)) => sink,
                _ => "crashed",
            })),
        };
        if ended.is_ok() {
            self.drain().await;
        }
        stop.cancel();
        end(sinks, SINKS_END_WITHIN).await;
        let _crashed = keeping.await;
        let closed = self.shared.spool.close().await;
        self.shared.last_resort.close().await?;
        ended.and(closed.map_err(BridgeFault::from))
    }

    fn spawn_sinks(&self, stop: &CancellationToken) -> Result<JoinSet<&'static str>, BridgeFault> {
        let shared = &self.shared;
        let kafka = KafkaSink {
            spool: shared.spool.clone(),
            progress: shared.kafka.clone(),
            cluster: shared.cluster.clone(),
            config: shared.config.kafka.clone(),
            gateway: Bytes::copy_from_slice(shared.gateway.as_bytes()),
            topics: shared.topics.clone(),
            last_resort: shared.last_resort.until(stop),
        };
        let api = shared.api.as_ref().map(|progress| {
            ApiSink::new(
                shared.spool.clone(),
                progress.clone(),
                shared.config.api.clone(),
                shared.gateway.clone(),
                shared.last_resort.until(stop),
            )
        });
        let api = api.transpose().map_err(BridgeFault::Api)?;
        let mut sinks = JoinSet::new();
        let stopped = stop.clone();
        sinks.spawn(async move {
            kafka.run(stopped).await;
            KAFKA
        });
        if let Some(api) = api {
            let stopped = stop.clone();
            sinks.spawn(async move {
                api.run(stopped).await;
                API
            });
        }
        Ok(sinks)
    }

    /// Sets the gauges; returns when the spool has stopped by a fault.
    async fn watch(&self) -> BridgeFault {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            if let Some(fault) = self.shared.spool.fault() {
                return fault.into();
            }
            for sink in self.sinks() {
                metrics::lag(sink.sink, sink.lag_records);
            }
        }
    }

    async fn drain(&self) {
        let limit = Duration::from_millis(self.shared.config.drain_timeout_ms.into());
        if tokio::time::timeout(limit, self.caught_up()).await.is_err() {
            for sink in self.sinks().into_iter().filter(|sink| sink.lag_records > 0) {
                let SinkStatus {
                    sink,
                    lag_records,
                    trouble,
                    ..
                } = sink;
                tracing::warn!(
                    sink,
                    lag_records,
                    trouble,
                    "stopped before the sink had caught up; the spool keeps the rest"
                );
            }
        }
    }
}

/// Waits for sinks that were told to stop; one that does not is cut off. Nothing is lost with it: its cursor stays.
async fn end(mut sinks: JoinSet<&'static str>, within: Duration) {
    let ended = async { while sinks.join_next().await.is_some() {} };
    if tokio::time::timeout(within, ended).await.is_err() {
        tracing::warn!(
            sinks = sinks.len(),
            within_ms = within.as_millis() as u64,
            "sinks that were told to stop did not, and are cut off; the spool keeps what they had in hand"
        );
        sinks.abort_all();
    }
}

/// Without an API its cursor would keep every record for ever; but what waits for the API is not given up.
fn forget_idle_cursor(spool: &Spool) -> Result<(), SpoolError> {
    let found = spool
        .status()
        .cursors
        .into_iter()
        .find(|cursor| cursor.name == API);
    match found {
        None => Ok(()),
        Some(cursor) if cursor.lag == 0 => spool.forget_cursor(API),
        Some(cursor) => {
            tracing::warn!(
                records = cursor.lag,
                "records wait for the production API, which is not configured any more; the spool keeps them"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
