//! `shopfloor gateway`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use shopfloor::config::Role;
use shopfloor::node::GatewayNode;
use shopfloor_bridge::config::Delivery;
use shopfloor_bridge::topic_name::CLIENT_TOPICS;
use shopfloor_runtime::{shutdown, telemetry};

use super::open_files;
use super::settings::ConfigFile;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut config = args.config.require(Role::Gateway)?;
    telemetry::init_logs(&config.log);
    open_files::fit(&mut config.mqtt.listeners, &mut config.admin);
    let metrics = telemetry::init_metrics().context("cannot install the metrics recorder")?;
    shopfloor_broker::metrics::describe();
    shopfloor_bridge::metrics::describe();
    let stop = shutdown::on_signal()?;
    let mut gateway = GatewayNode::start(&config, Some(metrics)).await?;
    tracing::info!(id = config.gateway.id, mqtt = ?gateway.mqtt, admin = %config.admin.listen, "the gateway serves");
    if config.bridge.kafka.is_embedded() {
        tracing::warn!(
            kafka = gateway.bridge.cluster().bootstrap_servers(),
            "Kafka is the embedded one, for a first look only: its records are in memory and gone at the end; set \
             bridge.kafka.bootstrap_servers"
        );
    }
    let kafka = &config.bridge.kafka;
    let topics = config.bridge.routes.iter().map(|route| route.topic.as_str());
    if let (Delivery::ExactlyOnce, Some(topic)) = (
        kafka.delivery,
        topics.into_iter().find(|topic| CLIENT_TOPICS.contains(topic)),
    ) {
        tracing::warn!(
            topic,
            "delivery is exactly-once: who reads this topic must know transactions. kafka-python 2.0.2 does not: it takes \
             their markers for records, of which the migration client dies"
        );
    }
    tokio::select! {
        () = stop.cancelled() => {}
        fault = gateway.failed() => return Err(fault),
    }
    gateway.stop().await?;
    tracing::info!("stopped; what the sinks had no time for is in the spool");
    Ok(ExitCode::SUCCESS)
}
