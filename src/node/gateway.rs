//! One gateway: MQTT front, bridge, admin endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use shopfloor_bridge::{Bridge, BridgeFault};
use shopfloor_broker::Front;
use shopfloor_runtime::accept::Listener;
use shopfloor_runtime::admin::{Admin, Check};
use shopfloor_runtime::telemetry::PrometheusHandle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;

/// A running gateway.
#[derive(Debug)]
pub struct GatewayNode {
    /// Where devices connect.
    pub mqtt: Vec<SocketAddr>,
    pub bridge: Bridge,
    front: JoinHandle<bool>,
    front_stop: CancellationToken,
    sinks: JoinHandle<Result<(), BridgeFault>>,
    sinks_stop: CancellationToken,
    admin_stop: CancellationToken,
}

impl GatewayNode {
    /// Opens the spool, binds the listeners and serves. Neither Kafka nor the production API need to be there.
    pub async fn start(config: &Config, metrics: Option<PrometheusHandle>) -> Result<Self> {
        let (bridge_config, id) = (config.bridge.clone(), config.gateway.id.clone());
        let data_dir = config.gateway.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Bridge::open(bridge_config, &id, &data_dir));
        let bridge = opened
            .await
            .context("opening the bridge crashed")?
            .with_context(|| {
                format!(
                    "cannot open the gateway's data directory {}",
                    config.gateway.data_dir.display()
                )
            })?;

        let front_stop = CancellationToken::new();
        let (mqtt_config, tap, stop) = (config.mqtt.clone(), bridge.tap(), front_stop.clone());
        let sessions_dir = config.gateway.data_dir.join("sessions");
        let opened = tokio::task::spawn_blocking(move || Front::open(mqtt_config, tap, &sessions_dir, stop));
        let front = opened
            .await
            .context("opening the sessions crashed")?
            .context("cannot open the sessions in the gateway's data directory")?;
        let listeners = front.bind().await?;
        let mqtt = listeners
            .iter()
            .map(Listener::local_addr)
            .collect::<Result<_, _>>()?;
        let admin_stop = CancellationToken::new();
        if let Some(metrics) = metrics {
            serve_admin(config, metrics, &bridge, &front, admin_stop.clone()).await?;
        }

        let sinks_stop = CancellationToken::new();
        let (running, stop) = (bridge.clone(), sinks_stop.clone());
        let sinks = tokio::spawn(async move { running.run(stop).await });
        let front = tokio::spawn(async move { front.serve(listeners).await });
        Ok(Self {
            mqtt,
            bridge,
            front,
            front_stop,
            sinks,
            sinks_stop,
            admin_stop,
        })
    }

    /// Resolves when the bridge has ended by itself: a fault that the gateway cannot go on with.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.sinks).await {
            Ok(Ok(())) => anyhow::anyhow!("the bridge ended by itself"),
            Ok(Err(fault)) => anyhow::Error::new(fault).context("the gateway cannot go on"),
            Err(crash) => anyhow::Error::new(crash).context("the bridge crashed"),
        }
    }

    /// Stops in the order of the data: devices first, then the sinks once they have caught up (bounded), then the
    /// spool. What the sinks had no time for stays in the spool for the next start.
    pub async fn stop(self) -> Result<()> {
        self.front_stop.cancel();
        let drained = self.front.await.context("the MQTT front crashed")?;
        self.sinks_stop.cancel();
        let closed = self.sinks.await.context("the bridge crashed")?;
        self.admin_stop.cancel();
        if !drained {
            tracing::warn!("some MQTT connections did not end in time and were cut");
        }
        Ok(closed?)
    }
}

async fn serve_admin(
    config: &Config,
    metrics: PrometheusHandle,
    bridge: &Bridge,
    front: &Front,
    stop: CancellationToken,
) -> Result<()> {
    let ready = bridge.clone();
    let spool: Check = Arc::new(move || {
        let bridge = ready.clone();
        Box::pin(async move {
            if let Some(sink) = bridge.sinks().into_iter().find(|sink| sink.halted) {
                let why = sink.trouble.unwrap_or_default();
                return Err(format!("the {} sink has given up: {why}", sink.sink));
            }
            match bridge.spool_status().held {
                None => Ok(()),
                Some(hold) => Err(format!("takes no messages: {hold} ({})", hold.kind())),
            }
        })
    });
    let kept = front.clone();
    let sessions: Check = Arc::new(move || {
        let trouble = kept.persistence_trouble();
        Box::pin(async move {
            trouble.map_or(Ok(()), |trouble| {
                Err(format!(
                    "sessions and retained messages cannot be written: {trouble}"
                ))
            })
        })
    });
    let admin = Admin::new(metrics, vec![("spool", spool), ("sessions", sessions)]);
    let listener = Listener::bind("admin", config.admin.clone()).await?;
    tokio::spawn(admin.serve(listener, stop, TaskTracker::new()));
    Ok(())
}
