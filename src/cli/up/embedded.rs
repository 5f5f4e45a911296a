//! Everything in one process: the gateway with the embedded Kafka, the API, a private Postgres beside it.

use anyhow::{Context, Result};
use shopfloor::config::Config;
use shopfloor::node::{ApiNode, GatewayNode};
use shopfloor_runtime::telemetry;

use super::{Args, DATABASE, Site, loopback, start_postgres};

/// The two servers of this process.
pub(super) struct Servers {
    gateway: GatewayNode,
    api: ApiNode,
}

pub(super) async fn start(args: &Args) -> Result<Site> {
    let metrics = telemetry::init_metrics().context("cannot install the metrics recorder")?;
    shopfloor_broker::metrics::describe();
    shopfloor_bridge::metrics::describe();
    shopfloor_api::metrics::describe();
    let postgres = start_postgres(args).await?;

    let mut config = Config::default();
    config.gateway.id = "up".into();
    config.gateway.data_dir = args.dir.join("gateway");
    config.mqtt.auth.allow_anonymous = true;
    for listener in &mut config.mqtt.listeners {
        listener.listen = loopback(args.mqtt_port);
    }
    config.admin.listen = loopback(args.admin_port);
    config.api.listener.listen = loopback(args.rest_port);
    config.api.mqtt.addresses = vec![loopback(args.mqtt_port).to_string()];
    config.api.database.url = postgres.url(DATABASE);
    config.bridge.api.url = Some(format!("http://{}", config.api.listener.listen));

    let gateway = GatewayNode::start(&config, Some(metrics)).await?;
    let kafka = gateway.bridge.cluster().clone();
    let api = ApiNode::start(&config, Some(&kafka), None).await?;
    Ok(Site {
        mqtt: loopback(args.mqtt_port),
        rest: api.address,
        admin: vec![config.admin.listen],
        kafka,
        postgres,
        servers: super::Servers::Embedded(Box::new(Servers { gateway, api })),
    })
}

impl Servers {
    pub(super) async fn stop(self) -> Result<()> {
        self.gateway.stop().await?;
        self.api.stop().await;
        Ok(())
    }
}
